//! The listening side: checks the Hello of every stream, then passes its frames on as its budgets allow.

use std::sync::Arc;
use std::time::Duration;

use bizra_proto::v1::peer_server::{Peer as PeerService, PeerServer};
use bizra_proto::v1::{Frame, SendResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

use super::handle::note_malformed;
use super::hello::{Hello, HelloError};
use super::listener::{Caller, Connection};
use super::metrics::NetworkMetrics;
use super::peer::{Directory, Peer};
use super::throttle::Throttle;
use super::{FRAME_MAX_BYTES, Inbound, NetworkEvent, Own};
use crate::identity::connection::{Proof, Role, Statement};

/// The protobuf wrapping of the longest frame: a tag and a length.
const FRAME_WRAPPING_BYTES: usize = 16;
/// A stream must introduce itself within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// What a Hello costs its sender: checking its signature is as dear as a few dozen votes are to receive.
const HELLO_COST_BYTES: usize = 128 * 1024;
/// Streams at a time on one connection: a lane needs one, and one more while it is being replaced.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// Bytes under way to this node in one stream: eight batches, so that a batch never waits for an acknowledgement.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Fewer, larger HTTP/2 frames for batches.
const HTTP2_FRAME_MAX_BYTES: u32 = 64 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The gRPC service `Peer`.
pub(super) struct Receiver {
    pub(super) own: Arc<Own>,
    pub(super) directory: Arc<Directory>,
    pub(super) metrics: Arc<NetworkMetrics>,
    pub(super) events: mpsc::Sender<NetworkEvent>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) stranger_warning: Throttle,
}

/// Why a stream may not begin.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("{0:?} is not a configured peer of this node")]
    UnknownName(String),
    #[error("the certificate does not name {name:?}; it names {certified:?}")]
    WrongCertificate { name: String, certified: Arc<Vec<String>> },
    #[error("{name:?} is on the chain with genesis or last restart {theirs}, this node on the one with {ours}")]
    WrongChain { name: String, theirs: bizra_simplex::types::Digest, ours: bizra_simplex::types::Digest },
    #[error("{name:?} is shut out for {seconds} more seconds after too many malformed frames")]
    ShutOut { name: String, seconds: u64 },
    #[error("{0:?} does not prove for this connection that it holds the consensus key it claims")]
    WrongProof(String),
    #[error("{0:?} holds the consensus key of this node: a copied volume; stop one of the two and rotate its key")]
    OwnKey(String),
}

impl Refusal {
    /// The label in metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Hello(HelloError::Version(_)) => "version",
            Self::Hello(HelloError::Malformed) => "malformed_hello",
            Self::UnknownName(_) => "unknown_name",
            Self::WrongCertificate { .. } => "wrong_certificate",
            Self::WrongChain { .. } => "wrong_chain",
            Self::ShutOut { .. } => "shut_out",
            Self::WrongProof(_) => "wrong_proof",
            Self::OwnKey(_) => "own_key",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Hello(_) => Code::InvalidArgument,
            Self::UnknownName(_) | Self::WrongCertificate { .. } | Self::OwnKey(_) => Code::PermissionDenied,
            Self::WrongChain { .. } => Code::FailedPrecondition,
            Self::ShutOut { .. } => Code::ResourceExhausted,
            Self::WrongProof(_) => Code::Unauthenticated,
        }
    }
}

impl Receiver {
    /// The peer that a Hello names, if the certificate names it too and it is on this chain. Costs no cryptography.
    fn known(&self, hello: &Hello, caller: &Caller) -> Result<Arc<Peer>, Refusal> {
        let name = hello.node_name.clone();
        let table = self.directory.table();
        let Some(peer) = table.iter().find(|peer| peer.name == name) else {
            return Err(Refusal::UnknownName(name));
        };
        if !caller.names.contains(&name) {
            return Err(Refusal::WrongCertificate { name, certified: Arc::clone(&caller.names) });
        }
        if hello.genesis_hash != self.own.genesis_hash {
            let (theirs, ours) = (hello.genesis_hash, self.own.genesis_hash);
            return Err(Refusal::WrongChain { name, theirs, ours });
        }
        if let Some(left) = peer.shut_out() {
            return Err(Refusal::ShutOut { name, seconds: left.as_secs() + 1 });
        }
        Ok(Arc::clone(peer))
    }

    /// The peer behind a stream's first frame, its key proven.
    async fn welcome(&self, hello: &Hello, caller: &Caller) -> Result<Arc<Peer>, Refusal> {
        let peer = self.known(hello, caller)?;
        let wait = peer.lane(hello.lane).incoming.rate.spend(HELLO_COST_BYTES);
        if !wait.is_zero() {
            self.metrics.lane(hello.lane).frames_delayed.inc();
            tokio::time::sleep(wait).await;
        }
        let statement = Statement {
            genesis_hash: self.own.genesis_hash,
            role: Role::Dialer,
            exporter: &caller.exporter,
            signer: &peer.name,
            other: &self.own.node_name,
        };
        if !hello.proof.shows(&statement) {
            return Err(Refusal::WrongProof(peer.name.clone()));
        }
        if hello.proof.public_key == self.own.key.public_key() {
            return Err(Refusal::OwnKey(peer.name.clone()));
        }
        Ok(peer)
    }

    fn refuse(&self, refusal: &Refusal, name: Option<&str>) -> Status {
        self.metrics.stream_refused(refusal.reason());
        let table = self.directory.table();
        let peer = table.iter().find(|peer| Some(peer.name.as_str()) == name);
        if peer.map_or(&self.stranger_warning, |peer| &peer.warning).allows() {
            tracing::warn!(peer = name, reason = %refusal, "a peer's stream is refused");
        }
        Status::new(refusal.code(), refusal.to_string())
    }

    /// This node's own proof, for the caller.
    fn answer(&self, peer: &Peer, caller: &Caller) -> SendResponse {
        let Proof { public_key, signature } = self.own.key.prove(&Statement {
            genesis_hash: self.own.genesis_hash,
            role: Role::Listener,
            exporter: &caller.exporter,
            signer: &self.own.node_name,
            other: &peer.name,
        });
        SendResponse { public_key: public_key.to_vec(), signature: signature.to_vec() }
    }

    async fn receive(&self, caller: Caller, mut frames: Streaming<Frame>) -> Result<SendResponse, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came in time"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended without a Hello"))?;
        let hello = Hello::decode(&first.payload).map_err(|error| self.refuse(&error.into(), None))?;
        let peer = self
            .welcome(&hello, &caller)
            .await
            .map_err(|refusal| self.refuse(&refusal, Some(hello.node_name.as_str())))?;
        let (lane, incoming) = (hello.lane, &peer.lane(hello.lane).incoming);
        let metrics = self.metrics.lane(lane);
        let stopping = || Status::unavailable("shutting down");

        let mut newest = incoming.newest.subscribe();
        let mut this_stream = 0;
        incoming.newest.send_modify(|stream| {
            *stream += 1;
            this_stream = *stream;
        });
        may_go_on(&peer, *newest.borrow_and_update() == this_stream)?;
        let mut stopped = self.stopped.clone();
        // Before any frame of this stream, so that consensus knows whose frames they are. The place first: a key that is
        // noted is told, also if this stream is dropped here.
        let place = self.events.reserve().await.map_err(|_| stopping())?;
        if peer.set_key(hello.proof.public_key) {
            place.send(NetworkEvent::Proven(peer.id, hello.proof.public_key));
        } else {
            drop(place);
        }
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame,
                _ = newest.changed() => {
                    may_go_on(&peer, *newest.borrow_and_update() == this_stream)?;
                    continue;
                }
                _ = stopped.wait_for(|stop| *stop) => return Err(stopping()),
            };
            let frame = frame.inspect_err(|status| {
                // Too long, or not a protobuf message. A broken connection looks otherwise.
                if matches!(status.code(), Code::OutOfRange | Code::Internal) {
                    note_malformed(&peer, &self.metrics);
                }
            })?;
            let Some(Frame { payload }) = frame else { return Ok(self.answer(&peer, &caller)) };
            metrics.frames_received.inc();
            metrics.bytes_received.inc_by(payload.len() as u64);
            let cost = lane.cost_bytes(payload.len());
            let wait = incoming.rate.spend(cost);
            let deliver = async {
                if !wait.is_zero() {
                    metrics.frames_delayed.inc();
                    tokio::time::sleep(wait).await;
                }
                let budget = Some(incoming.reserve(cost).await?);
                let event = NetworkEvent::Frame(Inbound { from: peer.id, frame: payload, budget });
                self.events.send(event).await.map_err(|_| stopping())
            };
            tokio::select! {
                delivered = deliver => delivered?,
                // A frame of a stream that ends need not arrive.
                _ = newest.changed() => may_go_on(&peer, *newest.borrow_and_update() == this_stream)
                    .and(Err(Status::aborted("the stream was interrupted")))?,
                _ = stopped.wait_for(|stop| *stop) => return Err(stopping()),
            }
        }
    }
}

/// Whether a stream that was roused may go on.
fn may_go_on(peer: &Peer, is_newest: bool) -> Result<(), Status> {
    if *peer.removed.borrow() {
        Err(Status::permission_denied("no longer a configured peer of this node"))
    } else if peer.shut_out().is_some() {
        Err(Status::resource_exhausted("shut out for a while: too many malformed frames"))
    } else if is_newest {
        Ok(())
    } else {
        Err(Status::aborted("a newer stream of this peer took over"))
    }
}

#[tonic::async_trait]
impl PeerService for Receiver {
    async fn send(&self, request: Request<Streaming<Frame>>) -> Result<Response<SendResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
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
