//! `load`: signed transfers at a fixed rate, and how long each takes to become final.
//!
//! Open loop: the schedule does not wait for the network, and a transaction's time runs from the moment it was
//! scheduled, so that a stalled network shows in the figures instead of slowing the load down. Everything is signed
//! before the clock starts.

mod accounts;
mod funding;
mod plan;
mod report;
mod stream;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client;
use super::output::{OutputArgs, progress};
use super::termination::CliError;
use accounts::AccountsArgs;
pub use accounts::genesis_accounts;
use plan::Plan;
use report::Report;
pub use report::{Latency, Summary};

/// Submit signed transfers at a fixed rate and measure the time to finality.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LoadCommand {
    /// Something else than running the load.
    #[command(subcommand)]
    pub action: Option<LoadAction>,
    /// How to run it.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else `load` can do.
#[derive(Subcommand, Clone, Debug)]
pub enum LoadAction {
    /// Print the accounts of a load as JSON for the `accounts` of a genesis.
    Accounts(AccountsArgs),
}

/// Arguments of a run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// gRPC address of a validator. May be repeated: accounts are spread over all.
    #[arg(long = "target", value_name = "URL", required = true)]
    pub targets: Vec<String>,
    /// Transactions a second.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub rate: NonZeroU32,
    /// How long, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", conflicts_with = "count")]
    pub duration: NonZeroU32,
    /// Exactly this many transactions instead.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<NonZeroU32>,
    /// How many accounts send.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub accounts: NonZeroU32,
    /// The accounts' keys are derived from this; not a secret to rely on.
    #[arg(long, value_name = "TEXT", default_value = accounts::DEFAULT_SEED)]
    pub keys_seed: String,
    /// Key file of an account that first funds those that cannot pay.
    #[arg(long, value_name = "FILE")]
    pub sponsor_key: Option<PathBuf>,
    /// How long to wait for receipts after the last submit, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain: u64,
    /// Fail unless every transaction was applied.
    #[arg(long)]
    pub require_all: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl LoadCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self.action {
            Some(LoadAction::Accounts(arguments)) => arguments.print(),
            None => self.run.run().await,
        }
    }
}

impl RunArgs {
    /// How many transactions the run has.
    fn transactions(&self) -> u64 {
        self.count
            .map_or_else(|| u64::from(self.rate.get()) * u64::from(self.duration.get()), |count| u64::from(count.get()))
    }

    async fn run(self) -> Result<(), CliError> {
        let summary = self.measure().await?;
        self.output.print(&summary, Summary::text)?;
        if self.require_all && summary.applied < summary.offered {
            let message = format!("{} of {} transactions were applied", summary.applied, summary.offered);
            return Err(CliError::Failed(message));
        }
        Ok(())
    }

    /// Runs the load and returns its figures.
    pub async fn measure(&self) -> Result<Summary, CliError> {
        let mut clients = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            clients.push(client::connect(target).await?);
        }
        let Some(first) = clients.first_mut() else {
            return Err(CliError::Failed("give at least one --target".to_owned()));
        };
        let chain = client::chain(first).await?;
        let keys = accounts::derive(&self.keys_seed, self.accounts.get());
        let needed = self.transactions().div_ceil(u64::from(self.accounts.get())) * plan::COST;
        let nonces = funding::prepare(first, &chain, &keys, needed, self.sponsor_key.as_deref()).await?;

        progress(format_args!("signing {} transactions", self.transactions()));
        let streams = NonZeroUsize::new(clients.len()).unwrap_or(NonZeroUsize::MIN);
        let plan = Plan::sign(&chain, &keys, &nonces, self.transactions(), self.rate.get(), streams)?;

        progress(format_args!("submitting {} a second to {} nodes", self.rate, clients.len()));
        let drain = Duration::from_secs(self.drain);
        let start = tokio::time::Instant::now();
        let runs = clients
            .into_iter()
            .zip(plan.streams)
            .map(|(client, schedule)| tokio::spawn(stream::run(client, schedule, start, drain)));
        let mut report = Report::new(self);
        for run in runs.collect::<Vec<_>>() {
            report.add(run.await.map_err(CliError::failed)?, start);
        }
        Ok(report.summary())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::gateway::testing::OneNode;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadCommand,
    }

    fn parse(line: &str) -> LoadCommand {
        Line::try_parse_from(std::iter::once("load").chain(line.split_whitespace())).unwrap().load
    }

    #[test]
    fn the_command_line_is_sound() {
        assert!(matches!(parse("accounts --count 3").action, Some(LoadAction::Accounts(_))));
        assert_eq!(parse("--target http://a:1 --target http://b:1 --rate 5").run.targets, ["http://a:1", "http://b:1"]);
        assert!(Line::try_parse_from(["load", "--rate", "5"]).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_transaction_of_a_load_is_applied_and_timed() {
        let node = OneNode::start(genesis_accounts("bizra", 50, 1_000)).await;
        let line = format!("--target {0} --target {0} --rate 2000 --count 1000 --accounts 50 --require-all", node.grpc);
        let summary = parse(&line).run.measure().await.unwrap();
        assert_eq!((summary.applied, summary.unanswered), (1_000, 0));
        // A batch is collected for 10 ms before it leaves.
        assert!(summary.latency_milliseconds.max > 10.0, "{:?}", summary.latency_milliseconds);
        let chain = client::chain(&mut client::connect(&node.grpc).await.unwrap()).await.unwrap();
        assert_eq!(chain.transactions, 1_000);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sponsor_funds_accounts_that_cannot_pay_and_without_one_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("sponsor.key");
        let sponsor = crate::cli::owner_key::create(&key_file).unwrap();
        let address = crate::cli::owner_key::address(&sponsor).to_string();
        let balance = "1000000".to_owned();
        let node = OneNode::start(vec![bizra_proto::ceremony::GenesisAccount { address, balance }]).await;
        let line = format!("--target {} --rate 1000 --count 100 --accounts 600 --require-all", node.grpc);
        let error = parse(&line).run().await.unwrap_err().to_string();
        assert!(error.starts_with("600 of 600 accounts hold less than 2"), "{error}");
        parse(&format!("{line} --sponsor-key {}", key_file.display())).run().await.unwrap();
    }
}
