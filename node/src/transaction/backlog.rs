//! How many admitted transactions may wait for finality. More than the chain finalises within a moment would only wait
//! longer: their clients are better told at once.

use std::time::{Duration, Instant};

/// How long the last of the backlog should wait for its finality, about.
const WAIT_AIM: Duration = Duration::from_secs(2);

/// So many may always wait: a burst after silence, or while the chain stands still for a moment.
const BACKLOG_MIN: usize = 8_192;

/// More never wait, whatever the rate; about 200 bytes each.
const BACKLOG_MAX: usize = 262_144;

/// Counts what became final of the transactions admitted here, in windows of [`WAIT_AIM`]: a backlog of as many takes about
/// that long (Little's law).
pub(super) struct Backlog {
    window_start: Instant,
    in_this_window: usize,
    in_last_window: usize,
}

impl Backlog {
    pub(super) fn new(now: Instant) -> Self {
        Self { window_start: now, in_this_window: 0, in_last_window: 0 }
    }

    /// One of them is final.
    pub(super) fn finalised(&mut self, now: Instant) {
        self.turn(now);
        self.in_this_window = self.in_this_window.saturating_add(1);
    }

    /// How many may wait now.
    pub(super) fn limit(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.in_this_window.max(self.in_last_window).clamp(BACKLOG_MIN, BACKLOG_MAX)
    }

    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed < WAIT_AIM {
            return;
        }
        let next_is_over = elapsed >= WAIT_AIM * 2;
        self.in_last_window = if next_is_over { 0 } else { self.in_this_window };
        self.in_this_window = 0;
        self.window_start = if next_is_over { now } else { self.window_start + WAIT_AIM };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finalise(backlog: &mut Backlog, count: usize, now: Instant) {
        (0..count).for_each(|_| backlog.finalised(now));
    }

    #[test]
    fn the_backlog_follows_the_rate_of_finality() {
        let start = Instant::now();
        let mut backlog = Backlog::new(start);
        assert_eq!(backlog.limit(start), BACKLOG_MIN);
        finalise(&mut backlog, 20_000, start + WAIT_AIM / 2);
        assert_eq!(backlog.limit(start + WAIT_AIM / 2), 20_000);
        finalise(&mut backlog, 100, start + WAIT_AIM);
        assert_eq!(backlog.limit(start + WAIT_AIM), 20_000, "the last full window counts");
        assert_eq!(backlog.limit(start + WAIT_AIM * 2), BACKLOG_MIN, "a slow window, then the limit follows");
        finalise(&mut backlog, BACKLOG_MAX + 1, start + WAIT_AIM * 2);
        assert_eq!(backlog.limit(start + WAIT_AIM * 2), BACKLOG_MAX);
    }

    #[test]
    fn a_chain_that_stands_still_takes_a_burst_and_no_more() {
        let start = Instant::now();
        let mut backlog = Backlog::new(start);
        finalise(&mut backlog, 20_000, start);
        assert_eq!(backlog.limit(start + WAIT_AIM * 3), BACKLOG_MIN);
    }
}
