//! Bodies of batches: what is held, what is being checked, what blocks wait for (D1–D3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bizra_simplex::Block;
use bizra_simplex::block::BATCHES_PER_BLOCK_MAX;
use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Epoch, Millis, ValidatorIndex};

use crate::batch::Batch;

/// Unordered bytes held or being checked for one origin (D4). A validator that floods fills its own share only; an honest
/// one stops admitting long before.
pub const UNORDERED_BYTES_PER_ORIGIN_MAX: usize = 64 << 20;

/// Bytes one block orders at most: bounds what a vote makes everybody fetch and execute.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Digests of invalid batches remembered.
const INVALID_MAX: usize = 4_096;

/// A body that is on its way by push is not asked for this soon, in milliseconds.
const FETCH_PATIENCE: u64 = 30;

/// Time between two requests for the same body, in milliseconds.
const FETCH_INTERVAL: u64 = 250;

/// Requests for bodies on their way at one time.
const FETCHES_MAX: usize = 64;

/// What became of a block's bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    Held,
    Missing,
    Invalid,
}

#[derive(Clone, Copy, Debug)]
struct Fetch {
    due: Millis,
    attempts: usize,
    hint: Option<ValidatorIndex>,
}

/// The pool of bodies above the executed chain.
#[derive(Debug, Default)]
pub(crate) struct Data {
    held: BTreeMap<Digest, Batch>,
    /// Unordered batches in order of arrival, which keeps each origin's own order.
    unordered: BTreeMap<u64, Digest>,
    arrivals: u64,
    /// Grows whenever bodies come, go, are ordered or found invalid.
    version: u64,
    /// Of what is held and of what is being checked.
    bytes_by_origin: BTreeMap<(Epoch, ValidatorIndex), usize>,
    checking: BTreeMap<Digest, (Epoch, ValidatorIndex, usize)>,
    invalid: BTreeSet<Digest>,
    invalid_order: VecDeque<Digest>,
    fetches: BTreeMap<Digest, Fetch>,
}

impl Data {
    /// Answers about blocks stay as they are while this does.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// True if this batch should be checked: new, within its origin's share, or waited for.
    pub(crate) fn wants(&self, digest: Digest, batch: &Batch) -> bool {
        let used = self.bytes_by_origin.get(&(batch.epoch, batch.origin)).copied().unwrap_or_default();
        let fits = used + batch.payload.len() <= UNORDERED_BYTES_PER_ORIGIN_MAX || self.fetches.contains_key(&digest);
        fits && !self.held.contains_key(&digest)
            && !self.checking.contains_key(&digest)
            && !self.invalid.contains(&digest)
    }

    pub(crate) fn start_check(&mut self, digest: Digest, batch: &Batch) {
        let Batch { epoch, origin, payload, .. } = batch;
        if self.checking.insert(digest, (*epoch, *origin, payload.len())).is_none() {
            *self.bytes_by_origin.entry((*epoch, *origin)).or_default() += payload.len();
        }
    }

    pub(crate) fn check_passed(&mut self, digest: Digest) {
        if let Some((epoch, origin, bytes)) = self.checking.remove(&digest) {
            self.give_back((epoch, origin), bytes);
        }
    }

    fn give_back(&mut self, origin: (Epoch, ValidatorIndex), bytes: usize) {
        if let Some(used) = self.bytes_by_origin.get_mut(&origin) {
            *used = used.saturating_sub(bytes);
        }
    }

    pub(crate) fn check_failed(&mut self, digest: Digest) {
        self.check_passed(digest);
        self.version += 1;
        if self.invalid.insert(digest) {
            self.invalid_order.push_back(digest);
        }
        if self.invalid_order.len() > INVALID_MAX
            && let Some(oldest) = self.invalid_order.pop_front()
        {
            self.invalid.remove(&oldest);
        }
    }

    /// Takes a verified batch; false if it was held already.
    pub(crate) fn hold(&mut self, digest: Digest, batch: Batch) -> bool {
        self.check_passed(digest);
        self.fetches.remove(&digest);
        if self.held.contains_key(&digest) {
            return false;
        }
        *self.bytes_by_origin.entry((batch.epoch, batch.origin)).or_default() += batch.payload.len();
        self.arrivals += 1;
        self.version += 1;
        self.unordered.insert(self.arrivals, digest);
        self.held.insert(digest, batch);
        true
    }

    pub(crate) fn get(&self, digest: Digest) -> Option<&Batch> {
        self.held.get(&digest)
    }

    /// Whether all bodies are held and within [`BLOCK_BYTES_MAX`]; the missing ones are fetched from now on.
    pub(crate) fn examine(&mut self, now: Millis, block: &Block, leader: ValidatorIndex) -> Bodies {
        let mut bodies = Bodies::Held;
        let mut bytes = 0;
        for digest in &block.batches {
            if self.invalid.contains(digest) {
                return Bodies::Invalid;
            }
            if let Some(batch) = self.held.get(digest) {
                if !batch.fits(block.epoch) {
                    return Bodies::Invalid;
                }
                bytes += batch.payload.len();
            } else {
                bodies = if planted(Bug::BatchNotHeld) { bodies } else { Bodies::Missing };
                self.fetch(*digest, Some(leader), now.plus(FETCH_PATIENCE));
            }
        }
        // The leader's own limit is nobody's protection from a leader that ignores it.
        if bytes > BLOCK_BYTES_MAX { Bodies::Invalid } else { bodies }
    }

    pub(crate) fn fetch(&mut self, digest: Digest, hint: Option<ValidatorIndex>, due: Millis) {
        self.fetches.entry(digest).or_insert(Fetch { due, attempts: 0, hint });
    }

    /// Bodies to ask for now, with the number of earlier attempts and the peer to ask first.
    pub(crate) fn due_fetches(&mut self, now: Millis) -> Vec<(Digest, usize, Option<ValidatorIndex>)> {
        let checking = &self.checking;
        let due = self.fetches.iter_mut().filter(|(digest, fetch)| fetch.due <= now && !checking.contains_key(*digest));
        due.take(FETCHES_MAX)
            .map(|(digest, fetch)| {
                let attempt = (*digest, fetch.attempts, fetch.hint);
                fetch.attempts += 1;
                fetch.due = now.plus(FETCH_INTERVAL);
                attempt
            })
            .collect()
    }

    /// Forgets requests for bodies that none of these blocks order.
    pub(crate) fn retain_fetches<'a>(&mut self, blocks: impl IntoIterator<Item = &'a Block>) {
        let needed: BTreeSet<&Digest> = blocks.into_iter().flat_map(|block| &block.batches).collect();
        self.fetches.retain(|digest, _| needed.contains(digest));
    }

    /// When the next body is to be asked for.
    pub(crate) fn next_fetch(&self) -> Option<Millis> {
        let open = self.fetches.iter().filter(|(digest, _)| !self.checking.contains_key(*digest));
        open.map(|(_, fetch)| fetch.due).min()
    }

    /// Batches for a new block, oldest first, none that an unfinalised ancestor orders (D3), all of which `may_name`.
    pub(crate) fn select(&self, ancestors: &[Block], mut may_name: impl FnMut(Digest, &Batch) -> bool) -> Vec<Digest> {
        let taken = ordered_by(ancestors);
        let mut bytes = 0;
        self.unordered
            .values()
            .filter(|digest| !taken.contains(digest))
            .filter_map(|digest| self.held.get(digest).map(|batch| (*digest, batch)))
            .filter(|(digest, batch)| may_name(*digest, batch))
            .take_while(|(_, batch)| {
                bytes += batch.payload.len();
                bytes <= BLOCK_BYTES_MAX
            })
            .map(|(digest, _)| digest)
            .take(BATCHES_PER_BLOCK_MAX)
            .collect()
    }

    /// True if something is held that these blocks do not order.
    pub(crate) fn has_work(&self, best_chain: &[Block]) -> bool {
        if self.unordered.is_empty() {
            return false;
        }
        let taken = ordered_by(best_chain);
        self.unordered.values().any(|digest| !taken.contains(digest))
    }

    /// These blocks are final: their batches are no work any more. Bodies stay until executed.
    pub(crate) fn order(&mut self, blocks: &[Block]) {
        self.version += 1;
        let ordered = ordered_by(blocks);
        self.unordered.retain(|_, digest| !ordered.contains(digest));
    }

    /// The bodies of a finalised block, if all are held.
    pub(crate) fn bodies(&self, block: &Block) -> Option<Vec<Batch>> {
        let held = |digest: &&Digest| self.held.contains_key(*digest) || !planted(Bug::ExecutedWithoutBodies);
        block.batches.iter().filter(held).map(|digest| self.held.get(digest).cloned()).collect()
    }

    /// The block is executed: its bodies live on disk only.
    pub(crate) fn release(&mut self, block: &Block) {
        self.version += 1;
        block.batches.iter().for_each(|digest| self.forget(*digest));
    }

    fn forget(&mut self, digest: Digest) {
        if let Some(batch) = self.held.remove(&digest) {
            self.give_back((batch.epoch, batch.origin), batch.payload.len());
        }
    }

    /// Unordered batches, oldest first.
    pub(crate) fn unordered(&self) -> impl Iterator<Item = &Batch> {
        self.unordered.values().filter_map(|digest| self.held.get(digest))
    }

    /// A new epoch begins: forgets the unordered batches that it may not order, and says which.
    pub(crate) fn enter(&mut self, epoch: Epoch) -> Vec<Digest> {
        self.version += 1;
        let held = &self.held;
        let stale = |digest: &Digest| held.get(digest).is_some_and(|batch| !batch.fits(epoch));
        let forgotten: Vec<Digest> = self.unordered.values().filter(|digest| stale(digest)).copied().collect();
        self.unordered.retain(|_, digest| !forgotten.contains(digest));
        for digest in &forgotten {
            self.forget(*digest);
        }
        self.bytes_by_origin.retain(|_, bytes| *bytes > 0);
        forgotten
    }

    pub(crate) fn unordered_count(&self) -> usize {
        self.unordered.len()
    }
}

fn ordered_by(blocks: &[Block]) -> BTreeSet<&Digest> {
    blocks.iter().flat_map(|block| &block.batches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bizra_simplex::types::Signature;
    use bytes::Bytes;

    /// D3: a batch expires with the epoch after its own, and nobody orders one of an epoch to come.
    #[test]
    fn blocks_order_batches_of_their_own_epoch_and_the_one_before() {
        let (epoch, origin, payload) = (Epoch(3), ValidatorIndex(1), Bytes::from_static(b"x"));
        let batch = Batch { epoch, origin, sequence: 1, payload, signature: Signature([0; 64]) };
        let digest = Digest([1; 32]);
        let mut data = Data::default();
        data.hold(digest, batch);
        for (epoch, expected) in [(2, Bodies::Invalid), (3, Bodies::Held), (4, Bodies::Held), (5, Bodies::Invalid)] {
            let block = Block { epoch: Epoch(epoch), batches: vec![digest], ..Block::genesis(Digest::default(), 0) };
            assert_eq!(data.examine(Millis(0), &block, ValidatorIndex(0)), expected, "in epoch {epoch}");
        }
    }
}
