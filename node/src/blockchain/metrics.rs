//! Metrics of the ledger.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

use bizra_ledger::Failure;

/// Label of an applied transaction.
const APPLIED: &str = "Applied";

/// What the ledger counts.
#[derive(Clone)]
pub struct LedgerMetrics {
    pub(super) receipts: IntCounterVec,
    pub(super) duplicates: prometheus::IntCounter,
    pub(super) executed_height: IntGauge,
    pub(super) execution_seconds: Histogram,
}

impl LedgerMetrics {
    /// Makes and registers the metrics; fails if they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            receipts: IntCounterVec::new(
                Opts::new("bizra_ledger_receipts_total", "Executed transactions by outcome."),
                &["outcome"],
            )?,
            duplicates: prometheus::IntCounter::new(
                "bizra_ledger_duplicates_total",
                "Ordered transactions that were skipped because they already had a receipt.",
            )?,
            executed_height: IntGauge::new("bizra_ledger_executed_height", "Height of the last executed block.")?,
            execution_seconds: Histogram::with_opts(
                HistogramOpts::new("bizra_ledger_execution_seconds", "Time to execute one block.")
                    .buckets(prometheus::exponential_buckets(0.000_1, 2.0, 14)?),
            )?,
        };
        registry.register(Box::new(metrics.receipts.clone()))?;
        registry.register(Box::new(metrics.duplicates.clone()))?;
        registry.register(Box::new(metrics.executed_height.clone()))?;
        registry.register(Box::new(metrics.execution_seconds.clone()))?;
        // A series that exists from the start can be alerted on before its first event.
        let outcomes = Failure::ALL.map(Failure::reason).into_iter().chain([APPLIED]);
        outcomes.for_each(|outcome| metrics.receipts.with_label_values(&[outcome]).reset());
        Ok(metrics)
    }

    pub(super) fn count_receipt(&self, failure: Option<Failure>, count: u64) {
        self.receipts.with_label_values(&[failure.map_or(APPLIED, Failure::reason)]).inc_by(count);
    }
}
