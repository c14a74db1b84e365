//! One line a run.

use crate::Run;

pub(crate) fn print_header() {
    println!(
        "{:>12} {:>9} {:>10} {:>9} {:>9} {:>9} {:>14} {:>9}",
        "", "offered/s", "finalised/s", "p50 ms", "p95 ms", "p99 ms", "CPU us/tx/node", "MiB/node"
    );
}

pub(crate) fn print_run(name: &str, run: &Run) {
    println!(
        "{name:>12} {:>9} {:>11.0} {:>9.1} {:>9.1} {:>9.1} {:>14.1} {:>9.0}",
        run.rate,
        run.number("/finalisedPerSecond"),
        run.number("/latencyMilliseconds/p50"),
        run.number("/latencyMilliseconds/p95"),
        run.number("/latencyMilliseconds/p99"),
        run.cpu_per_transaction(),
        run.usage.resident_bytes_max / f64::from(1 << 20),
    );
}
