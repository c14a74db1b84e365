//! Four validators as processes on loopback, signed 256-byte transfers at a fixed rate, and where the network saturates.
//!
//! Everything is measured from outside with what the product ships: `bizra-node devnet` runs the validators, `bizra-node
//! load` submits and times, CPU and memory come from `/metrics`. The load generator shares the machine with the
//! validators; its CPU is not counted as theirs.

mod devnet;
mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use serde_json::{Value, json};

use devnet::{Devnet, Usage};
use report::{print_header, print_run};

/// Why a bench could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file or process could not be used.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The validators did not come up, or stopped.
    #[error("{0}")]
    Devnet(String),
    /// The load gave no figures.
    #[error("the load failed: {0}")]
    Load(String),
}

/// Measure throughput and latency of four local validators.
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// The `bizra-node` binary.
    #[arg(long, value_name = "FILE")]
    node: PathBuf,
    /// Transactions a second of the fixed-rate run.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Length of the fixed-rate run, seconds.
    #[arg(long, default_value_t = 30)]
    duration: u32,
    /// Accounts that send.
    #[arg(long, default_value_t = 10_000)]
    accounts: u32,
    /// Length of each step on the way to saturation, seconds; 0 skips it.
    #[arg(long, default_value_t = 10)]
    step: u32,
    /// First port of the validators.
    #[arg(long, default_value_t = 28_100)]
    base_port: u16,
    /// Folder for the result.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

/// One run of the load and what it cost.
pub(crate) struct Run {
    pub(crate) rate: u32,
    pub(crate) figures: Value,
    pub(crate) usage: Usage,
}

impl Run {
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.figures.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
    }

    /// True if the network kept up: nearly everything final, and at the pace at which it was offered.
    fn kept_up(&self) -> bool {
        let (offered, applied) = (self.number("/offered"), self.number("/applied"));
        applied >= 0.999 * offered && self.number("/finalisedPerSecond") >= 0.95 * f64::from(self.rate)
    }

    fn json(&self) -> Value {
        json!({
            "rate": self.rate,
            "keptUp": self.kept_up(),
            "load": self.figures,
            "validators": {
                "cpuSeconds": self.usage.cpu_seconds,
                "cpuMicrosecondsPerTransactionPerValidator": self.cpu_per_transaction(),
                "residentBytesMax": self.usage.resident_bytes_max,
            },
        })
    }

    /// Microseconds of CPU one validator spends on one finalised transaction.
    pub(crate) fn cpu_per_transaction(&self) -> f64 {
        let finalised = self.number("/finalised");
        if finalised == 0.0 { 0.0 } else { self.usage.cpu_seconds * 1e6 / devnet::VALIDATORS as f64 / finalised }
    }
}

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<(), BenchError> {
    let folder = tempfile::tempdir().map_err(|error| BenchError::Io("temporary folder".to_owned(), error))?;
    println!("starting {} validators on loopback", devnet::VALIDATORS);
    let mut network = Devnet::start(arguments, folder.path())?;
    print_header();
    // Fills caches and connections; not reported.
    measure(arguments, &network, arguments.rate.min(1_000), 5)?;
    let fixed = measure(arguments, &network, arguments.rate, arguments.duration)?;
    print_run("fixed rate", &fixed);
    let mut steps = Vec::new();
    if arguments.step > 0 {
        let mut rate = arguments.rate;
        loop {
            rate = rate.saturating_mul(3) / 2;
            let step = measure(arguments, &network, rate, arguments.step)?;
            print_run("step", &step);
            let last = !step.kept_up();
            steps.push(step);
            if last {
                break;
            }
        }
    }
    network.stop()?;
    let best = steps.iter().chain([&fixed]).map(|run| run.number("/finalisedPerSecond")).fold(0.0, f64::max);
    let held = steps.iter().chain([&fixed]).filter(|run| run.kept_up()).map(|run| run.rate).max();
    match held {
        Some(held) => println!("saturation: kept up at {held} a second, finalised {best:.0} a second at most"),
        None => println!("saturation: below {} a second; finalised {best:.0} a second at most", arguments.rate),
    }
    write(arguments, &fixed, &steps, held, best)
}

/// Runs the load once and reads what the validators spent meanwhile.
fn measure(arguments: &Arguments, network: &Devnet, rate: u32, seconds: u32) -> Result<Run, BenchError> {
    let watch = network.watch()?;
    let mut command = Command::new(&arguments.node);
    command.args(["load", "--output", "json", "--drain", "15", "--rate", &rate.to_string()]);
    command.args(["--duration", &seconds.to_string(), "--accounts", &arguments.accounts.to_string()]);
    for target in network.targets() {
        command.args(["--target", &target]);
    }
    let output = command.output().map_err(|error| BenchError::Io("bizra-node load".to_owned(), error))?;
    let usage = watch.finish()?;
    let figures = serde_json::from_slice(&output.stdout)
        .map_err(|_| BenchError::Load(String::from_utf8_lossy(&output.stderr).into_owned()))?;
    Ok(Run { rate, figures, usage })
}

fn write(arguments: &Arguments, fixed: &Run, steps: &[Run], held: Option<u32>, best: f64) -> Result<(), BenchError> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let document = json!({
        "validators": devnet::VALIDATORS,
        "cores": cores,
        "fixed": fixed.json(),
        "steps": steps.iter().map(Run::json).collect::<Vec<_>>(),
        "saturation": { "keptUpAt": held, "finalisedPerSecondMax": best },
    });
    let path = arguments.out.join("signed.json");
    let text = format!("{document:#}\n");
    std::fs::create_dir_all(&arguments.out)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| BenchError::Io(path.display().to_string(), error))?;
    println!("written to {}", path.display());
    Ok(())
}
