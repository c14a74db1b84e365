//! What all parts of a run share: options, chance, what was found, and the wish to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::FaultError;
use crate::leftovers::Leftovers;
use crate::random::Random;

/// Findings kept in full; the rest is counted.
const FINDINGS_MAX: usize = 100;

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) node: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) base_port: u16,
    pub(crate) rate: u32,
}

/// A run under way.
pub(crate) struct Campaign {
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) leftovers: Leftovers,
    pub(crate) interrupted: Arc<AtomicBool>,
    findings: Vec<String>,
    count: usize,
}

impl Campaign {
    pub(crate) fn new(options: Options, seed: u64, leftovers: Leftovers, interrupted: Arc<AtomicBool>) -> Self {
        Self { options, random: Random::new(seed), leftovers, interrupted, findings: Vec::new(), count: 0 }
    }

    /// Something that must not be.
    pub(crate) fn found(&mut self, what: String) {
        self.count += 1;
        if self.findings.len() < FINDINGS_MAX {
            println!("  FOUND {what}");
            self.findings.push(what);
        }
    }

    pub(crate) fn findings(&self) -> (&[String], usize) {
        (&self.findings, self.count)
    }

    /// Sleeps, but not when somebody wants the run to end.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), FaultError> {
        let until = Instant::now() + time;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(FaultError::Interrupted);
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            std::thread::sleep(rest.min(Duration::from_millis(50)));
        }
    }
}
