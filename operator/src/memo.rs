//! Results of pure functions that are asked for again and again. Plans are made anew each time something happens, and most of
//! their cost would be to check signatures that were checked before. Only successes are remembered, by a hash of everything
//! they depend on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

/// What has been worked out before; forgotten altogether when it is full.
pub(crate) struct Memo<T> {
    known: Mutex<BTreeMap<[u8; 32], T>>,
    results_max: usize,
}

impl<T: Clone> Memo<T> {
    /// Nothing known yet. Keeps at most `results_max` results.
    pub(crate) const fn new(results_max: usize) -> Self {
        Self { known: Mutex::new(BTreeMap::new()), results_max }
    }

    /// The result for these inputs, by `work` unless it is known. A failure is not remembered.
    pub(crate) fn result<E>(&self, inputs: &[&[u8]], work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut digest = Sha256::new();
        for input in inputs {
            digest.update((input.len() as u64).to_be_bytes());
            digest.update(input);
        }
        let key = digest.finalize().into();
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let result = work()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.results_max {
            known.clear();
        }
        known.insert(key, result.clone());
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successes_are_remembered_by_all_inputs_and_failures_are_not() {
        let memo: Memo<u8> = Memo::new(2);
        assert_eq!(memo.result(&[b"a", b"b"], || Err("no")), Err("no"));
        assert_eq!(memo.result(&[b"a", b"b"], || Ok::<_, &str>(1)), Ok(1));
        assert_eq!(memo.result(&[b"a", b"b"], || Err("not asked")), Ok(1));
        assert_eq!(memo.result(&[b"ab", b""], || Err("another")), Err("another"));
        assert_eq!(memo.result(&[b"c"], || Ok::<_, &str>(2)), Ok(2));
        // Full: the third begins anew.
        assert_eq!(memo.result(&[b"d"], || Ok::<_, &str>(3)), Ok(3));
        assert_eq!(memo.result(&[b"c"], || Err("forgotten")), Err("forgotten"));
    }
}
