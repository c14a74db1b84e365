//! The state of the core and its one entry, [`State::step`].

use std::collections::BTreeMap;

use crate::block::Block;
use crate::certificate::Certificate;
use crate::event::{Effect, Event, Message, Record, Token, Verdict};
use crate::pacing::{Pacing, Timing};
use crate::planted::{Bug, planted};
use crate::proposal::Proposal;
use crate::round::{Counted, Round};
use crate::safety::Safety;
use crate::tree::{Anchor, Path, Tree};
use crate::types::{Digest, Epoch, Height, Millis, ValidatorIndex, View};
use crate::validators::ValidatorSet;
use crate::version::{Protocol, Version};
use crate::vote::{SignedVote, Vote, VoteKind};

/// Votes and proposals this far above the current view are kept (R4). More would let one validator fill memory with
/// votes for views that are years away.
pub const FUTURE_VIEWS_MAX: u64 = 64;

/// Most messages waiting for their signatures to be checked (R4): bounds the work a flood can queue.
pub const PENDING_MAX: usize = 4_096;

/// Most blocks above the last finalised one (R4): blocks come only with a leader's proposal or a certificate, so honest
/// leaders stay far below; a chain of Byzantine leaders without finality does not.
pub const TREE_BLOCKS_MAX: usize = 4_096;

/// A finalization this many blocks ahead is fetched as a range, not block by block.
pub const WALK_BLOCKS_MAX: u64 = 8;

/// Anchor, best block that may be built upon, and number of blocks known above the anchor.
pub type BestTip = (Digest, Option<Digest>, usize);

/// What never changes during an epoch.
#[derive(Clone, Debug)]
pub struct Config {
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch ends with the first block whose checkpoint reaches this height (E1).
    pub cutoff: Height,
    /// The block after which owners restarted the chain, if this is the epoch that they ended so (E6).
    pub restarted_at: Option<(Height, Digest)>,
    /// Its validators.
    pub validators: ValidatorSet,
    /// This node's index; `None` for a full node, which follows and never signs.
    pub me: Option<ValidatorIndex>,
    /// Durations.
    pub timing: Timing,
    /// The version whose rules hold in the epoch (P1).
    pub protocol: Protocol,
    /// The highest version this node could go by: what its blocks signal (P1).
    pub signals: Version,
}

impl Config {
    /// True of the block after which owners restarted the chain (E6).
    pub(crate) fn is_restarted_at(&self, digest: Digest) -> bool {
        self.restarted_at.is_some_and(|(_, last)| last == digest)
    }

    /// E6: false of a block that can only be above the one after which the chain was restarted, or beside it.
    pub(crate) fn may_finalize(&self, height: Height, digest: Digest) -> bool {
        self.restarted_at.is_none_or(|(last, of)| height < last || digest == of)
    }

    /// True if this makes its block final: a quorum's finalize votes, or its notarization and the owners' word (E6).
    pub(crate) fn finalizes(&self, certificate: &Certificate) -> bool {
        let Vote { kind, digest, .. } = certificate.vote;
        kind == VoteKind::Finalize || (kind == VoteKind::Notarize && self.is_restarted_at(digest))
    }
}

/// The core: what one node knows of the current epoch.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) tree: Tree,
    /// Finalization of the anchor; `None` while that is the last block of the epoch before.
    pub(crate) anchor_certificate: Option<Certificate>,
    pub(crate) rounds: BTreeMap<View, Round>,
    pub(crate) safety: Safety,
    pub(crate) signing_allowed: bool,
    /// Recorded votes that were not said again since the start.
    pub(crate) unsaid: Vec<Vote>,
    pub(crate) view: View,
    pub(crate) entered: Millis,
    pub(crate) work_since: Option<Millis>,
    pub(crate) last_proposal: Millis,
    pub(crate) build_requested: Option<View>,
    pub(crate) pacing: Pacing,
    pub(crate) next_resend: Millis,
    pub(crate) timer: Option<Millis>,
    pub(crate) wanted: std::collections::BTreeSet<crate::event::Want>,
    pending: BTreeMap<Token, Pending>,
    next_token: u64,
    pub(crate) now: Millis,
    pub(crate) effects: Vec<Effect>,
}

/// A message whose signatures are being checked.
#[derive(Clone, Debug)]
enum Pending {
    Proposal(Proposal),
    Vote(SignedVote),
    Certificate(Certificate),
    Range(Vec<Block>, Certificate),
}

impl State {
    /// A node at `anchor`, its last finalised block, with the certificate that finalised it, what it had persisted above
    /// it and what it had signed in this epoch. In a new epoch the anchor is the last block of the one before, or the
    /// genesis block, in view 0 and without a certificate ([`Anchor::first`]). Everything given here comes from the
    /// node's own storage and is trusted; records of other epochs are ignored. Feed [`Event::Started`] next.
    pub fn recover(
        config: Config,
        anchor: Anchor,
        anchor_certificate: Option<Certificate>,
        records: Vec<Record>,
        mut safety: Safety,
    ) -> Self {
        safety.close(anchor.view);
        let mut state = Self {
            config,
            tree: Tree::new(anchor),
            anchor_certificate,
            rounds: BTreeMap::new(),
            safety,
            signing_allowed: false,
            unsaid: Vec::new(),
            view: View(0),
            entered: Millis(0),
            work_since: None,
            last_proposal: Millis(0),
            build_requested: None,
            pacing: Pacing::default(),
            next_resend: Millis(0),
            timer: None,
            wanted: std::collections::BTreeSet::new(),
            pending: BTreeMap::new(),
            next_token: 0,
            now: Millis(0),
            effects: Vec::new(),
        };
        for record in records {
            match record {
                Record::Block(block) => {
                    state.tree.insert(block.digest(), block);
                }
                Record::Certificate(certificate) => {
                    if certificate.vote.epoch == state.config.epoch && certificate.view() > state.tree.anchor.view {
                        state.rounds.entry(certificate.view()).or_default().hold(certificate);
                    }
                }
            }
        }
        state
    }

    /// Current view.
    pub fn view(&self) -> View {
        self.view
    }

    /// Last finalised block.
    pub fn anchor(&self) -> &Anchor {
        &self.tree.anchor
    }

    /// The certificate that finalised it in this epoch; `None` at its beginning.
    pub fn anchor_certificate(&self) -> Option<&Certificate> {
        self.anchor_certificate.as_ref()
    }

    /// True once the last block of the epoch is final (E2, E6). Nothing is signed any more; the next epoch is a state of
    /// its own.
    pub fn is_over(&self) -> bool {
        let Anchor { digest, block: last, .. } = &self.tree.anchor;
        last.epoch == self.config.epoch && (last.boundary.is_some() || self.config.is_restarted_at(*digest))
    }

    /// The epoch's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A block above the last finalised one, or that one, for a peer that wants it.
    pub fn block(&self, digest: Digest) -> Option<&Block> {
        self.tree.get(digest)
    }

    /// The block proposed in a view above the last finalised one, if it is known.
    pub fn proposed(&self, view: View) -> Option<&Block> {
        self.rounds.get(&view).and_then(|round| round.proposal.as_ref()).map(|proposal| &proposal.block)
    }

    /// The highest view above the last finalised one of which anything is kept (R4).
    pub fn highest_view_kept(&self) -> View {
        self.rounds.keys().next_back().copied().unwrap_or_default()
    }

    /// The certificates held for a view above the last finalised one, strongest first, for a peer that wants them.
    pub fn certificates(&self, view: View) -> impl Iterator<Item = &Certificate> {
        self.rounds.get(&view).into_iter().flat_map(Round::certificates)
    }

    /// Unfinalised blocks from the anchor to the best block that may be built upon, for whoever needs to know which
    /// batches are on their way already.
    pub fn best_chain(&self) -> Vec<Block> {
        let tip = self.rounds.values().rev().find_map(|round| round.justification().map(|c| c.vote.digest));
        match tip.map(|digest| self.tree.path(digest)) {
            Some(Path::Complete(blocks)) => blocks,
            _ => Vec::new(),
        }
    }

    /// Changes whenever [`Self::best_chain`] may.
    pub fn best_tip(&self) -> BestTip {
        let tip = self.rounds.values().rev().find_map(|round| round.justification().map(|c| c.vote.digest));
        (self.tree.anchor.digest, tip, self.tree.len())
    }

    /// Takes one event at time `now` and says what to do. Total: any event in any state is answered, none panics on
    /// what it contains. Time never runs backwards; an earlier `now` counts as the latest one seen.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Started => self.start(),
            Event::Tick => self.timer = None,
            Event::SigningAllowed => self.allow_signing(),
            Event::Received(message) => {
                // Nothing is believed yet. A rule that became due meanwhile has its own tick.
                self.receive(message);
                return std::mem::take(&mut self.effects);
            }
            Event::Verified(token, valid) => {
                if !self.verified(token, valid) {
                    // One more vote that makes no certificate: no rule looks at those.
                    return std::mem::take(&mut self.effects);
                }
            }
            Event::Signed(vote) => self.signed(vote),
            Event::Work(true) => {
                self.work_since.get_or_insert(self.now);
            }
            Event::Work(false) => self.work_since = None,
            Event::Built { view, parent, batches, time_milliseconds, checkpoint, boundary, contradictions } => {
                let (epoch, signals, proposer) =
                    (self.config.epoch, self.config.signals, self.config.me.unwrap_or(ValidatorIndex(0)));
                // The height is the parent's to tell.
                let height = Height(0);
                self.built(
                    view,
                    Block {
                        epoch,
                        height,
                        parent,
                        view,
                        proposer,
                        signals,
                        time_milliseconds,
                        checkpoint,
                        boundary,
                        batches,
                        contradictions,
                    },
                );
            }
            Event::Checked(digest, verdict) => self.tree.set_verdict(digest, verdict),
            Event::Fetched(block) => self.fetched(block),
            Event::Range(blocks, certificate) => self.range(blocks, certificate),
        }
        self.advance();
        std::mem::take(&mut self.effects)
    }

    fn start(&mut self) {
        self.entered = self.now;
        self.last_proposal = self.now;
        self.next_resend = self.now;
        let highest = self.rounds.keys().next_back().copied().unwrap_or_default().max(self.tree.anchor.view);
        self.view = highest.next();
    }

    /// S5.
    fn allow_signing(&mut self) {
        self.signing_allowed = self.config.me.is_some();
        // R3: what was signed is said again, now and at every resend.
        self.next_resend = self.now;
        self.unsaid = self.own_votes();
    }

    /// Own votes above the last finalised block.
    fn own_votes(&self) -> Vec<Vote> {
        self.safety
            .views_above(self.tree.anchor.view)
            .flat_map(|(view, votes)| {
                let epoch = self.config.epoch;
                votes.votes().map(move |(kind, digest)| Vote { epoch, view, kind, digest })
            })
            .collect()
    }

    /// True if votes of this view are worth keeping (R4).
    fn in_window(&self, view: View) -> bool {
        let near = view.0 <= self.view.0.saturating_add(FUTURE_VIEWS_MAX) || planted(Bug::FutureViewsUnbounded);
        view > self.tree.anchor.view && near
    }

    fn receive(&mut self, message: Message) {
        let epoch = self.config.epoch;
        match message {
            // V4, as far as the form tells; R4.
            Message::Proposal(proposal) => {
                let leader = self.config.validators.leader(proposal.view);
                let signed = proposal.signed_vote(leader);
                let wanted = self.in_window(proposal.view)
                    && proposal.is_well_formed(
                        epoch,
                        self.config.cutoff,
                        &self.config.validators,
                        self.config.protocol,
                    )
                    && self.rounds.get(&proposal.view).is_none_or(|round| {
                        // The same proposal is heard once; another one of the same view is evidence.
                        round.proposed != Some(signed.vote.digest) && round.wants(&signed)
                    });
                if wanted {
                    let mut checks = vec![signed];
                    if let Some(certificate) = &proposal.justification
                        && !self.holds(certificate)
                    {
                        checks.extend(certificate.votes());
                    }
                    checks.retain(|_| !planted(Bug::ProposalSignatureUnchecked));
                    self.verify(Pending::Proposal(proposal), checks);
                }
            }
            // R4: of a validator, in the window, and new. A second vote that differs is wanted too: it is evidence (V6).
            Message::Vote(vote) => {
                let known_signer = self.config.validators.power(vote.signer).is_some();
                let right_form = vote.vote.epoch == epoch
                    && vote.vote.kind != VoteKind::Propose
                    && (vote.vote.kind != VoteKind::Nullify || vote.vote.digest == Digest::default());
                let new = self.rounds.get(&vote.vote.view).is_none_or(|round| round.wants(&vote));
                if known_signer && right_form && new && self.in_window(vote.vote.view) {
                    let checks = if planted(Bug::VoteSignatureUnchecked) { Vec::new() } else { vec![vote] };
                    self.verify(Pending::Vote(vote), checks);
                }
            }
            // R1: the first of its kind and view.
            Message::Certificate(certificate) => {
                if self.wants_certificate(&certificate) {
                    let checks =
                        certificate.votes().filter(|_| !planted(Bug::CertificateSignaturesUnchecked)).collect();
                    self.verify(Pending::Certificate(certificate), checks);
                }
            }
        }
    }

    fn wants_certificate(&self, certificate: &Certificate) -> bool {
        certificate.view() > self.tree.anchor.view
            && !self.is_over()
            && certificate.is_well_formed(self.config.epoch, &self.config.validators)
            && self
                .rounds
                .get(&certificate.view())
                .is_none_or(|round| round.certificate(certificate.vote.kind).is_none())
    }

    fn holds(&self, certificate: &Certificate) -> bool {
        let anchor = &self.tree.anchor;
        let stale = certificate.view().next() < self.view && planted(Bug::StaleCertificate);
        stale
            || (certificate.view() == anchor.view && certificate.vote.digest == anchor.digest)
            || self
                .rounds
                .get(&certificate.view())
                .and_then(|round| round.certificate(certificate.vote.kind))
                .is_some_and(|held| held.vote == certificate.vote)
    }

    fn verify(&mut self, pending: Pending, checks: Vec<SignedVote>) {
        if self.pending.len() < PENDING_MAX {
            let token = Token(self.next_token);
            self.next_token += 1;
            self.pending.insert(token, pending);
            self.effects.push(Effect::Verify(token, checks));
        }
    }

    /// True if something is known now that a rule may follow from.
    fn verified(&mut self, token: Token, valid: bool) -> bool {
        let Some(pending) = self.pending.remove(&token).filter(|_| valid) else {
            return false;
        };
        match pending {
            Pending::Vote(vote) => return self.count(&vote),
            Pending::Certificate(certificate) => return self.accept_certificate(certificate),
            Pending::Proposal(proposal) => self.accept_proposal(proposal),
            Pending::Range(blocks, certificate) => {
                for block in blocks {
                    self.tree.insert(block.digest(), block);
                }
                self.accept_certificate(certificate);
            }
        }
        true
    }

    fn accept_proposal(&mut self, proposal: Proposal) {
        if !self.in_window(proposal.view) {
            return;
        }
        let vote = proposal.signed_vote(self.config.validators.leader(proposal.view));
        self.count(&vote);
        if let Some(certificate) = proposal.justification.clone() {
            self.accept_certificate(certificate);
        }
        let digest = vote.vote.digest;
        if self.tree.len() < TREE_BLOCKS_MAX && self.tree.insert(digest, proposal.block.clone()) {
            self.effects.push(Effect::Persist(Record::Block(proposal.block.clone())));
        }
        let round = self.rounds.entry(proposal.view).or_default();
        if round.proposal.is_none() {
            self.last_proposal = self.now;
            round.propose(digest, proposal);
        }
    }

    /// Counts a verified vote; true if it makes a certificate.
    pub(crate) fn count(&mut self, vote: &SignedVote) -> bool {
        if !self.in_window(vote.vote.view) {
            return false;
        }
        let round = self.rounds.entry(vote.vote.view).or_default();
        match round.count(vote) {
            Counted::Known => {}
            // V6.
            Counted::Conflict(earlier) => self.effects.push(Effect::Evidence(earlier, *vote)),
            Counted::New if vote.vote.kind == VoteKind::Propose || round.certificate(vote.vote.kind).is_some() => {}
            Counted::New => {
                if let Some(certificate) = round.quorum(vote.vote, &self.config.validators) {
                    return self.accept_certificate(certificate);
                }
            }
        }
        false
    }

    /// R1: a certificate formed or first received is persisted, and forwarded once to all. True if it is new.
    fn accept_certificate(&mut self, certificate: Certificate) -> bool {
        // E2, R4: nothing follows from a certificate any more once the epoch is over.
        if certificate.view() <= self.tree.anchor.view || self.is_over() {
            return false;
        }
        let new = self.rounds.entry(certificate.view()).or_default().hold(certificate.clone());
        if new {
            if !planted(Bug::CertificateNotPersisted) {
                self.effects.push(Effect::Persist(Record::Certificate(certificate.clone())));
            }
            self.effects.push(Effect::Broadcast(Message::Certificate(certificate)));
        }
        new
    }

    /// S2: the vote exists now, after its record was synced.
    fn signed(&mut self, vote: SignedVote) {
        if vote.vote.epoch != self.config.epoch {
            return;
        }
        if vote.vote.kind == VoteKind::Propose {
            self.publish_proposal(&vote);
        } else {
            self.effects.push(Effect::Broadcast(Message::Vote(vote)));
        }
        self.count(&vote);
    }

    /// R4: only what was asked for.
    fn fetched(&mut self, block: Block) {
        let digest = block.digest();
        if self.wanted.remove(&crate::event::Want::Block(digest)) && self.tree.insert(digest, block.clone()) {
            self.effects.push(Effect::Persist(Record::Block(block)));
        }
    }

    /// R2: accepts a range if it links the last finalised block to the certificate; the signatures are checked after.
    fn range(&mut self, mut blocks: Vec<Block>, certificate: Certificate) {
        blocks.retain(|block| block.height > self.tree.anchor.height());
        let mut parent = (self.tree.anchor.digest, self.tree.anchor.height());
        for block in &blocks {
            if block.parent != parent.0 || block.height != parent.1.next() || block.epoch != self.config.epoch {
                return;
            }
            parent = (block.digest(), block.height);
        }
        let fits = !blocks.is_empty()
            && self.config.may_finalize(parent.1, parent.0)
            && self.config.finalizes(&certificate)
            && certificate.vote.digest == parent.0
            && certificate.view() > self.tree.anchor.view
            && certificate.is_well_formed(self.config.epoch, &self.config.validators);
        if fits {
            let checks = certificate.votes().filter(|_| !planted(Bug::CatchUpUnchecked)).collect();
            self.verify(Pending::Range(blocks, certificate), checks);
        }
    }

    /// The verdict on a block, `Held` for the last finalised one.
    pub(crate) fn verdict(&self, digest: Digest) -> Option<Verdict> {
        if digest == self.tree.anchor.digest { Some(Verdict::Held) } else { self.tree.verdict(digest) }
    }
}
