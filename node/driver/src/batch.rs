//! Batches: the unit of dissemination. A validator packs admitted transactions into a batch, sends it once to every
//! other validator, and the chain orders its digest.

use bizra_simplex::types::{Digest, Signature, ValidatorIndex};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Largest payload of a batch, in bytes.
pub const BATCH_PAYLOAD_MAX_BYTES: usize = 512 * 1024;

const BATCH_DOMAIN: &[u8] = b"bizra/v1/batch\0";

/// Transactions on their way into the chain. The payload is opaque here; the application knows its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
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
    /// What the chain orders: SHA-256 over genesis hash, origin, sequence and payload. The genesis hash keeps a batch
    /// of one chain out of another.
    pub fn digest(genesis_hash: Digest, origin: ValidatorIndex, sequence: u64, payload: &[u8]) -> Digest {
        let mut hash = Sha256::new();
        hash.update(BATCH_DOMAIN);
        hash.update(genesis_hash.0);
        hash.update(origin.0.to_be_bytes());
        hash.update(sequence.to_be_bytes());
        hash.update(payload);
        Digest(hash.finalize().into())
    }
}
