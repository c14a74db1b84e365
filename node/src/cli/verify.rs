//! Checks everything a stopped node's database holds.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bizra_proto::exit::{ExitReason, Termination};
use clap::Args;

use super::output::{OutputArgs, progress};
use super::termination::CliError;
use crate::blockchain::{ConservationError, verify_conservation};
use crate::configuration::LoadedGenesis;
use crate::identity::SignerFolder;
use crate::recovery::PinnedRestarts;
use crate::replay::{Depth, ReplayError, ReplayReport, replay};
use crate::storage::{Database, StorageError, check_files};

/// Blocks between two lines of progress.
const PROGRESS_BLOCKS: u64 = 10_000;

/// Where a stopped node's database is.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The node's data folder; `database/` is inside. The node must be stopped.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// Folder for the temporary database, which grows as large as the node's state and history; by default the
    /// system's for temporary files.
    #[arg(long, value_name = "FOLDER")]
    pub work_dir: Option<PathBuf>,
}

impl DatabaseArgs {
    pub(super) fn directory(&self) -> Result<PathBuf, CliError> {
        let directory = self.data_dir.join("database");
        if directory.join("CURRENT").exists() {
            return Ok(directory);
        }
        Err(CliError::failed(format!("{} holds no database", directory.display())))
    }

    /// The restarts that the volume has pinned; none if only a database is there.
    fn restarts(&self, genesis: &LoadedGenesis) -> Result<PinnedRestarts, CliError> {
        if !self.data_dir.join("signer").exists() {
            return Ok(PinnedRestarts::default());
        }
        let signer = SignerFolder::open_unchecked(&self.data_dir).map_err(CliError::stopped)?;
        PinnedRestarts::load(&signer, genesis).map_err(CliError::stopped)
    }

    /// Replays the database into a temporary one.
    pub(super) fn replay(&self, directory: &Path, depth: Depth) -> Result<ReplayReport, CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let restarts = self.restarts(&genesis)?;
        let source = Database::open_read_only(directory).map_err(CliError::stopped)?;
        let work = WorkFolder::create(self.work_dir.as_deref()).map_err(CliError::failed)?;
        let target = Database::open(&work.0).map_err(CliError::stopped)?;
        let result = replay(&source, (&genesis, &restarts), &target, depth, |height, executed| {
            if height.is_multiple_of(PROGRESS_BLOCKS) {
                progress(format_args!("replayed block {height} of {executed}"));
            }
        });
        result.map_err(|error| match error {
            ReplayError::Storage(StorageError::Failed(_)) => stopped(ExitReason::StorageFailed, &error),
            ReplayError::Ledger(error) => CliError::stopped(error),
            ReplayError::TooShort { .. } => CliError::failed(error),
            error => stopped(ExitReason::DatabaseCorrupt, &error),
        })
    }
}

fn stopped(reason: ExitReason, error: &dyn std::fmt::Display) -> CliError {
    CliError::Stopped(Termination { reason, message: error.to_string() })
}

/// A folder that goes with its owner.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn create(parent: Option<&Path>) -> std::io::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = parent.join(format!("bizra-replay-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .map_err(|error| std::io::Error::other(format!("cannot make {}: {error}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a temporary folder could not be removed");
        }
    }
}

/// Check everything in a stopped node's database: files, hashes, certificates, signatures, indexes; and, by executing
/// the blocks again, state, history, receipts and events; and conservation of money.
#[derive(Args, Clone, Debug)]
pub struct VerifyCommand {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyCommand {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        let start = Instant::now();
        let directory = self.database.directory()?;
        let files = check_files(&directory).map_err(CliError::stopped)?;
        let report = self.database.replay(&directory, Depth::Everything)?;
        let database = Database::open_read_only(&directory).map_err(CliError::stopped)?;
        let money = verify_conservation(&database).map_err(|error| match error {
            ConservationError::Storage(error) => CliError::stopped(error),
            error @ ConservationError::NotConserved(_) => stopped(ExitReason::DatabaseCorrupt, &error),
        })?;
        let ReplayReport { chain, .. } = report;
        let document = serde_json::json!({
            "oldestHeight": report.oldest,
            "baseHeight": report.base,
            "height": report.height,
            "blocks": chain.blocks,
            "certificates": chain.certificates,
            "batches": chain.batches,
            "transactions": report.transactions,
            "events": report.events,
            "checkpoints": report.checkpoints,
            "ledgerEntries": report.entries,
            "storedEntries": files.entries,
            "logRecords": files.records,
            "accounts": money.accounts,
            "balances": money.balances.to_string(),
            "fees": money.totals.fees.to_string(),
            "supply": money.totals.supply.to_string(),
            "seconds": start.elapsed().as_secs_f64(),
        });
        self.output.print(&document, |_| {
            let from = match (report.oldest, report.base) {
                (0, _) => "from the genesis".to_owned(),
                (oldest, base) => format!(
                    "from height {oldest}, below which this node keeps nothing; the state from height {base}, where it has \
                     the commitment that headers name"
                ),
            };
            format!(
                "verified {from}\n{} blocks, {} certificates, {} batches; {} transactions executed again with {} events, {} \
                 checkpoints; {} stored entries\n{} accounts hold {} and fees {} of a supply of {}",
                chain.blocks,
                chain.certificates,
                chain.batches,
                report.transactions,
                report.events,
                report.checkpoints,
                files.entries,
                money.accounts,
                money.balances,
                money.totals.fees,
                money.totals.supply
            )
        })
    }
}
