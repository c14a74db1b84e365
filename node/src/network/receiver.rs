//! The listening side: checks the Hello of every stream, then passes its frames on.

use std::sync::Arc;
use std::time::Duration;

use bizra_proto::v1::peer_server::{Peer, PeerServer};
use bizra_proto::v1::{Frame, SendResponse};
use bizra_simplex::types::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::hello::Hello;
use super::listener::{CallerNames, Connection};
use super::metrics::NetworkMetrics;
use super::queue::Lane;
use super::throttle::Throttle;
use super::{FRAME_MAX_BYTES, Inbound, NetworkConfig, NetworkEvent, PeerId};

/// The protobuf wrapping of the longest frame: a tag and a length.
const FRAME_WRAPPING_BYTES: usize = 16;
/// A stream must introduce itself within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams at a time on one connection: a lane needs one, and one more while it is being replaced.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// Bytes under way to this node in one stream: eight batches, so that a batch never waits for an acknowledgement.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Fewer, larger HTTP/2 frames for batches.
const HTTP2_FRAME_MAX_BYTES: u32 = 64 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a peer's frames that consensus has not consumed yet, by lane: a peer that floods waits for itself only.
const UNCONSUMED_CONSENSUS_MAX_BYTES: usize = FRAME_MAX_BYTES;
const UNCONSUMED_DATA_MAX_BYTES: usize = 4 * FRAME_MAX_BYTES;
/// What any frame costs at least, so that empty frames are bounded too.
const FRAME_COST_MIN_BYTES: usize = 256;

/// The gRPC service `Peer`.
pub(super) struct Receiver {
    genesis_hash: Digest,
    peers: Vec<KnownPeer>,
    metrics: Arc<NetworkMetrics>,
    events: mpsc::Sender<NetworkEvent>,
    stopped: watch::Receiver<bool>,
    stranger_warning: Throttle,
}

struct KnownPeer {
    name: String,
    consensus: Slot,
    data: Slot,
    warning: Throttle,
}

/// One lane of one peer: its newest stream and its budget.
struct Slot {
    newest: watch::Sender<u64>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

impl Slot {
    fn new(budget_bytes: usize) -> Self {
        Self { newest: watch::Sender::new(0), budget: Arc::new(Semaphore::new(budget_bytes)), budget_bytes }
    }

    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let cost = bytes.clamp(FRAME_COST_MIN_BYTES, self.budget_bytes);
        let cost = u32::try_from(cost).map_err(|_| Status::internal("a frame's cost fits 32 bits"))?;
        Arc::clone(&self.budget).acquire_many_owned(cost).await.map_err(|_| Status::unavailable("shutting down"))
    }
}

impl Receiver {
    pub(super) fn new(
        config: &NetworkConfig,
        metrics: Arc<NetworkMetrics>,
        events: mpsc::Sender<NetworkEvent>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let peers = config.peers.iter().map(|peer| KnownPeer {
            name: peer.name.clone(),
            consensus: Slot::new(UNCONSUMED_CONSENSUS_MAX_BYTES),
            data: Slot::new(UNCONSUMED_DATA_MAX_BYTES),
            warning: Throttle::default(),
        });
        Self {
            genesis_hash: config.genesis_hash,
            peers: peers.collect(),
            metrics,
            events,
            stopped,
            stranger_warning: Throttle::default(),
        }
    }

    /// The peer behind a stream's first frame, or why it may not send.
    fn check(&self, hello: &Hello, caller: &CallerNames) -> Result<(PeerId, &KnownPeer), Status> {
        let name = &hello.node_name;
        let known = self.peers.iter().zip(0_u16..).find(|(peer, _)| peer.name == *name);
        let refusal = match known {
            None => Status::permission_denied(format!("{name:?} is not a configured peer of this node")),
            Some(_) if !caller.0.contains(name) => {
                Status::permission_denied(format!("the certificate does not name {name:?}; it names {:?}", caller.0))
            }
            Some(_) if hello.genesis_hash != self.genesis_hash => Status::failed_precondition(format!(
                "{name:?} is on the chain with genesis {}, this node on the one with {}",
                hello.genesis_hash, self.genesis_hash
            )),
            Some((peer, index)) => return Ok((PeerId(index), peer)),
        };
        self.metrics.streams_refused.inc();
        if known.map_or(&self.stranger_warning, |(peer, _)| &peer.warning).allows() {
            tracing::warn!(peer = name, reason = refusal.message(), "a peer's stream is refused");
        }
        Err(refusal)
    }

    async fn receive(&self, caller: CallerNames, mut frames: Streaming<Frame>) -> Result<SendResponse, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came in time"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended without a Hello"))?;
        let hello = Hello::decode(&first.payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (from, peer) = self.check(&hello, &caller)?;
        let slot = match hello.lane {
            Lane::Consensus => &peer.consensus,
            Lane::Data => &peer.data,
        };
        let metrics = self.metrics.lane(hello.lane);

        let mut newest = slot.newest.subscribe();
        slot.newest.send_modify(|stream| *stream += 1);
        newest.mark_unchanged();
        let mut stopped = self.stopped.clone();
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame?,
                _ = newest.changed() => return Err(Status::aborted("a newer stream of this peer took over")),
                _ = stopped.wait_for(|stop| *stop) => return Err(Status::unavailable("shutting down")),
            };
            let Some(Frame { payload }) = frame else { return Ok(SendResponse {}) };
            metrics.frames_received.inc();
            metrics.bytes_received.inc_by(payload.len() as u64);
            let deliver = async {
                let budget = Some(slot.reserve(payload.len()).await?);
                let event = NetworkEvent::Frame(Inbound { from, frame: payload, budget });
                self.events.send(event).await.map_err(|_| Status::unavailable("shutting down"))
            };
            tokio::select! {
                delivered = deliver => delivered?,
                _ = stopped.wait_for(|stop| *stop) => return Err(Status::unavailable("shutting down")),
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for Receiver {
    async fn send(&self, request: Request<Streaming<Frame>>) -> Result<Response<SendResponse>, Status> {
        let caller = request.extensions().get::<CallerNames>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        self.receive(caller, request.into_inner()).await.map(Response::new)
    }
}

/// Serves accepted connections until `stopped` turns true.
pub(super) async fn serve(
    receiver: Receiver,
    connections: impl Stream<Item = std::io::Result<Connection>>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = PeerServer::new(receiver).max_decoding_message_size(FRAME_MAX_BYTES + FRAME_WRAPPING_BYTES);
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_frame_size(HTTP2_FRAME_MAX_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, async move {
            // An error means that the network is gone, which is the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the peer server failed");
    }
}
