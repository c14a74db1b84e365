//! `validator` and `stake`: the transactions of a validator's owner, and what became of them.

use std::path::PathBuf;

use bizra_proto::ceremony::decode_hex;
use bizra_proto::parameters::Parameters;
use bizra_proto::v1;
use bizra_simplex::types::{Digest, Signature};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::account::parse_address;
use super::client::{self, NodeArgs, refused};
use super::output::{OutputArgs, OutputFormat};
use super::termination::CliError;
use super::transaction::SubmissionArgs;
use crate::identity::SignerFolder;
use crate::transaction::{KeyProof, Operation};

/// Manage the stake of an account.
#[derive(Subcommand, Clone, Debug)]
pub enum StakeCommand {
    /// Move money from the balance to the stake.
    Reserve(AmountArgs),
    /// Start the unbonding of stake, and collect what has unbonded; 0 only collects.
    Release(AmountArgs),
}

/// An amount of stake.
#[derive(Args, Clone, Debug)]
pub struct AmountArgs {
    /// Base units.
    pub amount: u64,
    /// How to submit.
    #[command(flatten)]
    pub submission: SubmissionArgs,
}

/// Manage an account's validator.
#[derive(Subcommand, Clone, Debug)]
pub enum ValidatorCommand {
    /// Register the account as owner of a validator.
    Register(RegisterArgs),
    /// Remove the validator from the registry.
    Deregister(SubmissionArgs),
    /// Make a node's consensus key sign that it belongs to an owner; on the node's volume.
    ProveKey(ProveKeyArgs),
    /// Queue the validator for the next set.
    Activate(KeyArgs),
    /// Queue the validator for leaving the set.
    Deactivate(SubmissionArgs),
    /// Queue a new consensus key.
    RotateKey(KeyArgs),
    /// Approve parameters of the ledger. They hold from the next cut-off with more than two thirds of the power.
    ApproveParameters(ParametersArgs),
    /// Show an owner's validator and stake.
    Show(ShowArgs),
    /// Show the validator set of an epoch.
    Set(SetArgs),
}

/// Arguments of `validator register`.
#[derive(Args, Clone, Debug)]
pub struct RegisterArgs {
    /// Name of its node.
    pub name: String,
    /// How to submit.
    #[command(flatten)]
    pub submission: SubmissionArgs,
}

/// Arguments of `validator prove-key`.
#[derive(Args, Clone, Debug)]
pub struct ProveKeyArgs {
    /// The node's data folder; `signer/` is inside.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Identity of its volume.
    #[arg(long, value_name = "ID")]
    pub volume_id: String,
    /// The owner, 64 hex digits.
    #[arg(long, value_name = "ADDRESS")]
    pub owner: String,
    /// The node itself, for a recent header; the proof holds for 100 blocks.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// A key proof and how to submit it.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
    /// What `validator prove-key` printed.
    #[arg(long, value_name = "FILE")]
    pub proof: PathBuf,
    /// How to submit.
    #[command(flatten)]
    pub submission: SubmissionArgs,
}

/// Arguments of `validator approve-parameters`.
#[derive(Args, Clone, Debug)]
pub struct ParametersArgs {
    /// The parameters, as JSON like in a genesis; absent ones take their defaults.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// How to submit.
    #[command(flatten)]
    pub submission: SubmissionArgs,
}

/// Arguments of `validator show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The owner, 64 hex digits.
    pub owner: String,
    /// As of this height; the last finalised one by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub height: u64,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `validator set`.
#[derive(Args, Clone, Debug)]
pub struct SetArgs {
    /// The epoch; the set computed last by default.
    #[arg(long)]
    pub epoch: Option<u64>,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `prove-key` prints and `activate` and `rotate-key` read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProofFile {
    public_key: String,
    height: u64,
    block: String,
    signature: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownValidator {
    registered: bool,
    node_name: String,
    status: String,
    consensus_key: String,
    granted_power: String,
    queued_at: u64,
    reserved_stake: String,
    /// Epoch and amount.
    unbonding: Vec<(u64, String)>,
    /// Since the last cut-off.
    turns_led: u64,
    turns_missed: u64,
    height: u64,
}

#[derive(Serialize)]
struct ShownSet {
    epoch: u64,
    cutoff: u64,
    hash: String,
    members: Vec<ShownMember>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownMember {
    owner: String,
    node_name: String,
    consensus_key: String,
    power: String,
    /// In 1/1024.
    reputation: u32,
    /// In the epoch before its cut-off.
    turns_led: u64,
    turns_missed: u64,
}

impl StakeCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Reserve(AmountArgs { amount, submission }) => {
                submit(submission, Operation::ReserveStake { amount }).await
            }
            Self::Release(AmountArgs { amount, submission }) => {
                submit(submission, Operation::ReleaseStake { amount }).await
            }
        }
    }
}

async fn submit(submission: SubmissionArgs, operation: Operation) -> Result<(), CliError> {
    submission.submit(|terms, key| terms.sign(&operation, key)).await
}

fn read_json<T: serde::de::DeserializeOwned>(path: &PathBuf) -> Result<T, CliError> {
    let fail = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot read {}: {error}", path.display()));
    let text = std::fs::read(path).map_err(|error| fail(&error))?;
    serde_json::from_slice(&text).map_err(|error| fail(&error))
}

impl ValidatorCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Register(RegisterArgs { name, submission }) => {
                submit(submission, Operation::RegisterValidator { name }).await
            }
            Self::Deregister(submission) => submit(submission, Operation::DeregisterValidator).await,
            Self::Deactivate(submission) => submit(submission, Operation::DeactivateValidator).await,
            Self::Activate(KeyArgs { proof, submission }) => {
                submit(submission, Operation::ActivateValidator(read_proof(&proof)?)).await
            }
            Self::RotateKey(KeyArgs { proof, submission }) => {
                submit(submission, Operation::RotateConsensusKey(read_proof(&proof)?)).await
            }
            Self::ApproveParameters(ParametersArgs { file, submission }) => {
                let parameters: Parameters = read_json(&file)?;
                parameters.check().map_err(CliError::failed)?;
                submit(submission, Operation::UpdateParameters(parameters)).await
            }
            Self::ProveKey(arguments) => arguments.run().await,
            Self::Show(arguments) => arguments.run().await,
            Self::Set(arguments) => arguments.run().await,
        }
    }
}

fn read_proof(path: &PathBuf) -> Result<KeyProof, CliError> {
    let ProofFile { public_key, height, block, signature } = read_json(path)?;
    let read = || {
        Some(KeyProof {
            public_key: decode_hex(&public_key)?,
            height,
            block: Digest(decode_hex(&block)?),
            signature: Signature(decode_hex(&signature)?),
        })
    };
    read().ok_or_else(|| CliError::Failed(format!("{} is not a key proof of `prove-key`", path.display())))
}

impl ProveKeyArgs {
    async fn run(self) -> Result<(), CliError> {
        let owner = parse_address(&self.owner)?;
        let chain = client::chain(&mut self.node.connect().await?).await?;
        let block = chain.finalized_hash.try_into().map(Digest);
        let block = block.map_err(|_| CliError::Failed("the node names an impossible block".to_owned()))?;
        let folder = SignerFolder::open(&self.data_dir, &self.volume_id).map_err(CliError::stopped)?;
        let key = folder.consensus_key().map_err(CliError::stopped)?;
        let proof = ProofFile {
            public_key: hex::encode(key.public_key()),
            height: chain.finalized_height,
            block: block.to_string(),
            signature: hex::encode(key.sign(&KeyProof::message(owner, chain.finalized_height, block)).to_bytes()),
        };
        OutputArgs { output: OutputFormat::Json }.print(&proof, |_| String::new())
    }
}

impl ShowArgs {
    async fn run(self) -> Result<(), CliError> {
        let owner = parse_address(&self.owner)?.0.to_vec();
        let request = v1::GetValidatorRequest { owner, height: self.height };
        let found = self.node.connect().await?.get_validator(request).await.map_err(refused)?.into_inner();
        let shown = ShownValidator {
            registered: found.registered,
            node_name: found.node_name,
            status: found.status,
            consensus_key: hex::encode(found.consensus_key),
            granted_power: found.granted_power.to_string(),
            queued_at: found.queued_at,
            reserved_stake: found.reserved_stake.to_string(),
            unbonding: found.unbonding.into_iter().map(|part| (part.epoch, part.amount.to_string())).collect(),
            turns_led: found.turns_led,
            turns_missed: found.turns_missed,
            height: found.height,
        };
        self.output.print(&shown, |shown| {
            let validator = if shown.registered {
                format!("validator {} {}  key {}", shown.node_name, shown.status, shown.consensus_key)
            } else {
                "no validator".to_owned()
            };
            let unbonding: Vec<String> =
                shown.unbonding.iter().map(|(epoch, amount)| format!("{amount} until epoch {epoch}")).collect();
            format!(
                "{validator}\nstake {}  unbonding [{}]  granted power {}  turns led {} missed {}  (height {})",
                shown.reserved_stake,
                unbonding.join(", "),
                shown.granted_power,
                shown.turns_led,
                shown.turns_missed,
                shown.height
            )
        })
    }
}

impl SetArgs {
    async fn run(self) -> Result<(), CliError> {
        let request = v1::GetValidatorSetRequest { epoch: self.epoch };
        let set = self.node.connect().await?.get_validator_set(request).await.map_err(refused)?.into_inner();
        let shown = ShownSet {
            epoch: set.epoch,
            cutoff: set.cutoff,
            hash: hex::encode(set.hash),
            members: set
                .members
                .into_iter()
                .map(|member| ShownMember {
                    owner: hex::encode(member.owner),
                    node_name: member.node_name,
                    consensus_key: hex::encode(member.consensus_key),
                    power: member.power.to_string(),
                    reputation: member.reputation,
                    turns_led: member.turns_led,
                    turns_missed: member.turns_missed,
                })
                .collect(),
        };
        self.output.print(&shown, |set| {
            let rows = set.members.iter().zip(0..).map(|(member, index)| {
                let ShownMember { owner, node_name, power, reputation, turns_led, turns_missed, .. } = member;
                format!("\n{index:>5}  {power:>12}  {reputation:>5}/1024  {turns_led:>6}  {turns_missed:>6}  {node_name:<20}  {owner}")
            });
            let head = format!(
                "epoch {}  cut-off {}  hash {}\nINDEX         POWER  REPUTATION     LED  MISSED  NODE                  OWNER",
                set.epoch, set.cutoff, set.hash
            );
            std::iter::once(head).chain(rows).collect()
        })
    }
}
