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

/// The tree of candidate blocks.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) anchor: Anchor,
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

    /// Walks from the anchor to `digest`. Heights must fall by one at each step, which also ends the walk.
    pub(crate) fn path(&self, digest: Digest) -> Path {
        let mut blocks = Vec::new();
        let mut at = digest;
        loop {
            if at == self.anchor.digest {
                blocks.reverse();
                return Path::Complete(blocks);
            }
            let Some(entry) = self.entries.get(&at) else {
                return Path::Missing(at);
            };
            let follows = blocks.last().is_none_or(|child: &Block| child.height == entry.block.height.next());
            // At the anchor's next height the parent can only be the anchor.
            let foreign = entry.block.height == self.anchor.height().next() && entry.block.parent != self.anchor.digest;
            if !follows || foreign || entry.block.height <= self.anchor.height() {
                return Path::Foreign;
            }
            blocks.push(entry.block.clone());
            at = entry.block.parent;
        }
    }

    /// Makes `anchor` the last finalised block and forgets what cannot descend from it any more.
    pub(crate) fn advance(&mut self, anchor: Anchor) {
        let height = anchor.height();
        self.anchor = anchor;
        self.entries.retain(|_, entry| entry.block.height > height);
    }
}
