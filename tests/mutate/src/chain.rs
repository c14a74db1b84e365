//! Which edits are made one after the other. Chain `n` is the same for ever, so a number is all that has to be known of one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    random::Random,
    schema::{Leaf, leaves, specs},
    values::{Candidate, candidates},
};

/// Edits of a chain; after them it goes back.
pub(crate) const EDITS: usize = 10;

/// What an object is like before the first edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Only what is required.
    Bare,
    /// All that can be said together, so that taking a field away takes something away.
    Full,
}

/// One edit.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// Index of the leaf among the kind's.
    pub(crate) leaf: usize,
    pub(crate) candidate: Candidate,
}

/// Edits of one object.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) seed: u64,
    pub(crate) kind: String,
    pub(crate) first: First,
    pub(crate) edits: Vec<Edit>,
}

/// A kind with its leaves and what is tried on each.
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) spec: Value,
    pub(crate) leaves: Vec<Leaf>,
    /// Of each leaf, a pile of each sort.
    candidates: Vec<Vec<Vec<Candidate>>>,
}

/// All kinds.
pub(crate) struct Deck {
    pub(crate) kinds: BTreeMap<String, Kind>,
}

impl Deck {
    /// From the generated definitions.
    pub(crate) fn new() -> Self {
        let kind = |(name, spec): (String, Value)| {
            let leaves = leaves(&name, &spec);
            let candidates = leaves.iter().map(candidates).collect();
            (name.clone(), Kind { name, spec, leaves, candidates })
        };
        Self { kinds: specs().into_iter().map(kind).collect() }
    }

    /// Leaves of all kinds.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        self.kinds.values().flat_map(|kind| &kind.leaves)
    }

    /// Chain `seed`. Kinds take turns by their number of leaves; a kind's chains go through its leaves, shuffled anew each round,
    /// and each leaf gets another value in each round.
    pub(crate) fn chain(&self, seed: u64) -> Chain {
        let total: usize = self.leaves().count();
        let mut dealt: BTreeMap<&str, usize> = BTreeMap::new();
        let mut turn = 0;
        loop {
            // Whoever is furthest behind its share.
            let behind = |kind: &&Kind| {
                let had = dealt.get(kind.name.as_str()).copied().unwrap_or(0);
                (kind.leaves.len() * (turn + 1)).cast_signed() - (had * total).cast_signed()
            };
            let kind = self.kinds.values().max_by_key(behind).expect("there are kinds");
            let number = dealt.entry(&kind.name).or_default();
            if turn as u64 == seed {
                let first = if number.is_multiple_of(2) { First::Bare } else { First::Full };
                let edits = (*number * EDITS..(*number + 1) * EDITS).map(|position| kind.edit(position)).collect();
                return Chain { seed, kind: kind.name.clone(), first, edits };
            }
            *number += 1;
            turn += 1;
        }
    }
}

impl Kind {
    fn edit(&self, position: usize) -> Edit {
        let (round, place) = (position / self.leaves.len(), position % self.leaves.len());
        let mut random = Random::new(round as u64);
        let mut order: Vec<usize> = (0..self.leaves.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        let leaf = order[place];
        // Leaves begin at different sorts, so that every run has them all; a leaf's next value is of another one.
        let piles = &self.candidates[leaf];
        let (sort, value) = ((leaf + round) % piles.len(), (leaf + round) / piles.len());
        Edit { leaf, candidate: piles[sort][value % piles[sort].len()].clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::values::SORTS;

    #[test]
    fn a_number_repeats_its_chain() {
        let deck = Deck::new();
        let told = |seed| format!("{:?}", deck.chain(seed));
        assert_eq!(told(17), told(17));
        assert_ne!(told(17), told(18));
    }

    #[test]
    fn a_thousand_edits_touch_every_leaf_of_every_kind_with_values_of_several_sorts() {
        let deck = Deck::new();
        let mut touched: BTreeMap<(String, usize), BTreeSet<_>> = BTreeMap::new();
        let mut sorts = BTreeSet::new();
        for chain in (0..100).map(|seed| deck.chain(seed)) {
            for edit in chain.edits {
                sorts.insert(edit.candidate.sort);
                touched.entry((chain.kind.clone(), edit.leaf)).or_default().insert(edit.candidate.sort);
            }
        }
        assert_eq!(touched.len(), deck.leaves().count());
        assert_eq!(sorts, SORTS.into());
        assert!(touched.values().all(|sorts| sorts.len() >= 2), "each with two sorts of values or more");
    }

    #[test]
    fn every_kind_begins_bare_and_full() {
        let deck = Deck::new();
        let begun: BTreeSet<String> =
            (0..100).map(|seed| deck.chain(seed)).map(|chain| format!("{} {:?}", chain.kind, chain.first)).collect();
        assert_eq!(begun.len(), 2 * deck.kinds.len(), "{begun:?}");
    }
}
