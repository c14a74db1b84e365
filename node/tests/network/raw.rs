//! A caller that says whatever a test wants: TLS, then any frames.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bizra_node::identity::connection::{EXPORTER_LABEL, Exporter, Proof};
use bizra_proto::v1::Frame;
use bizra_proto::v1::peer_client::PeerClient;
use bizra_simplex::types::Digest;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

pub(crate) const CONSENSUS_LANE: u8 = 0;
pub(crate) const DATA_LANE: u8 = 1;

/// A connection on which nothing was said yet.
pub(crate) struct Raw {
    pub(crate) client: PeerClient<Channel>,
    pub(crate) exporter: Exporter,
}

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

/// A client that trusts one authority and shows one certificate.
pub(crate) fn client_config(
    authority_pem: &str,
    certificate_pem: &str,
    key_pem: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    bizra_node::network::tls::install_provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub(crate) async fn connect(address: SocketAddr, server: &str, config: Arc<ClientConfig>) -> io::Result<Raw> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(server.to_owned()).unwrap();
    let connection = TlsConnector::from(config).connect(name, socket).await?;
    let exporter = connection.get_ref().1.export_keying_material(Exporter::default(), EXPORTER_LABEL, None).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(Once(Some(TokioIo::new(connection)))).await;
    Ok(Raw { client: PeerClient::new(channel.map_err(io::Error::other)?), exporter })
}

pub(crate) fn hello(lane: u8, genesis: Digest, proof: &Proof, name: &str) -> Frame {
    let payload = [&[2, lane][..], &genesis.0, &proof.public_key, &proof.signature, name.as_bytes()].concat();
    Frame { payload: payload.into() }
}

pub(crate) fn frame(payload: impl Into<Bytes>) -> Frame {
    Frame { payload: payload.into() }
}
