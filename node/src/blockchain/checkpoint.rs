//! What a block and a checkpoint leave behind for proofs: roots and commitments.

use bizra_simplex::Checkpoint;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Height};

use super::merkle;
use super::receipt::Receipt;
use super::record::corrupt;
use crate::storage::{Fields, StorageError};

const VERSION: u8 = 1;

/// What executing one block left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// Digest of the block.
    pub hash: Digest,
    /// Transactions it executed.
    pub transactions: u32,
    /// Merkle root over their ids.
    pub transactions_root: Digest,
    /// Merkle root over their receipts.
    pub receipts_root: Digest,
}

/// The checkpoint that covers a height: the first one at or above it.
pub fn checkpoint_of(height: u64) -> u64 {
    height.div_ceil(CHECKPOINT_INTERVAL).saturating_mul(CHECKPOINT_INTERVAL)
}

/// Heights a checkpoint covers, ascending; none for the genesis.
pub(super) fn covered(checkpoint: u64) -> std::ops::RangeInclusive<u64> {
    checkpoint.saturating_sub(CHECKPOINT_INTERVAL) + 1..=checkpoint
}

pub(super) fn checkpoint_key(height: u64) -> [u8; 9] {
    super::record::numbered(b'c', height)
}

pub(super) fn summary_key(height: u64) -> [u8; 9] {
    super::record::numbered(b'r', height)
}

/// The stored form of a checkpoint; its height is in its key.
pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    [&[VERSION][..], &checkpoint.state.0, &checkpoint.receipts.0].concat()
}

pub(super) fn decode_checkpoint(height: u64, bytes: &[u8]) -> Result<Checkpoint, StorageError> {
    let mut fields = Fields(bytes);
    let mut read = || {
        fields.version(VERSION)?;
        let (state, receipts) = (Digest(fields.take()?), Digest(fields.take()?));
        fields.end().map(|()| Checkpoint { height: Height(height), state, receipts })
    };
    read().ok_or_else(|| corrupt("a checkpoint"))
}

impl BlockSummary {
    pub(super) fn of(hash: Digest, receipts: &[Receipt]) -> Self {
        let ids: Vec<Digest> = receipts.iter().map(|receipt| merkle::leaf(&receipt.id.0)).collect();
        let outcomes: Vec<Digest> = receipts.iter().map(|receipt| merkle::leaf(&receipt.encode())).collect();
        Self {
            hash,
            transactions: receipts.len() as u32,
            transactions_root: merkle::root(&ids),
            receipts_root: merkle::root(&outcomes),
        }
    }

    /// The block's leaf in the tree of its checkpoint: hash over its height and both of its roots.
    pub fn leaf(height: u64, transactions_root: Digest, receipts_root: Digest) -> Digest {
        merkle::leaf(&[&height.to_be_bytes()[..], &transactions_root.0, &receipts_root.0].concat())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let count = self.transactions.to_be_bytes();
        [&[VERSION][..], &self.hash.0, &count, &self.transactions_root.0, &self.receipts_root.0].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            fields.version(VERSION)?;
            let summary = Self {
                hash: Digest(fields.take()?),
                transactions: fields.u32()?,
                transactions_root: Digest(fields.take()?),
                receipts_root: Digest(fields.take()?),
            };
            fields.end().map(|()| summary)
        };
        read().ok_or_else(|| corrupt("a block's summary"))
    }
}
