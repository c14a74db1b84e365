//! The canonical content of a snapshot: the ledger as of an epoch's cut-off height, item by item (PROTOCOL E1).
//!
//! It is everything that execution of the next block depends on: the checkpoint and the totals, what the last
//! [`RECENT_BLOCKS`] blocks left behind, every state entry the commitment covers, and the receipts that still keep their
//! transaction from being executed again. Items come in ascending order of section and key, so the whole is one byte
//! string on every node, whenever it is read: what changed since the cut-off is taken back by the logs and the history.

use std::collections::BTreeMap;
use std::iter::Peekable;

use bizra_simplex::Checkpoint;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::Digest;

use super::checkpoint::{BlockSummary, checkpoint_key, decode_checkpoint, summary_key};
use super::history::{decode_history, decode_log, log_key};
use super::pruning::OLDEST_KEY;
use super::record::{
    LATTICE_KEY, STATE_KEY, SUPERSEDED, State, TransactionRecord, corrupt, superseded_key, totals_key,
};
use super::sealing::{commitment, encode_lattice, recent_blocks, sum_entries};
use crate::storage::{Database, Family, Fields, StorageError, View, Writes};
use crate::transaction::TransactionId;
use crate::validator::{Domain, EntryKey, RECENT_BLOCKS};
use bizra_ledger::{Account, RECEIPT_BLOCKS};

/// What an item is about. The number is its place in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Section {
    /// The checkpoint at the cut-off, by height; the first item.
    Checkpoint = 1,
    /// The totals, by height.
    Totals = 2,
    /// What executing a block left behind, by height.
    Block = 3,
    /// A state entry, by domain and name.
    Entry = 4,
    /// A receipt, by transaction.
    Receipt = 5,
}

impl Section {
    /// Width of the section's keys.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Checkpoint | Self::Totals | Self::Block => 8,
            Self::Entry => EntryKey::BYTES,
            Self::Receipt => 32,
        }
    }

    /// The section of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Checkpoint, Self::Totals, Self::Block, Self::Entry, Self::Receipt];
        all.into_iter().find(|section| *section as u8 == number)
    }
}

/// One item; `key` has the section's width, `value` is shorter than 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotItem {
    /// What it is about.
    pub section: Section,
    /// Its name there.
    pub key: Vec<u8>,
    /// Its stored form.
    pub value: Vec<u8>,
}

/// Two ascending streams as one; of what both have, the first one's.
struct Merge<A: Iterator, B: Iterator> {
    first: Peekable<A>,
    second: Peekable<B>,
}

impl<K: Ord, V, A, B> Iterator for Merge<A, B>
where
    A: Iterator<Item = Result<(K, V), StorageError>>,
    B: Iterator<Item = Result<(K, V), StorageError>>,
{
    type Item = Result<(K, V), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.first.peek(), self.second.peek()) {
            (Some(Ok((first, _))), Some(Ok((second, _)))) => first.cmp(second),
            (Some(_), _) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => self.first.next(),
            std::cmp::Ordering::Greater => self.second.next(),
            std::cmp::Ordering::Equal => {
                self.second.next();
                self.first.next()
            }
        }
    }
}

fn merge<A: Iterator, B: Iterator>(first: A, second: B) -> Merge<A, B> {
    Merge { first: first.peekable(), second: second.peekable() }
}

/// A value, or that there is none.
type Stored = Option<Vec<u8>>;

/// The id of a transaction and its stored record.
type Receipt = ([u8; 32], Vec<u8>);

/// What a snapshot reads from: the database at one moment, executed at or above the cut-off.
struct Reading<'v> {
    view: &'v View<'v>,
    cutoff: u64,
    executed: u64,
}

impl Reading<'_> {
    fn required(&self, key: &[u8], what: &str) -> Result<Vec<u8>, StorageError> {
        let value = self.view.get(Family::Ledger, key)?;
        value.ok_or_else(|| StorageError::Corrupt(format!("{what} of cut-off {} is missing", self.cutoff)))
    }

    /// Entries that the blocks above the last checkpoint changed, as they were at the cut-off.
    fn logged(&self) -> Result<BTreeMap<EntryKey, Stored>, StorageError> {
        let sealed = self.executed - self.executed % CHECKPOINT_INTERVAL;
        let mut before = BTreeMap::new();
        for height in sealed.max(self.cutoff) + 1..=self.executed {
            let Some(log) = self.view.get(Family::Ledger, &log_key(height))? else { continue };
            for change in decode_log(height, &log)? {
                before.entry(change.key).or_insert_with(|| change.old.bytes().map(<[u8]>::to_vec));
            }
        }
        Ok(before)
    }

    /// Entries that the checkpoints above the cut-off changed, as they were at the cut-off.
    fn former(&self) -> Result<impl Iterator<Item = Result<(EntryKey, Stored), StorageError>> + '_, StorageError> {
        let sealed_since = self.executed - self.executed % CHECKPOINT_INTERVAL > self.cutoff;
        let history = if sealed_since { Some(self.view.scan(Family::History, &[])?) } else { None };
        let mut last = None;
        Ok(history.into_iter().flatten().filter_map(move |item| {
            let read = || -> Result<Option<(EntryKey, Stored)>, StorageError> {
                let (name, value) = item?;
                let mut fields = Fields(&name);
                let (key, checkpoint) =
                    fields.take().map(EntryKey).zip(fields.u64()).ok_or_else(|| corrupt("the key of history"))?;
                // The first change above the cut-off tells what was there at the cut-off.
                if checkpoint <= self.cutoff || last.replace(key) == Some(key) {
                    return Ok(None);
                }
                let oldest = decode_history(checkpoint, &value)?.into_iter().next();
                let (_, old) = oldest.ok_or_else(|| corrupt("history"))?;
                Ok(Some((key, old.bytes().map(<[u8]>::to_vec))))
            };
            read().transpose()
        }))
    }

    fn present(&self) -> Result<impl Iterator<Item = Result<(EntryKey, Stored), StorageError>> + '_, StorageError> {
        let accounts = self.view.scan(Family::Accounts, &[])?.map(|item| {
            let (address, value) = item?;
            let id = (*address).try_into().map_err(|_| corrupt("the address of an account"))?;
            Ok((EntryKey::new(Domain::Account, id), Some(value.into_vec())))
        });
        let others = self.view.scan(Family::State, &[])?.map(|item| {
            let (key, value) = item?;
            let key = (*key).try_into().map_err(|_| corrupt("the key of a state entry"))?;
            Ok((EntryKey(key), Some(value.into_vec())))
        });
        // Accounts have the first domain of all.
        Ok(accounts.chain(others))
    }

    /// Receipts that were replaced since the cut-off, as they were then.
    fn superseded(&self) -> Result<BTreeMap<[u8; 32], Vec<u8>>, StorageError> {
        let mut replaced = BTreeMap::new();
        let from = superseded_key(self.cutoff + 1, &TransactionId([0; 32]));
        for item in self.view.scan(Family::Ledger, &from)? {
            let (key, value) = item?;
            let mut fields = Fields(&key);
            if fields.take() != Some([SUPERSEDED]) {
                break;
            }
            let id = fields.u64().and_then(|_| fields.take()).ok_or_else(|| corrupt("a replaced receipt"))?;
            if self.keeps(&value)? {
                replaced.entry(id).or_insert(value.into_vec());
            }
        }
        Ok(replaced)
    }

    /// True for a receipt that existed at the cut-off and matters to a block above it.
    fn keeps(&self, record: &[u8]) -> Result<bool, StorageError> {
        let height = TransactionRecord::height(record)?;
        Ok(height <= self.cutoff && height + RECEIPT_BLOCKS > self.cutoff)
    }

    fn receipts(&self) -> Result<impl Iterator<Item = Result<Receipt, StorageError>> + '_, StorageError> {
        Ok(self.view.scan(Family::Transactions, &[])?.filter_map(|item| {
            let read = || {
                let (id, value) = item?;
                let id = (*id).try_into().map_err(|_| corrupt("the id of a transaction"))?;
                Ok(self.keeps(&value)?.then(|| (id, value.into_vec())))
            };
            read().transpose()
        }))
    }
}

/// Hands out the content of the snapshot at an executed cut-off height, in order. Reads the whole state, from one moment
/// of the database; nothing waits for it.
pub fn read_snapshot<E: From<StorageError>>(
    database: &Database,
    cutoff: u64,
    mut take: impl FnMut(SnapshotItem) -> Result<(), E>,
) -> Result<(), E> {
    let view = database.view();
    let state = view.get(Family::Ledger, STATE_KEY)?.unwrap_or_default();
    let executed = State::decode(&state)?.executed;
    let reading = Reading { view: &view, cutoff, executed };
    let height = cutoff.to_be_bytes().to_vec();
    let checkpoint = reading.required(&checkpoint_key(cutoff), "the checkpoint")?;
    take(SnapshotItem { section: Section::Checkpoint, key: height.clone(), value: checkpoint })?;
    let totals = reading.required(&totals_key(cutoff), "the totals")?;
    take(SnapshotItem { section: Section::Totals, key: height, value: totals })?;
    for height in (cutoff + 1).saturating_sub(RECENT_BLOCKS)..=cutoff {
        let value = reading.required(&summary_key(height), "a block's summary")?;
        take(SnapshotItem { section: Section::Block, key: height.to_be_bytes().to_vec(), value })?;
    }
    let logged = reading.logged()?.into_iter().map(Ok);
    for entry in merge(merge(reading.former()?, logged), reading.present()?) {
        if let (key, Some(value)) = entry? {
            take(SnapshotItem { section: Section::Entry, key: key.0.to_vec(), value })?;
        }
    }
    for receipt in merge(reading.superseded()?.into_iter().map(Ok), reading.receipts()?) {
        let (id, value) = receipt?;
        take(SnapshotItem { section: Section::Receipt, key: id.to_vec(), value })?;
    }
    Ok(())
}

/// The last `count` cut-off heights that are executed, the newest first; none below the first epoch's.
pub fn last_cutoffs(database: &Database, count: u64) -> Result<Vec<u64>, StorageError> {
    let totals = super::LedgerReader::new(database.clone()).totals()?;
    let epoch_blocks = super::LedgerReader::new(database.clone()).parameters()?.epoch_blocks;
    let newest = totals.next_cutoff.saturating_sub(epoch_blocks);
    let cutoffs = (0..count).map_while(|below| newest.checked_sub(below.saturating_mul(epoch_blocks)));
    let mut found = Vec::new();
    for cutoff in cutoffs.filter(|cutoff| *cutoff > 0) {
        // A restart passes over cut-offs: those never come, or were blocks like any other.
        if database.get(Family::Ledger, &totals_key(cutoff))?.is_some() {
            found.push(cutoff);
        }
    }
    Ok(found)
}

/// Adds an item to a database that is being made from a snapshot. A value that does not decode is refused, though a
/// quorum vouches for it: what is stored can be read.
pub fn put_item(writes: &mut Writes<'_>, item: &SnapshotItem) -> Result<(), StorageError> {
    let SnapshotItem { section, key, value } = item;
    let height = || Fields(key).u64().ok_or_else(|| corrupt("the height of a snapshot's item"));
    match section {
        Section::Checkpoint => {
            decode_checkpoint(height()?, value)?;
            writes.put(Family::Ledger, &checkpoint_key(height()?), value)
        }
        Section::Totals => {
            State::decode(value)?;
            writes.put(Family::Ledger, &totals_key(height()?), value)
        }
        Section::Block => {
            BlockSummary::decode(value)?;
            writes.put(Family::Ledger, &summary_key(height()?), value)
        }
        Section::Entry => {
            let key = EntryKey(key.as_slice().try_into().map_err(|_| corrupt("the key of a snapshot's entry"))?);
            match key.account() {
                Some(address) => {
                    Account::decode(value)?;
                    writes.put(Family::Accounts, &address.0, value)
                }
                None => writes.put(Family::State, &key.0, value),
            }
        }
        Section::Receipt => {
            let id = key.as_slice().try_into().map_err(|_| corrupt("the id of a snapshot's receipt"))?;
            TransactionRecord::decode(TransactionId(id), value)?;
            writes.put(Family::Transactions, key, value)
        }
    }
}

/// Makes the items of a whole snapshot the ledger: recomputes the commitment from all entries, and lets the ledger begin
/// at the cut-off. Returns the checkpoint there.
pub fn seal_snapshot(database: &Database, cutoff: u64) -> Result<Checkpoint, StorageError> {
    let stored = |key: &[u8], what: &str| {
        let value = database.get(Family::Ledger, key)?;
        value.ok_or_else(|| StorageError::Corrupt(format!("the snapshot at {cutoff} holds no {what}")))
    };
    let checkpoint = decode_checkpoint(cutoff, &stored(&checkpoint_key(cutoff), "checkpoint")?)?;
    let totals = State::decode(&stored(&totals_key(cutoff), "totals")?)?;
    let lattice = sum_entries(database, &BTreeMap::new())?;
    let found = commitment(&lattice, &totals, &recent_blocks(database, cutoff)?);
    if found != checkpoint.state || totals.executed != cutoff {
        let named = checkpoint.state;
        return Err(StorageError::Corrupt(format!(
            "the snapshot at {cutoff} has commitment {found}, and says itself {named}"
        )));
    }
    let mut writes = database.writes();
    writes.put(Family::Ledger, LATTICE_KEY, &encode_lattice(&lattice, &totals))?;
    // What the block at the cut-off itself has done is not known here.
    writes.put(Family::Ledger, OLDEST_KEY, &cutoff.saturating_add(1).to_be_bytes())?;
    writes.put(Family::Ledger, STATE_KEY, &totals.encode())?;
    writes.commit_synced()?;
    Ok(checkpoint)
}

/// The digest of a block at or below a snapshot's cut-off, as the snapshot has it.
pub fn recent_block(database: &Database, height: u64) -> Result<Option<Digest>, StorageError> {
    let value = database.get(Family::Ledger, &summary_key(height))?;
    value.map(|bytes| BlockSummary::decode(&bytes).map(|summary| summary.hash)).transpose()
}
