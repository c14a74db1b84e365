//! Checks a stopped node's database from the genesis up.

use std::path::PathBuf;

use bizra_proto::exit::Termination;
use bizra_simplex::Block;
use clap::Args;

use super::output::OutputArgs;
use super::termination::CliError;
use crate::block::{BlockStore, verify_chain};
use crate::blockchain::verify_conservation;
use crate::configuration::LoadedGenesis;
use crate::storage::Database;

/// Check a stopped node's database: hashes, certificates, signatures, and conservation of money.
#[derive(Args, Clone, Debug)]
pub struct VerifyCommand {
    /// The node's data folder; `database/` is inside.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyCommand {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let directory = self.data_dir.join("database");
        if !directory.join("CURRENT").exists() {
            return Err(CliError::failed(format!("{} holds no database", directory.display())));
        }
        let database = Database::open_read_only(&directory).map_err(CliError::stopped)?;
        let genesis_block = Block::genesis(genesis.hash, genesis.genesis.time_milliseconds);
        let blocks = BlockStore::open(database.clone(), genesis_block).map_err(CliError::stopped)?;
        let chain = verify_chain(&blocks, &genesis).map_err(corrupt)?;
        let money = verify_conservation(&database).map_err(corrupt)?;
        let document = serde_json::json!({
            "blocks": chain.blocks,
            "certificates": chain.certificates,
            "batches": chain.batches,
            "accounts": money.accounts,
            "balances": money.balances.to_string(),
            "fees": money.totals.fees.to_string(),
            "supply": money.totals.supply.to_string(),
        });
        self.output.print(&document, |_| {
            format!(
                "verified {} blocks, {} certificates, {} batches; {} accounts hold {} and fees {} of a supply of {}",
                chain.blocks,
                chain.certificates,
                chain.batches,
                money.accounts,
                money.balances,
                money.totals.fees,
                money.totals.supply
            )
        })
    }
}

fn corrupt(error: impl std::fmt::Display) -> CliError {
    CliError::Stopped(Termination {
        reason: bizra_proto::exit::ExitReason::DatabaseCorrupt,
        message: error.to_string(),
    })
}
