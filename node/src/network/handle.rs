//! The sending side of the network, for the consensus thread: plain calls that never block and never fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::metrics::NetworkMetrics;
use super::queue::{Lane, Queue};
use super::throttle::Throttle;
use super::{FRAME_MAX_BYTES, PeerId};
use crate::configuration::PeerConfiguration;

/// Sends frames to peers. A clone is cheap; all clones share the queues.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peers: Vec<Peer>,
    metrics: Arc<NetworkMetrics>,
    warning: Throttle,
}

#[derive(Debug)]
struct Peer {
    name: String,
    consensus: Arc<Queue>,
    data: Arc<Queue>,
    connected: AtomicBool,
}

impl NetworkHandle {
    pub(super) fn new(peers: &[PeerConfiguration], metrics: Arc<NetworkMetrics>) -> Self {
        let peers = peers.iter().map(|peer| Peer {
            name: peer.name.clone(),
            consensus: Queue::new(Lane::Consensus),
            data: Queue::new(Lane::Data),
            connected: AtomicBool::new(false),
        });
        Self { shared: Arc::new(Shared { peers: peers.collect(), metrics, warning: Throttle::default() }) }
    }

    /// Queues a frame for one peer. Silently does nothing for a peer that is not configured.
    pub fn send(&self, to: PeerId, frame: Bytes) {
        if let Some(peer) = self.shared.peers.get(usize::from(to.0)) {
            self.enqueue(peer, frame);
        }
    }

    /// Queues a frame for every peer; the bytes are shared, not copied.
    pub fn broadcast(&self, frame: Bytes) {
        if let Some((last, others)) = self.shared.peers.split_last() {
            for peer in others {
                self.enqueue(peer, frame.clone());
            }
            self.enqueue(last, frame);
        }
    }

    /// The peers that accept our frames now, in order.
    pub fn connected(&self) -> Vec<PeerId> {
        let all = self.shared.peers.iter().zip(0_u16..);
        all.filter(|(peer, _)| peer.connected.load(Ordering::Relaxed)).map(|(_, index)| PeerId(index)).collect()
    }

    /// The configured peers' names; the position of each is its [`PeerId`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.peers.iter().map(|peer| peer.name.as_str())
    }

    fn enqueue(&self, peer: &Peer, frame: Bytes) {
        let lane = Lane::of(&frame);
        let dropped = if frame.len() > FRAME_MAX_BYTES {
            1
        } else {
            match lane {
                Lane::Consensus => peer.consensus.push(frame),
                Lane::Data => peer.data.push(frame),
            }
        };
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

    pub(super) fn outgoing(&self, index: usize, lane: Lane) -> Option<Arc<Queue>> {
        let peer = self.shared.peers.get(index)?;
        Some(Arc::clone(match lane {
            Lane::Consensus => &peer.consensus,
            Lane::Data => &peer.data,
        }))
    }

    pub(super) fn metrics(&self) -> &NetworkMetrics {
        &self.shared.metrics
    }

    /// Notes whether a peer accepts frames; true if that is new.
    pub(super) fn set_connected(&self, peer: PeerId, now: bool) -> bool {
        let Some(entry) = self.shared.peers.get(usize::from(peer.0)) else { return false };
        let changed = entry.connected.swap(now, Ordering::Relaxed) != now;
        if changed {
            self.shared.metrics.connected_peers.add(if now { 1 } else { -1 });
        }
        changed
    }
}
