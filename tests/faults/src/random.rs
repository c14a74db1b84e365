//! Random numbers that a seed repeats.

use std::time::Duration;

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        // Microseconds: an instant between two ticks of anything.
        Duration::from_micros(from * 1_000 + self.below((to - from) * 1_000 + 1))
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Some of `nodes` validators: mostly one, now and then several or all.
    pub(crate) fn victims(&mut self, nodes: usize) -> Vec<usize> {
        let count = match self.below(100) {
            0..55 => 1,
            55..75 => 2,
            75..85 => 3,
            _ => nodes,
        };
        let mut all: Vec<usize> = (0..nodes).collect();
        for position in (1..all.len()).rev() {
            all.swap(position, self.below(position as u64 + 1) as usize);
        }
        all.truncate(count.min(nodes));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_victims_and_all_are_hit() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| random.victims(4)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for node in 0..4 {
            assert!(draw(7).iter().any(|victims| victims == &[node]), "{node} alone");
        }
        assert!(draw(7).iter().any(|victims| victims.len() == 4), "all at once");
    }
}
