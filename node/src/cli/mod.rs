//! The commands of the binary, one a file.

pub mod account;
pub mod blocks;
mod client;
pub mod completions;
pub mod devnet;
pub mod events;
pub mod genesis;
pub mod init;
pub mod keygen;
pub mod light;
pub mod load;
pub mod output;
mod owner_key;
pub mod proof;
pub mod recover;
pub mod replay;
pub mod reset;
pub mod run;
pub mod signals;
pub mod termination;
pub mod transaction;
pub mod validator;
pub mod verify;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::monitoring::LogFormat;
use termination::CliError;

/// A node of a BIZRA network, and the tools to work with one.
#[derive(Parser, Clone, Debug)]
#[command(name = "bizra-node", version, propagate_version = true)]
pub struct CommandLine {
    /// Form of log lines on standard error. The filter is in the environment variable `BIZRA_LOG`.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run a node until it is told to stop.
    Run(run::RunCommand),
    /// Run a whole network on this machine, without Kubernetes.
    Devnet(devnet::Devnet),
    /// Make the key of an account.
    Keygen(keygen::KeygenCommand),
    /// Compose a genesis from key reports.
    Genesis(genesis::GenesisCommand),
    /// Send a transaction, or look at one.
    Tx(transaction::TransactionCommand),
    /// Look at an account.
    Account(account::AccountCommand),
    /// Look at finalised blocks.
    Blocks(blocks::BlocksCommand),
    /// Print the events of finalised blocks, as they were and as they come.
    Events(events::EventsCommand),
    /// Manage the stake of an account.
    #[command(subcommand)]
    Stake(validator::StakeCommand),
    /// Manage an account's validator.
    #[command(subcommand)]
    Validator(Box<validator::ValidatorCommand>),
    /// Verify the end of the chain, and a transaction, trusting the genesis and no node.
    Light(light::LightCommand),
    /// Fetch or check the proof that a transaction was executed.
    Proof(proof::ProofCommand),
    /// Execute a stopped node's blocks again and compare what they lead to.
    Replay(replay::ReplayCommand),
    /// Check everything in a stopped node's database.
    Verify(verify::VerifyCommand),
    /// Restart a chain that has lost a third of its power for good.
    #[command(subcommand)]
    Recover(Box<recover::RecoverCommand>),
    /// Set a stopped node's database aside, to make it anew from peers.
    ResetDatabase(reset::ResetDatabaseCommand),
    /// Submit signed transfers at a fixed rate and measure the time to finality.
    Load(Box<load::LoadCommand>),
    /// Make or find the node's keys and report them; the first init container of a Pod.
    InitKey(init::InitKey),
    /// Wait for genesis and certificates and pin the genesis; the second init container of a Pod.
    InitGenesis(init::InitGenesis),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsCommand),
}

impl Command {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Run(command) => command.run().await,
            Self::Devnet(command) => command.run().await,
            Self::Keygen(command) => command.run().await,
            Self::Genesis(command) => command.run(),
            Self::Tx(command) => command.run().await,
            Self::Account(command) => command.run().await,
            Self::Blocks(command) => command.run().await,
            Self::Events(command) => command.run().await,
            Self::Stake(command) => command.run().await,
            Self::Validator(command) => command.run().await,
            Self::Light(command) => command.run().await,
            Self::Proof(command) => command.run().await,
            Self::Replay(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Recover(command) => command.run(),
            Self::ResetDatabase(command) => command.run(),
            Self::Load(command) => command.run().await,
            Self::InitKey(command) => command.run(),
            Self::InitGenesis(command) => command.run().await,
            Self::Completions(command) => command.run(CommandLine::command()).await,
        }
    }
}
