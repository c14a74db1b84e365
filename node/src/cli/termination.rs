//! How a command ends: its exit code, and for the operator a termination message.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use bizra_proto::exit::Termination;

/// Environment variable with the file of the termination message, for use outside of Kubernetes.
pub const FILE_VARIABLE: &str = "BIZRA_TERMINATION_LOG";

/// Where Kubernetes looks by default.
const KUBERNETES_FILE: &str = "/dev/termination-log";

/// The kubelet cuts longer messages.
const MESSAGE_MAX_BYTES: usize = 4096;

/// Exit code after SIGTERM, by the convention of shells; an init container that was stopped must not look done.
const INTERRUPTED_CODE: u8 = 143;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The node stops for a reason the operator knows; see [`bizra_proto::exit`].
    #[error("{}: {}", .0.reason, .0.message)]
    Stopped(Termination),
    /// Anything else that a person at a terminal can read.
    #[error("{0}")]
    Failed(String),
    /// SIGTERM or Ctrl-C came before the command was done.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// From anything that knows its exit reason.
    pub fn stopped(error: impl Into<Termination>) -> Self {
        Self::Stopped(error.into())
    }

    /// From anything that can be shown.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Ends a command: logs the error, writes the termination message if the operator is to see it, returns the exit code.
pub fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(INTERRUPTED_CODE),
        Err(CliError::Failed(message)) => {
            // Standard error may be closed; there is nowhere else to complain.
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::FAILURE
        }
        Err(CliError::Stopped(termination)) => stop(&termination),
    }
}

/// Writes a [`Termination`] where the operator finds it and returns its exit code.
pub fn stop(termination: &Termination) -> ExitCode {
    tracing::error!(reason = %termination.reason, "stopped: {}", termination.message);
    if let Err(error) = write(termination) {
        tracing::warn!(%error, "the termination message cannot be written");
    }
    ExitCode::from(termination.reason.code())
}

/// Writes a document as termination message: to the file in `BIZRA_TERMINATION_LOG`, else to `/dev/termination-log` if
/// that exists, else to standard output.
pub fn write(document: &impl serde::Serialize) -> std::io::Result<()> {
    let text = serde_json::to_string(document)?;
    if text.len() > MESSAGE_MAX_BYTES {
        tracing::warn!(bytes = text.len(), "the termination message is longer than Kubernetes keeps");
    }
    match file() {
        Some(path) => {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
            file.write_all(text.as_bytes())
        }
        None => writeln!(std::io::stdout(), "{text}"),
    }
}

fn file() -> Option<PathBuf> {
    let chosen = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    chosen.or_else(|| Some(PathBuf::from(KUBERNETES_FILE)).filter(|path| path.exists()))
}
