//! The sending side of one lane to one peer: dials, introduces itself, sees who answers, sends what is queued, and begins
//! again when that ends.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bizra_proto::v1::peer_client::PeerClient;
use bizra_proto::v1::{Frame, SendResponse};
use futures::StreamExt as _;
use futures::stream;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use super::hello::Hello;
use super::peer::Peer;
use super::queue::Lane;
use super::throttle::Throttle;
use super::tls::TlsMaterial;
use super::{NetworkEvent, NetworkHandle, Own};
use crate::identity::connection::{EXPORTER_LABEL, Exporter, Proof, Role, Statement};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the TLS handshake on top, and for the answer to a Hello.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanishes without a word is noticed after interval and timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A stream that ends sooner does not reset the back-off: a peer that takes and drops streams is not hammered.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// A peer that opens a stream is there, whatever was tried before: it is dialled at once. Not more often than this, so that one
/// that opens streams for the sake of it is dialled hardly more than one that is silent.
const HURRY_INTERVAL: Duration = Duration::from_secs(2);
/// An attempt that has lasted so long may be one to where the peer was before.
const ATTEMPT_PATIENCE: Duration = Duration::from_millis(250);

/// Sends one lane to one peer.
pub(super) struct Dialer {
    pub(super) peer: Arc<Peer>,
    pub(super) lane: Lane,
    pub(super) own: Arc<Own>,
    pub(super) tls: TlsMaterial,
    pub(super) handle: NetworkHandle,
    pub(super) events: mpsc::Sender<NetworkEvent>,
}

/// Why a stream is not, or no longer, open.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("no connection to {0}: {1}")]
    Connect(String, io::Error),
    #[error("TLS with {0} failed: {1}")]
    Tls(String, io::Error),
    #[error("no HTTP/2: {}", with_causes(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("the peer refused: {}", .0.message())]
    Refused(Box<tonic::Status>),
    #[error(
        "the peer does not prove for this connection that it holds the consensus key it claims; nothing is sent to it"
    )]
    WrongProof,
    #[error("the peer holds the consensus key of this node: a copied volume; stop one of the two and rotate its key")]
    OwnKey,
    #[error("the stream ended: {}", .0.message())]
    Ended(Box<tonic::Status>),
    #[error("its address is now {0}")]
    Moved(String),
    #[error("the peer has opened a stream meanwhile")]
    Arrived,
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// tonic's own text is only "transport error"; what helps is below it.
fn with_causes(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Hands out one connection that is there already, and no second one: what was proven on this one holds for no other.
struct Once(Option<TokioIo<TlsStream<TcpStream>>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// A stream on which both ends have shown who they are.
struct Open {
    client: PeerClient<Channel>,
    hello: Frame,
}

impl Dialer {
    /// Runs until the peer is removed or `stopped` turns true.
    pub(super) async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut removed = self.peer.removed.subscribe();
        let is_removed = tokio::select! {
            never = self.dial() => match never {},
            _ = removed.wait_for(|removed| *removed) => true,
            _ = stopped.wait_for(|stop| *stop) => false,
        };
        if is_removed {
            self.report(false).await;
        }
    }

    async fn dial(&self) -> Infallible {
        let warning = Throttle::default();
        let mut backoff = BACKOFF_FIRST;
        let mut address = self.peer.address.subscribe();
        let mut arrivals = self.peer.lane(self.lane).incoming.newest.subscribe();
        let mut hurried = None;
        loop {
            let target = address.borrow_and_update().clone();
            arrivals.mark_unchanged();
            let opened = tokio::select! {
                opened = self.open(&target) => opened,
                () = arrival(&mut arrivals, hurried, ATTEMPT_PATIENCE) => Err(DialError::Arrived),
            };
            let error = match opened {
                Ok(open) => {
                    self.report(true).await;
                    let opened = Instant::now();
                    let error = tokio::select! {
                        ended = self.pump(open) => match ended { Err(error) => error },
                        // Never fails: the sender is in the peer that is held here.
                        _ = address.changed() => DialError::Moved(address.borrow().clone()),
                    };
                    if opened.elapsed() >= STABLE_AFTER || matches!(error, DialError::Moved(_)) {
                        backoff = BACKOFF_FIRST;
                    }
                    self.report(false).await;
                    error
                }
                Err(error) => error,
            };
            if matches!(error, DialError::Arrived) {
                (hurried, backoff) = (Some(Instant::now()), BACKOFF_FIRST);
                continue;
            }
            let unproven = matches!(error, DialError::WrongProof | DialError::OwnKey);
            // Nodes start one after the other: a peer that is not there yet is worth a line only after a while.
            let is_notable = unproven || backoff == BACKOFF_MAX || matches!(error, DialError::Refused(_));
            if is_notable && warning.allows() {
                tracing::warn!(peer = self.peer.name, lane = self.lane.name(), %error, "not connected to a peer");
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(backoff)) => {
                    backoff = if unproven { BACKOFF_MAX } else { backoff.saturating_mul(2).min(BACKOFF_MAX) };
                }
                () = arrival(&mut arrivals, hurried, Duration::ZERO), if !unproven => {
                    (hurried, backoff) = (Some(Instant::now()), BACKOFF_FIRST);
                }
            }
        }
    }

    /// Connects, asks with a stream of only a Hello whether this node is welcome, and has the peer prove its key.
    async fn open(&self, address: &str) -> Result<Open, DialError> {
        let (connection, exporter) = timeout(ANSWER_TIMEOUT, self.connect(address)).await??;
        // Not `https`: the connection that is handed out is encrypted already.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connector = Once(Some(TokioIo::new(connection)));
        let channel = timeout(ANSWER_TIMEOUT, endpoint.connect_with_connector(connector)).await??;
        let mut client = PeerClient::new(channel);
        let hello = self.hello(&exporter);
        let introduction = hello.clone();
        let answer = timeout(ANSWER_TIMEOUT, client.send(stream::once(async { introduction })))
            .await?
            .map_err(|status| DialError::Refused(Box::new(status)))?;
        let public_key = self.check(&answer.into_inner(), &exporter).inspect_err(|error| {
            let reason = if matches!(error, DialError::OwnKey) { "own_key" } else { "wrong_proof" };
            self.handle.metrics().peer_refused(reason);
        })?;
        // Without a receiver the node is stopping.
        if let Ok(place) = self.events.reserve().await
            && self.peer.set_key(public_key)
        {
            place.send(NetworkEvent::Proven(self.peer.id, public_key));
        }
        Ok(Open { client, hello })
    }

    async fn connect(&self, address: &str) -> Result<(TlsStream<TcpStream>, Exporter), DialError> {
        let failed = |error| DialError::Connect(address.to_owned(), error);
        let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await?.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let failed = |error| DialError::Tls(address.to_owned(), error);
        let name = ServerName::try_from(self.peer.name.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let connection = TlsConnector::from(self.tls.client()).connect(name, socket).await.map_err(failed)?;
        let (_, session) = connection.get_ref();
        let exporter = session
            .export_keying_material(Exporter::default(), EXPORTER_LABEL, None)
            .map_err(|error| failed(io::Error::other(error)))?;
        Ok((connection, exporter))
    }

    /// The key that the peer proves to hold.
    fn check(&self, answer: &SendResponse, exporter: &Exporter) -> Result<[u8; 32], DialError> {
        let statement = Statement {
            genesis_hash: self.own.genesis_hash,
            role: Role::Listener,
            exporter,
            signer: &self.peer.name,
            other: &self.own.node_name,
        };
        let (Ok(public_key), Ok(signature)) =
            (answer.public_key.as_slice().try_into(), answer.signature.as_slice().try_into())
        else {
            return Err(DialError::WrongProof);
        };
        let proof = Proof { public_key, signature };
        if !proof.shows(&statement) {
            Err(DialError::WrongProof)
        } else if proof.public_key == self.own.key.public_key() {
            Err(DialError::OwnKey)
        } else {
            Ok(proof.public_key)
        }
    }

    /// Sends what is queued until the stream breaks.
    async fn pump(&self, open: Open) -> Result<Infallible, DialError> {
        // When this call ends, `_open` goes and with it the stream, which may otherwise live on a while inside the
        // connection and take frames from the next one.
        let (_open, closed) = watch::channel(());
        let Open { mut client, hello } = open;
        let (peer, handle, lane) = (Arc::clone(&self.peer), self.handle.clone(), self.lane);
        let frames = stream::unfold((peer, handle, closed), move |(peer, handle, mut closed)| async move {
            let payload = tokio::select! {
                biased;
                _ = closed.changed() => return None,
                payload = peer.lane(lane).outgoing.next() => payload,
            };
            let metrics = handle.metrics().lane(lane);
            metrics.frames_sent.inc();
            metrics.bytes_sent.inc_by(payload.len() as u64);
            Some((Frame { payload }, (peer, handle, closed)))
        });
        let ended = client.send(stream::once(async { hello }).chain(frames)).await;
        let status = ended.err().unwrap_or_else(|| tonic::Status::ok("the peer wants no more frames"));
        Err(DialError::Ended(Box::new(status)))
    }

    fn hello(&self, exporter: &Exporter) -> Frame {
        let Own { genesis_hash, node_name, key } = &*self.own;
        let proof = key.prove(&Statement {
            genesis_hash: *genesis_hash,
            role: Role::Dialer,
            exporter,
            signer: node_name,
            other: &self.peer.name,
        });
        let hello = Hello { lane: self.lane, genesis_hash: *genesis_hash, proof, node_name: node_name.clone() };
        Frame { payload: hello.encode() }
    }

    /// A peer counts as connected when its consensus lane is.
    async fn report(&self, connected: bool) {
        if self.lane != Lane::Consensus || !self.peer.set_connected(connected) {
            return;
        }
        self.handle.metrics().connected_peers.add(if connected { 1 } else { -1 });
        tracing::info!(peer = self.peer.name, connected, "peer connection changed");
        let id = self.peer.id;
        let event = if connected { NetworkEvent::Connected(id) } else { NetworkEvent::Disconnected(id) };
        // Without a receiver the node is stopping.
        let _ = self.events.send(event).await;
    }
}

/// Resolves when the peer has opened a stream since `arrivals` was looked at, after `patience` and not too soon after the last
/// time.
async fn arrival(arrivals: &mut watch::Receiver<u64>, hurried: Option<Instant>, patience: Duration) {
    let left = hurried.map_or(Duration::ZERO, |at| HURRY_INTERVAL.saturating_sub(at.elapsed()));
    tokio::time::sleep(left.max(patience)).await;
    if arrivals.changed().await.is_err() {
        // The peer is gone, and the dialer with it.
        std::future::pending::<()>().await;
    }
}

/// Half to all of it, so that nodes that lost each other together do not return together.
fn jittered(backoff: Duration) -> Duration {
    // Without randomness there is no jitter, and no harm.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    backoff / 2 + (backoff / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_comes_by_is_dialled_at_once_but_not_over_and_over() {
        let streams = watch::Sender::new(0);
        let mut arrivals = streams.subscribe();
        let soon = Duration::from_millis(100);
        assert!(timeout(soon, arrival(&mut arrivals, None, Duration::ZERO)).await.is_err(), "nobody has come");
        streams.send_modify(|streams| *streams += 1);
        assert!(timeout(soon, arrival(&mut arrivals, Some(Instant::now()), Duration::ZERO)).await.is_err());
        assert!(timeout(soon, arrival(&mut arrivals, None, ATTEMPT_PATIENCE)).await.is_err());
        assert!(timeout(soon, arrival(&mut arrivals, None, Duration::ZERO)).await.is_ok());
        assert!(timeout(soon, arrival(&mut arrivals, None, Duration::ZERO)).await.is_err(), "once");
    }
}
