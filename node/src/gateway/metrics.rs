//! Metrics of the edge.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What the gateway counts.
#[derive(Clone)]
pub struct GatewayMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) streams: IntGauge,
    pub(super) subscriptions: IntGauge,
}

impl GatewayMetrics {
    /// Makes and registers the metrics; fails if they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("bizra_gateway_requests_total", "Requests by interface, method and outcome."),
                &["interface", "method", "outcome"],
            )?,
            streams: IntGauge::new("bizra_gateway_submit_streams", "Open streams of submissions.")?,
            subscriptions: IntGauge::new("bizra_gateway_event_subscriptions", "Open subscriptions of events.")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.streams.clone()))?;
        registry.register(Box::new(metrics.subscriptions.clone()))?;
        Ok(metrics)
    }

    pub(super) fn count(&self, interface: &str, method: &str, outcome: &str) {
        self.requests.with_label_values(&[interface, method, outcome]).inc();
    }
}

/// Counts a subscription as open until it is dropped.
pub(super) struct OpenSubscription(IntGauge);

impl GatewayMetrics {
    pub(super) fn open_subscription(&self) -> OpenSubscription {
        self.subscriptions.inc();
        OpenSubscription(self.subscriptions.clone())
    }
}

impl Drop for OpenSubscription {
    fn drop(&mut self) {
        self.0.dec();
    }
}
