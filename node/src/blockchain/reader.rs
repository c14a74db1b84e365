//! Reads of the ledger as of the last committed block. Cheap to clone; safe from any thread.

use bizra_proto::parameters::Parameters;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::{Checkpoint, Turns};

use crate::storage::{Database, Family, StorageError};
use crate::transaction::{Address, TransactionId};
use crate::validator::{self, Domain, EntryKey, Money, Stake, Validator, ValidatorSetRecord};

use super::checkpoint::{BlockSummary, checkpoint_key, decode_checkpoint, summary_key};
use super::history;
use super::pruning::oldest_retained;
use super::receipt::Receipt;
use super::record::{STATE_KEY, State, TransactionRecord};
use bizra_ledger::Account;

/// How often a read is repeated when a checkpoint is sealed while it runs: several times a second at most.
const READ_ATTEMPTS: u32 = 16;

/// The answer to a question about a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHeight<T> {
    /// What was true after the block of this height.
    Found(T, u64),
    /// The height is below the oldest one this node keeps.
    Pruned {
        /// The oldest one.
        oldest: u64,
    },
    /// The height is above the last executed one.
    Future {
        /// The last executed one.
        executed: u64,
    },
}

impl<T> AtHeight<T> {
    fn try_map<U>(self, map: impl FnOnce(T) -> Result<U, StorageError>) -> Result<AtHeight<U>, StorageError> {
        Ok(match self {
            Self::Found(value, height) => AtHeight::Found(map(value)?, height),
            Self::Pruned { oldest } => AtHeight::Pruned { oldest },
            Self::Future { executed } => AtHeight::Future { executed },
        })
    }
}

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
    /// Reserved and unbonding stakes, base units.
    pub staked: u64,
    /// Taken from equivocating validators, base units; belongs to nobody.
    pub slashed: u64,
    /// Height of the next cut-off of an epoch.
    pub next_cutoff: u64,
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
        let State { executed, supply, fees, transactions, money, next_cutoff, .. } = State::decode(&bytes)?;
        let Money { staked, slashed } = money;
        Ok(Totals { height: executed, supply, fees, transactions, staked, slashed, next_cutoff })
    }

    /// The parameters in force.
    pub fn parameters(&self) -> Result<Parameters, StorageError> {
        let bytes = self.database.get(Family::State, &EntryKey::single(Domain::Parameters).0)?.unwrap_or_default();
        let fixed = bytes.as_slice().try_into();
        let fixed = fixed.map_err(|_| StorageError::Corrupt("stored parameters do not decode".to_owned()))?;
        Ok(Parameters::decode(fixed))
    }

    /// An account as of a height, by default the last executed one. An unknown address has an empty account.
    pub fn account(&self, address: &Address, height: Option<u64>) -> Result<AtHeight<Account>, StorageError> {
        let found = self.entry(&EntryKey::of(Domain::Account, *address), height)?;
        found.try_map(|value| value.map_or(Ok(Account::default()), |bytes| Account::decode(&bytes)))
    }

    /// The validator of an owner and the owner's stake as of a height, by default the last executed one.
    pub fn validator(
        &self,
        owner: &Address,
        height: Option<u64>,
    ) -> Result<AtHeight<(Option<Validator>, Stake, Turns)>, StorageError> {
        let found = self.entry(&EntryKey::of(Domain::Validator, *owner), height)?;
        let nothing = |_| Ok((None, Stake::default(), Turns::default()));
        let AtHeight::Found(_, at) = found else { return found.try_map(nothing) };
        let stake = match self.entry(&EntryKey::of(Domain::Stake, *owner), Some(at))? {
            AtHeight::Found(bytes, _) => bytes.map_or(Ok(Stake::default()), |bytes| Stake::decode(&bytes))?,
            // Pruned in between.
            other => return other.try_map(nothing),
        };
        let turns = match self.entry(&EntryKey::of(Domain::Turns, *owner), Some(at))? {
            AtHeight::Found(bytes, _) => bytes.map_or(Ok(Turns::default()), |bytes| validator::decode_turns(&bytes))?,
            other => return other.try_map(nothing),
        };
        found.try_map(|value| Ok((value.map(|bytes| Validator::decode(&bytes)).transpose()?, stake, turns)))
    }

    /// A validator set that is still kept: of that epoch, or the one computed last.
    pub fn validator_set(&self, epoch: Option<u64>) -> Result<Option<ValidatorSetRecord>, StorageError> {
        let key = |epoch| EntryKey::numbered(Domain::ValidatorSet, epoch);
        if let Some(epoch) = epoch {
            let value = self.database.get(Family::State, &key(epoch).0)?;
            return value.map(|bytes| ValidatorSetRecord::decode(&bytes)).transpose();
        }
        let mut last = None;
        for item in self.database.scan(Family::State, &key(0).0)? {
            let (name, value) = item?;
            if name.first() != Some(&(Domain::ValidatorSet as u8)) {
                break;
            }
            last = Some(value);
        }
        last.map(|bytes| ValidatorSetRecord::decode(&bytes)).transpose()
    }

    /// An entry as of a height.
    fn entry(&self, key: &EntryKey, height: Option<u64>) -> Result<AtHeight<Option<Vec<u8>>>, StorageError> {
        for _ in 0..READ_ATTEMPTS {
            // The order matters: what is there now is at least as new as the height asked for, and every later change is
            // found in the logs, unless they become history meanwhile.
            let before = self.totals()?.height;
            let wanted = height.unwrap_or(before);
            if wanted > before {
                return Ok(AtHeight::Future { executed: before });
            }
            let now = match key.account() {
                Some(address) => self.database.get(Family::Accounts, &address.0)?,
                None => self.database.get(Family::State, &key.0)?,
            };
            let executed = self.totals()?.height;
            let former = history::value_at(&self.database, key, wanted, executed)?;
            let oldest = oldest_retained(&self.database)?;
            if wanted < oldest {
                return Ok(AtHeight::Pruned { oldest });
            }
            if self.totals()?.height / CHECKPOINT_INTERVAL == executed / CHECKPOINT_INTERVAL {
                let value = former.map_or(now, |former| former.bytes().map(<[u8]>::to_vec));
                return Ok(AtHeight::Found(value, wanted));
            }
        }
        Err(StorageError::Failed("the ledger changes faster than it can be read".to_owned()))
    }

    /// The oldest height this node answers questions for.
    pub fn oldest(&self) -> Result<u64, StorageError> {
        oldest_retained(&self.database)
    }

    /// What executing a block left behind; `None` if it is not executed, or pruned.
    pub fn block_summary(&self, height: u64) -> Result<Option<BlockSummary>, StorageError> {
        let value = self.database.get(Family::Ledger, &summary_key(height))?;
        value.map(|bytes| BlockSummary::decode(&bytes)).transpose()
    }

    /// The commitment at a checkpoint height; `None` at other heights, above the executed one, and where it was pruned.
    pub fn checkpoint(&self, height: u64) -> Result<Option<Checkpoint>, StorageError> {
        let value = self.database.get(Family::Ledger, &checkpoint_key(height))?;
        value.map(|bytes| decode_checkpoint(height, &bytes)).transpose()
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

    /// The receipts of many transactions, in the order of the ids.
    pub fn transactions(&self, ids: &[TransactionId]) -> Result<Vec<Option<TransactionRecord>>, StorageError> {
        let values = self.database.get_many(Family::Transactions, ids.iter().map(|id| id.0.as_slice()))?;
        let decode = |(id, value): (&TransactionId, Option<Vec<u8>>)| {
            value.map(|bytes| TransactionRecord::decode(*id, &bytes)).transpose()
        };
        ids.iter().zip(values).map(decode).collect()
    }

    /// True if these are the receipts of a block: by their root, and one by one, but for those that a transaction's later
    /// execution replaced or that were pruned.
    pub fn has_receipts(&self, height: u64, receipts: &[Receipt]) -> Result<bool, StorageError> {
        let Some(summary) = self.block_summary(height)? else { return Ok(false) };
        let ids: Vec<TransactionId> = receipts.iter().map(|receipt| receipt.id).collect();
        let stored = self.transactions(&ids)?.into_iter().zip(receipts);
        let alike = stored.into_iter().all(|(stored, receipt)| {
            stored.is_none_or(|stored| stored.receipt == *receipt || stored.receipt.height > height)
        });
        Ok(alike && summary == BlockSummary::of(summary.hash, receipts))
    }

    /// Which of the transactions are finalised, in the order of the ids.
    pub fn finalized(&self, ids: &[TransactionId]) -> Result<Vec<bool>, StorageError> {
        let values = self.database.get_many(Family::Transactions, ids.iter().map(|id| id.0.as_slice()))?;
        Ok(values.into_iter().map(|value| value.is_some()).collect())
    }

    /// How many transactions the block at `height` executed; `None` if it is not executed yet, or pruned.
    pub fn block_transactions(&self, height: u64) -> Result<Option<u32>, StorageError> {
        Ok(self.block_summary(height)?.map(|summary| summary.transactions))
    }
}
