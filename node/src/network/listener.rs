//! Accepts TCP connections, runs their TLS handshakes aside, and hands over the ones that passed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::NetworkError;
use super::doorkeeper::Doorkeeper;
use super::peer::Directory;
use super::queue::Lane;
use super::throttle::Throttle;
use super::tls::{Audience, TlsMaterial};
use crate::identity::certificates::dns_names;
use crate::identity::connection::{EXPORTER_LABEL, Exporter};

/// A caller that has not finished its handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at a time: strangers can make this node compute no more than that at once.
const HANDSHAKES_MAX: usize = 64;
/// Connections that one certificate name may hold: one for each lane, twice over while a dead one is not yet noticed.
/// Bounds the receive windows a hostile peer can fill.
pub(super) const CONNECTIONS_PER_NAME_MAX: usize = 2 * Lane::COUNT;
/// Pause after `accept` fails, as it does when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds a listening socket.
pub(super) async fn bind(
    purpose: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), NetworkError> {
    let failed = |source| NetworkError::Bind { purpose, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Who may hold how many connections.
pub(super) struct Guests {
    directory: Option<Arc<Directory>>,
    others: Arc<Semaphore>,
    refused: Option<IntCounter>,
    warning: Throttle,
}

impl Guests {
    /// Each known peer has its own limit; all other certificates share one. Counts what is refused.
    pub(super) fn peers(directory: Arc<Directory>, refused: IntCounter) -> Arc<Self> {
        Self::new(Some(directory), Some(refused))
    }

    /// All certificates share one limit.
    pub(super) fn operators() -> Arc<Self> {
        Self::new(None, None)
    }

    fn new(directory: Option<Arc<Directory>>, refused: Option<IntCounter>) -> Arc<Self> {
        let others = Arc::new(Semaphore::new(CONNECTIONS_PER_NAME_MAX));
        Arc::new(Self { directory, others, refused, warning: Throttle::default() })
    }

    fn admit(&self, names: &[String]) -> Option<OwnedSemaphorePermit> {
        let table = self.directory.as_ref().map(|directory| directory.table());
        let known = table.iter().flat_map(|table| table.iter()).find(|peer| names.contains(&peer.name));
        Arc::clone(known.map_or(&self.others, |peer| &peer.places)).try_acquire_owned().ok()
    }

    fn note_refusal(&self, address: SocketAddr, error: &io::Error) {
        if let Some(refused) = &self.refused {
            refused.inc();
        }
        if self.warning.allows() {
            tracing::warn!(%address, %error, "a connection is refused before it could say anything");
        } else {
            tracing::debug!(%address, %error, "a connection is refused");
        }
    }
}

/// What TLS says of a caller; in the extensions of its requests.
#[derive(Clone)]
pub(super) struct Caller {
    /// DNS names in its verified certificate.
    pub(super) names: Arc<Vec<String>>,
    /// The connection, for proofs of the consensus key.
    pub(super) exporter: Exporter,
}

/// A connection whose client certificate was verified.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

/// Starts accepting; ends when `stopped` turns true or the stream is dropped.
pub(super) fn accept(
    listener: TcpListener,
    tls: TlsMaterial,
    audience: Audience,
    guests: Arc<Guests>,
    mut stopped: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut doorkeeper = Doorkeeper::new();
        loop {
            // Never closed, so this always yields a permit.
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => return,
                () = sender.closed() => return,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !doorkeeper.admits(address.ip()) {
                guests.note_refusal(address, &io::Error::other("this address begins too many handshakes"));
                continue;
            }
            let acceptor = TlsAcceptor::from(tls.server(audience));
            let (guests, sender) = (Arc::clone(&guests), sender.clone());
            tokio::spawn(async move {
                let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, admit(socket, acceptor, &guests)).await;
                drop(permit);
                match admitted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    // The server is gone when the channel is; so may be the connection.
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(error) => guests.note_refusal(address, &error),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn admit(socket: TcpStream, acceptor: TlsAcceptor, guests: &Guests) -> io::Result<Connection> {
    socket.set_nodelay(true)?;
    let stream = acceptor.accept(socket).await?;
    let (_, session) = stream.get_ref();
    let names = session.peer_certificates().and_then(|chain| chain.first()).map(dns_names).unwrap_or_default();
    let exporter = session
        .export_keying_material(Exporter::default(), EXPORTER_LABEL, None)
        .map_err(|error| io::Error::other(format!("the connection has no exporter: {error}")))?;
    let place = guests.admit(&names).ok_or_else(|| io::Error::other("the caller has too many connections"))?;
    Ok(Connection { stream, caller: Caller { names: Arc::new(names), exporter }, _place: place })
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
