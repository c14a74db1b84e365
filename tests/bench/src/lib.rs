//! What benches and fault campaigns share: validators as processes on loopback, asked from outside.

pub mod devnet;
pub mod http;

use clap::ValueEnum;

/// Why a bench could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file or process could not be used.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The validators did not come up, or stopped.
    #[error("{0}")]
    Devnet(String),
    /// The load gave no figures.
    #[error("the load failed: {0}")]
    Load(String),
    /// The bare signature check could not be measured.
    #[error("the bare signature check failed: {0}")]
    Signatures(String),
}

/// Whether validators check the signatures of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every validator checks every signature.
    Signed,
    /// Nobody checks any; on a chain that exists for this only.
    Opaque,
}

impl Mode {
    /// The name in figures and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Opaque => "opaque",
        }
    }
}
