//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::RunArgs;
use super::stream::Outcome;

/// Collects the outcomes of all streams.
pub(super) struct Report {
    summary: Summary,
    latency: Option<Histogram<u64>>,
}

/// The figures of a run, as they are printed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How many nodes were loaded.
    pub targets: usize,
    /// Transactions a second, as asked for.
    pub rate: u32,
    /// How many accounts sent.
    pub accounts: u32,
    /// Size of each transaction.
    pub transaction_bytes: u32,
    /// Transactions that were scheduled.
    pub offered: u64,
    /// Transactions that were handed to a connection.
    pub sent: u64,
    /// Transactions a node accepted for ordering.
    pub admitted: u64,
    /// Transactions a node did not accept, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Transactions with a receipt.
    pub finalised: u64,
    /// Transactions that changed the ledger.
    pub applied: u64,
    /// Transactions with a failed receipt, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Transactions that were neither rejected nor finalised when the run ended.
    pub unanswered: u64,
    /// From the start to the last receipt.
    pub elapsed_seconds: f64,
    /// Receipts over the elapsed time.
    pub finalised_per_second: f64,
    /// From the scheduled submit to the notice of finality.
    pub latency_milliseconds: Latency,
    /// What broke streams.
    pub errors: Vec<String>,
}

/// Percentiles, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half of the transactions were faster.
    pub p50: f64,
    /// 95 of 100 were faster.
    pub p95: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Report {
    pub(super) fn new(arguments: &RunArgs) -> Self {
        let summary = Summary {
            targets: arguments.targets.len(),
            rate: arguments.rate.get(),
            accounts: arguments.accounts.get(),
            transaction_bytes: 256,
            ..Summary::default()
        };
        Self { summary, latency: None }
    }

    pub(super) fn add(&mut self, outcome: Outcome, start: Instant) {
        let summary = &mut self.summary;
        summary.offered += outcome.offered;
        summary.sent += outcome.sent;
        summary.admitted += outcome.admitted;
        summary.applied += outcome.applied;
        for (total, counts) in [(&mut summary.rejected, outcome.rejected), (&mut summary.failed, outcome.failed)] {
            for (reason, count) in counts {
                *total.entry(reason).or_default() += count;
            }
        }
        summary.errors.extend(outcome.error);
        if let Some(last) = outcome.last_receipt {
            summary.elapsed_seconds = summary.elapsed_seconds.max(last.duration_since(start).as_secs_f64());
        }
        match &mut self.latency {
            // Both have the same bounds and resolution.
            Some(latency) => drop(latency.add(&outcome.latency)),
            None => self.latency = Some(outcome.latency),
        }
    }

    pub(super) fn summary(mut self) -> Summary {
        let summary = &mut self.summary;
        summary.finalised = summary.applied + summary.failed.values().sum::<u64>();
        let answered = summary.finalised + summary.rejected.values().sum::<u64>();
        summary.unanswered = summary.offered.saturating_sub(answered);
        if summary.elapsed_seconds > 0.0 {
            summary.finalised_per_second = summary.finalised as f64 / summary.elapsed_seconds;
        }
        if let Some(latency) = &self.latency {
            let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
            summary.latency_milliseconds =
                Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: latency.max() as f64 / 1000.0 };
        }
        self.summary
    }
}

impl Summary {
    /// The figures for people.
    pub fn text(&self) -> String {
        let counts = |counts: &BTreeMap<String, u64>| {
            let total: u64 = counts.values().sum();
            let reasons: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            if total == 0 { "0".to_owned() } else { format!("{total} ({})", reasons.join(", ")) }
        };
        let Latency { p50, p95, p99, max } = self.latency_milliseconds;
        let mut text = format!(
            "offered     {}  ({} a second, {} bytes each, {} accounts, {} targets)\n\
             admitted    {}\n\
             rejected    {}\n\
             finalised   {}  ({:.0} a second)\n\
             failed      {}\n\
             unanswered  {}\n\
             latency     p50 {p50:.1} ms  p95 {p95:.1} ms  p99 {p99:.1} ms  max {max:.1} ms",
            self.offered,
            self.rate,
            self.transaction_bytes,
            self.accounts,
            self.targets,
            self.admitted,
            counts(&self.rejected),
            self.finalised,
            self.finalised_per_second,
            counts(&self.failed),
            self.unanswered,
        );
        for error in &self.errors {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nerror       {error}");
        }
        text
    }
}
