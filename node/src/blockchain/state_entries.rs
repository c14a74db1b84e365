//! State entries other than accounts: few, so they are read when needed, and changed through here.

use std::collections::{BTreeMap, HashMap};

use super::history::{Change, Value};
use crate::storage::{Database, Family, StorageError, Writes};
use crate::validator::{Entries, EntryKey};

/// The value of an entry, if there is one.
type Stored = Option<Vec<u8>>;

/// The entries as of the transaction being executed: the block's changes over the unwritten ones over the database.
pub(super) struct StateEntries {
    database: Database,
    unwritten: HashMap<EntryKey, Stored>,
    /// Value before the block and now.
    block: BTreeMap<EntryKey, (Stored, Stored)>,
}

impl StateEntries {
    pub(super) fn new(database: Database) -> Self {
        Self { database, unwritten: HashMap::new(), block: BTreeMap::new() }
    }

    /// What the block leaves behind.
    pub(super) fn new_entries(&self) -> impl Iterator<Item = (&EntryKey, &[u8])> {
        self.block.iter().filter_map(|(key, (_, now))| Some((key, now.as_deref()?)))
    }

    /// Adds the block's changes to the turn's writes, and what was before to the block's log.
    pub(super) fn write(
        &mut self,
        writes: &mut Writes<'_>,
        height: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), StorageError> {
        for (key, (before, now)) in std::mem::take(&mut self.block) {
            if before == now {
                continue;
            }
            match &now {
                Some(value) => writes.put(Family::State, &key.0, value)?,
                None => writes.delete(Family::State, &key.0)?,
            }
            changes.push(Change { key, height, old: Value::entry(before) });
            self.unwritten.insert(key, now);
        }
        Ok(())
    }

    /// Forgets the unwritten changes, once they are in the database.
    pub(super) fn clear(&mut self) {
        self.unwritten.clear();
    }
}

impl Entries for StateEntries {
    fn get(&self, key: &EntryKey) -> Result<Option<Vec<u8>>, StorageError> {
        if let Some((_, now)) = self.block.get(key) {
            return Ok(now.clone());
        }
        match self.unwritten.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.database.get(Family::State, &key.0),
        }
    }

    fn set(&mut self, key: EntryKey, value: Option<Vec<u8>>) -> Result<(), StorageError> {
        let before = match self.block.get(&key) {
            Some((before, _)) => before.clone(),
            None => self.get(&key)?,
        };
        self.block.insert(key, (before, value));
        Ok(())
    }
}

/// All stored entries, in key order.
pub(super) fn stored(
    database: &Database,
) -> Result<impl Iterator<Item = Result<(EntryKey, Vec<u8>), StorageError>> + '_, StorageError> {
    Ok(database.scan(Family::State, &[])?.map(|item| {
        let (key, value) = item?;
        let key = <[u8; EntryKey::BYTES]>::try_from(&*key)
            .map_err(|_| StorageError::Corrupt("the key of a state entry has another width".to_owned()))?;
        Ok((EntryKey(key), value.into_vec()))
    }))
}
