//! Proposals: a leader's block with proof that its parent may be built upon.

use crate::block::Block;
use crate::certificate::Certificate;
use crate::types::{Epoch, Signature, ValidatorIndex, View};
use crate::validators::ValidatorSet;
use crate::vote::{SignedVote, Vote, VoteKind};

/// A block proposed in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The view it is proposed in.
    pub view: View,
    /// The view whose certificate lets the parent be built upon; 0 if the parent is the genesis block.
    pub parent_view: View,
    /// The block.
    pub block: Block,
    /// Notarization or finalization of the parent (R1); absent only for the genesis block.
    pub justification: Option<Certificate>,
    /// The leader's signature over [`Proposal::vote`].
    pub signature: Signature,
}

impl Proposal {
    /// What the leader signs.
    pub fn vote(&self) -> Vote {
        Vote { epoch: self.block.epoch, view: self.view, kind: VoteKind::Propose, digest: self.block.digest() }
    }

    /// The leader's signature as a vote.
    pub fn signed_vote(&self, leader: ValidatorIndex) -> SignedVote {
        SignedVote { vote: self.vote(), signer: leader, signature: self.signature }
    }

    /// True if view, parent view, justification and sizes fit each other. Says nothing about the parent block itself,
    /// which may not be known yet, nor about signatures.
    pub fn is_well_formed(&self, epoch: Epoch, validators: &ValidatorSet) -> bool {
        let justified = match &self.justification {
            None => self.parent_view == View(0),
            Some(certificate) => {
                certificate.view() == self.parent_view
                    && matches!(certificate.vote.kind, VoteKind::Notarize | VoteKind::Finalize)
                    && certificate.vote.digest == self.block.parent
                    && certificate.is_well_formed(epoch, validators)
            }
        };
        let mut sorted = self.block.batches.clone();
        sorted.sort_unstable();
        let distinct = sorted.windows(2).all(|pair| pair[0] != pair[1]);
        justified
            && distinct
            && self.block.epoch == epoch
            && self.parent_view < self.view
            && self.block.height.0 > 0
            && self.block.batches.len() <= crate::block::BATCHES_PER_BLOCK_MAX
    }
}
