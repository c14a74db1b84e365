//! Byzantine validators: an honest driver whose words are twisted on their way out, and some that it never said. Only
//! the adversary's own key signs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Destination};
use bizra_simplex::types::{Digest, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Message, Proposal, SignedVote, Vote, VoteKind};
use bytes::Bytes;

use crate::faults::{Fault, Faults};
use crate::keys::KeyBook;
use crate::random::Random;

/// One habit of a Byzantine validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Two proposals to two halves.
    Equivocate,
    /// Proposals that break a rule.
    ProposeUnsound,
    /// Two notarizations of one view.
    DoubleNotarize,
    /// Nullifies and finalizes one view.
    NullifyAndFinalize,
    /// Says nothing, at times.
    Silence,
    /// Proposes batches and does not hand them out.
    Withhold,
    /// Spreads batches of others with another content or signature.
    Forge,
    /// Makes batches that no application accepts.
    MakeInvalid,
    /// Answers questions wrongly.
    Lie,
    /// Repeats what anybody said long ago.
    Replay,
    /// Sends noise.
    Noise,
}

impl Behaviour {
    /// All habits.
    pub const ALL: &'static [Self] = &[
        Self::Equivocate,
        Self::ProposeUnsound,
        Self::DoubleNotarize,
        Self::NullifyAndFinalize,
        Self::Silence,
        Self::Withhold,
        Self::Forge,
        Self::MakeInvalid,
        Self::Lie,
        Self::Replay,
        Self::Noise,
    ];
}

/// Views whose proposals are remembered.
const VIEWS_REMEMBERED: usize = 8;

/// Frames remembered for replays.
const ARCHIVE_MAX: usize = 400;

/// Frames to single nodes.
pub(crate) type Sends = Vec<(usize, Bytes)>;

/// A Byzantine validator's mind.
pub(crate) struct Adversary {
    me: usize,
    nodes: usize,
    book: Arc<KeyBook>,
    genesis_hash: Digest,
    behaviours: Vec<Behaviour>,
    /// Digests proposed lately, by view.
    proposed: BTreeMap<View, Vec<Digest>>,
    /// Batches that were or will be ordered, to order them again.
    ordered: VecDeque<Digest>,
    archive: VecDeque<Bytes>,
    sequence: u64,
}

impl Adversary {
    pub(crate) fn new(
        me: usize,
        nodes: usize,
        book: Arc<KeyBook>,
        genesis_hash: Digest,
        behaviours: &[Behaviour],
    ) -> Self {
        Self {
            me,
            nodes,
            book,
            genesis_hash,
            behaviours: behaviours.to_vec(),
            proposed: BTreeMap::new(),
            ordered: VecDeque::new(),
            archive: VecDeque::new(),
            sequence: 1,
        }
    }

    fn does(&self, random: &mut Random, behaviour: Behaviour, per_thousand: u64) -> bool {
        self.behaviours.contains(&behaviour) && random.chance(per_thousand)
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.book.sign(self.me, message).unwrap_or(Signature([0; 64]))
    }

    fn vote(&self, like: Vote, kind: VoteKind, digest: Digest) -> PeerMessage {
        let vote = Vote { kind, digest, ..like };
        let signature = self.sign(&vote.signed_bytes(self.genesis_hash));
        let signer = ValidatorIndex(self.me as u16);
        PeerMessage::Consensus(Message::Vote(SignedVote { vote, signer, signature }))
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
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
    pub(crate) fn hear(&mut self, random: &mut Random, faults: &mut Faults, frame: &Bytes, message: &PeerMessage) -> Sends {
        let mut sends = Sends::new();
        if random.chance(100) {
            self.archive.push_back(frame.clone());
            if self.archive.len() > ARCHIVE_MAX {
                self.archive.pop_front();
            }
        }
        match message {
            PeerMessage::Consensus(Message::Proposal(proposal)) => self.remember(proposal),
            PeerMessage::Batch(batch) if self.does(random, Behaviour::Forge, 500) => {
                faults.count(Fault::ForgedBatch);
                self.to_all(&PeerMessage::Batch(forged(random, batch)), &mut sends);
            }
            _ => {}
        }
        sends
    }

    fn remember(&mut self, proposal: &Proposal) {
        let digests = self.proposed.entry(proposal.view).or_default();
        digests.push(proposal.block.digest());
        digests.truncate(4);
        while self.proposed.len() > VIEWS_REMEMBERED {
            self.proposed.pop_first();
        }
        self.ordered.extend(proposal.block.batches.iter().copied().take(2));
        while self.ordered.len() > 32 {
            self.ordered.pop_front();
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
                PeerMessage::Batch(batch) if self.does(random, Behaviour::Forge, 300) => {
                    faults.count(Fault::ForgedBatch);
                    PeerMessage::Batch(forged(random, &batch))
                }
                other if self.does(random, Behaviour::Lie, 400) => {
                    let lie = self.lie(random, other.clone());
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
            self.remember(&unsound);
            self.to_all(&PeerMessage::Consensus(Message::Proposal(unsound)), sends);
            return;
        }
        let message = PeerMessage::Consensus(Message::Proposal(proposal.clone()));
        if !self.does(random, Behaviour::Equivocate, 800) {
            self.to_all(&message, sends);
            return;
        }
        faults.count(Fault::EquivocatingProposal);
        let mut rival = proposal.clone();
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

    fn signed(&self, mut proposal: Proposal) -> Proposal {
        proposal.signature = self.sign(&proposal.vote().signed_bytes(self.genesis_hash));
        proposal
    }

    /// A proposal with a valid signature that breaks some rule.
    fn unsound(&mut self, random: &mut Random, proposal: &Proposal) -> Proposal {
        let mut proposal = proposal.clone();
        let stranger = Digest([random.next() as u8; 32]);
        let block = &mut proposal.block;
        match random.below(9) {
            0 => block.height = Height(block.height.0 + random.between(1, 3)),
            1 => block.batches.push(stranger),
            2 => block.batches.extend(self.ordered.iter().copied().take(4)),
            3 => proposal.parent_view = View(random.below(proposal.view.0)),
            4 => proposal.justification = None,
            5 => block.time_milliseconds = 0,
            6 => block.parent = stranger,
            7 => block.batches.extend([stranger, stranger]),
            _ => {
                // A batch that everybody can have and nobody may accept.
                let batch = self.invalid_batch();
                let digest = Batch::digest(self.genesis_hash, batch.origin, batch.sequence, &batch.payload);
                proposal.block.batches.push(digest);
            }
        }
        let mut seen = proposal.block.batches.clone();
        seen.truncate(bizra_simplex::block::BATCHES_PER_BLOCK_MAX);
        proposal.block.batches = seen;
        self.signed(proposal)
    }

    fn contradict(&mut self, random: &mut Random, faults: &mut Faults, vote: Vote, sends: &mut Sends) {
        let known = self.proposed.get(&vote.view).cloned().unwrap_or_default();
        match vote.kind {
            VoteKind::Notarize if self.does(random, Behaviour::DoubleNotarize, 800) => {
                faults.count(Fault::DoubleNotarize);
                let invented = Digest([random.next() as u8; 32]);
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

    fn lie(&self, random: &mut Random, message: PeerMessage) -> PeerMessage {
        match message {
            PeerMessage::Status(_) => PeerMessage::Status(Height(random.pick(&[0, 1_000, u64::MAX]))),
            PeerMessage::HighestVote(validator, Some(mut vote)) => {
                if random.chance(500) {
                    return PeerMessage::HighestVote(validator, None);
                }
                // A claim without a valid signature counts for nothing.
                vote.vote.view = View(vote.vote.view.0 + 1_000);
                PeerMessage::HighestVote(validator, Some(vote))
            }
            PeerMessage::Block(mut block) => {
                block.time_milliseconds ^= 1;
                PeerMessage::Block(block)
            }
            PeerMessage::Range(mut blocks, mut certificate) => {
                match random.below(4) {
                    0 => drop(blocks.pop()),
                    1 => certificate.signatures.truncate(1),
                    2 => certificate.vote.view = View(certificate.vote.view.0 + 100),
                    _ => {
                        if let Some(block) = blocks.first_mut() {
                            block.time_milliseconds ^= 1;
                        }
                    }
                }
                PeerMessage::Range(blocks, certificate)
            }
            PeerMessage::Consensus(Message::Certificate(mut certificate)) => {
                match random.below(4) {
                    0 => certificate.vote.view = View(certificate.vote.view.0 + random.between(1, 1_000)),
                    1 => certificate.vote.kind = VoteKind::Finalize,
                    2 => certificate.signatures.rotate_left(1),
                    _ => {
                        let first = certificate.signatures.first().copied();
                        certificate.signatures.iter_mut().for_each(|entry| *entry = first.unwrap_or(*entry));
                    }
                }
                PeerMessage::Consensus(Message::Certificate(certificate))
            }
            other => other,
        }
    }

    fn invalid_batch(&mut self) -> Batch {
        let origin = ValidatorIndex(self.me as u16);
        self.sequence += 1;
        let payload = Bytes::from(vec![0xff, self.sequence as u8, (self.sequence >> 8) as u8]);
        let digest = Batch::digest(self.genesis_hash, origin, self.sequence, &payload);
        Batch { origin, sequence: self.sequence, payload, signature: self.sign(&digest.0) }
    }

    /// What it says of itself, every now and then.
    pub(crate) fn act(&mut self, random: &mut Random, faults: &mut Faults) -> Sends {
        let mut sends = Sends::new();
        if self.does(random, Behaviour::Replay, 600) && !self.archive.is_empty() {
            faults.count(Fault::Replay);
            for _ in 0..4 {
                let frame = self.archive[random.index(self.archive.len())].clone();
                sends.extend(self.others().filter(|_| random.chance(500)).map(|node| (node, frame.clone())));
            }
        }
        if self.does(random, Behaviour::Noise, 600) {
            faults.count(Fault::Garbage);
            let mut noise: Vec<u8> = (0..random.below(120)).map(|_| random.next() as u8).collect();
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

/// The batch with another payload or a broken signature.
fn forged(random: &mut Random, batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    if random.chance(500) {
        batch.signature.0[random.index(64)] ^= 1;
    } else {
        let mut payload = batch.payload.to_vec();
        payload.push(random.next() as u8);
        batch.payload = payload.into();
    }
    batch
}
