//! A budget of bytes that refills with time, in one atomic word: no lock, no allocation.
//!
//! The generic cell rate algorithm (ITU-T I.371): the budget remembers only the moment at which everything spent so far is
//! paid back. Whoever spends moves that moment on; as long as it lies less than a burst ahead, nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NANOSECONDS: u128 = 1_000_000_000;

/// What a peer may cost in one respect.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_second: u64,
    burst_nanoseconds: u64,
    began: Instant,
    /// Nanoseconds after `began` at which all is paid back.
    paid_back: AtomicU64,
}

impl Budget {
    /// A full budget of `burst_bytes` that refills at this rate, which is above zero.
    pub(super) fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        Self {
            bytes_per_second,
            burst_nanoseconds: nanoseconds(burst_bytes, bytes_per_second),
            began: Instant::now(),
            paid_back: AtomicU64::new(0),
        }
    }

    /// Spends, and says how long whoever pays with delay has to wait for it; zero while the budget lasts.
    pub(super) fn spend(&self, bytes: usize) -> Duration {
        Duration::from_nanos(self.spend_at(self.now(), bytes as u64))
    }

    /// True if more is spent than the budget held: for whoever pays by going without.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.paid_back.load(Ordering::Relaxed) > self.now().saturating_add(self.burst_nanoseconds)
    }

    /// True if nothing spent is left to pay back.
    pub(super) fn is_full(&self) -> bool {
        self.paid_back.load(Ordering::Relaxed) <= self.now()
    }

    fn now(&self) -> u64 {
        // Overflows after 584 years.
        self.began.elapsed().as_nanos() as u64
    }

    fn spend_at(&self, now: u64, bytes: u64) -> u64 {
        let cost = nanoseconds(bytes, self.bytes_per_second);
        let after = |paid_back: u64| paid_back.max(now).saturating_add(cost);
        // The closure always answers, so both arms hold the value before.
        let before = match self.paid_back.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(after(at))) {
            Ok(before) | Err(before) => before,
        };
        after(before).saturating_sub(now).saturating_sub(self.burst_nanoseconds)
    }
}

fn nanoseconds(bytes: u64, bytes_per_second: u64) -> u64 {
    let exact = u128::from(bytes) * NANOSECONDS / u128::from(bytes_per_second.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_free_and_what_is_beyond_waits_for_the_rate() {
        let budget = Budget::new(1_000, 5_000);
        assert_eq!(budget.spend_at(0, 5_000), 0);
        assert_eq!(budget.spend_at(0, 1_000), SECOND);
        assert_eq!(budget.spend_at(SECOND, 1_000), SECOND, "the first second has paid for the first excess only");
    }

    #[test]
    fn a_rest_refills_the_budget_but_never_beyond_its_burst() {
        let budget = Budget::new(1_000, 5_000);
        budget.spend_at(0, 5_000);
        assert_eq!(budget.spend_at(3_600 * SECOND, 5_000), 0);
        assert_eq!(budget.spend_at(3_600 * SECOND, 5_000), 5 * SECOND);
    }

    #[test]
    fn a_budget_is_overdrawn_until_the_excess_is_paid_back() {
        let budget = Budget::new(1_000_000, 1_000);
        budget.spend(1_000);
        assert!(!budget.is_overdrawn());
        budget.spend(1_000_000);
        assert!(budget.is_overdrawn());
        budget.spend(usize::MAX);
        assert!(budget.is_overdrawn(), "no overflow");
    }
}
