//! Accepts TCP connections, runs their TLS handshakes aside, and hands over the ones that passed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::NetworkError;
use super::tls::{Audience, TlsMaterial};
use crate::identity::certificates::dns_names;

/// A caller that has not finished its handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at a time: strangers can make this node compute no more than that at once.
const HANDSHAKES_MAX: usize = 64;
/// Connections that one certificate name may hold: two lanes, twice over while a dead one is not yet noticed. Bounds
/// the receive windows a hostile peer can fill.
const CONNECTIONS_PER_NAME_MAX: usize = 8;
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
    known: Vec<(String, Arc<Semaphore>)>,
    others: Arc<Semaphore>,
}

impl Guests {
    /// Each of `names` has its own limit; all other certificates share one.
    pub(super) fn new(names: Vec<String>) -> Arc<Self> {
        let limit = || Arc::new(Semaphore::new(CONNECTIONS_PER_NAME_MAX));
        Arc::new(Self { known: names.into_iter().map(|name| (name, limit())).collect(), others: limit() })
    }

    fn admit(&self, names: &[String]) -> Option<OwnedSemaphorePermit> {
        let known = self.known.iter().find(|(name, _)| names.contains(name)).map(|(_, limit)| limit);
        Arc::clone(known.unwrap_or(&self.others)).try_acquire_owned().ok()
    }
}

/// DNS names in the verified certificate of a caller; in the extensions of its requests.
#[derive(Clone, Debug)]
pub(super) struct CallerNames(pub(super) Arc<Vec<String>>);

/// A connection whose client certificate was verified.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    names: CallerNames,
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
            let acceptor = TlsAcceptor::from(tls.server(audience));
            let (guests, sender) = (Arc::clone(&guests), sender.clone());
            tokio::spawn(async move {
                let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, admit(socket, acceptor, &guests)).await;
                drop(permit);
                match admitted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    // The server is gone when the channel is; so may be the connection.
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(error) => tracing::debug!(%address, %error, "a connection is refused"),
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
    let place = guests.admit(&names).ok_or_else(|| io::Error::other("the caller has too many connections"))?;
    Ok(Connection { stream, names: CallerNames(Arc::new(names)), _place: place })
}

impl Connected for Connection {
    type ConnectInfo = CallerNames;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.names.clone()
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
