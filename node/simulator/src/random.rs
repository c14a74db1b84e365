//! The only source of chance: xoshiro256**, seeded through splitmix64 (Blackman and Vigna, 2018).

/// A generator whose whole future is its seed.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([0; 4].map(|_: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        let result = self.0[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.0[1] << 17;
        self.0[2] ^= self.0[0];
        self.0[3] ^= self.0[1];
        self.0[1] ^= self.0[2];
        self.0[0] ^= self.0[3];
        self.0[2] ^= shifted;
        self.0[3] = self.0[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// A position in something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True this many times in a thousand.
    pub fn chance(&mut self, per_thousand: u64) -> bool {
        per_thousand > 0 && self.below(1_000) < per_thousand
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

/// Folds a number into a hash.
pub(crate) fn fold(hash: u64, number: u64) -> u64 {
    let product = u128::from(hash ^ number ^ 0xa076_1d64_78bd_642f) * u128::from(0xe703_7ed1_a0b4_28db_u64);
    (product as u64 ^ (product >> 64) as u64).wrapping_add(number.rotate_left(32))
}

/// Folds bytes into a hash.
pub(crate) fn fold_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    fold(hash, bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_bounds_and_repeat_with_the_seed() {
        let (mut left, mut right) = (Random::new(7), Random::new(7));
        for _ in 0..1_000 {
            let number = left.between(3, 9);
            assert!((3..=9).contains(&number));
            assert_eq!(number, right.between(3, 9));
        }
        assert_ne!(Random::new(1).number(), Random::new(2).number());
    }
}
