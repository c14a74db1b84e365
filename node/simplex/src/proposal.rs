//! Proposals: a leader's block with proof that its parent may be built upon.

use crate::block::Block;
use crate::certificate::Certificate;
use crate::planted::{Bug, planted};
use crate::types::{Epoch, Height, Signature, ValidatorIndex, View};
use crate::validators::ValidatorSet;
use crate::version::Protocol;
use crate::vote::{SignedVote, Vote, VoteKind};

/// A block proposed in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The view it is proposed in.
    pub view: View,
    /// The view whose certificate lets the parent be built upon; 0 if the parent is the last block of the epoch before,
    /// or the genesis block. For a block proposed again (E2), the view of its own notarization.
    pub parent_view: View,
    /// The block.
    pub block: Block,
    /// Notarization or finalization of the parent (R1), or of the block itself if it is proposed again (E2); absent only
    /// for the first block of an epoch.
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

    /// True if this is the last block of its epoch, proposed again after it was notarized (E2).
    pub fn is_repeated(&self) -> bool {
        self.block.boundary.is_some()
            && self.justification.as_ref().is_some_and(|certificate| certificate.vote.digest == self.block.digest())
    }

    /// True if view, parent view, justification and block fit each other. Says nothing about the parent block itself,
    /// which may not be known yet, nor about signatures.
    pub fn is_well_formed(&self, epoch: Epoch, cutoff: Height, validators: &ValidatorSet, protocol: Protocol) -> bool {
        let justified = match &self.justification {
            None => self.parent_view == View(0),
            Some(certificate) => {
                certificate.view() == self.parent_view
                    && matches!(certificate.vote.kind, VoteKind::Notarize | VoteKind::Finalize)
                    && (certificate.vote.digest == self.block.parent
                        || self.is_repeated()
                        || planted(Bug::ParentUnchecked))
                    && certificate.is_well_formed(epoch, validators)
            }
        };
        // P1, T2: a signal is its proposer's own word, and the view is the proposer's. Who proposes a boundary again repeats
        // another one's, and the notarization shows that this was checked when it was new.
        let own =
            self.is_repeated() || (validators.leader(self.view) == self.block.proposer && self.view == self.block.view);
        justified
            && own
            && self.block.epoch == epoch
            && self.parent_view < self.view
            && self.block.is_well_formed(cutoff, protocol)
    }
}
