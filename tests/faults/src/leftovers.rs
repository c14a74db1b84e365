//! What a run has made outside of its own memory: processes, mounts, loop devices, folders. Everything is written down
//! before it is used, so that a run that was killed is cleaned up by the next one; in reverse order of making.
//!
//! Processes are named by id and start time: an id that was given to another process meanwhile is left alone.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::FaultError;

/// The list of one work folder; cleans up when dropped.
pub(crate) struct Leftovers {
    path: PathBuf,
    list: File,
}

impl Leftovers {
    /// Cleans up after an earlier run and begins a new list.
    pub(crate) fn begin(path: &Path) -> Result<Self, FaultError> {
        clean(path);
        let list = OpenOptions::new().create(true).append(true).open(path);
        let list = list.map_err(|error| FaultError::Io(path.display().to_string(), error))?;
        Ok(Self { path: path.to_owned(), list })
    }

    fn note(&mut self, line: &str) -> Result<(), FaultError> {
        let written = writeln!(self.list, "{line}").and_then(|()| self.list.sync_data());
        written.map_err(|error| FaultError::Io(self.path.display().to_string(), error))
    }

    pub(crate) fn process(&mut self, process: u32) -> Result<(), FaultError> {
        let started = start_time(process).unwrap_or_default();
        self.note(&format!("process {process} {started}"))
    }

    pub(crate) fn mount(&mut self, path: &Path) -> Result<(), FaultError> {
        self.note(&format!("mount {}", path.display()))
    }

    pub(crate) fn loop_device(&mut self, device: &str, file: &Path) -> Result<(), FaultError> {
        self.note(&format!("loop {device} {}", file.display()))
    }

    pub(crate) fn folder(&mut self, path: &Path) -> Result<(), FaultError> {
        self.note(&format!("folder {}", path.display()))
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        clean(&self.path);
    }
}

/// Undoes everything on a list, the youngest first, then removes the list.
fn clean(path: &Path) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines().rev() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "process" => {
                let mut words = rest.split(' ').filter_map(|word| word.parse::<u64>().ok());
                if let (Some(process), Some(started)) = (words.next(), words.next())
                    && start_time(process as u32) == Some(started)
                    && let Some(process) = Pid::from_raw(process as i32)
                {
                    // An error means that it has just ended.
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            "mount" => {
                let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
                if mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(rest)) {
                    quietly("umount", &[rest]);
                }
            }
            "loop" => {
                if let Some((device, file)) = rest.split_once(' ')
                    && backing_file(device).is_some_and(|backing| backing.trim_end_matches(" (deleted)") == file)
                {
                    quietly("losetup", &["--detach", device]);
                }
            }
            // A folder that is a mount point still is not empty; what is left shows in `du`.
            "folder" => drop(std::fs::remove_dir_all(rest)),
            _ => {}
        }
    }
    // Nothing more can be done about it.
    let _ = std::fs::remove_file(path);
}

fn quietly(program: &str, arguments: &[&str]) {
    // Just after a kill a file system may be busy for a moment.
    for _ in 0..20 {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn backing_file(device: &str) -> Option<String> {
    let name = device.strip_prefix("/dev/")?;
    std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok().map(|text| text.trim().to_owned())
}

/// Start of a process in ticks since boot: together with the id it names one process for good.
fn start_time(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is the 20th field after it.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_killed_run_left_is_cleaned_up_by_the_next() {
        let work = std::env::temp_dir().join(format!("bizra-leftovers-{}", std::process::id()));
        let inner = work.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let list = work.join("leftovers");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut leftovers = Leftovers::begin(&list).unwrap();
        leftovers.folder(&inner).unwrap();
        leftovers.process(child.id()).unwrap();
        // As if killed: no clean-up of its own.
        std::mem::forget(leftovers);
        drop(Leftovers::begin(&list).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(!inner.exists() && !list.exists());
        std::fs::remove_dir_all(&work).unwrap();
    }

    #[test]
    fn a_process_that_was_given_an_old_id_is_left_alone() {
        let list = std::env::temp_dir().join(format!("bizra-leftovers-id-{}", std::process::id()));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(&list, format!("process {} 1\n", child.id())).unwrap();
        clean(&list);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
