//! Four validators as processes on loopback, 256-byte transfers at a fixed rate, and where the network saturates; once
//! with every signature checked by every validator (`signed`), once with none checked (`opaque`).
//!
//! Everything is measured from outside with what the product ships: `bizra-node devnet` runs the validators, `bizra-node
//! load` submits and times; CPU, memory, syncs and disk are the validators' own, from `/metrics` and `/proc`. The load generator
//! shares the machine with the validators; its CPU is not counted as theirs.

mod devnet;
mod load;
mod peer;
mod report;
mod signatures;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use devnet::Devnet;
use load::Run;
use report::{print_header, print_run, print_verdicts, spread};
use signatures::CheckCost;

/// Each step on the way to saturation offers so many times what the last one did, in percent.
const STEP_PERCENT: u32 = 120;

/// Why a bench could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file or process could not be used.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The validators did not come up, or stopped.
    #[error("{0}")]
    Network(String),
    /// The load gave no figures.
    #[error("the load failed: {0}")]
    Load(String),
    /// The bare signature check could not be measured.
    #[error("the bare signature check failed: {0}")]
    Signatures(String),
}

/// Whether validators check the signatures of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Every validator checks every signature.
    Signed,
    /// Nobody checks any; on a chain that exists for this only.
    Opaque,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Opaque => "opaque",
        }
    }
}

/// Measure throughput and latency of four local validators.
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// Something else than measuring ours alone.
    #[command(subcommand)]
    action: Option<Action>,
    /// The `bizra-node` binary.
    #[arg(long, value_name = "FILE")]
    node: PathBuf,
    /// With signature checks, without, or (by default) one after the other.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Transactions a second of the fixed-rate runs.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Length of a fixed-rate run, seconds.
    #[arg(long, default_value_t = 60)]
    duration: u32,
    /// Fixed-rate runs, each on a network of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Accounts that send.
    #[arg(long, default_value_t = 10_000)]
    accounts: u32,
    /// Length of each step on the way to saturation, seconds; 0 skips it.
    #[arg(long, default_value_t = 10)]
    step: u32,
    /// First port of the validators.
    #[arg(long, default_value_t = 28_100)]
    base_port: u16,
    /// Folder for the results.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

/// What else can be measured.
#[derive(Subcommand, Clone, Debug)]
enum Action {
    Peer(peer::PeerArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Action::Peer(peer)) = &arguments.action {
        return match peer::compare(&arguments, peer) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let modes = arguments.mode.map_or(vec![Mode::Signed, Mode::Opaque], |mode| vec![mode]);
    for mode in modes {
        if let Err(error) = bench(&arguments, mode) {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn bench(arguments: &Arguments, mode: Mode) -> Result<(), BenchError> {
    println!(
        "{}: {} validators on loopback; per transaction figures are of one validator",
        mode.name(),
        devnet::VALIDATORS
    );
    print_header();
    let (mut runs, mut checks, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for index in 1..=arguments.runs {
        let folder = tempfile::tempdir().map_err(|error| BenchError::Io("temporary folder".to_owned(), error))?;
        if mode == Mode::Signed {
            checks.push(signatures::measure()?);
        }
        let mut network = Devnet::start(&arguments.node, arguments.accounts, arguments.base_port, mode, folder.path())?;
        let measure = |rate, seconds| Run::measure(&arguments.node, &network, arguments.accounts, rate, seconds);
        // Fills caches and connections; not reported.
        measure(arguments.rate.min(1_000), 5)?;
        let run = measure(arguments.rate, arguments.duration)?;
        print_run(&format!("run {index}"), &run);
        if index == arguments.runs && arguments.step > 0 {
            steps = saturate(&run, |rate| measure(rate, arguments.step))?;
        }
        runs.push(run);
        network.stop()?;
    }
    let check = mean(&checks);
    if let Some(CheckCost { node, zebra }) = check {
        println!("  a bare batch check on all cores: {node:.1} us of CPU (ed25519-zebra {zebra:.1} us)");
    }
    print_verdicts(&runs, check);
    let all = || steps.iter().chain(&runs);
    let most = all().map(|run| run.number("/finalisedPerSecond")).fold(0.0, f64::max);
    let held = all().filter(|run| run.kept_up()).map(|run| run.rate).max();
    match held {
        Some(held) => println!("  saturation: kept up at {held} a second, finalised {most:.0} a second at most"),
        None => println!("  saturation: below {} a second; finalised {most:.0} a second at most", arguments.rate),
    }
    let document = json!({
        "mode": mode.name(),
        "validators": devnet::VALIDATORS,
        "cores": cores(),
        "runs": runs.iter().map(Run::json).collect::<Vec<_>>(),
        "spread": spreads(&runs),
        "bareCheckMicroseconds": check.map(|check| json!({ "node": check.node, "ed25519Zebra": check.zebra })),
        "steps": steps.iter().map(Run::json).collect::<Vec<_>>(),
        "saturation": { "keptUpAt": held, "finalisedPerSecondMax": most },
    });
    write(&arguments.out, mode.name(), &document)
}

/// Offers more and more until the network no longer keeps up.
fn saturate(first: &Run, measure: impl Fn(u32) -> Result<Run, BenchError>) -> Result<Vec<Run>, BenchError> {
    let mut steps = Vec::new();
    let (mut rate, mut kept_up) = (first.rate, first.kept_up());
    while kept_up {
        rate = rate.saturating_mul(STEP_PERCENT) / 100;
        let step = measure(rate)?;
        print_run("step", &step);
        kept_up = step.kept_up();
        steps.push(step);
    }
    Ok(steps)
}

/// Processors that validators and load share.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn mean(checks: &[CheckCost]) -> Option<CheckCost> {
    let of = |cost: fn(&CheckCost) -> f64| checks.iter().map(cost).sum::<f64>() / checks.len() as f64;
    (!checks.is_empty()).then(|| CheckCost { node: of(|check| check.node), zebra: of(|check| check.zebra) })
}

fn spreads(runs: &[Run]) -> Value {
    let range = |figure: &dyn Fn(&Run) -> f64| {
        let (least, most) = spread(runs, figure);
        json!([least, most])
    };
    json!({
        "p50": range(&|run| run.number("/latencyMilliseconds/p50")),
        "p95": range(&|run| run.number("/latencyMilliseconds/p95")),
        "p99": range(&|run| run.number("/latencyMilliseconds/p99")),
        "finalisedPerSecond": range(&|run| run.number("/finalisedPerSecond")),
        "cpuMicrosecondsPerTransactionPerValidator": range(&Run::cpu_per_transaction),
        "syncsPerTransactionPerValidator": range(&|run| run.syncs_per_transaction().unwrap_or_default()),
        "bytesWrittenPerTransactionPerValidator": range(&Run::bytes_per_transaction),
        "residentBytesMax": range(&|run| run.usage.resident_bytes_max),
    })
}

fn write(folder: &Path, name: &str, document: &Value) -> Result<(), BenchError> {
    let path = folder.join(format!("{name}.json"));
    let text = format!("{document:#}\n");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| BenchError::Io(path.display().to_string(), error))?;
    println!("  written to {}", path.display());
    Ok(())
}
