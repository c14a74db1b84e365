//! Frames between nodes, over mutual TLS.
//!
//! Every node dials every other node it is configured with and only sends on what it has dialled; what it accepts it only
//! reads. A pair of nodes therefore has, in each direction, two connections: a *lane* for consensus messages and one for
//! data, so that a vote never waits behind a batch, neither in a queue nor in a socket. A frame's length decides its lane.
//!
//! The room promises nothing about delivery: a frame may be lost (overflow, a broken connection) but never altered,
//! and it comes from the peer it says it comes from. Consensus re-sends what matters. Sending never blocks; receiving
//! presses back on the one peer that sends more than is consumed.
//!
//! What may enter: connections whose certificate is signed by the network's authority, and of those only streams whose
//! [`hello`] names this chain's genesis and a configured peer that the certificate also names.

pub mod admin;
mod dialer;
mod handle;
mod hello;
mod listener;
mod metrics;
mod queue;
mod receiver;
mod throttle;
pub mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bizra_proto::exit::{ExitReason, Termination};
use bizra_simplex::types::Digest;
use bytes::Bytes;
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use crate::configuration::PeerConfiguration;

pub use handle::NetworkHandle;
pub use tls::TlsMaterial;

/// Longest frame; longer ones are dropped by the sender and refused by the receiver.
pub const FRAME_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Frames longer than this travel in the data lane.
pub const CONSENSUS_FRAME_MAX_BYTES: usize = 16 * 1024;

/// How long [`Network::shutdown`] lets streams end by themselves.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Index of a peer in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

impl fmt::Display for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A frame from a peer. It counts against the peer's budget of unconsumed bytes until it is dropped; moving `frame`
/// out of it and dropping the rest frees the budget.
#[derive(Debug)]
pub struct Inbound {
    /// The peer that sent it, by its certificate.
    pub from: PeerId,
    /// What it sent; nothing in it has been checked.
    pub frame: Bytes,
    #[expect(dead_code, reason = "held for its release on drop")]
    budget: Option<OwnedSemaphorePermit>,
}

impl Inbound {
    /// A frame that counts against no budget, as in tests.
    pub fn new(from: PeerId, frame: Bytes) -> Self {
        Self { from, frame, budget: None }
    }
}

/// What the network tells consensus.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A frame came in.
    Frame(Inbound),
    /// The peer accepted our stream: what is sent from now on goes out.
    Connected(PeerId),
    /// Our stream to the peer ended; it is dialled again.
    Disconnected(PeerId),
}

/// What can keep the network from starting.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A listening address is taken or not ours.
    #[error("cannot listen on {address} for {purpose}: {source}; free the port or change `listen.{purpose}`")]
    Bind {
        /// What for: the field of `[listen]`.
        purpose: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A metric of that name exists: the network was started twice on one registry.
    #[error("cannot register the metrics of the network: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl NetworkError {
    /// The exit code of a node that stops for this.
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Bind { .. } => ExitReason::AddressUnavailable,
            Self::Metrics(_) => ExitReason::InvalidConfiguration,
        }
    }
}

impl From<NetworkError> for Termination {
    fn from(error: NetworkError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

/// What the network needs to know.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Name of this node.
    pub node_name: String,
    /// Hash of the chain's genesis; peers of another chain are refused.
    pub genesis_hash: Digest,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// The peers; the position of each is its [`PeerId`].
    pub peers: Vec<PeerConfiguration>,
}

/// The running network of a node.
pub struct Network {
    handle: NetworkHandle,
    local_address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Network {
    /// Listens, serves and dials every peer. Events go to `inbound`; when nobody receives them, peers are pressed back.
    pub async fn start(
        config: NetworkConfig,
        tls: TlsMaterial,
        registry: &Registry,
        inbound: mpsc::Sender<NetworkEvent>,
    ) -> Result<Self, NetworkError> {
        let (listener, local_address) = listener::bind("peer", config.listen).await?;
        let metrics = Arc::new(metrics::NetworkMetrics::register(registry)?);
        let handle = NetworkHandle::new(&config.peers, Arc::clone(&metrics));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();

        let guests = listener::Guests::new(config.peers.iter().map(|peer| peer.name.clone()).collect());
        let connections = listener::accept(listener, tls.clone(), tls::Audience::Peers, guests, stopped.clone());
        let service = receiver::Receiver::new(&config, metrics, inbound.clone(), stopped.clone());
        tasks.spawn(receiver::serve(service, connections, stopped.clone()));

        let hello = Arc::new((config.genesis_hash, config.node_name));
        for (index, peer) in config.peers.iter().enumerate() {
            for lane in queue::Lane::BOTH {
                let Some(outgoing) = handle.outgoing(index, lane) else { continue };
                let dialer = dialer::Dialer {
                    // Configuration bounds the list far below 2^16.
                    peer: PeerId(index as u16),
                    name: peer.name.clone(),
                    address: peer.address.clone(),
                    lane,
                    outgoing,
                    introduction: Arc::clone(&hello),
                    tls: tls.clone(),
                    handle: handle.clone(),
                    events: inbound.clone(),
                };
                let mut stopped = stopped.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = dialer.run() => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            }
        }
        Ok(Self { handle, local_address, stop, tasks })
    }

    /// The sending side; may be cloned and called from any thread.
    pub fn handle(&self) -> NetworkHandle {
        self.handle.clone()
    }

    /// Where the node listens for peers.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Ends all streams, then everything that has not ended by itself within two seconds.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Dropping the set aborts what is left.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, ended).await;
    }
}
