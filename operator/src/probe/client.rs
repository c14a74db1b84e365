//! One question to one node's admin port.

use bizra_proto::v1::{GetStatusRequest, NodeStatus, admin_client::AdminClient};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{Connection, ProbeTarget};
use crate::certificates::{CertificateError, Trust};

/// Why a node could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// No client certificate could be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
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

/// A connection to a node that shows the operator's certificate and accepts only the node's own.
pub(super) fn connect(node: &str, target: &ProbeTarget, trust: &Trust, now: u64) -> Result<Connection, ProbeError> {
    let client = trust.client.client(now)?;
    let tls = ClientTlsConfig::new()
        .ca_certificates(trust.roots.iter().map(Certificate::from_pem))
        .identity(Identity::from_pem(&client.certificate, &client.key))
        .domain_name(node);
    let address = std::net::SocketAddr::new(target.address, bizra_proto::port::ADMIN);
    let channel: Channel = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect_lazy();
    Ok(Connection { channel, renew_at: client.renew_at })
}

/// Asks for the status.
pub(super) async fn ask(channel: Channel) -> Result<NodeStatus, ProbeError> {
    let answer = AdminClient::new(channel)
        .get_status(GetStatusRequest {})
        .await
        .map_err(|status| ProbeError::Refused { code: status.code(), message: status.message().to_owned() })?;
    answer.into_inner().status.ok_or(ProbeError::Empty)
}
