//! A bounded cache that forgets what nobody touched for long.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: when the young one holds half of the bound it becomes the old one, and what was not asked for since
/// the last change is forgotten.
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Generations<K, V> {
    /// Keeps at most `entries_max` entries.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: entries_max / 2 }
    }

    /// What is known under `key`; it counts as touched.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.put(*key, value);
        Some(value)
    }

    /// Adds or replaces an entry.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_untouched_is_forgotten_and_the_size_stays_bounded() {
        let mut cache = Generations::new(4);
        cache.put(255_u8, 7);
        for number in 0..100_u8 {
            cache.put(number, number);
            assert_eq!(cache.get(&255), Some(7));
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        assert_eq!(cache.get(&99), Some(99));
        assert_eq!(cache.get(&0), None);
    }
}
