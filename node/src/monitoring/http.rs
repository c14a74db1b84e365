//! `/livez`, `/readyz` and `/metrics` on a port of their own.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bizra_proto::exit::{ExitReason, Termination};
use bizra_proto::v1::SyncState;
use prometheus::{IntGauge, Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::StatusHandle;

const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What can keep the endpoint from starting.
#[derive(Debug, thiserror::Error)]
pub enum MonitoringError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for monitoring: {source}; free the port or change `listen.monitoring`")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A metric of that name exists already.
    #[error("cannot register the metrics of the node: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<MonitoringError> for Termination {
    fn from(error: MonitoringError) -> Self {
        let reason = match &error {
            MonitoringError::Bind { .. } => ExitReason::AddressUnavailable,
            MonitoringError::Metrics(_) => ExitReason::InvalidConfiguration,
        };
        Self { reason, message: error.to_string() }
    }
}

/// The running endpoint.
pub struct MonitoringEndpoint {
    local_address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl MonitoringEndpoint {
    /// Listens and serves. Start it first: probes are answered while the rest is still opening.
    pub async fn start(listen: SocketAddr, registry: Registry, status: StatusHandle) -> Result<Self, MonitoringError> {
        let failed = |source| MonitoringError::Bind { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        let gauges = StatusGauges::register(&registry)?;
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { registry, status, gauges });
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the monitoring server failed");
            }
        });
        Ok(Self { local_address, stop, task })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Lets running requests end, for two seconds at most.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    status: StatusHandle,
    gauges: StatusGauges,
}

async fn livez(State(shared): State<Shared>) -> Response {
    answer("alive", shared.status.liveness())
}

async fn readyz(State(shared): State<Shared>) -> Response {
    answer("ready", shared.status.readiness())
}

fn answer(name: &str, state: Result<(), String>) -> Response {
    match state {
        Ok(()) => Json(json!({ name: true })).into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ name: false, "reason": reason }))).into_response()
        }
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    shared.gauges.refresh(&shared.status);
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The status in numbers, refreshed when somebody looks.
#[derive(Clone)]
struct StatusGauges {
    finalized_height: IntGauge,
    network_height: IntGauge,
    view: IntGauge,
    last_voted_height: IntGauge,
    in_sync: IntGauge,
    ready: IntGauge,
}

impl StatusGauges {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            finalized_height: gauge("bizra_finalized_height", "Height of the latest finalised block.")?,
            network_height: gauge("bizra_network_height", "Highest finalised height any peer has reported.")?,
            view: gauge("bizra_view", "Current view.")?,
            last_voted_height: gauge("bizra_last_voted_height", "Latest finalised block this node's key signed.")?,
            in_sync: gauge("bizra_in_sync", "1 if the node is in sync.")?,
            ready: gauge("bizra_ready", "1 if the node is in sync and, for a validator, able to vote.")?,
        })
    }

    fn refresh(&self, status: &StatusHandle) {
        let now = status.current();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.finalized_height.set(number(now.finalized_height));
        self.network_height.set(number(now.network_height));
        self.view.set(number(now.view));
        self.last_voted_height.set(number(now.last_voted_height));
        self.in_sync.set(i64::from(now.sync_state() == SyncState::InSync));
        self.ready.set(i64::from(status.readiness().is_ok()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_proto::v1::{NodeStatus, SigningState};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_follow_the_status() {
        let status = StatusHandle::new(NodeStatus::default());
        let registry = crate::monitoring::registry().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let endpoint = MonitoringEndpoint::start(listen, registry, status.clone()).await.unwrap();
        let address = endpoint.local_address();
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("\"reason\":\"starting\""), "{unready}");
        status.update(|status| {
            status.set_sync_state(SyncState::InSync);
            status.set_signing_state(SigningState::Allowed);
            status.finalized_height = 42;
        });
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("bizra_finalized_height 42"), "{metrics}");
        assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
        endpoint.shutdown().await;
    }
}
