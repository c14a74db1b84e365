//! `bizra-planted`: plants one bug after the other into core and driver, and shows how soon the oracles find it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bizra_simplex::planted::{Bug, plant};
use bizra_simulator::campaign::{processor_nanoseconds, run_scenario};
use bizra_simulator::{Scenario, Trace, Violation};
use clap::Parser;

/// Bugs planted into core and driver; each must be found.
#[derive(Debug, Parser)]
#[command(name = "bizra-planted", version)]
struct Arguments {
    /// Longest search for one bug, in seconds of the processor, all threads together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Search for these bugs alone; all without.
    #[arg(long = "bug", value_parser = bug_of)]
    bugs: Vec<Bug>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
}

fn bug_of(name: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
    Bug::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| format!("one of: {}", names()))
}

struct Found {
    bug: Bug,
    seeds: u64,
    /// Of the processor, all threads together, where the system tells: other work on the machine does not count.
    spent: Duration,
    real: Duration,
    /// The first seed that shows the bug, and how.
    violation: Option<(u64, Violation)>,
}

/// Runs seeds on all threads until one shows the bug. Which one is found does not depend on their number: seeds are handed
/// out in order, and none that was begun is given up.
fn search(bug: Bug, start: u64, limit: Duration, jobs: u32) -> Found {
    let began = Instant::now();
    let (next, shown) = (AtomicU64::new(start), AtomicBool::new(false));
    let work = || {
        plant(Some(bug));
        let (began, spent) = (Instant::now(), processor_nanoseconds());
        let elapsed = || match (spent, processor_nanoseconds()) {
            (Some(before), Some(now)) => Duration::from_nanos(now.saturating_sub(before)),
            _ => began.elapsed(),
        };
        let mut violation = None;
        while violation.is_none() && !shown.load(Ordering::Relaxed) && elapsed() < limit / jobs {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Some bugs need many views to show.
            let scenario = if seed.is_multiple_of(16) { Scenario::new(seed) } else { Scenario::restless(seed) };
            violation = run_scenario(scenario, Trace::Off).violations.into_iter().next().map(|found| (seed, found));
            shown.fetch_or(violation.is_some(), Ordering::Relaxed);
        }
        (violation, elapsed())
    };
    let results: Vec<(Option<(u64, Violation)>, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let spent = results.iter().map(|(_, spent)| *spent).sum();
    let violation = results.into_iter().filter_map(|(violation, _)| violation).min_by_key(|(seed, _)| *seed);
    Found { bug, seeds: next.into_inner() - start, spent, real: began.elapsed(), violation }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let bugs = if arguments.bugs.is_empty() { Bug::ALL.to_vec() } else { arguments.bugs };
    // A panic is an oracle too; its message is in the violation.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<32} {:>6} {:>8} {:>8}  found by", "planted bug", "seed", "seconds", "real");
    let mut found = Vec::new();
    for bug in bugs {
        let result = search(bug, arguments.start, limit, arguments.jobs.max(1));
        let (seed, by) = result.violation.as_ref().map_or(("-".to_owned(), "NOT FOUND".to_owned()), |(seed, found)| {
            (seed.to_string(), found.what.chars().take(90).collect::<String>().replace('\n', " "))
        });
        let (spent, real) = (result.spent.as_secs_f64(), result.real.as_secs_f64());
        println!("{:<32} {seed:>6} {spent:>8.2} {real:>8.2}  {by}", result.bug.name());
        found.push(result);
    }
    let mut times: Vec<Duration> = found.iter().map(|result| result.spent).collect();
    times.sort_unstable();
    let hits = found.iter().filter(|result| result.violation.is_some()).count();
    println!(
        "found {hits} of {} planted bugs; median {:.2} s, slowest {:.2} s of the processor, {} seeds",
        found.len(),
        times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64),
        times.last().map_or(0.0, Duration::as_secs_f64),
        found.iter().map(|result| result.seeds).sum::<u64>(),
    );
    if hits == found.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
