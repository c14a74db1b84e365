//! Transactions that were admitted here and are not finalised yet, and whoever waits for a receipt.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admission::{Admission, Rejection};
use super::backlog::Backlog;
use super::events::{EventSink, StreamEvent};
use crate::blockchain::Receipt;
use bizra_transaction::{Address, TransactionId};

/// Most requests waiting for a receipt at a time. Bounds memory against clients that only wait.
const WAITERS_MAX: usize = 65_536;

/// How long an admitted transaction is remembered without being finalised.
const PENDING_TIME_MAX: Duration = Duration::from_mins(2);

struct Pending {
    sender: Address,
    expiry_height: u64,
    since: Instant,
    sink: Option<EventSink>,
}

/// See the module.
pub(super) struct PendingSet {
    entries: HashMap<TransactionId, Pending>,
    backlog: Backlog,
    senders: HashMap<Address, u32>,
    waiters: HashMap<TransactionId, Vec<(u64, oneshot::Sender<Receipt>)>>,
    waiting: usize,
    next_waiter: u64,
}

/// Events grouped by stream, to be sent when the lock is free.
pub(super) type Notices = HashMap<u64, (EventSink, Vec<Receipt>)>;

/// Locks the set. A panic of another holder leaves it usable: every change is complete in itself.
pub(super) fn lock(set: &Mutex<PendingSet>) -> MutexGuard<'_, PendingSet> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for PendingSet {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            backlog: Backlog::new(Instant::now()),
            senders: HashMap::new(),
            waiters: HashMap::new(),
            waiting: 0,
            next_waiter: 0,
        }
    }
}

impl PendingSet {
    /// Whether as many wait as will be final in a moment.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.entries.len() >= self.backlog.limit(now)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn has_sender(&self, sender: &Address) -> bool {
        self.senders.contains_key(sender)
    }

    /// Adds a transaction.
    pub(super) fn insert(&mut self, id: TransactionId, sender: Address, expiry_height: u64, sink: Option<EventSink>) {
        let pending = Pending { sender, expiry_height, since: Instant::now(), sink };
        if self.entries.insert(id, pending).is_none() {
            *self.senders.entry(sender).or_default() += 1;
        }
    }

    fn remove(&mut self, id: &TransactionId) -> Option<Pending> {
        let pending = self.entries.remove(id)?;
        if let Entry::Occupied(mut count) = self.senders.entry(pending.sender) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(pending)
    }

    /// Takes note of a final receipt: wakes who waits, and adds it to the notices of its stream.
    pub(super) fn resolve(&mut self, receipt: &Receipt, now: Instant, notices: &mut Notices) {
        if let Some(pending) = self.remove(&receipt.id) {
            self.backlog.finalised(now);
            if let Some(sink) = pending.sink {
                notices.entry(sink.stream).or_insert_with(|| (sink, Vec::new())).1.push(*receipt);
            }
        }
        if !self.waiters.is_empty()
            && let Some(waiters) = self.waiters.remove(&receipt.id)
        {
            self.waiting -= waiters.len();
            for (_, waiter) in waiters {
                // Who stopped waiting needs no answer.
                let _ = waiter.send(*receipt);
            }
        }
    }

    /// Gives up what can no longer be applied, or was not finalised in time. Returns how many, and tells their streams.
    pub(super) fn release(&mut self, finalized_height: u64, now: Instant) -> u64 {
        let give_up = |pending: &Pending| {
            if pending.expiry_height <= finalized_height {
                Some(Rejection::Expired { expiry_height: pending.expiry_height })
            } else if now.saturating_duration_since(pending.since) > PENDING_TIME_MAX {
                Some(Rejection::TimedOut)
            } else {
                None
            }
        };
        let lost: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(id, pending)| give_up(pending).map(|rejection| (*id, rejection)))
            .collect();
        let count = lost.len() as u64;
        for (id, rejection) in lost {
            if let Some(sink) = self.remove(&id).and_then(|pending| pending.sink) {
                sink.send(StreamEvent::Admissions(vec![Admission { id: Some(id), result: Err(rejection) }]));
            }
        }
        count
    }

    fn add_waiter(&mut self, id: TransactionId) -> Option<(u64, oneshot::Receiver<Receipt>)> {
        if self.waiting >= WAITERS_MAX {
            return None;
        }
        let number = self.next_waiter;
        self.next_waiter += 1;
        self.waiting += 1;
        let (sender, receiver) = oneshot::channel();
        self.waiters.entry(id).or_default().push((number, sender));
        Some((number, receiver))
    }

    fn remove_waiter(&mut self, id: TransactionId, number: u64) {
        let Entry::Occupied(mut waiters) = self.waiters.entry(id) else {
            return;
        };
        let before = waiters.get().len();
        waiters.get_mut().retain(|(other, _)| *other != number);
        self.waiting -= before - waiters.get().len();
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }
}

/// Waits for the receipt of one transaction, wherever it was submitted. Leaves nothing behind when dropped.
pub struct FinalityWaiter {
    set: Arc<Mutex<PendingSet>>,
    id: TransactionId,
    number: u64,
    receiver: oneshot::Receiver<Receipt>,
}

impl FinalityWaiter {
    /// Registers; `None` if too many wait already.
    pub(super) fn register(set: &Arc<Mutex<PendingSet>>, id: TransactionId) -> Option<Self> {
        let (number, receiver) = lock(set).add_waiter(id)?;
        Some(Self { set: set.clone(), id, number, receiver })
    }

    /// The receipt, when the transaction is finalised; `None` if the node stops first.
    pub async fn receipt(&mut self) -> Option<Receipt> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for FinalityWaiter {
    fn drop(&mut self) {
        lock(&self.set).remove_waiter(self.id, self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bizra_transaction::TraceId;

    fn id(number: u8) -> TransactionId {
        TransactionId([number; 32])
    }

    #[test]
    fn what_can_no_longer_be_applied_is_given_up() {
        let mut set = PendingSet::default();
        let sender = Address([1; 32]);
        set.insert(id(1), sender, 10, None);
        set.insert(id(2), sender, 20, None);
        let now = Instant::now();
        assert_eq!(set.release(9, now), 0);
        assert_eq!(set.release(10, now), 1);
        assert!(!set.contains(&id(1)) && set.contains(&id(2)) && set.has_sender(&sender));
        assert_eq!(set.release(10, now + PENDING_TIME_MAX * 2), 1);
        assert!(!set.has_sender(&sender));
    }

    #[tokio::test]
    async fn waiters_get_the_receipt_and_leave_nothing_behind() {
        let set = Arc::new(Mutex::new(PendingSet::default()));
        let mut waiter = FinalityWaiter::register(&set, id(1)).unwrap();
        drop(FinalityWaiter::register(&set, id(2)));
        let receipt = Receipt { id: id(1), height: 1, index: 0, failure: None, trace: TraceId::default() };
        lock(&set).resolve(&receipt, Instant::now(), &mut Notices::new());
        assert_eq!(waiter.receipt().await, Some(receipt));
        drop(waiter);
        assert!(lock(&set).waiters.is_empty() && lock(&set).waiting == 0);
    }
}
