//! Executes finalised blocks, in height order, exactly once: the executed height is written with the block's effects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bizra_driver::batch::Batch;
use bizra_ledger::{BlockAccounts, Ground, RECEIPT_BLOCKS, Step, StepAction};
use bizra_proto::ceremony::Genesis;
use bizra_proto::parameters::Parameters;
use bizra_simplex::Checkpoint;
use bizra_simplex::block::{Block, CHECKPOINT_INTERVAL};
use bizra_simplex::types::{Digest, Height};

use crate::storage::{Database, Family, StorageError, Writes};
use crate::transaction::{Action, ChainId, Payload, TraceId, Transaction, TransactionId};
use crate::validator::{self, RECENT_BLOCKS, Registry, Report, Turn, ValidatorSetRecord};

use super::accounts::{self, AccountCache, Unwritten};
use super::checkpoint::{BlockSummary, checkpoint_key, decode_checkpoint, summary_key};
use super::commitment::LtHash;
use super::effect::{self, Effect, Moment};
use super::history::{Change, encode_log, log_key};
use super::metrics::LedgerMetrics;
use super::receipt::Receipt;
use super::record::{STATE_KEY, State, TransactionRecord, superseded_key, totals_key};
use super::restart::LedgerRestart;
use super::state_entries::StateEntries;
use super::{genesis, sealing};

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
    /// Their positions among the transactions the block orders, ascending.
    pub duplicate_positions: Vec<u32>,
    /// What changed beyond what the transactions say, in the order in which it happened.
    pub effects: Vec<(Moment, Effect)>,
    /// What came of the contradictions that it reports, before its transactions; in its order.
    pub reports: Vec<Report>,
}

/// Most checkpoints remembered in memory: more than one turn executes.
const CHECKPOINTS_REMEMBERED: usize = 64;

/// The ledger's state and the only writer of its families.
pub struct Ledger {
    pub(super) database: Database,
    metrics: LedgerMetrics,
    genesis_hash: Digest,
    pub(super) cache: AccountCache,
    pub(super) unwritten: Unwritten,
    pub(super) entries: StateEntries,
    pub(super) state: State,
    pub(super) registry: Registry,
    /// The restarts of the chain, in their order.
    pub(super) restarts: Arc<Vec<LedgerRestart>>,
    /// The commitment as of the last checkpoint, totals and recent blocks left out.
    pub(super) lattice: LtHash,
    /// What changed since.
    pub(super) changes: Vec<Change>,
    /// Leaves of the blocks since.
    pub(super) leaves: Vec<Digest>,
    /// Digests of the last blocks, the executed one last.
    pub(super) recent: VecDeque<Digest>,
    checkpoints: BTreeMap<u64, Checkpoint>,
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
    /// Opens the ledger; on a fresh database writes the genesis state, durably, before it returns. The genesis hash is the
    /// chain's identity, as in votes.
    pub fn open(
        database: Database,
        genesis: &Genesis,
        genesis_hash: Digest,
        metrics: LedgerMetrics,
    ) -> Result<Self, LedgerError> {
        let (state, registry) = match database.get(Family::Ledger, STATE_KEY)? {
            Some(bytes) => {
                let state = genesis::existing_state(&bytes, genesis)?;
                (state, Registry::load(super::state_entries::stored(&database)?)?)
            }
            None => genesis::write(&database, genesis, genesis_hash)?,
        };
        metrics.executed_height.set(state.executed.cast_signed());
        let sealing::Recovered { lattice, changes, leaves, recent } = sealing::recover(&database, state.executed)?;
        Ok(Self {
            entries: StateEntries::new(database.clone()),
            database,
            metrics,
            genesis_hash,
            cache: AccountCache::default(),
            unwritten: Unwritten::default(),
            state,
            registry,
            restarts: Arc::default(),
            lattice,
            changes,
            leaves,
            recent,
            checkpoints: BTreeMap::new(),
        })
    }

    /// Height of the last executed block; 0 after the genesis.
    pub fn executed(&self) -> Height {
        Height(self.state.executed)
    }

    /// The commitment at a checkpoint height that was executed, in an uncommitted turn too; `None` at other heights, above
    /// the executed one, and where it was pruned. That of the genesis is zero: the genesis file names its state.
    pub fn checkpoint(&self, height: u64) -> Result<Option<Checkpoint>, StorageError> {
        if let Some(checkpoint) = self.checkpoints.get(&height) {
            return Ok(Some(*checkpoint));
        }
        let value = self.database.get(Family::Ledger, &checkpoint_key(height))?;
        value.map(|bytes| decode_checkpoint(height, &bytes)).transpose()
    }

    /// The set that the state at a cut-off height named for the next epoch; the genesis' set at 0. `None` at other
    /// heights, above the executed one, and before the unbonding period.
    pub fn validators_at_cutoff(&self, height: u64) -> Option<Arc<ValidatorSetRecord>> {
        self.registry.set_at_cutoff(height).cloned()
    }

    /// The set of an epoch, if its cut-off is executed and it is within the unbonding period.
    pub fn validators_of_epoch(&self, epoch: u64) -> Option<Arc<ValidatorSetRecord>> {
        self.registry.set(epoch).cloned()
    }

    /// Power of the set computed last whose keys have signalled this version of the protocol or a higher one (P1).
    pub fn power_signalling(&self, version: u32) -> u64 {
        self.registry.power_signalling(version)
    }

    /// True if a block of this epoch must not report this consensus key any more (PROTOCOL V7).
    pub fn is_reported(&self, key: [u8; 32], epoch: u64) -> Result<bool, StorageError> {
        validator::is_reported(&self.entries, key, epoch)
    }

    /// The first cut-off height that is not executed yet.
    pub fn next_cutoff(&self) -> u64 {
        self.state.next_cutoff
    }

    /// The parameters in force after the executed block.
    pub fn parameters(&self) -> &Parameters {
        self.registry.parameters()
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
        let restarted = self.begin_restarted(block)?;
        let mut accounts = BlockAccounts::default();
        let planned = plan(batches, &mut accounts)?;
        let known = self
            .database
            .get_many(Family::Transactions, planned.iter().map(|transaction| transaction.id.0.as_slice()))?;
        accounts::load(&mut accounts, &self.unwritten, &self.cache, &self.database)?;

        let mut state = self.state;
        let mut receipts = Vec::with_capacity(planned.len());
        let (mut duplicates, mut duplicate_positions) = (Vec::new(), Vec::new());
        let mut effects: Vec<_> = restarted.map(|effect| (Moment::BeforeTransactions, effect)).into_iter().collect();
        let (restarts, genesis_hash) = (Arc::clone(&self.restarts), self.genesis_hash);
        let recent = &self.recent;
        let recent_block = |wanted: u64| {
            let below = height.checked_sub(wanted).filter(|below| (1..=RECENT_BLOCKS).contains(below))?;
            recent.get(recent.len().checked_sub(below as usize)?).copied()
        };
        let mut signature_checks = 0;
        let mut ground = Ground {
            fees: &mut state.fees,
            money: &mut state.money,
            registry: &mut self.registry,
            turn: Turn {
                entries: &mut self.entries,
                height,
                recent_block: &recent_block,
                domain: &|epoch| Self::domain(&restarts, genesis_hash, epoch),
                verify: &bizra_transaction::verify,
                signature_checks: &mut signature_checks,
            },
        };
        ground.registry.note_signal(block, ground.turn.entries)?;
        ground.registry.note_turns(block, ground.turn.entries)?;
        let mut reports = Vec::new();
        for told in &block.contradictions {
            let Ground { registry, money, turn, .. } = &mut ground;
            let report = registry.take_report(block.epoch.0, told, money, turn)?;
            effects.extend(report.map(|report| (Moment::BeforeTransactions, effect::of_report(report))));
            reports.extend(report);
        }
        for Report { owner, failure, .. } in &reports {
            tracing::warn!(height, %owner, ?failure, "a block reports a validator that contradicted itself");
        }
        for (position, (transaction, known)) in (0..).zip(planned.iter().zip(known)) {
            if self.unwritten.has_executed(&transaction.id) || known.as_ref().is_some_and(|known| stands(known, height))
            {
                duplicates.push(transaction.id);
                duplicate_positions.push(position);
                continue;
            }
            if let Some(known) = known {
                // A snapshot at a cut-off below may have to hold it still.
                writes.put(Family::Ledger, &superseded_key(height, &transaction.id), &known)?;
            }
            let money = *ground.money;
            let failure = bizra_ledger::apply(&transaction.step, height, &mut accounts, &mut ground)?;
            let index = receipts.len() as u32;
            if failure.is_none()
                && let StepAction::Operation(_, operation) = &transaction.step.action
                && let Some(effect) = effect::of_operation(operation, money, *ground.money, ground.registry)
            {
                effects.push((Moment::With(index), effect));
            }
            let receipt = Receipt { id: transaction.id, height, index, failure, trace: transaction.trace };
            let Planned { batch, offset, length, .. } = *transaction;
            let record = TransactionRecord { receipt, batch, offset, length };
            writes.put(Family::Transactions, &receipt.id.0, &record.encode())?;
            self.unwritten.add_executed(receipt.id);
            receipts.push(receipt);
        }
        state.executed = height;
        state.transactions = state.transactions.saturating_add(receipts.len() as u64);
        if height == state.next_cutoff {
            let before = *self.registry.parameters();
            let waiting = self.registry.cut_off(height, &mut self.entries)?;
            if !waiting.is_empty() {
                tracing::info!(height, ?waiting, "changes of validators wait for a later epoch");
            }
            let cutoff = effect::of_cutoff(&before, &self.registry, height, waiting);
            effects.extend(cutoff.map(|effect| (Moment::AfterTransactions, effect)));
            state.next_cutoff = height.saturating_add(self.registry.parameters().epoch_blocks);
        }

        let first_change = self.changes.len();
        accounts::write(&accounts, writes, height, &mut self.changes)?;
        self.entries.write(writes, height, &mut self.changes)?;
        accounts::remember(&accounts, &mut self.unwritten, &mut self.cache);
        let hash = block.digest();
        let summary = BlockSummary::of(hash, &receipts);
        self.leaves.push(BlockSummary::leaf(height, summary.transactions_root, summary.receipts_root));
        self.recent.push_back(hash);
        if self.recent.len() > RECENT_BLOCKS as usize {
            self.recent.pop_front();
        }
        writes.put(Family::Ledger, STATE_KEY, &state.encode())?;
        writes.put(Family::Ledger, &summary_key(height), &summary.encode())?;
        if self.registry.set_at_cutoff(height).is_some() {
            writes.put(Family::Ledger, &totals_key(height), &state.encode())?;
        }
        self.state = state;
        if height.is_multiple_of(CHECKPOINT_INTERVAL) {
            let checkpoint = self.seal(writes)?;
            self.checkpoints.insert(height, checkpoint);
            if self.checkpoints.len() > CHECKPOINTS_REMEMBERED {
                self.checkpoints.pop_first();
            }
        } else {
            let log = self.changes.get(first_change..).unwrap_or_default();
            writes.put(Family::Ledger, &log_key(height), &encode_log(log))?;
        }

        self.observe(&receipts, duplicates.len());
        Ok(BlockOutcome {
            height: block.height,
            hash,
            parent: block.parent,
            time_milliseconds: block.time_milliseconds,
            batches: block.batches.clone(),
            receipts: Arc::new(receipts),
            duplicates,
            duplicate_positions,
            effects,
            reports,
        })
    }

    /// Forgets the unwritten effects if the database has caught up.
    fn forget_written(&mut self) -> Result<(), StorageError> {
        let written = self.database.get(Family::Ledger, STATE_KEY)?.map(|bytes| State::decode(&bytes)).transpose()?;
        if written == Some(self.state) {
            self.unwritten.clear();
            self.entries.clear();
        }
        Ok(())
    }

    fn observe(&self, receipts: &[Receipt], duplicates: usize) {
        self.metrics.executed_height.set(self.state.executed.cast_signed());
        self.metrics.duplicates.inc_by(duplicates as u64);
        let failed = receipts.iter().filter(|receipt| receipt.failure.is_some());
        let failures = failed.map(|receipt| self.metrics.count_receipt(receipt.failure, 1)).count();
        self.metrics.count_receipt(None, (receipts.len() - failures) as u64);
    }
}

/// True if an earlier receipt keeps a transaction from being executed again at this height.
fn stands(record: &[u8], height: u64) -> bool {
    TransactionRecord::height(record).is_ok_and(|executed| height.saturating_sub(executed) <= RECEIPT_BLOCKS)
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
            let Transaction { sender, terms, action, .. } =
                Transaction::decode(entry.transaction).map_err(|error| invalid(&error))?;
            let slot = accounts.mention(sender);
            let action = match action {
                Action::Transfer { recipient, amount, .. } => {
                    StepAction::Transfer { recipient: accounts.mention(recipient), amount }
                }
                Action::Operation(operation) => StepAction::Operation(sender, operation),
            };
            planned.push(Planned {
                id: TransactionId::of(entry.transaction),
                trace: entry.trace,
                step: Step {
                    sender: slot,
                    nonce: terms.nonce,
                    fee: terms.fee,
                    expiry_height: terms.expiry_height,
                    action,
                },
                batch,
                offset: entry.offset,
                length: entry.transaction.len() as u16,
            });
        }
    }
    Ok(planned)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
