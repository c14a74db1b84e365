//! Forgetting: what the ledger keeps of old heights only to answer questions.
//!
//! The state itself is never pruned. Former values and receipts go by compaction; roots and checkpoints by range.

use super::checkpoint::{checkpoint_key, summary_key};
use super::record::{SUPERSEDED, corrupt, numbered, totals_key};
use crate::storage::{Database, Family, StorageError, Writes};
use bizra_ledger::RECEIPT_BLOCKS;

/// Key of the oldest retained height in the `Ledger` family.
pub(super) const OLDEST_KEY: &[u8] = b"oldest";

/// The oldest height questions are answered for; 0 if nothing was pruned.
pub(super) fn oldest_retained(database: &Database) -> Result<u64, StorageError> {
    let Some(value) = database.get(Family::Ledger, OLDEST_KEY)? else { return Ok(0) };
    let fixed = value.as_slice().try_into().map_err(|_| corrupt("the oldest height"))?;
    Ok(u64::from_be_bytes(fixed))
}

/// Writes that `oldest` is the oldest retained height from now on and removes what lies below. Once they are applied,
/// call [`forget_history`].
pub fn prune_ledger(writes: &mut Writes<'_>, before: u64, oldest: u64) -> Result<(), StorageError> {
    writes.put(Family::Ledger, OLDEST_KEY, &oldest.to_be_bytes())?;
    writes.delete_range(Family::Ledger, &summary_key(before), &summary_key(oldest))?;
    writes.delete_range(Family::Ledger, &checkpoint_key(before), &checkpoint_key(oldest))?;
    writes.delete_range(Family::Ledger, &totals_key(before), &totals_key(oldest))?;
    writes.delete_range(Family::Ledger, &numbered(SUPERSEDED, before), &numbered(SUPERSEDED, oldest))
}

/// Lets compaction drop former values that no retained height has, and receipts beyond both the retention and the
/// blocks for which a receipt keeps its transaction from being executed again, counted from `cutoff`: the oldest cut-off
/// height of which a snapshot may still have to be made.
pub fn forget_history(database: &Database, oldest: u64, cutoff: u64) {
    database.forget_through(oldest, oldest.min(cutoff.saturating_sub(RECEIPT_BLOCKS + 1)));
}
