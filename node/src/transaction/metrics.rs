//! Metrics of admission.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What admission counts.
#[derive(Clone)]
pub struct TransactionMetrics {
    pub(super) admitted: IntCounter,
    pub(super) rejected: IntCounterVec,
    pending: IntGauge,
    pub(super) released: IntCounter,
    pub(super) verified_at_once: Histogram,
    pub(super) verify_seconds: Histogram,
    pub(super) batch_bytes: Histogram,
    pub(super) batch_transactions: Histogram,
}

impl TransactionMetrics {
    /// Makes and registers the metrics; fails if they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, start: f64, count: usize| -> Result<Histogram, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(start, 2.0, count)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let metrics = Self {
            admitted: IntCounter::new("bizra_transaction_admitted_total", "Transactions accepted for ordering.")?,
            rejected: IntCounterVec::new(
                Opts::new("bizra_transaction_rejected_total", "Transactions not accepted, by reason."),
                &["reason"],
            )?,
            pending: IntGauge::new("bizra_transaction_pending", "Admitted transactions that are not finalised yet.")?,
            released: IntCounter::new(
                "bizra_transaction_released_total",
                "Admitted transactions given up because their expiry height or the time limit passed.",
            )?,
            verified_at_once: histogram(
                "bizra_transaction_verified_at_once",
                "Client signatures checked in one go at admission.",
                1.0,
                11,
            )?,
            verify_seconds: histogram(
                "bizra_transaction_verify_seconds",
                "Time to check the signatures of one admission.",
                0.000_05,
                12,
            )?,
            batch_bytes: histogram("bizra_transaction_batch_bytes", "Size of packed batches.", 256.0, 12)?,
            batch_transactions: histogram("bizra_transaction_batch_size", "Transactions in packed batches.", 1.0, 12)?,
        };
        registry.register(Box::new(metrics.admitted.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.released.clone()))?;
        Ok(metrics)
    }

    pub(super) fn set_pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
