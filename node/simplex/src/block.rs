//! Blocks: an order over batches, by digest. A block's digest does not contain its view, so that the same block can be
//! proposed again in a later view.

use sha2::{Digest as _, Sha256};

use crate::types::{Digest, Epoch, Height};

/// Most batches one block may order. Bounds a proposal to a few kilobytes.
pub const BATCHES_PER_BLOCK_MAX: usize = 256;

const BLOCK_DOMAIN: &[u8] = b"bizra/v1/block\0";

/// A block: the next link of the chain and the batches it orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The epoch whose validators may vote for it.
    pub epoch: Epoch,
    /// One more than the parent's.
    pub height: Height,
    /// Digest of the parent block.
    pub parent: Digest,
    /// Milliseconds since 1970 on the proposer's clock, never below the parent's; informational.
    pub time_milliseconds: u64,
    /// Digests of the ordered batches, none twice.
    pub batches: Vec<Digest>,
}

impl Block {
    /// The block at height 0, the parent of the first proposal. It orders nothing and is final by definition.
    pub fn genesis(genesis_hash: Digest, time_milliseconds: u64) -> Self {
        Self { epoch: Epoch(0), height: Height(0), parent: genesis_hash, time_milliseconds, batches: Vec::new() }
    }

    /// Identifies the block: SHA-256 over the fixed layout of all its fields.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(BLOCK_DOMAIN);
        hash.update(self.epoch.0.to_be_bytes());
        hash.update(self.height.0.to_be_bytes());
        hash.update(self.parent.0);
        hash.update(self.time_milliseconds.to_be_bytes());
        hash.update((self.batches.len() as u64).to_be_bytes());
        for batch in &self.batches {
            hash.update(batch.0);
        }
        Digest(hash.finalize().into())
    }
}
