//! Who else holds a batch (D4). An origin that hands its batches to some validators only makes honest leaders name what
//! others lack, and their views are nullified. After one such view its batches are named only when a quorum says that it
//! holds them: more than a third of the power is then honest and can hand them out.

use std::collections::{BTreeMap, BTreeSet};

use bizra_simplex::types::{Digest, Epoch, ValidatorIndex};
use bizra_simplex::{Block, ValidatorSet};

use crate::batch::Batch;

/// Digests of one question or answer at most.
pub(crate) const HELD_MAX: usize = 64;

/// Batches whose holders are counted at most: older questions are asked again.
const COUNTED_MAX: usize = 1_024;

/// Digests remembered from nullified views, until their bodies tell whose they are.
const DOUBTED_MAX: usize = 4_096;

type Origin = (Epoch, ValidatorIndex);

/// What this node believes of the others' pools, for one epoch.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    suspects: BTreeSet<Origin>,
    doubted: BTreeSet<Digest>,
    holders: BTreeMap<Digest, BTreeSet<ValidatorIndex>>,
}

impl Holding {
    /// A view that named these batches was nullified. Bodies that are not held tell later whose they are.
    pub(crate) fn nullified<'a>(&mut self, block: &Block, held: impl Fn(&Digest) -> Option<&'a Batch>) {
        for digest in &block.batches {
            match held(digest) {
                Some(batch) => drop(self.suspects.insert((batch.epoch, batch.origin))),
                None if self.doubted.len() < DOUBTED_MAX => drop(self.doubted.insert(*digest)),
                None => {}
            }
        }
    }

    /// A body has come.
    pub(crate) fn arrived(&mut self, digest: Digest, batch: &Batch) {
        if self.doubted.remove(&digest) {
            self.suspects.insert((batch.epoch, batch.origin));
        }
    }

    /// A validator says that it holds these.
    pub(crate) fn note(&mut self, from: ValidatorIndex, held: &[Digest]) {
        for digest in held {
            // Only what was asked for: answers to no question would fill the memory.
            if let Some(holders) = self.holders.get_mut(digest) {
                holders.insert(from);
            }
        }
    }

    /// True if a leader may name the batch. If not, and if others `may_be_asked` about it, its holders are counted from now
    /// on. Of those nobody is asked about none is counted: with more of them than [`COUNTED_MAX`], each choice of batches
    /// would forget what it is about to ask, and no answer would ever count.
    pub(crate) fn may_name(
        &mut self,
        digest: Digest,
        batch: &Batch,
        me: ValidatorIndex,
        validators: &ValidatorSet,
        may_be_asked: bool,
    ) -> bool {
        if !self.suspects.contains(&(batch.epoch, batch.origin)) {
            return true;
        }
        if !self.holders.contains_key(&digest) {
            if !may_be_asked {
                return false;
            }
            if self.holders.len() >= COUNTED_MAX {
                self.holders.clear();
            }
        }
        let holders = self.holders.entry(digest).or_default();
        holders.insert(me);
        validators.is_quorum(holders.iter().copied())
    }

    /// These are final: nobody asks for them any more.
    pub(crate) fn ordered(&mut self, blocks: &[Block]) {
        if self.holders.is_empty() && self.doubted.is_empty() {
            return;
        }
        for digest in blocks.iter().flat_map(|block| &block.batches) {
            self.holders.remove(digest);
            self.doubted.remove(digest);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bizra_simplex::types::{Power, Signature};
    use bytes::Bytes;

    const ME: ValidatorIndex = ValidatorIndex(0);

    fn batch(origin: u16) -> Batch {
        let (epoch, origin) = (Epoch(0), ValidatorIndex(origin));
        Batch { epoch, origin, sequence: 1, payload: Bytes::new(), signature: Signature([0; 64]) }
    }

    #[test]
    fn after_a_nullified_view_an_origin_is_named_only_with_a_quorum_of_holders() {
        let validators = ValidatorSet::new(vec![Power(1); 4]).unwrap();
        let (digest, other) = (Digest([1; 32]), Digest([2; 32]));
        let (withheld, sound) = (batch(3), batch(2));
        let mut holding = Holding::default();
        assert!(holding.may_name(digest, &withheld, ME, &validators, true));

        let block = Block { batches: vec![digest], ..Block::genesis(Digest::default(), 0) };
        holding.nullified(&block, |_| None);
        holding.arrived(digest, &withheld);
        holding.note(ValidatorIndex(1), &[digest]);
        assert!(!holding.may_name(digest, &withheld, ME, &validators, true), "an answer before the question");
        assert!(holding.may_name(other, &sound, ME, &validators, true), "another origin");
        holding.note(ValidatorIndex(1), &[digest]);
        assert!(!holding.may_name(digest, &withheld, ME, &validators, true));
        holding.note(ValidatorIndex(2), &[digest]);
        assert!(holding.may_name(digest, &withheld, ME, &validators, true));
    }

    #[test]
    fn answers_count_however_many_batches_wait() {
        let validators = ValidatorSet::new(vec![Power(1); 4]).unwrap();
        let batch = batch(3);
        let digests: Vec<Digest> = (0..2 * COUNTED_MAX)
            .map(|number| {
                let mut digest = Digest([1; 32]);
                digest.0[..8].copy_from_slice(&number.to_be_bytes());
                digest
            })
            .collect();
        let mut holding = Holding::default();
        holding
            .nullified(&Block { batches: vec![digests[0]], ..Block::genesis(Digest::default(), 0) }, |_| Some(&batch));
        let choose = |holding: &mut Holding| {
            let (mut named, mut unsure) = (0, Vec::new());
            for digest in &digests {
                if holding.may_name(*digest, &batch, ME, &validators, unsure.len() < HELD_MAX) {
                    named += 1;
                } else if unsure.len() < HELD_MAX {
                    unsure.push(*digest);
                }
            }
            (named, unsure)
        };
        let (named, asked) = choose(&mut holding);
        assert_eq!((named, asked.len()), (0, HELD_MAX));
        holding.note(ValidatorIndex(1), &asked);
        holding.note(ValidatorIndex(2), &asked);
        assert_eq!(choose(&mut holding).0, HELD_MAX);
    }
}
