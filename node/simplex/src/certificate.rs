//! Certificates: the same vote signed by a quorum.

use crate::planted::{Bug, planted};
use crate::types::{Epoch, Signature, ValidatorIndex, View};
use crate::validators::ValidatorSet;
use crate::vote::{SignedVote, Vote, VoteKind};

/// A quorum's signatures over one vote: a notarization, nullification or finalization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What the quorum signed.
    pub vote: Vote,
    /// Signers and signatures, in strictly ascending order of signers.
    pub signatures: Vec<(ValidatorIndex, Signature)>,
}

impl Certificate {
    /// View the certificate is about.
    pub fn view(&self) -> View {
        self.vote.view
    }

    /// True if the form is right: a kind that certificates have, signers ascending, and a quorum of the set. The
    /// signatures themselves are checked by whoever answers [`crate::Effect::Verify`].
    pub fn is_well_formed(&self, epoch: Epoch, validators: &ValidatorSet) -> bool {
        (self.vote.epoch == epoch || planted(Bug::CrossEpochReplay))
            && self.vote.kind != VoteKind::Propose
            && self.signatures.is_sorted_by(|left, right| left.0 < right.0 || planted(Bug::DuplicateSigners))
            && validators.is_quorum(self.signatures.iter().map(|(signer, _)| *signer))
            && self.signatures.iter().all(|(signer, _)| validators.power(*signer).is_some())
    }

    /// The single votes the certificate is made of.
    pub fn votes(&self) -> impl Iterator<Item = SignedVote> + '_ {
        self.signatures.iter().map(|&(signer, signature)| SignedVote { vote: self.vote, signer, signature })
    }
}
