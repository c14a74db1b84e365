//! What became of a transaction.

use crate::transaction::{TraceId, TransactionId};
use bizra_ledger::Failure;

/// The lasting outcome of one finalised transaction. The first one stands: a duplicate never changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub id: TransactionId,
    /// Height of its block.
    pub height: u64,
    /// Position among the transactions the block executed, duplicates not counted.
    pub index: u32,
    /// `None` if it was applied.
    pub failure: Option<Failure>,
    /// Trace id of its submit.
    pub trace: TraceId,
}

impl Receipt {
    /// Width of the encoded form.
    pub const ENCODED_BYTES: usize = 45;

    /// The leaf of the Merkle tree over a block's receipts: id, height, index and the number of the failure or 0. The
    /// trace id is not part of it; it is nobody's claim.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..40].copy_from_slice(&self.height.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.index.to_be_bytes());
        bytes[44] = self.failure.map_or(0, |failure| failure as u8);
        bytes
    }
}
