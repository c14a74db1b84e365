//! The state as it was at an earlier checkpoint, rebuilt from the state now and its history into another database, and
//! the comparison of two databases that executed the same blocks.

use std::collections::BTreeMap;

use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::Digest;

use super::checkpoint::{checkpoint_key, decode_checkpoint, encode_checkpoint, summary_key};
use super::commitment::LtHash;
use super::history::{Value, decode_history, read_log};
use super::pruning::OLDEST_KEY;
use super::record::{LATTICE_KEY, STATE_KEY, SUPERSEDED, State, TransactionRecord, corrupt};
use super::restart::LedgerRestart;
use super::sealing::{CommitmentError, commitment, encode_lattice};
use super::state_entries;
use crate::storage::{Database, Entry, Family, StorageError};
use crate::transaction::Address;
use crate::validator::{Domain, EntryKey, Money, RECENT_BLOCKS, Stake};

/// Entries written to the other database at once.
const ENTRIES_PER_WRITE: usize = 10_000;

/// What happened in blocks above a checkpoint, to be taken back from the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Fees paid, base units.
    pub fees: u64,
    /// Transactions executed, failed ones included.
    pub transactions: u64,
    /// Slashed stake, base units.
    pub slashed: u64,
}

/// The lowest checkpoint whose state can be rebuilt when heights from `oldest` on are kept: the digests of the blocks
/// before it are part of it.
pub fn rebuildable(oldest: u64) -> u64 {
    match oldest {
        0 => 0,
        oldest => super::checkpoint_of(oldest.saturating_add(RECENT_BLOCKS)),
    }
}

/// Values that entries had at a checkpoint, of those that changed since.
fn former(source: &Database, checkpoint: u64, executed: u64) -> Result<BTreeMap<EntryKey, Value>, StorageError> {
    let mut former = BTreeMap::new();
    for item in source.scan(Family::History, &[])? {
        let (key, value) = item?;
        let (entry, sealed) = split_history_key(&key)?;
        if sealed > checkpoint && !former.contains_key(&entry) {
            let (_, old) = decode_history(sealed, &value)?.into_iter().next().ok_or_else(|| corrupt("history"))?;
            former.insert(entry, old);
        }
    }
    for height in executed - executed % CHECKPOINT_INTERVAL + 1..=executed {
        for change in read_log(source, height)? {
            former.entry(change.key).or_insert(change.old);
        }
    }
    Ok(former)
}

fn split_history_key(key: &[u8]) -> Result<(EntryKey, u64), StorageError> {
    let split = || {
        let (entry, sealed) = key.split_last_chunk()?;
        Some((EntryKey(entry.try_into().ok()?), u64::from_be_bytes(*sealed)))
    };
    split().ok_or_else(|| corrupt("the key of a former value"))
}

/// Writes the state at `checkpoint` to `target`, an empty database, so that a ledger can be opened there, and compares
/// its commitment with the stored one. Receipts up to there are copied: they keep transactions from being executed
/// again.
pub fn rebuild(
    source: &Database,
    target: &Database,
    checkpoint: u64,
    since: Since,
    restarts: &[LedgerRestart],
) -> Result<(), CommitmentError> {
    let state = source.get(Family::Ledger, STATE_KEY)?.unwrap_or_default();
    let now = State::decode(&state)?;
    let mut former = former(source, checkpoint, now.executed)?;
    let mut lattice = LtHash::default();
    let mut staked: u64 = 0;
    let mut writes = target.writes();
    let mut waiting = 0;
    let mut put = |key: EntryKey, value: &[u8]| -> Result<(), StorageError> {
        lattice.add(&key, value);
        if key.0[0] == Domain::Stake as u8 {
            staked = staked.checked_add(Stake::decode(value)?.total()).ok_or_else(|| corrupt("a stake"))?;
        }
        match key.account() {
            Some(address) => writes.put(Family::Accounts, &address.0, value)?,
            None => writes.put(Family::State, &key.0, value)?,
        }
        waiting += 1;
        if waiting == ENTRIES_PER_WRITE {
            waiting = 0;
            std::mem::replace(&mut writes, target.writes()).commit_unsynced()?;
        }
        Ok(())
    };
    for item in source.scan(Family::Accounts, &[])? {
        let (address, value) = item?;
        let address = Address((*address).try_into().map_err(|_| corrupt("the address of an account"))?);
        let key = EntryKey::of(Domain::Account, address);
        if !former.contains_key(&key) {
            put(key, &value)?;
        }
    }
    for item in state_entries::stored(source)? {
        let (key, value) = item?;
        if !former.contains_key(&key) {
            put(key, &value)?;
        }
    }
    while let Some((key, old)) = former.pop_first() {
        if let Some(value) = old.bytes() {
            put(key, value)?;
        }
    }
    for item in source.scan(Family::Transactions, &[])? {
        let (id, value) = item?;
        if TransactionRecord::height(&value)? <= checkpoint {
            writes.put(Family::Transactions, &id, &value)?;
        }
    }
    let mut recent: Vec<Digest> = Vec::new();
    for height in checkpoint.saturating_sub(RECENT_BLOCKS - 1)..=checkpoint {
        let summary = source.get(Family::Ledger, &summary_key(height))?;
        let summary =
            summary.ok_or_else(|| StorageError::Corrupt(format!("the summary of block {height} is missing")))?;
        recent.push(super::BlockSummary::decode(&summary)?.hash);
        writes.put(Family::Ledger, &summary_key(height), &summary)?;
    }
    let less = |now: u64, since: u64| now.checked_sub(since).ok_or_else(|| corrupt("the totals"));
    let state = State {
        executed: checkpoint,
        fees: less(now.fees, since.fees)?,
        transactions: less(now.transactions, since.transactions)?,
        money: Money { staked, slashed: less(now.money.slashed, since.slashed)? },
        next_cutoff: next_cutoff(source, checkpoint, restarts)?,
        ..now
    };
    let value = source.get(Family::Ledger, &checkpoint_key(checkpoint))?;
    let value = value.ok_or_else(|| StorageError::Corrupt(format!("checkpoint {checkpoint} is missing")))?;
    let stored = decode_checkpoint(checkpoint, &value)?;
    let found = commitment(&lattice, &state, &recent);
    if found != stored.state {
        return Err(CommitmentError::Differs { height: checkpoint, found, stored: stored.state });
    }
    writes.put(Family::Ledger, &checkpoint_key(checkpoint), &encode_checkpoint(&stored))?;
    writes.put(Family::Ledger, LATTICE_KEY, &encode_lattice(&lattice, &state))?;
    writes.put(Family::Ledger, STATE_KEY, &state.encode())?;
    Ok(writes.commit_unsynced()?)
}

/// The first cut-off above a height. The length of an epoch is fixed by the genesis, and so the parameters now say it.
/// A restart has passed over those up to the one of its own epoch.
fn next_cutoff(source: &Database, height: u64, restarts: &[LedgerRestart]) -> Result<u64, StorageError> {
    let registry = crate::validator::Registry::load(state_entries::stored(source)?)?;
    let epoch_blocks = registry.parameters().epoch_blocks.max(1);
    let next = (height / epoch_blocks).saturating_add(1).saturating_mul(epoch_blocks);
    let begun = restarts.iter().rev().find(|restart| restart.height < height);
    Ok(begun.map_or(next, |restart| restart.cutoff(epoch_blocks).max(next)))
}

/// An entry that two databases do not have alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {key} of {family:?} {what}")]
pub struct Difference {
    /// Its family.
    pub family: Family,
    /// Its key, in hex.
    pub key: String,
    /// How they differ.
    pub what: &'static str,
}

/// Compares everything that executing the blocks above `base` leaves behind. Returns how many entries are alike, or
/// the first that is not.
pub fn compare_ledgers(
    stored: &Database,
    replayed: &Database,
    base: u64,
) -> Result<Result<u64, Difference>, StorageError> {
    let mut alike = 0;
    for family in [Family::Accounts, Family::State, Family::History, Family::Transactions, Family::Ledger] {
        let counts = move |item: &Result<Entry, StorageError>| match item {
            Ok((key, value)) => is_replayed(family, key, value, base),
            Err(_) => true,
        };
        let mut stored = stored.scan(family, &[])?.filter(counts);
        let mut replayed = replayed.scan(family, &[])?.filter(counts);
        loop {
            let difference = match (stored.next().transpose()?, replayed.next().transpose()?) {
                (None, None) => break,
                (Some((key, value)), Some((other, wanted))) if key == other => {
                    if value == wanted {
                        alike += 1;
                        continue;
                    }
                    (key, "is not what the blocks lead to")
                }
                (Some((key, _)), Some((other, _))) if key < other => (key, "does not come from any block"),
                (_, Some((other, _))) => (other, "is missing"),
                (Some((key, _)), None) => (key, "does not come from any block"),
            };
            return Ok(Err(Difference { family, key: hex::encode(difference.0), what: difference.1 }));
        }
    }
    Ok(Ok(alike))
}

/// True if blocks above `base` determine the entry. What does not decode counts, so that it is found.
fn is_replayed(family: Family, key: &[u8], value: &[u8], base: u64) -> bool {
    if base == 0 {
        // Only what a pruned node says of itself comes from no block.
        return family != Family::Ledger || key != OLDEST_KEY;
    }
    match family {
        Family::History => split_history_key(key).map_or(true, |(_, sealed)| sealed > base),
        Family::Transactions => TransactionRecord::height(value).map_or(true, |height| height > base),
        Family::Ledger if key == OLDEST_KEY => false,
        Family::Ledger => match key {
            // Checkpoints, summaries, totals at cut-offs, replaced receipts: each by its height.
            [b'c' | b'r' | b't' | SUPERSEDED, rest @ ..] => {
                rest.first_chunk().is_none_or(|number| u64::from_be_bytes(*number) > base)
            }
            _ => true,
        },
        _ => true,
    }
}
