//! Which rate to offer next: up a ladder until a network no longer keeps up, then between what it could and could not carry.

/// Rates closer together than this share of the lower one are not told apart, in percent.
const RESOLUTION_PERCENT: u32 = 10;

/// Rates between two rungs are multiples of this.
const ROUND: u32 = 100;

/// How a network fared at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It finalised all that was offered, and in time.
    InTime,
    /// It finalised all that was offered, but later than asked for.
    Late,
    /// It did not keep up.
    Overloaded,
}

/// The way of one network up the rates.
#[derive(Debug)]
pub(super) struct Ladder {
    rungs: Vec<u32>,
    climbed: usize,
    refinements: u32,
    outcomes: Vec<(u32, Outcome)>,
}

impl Ladder {
    /// `refinements` is how many rates to try between rungs at most.
    pub(super) const fn new(rungs: Vec<u32>, refinements: u32) -> Self {
        Self { rungs, climbed: 0, refinements, outcomes: Vec::new() }
    }

    /// The rate to offer next; none when enough is known.
    pub(super) fn next(&self) -> Option<u32> {
        let overloaded = self.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Overloaded);
        if !overloaded && let Some(rung) = self.rungs.get(self.climbed) {
            return Some(*rung);
        }
        if self.refinements == 0 {
            return None;
        }
        // Where it begins to be late is looked for first, then where it stops to keep up.
        self.between(|outcome| outcome == Outcome::InTime)
            .or_else(|| self.between(|outcome| outcome != Outcome::Overloaded))
    }

    /// Takes down what became of the rate that [`Ladder::next`] gave.
    pub(super) fn record(&mut self, rate: u32, outcome: Outcome) {
        if self.rungs.get(self.climbed) == Some(&rate) {
            self.climbed += 1;
        } else {
            self.refinements = self.refinements.saturating_sub(1);
        }
        self.outcomes.push((rate, outcome));
    }

    /// Half way between the highest good rate and the lowest bad one above it.
    fn between(&self, good: fn(Outcome) -> bool) -> Option<u32> {
        let rates = |wanted: bool| {
            let matching = self.outcomes.iter().filter(move |(_, outcome)| good(*outcome) == wanted);
            matching.map(|(rate, _)| *rate).collect::<Vec<_>>()
        };
        let low = rates(true).into_iter().max().unwrap_or(0);
        let high = rates(false).into_iter().filter(|rate| *rate > low).min()?;
        let middle = (low + (high - low) / 2) / ROUND * ROUND;
        (middle > low + low * RESOLUTION_PERCENT / 100 && middle < high).then_some(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Climbs with a network that is in time up to one rate and keeps up to another.
    fn climb(rungs: &[u32], refinements: u32, in_time: u32, keeps_up: u32) -> Vec<u32> {
        let mut ladder = Ladder::new(rungs.to_vec(), refinements);
        let mut rates = Vec::new();
        while let Some(rate) = ladder.next() {
            let outcome = match rate {
                _ if rate <= in_time => Outcome::InTime,
                _ if rate <= keeps_up => Outcome::Late,
                _ => Outcome::Overloaded,
            };
            ladder.record(rate, outcome);
            rates.push(rate);
        }
        rates
    }

    #[test]
    fn it_climbs_until_the_network_does_not_keep_up() {
        assert_eq!(climb(&[1_000, 2_000, 4_000, 8_000], 0, 1_000, 3_000), [1_000, 2_000, 4_000]);
        assert_eq!(climb(&[1_000, 2_000], 2, 9_000, 9_000), [1_000, 2_000]);
    }

    #[test]
    fn it_then_looks_for_the_highest_rate_in_time_and_for_the_one_that_overloads() {
        assert_eq!(climb(&[1_000, 2_000, 4_000], 2, 3_200, 3_200), [1_000, 2_000, 4_000, 3_000, 3_500]);
        assert_eq!(climb(&[1_000, 2_000, 4_000], 2, 1_000, 2_000), [1_000, 2_000, 4_000, 1_500, 1_200]);
        assert_eq!(climb(&[1_000, 2_000, 4_000], 3, 1_950, 2_000), [1_000, 2_000, 4_000, 1_500, 1_700, 3_000]);
    }

    #[test]
    fn a_network_that_fails_at_once_is_tried_below() {
        assert_eq!(climb(&[2_000, 4_000], 1, 1_500, 1_500), [2_000, 1_000]);
    }
}
