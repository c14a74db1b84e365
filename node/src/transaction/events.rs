//! What a stream of submissions hears back: admissions and receipts, in one order, without a task per transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::admission::Admission;
use crate::blockchain::Receipt;

/// Most events kept for a stream that does not read, about 64 bytes each. Beyond, the stream is closed: the receipts
/// stay readable by id, and a client that never reads cannot fill the node's memory.
const UNREAD_EVENTS_MAX: usize = 65_536;

/// Something a submitting stream hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The outcome of one request, in its order; or an admitted transaction that was given up.
    Admissions(Vec<Admission>),
    /// Transactions of this stream that one block finalised.
    Receipts(Vec<Receipt>),
}

impl StreamEvent {
    fn weight(&self) -> usize {
        match self {
            Self::Admissions(admissions) => admissions.len(),
            Self::Receipts(receipts) => receipts.len(),
        }
    }
}

/// The stream did not read its events fast enough and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {UNREAD_EVENTS_MAX} events were not read; read receipts by transaction id and submit on a new stream"
)]
pub struct Overflowed;

#[derive(Default)]
struct Unread {
    count: AtomicUsize,
    overflowed: AtomicBool,
}

/// Sending side; each pending transaction of a stream holds one.
#[derive(Clone)]
pub(super) struct EventSink {
    pub(super) stream: u64,
    sender: mpsc::UnboundedSender<StreamEvent>,
    unread: Arc<Unread>,
}

/// Receiving side. Ends when the stream's submitter is gone and all its transactions are finalised or given up.
pub struct StreamEvents {
    receiver: mpsc::UnboundedReceiver<StreamEvent>,
    unread: Arc<Unread>,
}

pub(super) fn event_channel(stream: u64) -> (EventSink, StreamEvents) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unread = Arc::new(Unread::default());
    (EventSink { stream, sender, unread: unread.clone() }, StreamEvents { receiver, unread })
}

impl EventSink {
    /// True if nobody will read another event.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn send(&self, event: StreamEvent) {
        if self.unread.overflowed.load(Ordering::Relaxed) {
            return;
        }
        let weight = event.weight();
        if self.unread.count.fetch_add(weight, Ordering::Relaxed) + weight > UNREAD_EVENTS_MAX {
            self.unread.overflowed.store(true, Ordering::Relaxed);
        } else {
            // A closed stream has lost interest; its receipts stay readable by id.
            let _ = self.sender.send(event);
        }
    }
}

impl StreamEvents {
    /// The next event; an error once the stream has fallen too far behind.
    pub async fn next(&mut self) -> Option<Result<StreamEvent, Overflowed>> {
        if self.unread.overflowed.load(Ordering::Relaxed) {
            return Some(Err(Overflowed));
        }
        let event = self.receiver.recv().await?;
        self.unread.count.fetch_sub(event.weight(), Ordering::Relaxed);
        Some(Ok(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_does_not_read_is_closed_with_a_reason() {
        let (sink, mut events) = event_channel(1);
        let admission = Admission { id: None, result: Ok(()) };
        for _ in 0..=UNREAD_EVENTS_MAX {
            sink.send(StreamEvent::Admissions(vec![admission.clone()]));
        }
        assert_eq!(events.next().await, Some(Err(Overflowed)));
    }
}
