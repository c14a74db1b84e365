//! Proofs that a transaction was executed, and with which outcome, against the receipts root of a header alone.

use bizra_proto::ceremony::decode_hex;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::Digest;
use serde::{Deserialize, Serialize};

use super::checkpoint::{BlockSummary, checkpoint_of, covered};
use super::merkle;
use super::reader::LedgerReader;
use super::receipt::Receipt;
use crate::storage::StorageError;
use crate::transaction::{TraceId, TransactionId};
use bizra_ledger::Failure;

/// Longest path in a block: it holds fewer than 2^32 transactions.
const PATH_MAX: usize = 32;

/// Leads from a receipt to the receipts root of the checkpoint that covers its block. Bytes are lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InclusionProof {
    /// The transaction.
    pub transaction_id: String,
    /// Height of its block.
    pub height: u64,
    /// Position among the transactions the block executed.
    pub index: u32,
    /// Number of its failure; 0 if it was applied.
    pub outcome: u8,
    /// How many transactions the block executed.
    pub transactions: u32,
    /// From the transaction's id to the block's transactions root.
    pub transaction_path: Vec<String>,
    /// From the receipt to the block's receipts root.
    pub receipt_path: Vec<String>,
    /// Height of the checkpoint.
    pub checkpoint: u64,
    /// From the block to the checkpoint's receipts root.
    pub block_path: Vec<String>,
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A field has a value no proof has.
    #[error("the proof is malformed: {0}")]
    Malformed(&'static str),
    /// It leads to another root.
    #[error("the proof leads to receipts root {found}, not to {wanted}")]
    AnotherRoot {
        /// Where it leads.
        found: Digest,
        /// Where it should.
        wanted: Digest,
    },
}

fn hex_path(path: &[Digest]) -> Vec<String> {
    path.iter().map(ToString::to_string).collect()
}

fn digests(path: &[String]) -> Option<Vec<Digest>> {
    let within = path.get(..path.len().min(PATH_MAX + 1))?;
    within.iter().map(|text| decode_hex(text).map(Digest)).collect()
}

impl InclusionProof {
    /// Checks that the proof leads to `receipts`, the receipts root that a header names for [`Self::checkpoint`]. Returns
    /// the outcome it proves: `None` if the transaction was applied.
    pub fn verify(&self, receipts: Digest) -> Result<Option<Failure>, ProofError> {
        let malformed = |what| move || ProofError::Malformed(what);
        let id = decode_hex(&self.transaction_id).map(TransactionId).ok_or_else(malformed("transactionId"))?;
        let failure = match self.outcome {
            0 => None,
            code => Some(Failure::from_number(code).ok_or_else(malformed("outcome"))?),
        };
        let receipt = Receipt { id, height: self.height, index: self.index, failure, trace: TraceId::default() };
        let climb =
            |leaf, path: &[String]| merkle::climb(leaf, self.index.into(), self.transactions.into(), &digests(path)?);
        let transactions_root =
            climb(merkle::leaf(&id.0), &self.transaction_path).ok_or_else(malformed("transactionPath"))?;
        let receipts_root =
            climb(merkle::leaf(&receipt.encode()), &self.receipt_path).ok_or_else(malformed("receiptPath"))?;
        if self.height == 0 || checkpoint_of(self.height) != self.checkpoint {
            return Err(ProofError::Malformed("checkpoint"));
        }
        let block = BlockSummary::leaf(self.height, transactions_root, receipts_root);
        let position = (self.height - 1) % CHECKPOINT_INTERVAL;
        let path = digests(&self.block_path).ok_or_else(malformed("blockPath"))?;
        let found = merkle::climb(block, position, CHECKPOINT_INTERVAL, &path).ok_or_else(malformed("blockPath"))?;
        if found == receipts { Ok(failure) } else { Err(ProofError::AnotherRoot { found, wanted: receipts }) }
    }
}

impl LedgerReader {
    /// The proof of an executed transaction. `ordered` are the ids of all transactions its block orders, in order.
    /// `None` while the checkpoint that covers the block is not executed, and where something was pruned.
    pub fn proof(&self, id: &TransactionId, ordered: &[TransactionId]) -> Result<Option<InclusionProof>, StorageError> {
        let Some(record) = self.transaction(id)? else { return Ok(None) };
        let Receipt { height, index, failure, .. } = record.receipt;
        let mut receipts = Vec::with_capacity(ordered.len());
        for record in self.transactions(ordered)?.into_iter().flatten() {
            // Of a duplicate only the first is executed here; one of an earlier block is not executed at all.
            if record.receipt.height == height && record.receipt.index as usize == receipts.len() {
                receipts.push(record.receipt);
            }
        }
        let checkpoint = checkpoint_of(height);
        let mut blocks = Vec::new();
        for height in covered(checkpoint) {
            let Some(summary) = self.block_summary(height)? else { return Ok(None) };
            blocks.push(summary);
        }
        let position = ((height - 1) % CHECKPOINT_INTERVAL) as usize;
        if blocks.get(position) != blocks.get(position).map(|block| BlockSummary::of(block.hash, &receipts)).as_ref() {
            // The batches or receipts of the block are not all there any more.
            return Ok(None);
        }
        let ids: Vec<Digest> = receipts.iter().map(|receipt| merkle::leaf(&receipt.id.0)).collect();
        let outcomes: Vec<Digest> = receipts.iter().map(|receipt| merkle::leaf(&receipt.encode())).collect();
        let leaves: Vec<Digest> = covered(checkpoint)
            .zip(&blocks)
            .map(|(height, block)| BlockSummary::leaf(height, block.transactions_root, block.receipts_root))
            .collect();
        let path = |leaves: &[Digest], index| merkle::path(leaves, index).as_deref().map(hex_path).unwrap_or_default();
        Ok(Some(InclusionProof {
            transaction_id: id.to_string(),
            height,
            index,
            outcome: failure.map_or(0, |failure| failure as u8),
            transactions: receipts.len() as u32,
            transaction_path: path(&ids, index as usize),
            receipt_path: path(&outcomes, index as usize),
            checkpoint,
            block_path: path(&leaves, position),
        }))
    }
}
