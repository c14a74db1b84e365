//! Reads of the ledger as of the last committed block. Cheap to clone; safe from any thread.

use crate::storage::{Database, Family, StorageError};
use crate::transaction::{Address, TransactionId};

use super::record::{Account, STATE_KEY, State, TransactionRecord, count_key};

/// How often a read is repeated when blocks are committed while it runs.
const READ_ATTEMPTS: u32 = 4;

/// Sums over the whole ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Height of the last executed block.
    pub height: u64,
    /// All money, base units; fixed by the genesis.
    pub supply: u64,
    /// The fee pool, base units.
    pub fees: u64,
    /// Transactions executed since genesis, failed ones included.
    pub transactions: u64,
}

/// Answers questions about accounts and transactions.
#[derive(Clone)]
pub struct LedgerReader {
    database: Database,
}

impl LedgerReader {
    /// A reader over the node's database, whose ledger was opened before.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The totals as of the last committed block.
    pub fn totals(&self) -> Result<Totals, StorageError> {
        let bytes = self
            .database
            .get(Family::Ledger, STATE_KEY)?
            .ok_or_else(|| StorageError::Corrupt("the ledger was never opened".to_owned()))?;
        let state = State::decode(&bytes)?;
        Ok(Totals { height: state.executed, supply: state.supply, fees: state.fees, transactions: state.transactions })
    }

    /// An account and a height at which it was in this state. An unknown address has an empty account.
    pub fn account(&self, address: &Address) -> Result<(Account, u64), StorageError> {
        let mut height = self.totals()?.height;
        for _ in 0..READ_ATTEMPTS {
            let account = self.accounts(std::slice::from_ref(address))?.pop().unwrap_or_default();
            let after = self.totals()?.height;
            if after == height {
                return Ok((account, height));
            }
            height = after;
        }
        let account = self.accounts(std::slice::from_ref(address))?.pop().unwrap_or_default();
        Ok((account, height))
    }

    /// Many accounts, in the order of the addresses.
    pub fn accounts(&self, addresses: &[Address]) -> Result<Vec<Account>, StorageError> {
        let values = self.database.get_many(Family::Accounts, addresses.iter().map(|address| address.0.as_slice()))?;
        let decode = |value: Option<Vec<u8>>| value.map_or(Ok(Account::default()), |bytes| Account::decode(&bytes));
        values.into_iter().map(decode).collect()
    }

    /// The receipt of a finalised transaction, and where its bytes are.
    pub fn transaction(&self, id: &TransactionId) -> Result<Option<TransactionRecord>, StorageError> {
        let value = self.database.get(Family::Transactions, &id.0)?;
        value.map(|bytes| TransactionRecord::decode(*id, &bytes)).transpose()
    }

    /// Which of the transactions are finalised, in the order of the ids.
    pub fn finalized(&self, ids: &[TransactionId]) -> Result<Vec<bool>, StorageError> {
        let values = self.database.get_many(Family::Transactions, ids.iter().map(|id| id.0.as_slice()))?;
        Ok(values.into_iter().map(|value| value.is_some()).collect())
    }

    /// How many transactions the block at `height` executed; `None` if it is not executed yet.
    pub fn block_transactions(&self, height: u64) -> Result<Option<u32>, StorageError> {
        if height == 0 {
            return Ok(Some(0));
        }
        let Some(value) = self.database.get(Family::Ledger, &count_key(height))? else {
            return Ok(None);
        };
        let count = value
            .try_into()
            .map_err(|_| StorageError::Corrupt(format!("the transaction count of block {height} does not decode")))?;
        Ok(Some(u32::from_be_bytes(count)))
    }
}
