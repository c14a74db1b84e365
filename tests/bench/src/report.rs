//! One line a run, then what was aimed at and what came out.

use crate::load::{APPLIED_SHARE_MIN, Run};
use crate::signatures::CheckCost;

/// 95 of 100 transactions are final within this time, milliseconds.
const P95_MAX: f64 = 200.0;
/// 99 of 100 transactions are final within this time, milliseconds.
const P99_MAX: f64 = 500.0;
/// A signed transaction costs a validator at most so many times its signature check.
const CHECKS_MAX: f64 = 2.0;

/// Names of threads on the line that says where the time goes.
const THREADS_SHOWN: usize = 8;
/// Less than this of a transaction's time is not worth a place there, microseconds.
const THREAD_SHOWN_MIN: f64 = 0.1;

pub(crate) fn print_header() {
    println!(
        "{:>12} {:>9} {:>11} {:>8} {:>8} {:>8} {:>12} {:>9} {:>8} {:>8}",
        "", "offered/s", "finalised/s", "p50 ms", "p95 ms", "p99 ms", "CPU us/tx", "syncs/tx", "B/tx", "MiB"
    );
}

pub(crate) fn print_run(name: &str, run: &Run) {
    println!(
        "{name:>12} {:>9} {:>11.0} {:>8.1} {:>8.1} {:>8.1} {:>12.1} {:>9.4} {:>8.0} {:>8.0}",
        run.rate,
        run.number("/finalisedPerSecond"),
        run.number("/latencyMilliseconds/p50"),
        run.number("/latencyMilliseconds/p95"),
        run.number("/latencyMilliseconds/p99"),
        run.cpu_per_transaction(),
        run.syncs_per_transaction().unwrap_or_default(),
        run.bytes_per_transaction(),
        run.usage.resident_bytes_max / f64::from(1 << 20),
    );
}

/// Least and greatest of a figure over the runs.
pub(crate) fn spread(runs: &[Run], figure: impl Fn(&Run) -> f64) -> (f64, f64) {
    runs.iter().map(figure).fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
}

/// Holds the worst of the runs against the aims. `check` is none where signatures are not checked.
pub(crate) fn print_verdicts(runs: &[Run], check: Option<CheckCost>) {
    let line = |met: bool, what: &str, (least, most): (f64, f64), unit: &str, aim: &str| {
        let word = if met { "met   " } else { "missed" };
        println!("  {word} {what}: {least:.1} to {most:.1}{unit} in {} runs, aim {aim}", runs.len());
    };
    let share = spread(runs, |run| run.applied_share() * 100.0);
    line(share.0 >= APPLIED_SHARE_MIN * 100.0, "finalised", share, " %", "at least 99.9 %");
    let p95 = spread(runs, |run| run.number("/latencyMilliseconds/p95"));
    line(p95.1 < P95_MAX, "P95", p95, " ms", "below 200 ms");
    let p99 = spread(runs, |run| run.number("/latencyMilliseconds/p99"));
    line(p99.1 < P99_MAX, "P99", p99, " ms", "below 500 ms");
    let (least, most) = spread(runs, |run| run.number("/finalisedPerSecond"));
    println!("         finalised a second: {least:.0} to {most:.0}");
    let (least, most) = spread(runs, |run| run.syncs_per_transaction().unwrap_or_default());
    println!("         syncs a transaction: {least:.4} to {most:.4}");
    let (least, most) = spread(runs, Run::bytes_per_transaction);
    println!("         bytes written a transaction: {least:.0} to {most:.0}");
    let (least, most) = spread(runs, |run| run.usage.resident_bytes_max / f64::from(1 << 20));
    println!("         memory of the largest validator: {least:.0} to {most:.0} MiB");
    if let Some(run) = runs.last() {
        let threads = run.threads_per_transaction().take(THREADS_SHOWN);
        let threads = threads.map(|(name, time)| (name, time.as_f64().unwrap_or_default()));
        let threads = threads.filter(|(_, time)| *time >= THREAD_SHOWN_MIN);
        let threads: Vec<_> = threads.map(|(name, time)| format!("{name} {time:.1}")).collect();
        println!("         us of CPU a transaction by thread, last run: {}", threads.join(", "));
    }
    let (least, most) = spread(runs, |run| run.load_cpu_per_transaction().unwrap_or_default());
    println!("         the load, on the same processors: {least:.1} to {most:.1} us of CPU a transaction");
    if let Some(CheckCost { node, zebra }) = check {
        let checks = spread(runs, |run| run.cpu_per_transaction() / node);
        line(checks.1 <= CHECKS_MAX, "CPU a transaction, in bare checks", checks, "", "at most 2");
        let (least, most) = spread(runs, |run| run.cpu_per_transaction() / zebra);
        println!("         in batch checks of ed25519-zebra: {least:.1} to {most:.1}");
    }
}
