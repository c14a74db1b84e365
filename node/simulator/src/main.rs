//! `bizra-sim`: runs seeds of the simulation and reports what they showed.

mod commands;

use std::process::ExitCode;
use std::time::Duration;

use bizra_simulator::campaign::{self, Campaign};
use bizra_simulator::{LIVENESS_BOUND, Trace};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// A simulated network allocates all the time, small and short-lived.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Deterministic simulation of the consensus core and driver under faults.
#[derive(Debug, Parser)]
#[command(name = "bizra-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<commands::Command>,
    /// Number of seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Seconds after which no other seed is begun; as many seeds as fit.
    #[arg(long, conflicts_with = "seeds")]
    seconds: Option<u64>,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event of the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads. The result does not depend on it.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Fail if fewer views were finalised.
    #[arg(long, default_value_t = 0)]
    require_views: u64,
    /// Fail if fewer faults were injected.
    #[arg(long, default_value_t = 0)]
    require_faults: u64,
    /// Fail if fewer epochs ended.
    #[arg(long, default_value_t = 0)]
    require_epochs: u64,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(command) = arguments.command {
        return commands::run(command);
    }
    if let Some(seed) = arguments.seed.filter(|_| arguments.trace) {
        let report = campaign::run_seed(seed, Trace::Print);
        for violation in &report.violations {
            println!("VIOLATION {violation}");
        }
        println!("seed {seed}: {} blocks, trace hash {:016x}", report.blocks, report.hash);
        return if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (start, seeds) = arguments.seed.map_or((arguments.start, arguments.seeds), |seed| (seed, 1));
    let campaign = match arguments.seconds {
        Some(seconds) => campaign::run_within(start, u64::MAX, arguments.jobs, Duration::from_secs(seconds)),
        None => campaign::run(start, seeds, arguments.jobs),
    };
    match arguments.output {
        Form::Text => print_text(&campaign, start),
        Form::Json => println!("{:#}", to_json(&campaign, start)),
    }
    let (views, faults, epochs) = (campaign.blocks, campaign.faults_injected(), campaign.epochs);
    let Arguments { require_views, require_faults, require_epochs, .. } = arguments;
    let enough = views >= require_views && faults >= require_faults && epochs >= require_epochs;
    if !enough {
        eprintln!(
            "{views} views, {faults} faults and {epochs} epochs; {require_views}, {require_faults} and {require_epochs} were \
             required"
        );
    }
    if campaign.is_clean() && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_text(campaign: &Campaign, start: u64) {
    let (recovery, slowest) = campaign.slowest_recovery;
    println!("seeds             {} (from {start})", campaign.seeds);
    println!("views finalised   {}, {} with transactions", campaign.blocks, campaign.loaded_blocks);
    println!("epochs ended      {}", campaign.epochs);
    println!("payloads executed {}", campaign.payloads);
    println!("virtual hours     {:.2}", campaign.virtual_hours());
    println!("times real time   {} on one core", campaign.times_real_time());
    println!("steps             {}", campaign.steps);
    println!("steps per second  {} a core", campaign.steps_per_second());
    println!(
        "slowest recovery  {recovery} ms, {LIVENESS_BOUND} ms allowed, tenfold in remote networks (seed {slowest})"
    );
    println!("evidence found    {}, {} reported on chain", campaign.evidence, campaign.reported);
    println!("versions          {} activated", campaign.activations);
    println!("validators        {} changes", campaign.turnover.changes());
    for (turn, count) in campaign.turnover.by_way() {
        println!("  {:<23} {count}", turn.name());
    }
    println!("faults            {}", campaign.faults_injected());
    for (fault, count) in campaign.faults.by_kind() {
        println!("  {:<23} {count}", fault.name());
    }
    for missing in campaign.missing() {
        println!("MISSING           no {missing} in {} seeds: the simulator does not test it", campaign.seeds);
    }
    for (seed, violation) in &campaign.violations {
        println!("VIOLATION         seed {seed} {violation}");
    }
    println!("violations        {}", campaign.violations.len());
    println!("trace hash        {:016x}", campaign.hash);
    let replay = campaign.violations.first().map_or(start, |(seed, _)| *seed);
    println!("replay one seed   make sim SEED={replay}   (or bizra-sim --seed {replay} --trace)");
    let (real, busy) = (campaign.elapsed.as_secs_f64(), campaign.busy.as_secs_f64());
    println!("time              {real:.1} s on {} threads, {busy:.1} s of processor", campaign.jobs);
    println!("totals            {}", campaign.totals());
}

fn to_json(campaign: &Campaign, start: u64) -> serde_json::Value {
    let faults: serde_json::Map<String, serde_json::Value> =
        campaign.faults.by_kind().map(|(fault, count)| (fault.name().to_owned(), count.into())).collect();
    let turnover: serde_json::Map<String, serde_json::Value> =
        campaign.turnover.by_way().map(|(turn, count)| (turn.name().to_owned(), count.into())).collect();
    let violations: Vec<_> = campaign
        .violations
        .iter()
        .map(|(seed, violation)| {
            json!({ "seed": seed, "time_milliseconds": violation.time, "node": violation.node, "what": violation.what })
        })
        .collect();
    json!({
        "start": start,
        "seeds": campaign.seeds,
        "views_finalised": campaign.blocks,
        "epochs_ended": campaign.epochs,
        "payloads_executed": campaign.payloads,
        "views_with_transactions": campaign.loaded_blocks,
        "virtual_hours": campaign.virtual_hours(),
        "times_real_time_per_core": campaign.times_real_time(),
        "steps": campaign.steps,
        "steps_per_second_per_core": campaign.steps_per_second(),
        "slowest_recovery_milliseconds": campaign.slowest_recovery.0,
        "slowest_recovery_seed": campaign.slowest_recovery.1,
        "evidence_found": campaign.evidence,
        "evidence_reported": campaign.reported,
        "versions_activated": campaign.activations,
        "validator_changes": turnover,
        "faults": faults,
        "missing": campaign.missing(),
        "violations": violations,
        "trace_hash": format!("{:016x}", campaign.hash),
        "real_seconds": campaign.elapsed.as_secs_f64(),
        "processor_seconds": campaign.busy.as_secs_f64(),
    })
}
