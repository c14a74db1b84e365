//! Executes finalised blocks, in height order, exactly once: the executed height is written with the block's effects.

use std::sync::Arc;

use bizra_driver::batch::Batch;
use bizra_proto::ceremony::{Genesis, decode_hex};
use bizra_simplex::block::Block;
use bizra_simplex::types::{Digest, Height};

use crate::storage::{Database, Family, StorageError, Writes};
use crate::transaction::{Address, ChainId, Payload, TraceId, Transaction, TransactionId};

use super::accounts::{AccountCache, BlockAccounts, Unwritten};
use super::execution::{self, Step};
use super::metrics::LedgerMetrics;
use super::receipt::{Failure, Receipt};
use super::record::{Account, STATE_KEY, State, TransactionRecord, count_key};

/// The ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The genesis is not one that `Genesis::check` accepts.
    #[error("the genesis cannot become a ledger: {0}")]
    Genesis(String),
    /// The database belongs to another chain.
    #[error("the database holds the ledger of chain {found} with supply {found_supply}, not of {wanted} with {supply}")]
    AnotherChain {
        /// Chain of the database.
        found: ChainId,
        /// Supply of the database.
        found_supply: u64,
        /// Chain of the genesis.
        wanted: ChainId,
        /// Supply of the genesis.
        supply: u64,
    },
}

/// What executing one block brought about. A pure function of the finalised chain: the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOutcome {
    /// Height of the block.
    pub height: Height,
    /// Its digest.
    pub hash: Digest,
    /// Digest of its parent.
    pub parent: Digest,
    /// Its time, milliseconds since 1970; informational.
    pub time_milliseconds: u64,
    /// The batches it ordered.
    pub batches: Vec<Digest>,
    /// Receipts in the order of execution; `index` counts up from 0.
    pub receipts: Arc<Vec<Receipt>>,
    /// Transactions that were skipped because they already had a receipt.
    pub duplicates: Vec<TransactionId>,
}

/// The ledger's state and the only writer of its families.
pub struct Ledger {
    database: Database,
    metrics: LedgerMetrics,
    cache: AccountCache,
    unwritten: Unwritten,
    state: State,
}

/// A transaction of the block being executed.
struct Planned {
    id: TransactionId,
    trace: TraceId,
    step: Step,
    batch: u16,
    offset: u32,
    length: u16,
}

impl Ledger {
    /// Opens the ledger; on a fresh database writes the genesis state, durably, before it returns.
    pub fn open(database: Database, genesis: &Genesis, metrics: LedgerMetrics) -> Result<Self, LedgerError> {
        let state = match database.get(Family::Ledger, STATE_KEY)? {
            Some(bytes) => existing_state(&bytes, genesis)?,
            None => write_genesis(&database, genesis)?,
        };
        metrics.executed_height.set(state.executed.cast_signed());
        Ok(Self { database, metrics, cache: AccountCache::default(), unwritten: Unwritten::default(), state })
    }

    /// Height of the last executed block; 0 after the genesis.
    pub fn executed(&self) -> Height {
        Height(self.state.executed)
    }

    /// Executes the block after the last executed one. `batches` are the verified bodies of `block.batches`, in that
    /// order. All effects go into `writes`, which may hold those of earlier blocks too; the caller commits them, and
    /// after any error or failed commit stops: the ledger in memory may be ahead of the one on disk.
    pub fn execute(
        &mut self,
        block: &Block,
        batches: &[Batch],
        writes: &mut Writes<'_>,
    ) -> Result<BlockOutcome, StorageError> {
        let _timer = self.metrics.execution_seconds.start_timer();
        let height = block.height.0;
        if Some(self.executed()) != block.height.previous() || batches.len() != block.batches.len() {
            return Err(StorageError::Corrupt(format!(
                "block {height} with {} of {} batches cannot follow executed block {}",
                batches.len(),
                block.batches.len(),
                self.state.executed,
            )));
        }

        self.forget_written()?;
        let mut accounts = BlockAccounts::default();
        let planned = plan(batches, &mut accounts)?;
        let known = self
            .database
            .get_many(Family::Transactions, planned.iter().map(|transaction| transaction.id.0.as_slice()))?;
        accounts.load(&self.unwritten, &self.cache, &self.database)?;

        let mut state = self.state;
        let mut receipts = Vec::with_capacity(planned.len());
        let mut duplicates = Vec::new();
        for (transaction, known) in planned.iter().zip(known) {
            if known.is_some() || self.unwritten.has_executed(&transaction.id) {
                duplicates.push(transaction.id);
                continue;
            }
            let failure = execution::apply(&transaction.step, height, &mut accounts, &mut state.fees)
                .map_err(|_| StorageError::Corrupt(format!("balances exceed the supply at block {height}")))?;
            let index = receipts.len() as u32;
            let receipt = Receipt { id: transaction.id, height, index, failure, trace: transaction.trace };
            let Planned { batch, offset, length, .. } = *transaction;
            let record = TransactionRecord { receipt, batch, offset, length };
            writes.put(Family::Transactions, &receipt.id.0, &record.encode())?;
            self.unwritten.add_executed(receipt.id);
            receipts.push(receipt);
        }
        state.executed = height;
        state.transactions = state.transactions.saturating_add(receipts.len() as u64);
        accounts.write(writes)?;
        writes.put(Family::Ledger, STATE_KEY, &state.encode())?;
        writes.put(Family::Ledger, &count_key(height), &(receipts.len() as u32).to_be_bytes())?;

        accounts.remember(&mut self.unwritten, &mut self.cache);
        self.state = state;
        self.observe(&receipts, duplicates.len());
        Ok(BlockOutcome {
            height: block.height,
            hash: block.digest(),
            parent: block.parent,
            time_milliseconds: block.time_milliseconds,
            batches: block.batches.clone(),
            receipts: Arc::new(receipts),
            duplicates,
        })
    }

    /// Forgets the unwritten effects if the database has caught up.
    fn forget_written(&mut self) -> Result<(), StorageError> {
        let written = self.database.get(Family::Ledger, STATE_KEY)?.map(|bytes| State::decode(&bytes)).transpose()?;
        if written == Some(self.state) {
            self.unwritten.clear();
        }
        Ok(())
    }

    fn observe(&self, receipts: &[Receipt], duplicates: usize) {
        self.metrics.executed_height.set(self.state.executed.cast_signed());
        self.metrics.duplicates.inc_by(duplicates as u64);
        for outcome in Failure::ALL.map(Some).into_iter().chain([None]) {
            let count = receipts.iter().filter(|receipt| receipt.failure == outcome).count();
            self.metrics.count_receipt(outcome, count as u64);
        }
    }
}

/// Lists the block's transactions, in order, and the accounts they touch.
fn plan(batches: &[Batch], accounts: &mut BlockAccounts) -> Result<Vec<Planned>, StorageError> {
    let invalid = |what: &dyn std::fmt::Display| {
        StorageError::Corrupt(format!("a finalised batch holds an invalid payload: {what}"))
    };
    let mut planned = Vec::new();
    for (batch, body) in (0..).zip(batches) {
        let payload = Payload::parse(&body.payload).map_err(|error| invalid(&error))?;
        planned.reserve(payload.count());
        for entry in payload.entries() {
            let Transaction { sender, transfer, .. } =
                Transaction::decode(entry.transaction).map_err(|error| invalid(&error))?;
            planned.push(Planned {
                id: TransactionId::of(entry.transaction),
                trace: entry.trace,
                step: Step {
                    sender: accounts.mention(sender),
                    recipient: accounts.mention(transfer.recipient),
                    nonce: transfer.nonce,
                    fee: transfer.fee,
                    amount: transfer.amount,
                    expiry_height: transfer.expiry_height,
                },
                batch,
                offset: entry.offset,
                length: entry.transaction.len() as u16,
            });
        }
    }
    Ok(planned)
}

fn genesis_state(genesis: &Genesis) -> Result<(State, Vec<(Address, Account)>), LedgerError> {
    let invalid = |what: String| LedgerError::Genesis(what);
    let chain = ChainId::new(&genesis.chain_id)
        .ok_or_else(|| invalid(format!("{:?} does not name a chain", genesis.chain_id)))?;
    let mut accounts = Vec::with_capacity(genesis.accounts.len());
    let mut supply: u64 = 0;
    for account in &genesis.accounts {
        let read = || Some((Address(decode_hex(&account.address)?), account.balance()?));
        let (address, balance) = read().ok_or_else(|| invalid(format!("account {} is malformed", account.address)))?;
        supply = supply.checked_add(balance).ok_or_else(|| invalid("the supply is too large".to_owned()))?;
        accounts.push((address, Account { balance, nonce: 0 }));
    }
    Ok((State { chain, executed: 0, supply, fees: 0, transactions: 0 }, accounts))
}

fn existing_state(bytes: &[u8], genesis: &Genesis) -> Result<State, LedgerError> {
    let found = State::decode(bytes)?;
    let (wanted, _) = genesis_state(genesis)?;
    if (found.chain, found.supply) == (wanted.chain, wanted.supply) {
        return Ok(found);
    }
    Err(LedgerError::AnotherChain {
        found: found.chain,
        found_supply: found.supply,
        wanted: wanted.chain,
        supply: wanted.supply,
    })
}

fn write_genesis(database: &Database, genesis: &Genesis) -> Result<State, LedgerError> {
    let (state, accounts) = genesis_state(genesis)?;
    let mut writes = database.writes();
    for (address, account) in accounts {
        writes.put(Family::Accounts, &address.0, &account.encode())?;
    }
    writes.put(Family::Ledger, STATE_KEY, &state.encode())?;
    writes.commit_synced()?;
    Ok(state)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
