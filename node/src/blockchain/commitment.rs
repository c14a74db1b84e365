//! `LtHash`: a commitment to a set of entries that follows changes without reading the rest (PROTOCOL H2).
//!
//! An entry is 1,024 lanes of 16 bits: 2,048 bytes of BLAKE3's extendable output over domain, key and value. The
//! commitment is the sum of all entries, lane by lane, modulo 2^16; adding and removing commute, so only the first and
//! the last value of a key since the last checkpoint matter. The parameters are those of Bellare and Micciancio's
//! construction as published by Facebook (eprint 2019/227), which puts a collision at 200 bits and more.

use bizra_simplex::types::Digest;
use sha2::{Digest as _, Sha256};

use crate::storage::StorageError;
use crate::validator::EntryKey;

const LANES: usize = 1_024;
/// Width of the stored form.
pub(super) const LATTICE_BYTES: usize = 2 * LANES;
const ENTRY_DOMAIN: &[u8] = b"bizra/v1/state\0";

/// The sum over a set of entries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct LtHash {
    lanes: Box<[u16; LANES]>,
}

impl Default for LtHash {
    fn default() -> Self {
        Self { lanes: Box::new([0; LANES]) }
    }
}

fn element(key: &EntryKey, value: &[u8]) -> [u8; LATTICE_BYTES] {
    let mut bytes = [0; LATTICE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(ENTRY_DOMAIN).update(&key.0).update(value);
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl LtHash {
    fn fold(&mut self, element: &[u8; LATTICE_BYTES], combine: impl Fn(u16, u16) -> u16) {
        let (pairs, _) = element.as_chunks::<2>();
        for (lane, pair) in self.lanes.iter_mut().zip(pairs) {
            *lane = combine(*lane, u16::from_le_bytes(*pair));
        }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, key: &EntryKey, value: &[u8]) {
        self.fold(&element(key, value), u16::wrapping_add);
    }

    /// Takes an added entry away.
    pub(super) fn remove(&mut self, key: &EntryKey, value: &[u8]) {
        self.fold(&element(key, value), u16::wrapping_sub);
    }

    /// SHA-256 of the lanes, what headers name.
    pub(super) fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.encode()).into())
    }

    /// The lanes in order, little-endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let fixed: &[u8; LATTICE_BYTES] =
            bytes.try_into().map_err(|_| StorageError::Corrupt("the state commitment does not decode".to_owned()))?;
        let mut sum = Self::default();
        sum.fold(fixed, |_, lane| lane);
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::validator::Domain;

    fn key(seed: u8) -> EntryKey {
        EntryKey::new(Domain::Account, [seed; 32])
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut sum = LtHash::default();
        sum.add(&key(1), b"one");
        sum.add(&key(2), b"two");
        let mut other = LtHash::default();
        other.add(&key(2), b"two");
        other.add(&key(3), b"three");
        other.add(&key(1), b"one");
        assert_ne!(sum.digest(), other.digest());
        other.remove(&key(3), b"three");
        assert!(sum == other && LtHash::decode(&sum.encode()).unwrap() == sum);
        other.remove(&key(1), b"two");
        other.add(&key(1), b"one");
        assert!(sum != other, "taking away what was never added leaves a trace");
    }

    #[test]
    fn the_commitment_of_two_entries_never_changes() {
        let mut sum = LtHash::default();
        sum.add(&key(1), b"one");
        sum.add(&key(2), &[7; 16]);
        crate::golden::assert_golden("blockchain/golden/commitment.txt", &format!("{}\n", sum.digest()));
    }
}
