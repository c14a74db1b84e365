//! The rules: what follows from what is known. Each runs until none has anything left to do.

use crate::block::Block;
use crate::certificate::Certificate;
use crate::event::{Effect, Message, Record, Verdict, Want};
use crate::planted::{Bug, planted};
use crate::proposal::Proposal;
use crate::safety::Safety;
use crate::state::{State, WALK_BLOCKS_MAX};
use crate::tree::{Anchor, Path, Reach};
use crate::types::{Digest, Millis, Signature, View};
use crate::vote::{SignedVote, Vote, VoteKind};

/// Where a block of some view may attach.
enum Parent {
    /// To this block, notarized or finalised in this view.
    At(View, Digest),
    /// Unknown until the certificate of this view is held.
    Missing(View),
}

impl State {
    pub(crate) fn advance(&mut self) {
        // Each pass either moves the anchor or the view up, or signs or asks for something once: it ends.
        while !self.is_over() && (self.commit() || self.enter_next_view()) {}
        if !self.is_over() {
            self.propose();
            self.examine();
            self.say_again();
            self.notarize();
            self.finalize();
            self.nullify_when_due();
        }
        self.resend_when_due();
        self.arm_timer();
    }

    fn vote(&self, view: View, kind: VoteKind, digest: Digest) -> Vote {
        Vote { epoch: self.config.epoch, view, kind, digest }
    }

    fn may_sign(&self, vote: &Vote) -> bool {
        self.signing_allowed && self.safety.may_sign(vote)
    }

    /// V5: the only place that signs.
    fn sign(&mut self, vote: Vote) {
        self.safety.sign(&vote);
        self.effects.push(Effect::Sign(vote));
    }

    fn want(&mut self, want: Want, hint: Option<crate::types::ValidatorIndex>) {
        if self.wanted.insert(want) {
            self.effects.push(Effect::Fetch(want, hint));
        }
    }

    /// T1, second half: a finalization makes its block and all below it final. While the highest one lacks ancestors, a
    /// lower one, as a range brings it, moves the anchor towards it. E6: nothing becomes final above the block after which
    /// the chain was restarted, and that one also by its notarization.
    fn commit(&mut self) -> bool {
        let (config, tree) = (&self.config, &self.tree);
        let allowed = |certificate: &&Certificate| {
            let digest = certificate.vote.digest;
            tree.get(digest).is_none_or(|block| config.may_finalize(block.height, digest))
        };
        let finalizations = self.rounds.values().rev().filter_map(|round| {
            let restarted = round.notarization.as_ref().filter(|certificate| config.finalizes(certificate));
            round.finalization.as_ref().or(restarted).filter(allowed)
        });
        let complete = finalizations.clone().find_map(|certificate| match self.tree.path(certificate.vote.digest) {
            Path::Complete(blocks) if !blocks.is_empty() => Some((blocks, certificate.clone())),
            // Foreign: more than a third of the power is Byzantine, two finalised blocks stand at one height. Nothing
            // safe is left to do but to stay where we are; the driver sees the certificate in the records.
            _ => None,
        });
        let highest = finalizations.clone().next().cloned();
        if let Some((blocks, certificate)) = complete {
            self.finalized(blocks, certificate);
            return true;
        }
        let Some(highest) = highest else { return false };
        let Reach::Missing(digest) = self.tree.reach(highest.vote.digest) else { return false };
        let gap = self.tree.get(highest.vote.digest).map(|block| block.height);
        match gap.filter(|height| height.0.saturating_sub(self.tree.anchor.height().0) > WALK_BLOCKS_MAX) {
            Some(height) => self.effects.push(Effect::CatchUp(height)),
            None => self.want(Want::Block(digest), highest.signatures.first().map(|(signer, _)| *signer)),
        }
        false
    }

    fn finalized(&mut self, blocks: Vec<Block>, certificate: Certificate) {
        let Some(last) = blocks.last().cloned() else { return };
        let view = certificate.view();
        self.tree.advance(Anchor { view, digest: certificate.vote.digest, block: last });
        self.rounds = self.rounds.split_off(&view.next());
        self.safety.close(view);
        self.pacing.block_finalized();
        // The rules ask again for blocks that still lack; those of dead branches nobody may ever have.
        self.wanted.retain(|want| matches!(want, Want::View(wanted) if *wanted > view));
        self.anchor_certificate = Some(certificate.clone());
        self.effects.push(Effect::Commit(blocks, certificate));
    }

    /// T1: a notarization or nullification of v, or a finalization, enters v+1.
    fn enter_next_view(&mut self) -> bool {
        let certified = self
            .rounds
            .iter()
            .rev()
            .find(|(_, round)| round.certificates().next().is_some())
            .map_or(self.tree.anchor.view, |(view, _)| *view);
        let next = certified.next();
        // Also false in the last view there is: nothing follows it.
        if next <= self.view {
            return false;
        }
        // Judge the leaders of the views just left.
        for (view, round) in self.rounds.range(self.view..=certified) {
            let leader = self.config.validators.leader(*view);
            if round.justification().is_some() {
                self.pacing.view_notarized(leader, self.safety.votes(*view).nullified);
            } else if round.nullification.is_some() {
                self.pacing.view_nullified(leader);
            }
        }
        self.view = next;
        self.entered = self.now;
        self.build_requested = None;
        true
    }

    /// The highest view below `view` whose block may be built upon, with a nullification held for each view between.
    fn parent_below(&self, view: View) -> Parent {
        let anchor = &self.tree.anchor;
        let mut at = view;
        while let Some(below) = at.previous().filter(|below| *below > anchor.view) {
            match self.rounds.get(&below) {
                Some(round) if round.justification().is_some() => {
                    let digest = round.justification().map_or(anchor.digest, |certificate| certificate.vote.digest);
                    return Parent::At(below, digest);
                }
                Some(round) if round.nullification.is_some() => at = below,
                _ => return Parent::Missing(below),
            }
        }
        Parent::At(anchor.view, anchor.digest)
    }

    /// T2, T4: the leader asks for a block once its parent is known and its time has come.
    fn propose(&mut self) {
        let view = self.view;
        let me = self.config.me;
        let leads = self.signing_allowed && me == Some(self.config.validators.leader(view));
        let votes = self.safety.votes(view);
        if !leads || votes.proposed.is_some() || votes.nullified || self.build_requested == Some(view) {
            return;
        }
        if self.now < self.proposal_due() {
            return;
        }
        match self.parent_below(view) {
            Parent::Missing(missing) => {
                let leader = self.config.validators.leader(missing);
                self.want(Want::View(missing), Some(leader));
            }
            Parent::At(parent_view, parent) => match self.tree.path(parent) {
                Path::Complete(mut ancestors)
                    if ancestors
                        .last()
                        .is_some_and(|block| block.boundary.is_some() && !planted(Bug::PastTheBoundary)) =>
                {
                    // E2: nothing follows the last block of an epoch but itself, until a view finalises it.
                    self.build_requested = Some(view);
                    if let Some(block) = ancestors.pop() {
                        self.propose_block(view, parent_view, block);
                    }
                }
                Path::Complete(ancestors) => {
                    self.build_requested = Some(view);
                    self.effects.push(Effect::Build { view, parent, ancestors });
                }
                Path::Missing(digest) => self.want(Want::Block(digest), None),
                Path::Foreign => {}
            },
        }
    }

    /// When the leader of the current view may propose (T4). The proposal before came before the view was entered; a
    /// later one is for a view to come, and its Byzantine leader must not hold this one up until it is nullified.
    fn proposal_due(&self) -> Millis {
        let timing = &self.config.timing;
        let last = self.last_proposal.min(self.entered);
        last.plus(self.work_since.map_or(timing.heartbeat_milliseconds, |_| timing.min_view_milliseconds))
    }

    /// The answer to [`Effect::Build`]: the driver's material, fitted to its parent.
    pub(crate) fn built(&mut self, view: View, mut block: Block) {
        if view != self.view || self.build_requested != Some(view) {
            return;
        }
        let (Parent::At(parent_view, expected), Some(parent)) = (self.parent_below(view), self.tree.get(block.parent))
        else {
            return;
        };
        if expected != block.parent {
            // A better parent became known meanwhile: build again.
            self.build_requested = None;
            return;
        }
        block.height = parent.height.next();
        block.time_milliseconds = block.time_milliseconds.max(parent.time_milliseconds);
        // H1: a leader that lags in execution repeats what its parent vouched for.
        if block.checkpoint.height <= parent.checkpoint.height {
            block.checkpoint = parent.checkpoint;
        }
        // E1: only the last block of the epoch tells of the next one.
        block.boundary = block.boundary.filter(|_| block.checkpoint.height >= self.config.cutoff);
        // V7: what the version of the epoch allows.
        block.contradictions.truncate(self.config.protocol.rules().contradictions_max);
        if !block.may_order() {
            block.batches.clear();
        }
        if block.is_well_formed(self.config.cutoff, self.config.protocol) {
            self.propose_block(view, parent_view, block);
        }
    }

    /// V1: one proposal a view. It is recorded before it is signed, and notarized in the same turn.
    fn propose_block(&mut self, view: View, parent_view: View, block: Block) {
        let digest = block.digest();
        let vote = self.vote(view, VoteKind::Propose, digest);
        if !self.may_sign(&vote) {
            return;
        }
        let proposal = Proposal {
            view,
            parent_view,
            justification: self.justification(parent_view),
            block: block.clone(),
            signature: Signature([0; 64]),
        };
        self.last_proposal = self.now;
        if self.tree.insert(digest, block.clone()) {
            self.effects.push(Effect::Persist(Record::Block(block)));
        }
        self.rounds.entry(view).or_default().propose(digest, proposal);
        self.sign(vote);
    }

    /// Proof that the block of `parent_view` may be built upon; `None` at the beginning of an epoch.
    fn justification(&self, parent_view: View) -> Option<Certificate> {
        if parent_view == self.tree.anchor.view {
            return self.anchor_certificate.clone();
        }
        self.rounds.get(&parent_view).and_then(|round| round.justification().cloned())
    }

    /// The own proposal goes out once its signature exists.
    pub(crate) fn publish_proposal(&mut self, signed: &SignedVote) {
        let Some(proposal) = self.rounds.get_mut(&signed.vote.view).and_then(|round| round.proposal.as_mut()) else {
            return;
        };
        if proposal.vote() == signed.vote {
            proposal.signature = signed.signature;
            let proposal = proposal.clone();
            self.effects.push(Effect::Broadcast(Message::Proposal(proposal)));
        }
    }

    /// Asks the driver for the bodies of blocks that we might vote for.
    fn examine(&mut self) {
        let candidates: Vec<(View, Digest)> = self
            .rounds
            .iter()
            .filter_map(|(view, round)| {
                let proposed = round.proposed.filter(|_| *view == self.view);
                let certified = round.notarization.as_ref().map(|certificate| certificate.vote.digest);
                certified.or(proposed).map(|digest| (*view, digest))
            })
            .chain(
                self.unsaid
                    .iter()
                    .filter(|vote| vote.kind != VoteKind::Nullify && self.is_open(vote))
                    .map(|vote| (vote.view, vote.digest)),
            )
            .filter(|(_, digest)| !self.tree.is_examined(*digest))
            .collect();
        for (view, digest) in candidates {
            let leader = self.config.validators.leader(view);
            match self.tree.path(digest) {
                Path::Complete(mut ancestors) => {
                    if self.tree.request_check(digest)
                        && let Some(block) = ancestors.pop()
                    {
                        // D3: no batch that an ancestor orders. The driver knows those at or below the anchor as it is
                        // now; an ancestor above may be final when the judgement is due, and would escape both.
                        // V7: the same of what ancestors report.
                        let repeats = |ancestor: &Block| ancestor.batches.iter().any(|b| block.batches.contains(b));
                        let unsound = (!planted(Bug::AncestorBatchRepeated) && ancestors.iter().any(repeats))
                            || ancestors.iter().any(|ancestor| block.reports_again(ancestor));
                        if unsound {
                            self.tree.set_verdict(digest, Verdict::Invalid);
                        } else {
                            self.effects.push(Effect::Check { block, leader });
                        }
                    }
                }
                Path::Missing(missing) => self.want(Want::Block(missing), Some(leader)),
                Path::Foreign => {}
            }
        }
    }

    /// R3, D2: a recorded vote is said again once its block's bodies are held. The record may be ahead of the database: the
    /// two are synced at the same time, and a crash between them leaves a vote that was never sent for bodies that were
    /// never kept.
    fn say_again(&mut self) {
        let (tree, safety, anchor) = (&self.tree, &self.safety, self.tree.anchor.view);
        let ready = |vote: &Vote| match vote.kind {
            VoteKind::Nullify => true,
            VoteKind::Propose => tree.holds(vote.digest),
            VoteKind::Notarize | VoteKind::Finalize => tree.verdict(vote.digest) == Some(Verdict::Held),
        };
        self.unsaid.retain(|vote| vote.view > anchor);
        let again = self.unsaid.extract_if(.., |vote| is_open(safety, vote) && ready(vote));
        self.effects.extend(again.map(Effect::Sign));
    }

    fn is_open(&self, vote: &Vote) -> bool {
        is_open(&self.safety, vote)
    }

    /// V1, V4, D2: notarize the leader's block once its parent is certified, the gap nullified and its bodies held.
    fn notarize(&mut self) {
        let view = self.view;
        let Some(digest) = self.rounds.get(&view).and_then(|round| round.proposed) else { return };
        let vote = self.vote(view, VoteKind::Notarize, digest);
        if !self.may_sign(&vote) || self.safety.votes(view).notarized.is_some() {
            return;
        }
        let Some(proposal) = self.rounds.get(&view).and_then(|round| round.proposal.clone()) else { return };
        match self.judge(&proposal) {
            Judgement::Sound => self.sign(vote),
            Judgement::Undecided => {}
            // A leader that proposes what can never be valid has wasted its view.
            Judgement::Unsound => self.nullify(view),
        }
    }

    fn judge(&mut self, proposal: &Proposal) -> Judgement {
        let anchor_view = self.tree.anchor.view;
        if proposal.parent_view < anchor_view {
            // It skips a view that is finalised: no nullification of it can exist.
            return Judgement::Unsound;
        }
        // V4: every view between parent and block is nullified.
        for skipped in proposal.parent_view.0 + 1..proposal.view.0 {
            if !planted(Bug::GapNotNullified)
                && self.rounds.get(&View(skipped)).is_none_or(|round| round.nullification.is_none())
            {
                let leader = self.config.validators.leader(proposal.view);
                self.want(Want::View(View(skipped)), Some(leader));
                return Judgement::Undecided;
            }
        }
        // V4: the parent is notarized or finalised in the view the leader names.
        let certified = if proposal.parent_view == anchor_view {
            self.tree.anchor.digest
        } else {
            let certificate = self.rounds.get(&proposal.parent_view).and_then(|round| round.justification());
            certificate.map(|certificate| certificate.vote.digest).unwrap_or_default()
        };
        if proposal.is_repeated() {
            // E2: what is notarized already may be proposed again; it is checked as any other block is.
            if certified != proposal.vote().digest {
                return Judgement::Unsound;
            }
        } else if certified != proposal.block.parent && !planted(Bug::ParentUnchecked) {
            return Judgement::Unsound;
        }
        match self.tree.reach(proposal.block.parent) {
            Reach::Complete => {}
            Reach::Missing(_) => return Judgement::Undecided,
            Reach::Foreign => return Judgement::Unsound,
        }
        let Some(parent) = self.tree.get(proposal.block.parent) else { return Judgement::Undecided };
        // E2: nothing but itself comes after the last block of this epoch.
        let parent_ends_epoch = parent.boundary.is_some() && parent.epoch == self.config.epoch;
        if (parent_ends_epoch && !planted(Bug::PastTheBoundary)) || !proposal.block.follows(parent) {
            return Judgement::Unsound;
        }
        match self.verdict(proposal.vote().digest) {
            Some(Verdict::Held) => Judgement::Sound,
            Some(Verdict::Invalid) => Judgement::Unsound,
            None => Judgement::Undecided,
        }
    }

    /// V2, D2: finalize every block whose notarization is held, unless its view was nullified.
    fn finalize(&mut self) {
        let votes: Vec<Vote> = self
            .rounds
            .iter()
            .filter_map(|(view, round)| {
                let proposed = round.proposal.as_ref().filter(|_| planted(Bug::FinalizeWithoutNotarization));
                let notarized = round.notarization.as_ref().map(|certificate| certificate.vote.digest);
                let digest = notarized.or(proposed.map(|proposal| proposal.vote().digest))?;
                let vote = self.vote(*view, VoteKind::Finalize, digest);
                let new = self.safety.votes(*view).finalized.is_none();
                let held = self.tree.verdict(digest) == Some(Verdict::Held);
                (new && held && self.may_sign(&vote)).then_some(vote)
            })
            .collect();
        for vote in votes {
            self.sign(vote);
        }
    }

    /// V3: gives a view up.
    fn nullify(&mut self, view: View) {
        let vote = self.vote(view, VoteKind::Nullify, Digest::default());
        if !self.safety.votes(view).nullified && self.may_sign(&vote) {
            self.sign(vote);
        }
    }

    /// When the current view is given up (T3, T4).
    fn nullify_due(&self) -> Millis {
        let timing = &self.config.timing;
        let idle = self.entered.plus(timing.heartbeat_milliseconds);
        let counted_from = self.work_since.map_or(idle, |since| self.entered.max(since).min(idle));
        counted_from.plus(self.pacing.timeout(timing, self.config.validators.leader(self.view)))
    }

    fn nullify_when_due(&mut self) {
        if self.signing_allowed && self.now >= self.nullify_due() {
            self.nullify(self.view);
        }
    }

    /// R3: own unfinalised votes, the highest certificate, the last finalization and open wants, every RESEND.
    fn resend_when_due(&mut self) {
        if self.now < self.next_resend || planted(Bug::NoResend) {
            return;
        }
        self.next_resend = self.now.plus(self.config.timing.resend_milliseconds);
        let Some(me) = self.config.me else {
            return self.repeat_wants();
        };
        let mut messages = Vec::new();
        for (view, votes) in self.safety.views_above(self.tree.anchor.view).rev().take(RESEND_VIEWS_MAX) {
            let Some(round) = self.rounds.get(&view) else { continue };
            for (kind, digest) in votes.votes() {
                let vote = self.vote(view, kind, digest);
                // A peer may have sent it back before this node may sign, or before the bodies are here again.
                let said = self.signing_allowed && !self.unsaid.contains(&vote);
                let signed = round.vote(&vote, me).filter(|signed| said && signed.vote == vote);
                match (kind, signed, &round.proposal) {
                    (VoteKind::Propose, Some(_), Some(proposal)) if proposal.vote() == vote => {
                        messages.push(Message::Proposal(proposal.clone()));
                    }
                    (VoteKind::Propose, ..) | (_, None, _) => {}
                    (_, Some(signed), _) => messages.push(Message::Vote(signed)),
                }
            }
        }
        // The last finalization too: who lacks it cannot execute, and who has not executed what a header names cannot
        // vote for it (H1).
        let highest = self.rounds.values().rev().find_map(|round| round.certificates().next());
        messages.extend(
            [highest, self.anchor_certificate.as_ref()].into_iter().flatten().cloned().map(Message::Certificate),
        );
        self.effects.extend(messages.into_iter().map(Effect::Broadcast));
        self.repeat_wants();
    }

    fn repeat_wants(&mut self) {
        // Wants that were met or became pointless are dropped here; the rules ask again for what still lacks.
        let wanted = std::mem::take(&mut self.wanted);
        for want in wanted {
            let open = match want {
                Want::Block(digest) => self.tree.get(digest).is_none(),
                Want::View(view) => {
                    view > self.tree.anchor.view
                        && self.rounds.get(&view).is_none_or(|round| round.certificates().next().is_none())
                }
            };
            // A view's notarization may be held while its nullification is what lacks: asked again by the rules.
            if open {
                self.want(want, None);
            }
        }
    }

    fn arm_timer(&mut self) {
        let mut at = self.next_resend;
        if self.signing_allowed && !self.is_over() {
            // What is due already was tried just now and waits for an event, not for time.
            let leads = self.config.me == Some(self.config.validators.leader(self.view));
            let proposal_due = leads.then(|| self.proposal_due());
            let coming = [Some(self.nullify_due()), proposal_due].into_iter().flatten().filter(|due| *due > self.now);
            at = coming.fold(at, Millis::min);
        }
        if self.timer != Some(at) {
            self.timer = Some(at);
            self.effects.push(Effect::SetTimer(at));
        }
    }
}

/// V1, as the others see it: nothing is said again for a block of a view that was nullified since.
fn is_open(safety: &Safety, vote: &Vote) -> bool {
    vote.kind == VoteKind::Nullify || !safety.votes(vote.view).nullified
}

/// Own votes of this many of the latest views are sent again: older ones are settled by certificates.
const RESEND_VIEWS_MAX: usize = 16;

/// What a proposal is worth.
enum Judgement {
    /// Vote for it.
    Sound,
    /// Something is still missing.
    Undecided,
    /// It can never be valid.
    Unsound,
}
