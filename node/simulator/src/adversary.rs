//! Byzantine validators: an honest driver whose words are twisted on their way out, and some that it never said. Only
//! the adversary's own key signs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Destination};
use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Certificate, Message, Proposal, SignedVote, Version, Vote, VoteKind};
use bytes::Bytes;

use crate::faults::{Fault, Faults};
use crate::keys::KeyBook;
use crate::lies::{forged, lie};
use crate::random::Random;
use crate::schedule::Schedule;

/// One habit of a Byzantine validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Two proposals to two halves.
    Equivocate,
    /// Proposals that break a rule.
    ProposeUnsound,
    /// Proposals that skip a view that may be final.
    Fork,
    /// Proposals on blocks that are not certified.
    Uncertified,
    /// Votes and proposals in the name of others.
    Impersonate,
    /// Two notarizations of one view.
    DoubleNotarize,
    /// Nullifies and finalizes one view.
    NullifyAndFinalize,
    /// Says nothing, at times.
    Silence,
    /// Proposes batches and does not hand them out.
    Withhold,
    /// Keeps certificates to itself.
    WithholdCertificates,
    /// Spreads batches of others with another content or signature.
    Forge,
    /// Makes batches that no application accepts.
    MakeInvalid,
    /// Answers questions wrongly.
    Lie,
    /// Repeats what anybody said long ago.
    Replay,
    /// Asks and votes without end.
    Spam,
    /// Forgets everything now and then, its signing record too, and begins again.
    Amnesia,
    /// Sends noise.
    Noise,
    /// Keeps batches from one validator, and orders others again while that waits for them.
    Starve,
}

impl Behaviour {
    /// All habits.
    pub const ALL: &'static [Self] = &[
        Self::Equivocate,
        Self::ProposeUnsound,
        Self::Fork,
        Self::Uncertified,
        Self::Impersonate,
        Self::DoubleNotarize,
        Self::NullifyAndFinalize,
        Self::Silence,
        Self::Withhold,
        Self::WithholdCertificates,
        Self::Forge,
        Self::MakeInvalid,
        Self::Lie,
        Self::Replay,
        Self::Spam,
        Self::Amnesia,
        Self::Noise,
        Self::Starve,
    ];
}

/// Views whose proposals are remembered.
const VIEWS_REMEMBERED: usize = 8;

/// Messages of one burst of spam.
const SPAM_MESSAGES: usize = 40;

/// Frames remembered for replays.
const ARCHIVE_MAX: usize = 400;

/// Frames to single nodes.
pub(crate) type Sends = Vec<(usize, Bytes)>;

/// A Byzantine validator's mind.
pub(crate) struct Adversary {
    me: usize,
    pub(crate) nodes: usize,
    book: Arc<KeyBook>,
    schedule: Schedule,
    pub(crate) genesis_hash: Digest,
    behaviours: Vec<Behaviour>,
    /// The latest epoch it has heard of.
    pub(crate) epoch: Epoch,
    /// Digests proposed lately, by view.
    pub(crate) proposed: BTreeMap<View, Vec<Digest>>,
    /// Blocks that were notarized lately, each with its proof: old parents to build upon.
    pub(crate) parents: VecDeque<(Block, Certificate)>,
    /// Blocks proposed lately, with their digests.
    pub(crate) blocks: VecDeque<(Digest, Block)>,
    /// Batches that were or will be ordered, to order them again.
    pub(crate) ordered: VecDeque<Digest>,
    /// Who is kept from batches, and from which.
    pub(crate) victim: Option<usize>,
    pub(crate) withheld: VecDeque<Digest>,
    /// The vote for the latest block known to be final.
    pub(crate) finalized: Option<Vote>,
    archive: VecDeque<Bytes>,
    sequence: u64,
}

impl Adversary {
    pub(crate) fn new(
        me: usize,
        nodes: usize,
        book: Arc<KeyBook>,
        schedule: Schedule,
        genesis_hash: Digest,
        behaviours: &[Behaviour],
    ) -> Self {
        Self {
            me,
            nodes,
            book,
            schedule,
            genesis_hash,
            behaviours: behaviours.to_vec(),
            epoch: Epoch(0),
            proposed: BTreeMap::new(),
            parents: VecDeque::new(),
            blocks: VecDeque::new(),
            ordered: VecDeque::new(),
            victim: None,
            withheld: VecDeque::new(),
            finalized: None,
            archive: VecDeque::new(),
            sequence: 1,
        }
    }

    fn does(&self, random: &mut Random, behaviour: Behaviour, per_thousand: u64) -> bool {
        self.behaviours.contains(&behaviour) && random.chance(per_thousand)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        self.book.sign(self.me, message).unwrap_or(Signature([0; 64]))
    }

    fn vote(&self, like: Vote, kind: VoteKind, digest: Digest) -> PeerMessage {
        let vote = Vote { kind, digest, ..like };
        let signature = self.sign(&vote.signed_bytes(self.genesis_hash));
        let signer = self.index(vote.epoch);
        PeerMessage::Consensus(Message::Vote(SignedVote { vote, signer, signature }))
    }

    /// Its index; out of range in an epoch in which it is no validator.
    fn index(&self, epoch: Epoch) -> ValidatorIndex {
        ValidatorIndex(self.schedule.index(epoch, self.me).unwrap_or(u16::MAX))
    }

    /// How many vote in an epoch.
    pub(crate) fn validators(&self, epoch: Epoch) -> usize {
        self.schedule.of(epoch).len()
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.nodes).filter(move |node| *node != me)
    }

    fn to_all(&self, message: &PeerMessage, sends: &mut Sends) {
        let frame = message.encode();
        sends.extend(self.others().map(|node| (node, frame.clone())));
    }

    fn to_some(&self, random: &mut Random, message: &PeerMessage, sends: &mut Sends) {
        let frame = message.encode();
        sends.extend(self.others().filter(|_| random.chance(500)).map(|node| (node, frame.clone())));
    }

    /// Learns from what it hears, and may react faster than an honest node would.
    pub(crate) fn hear(
        &mut self,
        random: &mut Random,
        faults: &mut Faults,
        frame: &Bytes,
        message: &PeerMessage,
    ) -> Sends {
        let mut sends = Sends::new();
        if random.chance(100) {
            self.archive.push_back(frame.clone());
            if self.archive.len() > ARCHIVE_MAX {
                self.archive.pop_front();
            }
        }
        match message {
            PeerMessage::Consensus(Message::Proposal(proposal)) => {
                self.remember(proposal);
                self.support(random, faults, proposal.vote(), &mut sends);
                self.impersonate(random, faults, proposal, &mut sends);
            }
            PeerMessage::Consensus(Message::Certificate(certificate)) => {
                self.remember_parent(certificate);
                self.note_final(certificate);
            }
            PeerMessage::Batch(batch) if self.does(random, Behaviour::Forge, 500) => {
                faults.count(Fault::ForgedBatch);
                self.to_all(&PeerMessage::Batch(forged(random, batch)), &mut sends);
            }
            _ => {}
        }
        sends
    }

    fn remember(&mut self, proposal: &Proposal) {
        if proposal.block.epoch > self.epoch {
            self.epoch = proposal.block.epoch;
            self.proposed.clear();
        }
        let digest = proposal.block.digest();
        let digests = self.proposed.entry(proposal.view).or_default();
        digests.push(digest);
        digests.truncate(4);
        while self.proposed.len() > VIEWS_REMEMBERED {
            self.proposed.pop_first();
        }
        self.blocks.push_back((digest, proposal.block.clone()));
        if self.blocks.len() > 16 {
            self.blocks.pop_front();
        }
        if let Some(certificate) = &proposal.justification {
            self.remember_parent(certificate);
        }
        self.ordered.extend(proposal.block.batches.iter().copied().take(2));
        while self.ordered.len() > 32 {
            self.ordered.pop_front();
        }
    }

    fn remember_parent(&mut self, certificate: &Certificate) {
        let known = self.parents.iter().any(|(_, known)| known.vote == certificate.vote);
        let block = self.blocks.iter().find(|(digest, _)| *digest == certificate.vote.digest);
        if let Some((_, block)) = block.filter(|_| !known && certificate.vote.kind == VoteKind::Notarize) {
            self.parents.push_back((block.clone(), certificate.clone()));
            if self.parents.len() > 8 {
                self.parents.pop_front();
            }
        }
    }

    /// Votes at once for whatever anybody proposes, also for two proposals of one view.
    fn support(&self, random: &mut Random, faults: &mut Faults, proposed: Vote, sends: &mut Sends) {
        if self.does(random, Behaviour::DoubleNotarize, 500) {
            faults.count(Fault::DoubleNotarize);
            self.to_some(random, &self.vote(proposed, VoteKind::Notarize, proposed.digest), sends);
        }
        if self.does(random, Behaviour::NullifyAndFinalize, 300) {
            faults.count(Fault::NullifyAndFinalize);
            self.to_some(random, &self.vote(proposed, VoteKind::Finalize, proposed.digest), sends);
            self.to_some(random, &self.vote(proposed, VoteKind::Nullify, Digest::default()), sends);
        }
    }

    /// Answers a proposal with votes of everybody for it, and with another one of its leader: none is signed by them.
    fn impersonate(&self, random: &mut Random, faults: &mut Faults, proposal: &Proposal, sends: &mut Sends) {
        if !self.does(random, Behaviour::Impersonate, 300) {
            return;
        }
        faults.count(Fault::Impersonation);
        let vote = proposal.vote();
        let (kind, digest) = random.pick(&[
            (VoteKind::Notarize, vote.digest),
            (VoteKind::Finalize, vote.digest),
            (VoteKind::Nullify, Digest::default()),
        ]);
        let vote = Vote { kind, digest, ..vote };
        let signature = self.sign(&vote.signed_bytes(self.genesis_hash));
        for signer in 0..self.validators(vote.epoch) as u16 {
            let signed = SignedVote { vote, signer: ValidatorIndex(signer), signature };
            self.to_all(&PeerMessage::Consensus(Message::Vote(signed)), sends);
        }
        let mut rival = proposal.clone();
        rival.block.time_milliseconds += 7;
        self.to_all(&PeerMessage::Consensus(Message::Proposal(rival)), sends);
        if random.chance(300) {
            faults.count(Fault::ForgedFinality);
            self.to_all(&self.forged_range(proposal), sends);
        }
    }

    /// Twists what the honest driver inside wants to say.
    pub(crate) fn twist(
        &mut self,
        random: &mut Random,
        faults: &mut Faults,
        said: Vec<(Destination, PeerMessage)>,
    ) -> Sends {
        let mut sends = Sends::new();
        for (to, message) in said {
            if let PeerMessage::Consensus(Message::Certificate(certificate)) = &message {
                self.note_final(certificate);
            }
            if self.does(random, Behaviour::Silence, 300) {
                faults.count(Fault::Silence);
                continue;
            }
            let message = match message {
                PeerMessage::Consensus(Message::Proposal(proposal)) => {
                    self.propose(random, faults, &proposal, &mut sends);
                    continue;
                }
                PeerMessage::Consensus(Message::Vote(signed)) => {
                    self.contradict(random, faults, signed.vote, &mut sends);
                    PeerMessage::Consensus(Message::Vote(signed))
                }
                PeerMessage::Batch(_) if self.does(random, Behaviour::Withhold, 700) => {
                    faults.count(Fault::WithheldBatch);
                    continue;
                }
                PeerMessage::Batch(batch) if self.victim.is_some() && self.does(random, Behaviour::Starve, 900) => {
                    self.starve(faults, to, &batch, &mut sends);
                    continue;
                }
                PeerMessage::Consensus(Message::Certificate(_))
                    if self.does(random, Behaviour::WithholdCertificates, 900) =>
                {
                    faults.count(Fault::WithheldCertificate);
                    continue;
                }
                PeerMessage::Batch(batch) if self.does(random, Behaviour::Forge, 300) => {
                    faults.count(Fault::ForgedBatch);
                    PeerMessage::Batch(forged(random, &batch))
                }
                other if self.does(random, Behaviour::Lie, 400) => {
                    let lie = lie(random, other.clone());
                    if lie != other {
                        faults.count(Fault::LyingAnswer);
                    }
                    lie
                }
                other => other,
            };
            match to {
                Destination::All => self.to_all(&message, &mut sends),
                Destination::One(node) => sends.push((usize::from(node), message.encode())),
            }
        }
        sends
    }

    fn propose(&mut self, random: &mut Random, faults: &mut Faults, proposal: &Proposal, sends: &mut Sends) {
        self.remember(proposal);
        if self.does(random, Behaviour::ProposeUnsound, 400) {
            faults.count(Fault::UnsoundProposal);
            let unsound = self.unsound(random, proposal);
            if unsound.block.contradictions != proposal.block.contradictions {
                faults.count(Fault::FalseReport);
            }
            self.remember(&unsound);
            self.to_all(&PeerMessage::Consensus(Message::Proposal(unsound)), sends);
            return;
        }
        if self.does(random, Behaviour::Starve, 700)
            && let Some(again) = self.again(random, proposal)
        {
            faults.count(Fault::OrderedAgain);
            self.remember(&again);
            self.to_all(&PeerMessage::Consensus(Message::Proposal(again)), sends);
            return;
        }
        let mut proposal = proposal.clone();
        if self.does(random, Behaviour::ProposeUnsound, 300) {
            // Anybody may claim to go by any version.
            faults.count(Fault::FalseSignal);
            proposal.block.signals = Version(random.between(2, 9) as u32);
            proposal = self.signed(proposal);
        }
        if self.does(random, Behaviour::Uncertified, 600)
            && let Some(uncertified) = self.uncertified(random, &proposal)
        {
            faults.count(Fault::UncertifiedParent);
            proposal = uncertified;
        }
        if self.does(random, Behaviour::Fork, 600)
            && let Some(fork) = self.fork(&proposal)
        {
            faults.count(Fault::ForkingProposal);
            self.remember(&fork);
            self.support(random, faults, fork.vote(), sends);
            proposal = fork;
        }
        let message = PeerMessage::Consensus(Message::Proposal(proposal.clone()));
        if !self.does(random, Behaviour::Equivocate, 800) {
            self.to_all(&message, sends);
            return;
        }
        faults.count(Fault::EquivocatingProposal);
        let mut rival = proposal;
        rival.block.time_milliseconds += 1;
        if random.chance(500) {
            rival.block.batches.clear();
        }
        let rival = self.signed(rival);
        self.remember(&rival);
        let frames = [message.encode(), PeerMessage::Consensus(Message::Proposal(rival)).encode()];
        for node in self.others() {
            let first = random.index(2);
            sends.push((node, frames[first].clone()));
            if random.chance(200) {
                sends.push((node, frames[1 - first].clone()));
            }
        }
    }

    pub(crate) fn signed(&self, mut proposal: Proposal) -> Proposal {
        proposal.signature = self.sign(&proposal.vote().signed_bytes(self.genesis_hash));
        proposal
    }

    fn contradict(&mut self, random: &mut Random, faults: &mut Faults, vote: Vote, sends: &mut Sends) {
        let known = self.proposed.get(&vote.view).cloned().unwrap_or_default();
        match vote.kind {
            VoteKind::Notarize if self.does(random, Behaviour::DoubleNotarize, 800) => {
                faults.count(Fault::DoubleNotarize);
                let invented = Digest([random.number() as u8; 32]);
                let rival = known.into_iter().find(|digest| *digest != vote.digest).unwrap_or(invented);
                self.to_some(random, &self.vote(vote, VoteKind::Notarize, rival), sends);
            }
            VoteKind::Nullify if self.does(random, Behaviour::NullifyAndFinalize, 800) => {
                faults.count(Fault::NullifyAndFinalize);
                for digest in known {
                    self.to_some(random, &self.vote(vote, VoteKind::Notarize, digest), sends);
                    self.to_some(random, &self.vote(vote, VoteKind::Finalize, digest), sends);
                }
            }
            VoteKind::Finalize if self.does(random, Behaviour::NullifyAndFinalize, 800) => {
                faults.count(Fault::NullifyAndFinalize);
                self.to_some(random, &self.vote(vote, VoteKind::Nullify, Digest::default()), sends);
            }
            _ => {}
        }
    }

    pub(crate) fn invalid_batch(&mut self) -> Batch {
        let (epoch, origin) = (self.epoch, self.index(self.epoch));
        self.sequence += 1;
        let payload = Bytes::from(vec![0xff, self.sequence as u8, (self.sequence >> 8) as u8]);
        let mut batch = Batch { epoch, origin, sequence: self.sequence, payload, signature: Signature([0; 64]) };
        batch.signature = self.sign(&batch.digest(self.genesis_hash).0);
        batch
    }

    /// True if it is time to forget everything.
    pub(crate) fn forgets(&self, random: &mut Random) -> bool {
        self.does(random, Behaviour::Amnesia, 20)
    }

    /// What it lets its driver hear: who has forgotten everything does not want to be reminded.
    pub(crate) fn hears(&self, message: PeerMessage) -> PeerMessage {
        match message {
            PeerMessage::HighestVote(key, Some(_)) if self.behaviours.contains(&Behaviour::Amnesia) => {
                PeerMessage::HighestVote(key, None)
            }
            other => other,
        }
    }

    /// Many messages at once that all have to be looked at: votes for views to come, and questions.
    fn spam(&self, random: &mut Random, sends: &mut Sends) {
        let newest = self.proposed.keys().next_back().copied().unwrap_or_default();
        for _ in 0..SPAM_MESSAGES {
            let digest = Digest([random.number() as u8; 32]);
            let message = match random.below(8) {
                0 => PeerMessage::FetchRange(Height(random.below(newest.0 + 2))),
                1 => PeerMessage::FetchBlock(digest),
                2 => PeerMessage::FetchBatch(digest),
                3 => PeerMessage::FetchView(View(random.below(newest.0 + 2))),
                4 => PeerMessage::FetchHeld(vec![digest; 8]),
                _ => {
                    // Half of them beyond what anybody keeps.
                    let view = View(newest.0 + random.between(1, 150));
                    let vote = Vote { epoch: self.epoch, view, kind: VoteKind::Notarize, digest };
                    self.vote(vote, vote.kind, digest)
                }
            };
            self.to_some(random, &message, sends);
        }
    }

    /// What it says of itself, every now and then.
    pub(crate) fn act(&mut self, random: &mut Random, faults: &mut Faults) -> Sends {
        let mut sends = Sends::new();
        if self.does(random, Behaviour::Starve, if self.victim.is_some() { 10 } else { 1_000 }) {
            self.choose_victim(random);
        }
        if self.does(random, Behaviour::Replay, 600) && !self.archive.is_empty() {
            faults.count(Fault::Replay);
            for _ in 0..4 {
                let frame = self.archive[random.index(self.archive.len())].clone();
                sends.extend(self.others().filter(|_| random.chance(500)).map(|node| (node, frame.clone())));
            }
        }
        if self.does(random, Behaviour::Spam, 100) {
            faults.count(Fault::Spam);
            self.spam(random, &mut sends);
        }
        if self.does(random, Behaviour::Noise, 600) {
            faults.count(Fault::Garbage);
            let mut noise: Vec<u8> = (0..random.below(120)).map(|_| random.number() as u8).collect();
            if random.chance(700) && !self.archive.is_empty() {
                noise = self.archive[random.index(self.archive.len())].to_vec();
                let position = random.index(noise.len());
                if let Some(byte) = noise.get_mut(position) {
                    *byte ^= 1 << random.below(8);
                }
            }
            let frame = Bytes::from(noise);
            sends.extend(self.others().map(|node| (node, frame.clone())));
        }
        if self.does(random, Behaviour::MakeInvalid, 400) {
            faults.count(Fault::InvalidBatch);
            let message = PeerMessage::Batch(self.invalid_batch());
            self.to_some(random, &message, &mut sends);
        }
        sends
    }
}
