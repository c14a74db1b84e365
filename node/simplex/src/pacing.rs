//! Time: when a leader proposes and when a follower gives up on it (T3, T4). Nothing here touches safety.

use std::collections::BTreeMap;

use crate::planted::{Bug, planted};
use crate::types::ValidatorIndex;

/// Durations, in milliseconds. All nodes of a network should use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// First timeout of a view.
    pub base_milliseconds: u64,
    /// Longest timeout; above the assumed maximum delay of the network.
    pub cap_milliseconds: u64,
    /// Least time between two proposals.
    pub min_view_milliseconds: u64,
    /// Time between two proposals when there is nothing to order.
    pub heartbeat_milliseconds: u64,
    /// How often unfinalised votes and wants are sent again.
    pub resend_milliseconds: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            base_milliseconds: 1_000,
            cap_milliseconds: 8_000,
            min_view_milliseconds: 25,
            heartbeat_milliseconds: 1_000,
            resend_milliseconds: 1_000,
        }
    }
}

/// Every this many turns a suspected leader gets the full timeout (T3).
const FULL_TIMEOUT_TURN: u32 = 8;

/// Local judgement of timeouts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pacing {
    /// Views in a row that were nullified, or given up by this node before they were notarized; reset by finality.
    failed: u32,
    /// Turns since the last success, for leaders whose last view was nullified.
    suspects: BTreeMap<ValidatorIndex, u32>,
}

impl Pacing {
    pub(crate) fn view_nullified(&mut self, leader: ValidatorIndex) {
        self.failed = self.failed.saturating_add(1);
        *self.suspects.entry(leader).or_default() += 1;
    }

    /// If this node had given the view up, so had others perhaps, and nobody finalises what they gave up. In a network
    /// whose delay is a little below the timeout that could go on for ever, every view notarized and none final.
    pub(crate) fn view_notarized(&mut self, leader: ValidatorIndex, given_up: bool) {
        self.failed = self.failed.saturating_add(u32::from(given_up));
        self.suspects.remove(&leader);
    }

    pub(crate) fn block_finalized(&mut self) {
        self.failed = 0;
    }

    /// How long to wait for this leader, in milliseconds.
    pub(crate) fn timeout(&self, timing: &Timing, leader: ValidatorIndex) -> u64 {
        if self.failed == 0 || planted(Bug::TimerNoBackOff) {
            return match self.suspects.get(&leader) {
                Some(turns) if turns % FULL_TIMEOUT_TURN != 0 => timing.base_milliseconds / 4,
                _ => timing.base_milliseconds,
            };
        }
        let factor = 1_u64.checked_shl(self.failed).unwrap_or(u64::MAX);
        timing.base_milliseconds.saturating_mul(factor).min(timing.cap_milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_double_up_to_the_cap_and_fall_back_with_finality() {
        let timing = Timing::default();
        let mut pacing = Pacing::default();
        let leader = ValidatorIndex(2);
        assert_eq!(pacing.timeout(&timing, leader), 1_000);
        for expected in [2_000, 4_000, 8_000, 8_000] {
            pacing.view_nullified(leader);
            assert_eq!(pacing.timeout(&timing, leader), expected);
        }
        pacing.block_finalized();
        assert_eq!(pacing.timeout(&timing, ValidatorIndex(1)), 1_000);
        pacing.view_notarized(leader, false);
        assert_eq!(pacing.timeout(&timing, leader), 1_000);
    }

    #[test]
    fn a_view_that_was_given_up_counts_though_it_was_notarized_in_the_end() {
        let timing = Timing::default();
        let mut pacing = Pacing::default();
        let leader = ValidatorIndex(2);
        for expected in [2_000, 4_000, 8_000, 8_000] {
            pacing.view_notarized(leader, true);
            assert_eq!(pacing.timeout(&timing, leader), expected);
        }
        pacing.view_notarized(leader, false);
        assert_eq!(pacing.timeout(&timing, leader), 8_000, "nothing is final yet");
        pacing.block_finalized();
        assert_eq!(pacing.timeout(&timing, leader), 1_000);
    }

    #[test]
    fn a_suspected_leader_gets_a_quarter_and_every_eighth_turn_the_whole() {
        let timing = Timing::default();
        let mut pacing = Pacing::default();
        let leader = ValidatorIndex(2);
        let timeouts: Vec<u64> = (0..8)
            .map(|_| {
                pacing.view_nullified(leader);
                pacing.block_finalized();
                pacing.timeout(&timing, leader)
            })
            .collect();
        assert_eq!(timeouts, [250, 250, 250, 250, 250, 250, 250, 1_000]);
    }
}
