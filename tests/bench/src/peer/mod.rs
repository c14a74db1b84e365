//! Ours next to CometBFT, in turns, at the same rates with transactions of the same size, on the same machine in the same run.
//!
//! Each measurement has a fresh network of four validators to itself. Everybody climbs the same rates until he no longer keeps up;
//! then the rates between are tried.

mod comet;
mod ladder;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use crate::devnet::Devnet;
use crate::load::Run;
use crate::{Arguments, BenchError, Mode, cores, signatures, write};
use comet::{Application, Network, Programs, Settings};
use ladder::{Ladder, Outcome};

/// Rates that everybody is offered, transactions a second.
const RUNGS: [u32; 9] = [1_000, 2_000, 3_000, 4_500, 6_500, 10_000, 14_000, 20_000, 28_000];
const RUNGS_QUICK: [u32; 3] = [2_000, 6_000, 12_000];

/// Rates tried between rungs.
const REFINEMENTS: u32 = 2;

/// Length of a measurement, seconds.
const SECONDS: u32 = 10;
const SECONDS_QUICK: u32 = 4;

/// Before each measurement, so that connections stand: transactions a second, and seconds.
const WARM_UP: (u32, u32) = (1_000, 2);

/// Finality later than this is late, milliseconds.
const P99_MAX: f64 = 500.0;

/// Who needs longer than this for what is left when the schedule ends has not kept up, seconds. It leaves room for the pause of a
/// second that CometBFT makes after each block as it comes.
const TAIL_MAX: f64 = 2.0;

/// Compare ours with CometBFT v0.40.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PeerArguments {
    /// Folder with the programs that `tests/peer/build.sh` has built.
    #[arg(long, value_name = "FOLDER")]
    programs: PathBuf,
    /// Folder with CometBFT's settings.
    #[arg(long, value_name = "FOLDER", default_value = "tests/peer/config")]
    config: PathBuf,
    /// Few rates, short: whether everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Length of a measurement, seconds.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Ours(Mode),
    Comet(Settings, Application),
    /// Tuned, kvstore, with CometBFT's own tools for load and report.
    CometWithItsOwnTools,
}

/// In the order in which they take turns.
const SUBJECTS: [Subject; 8] = [
    Subject::Ours(Mode::Signed),
    Subject::Comet(Settings::Tuned, Application::Kvstore),
    Subject::Comet(Settings::Tuned, Application::Signed),
    Subject::Ours(Mode::Opaque),
    Subject::Comet(Settings::TunedSparse, Application::Kvstore),
    Subject::Comet(Settings::Tuned, Application::SignedInBlocks),
    Subject::Comet(Settings::Stock, Application::Kvstore),
    Subject::CometWithItsOwnTools,
];

/// One subject's measurements.
struct Side {
    subject: Subject,
    seconds: u32,
    ladder: Ladder,
    runs: Vec<Run>,
    failures: Vec<String>,
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours(Mode::Signed) => "bizra signed",
            Self::Ours(Mode::Opaque) => "bizra opaque",
            Self::Comet(Settings::Stock, Application::Kvstore) => "comet stock, kvstore",
            Self::Comet(Settings::Tuned, Application::Kvstore) => "comet tuned, kvstore",
            Self::Comet(Settings::TunedSparse, Application::Kvstore) => "comet tuned sparse, kvstore",
            Self::Comet(_, Application::Signed) => "comet tuned, signed",
            Self::Comet(_, Application::SignedInBlocks) => "comet tuned, signed in blocks",
            Self::CometWithItsOwnTools => "comet tuned, kvstore, own tools",
        }
    }

    /// The fixed rates are enough to know of these.
    const fn refinements(self) -> u32 {
        match self {
            Self::Comet(Settings::Stock, _) | Self::CometWithItsOwnTools => 0,
            Self::Ours(_) | Self::Comet(..) => REFINEMENTS,
        }
    }
}

impl Side {
    /// How a run went that was offered transactions for `seconds`.
    fn outcome(&self, run: &Run) -> Outcome {
        let kept_up = run.all_applied() && run.number("/elapsedSeconds") <= f64::from(self.seconds) + TAIL_MAX;
        match kept_up {
            true if run.number("/latencyMilliseconds/p99") < P99_MAX => Outcome::InTime,
            true => Outcome::Late,
            false => Outcome::Overloaded,
        }
    }

    /// Finalised a second. In time, that is the rate offered: what waits for the last block is none of the throughput.
    fn carried(&self, run: &Run) -> f64 {
        match self.outcome(run) {
            Outcome::InTime => f64::from(run.rate) * run.applied_share(),
            Outcome::Late | Outcome::Overloaded => run.number("/finalisedPerSecond"),
        }
    }

    fn finalised_max(&self) -> f64 {
        self.runs.iter().map(|run| self.carried(run)).fold(0.0, f64::max)
    }

    /// Most that it finalised a second while all of it was in time.
    fn finalised_in_time_max(&self) -> f64 {
        let in_time = self.runs.iter().filter(|run| self.outcome(run) == Outcome::InTime);
        in_time.map(|run| self.carried(run)).fold(0.0, f64::max)
    }

    fn json(&self, run: &Run) -> Value {
        let outcome = self.outcome(run);
        let mut document = run.json();
        document["keptUp"] = (outcome != Outcome::Overloaded).into();
        document["inTime"] = (outcome == Outcome::InTime).into();
        document
    }

    fn at(&self, rate: u32) -> Option<&Run> {
        self.runs.iter().find(|run| run.rate == rate && self.outcome(run) != Outcome::Overloaded)
    }
}

/// Runs the comparison. False if a side could not be measured at all.
pub(crate) fn compare(bench: &Arguments, arguments: &PeerArguments) -> Result<bool, BenchError> {
    let started = Instant::now();
    let programs = Programs { programs: arguments.programs.clone(), config: arguments.config.clone() };
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { SECONDS_QUICK } else { SECONDS });
    let rungs = || if arguments.quick { RUNGS_QUICK.to_vec() } else { RUNGS.to_vec() };
    let mut sides: Vec<Side> = SUBJECTS
        .into_iter()
        .map(|subject| {
            let refinements = if arguments.quick { 0 } else { subject.refinements() };
            Side { subject, seconds, ladder: Ladder::new(rungs(), refinements), runs: Vec::new(), failures: Vec::new() }
        })
        .collect();
    let check = signatures::measure()?;
    println!(
        "four validators each, {} bytes a transaction, {seconds} s a measurement; CPU, bytes and memory are of one validator",
        comet::TRANSACTION_BYTES
    );
    verdict::print_header();
    let mut running = true;
    while running {
        running = false;
        for side in &mut sides {
            let Some(rate) = side.ladder.next() else { continue };
            running = true;
            match measure(bench, &programs, side.subject, rate, seconds) {
                Ok(run) => {
                    let outcome = side.outcome(&run);
                    verdict::print_run(side.subject, &run, outcome);
                    side.ladder.record(rate, outcome);
                    side.runs.push(run);
                }
                Err(error) => {
                    // What breaks a network at a rate is a result of that rate.
                    println!("{:>32} {rate:>9} failed: {error}", side.subject.name());
                    side.ladder.record(rate, Outcome::Overloaded);
                    side.failures.push(format!("at {rate} a second: {error}"));
                }
            }
        }
    }
    let verdicts = verdict::judge(&sides, check);
    verdicts.print();
    let document = json!({
        "cores": cores(),
        "transactionBytes": comet::TRANSACTION_BYTES,
        "secondsEach": seconds,
        "elapsedSeconds": started.elapsed().as_secs(),
        "bareCheckMicroseconds": { "node": check.node, "ed25519Zebra": check.zebra },
        "sides": sides.iter().map(|side| json!({
            "name": side.subject.name(),
            "runs": side.runs.iter().map(|run| side.json(run)).collect::<Vec<_>>(),
            "failures": side.failures,
            "finalisedPerSecondMax": side.finalised_max(),
            "finalisedPerSecondInTimeMax": side.finalised_in_time_max(),
        })).collect::<Vec<_>>(),
        "verdicts": verdicts.json(),
    });
    write(&bench.out, "peer", &document)?;
    println!("  took {} s", started.elapsed().as_secs());
    Ok(sides.iter().all(|side| !side.runs.is_empty()))
}

fn measure(
    bench: &Arguments,
    programs: &Programs,
    subject: Subject,
    rate: u32,
    seconds: u32,
) -> Result<Run, BenchError> {
    let folder = tempfile::tempdir().map_err(|error| BenchError::Io("temporary folder".to_owned(), error))?;
    let (warm_rate, warm_seconds) = WARM_UP;
    let node = &bench.node;
    match subject {
        Subject::Ours(mode) => {
            let mut network = Devnet::start(node, bench.accounts, bench.base_port, mode, folder.path())?;
            Run::measure(node, &network, bench.accounts, warm_rate, warm_seconds)?;
            let run = Run::measure(node, &network, bench.accounts, rate, seconds)?;
            network.stop()?;
            Ok(run)
        }
        Subject::Comet(settings, application) => {
            let mut network = Network::start(programs, settings, application, folder.path())?;
            network.measure(application, bench.accounts, warm_rate, warm_seconds)?;
            let run = network.measure(application, bench.accounts, rate, seconds)?;
            network.stop()?;
            Ok(run)
        }
        Subject::CometWithItsOwnTools => {
            let network = Network::start(programs, Settings::Tuned, Application::Kvstore, folder.path())?;
            network.measure_with_its_own_tools(folder.path(), rate, seconds)
        }
    }
}
