//! Metrics of consensus.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// What the driver thread counts.
#[derive(Clone)]
pub struct ConsensusMetrics {
    pub(super) finalized_height: IntGauge,
    pub(super) view: IntGauge,
    pub(super) unordered_batches: IntGauge,
    pub(super) turns: IntCounter,
    pub(super) turn_seconds: Histogram,
    pub(super) syncs: IntCounter,
    pub(super) record_syncs: IntCounter,
    pub(super) malformed_frames: IntCounter,
    pub(super) evidence: IntCounter,
    pub(super) protocol_version: IntGauge,
    pub(super) supported_version: IntGauge,
    pub(super) newer_power: IntGauge,
}

impl ConsensusMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 16)?;
        let turn_seconds = Histogram::with_opts(
            HistogramOpts::new("bizra_consensus_turn_seconds", "Time of one turn of the driver, syncs included")
                .buckets(buckets),
        )?;
        registry.register(Box::new(turn_seconds.clone()))?;
        Ok(Self {
            finalized_height: gauge("bizra_consensus_finalized_height", "Height of the last finalised block")?,
            view: gauge("bizra_consensus_view", "Current view")?,
            unordered_batches: gauge("bizra_consensus_unordered_batches", "Verified batches not ordered yet")?,
            turns: counter("bizra_consensus_turns_total", "Turns of the driver")?,
            turn_seconds,
            syncs: counter("bizra_consensus_syncs_total", "Turns that waited for the disk")?,
            record_syncs: counter(
                "bizra_consensus_record_syncs_total",
                "Syncs of the signing record, beside the others",
            )?,
            malformed_frames: counter("bizra_consensus_malformed_frames_total", "Frames that did not decode")?,
            evidence: counter("bizra_consensus_evidence_total", "Pairs of contradicting votes seen")?,
            protocol_version: gauge("bizra_consensus_protocol_version", "Version of the rules of the present epoch")?,
            supported_version: gauge(
                "bizra_consensus_supported_protocol_version",
                "Highest version of the rules this binary goes by",
            )?,
            newer_power: gauge(
                "bizra_consensus_newer_protocol_power",
                "Power of validators that go by a newer version than this binary: above two thirds it must be upgraded",
            )?,
        })
    }
}
