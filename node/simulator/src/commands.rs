//! Further commands of `bizra-sim`: each runs one kind of exploration and prints what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bizra_simulator::campaign;
use bizra_simulator::model::{self, Bounds};
use bizra_simulator::scale::{self, Case, Row};
use bizra_simulator::twins::{self, Selection};
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run validators with a twin through splits of the network, view by view.
    Twins {
        /// Number of validators.
        #[arg(long, default_value_t = 4)]
        validators: usize,
        /// How many have a twin; with a third or more, forks are expected and counted.
        #[arg(long, default_value_t = 1)]
        twins: usize,
        /// Draw this many plans instead of running all.
        #[arg(long)]
        sample: Option<u64>,
        /// Seed of the sample.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads. The result does not depend on it.
        #[arg(long, default_value_t = 2)]
        jobs: u64,
    },
    /// Run seeds twice, on other numbers of threads, and compare the hash over every event of each.
    Determinism {
        /// Number of seeds.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        start: u64,
        /// Threads the first time; one more the second time.
        #[arg(long, default_value_t = 2)]
        jobs: u64,
    },
    /// Check every state of four cores within bounds.
    Model {
        /// Views.
        #[arg(long, default_value_t = 2)]
        views: u64,
        /// Byzantine validators.
        #[arg(long, default_value_t = 1)]
        byzantine: usize,
        /// Restarts.
        #[arg(long, default_value_t = 0)]
        crashes: u8,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Finality and bytes for 4 to 100 validators over five regions.
    Scale {
        /// Where to write the figures as JSON.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Blocks a run.
        #[arg(long, default_value_t = 20)]
        blocks: u64,
    },
}

pub(crate) fn run(command: Command) -> ExitCode {
    let clean = match command {
        Command::Twins { validators, twins, sample, seed, jobs } => run_twins(validators, twins, sample, seed, jobs),
        Command::Model { views, byzantine, crashes, seconds, jobs } => {
            run_model(Bounds { views, byzantine, crashes }, jobs, Duration::from_secs(seconds))
        }
        Command::Determinism { seeds, start, jobs } => run_twice(start, seeds, jobs),
        Command::Scale { out, blocks } => run_scale(out, blocks),
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_twins(validators: usize, twins: usize, sample: Option<u64>, seed: u64, jobs: u64) -> bool {
    // Bits of all splits must fit a number that counts them; exchanged twins are told apart for one twin only.
    if validators < 4 || twins == 0 || twins > validators || validators + twins > 17 {
        eprintln!("4 to 16 validators, of which 1 to all have a twin, and at most 17 processes");
        return false;
    }
    let selection = sample.map_or(Selection::All, |count| Selection::Sample { count, seed });
    let summary = twins::run(validators, twins, selection, jobs);
    let (real, busy) = (summary.elapsed.as_secs_f64(), summary.busy.as_secs_f64());
    println!("validators        {validators}, {twins} with a twin");
    println!("plans             {}", summary.total);
    match sample {
        None => println!("scenarios         {} (one of two that differ by exchanging twins)", summary.scenarios),
        Some(_) => println!("scenarios         {} (sampled, seed {seed})", summary.scenarios),
    }
    println!("with evidence     {}", summary.with_evidence);
    println!("blocks finalised  {}", summary.blocks);
    println!("scenarios/s       {:.0}, {:.0} a core", summary.scenarios as f64 / real, summary.scenarios as f64 / busy);
    println!("time              {real:.1} s on {jobs} threads, {busy:.1} s of processor");
    if 3 * twins >= validators {
        let named = summary.forks.iter().filter(|(_, accused)| !accused.is_empty()).count();
        println!("forks             {}, in {named} of them evidence names validators", summary.forks.len());
        return !summary.forks.is_empty();
    }
    for (plan, violation) in summary.violations.iter().take(10) {
        println!("VIOLATION         {plan:?}: {violation}");
    }
    println!("violations        {}", summary.violations.len());
    summary.violations.is_empty()
}

fn run_twice(start: u64, seeds: u64, jobs: u64) -> bool {
    let (campaign, different) = campaign::run_twice(start, seeds, jobs);
    for seed in different.iter().take(10) {
        println!("DIFFERENT         seed {seed}");
    }
    println!("twice             {} seeds, {} of them different", campaign.seeds, different.len());
    println!("totals            {}", campaign.totals());
    different.is_empty() && campaign.violations.is_empty() && campaign.seeds == seeds
}

fn run_model(bounds: Bounds, jobs: usize, limit: Duration) -> bool {
    println!("bounds            4 validators, {bounds:?}");
    let summary = match model::check(bounds, jobs, limit) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("{error}");
            return false;
        }
    };
    println!("states            {} ({} generated)", summary.states, summary.generated);
    println!("depth             {}", summary.depth);
    println!("complete          {}", if summary.is_complete { "yes" } else { "no: stopped early" });
    println!("time              {:.1} s on {jobs} threads", summary.elapsed.as_secs_f64());
    for name in &summary.unreached {
        println!("NOT REACHED       {name}");
    }
    for (name, actions) in &summary.violations {
        println!("VIOLATION         {name} after {actions}");
    }
    println!("violations        {}", summary.violations.len());
    summary.violations.is_empty()
}

fn run_scale(out: Option<PathBuf>, blocks: u64) -> bool {
    println!(
        "finality from proposal; milliseconds; delays are finality over the mean delay; bytes sent a validator and block"
    );
    println!("   n case          blocks    p50    p99 delays  dissemination p50   consensus B      batch B");
    let mut rows = Vec::new();
    let mut inexact = Vec::new();
    for validators in [4, 7, 10, 16, 31, 61, 100] {
        for case in [Case::Equal(50), Case::Regions, Case::Down, Case::SlowRegion] {
            let row = match scale::run(validators, case, blocks) {
                Ok(row) => row,
                Err(halt) => {
                    eprintln!("{validators} validators, {}: {halt}", case.name());
                    return false;
                }
            };
            if matches!(case, Case::Equal(delay) if row.finality.iter().any(|finality| *finality != 3 * delay)) {
                inexact.push(validators);
            }
            let [median, late] = [50, 99].map(|percent| Row::percentile(&row.finality, percent));
            let dissemination = Row::percentile(&row.dissemination, 50);
            let delays = median as f64 / row.mean_delay;
            println!(
                "{validators:>4} {:<12} {:>7} {median:>6} {late:>6} {delays:>6.2} {dissemination:>18} {:>13} {:>12}",
                case.name(),
                row.blocks,
                row.consensus_bytes,
                row.batch_bytes
            );
            rows.push(json!({
                "validators": validators,
                "case": case.name(),
                "blocks": row.blocks,
                "finality_p50_milliseconds": median,
                "finality_p99_milliseconds": late,
                "finality_delays": delays,
                "mean_delay_milliseconds": row.mean_delay,
                "dissemination_p50_milliseconds": dissemination,
                "consensus_bytes_per_node_per_block": row.consensus_bytes,
                "batch_bytes_per_node_per_block": row.batch_bytes,
            }));
        }
    }
    let complete = rows.iter().all(|row| row["blocks"].as_u64().is_some_and(|finalised| finalised >= blocks));
    if !inexact.is_empty() {
        eprintln!("with equal delays, finality is not three delays after the proposal for {inexact:?} validators");
    }
    if let Some(path) = out {
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = written.and_then(|()| std::fs::write(&path, format!("{:#}\n", json!(rows)))) {
            eprintln!("{}: {error}", path.display());
            return false;
        }
    }
    complete && inexact.is_empty()
}
