//! A node that is asked, and what is held against it.

use std::fmt;
use std::time::Duration;

use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use tonic::transport::{Channel, Endpoint};

use super::client::{LightClientError, Stop};
use crate::blockchain::InclusionProof;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A node that takes longer is passed by.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a node was passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It could not be reached, or did not answer in time.
    Unreachable(String),
    /// It does not have what was asked for.
    Lacks(String),
    /// It gave something that does not verify.
    Lied(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(formatter, "could not be asked: {why}"),
            Self::Lacks(what) => write!(formatter, "does not help: {what}"),
            Self::Lied(what) => write!(formatter, "LIED: {what}"),
        }
    }
}

impl From<tonic::Status> for Fault {
    fn from(status: tonic::Status) -> Self {
        let message = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            tonic::Code::NotFound | tonic::Code::OutOfRange | tonic::Code::Unimplemented => Self::Lacks(message),
            _ => Self::Unreachable(message),
        }
    }
}

/// One node.
#[derive(Clone, Debug)]
pub struct Source {
    url: String,
    client: LedgerClient<Channel>,
    pub(super) fault: Option<Fault>,
}

impl Source {
    /// A node by the URL of its gRPC port; connects when it is asked. An error says why that is no such URL.
    pub fn new(url: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| format!("{url:?} is not a URL like http://host:7200: {error}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(ANSWER_TIME_MAX).tcp_nodelay(true);
        Ok(Self { url: url.to_owned(), client: LedgerClient::new(endpoint.connect_lazy()), fault: None })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was held against it last.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// True unless it lied.
    pub(super) fn may_be_asked(&self) -> bool {
        !matches!(self.fault, Some(Fault::Lied(_)))
    }

    /// Notes what is held against the node; an error is one no other node can help with.
    pub(super) fn note<T>(&mut self, result: Result<T, Stop>) -> Result<Option<T>, LightClientError> {
        self.fault = None;
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Stop::Refused(error)) => Err(*error),
            Err(Stop::Fault(fault)) => {
                tracing::warn!(node = %self.url, "{fault}");
                self.fault = Some(fault);
                Ok(None)
            }
        }
    }

    pub(super) async fn genesis_hash(&mut self) -> Result<String, Fault> {
        Ok(self.client.get_chain(v1::GetChainRequest {}).await?.into_inner().genesis_hash)
    }

    pub(super) async fn links(&mut self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, Fault> {
        let request = v1::GetEpochLinksRequest { from, limit };
        Ok(self.client.get_epoch_links(request).await?.into_inner().links)
    }

    pub(super) async fn headers(&mut self, wanted: Option<v1::get_headers_request::Wanted>) -> Result<Vec<u8>, Fault> {
        Ok(self.client.get_headers(v1::GetHeadersRequest { wanted }).await?.into_inner().headers)
    }

    pub(super) async fn proof(&mut self, id: [u8; 32]) -> Result<v1::GetProofResponse, Fault> {
        let request = v1::GetProofRequest { transaction_id: id.to_vec() };
        Ok(self.client.get_proof(request).await?.into_inner())
    }
}

/// A node's answer as a proof; nothing in it is believed yet. An error means that a number is out of its range.
pub fn inclusion_proof(answer: v1::GetProofResponse) -> Result<InclusionProof, std::num::TryFromIntError> {
    let hex = |path: Vec<Vec<u8>>| path.into_iter().map(hex::encode).collect();
    Ok(InclusionProof {
        transaction_id: hex::encode(answer.transaction_id),
        height: answer.height,
        index: answer.index,
        outcome: u8::try_from(answer.outcome)?,
        transactions: answer.transactions,
        transaction_path: hex(answer.transaction_path),
        receipt_path: hex(answer.receipt_path),
        checkpoint: answer.checkpoint,
        block_path: hex(answer.block_path),
    })
}
