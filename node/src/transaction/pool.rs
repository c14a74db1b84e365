//! The handle through which the gateway submits and waits, and through which the node reports finality.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc as thread_mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::admission::{Admission, Rejection};
use super::batcher::{Batcher, PackedBatch};
use super::events::{EventSink, StreamEvent, StreamEvents, event_channel};
use super::metrics::TransactionMetrics;
use super::pending::{self, FinalityWaiter, Notices, PendingSet};
use crate::blockchain::{BlockOutcome, LedgerReader};
use crate::storage::StorageError;
use bizra_transaction::{ChainId, TraceId, TransactionId};

/// Most transactions one request may carry.
pub const REQUEST_TRANSACTIONS_MAX: usize = 1_024;

/// Most transactions waiting for admission, at most 708 bytes each. What does not fit is `Busy`, or holds its stream.
const QUEUED_TRANSACTIONS_MAX: usize = 16_384;

/// The pool has stopped, or nobody reads the stream's events any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping, or the stream is closed")]
pub struct PoolClosed;

/// Where the answers to a request go.
pub(super) enum Reply {
    Once(oneshot::Sender<Vec<Admission>>),
    Stream(EventSink),
}

/// Transactions submitted together.
pub(super) struct Request {
    pub(super) transactions: Vec<Bytes>,
    pub(super) trace: TraceId,
    pub(super) reply: Reply,
    /// Room in the queue, given back when the request was answered.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the handle and the admission thread share.
pub(super) struct Shared {
    pub(super) chain: ChainId,
    pub(super) ledger: LedgerReader,
    pub(super) metrics: TransactionMetrics,
    pub(super) pending: Arc<Mutex<PendingSet>>,
    pub(super) finalized_height: AtomicU64,
}

/// Admits transactions and tells when they are final. Cheap to clone; the admission thread ends with the last clone.
#[derive(Clone)]
pub struct TransactionPool {
    shared: Arc<Shared>,
    requests: Arc<AdmissionThread>,
    /// Whether this node orders.
    orders: watch::Receiver<bool>,
    room: Arc<Semaphore>,
    next_stream: Arc<AtomicU64>,
}

/// The running admission thread. The last handle waits for it: it reads the database, and a process that ends while a
/// thread still closes RocksDB crashes in its clean-up.
struct AdmissionThread {
    requests: Option<thread_mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl AdmissionThread {
    fn start(batcher: Batcher) -> std::io::Result<Self> {
        let (requests, receiver) = thread_mpsc::channel();
        let thread = std::thread::Builder::new().name("admission".to_owned()).spawn(move || batcher.run(&receiver))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    fn send(&self, request: Request) -> Result<(), PoolClosed> {
        self.requests.as_ref().ok_or(PoolClosed)?.send(request).map_err(|_| PoolClosed)
    }
}

impl Drop for AdmissionThread {
    fn drop(&mut self) {
        // Without senders the thread ends after its round, some 20 ms at most.
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admission thread panicked");
        }
    }
}

impl TransactionPool {
    /// Starts the admission thread. `outbound` leads to consensus; when it is full, submissions are `Busy`. While the node
    /// is none that `orders`, it rejects submissions as `NotAValidator`, and still tells of finality.
    pub fn start(
        chain: ChainId,
        ledger: LedgerReader,
        outbound: mpsc::Sender<PackedBatch>,
        orders: watch::Receiver<bool>,
        metrics: TransactionMetrics,
    ) -> Result<Self, StorageError> {
        let finalized_height = AtomicU64::new(ledger.totals()?.height);
        let pending = Arc::new(Mutex::new(PendingSet::default()));
        let shared = Arc::new(Shared { chain, ledger, metrics, pending, finalized_height });
        let thread = AdmissionThread::start(Batcher::new(shared.clone(), outbound))
            .map_err(|error| StorageError::Failed(format!("the admission thread cannot start: {error}")))?;
        let requests = Arc::new(thread);
        let room = Arc::new(Semaphore::new(QUEUED_TRANSACTIONS_MAX));
        Ok(Self { shared, requests, orders, room, next_stream: Arc::new(AtomicU64::new(0)) })
    }

    /// Submits at most [`REQUEST_TRANSACTIONS_MAX`] transactions; the answers are in their order. `Busy` when the
    /// queue is full.
    pub async fn submit(&self, transactions: Vec<Bytes>, trace: TraceId) -> Vec<Admission> {
        if !*self.orders.borrow() {
            return self.refuse(&transactions, &Rejection::NotAValidator);
        }
        let Ok(room) = self.room.clone().try_acquire_many_owned(transactions.len() as u32) else {
            return self.refuse(&transactions, &Rejection::Busy);
        };
        let (sender, receiver) = oneshot::channel();
        let copies = transactions.clone();
        let request = Request { transactions, trace, reply: Reply::Once(sender), _room: room };
        if self.requests.send(request).is_ok()
            && let Ok(answers) = receiver.await
        {
            return answers;
        }
        self.refuse(&copies, &Rejection::Unavailable)
    }

    fn refuse(&self, transactions: &[Bytes], rejection: &Rejection) -> Vec<Admission> {
        self.shared.metrics.rejected.with_label_values(&[rejection.reason()]).inc_by(transactions.len() as u64);
        transactions.iter().map(|bytes| Admission::refuse(bytes, rejection.clone())).collect()
    }

    /// Opens a stream of submissions, under one trace id.
    pub fn stream(&self, trace: TraceId) -> (StreamSubmitter, StreamEvents) {
        let (sink, events) = event_channel(self.next_stream.fetch_add(1, Ordering::Relaxed));
        (StreamSubmitter { pool: self.clone(), sink, trace }, events)
    }

    /// Waits for a transaction to be finalised, wherever it was submitted. Register first, then look for a receipt.
    /// `None` if too many wait already.
    pub fn wait_for(&self, id: TransactionId) -> Option<FinalityWaiter> {
        FinalityWaiter::register(&self.shared.pending, id)
    }

    /// Reports a block whose effects are durable. Call it for every block, in height order.
    pub fn on_finalized(&self, outcome: &BlockOutcome) {
        let shared = &self.shared;
        shared.finalized_height.fetch_max(outcome.height.0, Ordering::Relaxed);
        let mut notices = Notices::new();
        // A duplicate became final under another node's copy; whoever submitted it here wants that receipt.
        let earlier: Vec<_> = outcome.duplicates.iter().filter_map(|id| self.receipt_of_duplicate(id)).collect();
        let mut pending = pending::lock(&shared.pending);
        let now = Instant::now();
        outcome.receipts.iter().chain(&earlier).for_each(|receipt| pending.resolve(receipt, now, &mut notices));
        shared.metrics.set_pending(pending.len());
        drop(pending);
        for (sink, receipts) in notices.into_values() {
            sink.send(StreamEvent::Receipts(receipts));
        }
    }

    fn receipt_of_duplicate(&self, id: &TransactionId) -> Option<crate::blockchain::Receipt> {
        match self.shared.ledger.transaction(id) {
            Ok(record) => record.map(|record| record.receipt),
            Err(error) => {
                tracing::error!(%error, transaction = %id, "the receipt of a duplicate cannot be read");
                None
            }
        }
    }
}

/// Submits on behalf of one stream.
pub struct StreamSubmitter {
    pool: TransactionPool,
    sink: EventSink,
    trace: TraceId,
}

impl StreamSubmitter {
    /// Submits at most [`REQUEST_TRANSACTIONS_MAX`] transactions; waits while the queue is full, which holds the
    /// client's stream. The answers arrive as events, before any receipt of these transactions.
    pub async fn submit(&self, transactions: Vec<Bytes>) -> Result<(), PoolClosed> {
        if self.sink.is_closed() {
            return Err(PoolClosed);
        }
        if !*self.pool.orders.borrow() {
            let answers = self.pool.refuse(&transactions, &Rejection::NotAValidator);
            self.sink.send(StreamEvent::Admissions(answers));
            return Ok(());
        }
        let count = transactions.len().min(QUEUED_TRANSACTIONS_MAX) as u32;
        let room = self.pool.room.clone().acquire_many_owned(count).await.map_err(|_| PoolClosed)?;
        let reply = Reply::Stream(self.sink.clone());
        self.pool.requests.send(Request { transactions, trace: self.trace, reply, _room: room })
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
