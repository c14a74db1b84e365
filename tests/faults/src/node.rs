//! One validator as a process: started, killed, stopped in its tracks, asked.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bizra_bench::http;
use bizra_proto::exit::Termination;
use rustix::process::{Pid, Signal, kill_process};

use crate::FaultError;
use crate::layout::NodeFiles;
use crate::leftovers::Leftovers;

/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(15);

/// How long a stopped process may need to leave its processors.
const FREEZE: Duration = Duration::from_millis(20);

/// A validator, running or not.
pub(crate) struct Node {
    binary: PathBuf,
    pub(crate) files: NodeFiles,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(binary: PathBuf, files: NodeFiles) -> Self {
        Self { binary, files, child: None }
    }

    pub(crate) fn start(&mut self, leftovers: &mut Leftovers) -> Result<(), FaultError> {
        let failed = |error| FaultError::Io(self.binary.display().to_string(), error);
        let log = OpenOptions::new().append(true).create(true).open(&self.files.log_file).map_err(failed)?;
        // Whether an earlier start left one does not matter; a new one must be this start's.
        let _ = std::fs::remove_file(&self.files.termination_file);
        let child = Command::new(&self.binary)
            // The end of this process, however it comes, is the end of the node.
            .args(["run", "--stop-on-stdin-close", "--config"])
            .arg(&self.files.configuration_file)
            .env("BIZRA_TERMINATION_LOG", &self.files.termination_file)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        leftovers.process(child.id())?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    fn signal(&self, signal: Signal) {
        let process = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        if let Some(process) = process {
            // The child has not been waited for: its id is its own. An error means that it has ended.
            let _ = kill_process(process, signal);
        }
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            // Only fails for a process that was waited for.
            let _ = child.wait();
        }
    }

    /// Stops every thread where it is, and waits until none is on a processor. A thread within a system call ends it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let Some(child) = &self.child else { return };
        let deadline = Instant::now() + FREEZE;
        while Instant::now() < deadline && runs(child.id()) {
            std::thread::yield_now();
        }
    }

    /// Asks the node to stop and waits; false if it had to be killed.
    pub(crate) fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP;
        while self.is_running() {
            if Instant::now() > deadline {
                self.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.take().is_none_or(|mut child| child.wait().is_ok_and(|status| status.success()))
    }

    /// Why it stopped, in its own words.
    pub(crate) fn termination(&self) -> Option<Termination> {
        serde_json::from_slice(&std::fs::read(&self.files.termination_file).ok()?).ok()
    }

    pub(crate) fn get(&self, path: &str) -> Option<serde_json::Value> {
        let (status, body) = http::get(self.files.configuration.listen.http.port(), path)?;
        (status == 200).then(|| serde_json::from_str(&body).ok())?
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        http::metric(self.files.configuration.listen.monitoring.port(), name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.files.configuration.node_name
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// True if a thread of the process is on a processor or wants to be.
fn runs(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().any(|thread| {
        let text = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
    })
}
