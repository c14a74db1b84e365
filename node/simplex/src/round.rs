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
