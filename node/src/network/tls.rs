//! TLS for everything that listens or dials with the node's certificate, renewed from disk without a restart.
//!
//! New connections use the newest certificates; connections that are open stay open. TLS 1.3 only, and no resumption: each
//! connection proves its certificates anew, and has an exporter of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;

use crate::identity::{CertificateFiles, Certificates, IdentityError, TlsKey};

/// How often the files are looked at. Lifetimes can be as short as 90 s, and certificates are renewed after two thirds.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Exporter and forward secrecy of every connection rest on it.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Whose certificates a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Peers,
    Operators,
}

/// The node's current certificates, ready for use; a clone follows every renewal.
#[derive(Clone)]
pub struct TlsMaterial {
    current: watch::Receiver<Arc<Prepared>>,
}

struct Prepared {
    certificates: Certificates,
    for_peers: Arc<ServerConfig>,
    for_operators: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsMaterial").field("not_after_seconds", &self.not_after_seconds()).finish()
    }
}

impl TlsMaterial {
    /// Loads the certificates and starts looking for newer ones for as long as a clone lives. Needs a runtime.
    pub fn load(files: CertificateFiles, key: TlsKey, node_name: &str) -> Result<Self, IdentityError> {
        Self::load_every(files, key, node_name, RELOAD_INTERVAL)
    }

    /// The same with an interval of the caller's.
    pub fn load_every(
        files: CertificateFiles,
        key: TlsKey,
        node_name: &str,
        interval: Duration,
    ) -> Result<Self, IdentityError> {
        install_provider();
        let prepared = prepare(Certificates::load(&files, &key, node_name)?, &key)?;
        let (sender, current) = watch::channel(Arc::new(prepared));
        tokio::spawn(renew(files, key, node_name.to_owned(), sender, interval));
        Ok(Self { current })
    }

    /// End of validity of the current certificate, seconds since 1970.
    pub fn not_after_seconds(&self) -> i64 {
        self.current.borrow().certificates.not_after_seconds
    }

    /// Authorities that are trusted now and the one behind the current certificate, as fingerprints.
    pub(super) fn authorities(&self) -> (Vec<String>, String) {
        let certificates = &self.current.borrow().certificates;
        (certificates.trusted_authorities.clone(), certificates.certificate_authority.clone())
    }

    pub(super) fn server(&self, audience: Audience) -> Arc<ServerConfig> {
        let current = self.current.borrow();
        Arc::clone(match audience {
            Audience::Peers => &current.for_peers,
            Audience::Operators => &current.for_operators,
        })
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.borrow().client)
    }
}

/// Makes ring the process's cryptography. Harmless when repeated.
pub fn install_provider() {
    // The only error is that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn renew(
    files: CertificateFiles,
    key: TlsKey,
    node_name: String,
    sender: watch::Sender<Arc<Prepared>>,
    interval: Duration,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = sender.closed() => return,
        }
        // Contents are compared, not times: a ConfigMap mount swaps links, and the files are a few kilobytes.
        match Certificates::load(&files, &key, &node_name) {
            Ok(certificates) if certificates == sender.borrow().certificates => {}
            Ok(certificates) => match prepare(certificates, &key) {
                Ok(prepared) => {
                    tracing::info!(
                        not_after_seconds = prepared.certificates.not_after_seconds,
                        "new certificates are in use"
                    );
                    sender.send_replace(Arc::new(prepared));
                }
                Err(error) => tracing::warn!(%error, "new certificates are refused; the old ones stay in use"),
            },
            Err(error) => tracing::warn!(%error, "certificates cannot be renewed; the old ones stay in use"),
        }
    }
}

fn prepare(certificates: Certificates, key: &TlsKey) -> Result<Prepared, IdentityError> {
    Ok(Prepared {
        for_peers: server_config(&certificates.certificate_pem, key, &certificates.ca_pem)?,
        for_operators: server_config(&certificates.certificate_pem, key, &certificates.operator_ca_pem)?,
        client: client_config(&certificates.certificate_pem, key, &certificates.ca_pem)?,
        certificates,
    })
}

/// A server that demands a client certificate of one of these authorities.
fn server_config(certificate_pem: &str, key: &TlsKey, client_ca_pem: &str) -> Result<Arc<ServerConfig>, IdentityError> {
    let roots = Arc::new(authorities(client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder(roots).build().map_err(|error| failed(&error))?;
    let (chain, secret) = identity(certificate_pem, key)?;
    let mut config = ServerConfig::builder_with_protocol_versions(VERSIONS)
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, secret)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client that demands a server certificate of one of these authorities, and shows its own.
fn client_config(certificate_pem: &str, key: &TlsKey, ca_pem: &str) -> Result<Arc<ClientConfig>, IdentityError> {
    let (chain, secret) = identity(certificate_pem, key)?;
    let mut config = ClientConfig::builder_with_protocol_versions(VERSIONS)
        .with_root_certificates(authorities(ca_pem)?)
        .with_client_auth_cert(chain, secret)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn authorities(pem: &str) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(authority.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    Ok(roots)
}

type OwnIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate_pem: &str, key: &TlsKey) -> Result<OwnIdentity, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    let secret = PrivateKeyDer::from_pem_slice(key.pem().as_bytes()).map_err(|error| failed(&error))?;
    Ok((chain, secret))
}

fn failed(reason: &dyn fmt::Display) -> IdentityError {
    IdentityError::Certificate { action: "prepare TLS with the node's certificate", reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::identity::Authority;

    #[tokio::test]
    async fn new_certificates_are_taken_up_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let files = CertificateFiles {
            certificate_file: file("node.crt"),
            ca_file: file("ca.crt"),
            operator_ca_file: file("operator-ca.crt"),
        };
        let key = TlsKey::generate().unwrap();
        let request = key.certificate_request("node").unwrap();
        let issue = || {
            let authority = Authority::generate("nodes").unwrap();
            let certificate = authority.sign_request(&request, &["node".to_owned()]).unwrap();
            fs::write(&files.ca_file, authority.certificate_pem()).unwrap();
            fs::write(&files.operator_ca_file, authority.certificate_pem()).unwrap();
            fs::write(&files.certificate_file, &certificate).unwrap();
            certificate
        };
        issue();
        install_provider();
        let first = prepare(Certificates::load(&files, &key, "node").unwrap(), &key).unwrap();
        let (sender, mut current) = watch::channel(Arc::new(first));
        tokio::spawn(renew(files.clone(), key, "node".to_owned(), sender, Duration::from_millis(10)));

        let second = issue();
        current.wait_for(|prepared| prepared.certificates.certificate_pem == second).await.unwrap();
        fs::write(&files.certificate_file, "not a certificate").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(current.borrow().certificates.certificate_pem, second);
    }
}
