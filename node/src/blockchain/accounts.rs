//! Accounts in memory: a bounded cache over the database, and between it and the accounts of the block being executed.

use std::collections::{HashMap, HashSet};

use bizra_ledger::{Account, BlockAccounts, Touched};

use crate::storage::{Database, Family, StorageError, Writes};
use crate::transaction::{Address, TransactionId};
use crate::validator::{Domain, EntryKey};

use super::history::{Change, Value};

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

/// Reads all accounts that a block mentions, from memory or with one multi-get.
pub(super) fn load(
    accounts: &mut BlockAccounts,
    unwritten: &Unwritten,
    cache: &AccountCache,
    database: &Database,
) -> Result<(), StorageError> {
    let known = |address: &Address| unwritten.accounts.get(address).copied().or_else(|| cache.get(address));
    accounts.load(known, |addresses| {
        let values = database.get_many(Family::Accounts, addresses.iter().map(|address| address.0.as_slice()))?;
        let decode = |value: Option<Vec<u8>>| value.map_or(Ok(Account::default()), |bytes| Account::decode(&bytes));
        values.into_iter().map(decode).collect()
    })
}

/// Adds the changed accounts to the turn's writes, and what they were before to the block's changes.
pub(super) fn write(
    accounts: &BlockAccounts,
    writes: &mut Writes<'_>,
    height: u64,
    changes: &mut Vec<Change>,
) -> Result<(), StorageError> {
    for Touched { address, before, account } in accounts.touched().iter().filter(|touched| touched.changed()) {
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
pub(super) fn remember(accounts: &BlockAccounts, unwritten: &mut Unwritten, cache: &mut AccountCache) {
    for touched in accounts.touched() {
        cache.put(touched.address, touched.account);
        if touched.changed() {
            unwritten.accounts.insert(touched.address, touched.account);
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
