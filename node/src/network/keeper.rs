//! Keeps the list of peers as it is wanted: a dialler for each lane of each peer, and none for those that are gone.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::dialer::Dialer;
use super::metrics::NetworkMetrics;
use super::peer::Directory;
use super::queue::Lane;
use super::tls::TlsMaterial;
use super::{NetworkEvent, NetworkHandle, Own};
use crate::configuration::PeerConfiguration;

/// Owns the diallers.
pub(super) struct Keeper {
    pub(super) own: Arc<Own>,
    pub(super) directory: Arc<Directory>,
    pub(super) metrics: Arc<NetworkMetrics>,
    pub(super) tls: TlsMaterial,
    pub(super) handle: NetworkHandle,
    pub(super) events: mpsc::Sender<NetworkEvent>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) dialers: JoinSet<()>,
}

impl Keeper {
    /// Follows the wanted list until the network stops; then waits for the diallers.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Vec<PeerConfiguration>>) {
        let mut stopped = self.stopped.clone();
        loop {
            let changed = tokio::select! {
                changed = wanted.changed() => changed.is_ok(),
                _ = stopped.wait_for(|stop| *stop) => false,
            };
            if !changed {
                break;
            }
            let peers = wanted.borrow_and_update().clone();
            self.apply(&peers).await;
        }
        while self.dialers.join_next().await.is_some() {}
    }

    /// Makes this the list.
    pub(super) async fn apply(&mut self, peers: &[PeerConfiguration]) {
        let wanted = peers.iter().map(|peer| (peer.name.clone(), peer.address.clone()));
        let changes = self.directory.change(wanted);
        self.metrics.peers.set((self.directory.table().len() as u64).cast_signed());
        for name in &changes.refused {
            tracing::error!(peer = name, "too many different peers since the start; restart the node to add this one");
        }
        while self.dialers.try_join_next().is_some() {}
        for peer in changes.added {
            for lane in Lane::ALL {
                let dialer = Dialer {
                    peer: Arc::clone(&peer),
                    lane,
                    own: Arc::clone(&self.own),
                    tls: self.tls.clone(),
                    handle: self.handle.clone(),
                    events: self.events.clone(),
                };
                self.dialers.spawn(dialer.run(self.stopped.clone()));
            }
        }
        for peer in changes.removed {
            // Without a receiver the node is stopping.
            let _ = self.events.send(NetworkEvent::Removed(peer.id)).await;
        }
    }
}
