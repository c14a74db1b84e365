//! Sealing a checkpoint: net changes since the one before become history and join the commitment (PROTOCOL H1, H2).

use std::collections::{BTreeMap, VecDeque};

use bizra_simplex::Checkpoint;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Height};

use super::accounts;
use super::checkpoint::{BlockSummary, checkpoint_key, decode_checkpoint, encode_checkpoint, summary_key};
use super::commitment::{LATTICE_BYTES, LtHash};
use super::history::{Change, Value, log_key, read_log, write_history};
use super::ledger::Ledger;
use super::record::{LATTICE_KEY, STATE_KEY, State};
use super::{merkle, state_entries};
use crate::storage::{Database, Family, StorageError, Writes};
use crate::transaction::Address;
use crate::validator::{Domain, Entries as _, EntryKey, RECENT_BLOCKS};
use bizra_ledger::{Account, BlockAccounts};

/// What a start needs of the blocks since the last checkpoint.
pub(super) struct Recovered {
    pub(super) lattice: LtHash,
    pub(super) changes: Vec<Change>,
    pub(super) leaves: Vec<Digest>,
    pub(super) recent: VecDeque<Digest>,
}

/// The lanes, and the totals at their checkpoint.
pub(super) fn encode_lattice(lattice: &LtHash, state: &State) -> Vec<u8> {
    [lattice.encode(), state.encode()].concat()
}

fn read_lattice(database: &Database) -> Result<(LtHash, State), StorageError> {
    let bytes = database.get(Family::Ledger, LATTICE_KEY)?.unwrap_or_default();
    let (lanes, state) = bytes
        .split_at_checked(LATTICE_BYTES)
        .ok_or_else(|| StorageError::Corrupt("the state commitment is missing".to_owned()))?;
    Ok((LtHash::decode(lanes)?, State::decode(state)?))
}

/// What headers name: entries, totals and the digests of the last blocks. The two latter change with every block, so they
/// join only here.
pub(super) fn commitment<'d>(lattice: &LtHash, state: &State, recent: impl IntoIterator<Item = &'d Digest>) -> Digest {
    let mut sum = lattice.clone();
    sum.add(&EntryKey::single(Domain::Totals), &state.encode());
    let recent: Vec<u8> = recent.into_iter().flat_map(|digest| digest.0).collect();
    sum.add(&EntryKey::single(Domain::RecentBlocks), &recent);
    sum.digest()
}

fn summary(database: &Database, height: u64) -> Result<BlockSummary, StorageError> {
    let bytes = database.get(Family::Ledger, &summary_key(height))?;
    let bytes = bytes.ok_or_else(|| StorageError::Corrupt(format!("the summary of block {height} is missing")))?;
    BlockSummary::decode(&bytes)
}

/// Digests of the last blocks up to a height, that one last.
pub(super) fn recent_blocks(database: &Database, height: u64) -> Result<VecDeque<Digest>, StorageError> {
    let first = (height + 1).saturating_sub(RECENT_BLOCKS);
    (first..=height).map(|height| Ok(summary(database, height)?.hash)).collect()
}

/// Reads what the ledger holds in memory.
pub(super) fn recover(database: &Database, executed: u64) -> Result<Recovered, StorageError> {
    let (lattice, State { executed: checkpoint, .. }) = read_lattice(database)?;
    if checkpoint != executed - executed % CHECKPOINT_INTERVAL {
        return Err(StorageError::Corrupt(format!("the state commitment is of height {checkpoint}, not of the last")));
    }
    let (mut changes, mut leaves) = (Vec::new(), Vec::new());
    for height in checkpoint + 1..=executed {
        changes.append(&mut read_log(database, height)?);
        let BlockSummary { transactions_root, receipts_root, .. } = summary(database, height)?;
        leaves.push(BlockSummary::leaf(height, transactions_root, receipts_root));
    }
    Ok(Recovered { lattice, changes, leaves, recent: recent_blocks(database, executed)? })
}

impl Ledger {
    /// Seals the executed height, which is a checkpoint's.
    pub(super) fn seal(&mut self, writes: &mut Writes<'_>) -> Result<Checkpoint, StorageError> {
        let height = self.state.executed;
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_unstable_by_key(|change| (change.key, change.height));
        let mut accounts = BlockAccounts::default();
        let groups: Vec<_> = changes
            .chunk_by(|first, second| first.key == second.key)
            .map(|group| (group, group.first().and_then(|change| change.key.account())))
            .map(|(group, account)| (group, account.map(|address| accounts.mention(address))))
            .collect();
        accounts::load(&mut accounts, &self.unwritten, &self.cache, &self.database)?;
        for (group, slot) in groups {
            let Some(Change { key, old, .. }) = group.first() else { continue };
            let now = match slot {
                Some(slot) => Value::account(accounts.get(slot)),
                None => Value::entry(self.entries.get(key)?),
            };
            write_history(writes, key, height, group)?;
            if old.bytes() != now.bytes() {
                old.bytes().into_iter().for_each(|bytes| self.lattice.remove(key, bytes));
                now.bytes().into_iter().for_each(|bytes| self.lattice.add(key, bytes));
            }
        }
        for logged in height.saturating_sub(CHECKPOINT_INTERVAL) + 1..height {
            writes.delete(Family::Ledger, &log_key(logged))?;
        }
        let receipts = merkle::root(&std::mem::take(&mut self.leaves));
        let checkpoint = Checkpoint {
            height: Height(height),
            state: commitment(&self.lattice, &self.state, &self.recent),
            receipts,
        };
        writes.put(Family::Ledger, &checkpoint_key(height), &encode_checkpoint(&checkpoint))?;
        writes.put(Family::Ledger, LATTICE_KEY, &encode_lattice(&self.lattice, &self.state))?;
        Ok(checkpoint)
    }
}

/// The stored commitment is not that of the stored state.
#[derive(Debug, thiserror::Error)]
pub enum CommitmentError {
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// They differ.
    #[error("the state at checkpoint {height} has commitment {found}, but {stored} was stored")]
    Differs {
        /// The checkpoint.
        height: u64,
        /// What the entries lead to.
        found: Digest,
        /// What the checkpoint says.
        stored: Digest,
    },
}

/// Sums up all stored entries but those of `except`.
pub(super) fn sum_entries(database: &Database, except: &BTreeMap<EntryKey, Value>) -> Result<LtHash, StorageError> {
    let mut lattice = LtHash::default();
    for item in database.scan(Family::Accounts, &[])? {
        let (address, value) = item?;
        let address = Address((*address).try_into().map_err(|_| super::record::corrupt("the address of an account"))?);
        let key = EntryKey::of(Domain::Account, address);
        if !except.contains_key(&key) {
            lattice.add(&key, &Account::decode(&value)?.encode());
        }
    }
    for item in state_entries::stored(database)? {
        let (key, value) = item?;
        if !except.contains_key(&key) {
            lattice.add(&key, &value);
        }
    }
    Ok(lattice)
}

/// Computes the commitment at the last checkpoint from all entries and compares it with the stored one. Reads the whole
/// state: for a database no node is running on, or that was just imported.
pub fn verify_commitment(database: &Database) -> Result<Checkpoint, CommitmentError> {
    let (stored_lattice, totals) = read_lattice(database)?;
    let checkpoint = totals.executed;
    let executed = database.get(Family::Ledger, STATE_KEY)?.map(|bytes| State::decode(&bytes)).transpose()?;
    let executed = executed.map_or(checkpoint, |state| state.executed);
    // The first change after the checkpoint tells what was there at the checkpoint.
    let mut before = BTreeMap::new();
    for height in checkpoint + 1..=executed {
        for Change { key, old, .. } in read_log(database, height)? {
            before.entry(key).or_insert(old);
        }
    }
    let mut lattice = sum_entries(database, &before)?;
    for (key, old) in &before {
        old.bytes().into_iter().for_each(|bytes| lattice.add(key, bytes));
    }
    let found = commitment(&lattice, &totals, &recent_blocks(database, checkpoint)?);
    let value = database.get(Family::Ledger, &checkpoint_key(checkpoint))?;
    let value = value.ok_or_else(|| StorageError::Corrupt(format!("checkpoint {checkpoint} is missing")))?;
    let stored = decode_checkpoint(checkpoint, &value)?;
    // The genesis has no commitment in any header.
    if (found == stored.state || checkpoint == 0) && lattice == stored_lattice {
        Ok(stored)
    } else {
        Err(CommitmentError::Differs { height: checkpoint, found, stored: stored.state })
    }
}
