//! `proof`: shows that a transaction was executed, to somebody who trusts a header and nobody else.

use std::path::PathBuf;

use bizra_proto::ceremony::decode_hex;
use bizra_proto::v1;
use bizra_simplex::types::Digest;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::client::{NodeArgs, refused};
use super::light::{LightArgs, ShownTransaction};
use super::output::{OutputArgs, OutputFormat};
use super::termination::CliError;
use super::transaction::transaction_id;
use crate::blockchain::{Failure, InclusionProof};
use crate::light::inclusion_proof;

/// Fetch or check the proof that a transaction was executed.
#[derive(Args, Clone, Debug)]
pub struct ProofCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: ProofAction,
}

/// What to do with proofs.
#[derive(Subcommand, Clone, Debug)]
pub enum ProofAction {
    /// Print the proof of a finalised transaction, as JSON.
    Get(GetArgs),
    /// Check a proof: against a header that is verified from the genesis, or, without a node, against a receipts root.
    Check(CheckArgs),
}

/// Arguments of `proof get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// The transaction, 64 hex digits.
    pub id: String,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `proof check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The proof, as `proof get` prints it.
    pub file: PathBuf,
    /// Receipts root of the proof's checkpoint, 64 hex digits, from a header you trust.
    #[arg(long, value_name = "DIGEST", conflicts_with = "genesis", required_unless_present = "genesis")]
    pub receipts: Option<String>,
    /// The genesis file of the chain: the header is fetched and verified from there.
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Whom to ask for the header.
    #[command(flatten)]
    pub light: LightArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a proof says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checked {
    id: String,
    height: u64,
    index: u32,
    status: &'static str,
    failure: Option<&'static str>,
    checkpoint: u64,
}

impl Checked {
    /// Of a proof that is verified, and the failure that the verification gave.
    pub(super) fn new(proof: InclusionProof, failure: Option<Failure>) -> Self {
        Self {
            id: proof.transaction_id,
            height: proof.height,
            index: proof.index,
            status: failure.map_or("Applied", |_| "Failed"),
            failure: failure.map(Failure::reason),
            checkpoint: proof.checkpoint,
        }
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, height, index, status, failure, checkpoint } = self;
        let why = failure.map(|failure| format!(" with {failure}")).unwrap_or_default();
        write!(formatter, "{id} {status}{why} at height {height}, position {index}, proven by checkpoint {checkpoint}")
    }
}

impl ProofCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self.action {
            ProofAction::Get(arguments) => arguments.run().await,
            ProofAction::Check(arguments) => arguments.run().await,
        }
    }
}

impl GetArgs {
    async fn run(self) -> Result<(), CliError> {
        let request = v1::GetProofRequest { transaction_id: transaction_id(&self.id)?.0.to_vec() };
        let proof = self.node.connect().await?.get_proof(request).await.map_err(refused)?.into_inner();
        let proof = inclusion_proof(proof).map_err(CliError::failed)?;
        OutputArgs { output: OutputFormat::Json }.print(&proof, |_| String::new())
    }
}

impl CheckArgs {
    async fn run(self) -> Result<(), CliError> {
        let read = |error: &dyn std::fmt::Display| {
            CliError::Failed(format!("cannot read the proof {}: {error}", self.file.display()))
        };
        let text = std::fs::read(&self.file).map_err(|error| read(&error))?;
        let proof: InclusionProof = serde_json::from_slice(&text).map_err(|error| read(&error))?;
        let Some(receipts) = self.receipts else {
            let genesis = self.genesis.ok_or_else(|| CliError::Failed("give --genesis or --receipts".to_owned()))?;
            let (mut client, _) = self.light.sync(&genesis).await?;
            let proven = ShownTransaction::from(client.check(proof).await.map_err(CliError::failed)?);
            return self.output.print(&proven, ToString::to_string);
        };
        let receipts = decode_hex(&receipts)
            .map(Digest)
            .ok_or_else(|| CliError::Failed("--receipts has 64 lower-case hex digits".to_owned()))?;
        let failure = proof.verify(receipts).map_err(CliError::failed)?;
        self.output.print(&Checked::new(proof, failure), ToString::to_string)
    }
}
