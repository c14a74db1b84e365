//! What the network counts. Labels are lanes and reasons, never names: their number does not grow with the network.

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
    pub(super) frames_delayed: IntCounter,
}

/// All metrics of the network.
#[derive(Debug)]
pub(super) struct NetworkMetrics {
    pub(super) peers: IntGauge,
    pub(super) connected_peers: IntGauge,
    pub(super) connections_refused: IntCounter,
    pub(super) questions_refused: IntCounter,
    pub(super) shut_out: IntCounter,
    streams_refused: IntCounterVec,
    peers_refused: IntCounterVec,
    lanes: [LaneMetrics; Lane::COUNT],
}

impl NetworkMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let frames = counters("bizra_network_frames_total", "Frames to and from peers.", &["direction", "lane"])?;
        let bytes = counters("bizra_network_bytes_total", "Frame bytes to and from peers.", &["direction", "lane"])?;
        let dropped = counters(
            "bizra_network_frames_dropped_total",
            "Frames to peers dropped because a queue was full or the frame too long.",
            &["lane"],
        )?;
        let delayed = counters(
            "bizra_network_frames_delayed_total",
            "Frames of peers that waited because the peer had used up its budget.",
            &["lane"],
        )?;
        let lane = |lane: Lane| LaneMetrics {
            frames_sent: frames.with_label_values(&["sent", lane.name()]),
            bytes_sent: bytes.with_label_values(&["sent", lane.name()]),
            frames_received: frames.with_label_values(&["received", lane.name()]),
            bytes_received: bytes.with_label_values(&["received", lane.name()]),
            frames_dropped: dropped.with_label_values(&[lane.name()]),
            frames_delayed: delayed.with_label_values(&[lane.name()]),
        };
        Ok(Self {
            peers: gauge("bizra_network_peers", "Configured peers.")?,
            connected_peers: gauge("bizra_network_connected_peers", "Peers that accept our frames.")?,
            connections_refused: counter(
                "bizra_network_connections_refused_total",
                "Connections that ended in the TLS handshake or for want of a place.",
            )?,
            questions_refused: counter(
                "bizra_network_questions_refused_total",
                "Questions of peers left unanswered because the peer had used up its budget of answers.",
            )?,
            shut_out: counter(
                "bizra_network_peers_shut_out_total",
                "Times a peer was shut out for a while after too many malformed frames.",
            )?,
            streams_refused: counters(
                "bizra_network_streams_refused_total",
                "Streams of peers refused at their Hello.",
                &["reason"],
            )?,
            peers_refused: counters(
                "bizra_network_peers_refused_total",
                "Peers dialled and not sent to, because of what they did not prove.",
                &["reason"],
            )?,
            lanes: Lane::ALL.map(lane),
        })
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneMetrics {
        let [consensus, data, sync] = &self.lanes;
        match lane {
            Lane::Consensus => consensus,
            Lane::Data => data,
            Lane::Sync => sync,
        }
    }

    /// A stream is refused, for one of a fixed set of reasons.
    pub(super) fn stream_refused(&self, reason: &'static str) {
        self.streams_refused.with_label_values(&[reason]).inc();
    }

    /// A peer that was dialled is refused, for one of a fixed set of reasons.
    pub(super) fn peer_refused(&self, reason: &'static str) {
        self.peers_refused.with_label_values(&[reason]).inc();
    }
}
