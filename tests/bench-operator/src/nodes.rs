//! The admin ports of all nodes. Each network has an address of its own on the loopback interface; which of its nodes is
//! meant, and so which certificate is shown, tells the server name of the TLS handshake. Only the operator of that network
//! is let in, as on a real node.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bizra_proto::v1::{
    GetStatusRequest, GetStatusResponse, NodeStatus, ProveKeyRequest, ProveKeyResponse,
    admin_server::{Admin, AdminServer},
};
use futures::{StreamExt as _, stream};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tonic::transport::{Server, server::Connected};

/// Handshakes whose connections wait to be served.
const WAITING_MAX: usize = 1024;
/// How often a growing chain grows.
const BLOCK_TIME: Duration = Duration::from_secs(4);

/// All nodes that run.
pub(crate) struct Nodes {
    by_name: RwLock<HashMap<String, Arc<Node>>>,
    height: AtomicU64,
    /// Whether the chains grow.
    pub(crate) moving: AtomicBool,
    /// Questions answered.
    pub(crate) answered: AtomicU64,
}

/// One of them.
struct Node {
    tls: Arc<ServerConfig>,
    said: NodeStatus,
}

impl Nodes {
    /// No node yet; chains stand still at height 1000.
    pub(crate) fn new() -> Arc<Self> {
        let nodes = Arc::new(Self {
            by_name: RwLock::default(),
            height: AtomicU64::new(1000),
            moving: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        });
        let clock = Arc::clone(&nodes);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(BLOCK_TIME).await;
                if clock.moving.load(Ordering::Relaxed) {
                    clock.height.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        nodes
    }

    /// Lets a node answer. `operator_ca` signs the only client it lets in.
    pub(crate) fn run(&self, said: NodeStatus, certificate: &str, key: &rcgen::KeyPair, operator_ca: &str) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(operator_ca.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let mut tls = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        let name = said.node_name.clone();
        self.by_name.write().unwrap().insert(name, Arc::new(Node { tls: Arc::new(tls), said }));
    }

    fn named(&self, name: &str) -> Option<Arc<Node>> {
        self.by_name.read().unwrap().get(name).cloned()
    }
}

/// Answers for all nodes at this address until the runtime ends.
pub(crate) async fn serve(nodes: Arc<Nodes>, address: Ipv4Addr) {
    let listener = TcpListener::bind((address, bizra_proto::port::ADMIN)).await.unwrap();
    let (sender, receiver) = mpsc::channel::<Connection>(WAITING_MAX);
    let accepting = Arc::clone(&nodes);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (nodes, sender) = (Arc::clone(&accepting), sender.clone());
            tokio::spawn(async move {
                if let Some(connection) = shake_hands(&nodes, socket).await {
                    let _ = sender.send(connection).await;
                }
            });
        }
    });
    let incoming = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let incoming = incoming.map(Ok::<_, std::io::Error>);
    tokio::spawn(async move {
        let server = Server::builder().add_service(AdminServer::new(Answers { nodes }));
        server.serve_with_incoming(incoming).await.unwrap();
    });
}

/// None if the client is not the operator, or asks for a node that does not run.
async fn shake_hands(nodes: &Nodes, socket: TcpStream) -> Option<Connection> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    let node = nodes.named(hello.client_hello().server_name()?)?;
    let stream = hello.into_stream(Arc::clone(&node.tls)).await.ok()?;
    Some(Connection { stream, node })
}

/// A connection to one node.
struct Connection {
    stream: TlsStream<TcpStream>,
    node: Arc<Node>,
}

impl Connected for Connection {
    type ConnectInfo = Asked;

    fn connect_info(&self) -> Asked {
        Asked(Arc::clone(&self.node))
    }
}

/// The node a request is for.
#[derive(Clone)]
struct Asked(Arc<Node>);

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Answers every question with what the node of the connection says.
struct Answers {
    nodes: Arc<Nodes>,
}

#[tonic::async_trait]
impl Admin for Answers {
    async fn get_status(
        &self,
        request: tonic::Request<GetStatusRequest>,
    ) -> Result<tonic::Response<GetStatusResponse>, tonic::Status> {
        let asked = request.extensions().get::<Asked>().expect("every connection is to a node");
        self.nodes.answered.fetch_add(1, Ordering::Relaxed);
        let height = self.nodes.height.load(Ordering::Relaxed);
        let votes = asked.0.said.power > 0;
        let said = NodeStatus {
            finalized_height: height,
            network_height: height,
            last_voted_height: if votes { height } else { 0 },
            ..asked.0.said.clone()
        };
        Ok(tonic::Response::new(GetStatusResponse { status: Some(said) }))
    }

    async fn prove_key(
        &self,
        _: tonic::Request<ProveKeyRequest>,
    ) -> Result<tonic::Response<ProveKeyResponse>, tonic::Status> {
        Err(tonic::Status::failed_precondition("nodes of this bench have no keys"))
    }
}
