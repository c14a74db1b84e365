//! The controllers. Each has a folder with the same four files: observe, plan, act, report.

pub mod bizra_node;
pub mod caches;
pub mod conditions;
mod context;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod fixtures;
pub mod hosts;
pub mod jailings;
pub mod key_report;
#[cfg(test)]
// Its objects are few and small; whether they are copied does not matter.
#[allow(clippy::unwrap_used, clippy::panic, clippy::trivially_copy_pass_by_ref, clippy::cast_possible_wrap)]
mod model;
pub mod network;
pub mod node_pool;
pub mod ownership;
mod queue;
pub mod quorum;
mod reading;
mod run;
pub mod validator;
mod wake;

pub use context::{Context, Settings};
pub use reading::Source;
pub use run::{RunError, is_installed, run};

use std::time::Duration;

use crate::kubernetes::WriteError;

/// A number of a node as a status has it: Kubernetes knows no unsigned ones.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// When an object is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    again: Option<Duration>,
}

impl Action {
    /// After this time, or sooner if something happens.
    pub fn requeue(wait: Duration) -> Self {
        Self { again: Some(wait) }
    }

    /// When something happens.
    pub fn await_change() -> Self {
        Self { again: None }
    }
}

/// Why a reconciliation failed. It is tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server could not be read.
    #[error("failed to read {what}: {source}")]
    Observe {
        /// What was being read.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// An object could not be written as JSON or TOML.
    #[error("failed to build an object: {0}")]
    Build(String),
    /// A write failed.
    #[error(transparent)]
    Act(#[from] WriteError),
    /// Certificates could not be made.
    #[error(transparent)]
    Certificate(#[from] crate::certificates::CertificateError),
    /// It took too long; the API server may hang.
    #[error("no end after {} s; the API server may be overloaded", .0.as_secs())]
    TimedOut(Duration),
    /// The status could not be written.
    #[error("failed to write the status: {0}")]
    Report(#[source] kube::Error),
}

impl ReconcileError {
    /// The write that the API server refuses, if that is what failed.
    pub fn refusal(&self) -> Option<&WriteError> {
        match self {
            Self::Act(error) => Some(error).filter(|error| error.is_refusal()),
            _ => None,
        }
    }
}

impl From<serde_json::Error> for ReconcileError {
    fn from(error: serde_json::Error) -> Self {
        Self::Build(error.to_string())
    }
}
