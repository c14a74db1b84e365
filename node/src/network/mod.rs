//! Frames between nodes, over mutual TLS.
//!
//! Every node dials every other node it is configured with and only sends on what it has dialled; what it accepts it only
//! reads. A pair of nodes therefore has, in each direction, a connection for each class of traffic, a *lane*: consensus
//! messages, new batches, and answers to questions. So a vote never waits behind a batch, nor a batch behind what a node that
//! catches up has asked for, neither in a queue nor in a socket. A frame's length decides between the first two lanes.
//!
//! The room promises nothing about delivery: a frame may be lost (overflow, a broken connection) but never altered,
//! and it comes from the peer it says it comes from. Consensus re-sends what matters. Sending never blocks.
//!
//! What may enter: connections whose certificate is signed by the network's authority, and of those only streams whose
//! [`hello`] names this chain's genesis and a configured peer that the certificate also names, and proves for this very
//! connection which consensus key that peer holds. The other end proves its own in the answer, before it is sent anything.
//!
//! What a peer can cost is bounded for each lane: memory by bytes that are not consumed yet, computing by bytes a second
//! ([`budget`]); whoever sends more waits for itself only. Answers are bounded by bytes a second too; questions beyond are
//! forgotten. Who sends frames that are no messages is shut out for a while. Who is silent is found by HTTP/2 pings.

pub mod admin;
mod budget;
mod dialer;
mod doorkeeper;
mod handle;
mod hello;
mod keeper;
mod listener;
mod metrics;
mod peer;
mod queue;
mod receiver;
mod reload;
mod throttle;
pub mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bizra_proto::exit::{ExitReason, Termination};
use bizra_simplex::types::Digest;
use bytes::Bytes;
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use crate::configuration::{Configuration, PeerConfiguration, SigningConfiguration};
use crate::identity::ConsensusKey;

pub use handle::{NetworkHandle, PeerView, Senders};
pub use tls::TlsMaterial;

/// Longest frame; longer ones are dropped by the sender and refused by the receiver.
pub const FRAME_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Frames longer than this travel in the data lane.
pub const CONSENSUS_FRAME_MAX_BYTES: usize = 16 * 1024;

/// How long [`Network::shutdown`] lets streams end by themselves.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Number of a peer in this process: those configured at the start are numbered in their order, later ones after them. Stays
/// with a name while that is configured; is never used again afterwards.
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
    /// The peer that sent it, by its certificate and its consensus key.
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
    /// Our stream to the peer ended; it is dialled again while it is configured.
    Disconnected(PeerId),
    /// The peer holds the secret half of this consensus public key. Comes before the frames it sends with that proof, and
    /// again only when the key is another one.
    Proven(PeerId, [u8; 32]),
    /// The peer is not configured any more.
    Removed(PeerId),
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
    /// Hash of the chain's genesis, or of its last restart; peers of another one are refused.
    pub genesis_hash: Digest,
    /// The key this node proves to hold.
    pub consensus_key: Arc<ConsensusKey>,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// The peers at the start; the position of each is its [`PeerId`].
    pub peers: Vec<PeerConfiguration>,
}

/// What this node says of itself.
#[derive(Debug)]
struct Own {
    genesis_hash: Digest,
    node_name: String,
    key: Arc<ConsensusKey>,
}

/// Reads the first frame of a stream and writes it again; none if it introduces nobody. What a caller may send before
/// anything is known of it, for whoever tries it with every input.
pub fn read_hello(frame: &[u8]) -> Option<Bytes> {
    hello::Hello::decode(frame).ok().map(|hello| hello.encode())
}

/// The running network of a node.
pub struct Network {
    handle: NetworkHandle,
    local_address: SocketAddr,
    wanted: watch::Sender<Vec<PeerConfiguration>>,
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
        let NetworkConfig { node_name, genesis_hash, consensus_key, listen, peers } = config;
        let (listener, local_address) = listener::bind("peer", listen).await?;
        let metrics = Arc::new(metrics::NetworkMetrics::register(registry)?);
        let directory = Arc::new(peer::Directory::default());
        let handle = NetworkHandle::new(Arc::clone(&directory), Arc::clone(&metrics));
        let own = Arc::new(Own { genesis_hash, node_name, key: consensus_key });
        let (stop, stopped) = watch::channel(false);
        let (wanted, wishes) = watch::channel(peers);
        let mut tasks = JoinSet::new();

        let mut keeper = keeper::Keeper {
            own: Arc::clone(&own),
            directory: Arc::clone(&directory),
            metrics: Arc::clone(&metrics),
            tls: tls.clone(),
            handle: handle.clone(),
            events: inbound.clone(),
            stopped: stopped.clone(),
            dialers: JoinSet::new(),
        };
        // The list is there before the first frame can be sent or come in.
        keeper.apply(&wishes.borrow().clone()).await;
        tasks.spawn(keeper.run(wishes));

        let guests = listener::Guests::peers(Arc::clone(&directory), metrics.connections_refused.clone());
        let connections = listener::accept(listener, tls, tls::Audience::Peers, guests, stopped.clone());
        let service = receiver::Receiver {
            own,
            directory,
            metrics,
            events: inbound,
            stopped: stopped.clone(),
            stranger_warning: throttle::Throttle::default(),
        };
        tasks.spawn(receiver::serve(service, connections, stopped));
        Ok(Self { handle, local_address, wanted, stop, tasks })
    }

    /// Makes these the peers, at most [`bizra_proto::PEERS_MAX`]: new ones are dialled and let in, those that are
    /// not named any more are cut off, the others notice nothing.
    pub fn set_peers(&self, peers: Vec<PeerConfiguration>) {
        self.wanted.send_replace(peers);
    }

    /// Looks at the configuration file from time to time, and takes up its peers when it changes. `configuration` is what
    /// the node was started with. Returns what the file says of signing, which is the node's to take up.
    pub fn follow(
        &mut self,
        file: PathBuf,
        configuration: Configuration,
        interval: Duration,
    ) -> watch::Receiver<SigningConfiguration> {
        let (wanted, stopped) = (self.wanted.clone(), self.stop.subscribe());
        let (signing, wish) = watch::channel(configuration.signing);
        self.tasks.spawn(reload::follow(file, configuration, interval, wanted, signing, stopped));
        wish
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
