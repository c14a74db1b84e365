//! What this node keeps of each peer, and the list of them all, which changes while the node runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::PeerId;
use super::budget::Budget;
use super::listener::CONNECTIONS_PER_NAME_MAX;
use super::queue::{Lane, Queue};
use super::throttle::Throttle;

/// Bytes a second of answers that one peer gets, and how much at once. A node that catches up needs a few times what the
/// chain grows; a node that asks for the sake of asking makes this one read and send no more than that.
const ANSWERS_BYTES_PER_SECOND: u64 = 32 << 20;
const ANSWERS_BURST_BYTES: u64 = 64 << 20;
/// What a question costs beside its answer: a look into the database, also if nothing is found. Some 2,000 a second.
const QUESTION_COST_BYTES: usize = 16 << 10;

/// Frames of a peer that are not messages, within [`MALFORMED_WINDOW`], before it is shut out: a node of another build
/// may send a few, an honest one of this build sends none.
const MALFORMED_MAX: u32 = 16;
const MALFORMED_WINDOW: Duration = Duration::from_mins(1);
/// How long a peer is shut out. Its streams are refused, ours to it go on.
const SHUT_OUT_TIME: Duration = Duration::from_secs(30);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) name: String,
    /// `host:port`; may change.
    pub(super) address: watch::Sender<String>,
    /// True once the peer is not configured any more: everything of it ends.
    pub(super) removed: watch::Sender<bool>,
    /// Connections it may still open to this node.
    pub(super) places: Arc<Semaphore>,
    pub(super) warning: Throttle,
    lanes: [PeerLane; Lane::COUNT],
    connected: AtomicBool,
    answers: Budget,
    conduct: Mutex<Conduct>,
    key: Mutex<Option<[u8; 32]>>,
}

/// One lane of one peer.
#[derive(Debug)]
pub(super) struct PeerLane {
    pub(super) outgoing: Queue,
    pub(super) incoming: Incoming,
}

/// The receiving side: the newest stream, and what its frames may cost.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Counts the streams; also touched to make the newest one look whether it may go on.
    pub(super) newest: watch::Sender<u64>,
    /// Pays for computing: how fast frames may come.
    pub(super) rate: Budget,
    /// Pays for memory: what consensus has not consumed yet.
    unconsumed: Arc<Semaphore>,
    unconsumed_max_bytes: usize,
}

#[derive(Debug)]
struct Conduct {
    malformed: u32,
    since: Instant,
    shut_out_until: Option<Instant>,
}

impl Incoming {
    fn new(lane: Lane) -> Self {
        let limits = lane.limits();
        Self {
            newest: watch::Sender::new(0),
            rate: Budget::new(limits.bytes_per_second, limits.burst_bytes),
            unconsumed: Arc::new(Semaphore::new(limits.unconsumed_max_bytes)),
            unconsumed_max_bytes: limits.unconsumed_max_bytes,
        }
    }

    /// Waits until a frame of this cost fits.
    pub(super) async fn reserve(&self, cost_bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let cost = u32::try_from(cost_bytes.min(self.unconsumed_max_bytes))
            .map_err(|_| Status::internal("a frame's cost fits 32 bits"))?;
        Arc::clone(&self.unconsumed).acquire_many_owned(cost).await.map_err(|_| Status::unavailable("shutting down"))
    }
}

impl Peer {
    fn new(id: PeerId, name: String, address: String) -> Self {
        Self {
            id,
            name,
            address: watch::Sender::new(address),
            removed: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(CONNECTIONS_PER_NAME_MAX)),
            warning: Throttle::default(),
            lanes: Lane::ALL.map(|lane| PeerLane { outgoing: Queue::new(lane), incoming: Incoming::new(lane) }),
            connected: AtomicBool::new(false),
            answers: Budget::new(ANSWERS_BYTES_PER_SECOND, ANSWERS_BURST_BYTES),
            conduct: Mutex::new(Conduct { malformed: 0, since: Instant::now(), shut_out_until: None }),
            key: Mutex::default(),
        }
    }

    pub(super) fn lane(&self, lane: Lane) -> &PeerLane {
        let [consensus, data, sync] = &self.lanes;
        match lane {
            Lane::Consensus => consensus,
            Lane::Data => data,
            Lane::Sync => sync,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Notes whether the peer accepts our frames; true if that is new.
    pub(super) fn set_connected(&self, now: bool) -> bool {
        self.connected.swap(now, Ordering::Relaxed) != now
    }

    /// The key it has proven to hold.
    pub(super) fn key(&self) -> Option<[u8; 32]> {
        *lock(&self.key)
    }

    /// Notes a proven key; true if that is new.
    pub(super) fn set_key(&self, key: [u8; 32]) -> bool {
        lock(&self.key).replace(key) != Some(key)
    }

    /// True if a question of this peer may be answered; it has paid for the question then.
    pub(super) fn may_ask(&self) -> bool {
        let may = !self.answers.is_overdrawn();
        if may {
            self.answers.spend(QUESTION_COST_BYTES);
        }
        may
    }

    /// The peer pays for an answer.
    pub(super) fn answered(&self, bytes: usize) {
        self.answers.spend(bytes);
    }

    /// Notes a frame that is not a message; true if the peer is shut out for it.
    pub(super) fn note_malformed(&self) -> bool {
        self.note_malformed_at(Instant::now())
    }

    fn note_malformed_at(&self, now: Instant) -> bool {
        let mut conduct = lock(&self.conduct);
        if now.saturating_duration_since(conduct.since) > MALFORMED_WINDOW {
            conduct.malformed = 0;
            conduct.since = now;
        }
        conduct.malformed = conduct.malformed.saturating_add(1);
        if conduct.malformed < MALFORMED_MAX {
            return false;
        }
        conduct.malformed = 0;
        conduct.since = now;
        conduct.shut_out_until = Some(now + SHUT_OUT_TIME);
        drop(conduct);
        self.rouse();
        true
    }

    /// How much longer the peer is shut out.
    pub(super) fn shut_out(&self) -> Option<Duration> {
        let until = lock(&self.conduct).shut_out_until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn remove(&self) {
        self.removed.send_replace(true);
        self.rouse();
    }

    /// Makes the peer's streams look whether they may go on.
    fn rouse(&self) {
        for lane in &self.lanes {
            lane.incoming.newest.send_modify(|_| {});
        }
    }
}

/// All peers, in the order of their ids.
pub(super) type Table = Vec<Arc<Peer>>;

/// The list of peers. Readers take the whole table at once, so nobody waits while one of them works with it.
#[derive(Debug, Default)]
pub(super) struct Directory {
    table: RwLock<Arc<Table>>,
    /// Ids given so far. None is given twice: a late frame of a removed peer is never taken for another's.
    given: Mutex<u16>,
}

/// What a new list of peers changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Table,
    pub(super) removed: Table,
    /// Names for which no id is left.
    pub(super) refused: Vec<String>,
}

impl Directory {
    /// All peers now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes `wanted`, names and addresses, the list. Who stays keeps id, queues and budgets.
    pub(super) fn change(&self, wanted: impl IntoIterator<Item = (String, String)>) -> Changes {
        let mut given = lock(&self.given);
        let old = self.table();
        let (mut changes, mut new) = (Changes::default(), Table::new());
        for (name, address) in wanted {
            if let Some(known) = old.iter().find(|peer| peer.name == name) {
                known.address.send_if_modified(|current| {
                    let is_new = *current != address;
                    *current = address;
                    is_new
                });
                new.push(Arc::clone(known));
            } else if let Some(next) = given.checked_add(1) {
                let peer = Arc::new(Peer::new(PeerId(*given), name, address));
                *given = next;
                changes.added.push(Arc::clone(&peer));
                new.push(peer);
            } else {
                changes.refused.push(name);
            }
        }
        changes.removed = old.iter().filter(|peer| !new.iter().any(|kept| kept.id == peer.id)).cloned().collect();
        new.sort_unstable_by_key(|peer| peer.id);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        for peer in &changes.removed {
            peer.remove();
        }
        changes
    }
}

/// The peer with that id.
pub(super) fn find(table: &Table, id: PeerId) -> Option<&Arc<Peer>> {
    table.binary_search_by_key(&id, |peer| peer.id).ok().and_then(|position| table.get(position))
}

/// What these locks protect is changed without a panic between, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn list(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), format!("{name}:1"))).collect()
    }

    fn ids(directory: &Directory) -> Vec<(String, u16)> {
        directory.table().iter().map(|peer| (peer.name.clone(), peer.id.0)).collect()
    }

    #[test]
    fn who_stays_keeps_its_id_and_no_id_is_given_twice() {
        let directory = Directory::default();
        directory.change(list(&["a", "b"]));
        let changes = directory.change(list(&["c", "b"]));
        assert_eq!(changes.added.iter().map(|peer| peer.id).collect::<Vec<_>>(), [PeerId(2)]);
        assert!(changes.removed.iter().all(|peer| peer.name == "a" && *peer.removed.borrow()));
        assert_eq!(ids(&directory), [("b".to_owned(), 1), ("c".to_owned(), 2)]);
        directory.change(list(&["a", "b"]));
        assert_eq!(ids(&directory), [("b".to_owned(), 1), ("a".to_owned(), 3)]);
        let table = directory.table();
        assert_eq!(find(&table, PeerId(3)).unwrap().name, "a");
        assert!(find(&table, PeerId(0)).is_none());
    }

    #[test]
    fn a_new_address_is_told_to_who_dials() {
        let directory = Directory::default();
        directory.change(list(&["a"]));
        let mut address = directory.table()[0].address.subscribe();
        directory.change([("a".to_owned(), "elsewhere:2".to_owned())]);
        assert!(address.has_changed().unwrap());
        assert_eq!(*address.borrow_and_update(), "elsewhere:2");
    }

    #[test]
    fn a_peer_is_shut_out_after_many_malformed_frames_and_not_for_a_few_an_hour() {
        let peer = Peer::new(PeerId(0), "a".to_owned(), "a:1".to_owned());
        let start = Instant::now();
        for minute in 0..60 {
            for _ in 1..MALFORMED_MAX {
                assert!(!peer.note_malformed_at(start + Duration::from_secs(minute * 61)));
            }
        }
        assert!(peer.shut_out().is_none());
        let flood = (0..MALFORMED_MAX).filter(|_| peer.note_malformed_at(start + Duration::from_hours(2)));
        assert_eq!(flood.count(), 1);
        assert!(peer.shut_out().is_some());
    }

    #[test]
    fn questions_are_answered_until_the_budget_is_overdrawn() {
        let peer = Peer::new(PeerId(0), "a".to_owned(), "a:1".to_owned());
        assert!(peer.may_ask());
        peer.answered(2 * ANSWERS_BURST_BYTES as usize);
        assert!(!peer.may_ask());
    }
}
