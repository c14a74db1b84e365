//! Keeps one noisy peer from filling the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One warning of a kind in this time.
const INTERVAL: Duration = Duration::from_secs(30);

/// Lets one call in thirty seconds through.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// True if the caller may log now.
    pub(super) fn allows(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let allowed = last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if allowed {
            *last = Some(now);
        }
        allowed
    }
}
