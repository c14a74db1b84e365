//! Accounts in memory: a bounded cache over the database, and the accounts of the block being executed.

use std::collections::{HashMap, HashSet};

use crate::storage::{Database, Family, StorageError, Writes};
use crate::transaction::{Address, TransactionId};
use crate::validator::{Domain, EntryKey};

use super::history::{Change, Value};
use super::record::Account;

/// Most accounts kept in memory, about 64 bytes each. Bounds what an attacker who touches many accounts can pin.
const CACHED_ACCOUNTS_MAX: usize = 262_144;

/// Accounts as of the last executed block. Two generations: when the young one holds half of the bound it becomes the
/// old one, and what nobody touched for that long is forgotten.
pub(super) struct AccountCache {
    young: HashMap<Address, Account>,
    old: HashMap<Address, Account>,
    generation_max: usize,
}

impl Default for AccountCache {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: CACHED_ACCOUNTS_MAX / 2 }
    }
}

impl AccountCache {
    fn get(&self, address: &Address) -> Option<Account> {
        self.young.get(address).or_else(|| self.old.get(address)).copied()
    }

    fn put(&mut self, address: Address, account: Account) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, account);
    }
}

/// Effects of executed blocks that are not in the database yet: a turn may execute several blocks before its writes are
/// committed. Reads must see them, or the outcome would depend on how a node happens to group its commits.
#[derive(Default)]
pub(super) struct Unwritten {
    transactions: HashSet<TransactionId>,
    accounts: HashMap<Address, Account>,
}

impl Unwritten {
    /// True if an unwritten block executed the transaction.
    pub(super) fn has_executed(&self, id: &TransactionId) -> bool {
        self.transactions.contains(id)
    }

    /// Notes an executed transaction.
    pub(super) fn add_executed(&mut self, id: TransactionId) {
        self.transactions.insert(id);
    }

    /// Forgets everything, once it is in the database.
    pub(super) fn clear(&mut self) {
        self.transactions.clear();
        self.accounts.clear();
    }
}

/// Place of an account in a [`BlockAccounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

struct Entry {
    address: Address,
    before: Account,
    account: Account,
}

impl Entry {
    fn changed(&self) -> bool {
        self.before != self.account
    }
}

/// The accounts one block touches, in the order of their first mention.
#[derive(Default)]
pub(super) struct BlockAccounts {
    slots: HashMap<Address, Slot>,
    entries: Vec<Entry>,
}

impl BlockAccounts {
    /// The slot of an account; it holds nothing until [`Self::load`].
    pub(super) fn mention(&mut self, address: Address) -> Slot {
        let next = Slot(self.entries.len() as u32);
        let slot = *self.slots.entry(address).or_insert(next);
        if slot == next {
            self.entries.push(Entry { address, before: Account::default(), account: Account::default() });
        }
        slot
    }

    /// Reads all mentioned accounts, from memory or with one multi-get.
    pub(super) fn load(
        &mut self,
        unwritten: &Unwritten,
        cache: &AccountCache,
        database: &Database,
    ) -> Result<(), StorageError> {
        let mut missing = Vec::new();
        for entry in &mut self.entries {
            match unwritten.accounts.get(&entry.address).copied().or_else(|| cache.get(&entry.address)) {
                Some(account) => (entry.before, entry.account) = (account, account),
                None => missing.push(entry),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let addresses: Vec<Address> = missing.iter().map(|entry| entry.address).collect();
        let values = database.get_many(Family::Accounts, addresses.iter().map(|address| address.0.as_slice()))?;
        for (entry, value) in missing.into_iter().zip(values) {
            entry.account = value.map_or(Ok(Account::default()), |bytes| Account::decode(&bytes))?;
            entry.before = entry.account;
        }
        Ok(())
    }

    /// The account in a slot this block mentioned.
    pub(super) fn get(&self, Slot(index): Slot) -> Account {
        self.entries.get(index as usize).map(|entry| entry.account).unwrap_or_default()
    }

    /// Replaces the account in a slot.
    pub(super) fn set(&mut self, Slot(index): Slot, account: Account) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.account = account;
        }
    }

    /// Adds the changed accounts to the turn's writes, and what they were before to the block's changes.
    pub(super) fn write(
        &self,
        writes: &mut Writes<'_>,
        height: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), StorageError> {
        for Entry { address, before, account } in self.entries.iter().filter(|entry| entry.changed()) {
            let key = EntryKey::of(Domain::Account, *address);
            changes.push(Change { key, height, old: Value::account(*before) });
            // One form for an account without money and transactions: no entry.
            match Value::account(*account).bytes() {
                Some(bytes) => writes.put(Family::Accounts, &address.0, bytes)?,
                None => writes.delete(Family::Accounts, &address.0)?,
            }
        }
        Ok(())
    }

    /// Puts all accounts of the block into the cache, and the changed ones among the unwritten.
    pub(super) fn remember(self, unwritten: &mut Unwritten, cache: &mut AccountCache) {
        for entry in self.entries {
            cache.put(entry.address, entry.account);
            if entry.changed() {
                unwritten.accounts.insert(entry.address, entry.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_forgets_the_longest_untouched_and_stays_bounded() {
        let mut cache = AccountCache { generation_max: 2, ..AccountCache::default() };
        for number in 0..100_u8 {
            cache.put(Address([number; 32]), Account { balance: u64::from(number), nonce: 0 });
            cache.put(Address([255; 32]), Account { balance: 7, nonce: 0 });
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        assert_eq!(cache.get(&Address([255; 32])), Some(Account { balance: 7, nonce: 0 }));
        assert_eq!(cache.get(&Address([99; 32])), Some(Account { balance: 99, nonce: 0 }));
        assert_eq!(cache.get(&Address([0; 32])), None);
    }
}
