//! Metrics of the operator. Labels never hold names of objects.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
    exponential_buckets,
};

/// All metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Reconciliations by kind and outcome.
    pub reconciliations: IntCounterVec,
    /// Their duration in seconds, by kind.
    pub reconcile_seconds: HistogramVec,
    /// How long objects were due before a worker took them, in seconds, by kind.
    pub queue_seconds: HistogramVec,
    /// Objects that are due and wait for a worker, by kind.
    pub queue_depth: IntGaugeVec,
    /// Objects in the caches, by kind.
    pub cached_objects: IntGaugeVec,
    /// Reads of controllers: answered by a cache, or by the API server.
    pub cache_reads: IntCounterVec,
    /// Requests to the API server by verb, resource and result.
    pub api_calls: IntCounterVec,
    /// Writes by verb and result.
    pub writes: IntCounterVec,
    /// Questions to nodes by result.
    pub probes: IntCounterVec,
    /// Evictions for a planned change, by what they needed and whether it stood.
    pub permits: IntCounterVec,
    /// Pods replaced to repair their node, by cause and action.
    pub repairs: IntCounterVec,
    /// Troubles of nodes that were told, by reason of the condition `Degraded`.
    pub troubles: IntCounterVec,
    /// 1 while this process leads.
    pub leader: IntGauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("bizra_operator".to_owned()), None)?;
        let metrics = Self {
            reconciliations: register(
                &registry,
                IntCounterVec::new(Opts::new("reconciliations_total", "Reconciliations."), &["kind", "outcome"])?,
            )?,
            reconcile_seconds: register(
                &registry,
                HistogramVec::new(seconds("reconcile_seconds", "Time of a reconciliation.")?, &["kind"])?,
            )?,
            queue_seconds: register(
                &registry,
                HistogramVec::new(
                    seconds("queue_seconds", "Time an object was due before a worker took it.")?,
                    &["kind"],
                )?,
            )?,
            queue_depth: register(
                &registry,
                IntGaugeVec::new(Opts::new("queue_depth", "Objects that are due and wait for a worker."), &["kind"])?,
            )?,
            cached_objects: register(
                &registry,
                IntGaugeVec::new(Opts::new("cached_objects", "Objects in the caches."), &["kind"])?,
            )?,
            cache_reads: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("reads_total", "Reads of controllers, by who answered: a cache, or the API server."),
                    &["source"],
                )?,
            )?,
            api_calls: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("api_calls_total", "Requests to the API server."),
                    &["verb", "resource", "result"],
                )?,
            )?,
            writes: register(
                &registry,
                IntCounterVec::new(Opts::new("writes_total", "Writes to the API server."), &["verb", "result"])?,
            )?,
            probes: register(
                &registry,
                IntCounterVec::new(Opts::new("probes_total", "Questions to nodes' admin ports."), &["result"])?,
            )?,
            permits: register(
                &registry,
                IntCounterVec::new(Opts::new("permits_total", "Evictions for planned changes."), &["result"])?,
            )?,
            repairs: register(
                &registry,
                IntCounterVec::new(Opts::new("repairs_total", "Pods replaced for a repair."), &["cause", "action"])?,
            )?,
            troubles: register(
                &registry,
                IntCounterVec::new(Opts::new("troubles_total", "Troubles of nodes, when they begin."), &["reason"])?,
            )?,
            leader: register(&registry, IntGauge::new("leader", "1 while this process leads.")?)?,
            registry,
        };
        Ok(metrics)
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// A histogram from half a millisecond to half a minute.
fn seconds(name: &str, help: &str) -> Result<HistogramOpts, prometheus::Error> {
    Ok(HistogramOpts::new(name, help).buckets(exponential_buckets(0.0005, 2.0, 17)?))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
