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
    /// Whose batch a question asked about last.
    last_asked: Option<Origin>,
}

/// Batches that a leader may not name yet, oldest first, by origin.
#[derive(Debug, Default)]
pub(crate) struct Unsure(BTreeMap<Origin, Vec<Digest>>);

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

    /// True if a leader may name the batch. If not, it is added to what is `unsure`.
    pub(crate) fn may_name(
        &self,
        digest: Digest,
        batch: &Batch,
        validators: &ValidatorSet,
        unsure: &mut Unsure,
    ) -> bool {
        let origin = (batch.epoch, batch.origin);
        if !self.suspects.contains(&origin) {
            return true;
        }
        let holders = self.holders.get(&digest);
        let sure = holders.is_some_and(|holders| validators.is_quorum(holders.iter().copied()));
        if !sure {
            let digests = unsure.0.entry(origin).or_default();
            if digests.len() < HELD_MAX {
                digests.push(digest);
            }
        }
        sure
    }

    /// What to ask the others, of whom this node is `me`: [`HELD_MAX`] batches at most, one of each origin in turn, and the
    /// next question begins with the origin after the last. So no origin waits behind batches that another one gave to
    /// this node alone, which nobody will ever say it holds. Their holders are counted from now on; those of batches that
    /// nobody is asked about are not: with more of them than [`COUNTED_MAX`] no answer would ever count.
    pub(crate) fn question(&mut self, unsure: &Unsure, me: ValidatorIndex) -> Vec<Digest> {
        let last = self.last_asked;
        let (before, after): (Vec<_>, Vec<_>) = unsure.0.iter().partition(|(origin, _)| Some(**origin) <= last);
        let origins = || after.iter().chain(&before);
        let rounds = (0..HELD_MAX).flat_map(|place| {
            origins().filter_map(move |(origin, digests)| digests.get(place).map(|digest| (**origin, *digest)))
        });
        let asked: Vec<(Origin, Digest)> = rounds.take(HELD_MAX).collect();
        self.last_asked = asked.last().map(|(origin, _)| *origin);
        if self.holders.len() + asked.len() > COUNTED_MAX {
            let again: BTreeSet<&Digest> = asked.iter().map(|(_, digest)| digest).collect();
            self.holders.retain(|digest, _| again.contains(digest));
        }
        for (_, digest) in &asked {
            self.holders.entry(*digest).or_default().insert(me);
        }
        asked.into_iter().map(|(_, digest)| digest).collect()
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

    /// Digests that differ in their first bytes.
    fn digests(mark: u8, count: usize) -> Vec<Digest> {
        let digest = |number: usize| {
            let mut digest = Digest([mark; 32]);
            digest.0[..8].copy_from_slice(&number.to_be_bytes());
            digest
        };
        (0..count).map(digest).collect()
    }

    fn suspecting(origins: &[u16]) -> Holding {
        let mut holding = Holding::default();
        for origin in origins {
            let block = Block { batches: vec![Digest([9; 32])], ..Block::genesis(Digest::default(), 0) };
            let batch = batch(*origin);
            holding.nullified(&block, |_| Some(&batch));
        }
        holding
    }

    /// What a leader that holds these batches, oldest first, names and asks about.
    fn choose(holding: &mut Holding, held: &[(u16, Digest)]) -> (Vec<Digest>, Vec<Digest>) {
        let validators = ValidatorSet::new(vec![Power(1); 4]).unwrap();
        let mut unsure = Unsure::default();
        let sure =
            held.iter().filter(|(origin, digest)| holding.may_name(*digest, &batch(*origin), &validators, &mut unsure));
        let named = sure.map(|(_, digest)| *digest).collect();
        (named, holding.question(&unsure, ME))
    }

    #[test]
    fn after_a_nullified_view_an_origin_is_named_only_with_a_quorum_of_holders() {
        let (digest, other) = (Digest([1; 32]), Digest([2; 32]));
        let held = [(3, digest), (2, other)];
        let mut holding = Holding::default();
        assert_eq!(choose(&mut holding, &held), (vec![digest, other], Vec::new()));

        let block = Block { batches: vec![digest], ..Block::genesis(Digest::default(), 0) };
        holding.nullified(&block, |_| None);
        holding.arrived(digest, &batch(3));
        holding.note(ValidatorIndex(1), &[digest]);
        holding.note(ValidatorIndex(2), &[digest]);
        assert_eq!(choose(&mut holding, &held), (vec![other], vec![digest]), "answers before the question");
        holding.note(ValidatorIndex(1), &[digest]);
        assert_eq!(choose(&mut holding, &held), (vec![other], vec![digest]));
        holding.note(ValidatorIndex(2), &[digest]);
        assert_eq!(choose(&mut holding, &held), (vec![digest, other], Vec::new()));
    }

    #[test]
    fn answers_count_however_many_batches_wait() {
        let held: Vec<(u16, Digest)> = digests(1, 2 * COUNTED_MAX).into_iter().map(|digest| (3, digest)).collect();
        let mut holding = suspecting(&[3]);
        for turn in 0..2 * COUNTED_MAX / HELD_MAX {
            let (named, asked) = choose(&mut holding, &held[turn * HELD_MAX..]);
            assert_eq!((named.len(), asked.len()), (0, HELD_MAX));
            holding.note(ValidatorIndex(1), &asked);
            holding.note(ValidatorIndex(2), &asked);
            assert_eq!(choose(&mut holding, &held[turn * HELD_MAX..]).0, asked);
            assert!(holding.holders.len() <= COUNTED_MAX);
        }
    }

    /// An origin gives one leader so much that nobody else will ever say it holds: others are asked about all the same.
    #[test]
    fn no_origin_waits_behind_what_another_one_withholds() {
        let withheld = digests(1, 2 * HELD_MAX);
        let sound = digests(2, 3);
        let held: Vec<(u16, Digest)> =
            withheld.into_iter().map(|digest| (3, digest)).chain(sound.iter().map(|digest| (1, *digest))).collect();
        let mut holding = suspecting(&[1, 3]);
        let (named, asked) = choose(&mut holding, &held);
        assert!(named.is_empty() && asked.len() == HELD_MAX);
        assert!(sound.iter().all(|digest| asked.contains(digest)), "{asked:?}");
        holding.note(ValidatorIndex(1), &sound);
        holding.note(ValidatorIndex(2), &sound);
        assert_eq!(choose(&mut holding, &held).0, sound);
    }

    /// Also if there are more such origins than one question has places.
    #[test]
    fn every_suspect_origin_is_asked_about_in_turn() {
        let origins: Vec<u16> = (0..100).collect();
        let held: Vec<(u16, Digest)> = origins.iter().copied().zip(digests(1, origins.len())).collect();
        let mut holding = suspecting(&origins);
        let mut asked: BTreeSet<Digest> = choose(&mut holding, &held).1.into_iter().collect();
        assert_eq!(asked.len(), HELD_MAX);
        asked.extend(choose(&mut holding, &held).1);
        assert_eq!(asked.len(), origins.len());
    }
}
