//! Blocks above the last finalised one, and that one itself.

use std::collections::BTreeMap;

use crate::block::Block;
use crate::event::Verdict;
use crate::types::{Digest, Height, View};

/// A known block and what is known of its bodies.
#[derive(Clone, Debug)]
struct Entry {
    block: Block,
    verdict: Option<Verdict>,
    check_requested: bool,
}

/// The last finalised block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// View of the certificate that finalised it.
    pub view: View,
    /// Its digest.
    pub digest: Digest,
    /// The block.
    pub block: Block,
}

impl Anchor {
    /// The block an epoch begins after: the genesis block or the last one of the epoch before.
    pub fn first(block: Block) -> Self {
        Self { view: View(0), digest: block.digest(), block }
    }

    /// Its height.
    pub fn height(&self) -> Height {
        self.block.height
    }
}

/// The path from the anchor to a block.
pub(crate) enum Path {
    /// Blocks above the anchor in ascending order; the last is the one asked for. Empty for the anchor itself.
    Complete(Vec<Block>),
    /// This block is missing.
    Missing(Digest),
    /// The block does not descend from the anchor: it can never be built upon.
    Foreign,
}

/// Whether such a path exists.
pub(crate) enum Reach {
    /// It does.
    Complete,
    /// This block is missing.
    Missing(Digest),
    /// The block does not descend from the anchor.
    Foreign,
}

/// The tree of candidate blocks.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) anchor: Anchor,
    /// All above the anchor.
    entries: BTreeMap<Digest, Entry>,
}

impl Tree {
    pub(crate) fn new(anchor: Anchor) -> Self {
        Self { anchor, entries: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, digest: Digest, block: Block) -> bool {
        if digest == self.anchor.digest || block.height <= self.anchor.height() || self.entries.contains_key(&digest) {
            return false;
        }
        self.entries.insert(digest, Entry { block, verdict: None, check_requested: false });
        true
    }

    pub(crate) fn get(&self, digest: Digest) -> Option<&Block> {
        if digest == self.anchor.digest {
            return Some(&self.anchor.block);
        }
        self.entries.get(&digest).map(|entry| &entry.block)
    }

    /// True if the block is known and above the last finalised one.
    pub(crate) fn holds(&self, digest: Digest) -> bool {
        self.entries.contains_key(&digest)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn verdict(&self, digest: Digest) -> Option<Verdict> {
        self.entries.get(&digest).and_then(|entry| entry.verdict)
    }

    pub(crate) fn set_verdict(&mut self, digest: Digest, verdict: Verdict) {
        if let Some(entry) = self.entries.get_mut(&digest) {
            entry.verdict = Some(verdict);
        }
    }

    /// True the first time it is asked for a known, undecided block.
    pub(crate) fn request_check(&mut self, digest: Digest) -> bool {
        match self.entries.get_mut(&digest) {
            Some(entry) if entry.verdict.is_none() && !entry.check_requested => {
                entry.check_requested = true;
                true
            }
            _ => false,
        }
    }

    /// True if there is nothing to ask about this block any more: its check was requested or decided, or it is final.
    pub(crate) fn is_examined(&self, digest: Digest) -> bool {
        let examined = |entry: &Entry| entry.check_requested || entry.verdict.is_some();
        digest == self.anchor.digest || self.entries.get(&digest).is_some_and(examined)
    }

    /// The path from the anchor to `digest`.
    pub(crate) fn path(&self, digest: Digest) -> Path {
        let mut blocks = Vec::new();
        match self.walk(digest, |block| blocks.push(block.clone())) {
            Reach::Complete => {
                blocks.reverse();
                Path::Complete(blocks)
            }
            Reach::Missing(digest) => Path::Missing(digest),
            Reach::Foreign => Path::Foreign,
        }
    }

    /// The same without the blocks.
    pub(crate) fn reach(&self, digest: Digest) -> Reach {
        self.walk(digest, |_| {})
    }

    /// Walks from `digest` down to the anchor. Heights must fall by one at each step, which also ends the walk.
    fn walk(&self, digest: Digest, mut visit: impl FnMut(&Block)) -> Reach {
        let mut at = digest;
        let mut child: Option<Height> = None;
        loop {
            if at == self.anchor.digest {
                return Reach::Complete;
            }
            let Some(Entry { block, .. }) = self.entries.get(&at) else {
                return Reach::Missing(at);
            };
            let follows = child.is_none_or(|child| child == block.height.next());
            // At the anchor's next height the parent can only be the anchor.
            let foreign = block.height == self.anchor.height().next() && block.parent != self.anchor.digest;
            if !follows || foreign {
                return Reach::Foreign;
            }
            visit(block);
            child = Some(block.height);
            at = block.parent;
        }
    }

    /// Makes `anchor` the last finalised block and forgets what cannot descend from it any more.
    pub(crate) fn advance(&mut self, anchor: Anchor) {
        let height = anchor.height();
        self.anchor = anchor;
        self.entries.retain(|_, entry| entry.block.height > height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genesis() -> Block {
        Block::genesis(Digest([9; 32]), 0)
    }

    fn child(parent: &Block) -> Block {
        Block { height: parent.height.next(), parent: parent.digest(), ..parent.clone() }
    }

    fn tree(blocks: &[&Block]) -> Tree {
        let mut tree = Tree::new(Anchor::first(genesis()));
        for block in blocks {
            assert!(tree.insert(block.digest(), (*block).clone()));
        }
        tree
    }

    #[test]
    fn only_new_blocks_above_the_anchor_are_taken() {
        let first = child(&genesis());
        let mut tree = tree(&[&first]);
        let beside = Block { time_milliseconds: 1, ..genesis() };
        for block in [first.clone(), genesis(), beside] {
            assert!(!tree.insert(block.digest(), block));
        }
        assert_eq!(tree.len(), 1);
        assert!(tree.holds(first.digest()));
        assert!(!tree.holds(genesis().digest()) && !tree.holds(child(&first).digest()));
    }

    #[test]
    fn a_path_leads_down_to_the_anchor_one_height_at_a_step() {
        let first = child(&genesis());
        let second = child(&first);
        let reach = |tree: &Tree, block: &Block| tree.reach(block.digest());
        assert!(matches!(reach(&tree(&[]), &genesis()), Reach::Complete));
        assert!(matches!(reach(&tree(&[&first, &second]), &second), Reach::Complete));
        assert!(matches!(reach(&tree(&[&second]), &second), Reach::Missing(digest) if digest == first.digest()));
        let leaps = Block { height: second.height.next(), ..second.clone() };
        assert!(matches!(reach(&tree(&[&first, &leaps]), &leaps), Reach::Foreign));
        let elsewhere = Block { parent: Digest([5; 32]), ..first };
        assert!(matches!(reach(&tree(&[&elsewhere]), &elsewhere), Reach::Foreign));
    }

    #[test]
    fn a_block_is_to_be_checked_once() {
        let first = child(&genesis());
        let digest = first.digest();
        let mut asked = tree(&[&first]);
        assert!(!asked.is_examined(digest) && asked.is_examined(genesis().digest()));
        assert!(asked.request_check(digest) && !asked.request_check(digest));
        assert!(asked.is_examined(digest));
        let mut judged = tree(&[&first]);
        judged.set_verdict(digest, Verdict::Held);
        assert!(judged.is_examined(digest) && !judged.request_check(digest));
        assert!(!judged.request_check(genesis().digest()));
    }
}
