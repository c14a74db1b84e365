//! Batches: the unit of dissemination. A validator packs admitted transactions into a batch, sends it once to every
//! other validator, and the chain orders its digest.

use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Largest payload of a batch, in bytes.
pub const BATCH_PAYLOAD_MAX_BYTES: usize = 512 * 1024;

const BATCH_DOMAIN: &[u8] = b"bizra/v1/batch\0";

/// Transactions on their way into the chain. The payload is opaque here; the application knows its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The epoch in which `origin` is a validator. A block orders batches of its own epoch and the one before.
    pub epoch: Epoch,
    /// The validator that admitted the transactions.
    pub origin: ValidatorIndex,
    /// Grows by one for each batch of an origin; gaps are allowed after a restart.
    pub sequence: u64,
    /// Encoded transactions.
    pub payload: Bytes,
    /// The origin's signature over [`Batch::digest`].
    pub signature: Signature,
}

impl Batch {
    /// What the chain orders: SHA-256 over genesis hash, epoch, origin, sequence and payload. The genesis hash keeps a
    /// batch of one chain out of another.
    pub fn digest(&self, genesis_hash: Digest) -> Digest {
        let mut hash = Sha256::new();
        hash.update(BATCH_DOMAIN);
        hash.update(genesis_hash.0);
        hash.update(self.epoch.0.to_be_bytes());
        hash.update(self.origin.0.to_be_bytes());
        hash.update(self.sequence.to_be_bytes());
        hash.update(&self.payload);
        Digest(hash.finalize().into())
    }

    /// True if a block of this epoch may order the batch.
    pub fn fits(&self, epoch: Epoch) -> bool {
        self.epoch == epoch || self.epoch.next() == epoch
    }
}
