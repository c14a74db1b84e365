//! The validator set of an epoch: powers, quorums and the leader of each view.

use crate::planted::{Bug, planted};
use crate::reputation::Reputation;
use crate::types::{Power, ValidatorIndex, View};

/// Most validators of a set: bounds certificates and the memory of a view.
pub const VALIDATORS_MAX: usize = 128;

/// Longest leader rotation. Weights are scaled down to it, so a leader's share is exact to 1/1024 or better.
const ROTATION_MAX: u128 = 1024;

/// Why powers do not make a validator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// None, or too many.
    #[error("a validator set has 1 to {VALIDATORS_MAX} validators, not {0}")]
    Count(usize),
    /// A validator without power.
    #[error("validator {0} has no power")]
    Powerless(ValidatorIndex),
    /// Total power of 2^63 or more.
    #[error("the total power must stay below 2^63")]
    TooMuchPower,
}

/// The validators of one epoch, by index.
#[derive(Clone, Debug)]
pub struct ValidatorSet {
    powers: Vec<Power>,
    total: Power,
    rotation: Vec<ValidatorIndex>,
}

impl ValidatorSet {
    /// Makes a set; index `i` has power `powers[i]`, and all the reputation there is.
    pub fn new(powers: Vec<Power>) -> Result<Self, ValidatorSetError> {
        Self::with_reputations(powers.into_iter().map(|power| (power, Reputation::FULL)).collect())
    }

    /// Makes a set of validators with these powers and reputations, by index. Reputation counts in the rotation only.
    pub fn with_reputations(members: Vec<(Power, Reputation)>) -> Result<Self, ValidatorSetError> {
        let (powers, reputations): (Vec<Power>, Vec<Reputation>) = members.into_iter().unzip();
        if !(1..=VALIDATORS_MAX).contains(&powers.len()) {
            return Err(ValidatorSetError::Count(powers.len()));
        }
        let mut total: u64 = 0;
        for (position, power) in powers.iter().enumerate() {
            if power.0 == 0 {
                return Err(ValidatorSetError::Powerless(ValidatorIndex(position as u16)));
            }
            total = total
                .checked_add(power.0)
                .filter(|&sum| i64::try_from(sum).is_ok())
                .ok_or(ValidatorSetError::TooMuchPower)?;
        }
        let weights = powers.iter().zip(&reputations);
        let weights = weights.map(|(power, reputation)| u128::from(power.0) * u128::from(reputation.get()));
        let rotation = rotation(&weights.collect::<Vec<_>>());
        Ok(Self { powers, total: Power(total), rotation })
    }

    /// Number of validators.
    pub fn count(&self) -> usize {
        self.powers.len()
    }

    /// All indices, in order.
    pub fn indices(&self) -> impl Iterator<Item = ValidatorIndex> + use<> {
        (0..self.powers.len()).map(|position| ValidatorIndex(position as u16))
    }

    /// Power of a validator, if the index is in the set.
    pub fn power(&self, index: ValidatorIndex) -> Option<Power> {
        self.powers.get(usize::from(index.0)).copied()
    }

    /// Sum of all powers.
    pub fn total(&self) -> Power {
        self.total
    }

    /// True if these distinct validators hold strictly more than two thirds of the power. Unknown indices count nothing.
    pub fn is_quorum(&self, members: impl IntoIterator<Item = ValidatorIndex>) -> bool {
        let power: u128 =
            members.into_iter().filter_map(|index| self.power(index)).map(|power| u128::from(power.0)).sum();
        let total = u128::from(self.total.0);
        3 * power > 2 * total || is_planted_quorum(power, total)
    }

    /// Leader of a view (T2): rotation weighted with power and reputation.
    pub fn leader(&self, view: View) -> ValidatorIndex {
        let position = view.0 % self.rotation.len() as u64;
        self.rotation[position as usize]
    }

    /// How often each validator leads in the views between these two, both left out; by index.
    pub fn turns_between(&self, after: View, before: View) -> Vec<u64> {
        let views = before.0.saturating_sub(after.0).saturating_sub(1);
        let length = self.rotation.len() as u64;
        let mut turns = vec![0; self.powers.len()];
        if views >= length {
            for leader in &self.rotation {
                turns[usize::from(leader.0)] += views / length;
            }
        }
        for view in before.0.saturating_sub(views % length)..before.0 {
            turns[usize::from(self.leader(View(view)).0)] += 1;
        }
        turns
    }
}

/// A bug on purpose, in no shipped binary.
fn is_planted_quorum(power: u128, total: u128) -> bool {
    (planted(Bug::WrongQuorum) && 2 * power > total) || (planted(Bug::QuorumOfTwoThirds) && 3 * power >= 2 * total)
}

/// Smooth weighted round robin: each validator leads in proportion to its weight, spread as evenly as possible. Weights
/// are above zero, and there are at most [`VALIDATORS_MAX`] of less than 2^74.
fn rotation(weights: &[u128]) -> Vec<ValidatorIndex> {
    let total: u128 = weights.iter().sum();
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight));
    let scale = |weight: u128| {
        if total / divisor <= ROTATION_MAX {
            weight / divisor
        } else {
            // Never to zero: everybody leads at times.
            (weight * ROTATION_MAX / total).max(1)
        }
    };
    let weights: Vec<i64> = weights.iter().map(|weight| scale(*weight) as i64).collect();
    let sum: i64 = weights.iter().sum();
    let mut credits = vec![0_i64; weights.len()];
    (0..sum)
        .map(|_| {
            for (credit, weight) in credits.iter_mut().zip(&weights) {
                *credit += weight;
            }
            let mut best = 0;
            for position in 1..credits.len() {
                if credits[position] > credits[best] {
                    best = position;
                }
            }
            credits[best] -= sum;
            ValidatorIndex(best as u16)
        })
        .collect()
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(powers: &[u64]) -> ValidatorSet {
        ValidatorSet::new(powers.iter().copied().map(Power).collect()).unwrap()
    }

    #[test]
    fn a_quorum_is_strictly_more_than_two_thirds() {
        let equal = set(&[1, 1, 1]);
        assert!(!equal.is_quorum([0, 1].map(ValidatorIndex)));
        assert!(equal.is_quorum([0, 1, 2].map(ValidatorIndex)));
        let four = set(&[1; 4]);
        assert!(!four.is_quorum([0, 1].map(ValidatorIndex)));
        assert!(four.is_quorum([0, 1, 3].map(ValidatorIndex)));
        assert!(!four.is_quorum([0, 1, 9].map(ValidatorIndex)));
    }

    #[test]
    fn equal_powers_take_turns() {
        let four = set(&[5; 4]);
        let leaders: Vec<u16> = (0..8).map(|view| four.leader(View(view)).0).collect();
        assert_eq!(leaders, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn a_set_names_its_members_and_a_rotation_is_as_short_as_it_can_be() {
        let three = set(&[2_000_000, 1_000_000, 3_000_000]);
        assert_eq!(three.count(), 3);
        assert!(three.indices().eq([0, 1, 2].map(ValidatorIndex)));
        assert_eq!(three.rotation.len(), 6);
    }

    #[test]
    fn unsound_sets_are_refused() {
        assert_eq!(ValidatorSet::new(Vec::new()).unwrap_err(), ValidatorSetError::Count(0));
        let powerless = ValidatorSet::new(vec![Power(1), Power(0)]).unwrap_err();
        assert_eq!(powerless, ValidatorSetError::Powerless(ValidatorIndex(1)));
        let huge = ValidatorSet::new(vec![Power(u64::MAX / 2), Power(1)]).unwrap_err();
        assert_eq!(huge, ValidatorSetError::TooMuchPower);
    }

    proptest! {
        #[test]
        fn everybody_leads_in_proportion(powers in prop::collection::vec(1_u64..1_000_000, 1..20)) {
            let set = set(&powers);
            let length = set.rotation.len() as u64;
            for index in set.indices() {
                let turns = (0..length).filter(|&view| set.leader(View(view)) == index).count() as f64;
                let share = powers[usize::from(index.0)] as f64 / set.total().0 as f64;
                prop_assert!(turns >= 1.0);
                prop_assert!((turns / length as f64 - share).abs() < 0.03);
            }
        }

        /// T2: everybody leads, in proportion to power × reputation; quorums are those of the powers alone.
        #[test]
        fn reputation_shrinks_turns_and_no_vote(
            members in prop::collection::vec((1_u64..1_000_000, 128_u16..=1024), 1..20),
            mask: u32,
        ) {
            let full = set(&members.iter().map(|(power, _)| *power).collect::<Vec<_>>());
            let members = members.into_iter().map(|(power, share)| (Power(power), Reputation::new(share).unwrap()));
            let members: Vec<_> = members.collect();
            let set = ValidatorSet::with_reputations(members.clone()).unwrap();
            let weight = |(power, reputation): &(Power, Reputation)| power.0 as f64 * f64::from(reputation.get());
            let total: f64 = members.iter().map(weight).sum();
            let length = set.rotation.len() as u64;
            prop_assert!(length <= 1024 + members.len() as u64);
            let turns = set.turns_between(View(0), View(length + 1));
            for (member, turns) in members.iter().zip(turns) {
                prop_assert!(turns >= 1);
                prop_assert!((turns as f64 / length as f64 - weight(member) / total).abs() < 0.03);
            }
            let some = || full.indices().filter(|index| mask >> index.0 & 1 == 1);
            prop_assert_eq!(set.is_quorum(some()), full.is_quorum(some()));
            prop_assert_eq!(set.total(), full.total());
        }

        #[test]
        fn turns_are_those_of_the_views_between(after in 0_u64..50, between in 0_u64..50, power in 1_u64..5) {
            let set = set(&[power, 2, 3]);
            let mut counted = vec![0; 3];
            for view in after + 1..after + 1 + between {
                counted[usize::from(set.leader(View(view)).0)] += 1;
            }
            prop_assert_eq!(set.turns_between(View(after), View(after + 1 + between)), counted);
        }

        #[test]
        fn two_quorums_share_more_than_a_third(powers in prop::collection::vec(1_u64..1000, 4..8), a: u8, b: u8) {
            let set = set(&powers);
            let members = |mask: u8| set.indices().filter(move |index| mask >> index.0 & 1 == 1).collect::<Vec<_>>();
            if set.is_quorum(members(a)) && set.is_quorum(members(b)) {
                let shared: u64 = members(a & b).iter().map(|&index| set.power(index).unwrap().0).sum();
                prop_assert!(3 * shared > set.total().0);
            }
        }
    }
}
