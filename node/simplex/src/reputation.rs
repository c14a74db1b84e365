//! How much of its power counts when turns to lead are given out (T2): less after turns that came to nothing.
//!
//! A pure function of what the chain has on record: each block names the view it was first proposed in
//! ([`Block::view`](crate::Block::view)), so the leaders of the views between a block and its parent had a turn and no
//! block. Integers, rounded down, the same everywhere. Votes, quorums and certificates know nothing of it.

/// Share of its power with which a validator takes turns, in 1/1024: from 1/8 to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reputation(u16);

/// A validator's turns to lead in one span of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Views it led whose block became part of the chain.
    pub led: u64,
    /// Views it led that were given up.
    pub missed: u64,
}

/// So many turns with the success that the reputation so far foretells are added to those on record: a handful of turns is
/// no measure of anybody.
const PRIOR_TURNS: u128 = 8;

/// What a span without a missed turn adds, in 1/1024: nobody stays down for want of turns to show it is back.
const REGAINED: u16 = 64;

impl Default for Reputation {
    fn default() -> Self {
        Self::FULL
    }
}

impl Reputation {
    /// All of its power counts: newcomers, and who missed nothing.
    pub const FULL: Self = Self(1024);

    /// The least, an eighth: who is back is heard of soon, and nobody is shut out.
    pub const FLOOR: Self = Self(128);

    /// A reputation of so many 1/1024, if it is one.
    pub fn new(share: u16) -> Option<Self> {
        (Self::FLOOR.0..=Self::FULL.0).contains(&share).then_some(Self(share))
    }

    /// In 1/1024.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The reputation after these turns: the share of them that came to something, with [`PRIOR_TURNS`] of the present
    /// reputation mixed in, and some regained if none was missed.
    #[must_use]
    pub fn after(self, turns: Turns) -> Self {
        let (led, missed) = (u128::from(turns.led), u128::from(turns.missed));
        let earned = PRIOR_TURNS * u128::from(self.0) + led * u128::from(Self::FULL.0);
        let share = (earned / (PRIOR_TURNS + led + missed)) as u16;
        let regained = if missed == 0 { REGAINED } else { 0 };
        Self((share + regained).clamp(Self::FLOOR.0, Self::FULL.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Turns = Turns { led: 8, missed: 0 };

    #[test]
    fn who_misses_every_turn_falls_to_an_eighth_and_who_is_back_is_whole_after_three_epochs_of_eight_turns() {
        let down = Reputation::FULL.after(Turns { led: 0, missed: 56 });
        assert_eq!(down, Reputation::FLOOR);
        let up: Vec<u16> =
            std::iter::successors(Some(down), |now| Some(now.after(GOOD))).map(Reputation::get).take(4).collect();
        assert_eq!(up, [128, 640, 896, 1024]);
    }

    #[test]
    fn without_a_turn_reputation_comes_back_slowly() {
        let epochs = std::iter::successors(Some(Reputation::FLOOR), |now| Some(now.after(Turns::default())));
        assert_eq!(epochs.take_while(|now| *now < Reputation::FULL).count(), 14);
    }

    #[test]
    fn one_missed_turn_of_few_costs_little_and_one_of_many_next_to_nothing() {
        assert_eq!(Reputation::FULL.after(Turns { led: 0, missed: 1 }).get(), 910);
        assert_eq!(Reputation::FULL.after(Turns { led: 999, missed: 1 }).get(), 1022);
    }

    #[test]
    fn only_shares_from_an_eighth_to_the_whole_are_reputations() {
        for share in [0, 127, 1025, u16::MAX] {
            assert_eq!(Reputation::new(share), None);
        }
        assert_eq!(Reputation::new(1024), Some(Reputation::FULL));
        assert_eq!(Reputation::new(128), Some(Reputation::FLOOR));
    }

    fn reputation() -> impl Strategy<Value = Reputation> {
        (Reputation::FLOOR.0..=Reputation::FULL.0).prop_map(Reputation)
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_whatever_the_counts(before in reputation(), led: u64, missed: u64) {
            let after = before.after(Turns { led, missed });
            prop_assert!(Reputation::new(after.get()).is_some());
        }

        #[test]
        fn a_turn_that_came_to_something_never_counts_against_anybody(
            before in reputation(),
            led in 0_u64..2_000,
            missed in 0_u64..2_000,
        ) {
            let after = |led, missed| before.after(Turns { led, missed });
            prop_assert!(after(led + 1, missed) >= after(led, missed));
            prop_assert!(after(led, missed + 1) <= after(led, missed));
        }

        #[test]
        fn who_misses_nothing_never_falls(before in reputation(), led in 0_u64..2_000) {
            let after = before.after(Turns { led, missed: 0 });
            prop_assert!(after >= before);
        }

        #[test]
        fn who_did_better_before_is_not_worse_after(
            a in reputation(),
            b in reputation(),
            led in 0_u64..200,
            missed in 0_u64..200,
        ) {
            let turns = Turns { led, missed };
            prop_assert!(a.min(b).after(turns) <= a.max(b).after(turns));
        }
    }
}
