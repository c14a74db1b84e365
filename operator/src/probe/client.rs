//! One question to one node's admin port.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bizra_proto::v1::{GetStatusRequest, NodeStatus, admin_client::AdminClient};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

use super::{Connection, ProbeTarget};
use crate::certificates::{CertificateError, Trust};

/// Questions that may wait for one connection; there is one at a time.
const QUESTIONS_MAX: usize = 4;

/// Why a node could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// No client certificate could be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate or key cannot be read.
    #[error("cannot read a certificate or key of the authority: {0}")]
    Pem(#[from] pem::Error),
    /// Certificates and key do not make a client.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The node's name cannot be that of a server.
    #[error("the node's name cannot be in a certificate: {0}")]
    Name(#[from] InvalidDnsNameError),
    /// The connection could not be set up.
    #[error("cannot connect to the admin port: {0}")]
    Connection(#[from] tonic::transport::Error),
    /// The node did not answer.
    #[error("the admin port answered {code}: {message}")]
    Refused {
        /// gRPC status code.
        code: tonic::Code,
        /// Its message.
        message: String,
    },
    /// The answer is empty.
    #[error("the admin port gave an empty answer")]
    Empty,
}

/// What all connections to the nodes of one network share: the operator's certificate and whom it believes. One for each
/// connection would be the largest part of the operator's memory.
#[derive(Default)]
pub(super) struct SharedTls(Mutex<Option<(Arc<ClientConfig>, u64)>>);

impl SharedTls {
    /// The configuration, and when it should be replaced, in seconds since 1970.
    fn current(&self, trust: &Trust, now: u64) -> Result<(Arc<ClientConfig>, u64), ProbeError> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, renew_at)) = current.as_ref().filter(|(_, renew_at)| now < *renew_at) {
            return Ok((Arc::clone(config), *renew_at));
        }
        let client = trust.client.client(now)?;
        let mut roots = RootCertStore::empty();
        for root in &trust.roots {
            roots.add(CertificateDer::from_pem_slice(root.as_bytes())?)?;
        }
        let chain = vec![CertificateDer::from_pem_slice(client.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Nodes give no tickets.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        *current = Some((Arc::clone(&config), client.renew_at));
        Ok((config, client.renew_at))
    }
}

/// A connection to a node that shows the operator's certificate and accepts only the node's own. It is made when the first
/// question is asked.
pub(super) fn connect(
    node: &str,
    target: &ProbeTarget,
    trust: &Trust,
    tls: &SharedTls,
    now: u64,
) -> Result<Connection, ProbeError> {
    let (config, renew_at) = tls.current(trust, now)?;
    let address = SocketAddr::new(target.address, bizra_proto::port::ADMIN);
    let connector = Connector { address, name: ServerName::try_from(node.to_owned())?, config };
    // Not `https`: the connection that is handed out is encrypted already.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.buffer_size(QUESTIONS_MAX);
    Ok(Connection { channel: endpoint.connect_with_connector_lazy(connector), renew_at })
}

/// Opens encrypted connections to one node.
struct Connector {
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, name, config) = (self.address, self.name.clone(), Arc::clone(&self.config));
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(TokioIo::new(TlsConnector::from(config).connect(name, socket).await?))
        })
    }
}

/// Asks for the status.
pub(super) async fn ask(channel: Channel) -> Result<NodeStatus, ProbeError> {
    let answer = AdminClient::new(channel)
        .get_status(GetStatusRequest {})
        .await
        .map_err(|status| ProbeError::Refused { code: status.code(), message: status.message().to_owned() })?;
    answer.into_inner().status.ok_or(ProbeError::Empty)
}
