//! What the node shows of itself: logs, metrics, liveness, readiness and its status.
//!
//! The room owns the status that consensus fills; it never asks consensus anything.

pub mod http;
pub mod logging;
pub mod status;

pub use http::{MonitoringEndpoint, MonitoringError};
pub use logging::LogFormat;
pub use status::StatusHandle;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;

/// A registry with the metrics of the process: CPU seconds, memory, open files.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}
