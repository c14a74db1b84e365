//! Processes of containers as this machine sees them: they are killed and stopped from the host, behind Kubernetes' back.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::SceneError;

/// A process of a pod.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    paused: bool,
}

impl Process {
    /// The one process of this program in the pod with this uid. The machine knows it by its control group.
    pub fn of_pod(pod_uid: &str, program: &str) -> Result<Self, SceneError> {
        let failed = |why: String| SceneError::Unexpected(format!("{program} of pod {pod_uid}: {why}"));
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(|error| failed(error.to_string()))? {
            let Ok(entry) = entry else { continue };
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // Processes come and go while the list is read.
            let read = |file: &str| std::fs::read_to_string(Path::new(&entry.path()).join(file)).unwrap_or_default();
            if let Some(pid) = pid
                && read("comm").trim_end() == program
                && read("cgroup").contains(pod_uid)
            {
                found.push(pid);
            }
        }
        match found[..] {
            [pid] => Ok(Self { pid, paused: false }),
            _ => Err(failed(format!("{} processes; is the cluster on this machine, and is this root?", found.len()))),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), SceneError> {
        kill_process(self.pid, signal)
            .map_err(|error| SceneError::Unexpected(format!("signal {signal:?} to process {:?}: {error}", self.pid)))
    }

    /// Its file system, as far as the machine lets root into it while the process lives.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid.as_raw_nonzero()))
    }

    /// Kills it at once.
    pub fn kill(self) -> Result<(), SceneError> {
        self.signal(Signal::KILL)
    }

    /// Stops it until it is resumed, at the latest when this is dropped.
    pub fn pause(&mut self) -> Result<(), SceneError> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    /// Lets it go on.
    pub fn resume(mut self) -> Result<(), SceneError> {
        self.paused = false;
        self.signal(Signal::CONT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.paused {
            // It may have been killed meanwhile.
            let _ = self.signal(Signal::CONT);
        }
    }
}
