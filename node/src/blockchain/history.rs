//! Former values of state entries: what queries at a height and the commitment are made from.
//!
//! Every block logs the values it replaced, under its height. At a checkpoint the logs since the one before become
//! history, under entry and checkpoint: the value an entry had before each height at which it changed. So what lies at
//! or below the oldest retained height is of no use to any later height, and compaction drops it by its key alone.

use bizra_simplex::block::CHECKPOINT_INTERVAL;

use super::checkpoint::checkpoint_of;
use super::record::{corrupt, numbered};
use crate::storage::{Database, Family, Fields, StorageError, Writes};
use crate::validator::EntryKey;
use bizra_ledger::Account;

const VERSION: u8 = 1;
/// Length that stands for "there was no such entry".
const ABSENT: u16 = u16::MAX;

/// A value, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// No entry.
    Absent,
    /// An account, which is most of them, without an allocation.
    Account([u8; Account::BYTES]),
    /// Any other entry.
    Entry(Vec<u8>),
}

impl Value {
    /// An account; one without money and transactions is no entry.
    pub(super) fn account(account: Account) -> Self {
        if account == Account::default() { Self::Absent } else { Self::Account(account.encode()) }
    }

    pub(super) fn entry(value: Option<Vec<u8>>) -> Self {
        value.map_or(Self::Absent, Self::Entry)
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Account(bytes) => Some(bytes),
            Self::Entry(bytes) => Some(bytes),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let bytes = self.bytes();
        // The longest entry is a set of 128 validators, 17 KB.
        let length = bytes.map_or(ABSENT, |bytes| bytes.len() as u16);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        match fields.u16()? {
            ABSENT => Some(Self::Absent),
            length => fields.slice(length.into()).map(|bytes| Self::Entry(bytes.to_vec())),
        }
    }
}

/// An entry's value before a block changed it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: EntryKey,
    pub(super) height: u64,
    pub(super) old: Value,
}

pub(super) fn log_key(height: u64) -> [u8; 9] {
    numbered(b'd', height)
}

/// The stored log of one block.
pub(super) fn encode_log(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + changes.len() * (EntryKey::BYTES + 2 + Account::BYTES));
    bytes.push(VERSION);
    for change in changes {
        bytes.extend_from_slice(&change.key.0);
        change.old.write(&mut bytes);
    }
    bytes
}

pub(super) fn decode_log(height: u64, bytes: &[u8]) -> Result<Vec<Change>, StorageError> {
    let mut fields = Fields(bytes);
    let mut read = || {
        fields.version(VERSION)?;
        let mut changes = Vec::new();
        while fields.end().is_none() {
            changes.push(Change { key: EntryKey(fields.take()?), height, old: Value::read(&mut fields)? });
        }
        Some(changes)
    };
    read().ok_or_else(|| corrupt("a log of changes"))
}

/// Reads the log of a block; empty if it became history.
pub(super) fn read_log(database: &Database, height: u64) -> Result<Vec<Change>, StorageError> {
    let value = database.get(Family::Ledger, &log_key(height))?;
    value.map_or(Ok(Vec::new()), |bytes| decode_log(height, &bytes))
}

fn history_key(key: &EntryKey, checkpoint: u64) -> Vec<u8> {
    [&key.0[..], &checkpoint.to_be_bytes()].concat()
}

/// Writes the history of one entry: its changes between two checkpoints, ascending.
pub(super) fn write_history(
    writes: &mut Writes<'_>,
    key: &EntryKey,
    checkpoint: u64,
    changes: &[Change],
) -> Result<(), StorageError> {
    let mut value = Vec::with_capacity(1 + changes.len() * (3 + Account::BYTES));
    value.push(VERSION);
    for change in changes {
        // Less than CHECKPOINT_INTERVAL, which a byte holds.
        value.push(checkpoint.saturating_sub(change.height) as u8);
        change.old.write(&mut value);
    }
    writes.put(Family::History, &history_key(key, checkpoint), &value)
}

pub(super) fn decode_history(checkpoint: u64, bytes: &[u8]) -> Result<Vec<(u64, Value)>, StorageError> {
    let mut fields = Fields(bytes);
    let mut read = || {
        fields.version(VERSION)?;
        let mut values = Vec::new();
        while fields.end().is_none() {
            let below = fields.u8()?;
            values.push((checkpoint.checked_sub(below.into())?, Value::read(&mut fields)?));
        }
        Some(values)
    };
    read().ok_or_else(|| corrupt("history"))
}

/// The value an entry had at `height`, if it changed between then and `executed`; else it is what it is now.
pub(super) fn value_at(
    database: &Database,
    key: &EntryKey,
    height: u64,
    executed: u64,
) -> Result<Option<Value>, StorageError> {
    let from = history_key(key, checkpoint_of(height.saturating_add(1)));
    for item in database.scan(Family::History, &from)? {
        let (found, value) = item?;
        let Some((_, checkpoint)) = found.split_last_chunk().filter(|(name, _)| *name == key.0) else { break };
        let changes = decode_history(u64::from_be_bytes(*checkpoint), &value)?;
        if let Some((_, old)) = changes.into_iter().find(|(changed, _)| *changed > height) {
            return Ok(Some(old));
        }
    }
    let last_checkpoint = executed - executed % CHECKPOINT_INTERVAL;
    for logged in height.max(last_checkpoint) + 1..=executed {
        if let Some(change) = read_log(database, logged)?.into_iter().find(|change| change.key == *key) {
            return Ok(Some(change.old));
        }
    }
    Ok(None)
}
