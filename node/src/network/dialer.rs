//! The sending side of one lane to one peer: dials, introduces itself, sends what is queued, and begins again when that ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bizra_proto::v1::Frame;
use bizra_proto::v1::peer_client::PeerClient;
use bizra_simplex::types::Digest;
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::hello::Hello;
use super::queue::{Lane, Queue};
use super::throttle::Throttle;
use super::tls::TlsMaterial;
use super::{NetworkEvent, NetworkHandle, PeerId};

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

/// Sends one lane to one peer.
pub(super) struct Dialer {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) lane: Lane,
    pub(super) outgoing: Arc<Queue>,
    /// Genesis hash and name of this node, for the Hello.
    pub(super) introduction: Arc<(Digest, String)>,
    pub(super) tls: TlsMaterial,
    pub(super) handle: NetworkHandle,
    pub(super) events: mpsc::Sender<NetworkEvent>,
}

/// Why a stream is not, or no longer, open.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("no connection: {}", with_causes(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("the peer refused: {}", .0.message())]
    Refused(Box<tonic::Status>),
    #[error("the stream ended: {}", .0.message())]
    Ended(Box<tonic::Status>),
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

impl Dialer {
    /// Runs until dropped.
    pub(super) async fn run(self) {
        let warning = Throttle::default();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.open().await {
                Ok(client) => {
                    self.report(true).await;
                    let opened = Instant::now();
                    let Err(error) = self.pump(client).await;
                    if opened.elapsed() >= STABLE_AFTER {
                        backoff = BACKOFF_FIRST;
                    }
                    self.report(false).await;
                    error
                }
                Err(error) => error,
            };
            // Nodes start one after the other: a peer that is not there yet is worth a line only after a while.
            let is_notable = backoff == BACKOFF_MAX || matches!(error, DialError::Refused(_));
            if is_notable && warning.allows() {
                tracing::warn!(peer = self.name, lane = self.lane.name(), %error, "not connected to a peer");
            }
            tokio::time::sleep(jittered(backoff)).await;
            backoff = backoff.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    /// Connects and asks with a stream of only a Hello whether this node is welcome.
    async fn open(&self) -> Result<PeerClient<Channel>, DialError> {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(self.tls.client(&self.name))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = timeout(ANSWER_TIMEOUT, endpoint.connect()).await??;
        let mut client = PeerClient::new(channel);
        let hello = self.hello();
        timeout(ANSWER_TIMEOUT, client.send(stream::once(async { hello })))
            .await?
            .map_err(|status| DialError::Refused(Box::new(status)))?;
        Ok(client)
    }

    /// Sends what is queued until the stream breaks.
    async fn pump(&self, mut client: PeerClient<Channel>) -> Result<Infallible, DialError> {
        // When this call ends, `_open` goes and with it the stream, which may otherwise live on a while inside the
        // connection and take frames from the next one.
        let (_open, closed) = watch::channel(());
        let (outgoing, handle, lane) = (Arc::clone(&self.outgoing), self.handle.clone(), self.lane);
        let frames = stream::unfold((outgoing, handle, closed), move |(outgoing, handle, mut closed)| async move {
            let payload = tokio::select! {
                biased;
                _ = closed.changed() => return None,
                payload = outgoing.next() => payload,
            };
            let metrics = handle.metrics().lane(lane);
            metrics.frames_sent.inc();
            metrics.bytes_sent.inc_by(payload.len() as u64);
            Some((Frame { payload }, (outgoing, handle, closed)))
        });
        let hello = self.hello();
        let ended = client.send(stream::once(async { hello }).chain(frames)).await;
        let status = ended.err().unwrap_or_else(|| tonic::Status::ok("the peer wants no more frames"));
        Err(DialError::Ended(Box::new(status)))
    }

    fn hello(&self) -> Frame {
        let (genesis_hash, node_name) = &*self.introduction;
        let hello = Hello { lane: self.lane, genesis_hash: *genesis_hash, node_name: node_name.clone() };
        Frame { payload: hello.encode() }
    }

    /// A peer counts as connected when its consensus lane is.
    async fn report(&self, connected: bool) {
        if self.lane != Lane::Consensus || !self.handle.set_connected(self.peer, connected) {
            return;
        }
        tracing::info!(peer = self.name, connected, "peer connection changed");
        let event = if connected { NetworkEvent::Connected(self.peer) } else { NetworkEvent::Disconnected(self.peer) };
        // Without a receiver the node is stopping.
        let _ = self.events.send(event).await;
    }
}

/// Half to all of it, so that nodes that lost each other together do not return together.
fn jittered(backoff: Duration) -> Duration {
    // Without randomness there is no jitter, and no harm.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    backoff / 2 + (backoff / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}
