//! Votes: the only things a consensus key signs, each bound to one chain, epoch, view and kind.

use crate::planted::{Bug, planted};
use crate::types::{Digest, Epoch, Signature, ValidatorIndex, View};

const VOTE_DOMAIN: &[u8] = b"bizra/v1/vote\0";

/// What a vote says about a block or a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoteKind {
    /// The leader of the view proposes the block.
    Propose = 1,
    /// The block may extend the chain; its bodies are held.
    Notarize = 2,
    /// The view may be skipped.
    Nullify = 3,
    /// The block is final if a quorum says so.
    Finalize = 4,
}

impl VoteKind {
    /// The kind behind its number on the wire and on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Propose, Self::Notarize, Self::Nullify, Self::Finalize].into_iter().find(|&kind| kind as u8 == number)
    }
}

/// The content of a vote. A nullify names no block: its digest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// Epoch the view belongs to.
    pub epoch: Epoch,
    /// View voted in.
    pub view: View,
    /// What is said.
    pub kind: VoteKind,
    /// The block it is said of; zero for [`VoteKind::Nullify`].
    pub digest: Digest,
}

impl Vote {
    /// The bytes that are signed: domain, genesis hash, epoch, view, kind, digest; 95 bytes, big-endian.
    pub fn signed_bytes(&self, genesis_hash: Digest) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(VOTE_DOMAIN);
        bytes.extend_from_slice(&if planted(Bug::CrossChainReplay) { [0; 32] } else { genesis_hash.0 });
        bytes.extend_from_slice(&self.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.view.0.to_be_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.digest.0);
        bytes
    }

    /// True if an honest validator never signs both (V1, V3).
    pub fn conflicts_with(&self, other: &Self) -> bool {
        if (self.epoch, self.view) != (other.epoch, other.view) {
            return false;
        }
        let kinds = (self.kind.min(other.kind), self.kind.max(other.kind));
        match kinds {
            (VoteKind::Nullify, VoteKind::Finalize) => true,
            (first, second) => first == second && self.digest != other.digest,
        }
    }
}

/// Two votes of one validator that no honest validator signs both (V6). Whether the signatures are valid is known only to
/// who has checked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The lesser vote.
    pub first: SignedVote,
    /// The greater one, of the same signer, epoch and view.
    pub second: SignedVote,
}

impl Contradiction {
    /// Two votes in the order in which they are told.
    pub fn new(one: SignedVote, other: SignedVote) -> Self {
        if other.vote < one.vote { Self { first: other, second: one } } else { Self { first: one, second: other } }
    }

    /// Whose it is: the epoch and the validator's index in it.
    pub fn of(&self) -> (Epoch, ValidatorIndex) {
        (self.first.vote.epoch, self.first.signer)
    }

    /// True if the votes are one signer's, conflict, and stand in the one order that has a meaning.
    pub fn is_well_formed(&self) -> bool {
        let Self { first, second } = self;
        let names_no_block =
            |signed: &SignedVote| signed.vote.kind != VoteKind::Nullify || signed.vote.digest == Digest::default();
        first.signer == second.signer
            && first.vote.conflicts_with(&second.vote)
            && first.vote < second.vote
            && [first, second].into_iter().all(names_no_block)
    }
}

/// A vote with its signature. Whether the signature is valid is known only after the core asked for it to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedVote {
    /// What was signed.
    pub vote: Vote,
    /// Who claims to have signed it.
    pub signer: ValidatorIndex,
    /// The signature over [`Vote::signed_bytes`].
    pub signature: Signature,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(kind: VoteKind, digest: u8) -> Vote {
        let digest = if kind == VoteKind::Nullify { Digest::default() } else { Digest([digest; 32]) };
        Vote { epoch: Epoch(0), view: View(7), kind, digest }
    }

    #[test]
    fn conflicts_are_exactly_those_of_v1_and_v3() {
        use VoteKind::{Finalize, Notarize, Nullify, Propose};
        assert!(vote(Notarize, 1).conflicts_with(&vote(Notarize, 2)));
        assert!(vote(Propose, 1).conflicts_with(&vote(Propose, 2)));
        assert!(vote(Finalize, 1).conflicts_with(&vote(Nullify, 0)));
        assert!(!vote(Notarize, 1).conflicts_with(&vote(Nullify, 0)));
        assert!(!vote(Notarize, 1).conflicts_with(&vote(Finalize, 1)));
        assert!(!vote(Notarize, 1).conflicts_with(&vote(Notarize, 1)));
    }
}
