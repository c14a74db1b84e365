//! Who this node is: its keys, the folder they are bound to, and its certificates.
//!
//! The room owns everything in `signer/` except the signing record (`record`), which belongs to `consensus`. Secrets are
//! born here, stay in memory that is wiped, and never leave: what goes out are public keys, proofs and requests.

pub mod authority;
pub mod certificates;
pub mod connection;
mod file;
pub mod keys;
pub mod volume;

use std::path::PathBuf;

use bizra_proto::exit::{ExitReason, Termination};
use bizra_simplex::types::Digest;

pub use authority::Authority;
pub use certificates::{CertificateFiles, Certificates};
pub use keys::{ConsensusKey, TlsKey};
pub use volume::SignerFolder;

/// What can be wrong with keys, their folder or certificates.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A read, write or sync failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Others than the owner may read or write a secret.
    #[error("{path} has mode {mode:04o}: others may read this secret; make it 0600 and rotate the key if it was seen")]
    Permissions {
        /// The secret.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of the signer folder is not what was written there.
    #[error("{path} is damaged: {what}; restore the volume, or delete the node and its claim to start with a new key")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Some files of the signer folder are there and some are not.
    #[error(
        "{path} holds {present} but not {missing}: part of it was lost, so this key must not sign; restore the volume, \
         or delete the node and its claim to start with a new key"
    )]
    Incomplete {
        /// The signer folder.
        path: PathBuf,
        /// What is there.
        present: String,
        /// What is not.
        missing: String,
    },
    /// The folder has no keys yet.
    #[error("{0} holds no keys yet; run `bizra-node init-key` first")]
    Missing(PathBuf),
    /// The folder was made on another volume.
    #[error(
        "the keys in {path} were made on volume {recorded}, and this is volume {given}: a copied key could sign twice; \
         give the node back its own volume, or delete the node and its claim to start with a new key"
    )]
    OtherVolume {
        /// The signer folder.
        path: PathBuf,
        /// The volume the keys were made on.
        recorded: String,
        /// The volume the caller says this is.
        given: String,
    },
    /// The folder has pinned another genesis.
    #[error(
        "this volume belongs to the chain with genesis {pinned}, and the genesis given has hash {given}: give the node \
         the genesis of its own chain, or delete its claim to start it on the new chain with a new key"
    )]
    OtherGenesis {
        /// Hash pinned on the volume.
        pinned: Digest,
        /// Hash of the genesis given.
        given: Digest,
    },
    /// A key, a request or a certificate could not be made or read.
    #[error("cannot {action}: {reason}")]
    Certificate {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// The certificate is for another key, from another authority, or out of date.
    #[error("certificate {path} {what}")]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// What is wrong with it and what helps.
        what: String,
    },
}

impl IdentityError {
    /// The exit code of a node that stops for this.
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Io { .. } => ExitReason::StorageFailed,
            Self::Permissions { .. }
            | Self::Damaged { .. }
            | Self::Incomplete { .. }
            | Self::Missing(_)
            | Self::OtherVolume { .. } => ExitReason::SigningRecordRefused,
            Self::OtherGenesis { .. } => ExitReason::WrongGenesis,
            Self::Certificate { .. } | Self::Unusable { .. } => ExitReason::InvalidConfiguration,
        }
    }
}

impl From<IdentityError> for Termination {
    fn from(error: IdentityError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}
