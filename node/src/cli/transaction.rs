//! `tx send` and `tx get`: transfers and their receipts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bizra_proto::ceremony::decode_hex;
use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use bytes::Bytes;
use clap::{Args, Subcommand};
use ed25519_zebra::SigningKey;
use serde::Serialize;
use tonic::transport::Channel;

use super::account::parse_address;
use super::client::{self, NodeArgs, refused};
use super::output::OutputArgs;
use super::owner_key;
use super::termination::CliError;
use crate::transaction::{ChainId, DecodeError, Terms, TransactionId, Transfer};

/// Longest wait the node grants in one call.
const WAIT_MILLISECONDS: u32 = 20_000;

/// Send a transaction, or look at one.
#[derive(Args, Clone, Debug)]
pub struct TransactionCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: TransactionAction,
}

/// What to do with transactions.
#[derive(Subcommand, Clone, Debug)]
pub enum TransactionAction {
    /// Sign a transfer and submit it.
    Send(SendArgs),
    /// Show a finalised transaction.
    Get(GetArgs),
}

/// Arguments of `tx send`.
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// Recipient, 64 hex digits.
    #[arg(long, value_name = "ADDRESS")]
    pub to: String,
    /// How much, base units.
    #[arg(long)]
    pub amount: u64,
    /// Text that goes with it, at most 512 bytes.
    #[arg(long, default_value = "")]
    pub memo: String,
    /// How to submit.
    #[command(flatten)]
    pub submission: SubmissionArgs,
}

/// How a transaction is signed and submitted.
#[derive(Args, Clone, Debug)]
pub struct SubmissionArgs {
    /// Fee, base units.
    #[arg(long, default_value_t = 0)]
    pub fee: u64,
    /// Key file of the sender.
    #[arg(long, value_name = "FILE", default_value = "owner.key")]
    pub key: PathBuf,
    /// The sender's nonce; read from the chain by default.
    #[arg(long)]
    pub nonce: Option<u64>,
    /// How many blocks it may wait for its turn.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub expiry_blocks: u64,
    /// Wait until it is finalised, up to this many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    pub wait: Option<u64>,
    /// Where to submit.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `tx get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// The transaction, 64 hex digits.
    pub id: String,
    /// Wait until it is finalised, up to this many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    pub wait: Option<u64>,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: String,
    /// `Admitted`, `Applied` or `Failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
}

impl Shown {
    fn text(&self) -> String {
        match (self.height, &self.failure) {
            (None, _) => format!("{} {}", self.id, self.status),
            (Some(height), None) => format!("{} {} at height {height}", self.id, self.status),
            (Some(height), Some(failure)) => format!("{} {} at height {height}: {failure}", self.id, self.status),
        }
    }
}

impl From<v1::GetTransactionResponse> for Shown {
    fn from(response: v1::GetTransactionResponse) -> Self {
        let receipt = response.receipt.unwrap_or_default();
        Self {
            id: hex::encode(receipt.transaction_id),
            status: if receipt.failure.is_empty() { "Applied" } else { "Failed" },
            height: Some(receipt.height),
            index: Some(receipt.index),
            failure: Some(receipt.failure).filter(|failure| !failure.is_empty()),
            transaction: Some(hex::encode(response.transaction)).filter(|transaction| !transaction.is_empty()),
        }
    }
}

impl TransactionCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self.action {
            TransactionAction::Send(arguments) => arguments.run().await,
            TransactionAction::Get(arguments) => arguments.run().await,
        }
    }
}

impl SendArgs {
    async fn run(self) -> Result<(), CliError> {
        let recipient = parse_address(&self.to)?;
        let Self { amount, memo, .. } = self;
        let sign = |Terms { chain, nonce, fee, expiry_height }: Terms, key: &SigningKey| {
            Transfer { chain, nonce, fee, expiry_height, recipient, amount, memo: memo.as_bytes() }.sign(key)
        };
        self.submission.submit(sign).await
    }
}

impl SubmissionArgs {
    /// Signs and submits a transaction, and prints what became of it.
    pub(super) async fn submit(
        self,
        sign: impl FnOnce(Terms, &SigningKey) -> Result<Bytes, DecodeError>,
    ) -> Result<(), CliError> {
        let key = owner_key::read(&self.key)?;
        let mut client = self.node.connect().await?;
        let chain = client::chain(&mut client).await?;
        let nonce = match self.nonce {
            Some(nonce) => nonce,
            None => client::account(&mut client, owner_key::address(&key).0).await?.nonce,
        };
        let chain_id = ChainId::new(&chain.chain_id)
            .ok_or_else(|| CliError::Failed(format!("the node names an impossible chain {:?}", chain.chain_id)))?;
        let expiry_height = chain.finalized_height.saturating_add(self.expiry_blocks);
        let terms = Terms { chain: chain_id, nonce, fee: self.fee, expiry_height };
        let encoded = sign(terms, &key).map_err(CliError::failed)?;
        let id = TransactionId::of(&encoded);
        let request = v1::SubmitRequest { transactions: vec![encoded] };
        let admissions = client.submit(request).await.map_err(refused)?.into_inner().admissions;
        let admission = admissions.into_iter().next().unwrap_or_default();
        if !admission.rejection.is_empty() {
            return Err(CliError::Failed(format!("{}: {}", admission.rejection, admission.message)));
        }
        let shown = match self.wait {
            Some(seconds) => fetch(&mut client, id, Duration::from_secs(seconds)).await?,
            None => Shown {
                id: id.to_string(),
                status: "Admitted",
                height: None,
                index: None,
                failure: None,
                transaction: None,
            },
        };
        self.output.print(&shown, Shown::text)?;
        shown.failure.map_or(Ok(()), |failure| Err(CliError::Failed(format!("the transaction failed: {failure}"))))
    }
}

impl GetArgs {
    async fn run(self) -> Result<(), CliError> {
        let id = transaction_id(&self.id)?;
        let mut client = self.node.connect().await?;
        let shown = fetch(&mut client, id, Duration::from_secs(self.wait.unwrap_or(0))).await?;
        self.output.print(&shown, Shown::text)
    }
}

/// Reads a transaction id.
pub(super) fn transaction_id(text: &str) -> Result<TransactionId, CliError> {
    let id = decode_hex(text).map(TransactionId);
    id.ok_or_else(|| CliError::Failed("a transaction id has 64 lower-case hex digits".to_owned()))
}

/// Asks until the transaction is finalised or the patience is over.
async fn fetch(client: &mut LedgerClient<Channel>, id: TransactionId, patience: Duration) -> Result<Shown, CliError> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let wait_milliseconds = u32::try_from(left).map_or(WAIT_MILLISECONDS, |left| left.min(WAIT_MILLISECONDS));
        let request = v1::GetTransactionRequest { transaction_id: id.0.to_vec(), wait_milliseconds };
        match client.get_transaction(request).await {
            Ok(response) => return Ok(response.into_inner().into()),
            Err(status) if status.code() == tonic::Code::NotFound && Instant::now() < deadline => {}
            Err(status) => return Err(refused(status)),
        }
    }
}
