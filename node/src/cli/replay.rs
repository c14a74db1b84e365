//! `replay`: rebuilds the state from the stored log, and compares.

use std::time::Instant;

use clap::Args;

use super::output::OutputArgs;
use super::termination::CliError;
use super::verify::DatabaseArgs;
use crate::replay::{Depth, ReplayReport};

/// Execute a stopped node's blocks again into a temporary database; compare state, receipts and events at every step.
#[derive(Args, Clone, Debug)]
pub struct ReplayCommand {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl ReplayCommand {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        let start = Instant::now();
        let report = self.database.replay(&self.database.directory()?, Depth::Execution)?;
        let seconds = start.elapsed().as_secs_f64();
        let ReplayReport { base, height, blocks, transactions, events, checkpoints, entries, .. } = report;
        let document = serde_json::json!({
            "baseHeight": base,
            "height": height,
            "blocks": blocks,
            "transactions": transactions,
            "events": events,
            "checkpoints": checkpoints,
            "ledgerEntries": entries,
            "seconds": seconds,
        });
        self.output.print(&document, |_| {
            format!(
                "replayed {blocks} blocks from height {base} to {height} in {seconds:.1} s: {transactions} transactions, {events} \
                 events; {checkpoints} checkpoints and {entries} entries of the ledger are alike"
            )
        })
    }
}
