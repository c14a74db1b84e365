//! `devnet`: a whole network on this machine, in one process tree, without Kubernetes.
//!
//! Everything lives in one folder, and a second start in the same folder continues the same chain. Nodes listen on
//! loopback only. They stop with this process, however it ends: each has a pipe as standard input that closes with it.

mod children;
mod layout;

use std::fmt::Display;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bizra_proto::parameters::Parameters;
use bizra_simplex::Protocol;
use clap::Args;

use super::signals::StopSignals;
use super::termination::CliError;
use crate::transaction::OPAQUE_CHAIN;
use children::{Load, Nodes};
use layout::Layout;

/// A node that is not ready by then will not be.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Run a whole network of validators on this machine.
#[derive(Args, Clone, Debug)]
pub struct Devnet {
    /// Number of validators, each with power 1; four are the least that survive one fault.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub validators: u16,
    /// Folder for keys, configuration, databases and logs; continued if it holds a devnet already.
    #[arg(long, value_name = "FOLDER", default_value = "devnet")]
    pub dir: PathBuf,
    /// Stop after this many seconds; runs until Ctrl-C without it.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<NonZeroU32>,
    /// Submit this many signed transfers a second, for the given duration, or ten seconds of an endless devnet.
    #[arg(long, value_name = "COUNT")]
    pub rate: Option<NonZeroU32>,
    /// Accounts with money in a new devnet's genesis: the first ones of `load`.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub accounts: u32,
    /// Blocks of an epoch in a new devnet: a multiple of 16 between 32 and 1048576.
    #[arg(long, value_name = "COUNT", default_value_t = Parameters::default().epoch_blocks)]
    pub epoch_blocks: u64,
    /// Keep this many of the last blocks, never fewer than two epochs, and forget what is older; without it nothing is
    /// forgotten.
    #[arg(long, value_name = "COUNT")]
    pub keep_blocks: Option<u64>,
    /// Version of the protocol that a new devnet begins with; its nodes activate the latest one at the end of an epoch.
    #[arg(long, value_name = "VERSION", default_value_t = Protocol::LATEST.version().0, value_parser = clap::value_parser!(u32).range(1..=i64::from(Protocol::LATEST.version().0)))]
    pub protocol_version: u32,
    /// First port; each node takes five of the ten from here on.
    #[arg(long, value_name = "PORT", default_value_t = 27100, value_parser = clap::value_parser!(u16).range(1024..=65000))]
    pub base_port: u16,
    /// Let transactions count without a valid signature, to measure what signatures cost. A chain of its own name.
    #[arg(long)]
    pub opaque: bool,
    /// Stop when standard input is closed, as it is when the parent process is gone.
    #[arg(long)]
    pub stop_on_stdin_close: bool,
}

impl Devnet {
    fn chain_id(&self) -> &'static str {
        if self.opaque { OPAQUE_CHAIN } else { layout::CHAIN_ID }
    }

    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let mut signals = StopSignals::listen().map_err(CliError::failed)?;
        // Asked only when they are needed: a devnet that is continued has its accounts.
        let accounts =
            if Layout::is_new(&self.dir) { children::load_accounts(self.accounts).await? } else { Vec::new() };
        let layout = Layout::prepare(&self, accounts)?;
        let mut nodes = Nodes::start(&layout)?;
        let result = tokio::select! {
            result = self.supervise(&layout, &mut nodes) => result,
            () = signals.wait_for(self.stop_on_stdin_close) => {
                say("stopping");
                Ok(())
            }
        };
        // Only nodes that are still there answer; what they say is the summary.
        for summary in nodes.summaries().await {
            say(summary);
        }
        let killed = nodes.stop().await;
        result?;
        if killed.is_empty() {
            say(format_args!("stopped; `--dir {}` continues this chain", self.dir.display()));
            return Ok(());
        }
        Err(CliError::Failed(format!("{} did not stop in time and had to be killed", killed.join(", "))))
    }

    async fn supervise(&self, layout: &Layout, nodes: &mut Nodes) -> Result<(), CliError> {
        let ready = tokio::time::timeout(READY_TIMEOUT, nodes.wait_until_ready()).await;
        ready.unwrap_or_else(|_| {
            let logs = layout.dir.display();
            Err(CliError::Failed(format!("{} not ready in time; see the logs in {logs}", nodes.unready())))
        })?;
        say(format_args!("{} validators are ready, chain {}", self.validators, layout.genesis_hash));
        for node in &layout.nodes {
            let listen = &node.configuration.listen;
            say(format_args!(
                "  {}  REST http://{}  gRPC {}  metrics http://{}/metrics",
                node.configuration.node_name, listen.http, listen.grpc, listen.monitoring
            ));
        }
        say(format_args!("  logs and databases in {}", layout.dir.display()));

        let load = self.rate.map(|rate| Load::start(layout, rate, self.duration)).transpose()?;
        tokio::select! {
            error = nodes.watch() => Err(error),
            result = self.wait(load) => result,
        }
    }

    /// Until the time is over and the load has ended; a devnet without an end runs on after its load.
    async fn wait(&self, load: Option<Load>) -> Result<(), CliError> {
        let time = async {
            match self.duration {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.get().into())).await,
                None => std::future::pending().await,
            }
            Ok(())
        };
        let load = async {
            match load {
                Some(load) => load.finish().await,
                None => Ok(()),
            }
        };
        tokio::try_join!(time, load).map(|((), ())| ())
    }
}

/// Prints a line; if nobody listens any more, the network runs on all the same.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
