//! The connection of commands to a node's gRPC port.

use std::time::Duration;

use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use clap::Args;
use tonic::transport::{Channel, Endpoint};

use super::termination::CliError;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The `--node` option.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// gRPC address of a node.
    #[arg(long, env = "BIZRA_NODE", value_name = "URL", default_value = "http://127.0.0.1:7200")]
    pub node: String,
}

impl NodeArgs {
    /// Connects to the node.
    pub async fn connect(&self) -> Result<LedgerClient<Channel>, CliError> {
        connect(&self.node).await
    }

    /// Opens the channel to the node, for its other services.
    pub(super) async fn channel(&self) -> Result<Channel, CliError> {
        channel(&self.node).await
    }
}

/// Connects to the node at `url`.
pub(super) async fn connect(url: &str) -> Result<LedgerClient<Channel>, CliError> {
    channel(url).await.map(LedgerClient::new)
}

async fn channel(url: &str) -> Result<Channel, CliError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| CliError::Failed(format!("{url:?} is not a URL like http://host:7200: {error}")))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).tcp_nodelay(true);
    endpoint
        .connect()
        .await
        .map_err(|error| CliError::Failed(format!("cannot reach a node at {url}: {}", root_cause(&error))))
}

/// The chain a node is on.
pub(super) async fn chain(client: &mut LedgerClient<Channel>) -> Result<v1::GetChainResponse, CliError> {
    client.get_chain(v1::GetChainRequest {}).await.map(tonic::Response::into_inner).map_err(refused)
}

/// An account as of the node's last finalised block.
pub(super) async fn account(
    client: &mut LedgerClient<Channel>,
    address: [u8; 32],
) -> Result<v1::GetAccountResponse, CliError> {
    account_at(client, address, 0).await
}

/// An account as of a height; 0 stands for the node's last finalised block.
pub(super) async fn account_at(
    client: &mut LedgerClient<Channel>,
    address: [u8; 32],
    height: u64,
) -> Result<v1::GetAccountResponse, CliError> {
    let request = v1::GetAccountRequest { address: address.to_vec(), height };
    client.get_account(request).await.map(tonic::Response::into_inner).map_err(refused)
}

/// The node answered with an error.
// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn refused(status: tonic::Status) -> CliError {
    CliError::Failed(format!("the node answered {:?}: {}", status.code(), status.message()))
}

/// The innermost error says what happened; the outer ones only that a transport failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
