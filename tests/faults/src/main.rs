//! Faults against the real thing: the shipped binary, real RocksDB, real file systems.
//!
//! `run` has four validators on loopback under load and hurts them: `kill -9`, power cuts on ext4 and XFS, flipped bytes.
//! Afterwards, and at the end, nothing that anybody was told may be missing. `soak` lets a devnet run and looks at memory,
//! disk and heights. What looks on is independent of what it looks at: votes are taken from the wire by a peer that only
//! listens, receipts from the clients that got them, and disks are read with code of its own.

mod campaign;
mod control;
mod cuts;
mod database;
mod flips;
mod kills;
mod layout;
mod leftovers;
mod node;
mod oracle;
mod random;
mod record;
mod report;
mod scene;
mod soak;
mod traffic;
mod volume;
mod watcher;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use campaign::{Campaign, Options};
use control::RecorderArgs;
use leftovers::Leftovers;
use soak::SoakArgs;
use volume::{FileSystem, Ground};

/// Validators of a network: the fewest that survive one fault.
pub(crate) const VALIDATORS: usize = 4;

/// Why a run ended early. What a run finds is no error, but reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FaultError {
    /// A file or process could not be used.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// Something that the run needs could not be made.
    #[error("{0}")]
    Setup(String),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
}

/// Kills, power cuts and flipped bytes against real validators, and a soak.
#[derive(Parser, Clone, Debug)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Hurt four validators under load, and look for what they lost.
    Run(RunArgs),
    /// Let a devnet run under load and look at memory, disk and heights.
    Soak(SoakArgs),
    /// Record numbers as a control of the power cuts; started by `run`.
    #[command(hide = true)]
    Recorder(RecorderArgs),
}

#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// The `bizra-node` binary.
    #[arg(long, value_name = "FILE")]
    node: PathBuf,
    /// How often a validator is killed; 0 leaves the part out.
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    kills: u64,
    /// How often a validator loses power, on each file system; 0 leaves the part out.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    cuts: u64,
    /// How many bytes are flipped; 0 leaves the part out.
    #[arg(long, value_name = "COUNT", default_value_t = 240)]
    flips: u64,
    /// Repeats the choices of a run, if not its instants; from the clock by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Cut power on this file system only. May be repeated.
    #[arg(long, value_enum)]
    filesystem: Vec<FileSystem>,
    /// Transfers a second.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// First port; each validator takes five of the ten from here on, and the watcher one.
    #[arg(long, value_name = "PORT", default_value_t = 33_100)]
    base_port: u16,
    /// Where databases and volumes are made while the run lasts.
    #[arg(long, value_name = "FOLDER", default_value = "target/faults/work")]
    work: PathBuf,
    /// The figures.
    #[arg(long, value_name = "FILE", default_value = "target/faults/faults.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Run(arguments) => end(run(&arguments)),
        Command::Soak(arguments) => end(arguments.run(&stop_signal())),
        Command::Recorder(arguments) => end(arguments.run().map(|()| true)),
    }
}

fn end(result: Result<bool, FaultError>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Set by Ctrl-C and SIGTERM, so that what was made is taken away again.
fn stop_signal() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut term = signal(SignalKind::terminate()).ok()?;
            let mut interrupt = signal(SignalKind::interrupt()).ok()?;
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
            Some(())
        })
    });
    interrupted
}

/// True if nothing was found.
fn run(arguments: &RunArgs) -> Result<bool, FaultError> {
    let started = Instant::now();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let seed = arguments.seed.unwrap_or(now);
    layout::create_folder(&arguments.work)?;
    let work = absolute(&arguments.work)?;
    let node = absolute(&arguments.node)?;
    let interrupted = stop_signal();
    let leftovers = Leftovers::begin(&work.with_extension("leftovers"))?;
    let options = Options { node, work, base_port: arguments.base_port, rate: arguments.rate };
    let mut campaign = Campaign::new(options, seed, leftovers, interrupted);
    println!("seed {seed}, {} transfers a second", arguments.rate);
    let work = campaign.options.work.clone();
    campaign.leftovers.folder(&work)?;

    let kills = (arguments.kills > 0).then(|| kills::run(arguments.kills, &mut campaign)).transpose()?;
    let mut cuts = Vec::new();
    if arguments.cuts > 0 {
        let ground = Ground::make(&work, &mut campaign.leftovers)?;
        let chosen = if arguments.filesystem.is_empty() { &FileSystem::ALL[..] } else { &arguments.filesystem };
        for file_system in chosen {
            cuts.push(cuts::run(arguments.cuts, *file_system, &ground, &mut campaign)?);
        }
    }
    let flips = (arguments.flips > 0).then(|| flips::run(arguments.flips, &mut campaign)).transpose()?;

    println!();
    kills.iter().for_each(kills::Kills::print);
    cuts.iter().for_each(cuts::Cuts::print);
    flips.iter().for_each(flips::Flips::print);
    let (findings, count) = campaign.findings();
    let seconds = started.elapsed().as_secs();
    let document = json!({
        "seed": seed,
        "rate": arguments.rate,
        "seconds": seconds,
        "kills": kills.as_ref().map(kills::Kills::json),
        "cuts": cuts.iter().map(cuts::Cuts::json).collect::<Vec<_>>(),
        "flips": flips.as_ref().map(flips::Flips::json),
        "findings": findings,
        "findingsCount": count,
    });
    write_json(&arguments.out, &document)?;
    println!(
        "{count} found in {seconds} s: acknowledged votes, blocks or receipts lost, contradictions, silent wrong reads"
    );
    Ok(count == 0)
}

fn absolute(path: &Path) -> Result<PathBuf, FaultError> {
    path.canonicalize().map_err(|error| FaultError::Io(path.display().to_string(), error))
}

pub(crate) fn write_json(path: &Path, document: &serde_json::Value) -> Result<(), FaultError> {
    if let Some(folder) = path.parent() {
        layout::create_folder(folder)?;
    }
    let text = format!("{document:#}\n");
    std::fs::write(path, text).map_err(|error| FaultError::Io(path.display().to_string(), error))
}
