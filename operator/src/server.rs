//! `/healthz`, `/readyz` and `/metrics`. Served from the start, by a replica that waits for leadership too.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::metrics::Metrics;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Health {
    /// True once the custom resources were found in the API server.
    pub ready: Arc<AtomicBool>,
    /// The metrics.
    pub metrics: Metrics,
}

/// The endpoints.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the custom resource definitions of bizra.io are not installed; apply crds/ or the Helm chart",
        )
    }
}

async fn metrics(State(health): State<Health>) -> Result<String, StatusCode> {
    health.metrics.render().map_err(|error| {
        tracing::warn!(%error, "metrics could not be rendered");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}
