//! The sending side of the network, for the consensus thread: plain calls that never block and never fail.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::metrics::NetworkMetrics;
use super::peer::{Directory, Peer, Table, find};
use super::queue::Lane;
use super::throttle::Throttle;
use super::{FRAME_MAX_BYTES, PeerId};

/// Sends frames to peers. A clone is cheap; all clones share the queues.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: Arc<Directory>,
    metrics: Arc<NetworkMetrics>,
    warning: Throttle,
}

/// The peers of this moment, to send any number of frames to without looking for them again.
#[derive(Clone, Debug)]
pub struct Senders {
    table: Arc<Table>,
    shared: Arc<Shared>,
}

/// A peer as it is seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Which.
    pub id: PeerId,
    /// Its node name.
    pub name: String,
    /// True if it accepts our frames.
    pub connected: bool,
    /// The consensus public key it has proven to hold.
    pub public_key: Option<[u8; 32]>,
}

impl NetworkHandle {
    pub(super) fn new(directory: Arc<Directory>, metrics: Arc<NetworkMetrics>) -> Self {
        Self { shared: Arc::new(Shared { directory, metrics, warning: Throttle::default() }) }
    }

    /// The peers of this moment.
    pub fn senders(&self) -> Senders {
        Senders { table: self.shared.directory.table(), shared: Arc::clone(&self.shared) }
    }

    /// Queues a frame for one peer. Silently does nothing for a peer that is not configured.
    pub fn send(&self, to: PeerId, frame: Bytes) {
        self.senders().send(to, frame);
    }

    /// Queues a frame for every peer; the bytes are shared, not copied.
    pub fn broadcast(&self, frame: Bytes) {
        self.senders().broadcast(frame);
    }

    /// The peers that accept our frames now, in order.
    pub fn connected(&self) -> Vec<PeerId> {
        let table = self.shared.directory.table();
        table.iter().filter(|peer| peer.is_connected()).map(|peer| peer.id).collect()
    }

    /// All configured peers.
    pub fn peers(&self) -> Vec<PeerView> {
        let view = |peer: &Arc<Peer>| PeerView {
            id: peer.id,
            name: peer.name.clone(),
            connected: peer.is_connected(),
            public_key: peer.key(),
        };
        self.shared.directory.table().iter().map(view).collect()
    }

    /// The name of a configured peer.
    pub fn name(&self, peer: PeerId) -> Option<String> {
        find(&self.shared.directory.table(), peer).map(|peer| peer.name.clone())
    }

    /// True if a question of this peer may be answered: it has a budget for what its questions cost (see
    /// [`Senders::answer`]). A refused question is to be forgotten; the peer asks again or asks another.
    pub fn may_ask(&self, peer: PeerId) -> bool {
        let may = find(&self.shared.directory.table(), peer).is_some_and(|peer| peer.may_ask());
        if !may {
            self.shared.metrics.questions_refused.inc();
        }
        may
    }

    /// To be told of every frame that no honest peer sends: who sends many is shut out for a while.
    pub fn malformed(&self, from: PeerId, error: &dyn fmt::Display) {
        if let Some(peer) = find(&self.shared.directory.table(), from) {
            if peer.warning.allows() {
                tracing::warn!(peer = peer.name, %error, "a malformed frame");
            }
            note_malformed(peer, &self.shared.metrics);
        }
    }

    pub(super) fn metrics(&self) -> &NetworkMetrics {
        &self.shared.metrics
    }
}

/// Counts a malformed frame, and says so if the peer is shut out for it.
pub(super) fn note_malformed(peer: &Peer, metrics: &NetworkMetrics) {
    if peer.note_malformed() {
        metrics.shut_out.inc();
        let seconds = peer.shut_out().map_or(0, |left| left.as_secs());
        tracing::warn!(peer = peer.name, seconds, "a peer is shut out: too many of its frames are malformed");
    }
}

impl Senders {
    /// Queues a frame for one peer, in the lane of its length. Silently does nothing for a peer that is not configured.
    pub fn send(&self, to: PeerId, frame: Bytes) {
        if let Some(peer) = find(&self.table, to) {
            self.enqueue(peer, Lane::of(&frame), frame);
        }
    }

    /// Queues the answer to a question, in a lane of its own, and at the cost of who asked.
    pub fn answer(&self, to: PeerId, frame: Bytes) {
        if let Some(peer) = find(&self.table, to) {
            peer.answered(frame.len());
            self.enqueue(peer, Lane::Sync, frame);
        }
    }

    /// Queues a frame for every peer; the bytes are shared, not copied.
    pub fn broadcast(&self, frame: Bytes) {
        if let Some((last, others)) = self.table.split_last() {
            let lane = Lane::of(&frame);
            for peer in others {
                self.enqueue(peer, lane, frame.clone());
            }
            self.enqueue(last, lane, frame);
        }
    }

    fn enqueue(&self, peer: &Peer, lane: Lane, frame: Bytes) {
        let dropped = if frame.len() > FRAME_MAX_BYTES { 1 } else { peer.lane(lane).outgoing.push(frame) };
        if dropped > 0 {
            self.shared.metrics.lane(lane).frames_dropped.inc_by(dropped);
            if self.shared.warning.allows() {
                tracing::warn!(
                    peer = peer.name,
                    lane = lane.name(),
                    "the queue to a peer is full; old frames are dropped"
                );
            }
        }
    }
}
