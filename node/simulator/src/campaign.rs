//! Many seeds, on several threads, with one result that does not depend on their number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::audit::Turnover;
use crate::faults::{Fault, Faults};
use crate::oracle::Violation;
use crate::random::fold;
use crate::scenario::Scenario;
use crate::world::{Report, Trace, World};

/// From this many seeds on, every kind of fault must have happened.
pub const COVERING_SEEDS: u64 = 200;

/// What came of many runs.
#[derive(Debug)]
pub struct Campaign {
    /// Seeds run.
    pub seeds: u64,
    /// Blocks finalised, each in a view of its own; sum over the runs.
    pub blocks: u64,
    /// Those of them that order something.
    pub loaded_blocks: u64,
    /// Sum over the runs.
    pub epochs: u64,
    /// Sum over the runs.
    pub payloads: u64,
    /// Sum over the runs.
    pub steps: u64,
    /// Sum over the runs.
    pub evidence: u64,
    /// Sum over the runs.
    pub reported: u64,
    /// Sum over the runs.
    pub activations: u64,
    /// Sum over the runs.
    pub turnover: Turnover,
    /// Sum over the runs.
    pub virtual_milliseconds: u64,
    /// Longest recovery after the end of faults, in virtual milliseconds, and its seed.
    pub slowest_recovery: (u64, u64),
    /// Sum over the runs.
    pub faults: Faults,
    /// Seeds that broke a promise.
    pub violations: Vec<(u64, Violation)>,
    /// Every run's hash, folded in the order of seeds.
    pub hash: u64,
    /// The hash of each seed.
    pub hashes: Vec<(u64, u64)>,
    /// Real time.
    pub elapsed: Duration,
    /// Processor time of all threads; real time where the system does not tell.
    pub busy: Duration,
    /// Threads.
    pub jobs: u64,
}

/// Runs one seed. A panic of the core or the driver is a violation like any other.
pub fn run_seed(seed: u64, trace: Trace) -> Report {
    run_scenario(Scenario::new(seed), trace)
}

/// The same for any scenario.
pub fn run_scenario(scenario: Scenario, trace: Trace) -> Report {
    let seed = scenario.seed;
    let run = || World::new(scenario, trace).run();
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(report) => return report,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
        }
    };
    Report {
        seed,
        violations: vec![Violation { time: 0, node: 0, what: failure }],
        hash: 0,
        steps: 0,
        blocks: 0,
        loaded_blocks: 0,
        epochs: 0,
        payloads: 0,
        evidence: 0,
        reported: 0,
        activations: 0,
        turnover: Turnover::default(),
        virtual_milliseconds: 0,
        recovery_milliseconds: 0,
        faults: Faults::default(),
    }
}

/// Runs `seeds` seeds from `start` on `jobs` threads.
pub fn run(start: u64, seeds: u64, jobs: u64) -> Campaign {
    run_within(start, seeds, jobs, Duration::MAX)
}

/// The same, but begins no seed after `limit` of real time. The result depends on how far it came.
pub fn run_within(start: u64, seeds: u64, jobs: u64, limit: Duration) -> Campaign {
    let began = Instant::now();
    let next = AtomicU64::new(start);
    let reports = Mutex::new(Vec::new());
    let busy = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let thread_began = Instant::now();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start.saturating_add(seeds) || began.elapsed() >= limit {
                        break;
                    }
                    let report = run_seed(seed, Trace::Off);
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
                let spent = processor_nanoseconds().unwrap_or_else(|| thread_began.elapsed().as_nanos() as u64);
                busy.fetch_add(spent, Ordering::Relaxed);
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|report| report.seed);
    let busy = Duration::from_nanos(busy.into_inner());
    collect(&reports, jobs.max(1), began.elapsed(), busy)
}

/// What this thread has used of a processor, by Linux' account. Other work on the machine does not count.
pub fn processor_nanoseconds() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

fn collect(reports: &[Report], jobs: u64, elapsed: Duration, busy: Duration) -> Campaign {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum();
    let (mut faults, mut turnover) = (Faults::default(), Turnover::default());
    for report in reports {
        faults.add(&report.faults);
        turnover.add(&report.turnover);
    }
    let all = reports.iter().flat_map(|report| report.violations.iter().map(|what| (report.seed, what.clone())));
    Campaign {
        seeds: reports.len() as u64,
        blocks: sum(|report| report.blocks),
        loaded_blocks: sum(|report| report.loaded_blocks),
        epochs: sum(|report| report.epochs),
        payloads: sum(|report| report.payloads),
        steps: sum(|report| report.steps),
        evidence: sum(|report| report.evidence),
        reported: sum(|report| report.reported),
        activations: sum(|report| report.activations),
        turnover,
        virtual_milliseconds: sum(|report| report.virtual_milliseconds),
        slowest_recovery: reports
            .iter()
            .map(|report| (report.recovery_milliseconds, report.seed))
            .max()
            .unwrap_or((0, 0)),
        faults,
        violations: all.collect(),
        hash: reports.iter().fold(0, |hash, report| fold(fold(hash, report.seed), report.hash)),
        hashes: reports.iter().map(|report| (report.seed, report.hash)).collect(),
        elapsed,
        busy,
        jobs,
    }
}

/// Runs seeds twice, on other numbers of threads. Hands back the campaign and the seeds that differed.
pub fn run_twice(start: u64, seeds: u64, jobs: u64) -> (Campaign, Vec<u64>) {
    let (once, again) = (run(start, seeds, jobs), run(start, seeds, jobs + 1));
    let pairs = once.hashes.iter().zip(&again.hashes);
    let different = pairs.filter(|(left, right)| left != right).map(|((seed, _), _)| *seed).collect();
    (once, different)
}

impl Campaign {
    /// Turns of drivers per second of one core.
    pub fn steps_per_second(&self) -> u64 {
        let rate = u128::from(self.steps) * 1_000_000 / self.busy.as_micros().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Virtual time by processor time: how many times faster than real time one core simulates.
    pub fn times_real_time(&self) -> u64 {
        let ratio = u128::from(self.virtual_milliseconds) * 1_000 / self.busy.as_micros().max(1);
        u64::try_from(ratio).unwrap_or(u64::MAX)
    }

    /// Kinds of faults, and ways in which validators change, that a campaign of this size should have shown and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        if self.seeds < COVERING_SEEDS {
            return Vec::new();
        }
        let unchanged = self.turnover.by_way().filter(|(_, count)| *count == 0).map(|(turn, _)| turn.name());
        self.faults.missing().into_iter().chain(unchanged).collect()
    }

    /// True if nothing was broken, the simulator's own duties included.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.missing().is_empty()
    }

    /// Virtual time of all runs, in hours.
    pub fn virtual_hours(&self) -> f64 {
        self.virtual_milliseconds as f64 / 3_600_000.0
    }

    /// All of it in one line.
    pub fn totals(&self) -> String {
        let kinds = self.faults.by_kind().filter(|(_, count)| *count > 0).count();
        format!(
            "{} views finalised ({} % with transactions), {} epochs with {} changes of validators, {} faults of {kinds} kinds, \
             {:.1} virtual hours, {} seeds, {} times real time on one core, {} violations, hash {:016x}",
            self.blocks,
            self.loaded_blocks * 100 / self.blocks.max(1),
            self.epochs,
            self.turnover.changes(),
            self.faults_injected(),
            self.virtual_hours(),
            self.seeds,
            self.times_real_time(),
            self.violations.len(),
            self.hash
        )
    }

    /// All faults injected.
    pub fn faults_injected(&self) -> u64 {
        Fault::ALL.iter().map(|fault| self.faults.of(*fault)).sum()
    }
}
