//! Subscriptions: history and what comes live, in one order, without a gap between the two, and never more in memory
//! than a few parts of blocks.
//!
//! There is no seam to get wrong: a subscription only ever reads the log behind its own position, and waits for the
//! head to move when it has reached it. What it read goes into a channel of [`PARTS_WAITING_MAX`] places; while those are
//! taken it reads nothing, so a slow subscriber costs what it holds and nobody waits for it. One that takes nothing for
//! [`STALL_TIME_MAX`] is dropped, so that it does not keep its place for ever.

use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::event::{Event, EventFilter, Position};
use super::store::{EventError, EventLog};
use super::synthesis::BlockEvents;

/// Parts waiting for the subscriber.
const PARTS_WAITING_MAX: usize = 2;

/// Parts of blocks are put together up to so many events: the last one may add those of a whole body, some 12,000.
const EVENTS_PER_PART_MIN: usize = 1_024;

/// Blocks read in one go, so that a filter which wants nothing of them does not keep others from reading.
const BLOCKS_PER_READ_MAX: u32 = 64;

/// A subscriber that takes nothing for so long is dropped.
const STALL_TIME_MAX: Duration = Duration::from_mins(1);

/// What a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionRequest {
    /// Where to begin; behind the last block if absent.
    pub from: Option<Position>,
    /// Begin behind that position: it was read before.
    pub after: bool,
    /// The kinds of events.
    pub filter: EventFilter,
    /// Go on with events as they happen; else end at the last block there is.
    pub follow: bool,
}

/// Where reading begins: a block, and how many of its events were read before.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) height: u64,
    pub(super) skip: u32,
}

/// An open subscription. Dropping it ends it.
pub struct Subscription {
    parts: mpsc::Receiver<Result<Vec<Event>, EventError>>,
}

impl Subscription {
    pub(super) fn start(
        log: EventLog,
        start: Start,
        filter: EventFilter,
        follow: bool,
        room: OwnedSemaphorePermit,
    ) -> Self {
        let (sender, parts) = mpsc::channel(PARTS_WAITING_MAX);
        let reader = Reader { height: start.height, skip: start.skip, block: None, filter };
        tokio::spawn(async move {
            let _room = room;
            if let Err(error) = serve(log, reader, follow, &sender).await {
                if let EventError::Storage(error) = &error {
                    tracing::error!(%error, "events cannot be read");
                }
                // The last word: to a stalled subscriber it may not get through, and then it is dropped without.
                let _ = sender.send_timeout(Err(error), STALL_TIME_MAX).await;
            }
        });
        Self { parts }
    }

    /// The next events, in order; `None` when there are no more to come. After an error there are none.
    pub async fn next(&mut self) -> Option<Result<Vec<Event>, EventError>> {
        self.parts.recv().await
    }
}

/// A place in the log.
struct Reader {
    height: u64,
    /// Events of the block that are not wanted any more.
    skip: u32,
    block: Option<BlockEvents>,
    filter: EventFilter,
}

impl Reader {
    /// Reads on, up to `head`. Gives up early rather than to read much.
    fn read(&mut self, log: &EventLog, head: u64) -> Result<Vec<Event>, EventError> {
        let mut events = Vec::new();
        let mut blocks = 0;
        while self.height <= head && blocks < BLOCKS_PER_READ_MAX && events.len() < EVENTS_PER_PART_MIN {
            let mut block = match self.block.take() {
                Some(block) => block,
                None => log.block(self.height)?,
            };
            if let Some(part) = log.part(&mut block)? {
                let wanted = |event: &Event| event.position.index >= self.skip && self.filter.wants(event.data.kind());
                events.extend(part.into_iter().filter(wanted));
                self.block = Some(block);
            } else {
                blocks += 1;
                (self.height, self.skip) = (self.height + 1, 0);
            }
        }
        Ok(events)
    }
}

async fn serve(
    log: EventLog,
    mut reader: Reader,
    follow: bool,
    sender: &mpsc::Sender<Result<Vec<Event>, EventError>>,
) -> Result<(), EventError> {
    let mut news = log.head.clone();
    // Who does not follow gets what there is now.
    let last = log.head()?;
    loop {
        let head = if follow { *news.borrow_and_update() } else { last };
        while reader.height <= head {
            let turn = tokio::select! {
                turn = log.reads.clone().acquire_owned() => turn.map_err(|_| EventError::Stopping)?,
                () = sender.closed() => return Ok(()),
            };
            let log = log.clone();
            let read = tokio::task::spawn_blocking(move || {
                let events = reader.read(&log, head);
                drop(turn);
                (reader, events)
            });
            let events;
            (reader, events) = read.await.map_err(|_| EventError::Stopping)?;
            let events = events?;
            if events.is_empty() {
                continue;
            }
            match sender.send_timeout(Ok(events), STALL_TIME_MAX).await {
                Ok(()) => {}
                Err(SendTimeoutError::Timeout(_)) => return Err(EventError::Slow(STALL_TIME_MAX.as_secs())),
                Err(SendTimeoutError::Closed(_)) => return Ok(()),
            }
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            changed = news.changed() => changed.map_err(|_| EventError::Stopping)?,
            () = sender.closed() => return Ok(()),
        }
    }
}
