//! Replays a stopped node's chain into another database, and compares everything on the way: a full check of what is
//! stored, and the proof that the state follows from the log.
//!
//! A database that keeps everything is replayed from the genesis. Of one that was pruned the state at the lowest
//! checkpoint that its history reaches is rebuilt first; it must have the commitment that headers name. Compared are at
//! every block its summary and the record of its events, at every checkpoint the commitment (with what headers name and
//! what is stored), and in the end every entry of the ledger: accounts, state, history, receipts, logs.

use bizra_simplex::Block;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Epoch, Height};

use crate::block::{BlockStore, ChainCheck, ChainReport, IndexReport, VerifyError, verify_indexes};
use crate::blockchain::{
    CommitmentError, Difference, Ledger, LedgerError, LedgerMetrics, LedgerReader, Receipt, Since, compare_ledgers,
    rebuild, rebuildable,
};
use crate::configuration::LoadedGenesis;
use crate::event_store::{self, Event, EventData, EventError, EventLog};
use crate::gateway::BlockReader as _;
use crate::recovery::PinnedRestarts;
use crate::storage::{Database, StorageError};
use crate::validator::ValidatorSetRecord;

/// Blocks replayed in one write.
const BLOCKS_PER_WRITE: u64 = 16;

/// What of the chain is checked besides its execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Nothing: blocks are taken at their word.
    Execution,
    /// Every hash, certificate, signature and index.
    Everything,
}

/// What was replayed and found alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// The oldest height that is kept; 0 if everything is.
    pub oldest: u64,
    /// Height of the state from which blocks were executed again; 0 for the genesis.
    pub base: u64,
    /// The last executed height.
    pub height: u64,
    /// Blocks executed again.
    pub blocks: u64,
    /// Transactions executed again.
    pub transactions: u64,
    /// Events of these blocks.
    pub events: u64,
    /// Checkpoints compared.
    pub checkpoints: u64,
    /// Entries of the ledger compared.
    pub entries: u64,
    /// Of the chain, if it was checked.
    pub chain: ChainReport,
    /// Of the indexes, if they were checked.
    pub indexes: IndexReport,
}

/// The first thing that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The genesis does not fit.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A block, or what indexes it.
    #[error(transparent)]
    Chain(#[from] VerifyError),
    /// The state from which to begin.
    #[error("the state at the base cannot be rebuilt: {0}")]
    Base(#[from] CommitmentError),
    /// Events cannot be made.
    #[error("the events of block {0}: {1}")]
    Events(u64, EventError),
    /// Too little is kept to begin anywhere.
    #[error(
        "blocks from {oldest} to {executed} are kept, of which no state can be rebuilt yet; let the node run to height {base}"
    )]
    TooShort {
        /// The oldest height.
        oldest: u64,
        /// The last one.
        executed: u64,
        /// The lowest height whose state can be rebuilt.
        base: u64,
    },
    /// What a block leads to is not what is stored.
    #[error("block {height}: {what}")]
    Block {
        /// Its height.
        height: u64,
        /// What differs.
        what: &'static str,
    },
    /// What all blocks lead to is not what is stored.
    #[error(transparent)]
    Entry(#[from] Difference),
}

/// Replays `source` into `target`, an empty database, and compares. `progress` hears of every block.
pub fn replay(
    source: &Database,
    (genesis, restarts): (&LoadedGenesis, &PinnedRestarts),
    target: &Database,
    depth: Depth,
    mut progress: impl FnMut(u64, u64),
) -> Result<ReplayReport, ReplayError> {
    let genesis_block = Block::genesis(genesis.hash, genesis.genesis.time_milliseconds);
    let blocks = BlockStore::open(source.clone(), genesis_block.clone())?;
    let reader = LedgerReader::new(source.clone());
    let (oldest, executed) = (reader.oldest()?, reader.totals()?.height);
    // Keeps the log's head; nobody waits for more here.
    let (_writer, events) = event_store::open(source.clone(), std::sync::Arc::new(blocks.clone()))?;
    let base = rebuildable(oldest);
    if base > executed {
        return Err(ReplayError::TooShort { oldest, executed, base });
    }
    if base > 0 {
        rebuild(source, target, base, since(&events, base, executed)?, &restarts.ledger())?;
    }
    let metrics = LedgerMetrics::new(&prometheus::Registry::new())
        .map_err(|error| StorageError::Failed(format!("metrics cannot be made: {error}")))?;
    let mut ledger =
        Ledger::open(target.clone(), &genesis.genesis, genesis.hash, metrics)?.with_restarts(restarts.ledger());
    let parent = (oldest == 0).then_some(genesis_block);
    let mut report = ReplayReport { oldest, base, height: executed, ..ReplayReport::default() };

    let mut check = ChainCheck::new(&blocks, genesis, restarts.consensus(), parent, Height(executed))?;
    let first = oldest.max(1);
    let mut writes = target.writes();
    for height in first..=blocks.finalized().0.0 {
        let sets = |epoch: Epoch| set(&ledger, epoch);
        let (block, batches) = match depth {
            Depth::Everything => check.block(Height(height), &sets)?,
            Depth::Execution if height <= base || height > executed => continue,
            Depth::Execution => read_block(&blocks, height)?,
        };
        if (oldest..=executed).contains(&block.checkpoint.height.0) {
            compare_header(&reader, &block)?;
        }
        if height <= base {
            compare_past(&reader, &events, height)?;
            continue;
        }
        if height > executed {
            continue;
        }
        let outcome = ledger.execute(&block, &batches, &mut writes)?;
        event_store::append(&mut writes, &outcome)?;
        if height.is_multiple_of(BLOCKS_PER_WRITE) || height == executed {
            std::mem::replace(&mut writes, target.writes()).commit_unsynced()?;
        }
        let record = event_store::BlockRecord::of(&outcome).encode();
        if event_store::stored_record(source, height)? != Some(record) {
            return Err(ReplayError::Block { height, what: "it leads to other events than are stored" });
        }
        report.blocks += 1;
        report.transactions += outcome.receipts.len() as u64;
        report.events += events.count(height).map_err(|error| ReplayError::Events(height, error))?;
        if height.is_multiple_of(CHECKPOINT_INTERVAL) {
            if ledger.checkpoint(height)? != reader.checkpoint(height)? {
                return Err(ReplayError::Block { height, what: "it leads to another commitment than is stored" });
            }
            report.checkpoints += 1;
        }
        progress(height, executed);
    }
    drop(writes);
    report.entries = compare_ledgers(source, target, base)??;
    if let Some(height) = events.stray(first, executed)? {
        return Err(ReplayError::Block { height, what: "it has events, but is not one of the blocks that are kept" });
    }
    if depth == Depth::Everything {
        report.chain = check.finish()?;
        let sets = |epoch: Epoch| set(&ledger, epoch);
        report.indexes =
            verify_indexes(&blocks, genesis, &restarts.consensus(), Height(first), Height(executed), &sets)?;
    }
    Ok(report)
}

/// The validators of an epoch; a restart's before its first block too. One that is refused there stops the replay.
fn set(ledger: &Ledger, epoch: Epoch) -> Option<std::sync::Arc<ValidatorSetRecord>> {
    ledger.validators_of_epoch(epoch.0).or_else(|| ledger.restarted_set(epoch.0).ok().flatten())
}

fn read_block(blocks: &BlockStore, height: u64) -> Result<(Block, Vec<bizra_driver::Batch>), ReplayError> {
    let missing = || ReplayError::Block { height, what: "it, or a batch that it orders, is missing" };
    let block = blocks.get(Height(height))?.ok_or_else(missing)?.block;
    let batch = |digest: &_| blocks.batch(*digest)?.ok_or_else(missing);
    let batches = block.batches.iter().map(batch).collect::<Result<_, ReplayError>>()?;
    Ok((block, batches))
}

/// What happened above the base, from the events there.
fn since(events: &EventLog, base: u64, executed: u64) -> Result<Since, ReplayError> {
    let mut since = Since::default();
    for height in base + 1..=executed {
        let more = |sum: u64, more: u64| sum.saturating_add(more);
        let of_block = events.events_of(height).map_err(|error| ReplayError::Events(height, error))?;
        for event in of_block {
            match event.data {
                EventData::TransactionApplied { fee, .. } => since.fees = more(since.fees, fee),
                EventData::ValidatorJailed { slashed, .. } => since.slashed = more(since.slashed, slashed),
                EventData::BlockFinalized { transactions, .. } => {
                    since.transactions = more(since.transactions, transactions.into());
                }
                _ => {}
            }
        }
    }
    Ok(since)
}

/// What certified headers say of the state must be what is stored of it.
fn compare_header(reader: &LedgerReader, block: &Block) -> Result<(), ReplayError> {
    let named = block.checkpoint;
    if reader.checkpoint(named.height.0)? != Some(named) {
        let what = "its header names another commitment than is stored";
        return Err(ReplayError::Block { height: block.height.0, what });
    }
    Ok(())
}

/// Below the base nothing is executed again; the events must lead to the receipts that are stored and to their root.
fn compare_past(reader: &LedgerReader, events: &EventLog, height: u64) -> Result<(), ReplayError> {
    let of_block = events.events_of(height).map_err(|error| ReplayError::Events(height, error))?;
    let mut receipts = Vec::new();
    for Event { transaction, trace, data, .. } in of_block {
        let failure = match data {
            EventData::TransactionApplied { .. } => None,
            EventData::TransactionFailed { failure, .. } => Some(failure),
            _ => continue,
        };
        if let Some(id) = transaction {
            receipts.push(Receipt { id, height, index: receipts.len() as u32, failure, trace });
        }
    }
    if reader.has_receipts(height, &receipts)? {
        return Ok(());
    }
    Err(ReplayError::Block { height, what: "its events and its receipts contradict each other" })
}

#[cfg(test)]
mod tests;
