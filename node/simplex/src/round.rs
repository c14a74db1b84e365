//! What is known of one view: its proposal, votes and certificates.

use std::collections::{BTreeMap, BTreeSet};

use crate::certificate::Certificate;
use crate::planted::{Bug, planted};
use crate::proposal::Proposal;
use crate::types::{Digest, Signature, ValidatorIndex};
use crate::validators::ValidatorSet;
use crate::vote::{SignedVote, Vote, VoteKind};

/// One view's knowledge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) proposal: Option<Proposal>,
    /// Digest of the proposed block.
    pub(crate) proposed: Option<Digest>,
    /// First vote of each kind of each signer; a second, different one is evidence and not counted.
    votes: BTreeMap<(VoteKind, ValidatorIndex), (Digest, Signature)>,
    /// Who contradicted itself here: once is enough, a repetition costs nothing any more.
    accused: BTreeSet<ValidatorIndex>,
    pub(crate) notarization: Option<Certificate>,
    pub(crate) nullification: Option<Certificate>,
    pub(crate) finalization: Option<Certificate>,
}

/// What a vote did to a round.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It was new.
    New,
    /// It was there already.
    Known,
    /// It contradicts an earlier vote of the same signer.
    Conflict(SignedVote),
}

impl Round {
    /// Keeps the view's proposal; `digest` is its block's.
    pub(crate) fn propose(&mut self, digest: Digest, proposal: Proposal) {
        self.proposed = Some(digest);
        self.proposal = Some(proposal);
    }

    /// The vote of this signer and kind, if one is counted.
    pub(crate) fn vote(&self, vote: &Vote, signer: ValidatorIndex) -> Option<SignedVote> {
        let &(digest, signature) = self.votes.get(&(vote.kind, signer))?;
        Some(SignedVote { vote: Vote { digest, ..*vote }, signer, signature })
    }

    /// True if counting this vote could change anything.
    pub(crate) fn wants(&self, vote: &SignedVote) -> bool {
        match self.vote(&vote.vote, vote.signer) {
            None => true,
            Some(known) => known.vote.digest != vote.vote.digest && !self.accused.contains(&vote.signer),
        }
    }

    /// Counts a verified vote.
    pub(crate) fn count(&mut self, vote: &SignedVote) -> Counted {
        let conflict = [VoteKind::Propose, VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize]
            .into_iter()
            .filter_map(|kind| self.vote(&Vote { kind, ..vote.vote }, vote.signer))
            .find(|known| known.vote.conflicts_with(&vote.vote));
        if let Some(known) = conflict {
            return if self.accused.insert(vote.signer) { Counted::Conflict(known) } else { Counted::Known };
        }
        let key = (vote.vote.kind, vote.signer);
        match self.votes.insert(key, (vote.vote.digest, vote.signature)) {
            Some(_) => Counted::Known,
            None => Counted::New,
        }
    }

    /// The certificate that the counted votes make for `vote`, if a quorum agrees on it.
    pub(crate) fn quorum(&self, vote: Vote, validators: &ValidatorSet) -> Option<Certificate> {
        let equal = || {
            let range = (vote.kind, ValidatorIndex(0))..=(vote.kind, ValidatorIndex(u16::MAX));
            let equal = self.votes.range(range).filter(|(_, (digest, _))| *digest == vote.digest);
            equal.map(|(&(_, signer), &(_, signature))| (signer, signature))
        };
        let counted = || equal().chain(equal().filter(|_| planted(Bug::VoterCountedTwice)));
        validators
            .is_quorum(counted().map(|(signer, _)| signer))
            .then(|| Certificate { vote, signatures: counted().collect() })
    }

    /// The certificate of a kind, if held.
    pub(crate) fn certificate(&self, kind: VoteKind) -> Option<&Certificate> {
        match kind {
            VoteKind::Propose => None,
            VoteKind::Notarize => self.notarization.as_ref(),
            VoteKind::Nullify => self.nullification.as_ref(),
            VoteKind::Finalize => self.finalization.as_ref(),
        }
    }

    /// Stores a certificate; false if one of its kind is held already.
    pub(crate) fn hold(&mut self, certificate: Certificate) -> bool {
        let slot = match certificate.vote.kind {
            VoteKind::Propose => return false,
            VoteKind::Notarize => &mut self.notarization,
            VoteKind::Nullify => &mut self.nullification,
            VoteKind::Finalize => &mut self.finalization,
        };
        if slot.is_some() {
            return false;
        }
        *slot = Some(certificate);
        true
    }

    /// Everything held, strongest first.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        [&self.finalization, &self.notarization, &self.nullification].into_iter().flatten()
    }

    /// The certificate that makes this view a parent: its block may be built upon.
    pub(crate) fn justification(&self) -> Option<&Certificate> {
        self.notarization.as_ref().or(self.finalization.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, View};

    const NULLIFY: Digest = Digest([0; 32]);

    fn signed(kind: VoteKind, digest: u8, signer: u16) -> SignedVote {
        let vote = Vote { epoch: Epoch(1), view: View(7), kind, digest: Digest([digest; 32]) };
        SignedVote { vote, signer: ValidatorIndex(signer), signature: Signature([signer as u8; 64]) }
    }

    /// E4: both votes of a contradiction are told, once for each signer.
    #[test]
    fn a_contradiction_is_told_with_the_vote_that_was_first_and_only_once() {
        for (first, second) in [
            (signed(VoteKind::Notarize, 1, 2), signed(VoteKind::Notarize, 9, 2)),
            (signed(VoteKind::Propose, 1, 2), signed(VoteKind::Propose, 9, 2)),
            (signed(VoteKind::Finalize, 1, 2), signed(VoteKind::Nullify, 0, 2)),
            (signed(VoteKind::Nullify, 0, 2), signed(VoteKind::Finalize, 1, 2)),
        ] {
            let mut round = Round::default();
            assert_eq!(round.count(&first), Counted::New);
            assert_eq!(round.count(&first), Counted::Known);
            assert_eq!(round.count(&second), Counted::Conflict(first));
            assert_eq!(round.count(&second), Counted::Known, "once is enough");
            assert_eq!(round.vote(&first.vote, first.signer), Some(first), "the first one counts");
        }
    }

    #[test]
    fn votes_of_other_kinds_and_signers_stand_beside_each_other() {
        let mut round = Round::default();
        for vote in [
            signed(VoteKind::Notarize, 1, 2),
            signed(VoteKind::Finalize, 1, 2),
            signed(VoteKind::Notarize, 9, 3),
            signed(VoteKind::Nullify, 0, 4),
        ] {
            assert!(round.wants(&vote));
            assert_eq!(round.count(&vote), Counted::New);
            assert!(!round.wants(&vote), "it is there");
        }
        assert_eq!(round.vote(&signed(VoteKind::Nullify, 0, 2).vote, ValidatorIndex(2)), None);
    }

    /// R4: a signature is checked only if the vote could change anything.
    #[test]
    fn a_second_vote_is_wanted_as_evidence_and_a_third_is_not() {
        let mut round = Round::default();
        round.count(&signed(VoteKind::Notarize, 1, 2));
        let (second, third) = (signed(VoteKind::Notarize, 8, 2), signed(VoteKind::Notarize, 9, 2));
        assert!(round.wants(&second) && round.wants(&third));
        round.count(&second);
        assert!(!round.wants(&third));
        assert!(round.wants(&signed(VoteKind::Notarize, 9, 3)), "another signer's");
    }

    /// R1: what is held already is not forwarded again.
    #[test]
    fn of_each_kind_one_certificate_is_held() {
        let mut round = Round::default();
        for kind in [VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize] {
            let certificate = Certificate { vote: signed(kind, 1, 0).vote, signatures: Vec::new() };
            assert_eq!(round.certificate(kind), None);
            assert!(round.hold(certificate.clone()));
            assert_eq!(round.certificate(kind), Some(&certificate));
            assert!(!round.hold(Certificate { vote: Vote { digest: NULLIFY, ..certificate.vote }, ..certificate }));
            assert_eq!(
                round.certificates().count(),
                1 + usize::from(kind != VoteKind::Notarize) + usize::from(kind == VoteKind::Finalize)
            );
        }
        let proposal = Certificate { vote: signed(VoteKind::Propose, 1, 0).vote, signatures: Vec::new() };
        assert!(!round.hold(proposal) && round.certificate(VoteKind::Propose).is_none(), "proposals have none");
    }
}
