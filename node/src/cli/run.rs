//! Runs a node.

use std::path::PathBuf;

use clap::Args;

use super::signals::StopSignals;
use super::termination::CliError;
use crate::configuration::Configuration;
use crate::node::Node;

/// Run a node until it is told to stop.
#[derive(Args, Clone, Debug)]
pub struct RunCommand {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Stop when standard input is closed, as it is when the parent process is gone.
    #[arg(long)]
    pub stop_on_stdin_close: bool,
}

impl RunCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let mut signals = StopSignals::listen().map_err(CliError::failed)?;
        let configuration = Configuration::load(&self.config).map_err(CliError::stopped)?;
        let stop = async move { signals.wait_for(self.stop_on_stdin_close).await };
        Node::run(configuration, &self.config, stop).await.map_err(CliError::Stopped)
    }
}
