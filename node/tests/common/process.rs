//! The binary, run.

use std::process::{Child, Command, Output, Stdio};

/// The binary with these arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bizra-node"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a command prints when it succeeds; otherwise its standard error.
pub(crate) fn run(arguments: &[&str]) -> Result<String, String> {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}

/// The document that a command prints.
pub(crate) fn json(arguments: &[&str]) -> serde_json::Value {
    let output = run(&[arguments, &["--output", "json"]].concat()).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&output).unwrap()
}

/// Killed at the latest when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Runs without an output.
    pub(crate) fn quiet(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Runs with standard error appended to a file.
    pub(crate) fn logged(command: &mut Command, file: &str) -> Self {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to stop, which it must do cleanly.
    pub(crate) fn stop(mut self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "it did not stop cleanly: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
