//! What one honest node held when it voted: an independent reading of R1, V2, V4, D2 and D3. It sees what the node commits
//! to its disk, and asks of every new vote whether that was there before.

use std::collections::{BTreeMap, BTreeSet};

use bizra_driver::Change;
use bizra_simplex::types::Digest;
use bizra_simplex::{Block, Certificate, Record, Vote, VoteKind};

use crate::oracle::block_digest;

/// Everything a node has ever committed. A vote that is recorded and sent only after a restart rests on the same commit
/// as before, so nothing is taken away in a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    /// Digests certified, by (epoch, view, kind).
    certified: BTreeMap<(u64, u64, VoteKind), Digest>,
    blocks: BTreeMap<Digest, Block>,
    batches: BTreeSet<Digest>,
    /// Height at which its finalised chain orders a batch, by the turns before the present one.
    ordered: BTreeMap<Digest, u64>,
    /// The same, by the present turn: its votes may have been decided on before.
    ordered_now: Vec<(Digest, u64)>,
}

impl Witness {
    /// Another turn, or a start: what was committed before is known in it.
    pub(crate) fn turn(&mut self) {
        self.ordered.extend(self.ordered_now.drain(..));
    }

    /// It starts with this many finalised blocks: what was ordered above them is lost, and not known any more.
    pub(crate) fn restarted(&mut self, tip: u64) {
        self.turn();
        self.ordered.retain(|_, height| *height <= tip);
    }

    /// Notes a change, and hands back the certificate in it, which must prove itself.
    pub(crate) fn committed<'a>(&mut self, change: &'a Change) -> Option<&'a Certificate> {
        match change {
            Change::Record(Record::Block(block)) => {
                self.blocks.insert(block_digest(block), block.clone());
                None
            }
            Change::Record(Record::Certificate(certificate)) => {
                self.certified(certificate);
                Some(certificate)
            }
            // Its signatures are judged where the chain is.
            Change::Finalize(blocks, certificate) => {
                self.certified(certificate);
                let orders = |block: &'a Block| block.batches.iter().map(|batch| (*batch, block.height.0));
                self.ordered_now.extend(blocks.iter().flat_map(orders));
                None
            }
            Change::Batch(digest, _) => {
                self.batches.insert(*digest);
                None
            }
            Change::Execute(block, _) => {
                self.batches.extend(&block.batches);
                None
            }
            Change::Forget(_) | Change::HighestVote(..) | Change::Evidence(..) => None,
        }
    }

    fn certified(&mut self, certificate: &Certificate) {
        let vote = certificate.vote;
        self.certified.insert((vote.epoch.0, vote.view.0, vote.kind), vote.digest);
    }

    fn holds(&self, vote: &Vote, kind: VoteKind, view: u64) -> Option<Digest> {
        self.certified.get(&(vote.epoch.0, view, kind)).copied()
    }

    /// E2: nothing of the same epoch comes after its last block.
    fn past_boundary(&self, vote: &Vote) -> Option<String> {
        let parent = self.blocks.get(&self.blocks.get(&vote.digest)?.parent)?;
        let past = parent.epoch == vote.epoch && parent.boundary.is_some();
        past.then(|| "E2: builds past the last block of its epoch".into())
    }

    /// What a new vote lacks; `None` if it was right to give it. `begins` says whether a block is the one the epoch of
    /// the vote begins after.
    pub(crate) fn lacks(&self, vote: &Vote, begins: impl Fn(Digest) -> bool) -> Option<String> {
        let view = vote.view.0;
        match vote.kind {
            VoteKind::Nullify => return None,
            VoteKind::Propose => return self.past_boundary(vote),
            VoteKind::Finalize if self.holds(vote, VoteKind::Notarize, view) != Some(vote.digest) => {
                return Some("V2: finalizes without a notarization".into());
            }
            VoteKind::Finalize | VoteKind::Notarize => {}
        }
        let Some(block) = self.blocks.get(&vote.digest) else {
            return Some("votes for a block that it does not hold".into());
        };
        if !block.batches.iter().all(|batch| self.batches.contains(batch)) {
            return Some("D2: votes without holding every batch".into());
        }
        let ordered_below = |batch: &Digest| self.ordered.get(batch).is_some_and(|height| *height < block.height.0);
        if block.batches.iter().any(ordered_below) {
            return Some("D3: votes for a batch that its finalised chain orders already".into());
        }
        if vote.kind == VoteKind::Finalize {
            return None;
        }
        if let Some(what) = self.past_boundary(vote) {
            return Some(what);
        }
        // V4, E2: on its parent, or the same block again.
        let certifies = |below: u64| {
            [VoteKind::Notarize, VoteKind::Finalize]
                .into_iter()
                .filter_map(|kind| self.holds(vote, kind, below))
                .any(|digest| digest == block.parent || digest == vote.digest)
        };
        // Down from the view to the parent's, over nullified views only.
        let mut below = view;
        while below > 1 {
            below -= 1;
            if certifies(below) {
                return None;
            }
            if self.holds(vote, VoteKind::Nullify, below).is_none() {
                return Some(format!("V4: notarizes, but view {below} is neither its parent's nor nullified"));
            }
        }
        (!begins(block.parent)).then(|| "V4: notarizes on a parent that is not certified".into())
    }
}
