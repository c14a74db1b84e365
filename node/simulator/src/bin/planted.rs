//! `bizra-planted`: plants one bug after the other into core and driver, and shows how soon the oracles find it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bizra_simplex::planted::{Bug, plant};
use bizra_simulator::campaign::{processor_nanoseconds, run_scenario};
use bizra_simulator::{Scenario, Trace, Violation};
use clap::Parser;

/// Bugs planted into core and driver; each must be found.
#[derive(Debug, Parser)]
#[command(name = "bizra-planted", version)]
struct Arguments {
    /// Longest search for one bug, in seconds of one processor.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Search for these bugs alone; all without.
    #[arg(long = "bug", value_parser = bug_of)]
    bugs: Vec<Bug>,
    /// Bugs searched for at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn bug_of(name: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
    Bug::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| format!("one of: {}", names()))
}

struct Found {
    bug: Bug,
    seeds: u64,
    /// Of the processor, where the system tells.
    after: Duration,
    real: Duration,
    violation: Option<Violation>,
}

/// Runs seeds until one shows the bug.
fn search(bug: Bug, limit: Duration) -> Found {
    plant(Some(bug));
    let (began, spent) = (Instant::now(), processor_nanoseconds());
    // Of the processor, where the system tells: other work on the machine does not count.
    let elapsed = || match (spent, processor_nanoseconds()) {
        (Some(before), Some(now)) => Duration::from_nanos(now.saturating_sub(before)),
        _ => began.elapsed(),
    };
    let mut seeds = 0_u64;
    let mut violation = None;
    while violation.is_none() && elapsed() < limit {
        seeds += 1;
        // Some bugs need many views to show.
        let long = seeds.is_multiple_of(16);
        let scenario = if long { Scenario::new(seeds) } else { Scenario::restless(seeds) };
        violation = run_scenario(scenario, Trace::Off).violations.into_iter().next();
    }
    plant(None);
    Found { bug, seeds, after: elapsed(), real: began.elapsed(), violation }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let bugs = if arguments.bugs.is_empty() { Bug::ALL.to_vec() } else { arguments.bugs };
    // A panic is an oracle too; its message is in the violation.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let (all_found, seeds) = (AtomicBool::new(true), AtomicU64::new(0));
    println!("{:<32} {:>6} {:>8} {:>8}  found by", "planted bug", "seed", "seconds", "real");
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = search(*bug, limit);
                    let by = result.violation.as_ref().map_or("NOT FOUND".to_owned(), |found| {
                        found.what.chars().take(90).collect::<String>().replace('\n', " ")
                    });
                    let seconds = result.after.as_secs_f64();
                    let real = result.real.as_secs_f64();
                    println!("{:<32} {:>6} {seconds:>8.2} {real:>8.2}  {by}", result.bug.name(), result.seeds);
                    all_found.fetch_and(result.violation.is_some(), Ordering::Relaxed);
                    seeds.fetch_add(result.seeds, Ordering::Relaxed);
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut times: Vec<Duration> = found.iter().map(|result| result.after).collect();
    times.sort_unstable();
    let hits = found.iter().filter(|result| result.violation.is_some()).count();
    println!(
        "found {hits} of {} planted bugs; median {:.2} s, slowest {:.2} s, {} seeds",
        found.len(),
        times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64),
        times.last().map_or(0.0, Duration::as_secs_f64),
        seeds.into_inner(),
    );
    if all_found.into_inner() && !found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
