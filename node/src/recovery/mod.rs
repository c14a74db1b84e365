//! Recovery from the loss of a third of the power (PROTOCOL G3, E6): what survivors report, the document of a restart that
//! owners sign, and what applying it does to a node's volume.
//!
//! What enters: a stopped node's database and signing record, reports, documents. What leaves: reports, drafts, and the
//! documents that a volume has pinned, for consensus ([`PinnedRestarts::consensus`]) and ledger ([`PinnedRestarts::ledger`]).
//! Nothing here runs by itself: a person runs each step, see `docs/runbooks/mass-loss.md`.

mod apply;
mod document;
mod draft;
#[cfg(test)]
mod fixture;
mod pinned;
mod report;
mod survey;

pub use apply::{Applied, apply, raise_floor};
pub use document::{CheckedRestart, DocumentError, OwnerSignature, RestartDocument};
pub use draft::{Draft, DraftError, draft};
pub use pinned::PinnedRestarts;
pub use report::{Report, report};

use crate::blockchain::{LedgerError, RestartError};
use crate::configuration::ConfigurationError;
use crate::consensus::ConsensusError;
use crate::identity::IdentityError;
use crate::storage::StorageError;

/// Why a step of a recovery was not taken. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The genesis file.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The signer folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The signing record.
    #[error(transparent)]
    Record(#[from] ConsensusError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The document is not what it should be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What the chain says against it.
    #[error(transparent)]
    Restart(#[from] RestartError),
    /// The node runs.
    #[error("the node runs on this database; stop it first")]
    Running,
    /// There is nothing to report of.
    #[error("{0} holds no executed chain: this node is no survivor, and has nothing to report")]
    NoChain(String),
    /// This volume has pinned another document with the same number.
    #[error(
        "another document of restart {number} is pinned on this volume: {pinned}, not {given}; a volume follows one, for ever"
    )]
    AnotherPinned {
        /// The number.
        number: u64,
        /// Hash of the pinned one.
        pinned: String,
        /// Hash of the given one.
        given: String,
    },
    /// The document does not come after what is pinned.
    #[error("the document is restart {given}, and this volume has pinned {pinned}: apply every restart in its order")]
    OutOfOrder {
        /// Its number.
        given: u64,
        /// Number of the last pinned one.
        pinned: u64,
    },
    /// The node's own past contradicts the document.
    #[error("{0}")]
    Contradicts(String),
}
