//! The log on disk, and its readers' way in.

use std::sync::Arc;

use bizra_simplex::types::Height;
use tokio::sync::{Semaphore, watch};

use super::event::Position;
use super::record::BlockRecord;
use super::subscription::{Start, Subscription, SubscriptionRequest};
use super::synthesis::{BlockEvents, SynthesisError};
use crate::blockchain::{BlockOutcome, LedgerReader};
use crate::gateway::BlockReader;
use crate::storage::{Database, Family, StorageError, Writes};

/// Most open subscriptions: each holds a few thousand events and one body at most.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;

/// Most subscriptions that read the database at the same time; the others wait their turn, so that many readers of old
/// events do not take the node's processors from consensus.
pub(super) const READS_AT_ONCE_MAX: usize = 2;

/// Why events cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// They were pruned here.
    #[error("this node keeps the events of blocks from {oldest} on; ask one that keeps more, or read from {oldest}:0")]
    Pruned {
        /// The oldest height.
        oldest: u64,
    },
    /// They have not happened yet.
    #[error("block {height} does not exist yet: the last one is {executed}; read from {}:0 at most", executed.saturating_add(1))]
    Future {
        /// The height asked for.
        height: u64,
        /// The last executed height.
        executed: u64,
    },
    /// The block has fewer events.
    #[error("block {height} has {count} events: there is no index {index}")]
    NoSuchIndex {
        /// The block.
        height: u64,
        /// The index asked for.
        index: u32,
        /// How many events it has.
        count: u32,
    },
    /// Too many subscriptions are open.
    #[error("{SUBSCRIPTIONS_MAX} subscriptions are open already; close one or ask another node")]
    Busy,
    /// The subscriber did not read for too long.
    #[error("the subscriber did not read for {0} seconds; subscribe again behind the last event it got")]
    Slow(u64),
    /// Reading failed.
    #[error("the node could not read its event log")]
    Storage(#[from] StorageError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Tells readers how far the log has grown. There is one, with the owner of the ledger.
pub struct EventWriter {
    head: watch::Sender<u64>,
}

impl EventWriter {
    /// To be called when the writes of [`append`] are applied, for every block, in height order.
    pub fn applied(&self, height: Height) {
        self.head.send_replace(height.0);
    }
}

/// Reads the log from any thread. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    database: Database,
    ledger: LedgerReader,
    blocks: Arc<dyn BlockReader>,
    pub(super) head: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
}

/// The log of a database whose ledger was opened before.
pub fn open(database: Database, blocks: Arc<dyn BlockReader>) -> Result<(EventWriter, EventLog), StorageError> {
    let ledger = LedgerReader::new(database.clone());
    let (sender, head) = watch::channel(ledger.totals()?.height);
    let room = Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX));
    let reads = Arc::new(Semaphore::new(READS_AT_ONCE_MAX));
    Ok((EventWriter { head: sender }, EventLog { database, ledger, blocks, head, room, reads }))
}

fn key(height: u64) -> [u8; 8] {
    height.to_be_bytes()
}

/// Adds what is stored of an executed block's events to the writes that hold its other effects.
pub fn append(writes: &mut Writes<'_>, outcome: &BlockOutcome) -> Result<(), StorageError> {
    writes.put(Family::Events, &key(outcome.height.0), &BlockRecord::of(outcome).encode())
}

/// Removes the events of blocks from `before` up to but without `oldest`.
pub fn prune_events(writes: &mut Writes<'_>, before: u64, oldest: u64) -> Result<(), StorageError> {
    writes.delete_range(Family::Events, &key(before), &key(oldest))
}

/// The stored form of a block's record; `None` if there is none.
pub fn stored_record(database: &Database, height: u64) -> Result<Option<Vec<u8>>, StorageError> {
    database.get(Family::Events, &key(height))
}

impl EventLog {
    /// Height of the last block whose events are there: of the last executed block, so who was told of a transaction finds its
    /// events. [`EventWriter::applied`] only wakes those that wait, and a moment later.
    pub fn head(&self) -> Result<u64, StorageError> {
        Ok(self.ledger.totals()?.height)
    }

    /// The oldest height whose events are kept; the first block's at least.
    pub fn oldest(&self) -> Result<u64, EventError> {
        Ok(self.ledger.oldest()?.max(1))
    }

    /// The events of a block.
    pub(super) fn block(&self, height: u64) -> Result<BlockEvents, EventError> {
        // Whoever follows reads what the writer has told of: that needs no look at the ledger.
        if height > *self.head.borrow() {
            let executed = self.head()?;
            if height > executed {
                return Err(EventError::Future { height, executed });
            }
        }
        let record = stored_record(&self.database, height)?;
        let block = self.blocks.block(Height(height))?;
        let oldest = self.oldest()?;
        if height < oldest {
            return Err(EventError::Pruned { oldest });
        }
        let (Some(record), Some(block)) = (record, block) else {
            return Err(StorageError::Corrupt(format!("the events of block {height} are missing")).into());
        };
        let record = BlockRecord::decode(&record)
            .ok_or_else(|| StorageError::Corrupt(format!("the record of events of block {height} does not decode")))?;
        Ok(BlockEvents::new(block, record))
    }

    /// The next events of a block; `None` after its last.
    pub(super) fn part(&self, events: &mut BlockEvents) -> Result<Option<Vec<super::Event>>, EventError> {
        events.part(|batch| self.blocks.batch_payload(batch)).map_err(|error| match error {
            SynthesisError::Storage(error) => error.into(),
            SynthesisError::MissingBody(batch) => match self.oldest() {
                // Pruned while it was read: then the record of the block went in the same write.
                Ok(oldest) if events.height() < oldest => EventError::Pruned { oldest },
                Ok(_) => {
                    StorageError::Corrupt(format!("batch {batch}, which a finalised block orders, is missing")).into()
                }
                Err(error) => error,
            },
        })
    }

    /// All events of a block, for a caller that knows that they fit into memory.
    pub fn events_of(&self, height: u64) -> Result<Vec<super::Event>, EventError> {
        let mut block = self.block(height)?;
        let mut events = Vec::new();
        while let Some(part) = self.part(&mut block)? {
            events.extend(part);
        }
        Ok(events)
    }

    /// How many events a block has.
    pub fn count(&self, height: u64) -> Result<u64, EventError> {
        let mut block = self.block(height)?;
        while self.part(&mut block)?.is_some() {}
        Ok(block.index().into())
    }

    /// A height with events that is not between these, if there is one.
    pub fn stray(&self, oldest: u64, last: u64) -> Result<Option<u64>, StorageError> {
        let first = self.database.scan(Family::Events, &[])?.next();
        let above = self.database.scan(Family::Events, &key(last.saturating_add(1)))?.next();
        for item in [first, above].into_iter().flatten() {
            let (key, _) = item?;
            let height = (*key).try_into().map(u64::from_be_bytes);
            let height =
                height.map_err(|_| StorageError::Corrupt("the key of an event record is no height".to_owned()))?;
            if !(oldest..=last).contains(&height) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    /// Subscribes from a position on. Everything that can be said against the position is said here.
    pub async fn subscribe(&self, request: SubscriptionRequest) -> Result<Subscription, EventError> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| EventError::Busy)?;
        let log = self.clone();
        let SubscriptionRequest { from, after, filter, follow } = request;
        let _turn = self.reads.clone().acquire_owned().await.map_err(|_| EventError::Stopping)?;
        let start = tokio::task::spawn_blocking(move || log.start(from, after)).await;
        let start = start.map_err(|_| EventError::Stopping)??;
        Ok(Subscription::start(self.clone(), start, filter, follow, room))
    }

    /// Finds the place of a position. Without one it is behind the last block.
    fn start(&self, from: Option<Position>, after: bool) -> Result<Start, EventError> {
        let executed = self.head()?;
        let Some(Position { height, index }) = from else {
            return Ok(Start { height: executed + 1, skip: 0 });
        };
        // The event behind an event that was read may be the first of the next block.
        let Some(skip) = index.checked_add(u32::from(after)) else {
            return Err(EventError::NoSuchIndex { height, index, count: 0 });
        };
        if height == executed + 1 && skip == 0 {
            return Ok(Start { height, skip });
        }
        if height == 0 && skip == 0 {
            // The genesis has no events: whoever wants everything may say so.
            return self.start(Some(Position { height: 1, index }), false);
        }
        let mut block = self.block(height)?;
        while block.index() < skip {
            if self.part(&mut block)?.is_none() {
                return Err(EventError::NoSuchIndex { height, index, count: block.index() });
            }
        }
        Ok(Start { height, skip })
    }
}
