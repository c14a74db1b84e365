//! Waiting, but not for ever.

use std::time::{Duration, Instant};

/// Whatever takes longer will not happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Looks until there is something. Blocking: what is waited for must have threads of its own.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
