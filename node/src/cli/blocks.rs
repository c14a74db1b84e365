//! `blocks`: the finalised chain, block by block.

use std::fmt::Write as _;

use bizra_proto::v1;
use clap::Args;
use serde::Serialize;

use super::client::{self, NodeArgs};
use super::output::OutputArgs;
use super::termination::CliError;

/// List finalised blocks.
#[derive(Args, Clone, Debug)]
pub struct BlocksCommand {
    /// First height; by default so that the list ends at the last finalised block.
    #[arg(long, value_name = "HEIGHT")]
    pub from: Option<u64>,
    /// How many.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub limit: u64,
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
    height: u64,
    hash: String,
    parent_hash: String,
    time_milliseconds: u64,
    batches: Vec<String>,
    transactions: u32,
    view: u64,
    epoch: u64,
    /// What the header vouches for; `proof check --receipts` takes the receipts root.
    checkpoint: ShownCheckpoint,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_validators: String,
}

#[derive(Serialize)]
struct ShownCheckpoint {
    height: u64,
    state: String,
    receipts: String,
}

impl From<v1::GetBlockResponse> for Shown {
    fn from(block: v1::GetBlockResponse) -> Self {
        let checkpoint = block.checkpoint.unwrap_or_default();
        Self {
            height: block.height,
            hash: hex::encode(block.hash),
            parent_hash: hex::encode(block.parent_hash),
            time_milliseconds: block.time_milliseconds,
            batches: block.batches.into_iter().map(hex::encode).collect(),
            transactions: block.transactions,
            view: block.view,
            epoch: block.epoch,
            checkpoint: ShownCheckpoint {
                height: checkpoint.height,
                state: hex::encode(checkpoint.state),
                receipts: hex::encode(checkpoint.receipts),
            },
            next_validators: hex::encode(block.next_validators),
        }
    }
}

impl BlocksCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let mut client = self.node.connect().await?;
        let last = client::chain(&mut client).await?.finalized_height;
        let first = self.from.unwrap_or_else(|| last.saturating_sub(self.limit - 1));
        let mut blocks = Vec::new();
        for height in first..first.saturating_add(self.limit).min(last.saturating_add(1)) {
            let block = client.get_block(v1::GetBlockRequest { height }).await.map_err(client::refused)?;
            blocks.push(Shown::from(block.into_inner()));
        }
        self.output.print(&blocks, |blocks| table(blocks))
    }
}

fn table(blocks: &[Shown]) -> String {
    let mut text = format!("{:>8}  {:>8}  {:>7}  {:>12}  HASH", "HEIGHT", "VIEW", "BATCHES", "TRANSACTIONS");
    for block in blocks {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:>8}  {:>8}  {:>7}  {:>12}  {}",
            block.height,
            block.view,
            block.batches.len(),
            block.transactions,
            block.hash
        );
    }
    text
}
