//! What the network counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::queue::Lane;

/// Counters of one lane.
#[derive(Debug)]
pub(super) struct LaneMetrics {
    pub(super) frames_sent: IntCounter,
    pub(super) bytes_sent: IntCounter,
    pub(super) frames_received: IntCounter,
    pub(super) bytes_received: IntCounter,
    pub(super) frames_dropped: IntCounter,
}

/// All metrics of the network.
#[derive(Debug)]
pub(super) struct NetworkMetrics {
    pub(super) connected_peers: IntGauge,
    pub(super) streams_refused: IntCounter,
    consensus: LaneMetrics,
    data: LaneMetrics,
}

impl NetworkMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let frames = counters("bizra_network_frames_total", "Frames to and from peers.", &["direction", "lane"])?;
        let bytes = counters("bizra_network_bytes_total", "Frame bytes to and from peers.", &["direction", "lane"])?;
        let dropped = counters(
            "bizra_network_frames_dropped_total",
            "Frames to peers dropped because a queue was full or the frame too long.",
            &["lane"],
        )?;
        let connected_peers = IntGauge::new("bizra_network_connected_peers", "Peers that accept our frames.")?;
        let streams_refused =
            IntCounter::new("bizra_network_streams_refused_total", "Streams of peers refused at their Hello.")?;
        registry.register(Box::new(connected_peers.clone()))?;
        registry.register(Box::new(streams_refused.clone()))?;
        let lane = |lane: Lane| LaneMetrics {
            frames_sent: frames.with_label_values(&["sent", lane.name()]),
            bytes_sent: bytes.with_label_values(&["sent", lane.name()]),
            frames_received: frames.with_label_values(&["received", lane.name()]),
            bytes_received: bytes.with_label_values(&["received", lane.name()]),
            frames_dropped: dropped.with_label_values(&[lane.name()]),
        };
        Ok(Self { connected_peers, streams_refused, consensus: lane(Lane::Consensus), data: lane(Lane::Data) })
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneMetrics {
        match lane {
            Lane::Consensus => &self.consensus,
            Lane::Data => &self.data,
        }
    }
}
