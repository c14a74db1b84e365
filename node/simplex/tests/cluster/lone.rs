//! One validator of four, alone: what it asks for, says and keeps, event by event.

use std::collections::VecDeque;

use bizra_simplex::types::{Digest, Epoch, Millis, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Certificate, Config, Effect, Event, Message, Proposal, Record, Safety, SignedVote, State, Token, Verdict,
    Vote, VoteKind, Want,
};

use super::{certificate, config, genesis};

pub struct Lone {
    pub state: State,
    pub now: u64,
}

impl Lone {
    /// Started; may not sign yet. Validator `me` leads the views that are `me` modulo four.
    pub fn new(me: usize) -> Self {
        Self::with(config(me), Vec::new())
    }

    pub fn with(config: Config, records: Vec<Record>) -> Self {
        Self::restarted(config, records, Vec::new())
    }

    /// With these votes in its signing record.
    pub fn restarted(config: Config, records: Vec<Record>, votes: Vec<Vote>) -> Self {
        let safety = Safety::restore(View(0), votes);
        let state = State::recover(config, genesis(), None, records, safety);
        let mut lone = Self { state, now: 0 };
        lone.step(Event::Started);
        lone
    }

    pub fn signing(me: usize) -> Self {
        let mut lone = Self::new(me);
        lone.step(Event::SigningAllowed);
        lone
    }

    /// One event, nothing answered.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        self.state.step(Millis(self.now), event)
    }

    /// One event; all signatures are valid, everything that is to be signed is, bodies are held. Returns all effects.
    pub fn feed(&mut self, event: Event) -> Vec<Effect> {
        let mut events = VecDeque::from([event]);
        let mut all = Vec::new();
        while let Some(event) = events.pop_front() {
            for effect in self.step(event) {
                match &effect {
                    Effect::Verify(token, _) => events.push_back(Event::Verified(*token, true)),
                    Effect::Sign(vote) => {
                        let signer = self.state.config().me.unwrap_or(ValidatorIndex(0));
                        events.push_back(Event::Signed(signed(*vote, signer.0)));
                    }
                    Effect::Check { block, .. } => events.push_back(Event::Checked(block.digest(), Verdict::Held)),
                    _ => {}
                }
                all.push(effect);
            }
        }
        all
    }

    pub fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        self.feed(Event::Tick)
    }

    pub fn hear(&mut self, message: impl Into<Heard>) -> Vec<Effect> {
        self.feed(Event::Received(message.into().0))
    }

    /// What it wants checked of a message.
    pub fn asks(&mut self, message: impl Into<Heard>) -> Option<(Token, Vec<SignedVote>)> {
        let effects = self.step(Event::Received(message.into().0));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Verify(token, checks) => Some((token, checks)),
            _ => None,
        })
    }

    /// Makes `blocks` final, the last of them in `view`.
    pub fn finalize(&mut self, blocks: &[Block], view: u64) -> Vec<Effect> {
        let last = blocks.last().map(Block::digest).unwrap_or_default();
        self.feed(Event::Range(blocks.to_vec(), certificate(VoteKind::Finalize, view, last)))
    }
}

pub struct Heard(Message);

impl From<SignedVote> for Heard {
    fn from(vote: SignedVote) -> Self {
        Self(Message::Vote(vote))
    }
}

impl From<Certificate> for Heard {
    fn from(certificate: Certificate) -> Self {
        Self(Message::Certificate(certificate))
    }
}

impl From<Proposal> for Heard {
    fn from(proposal: Proposal) -> Self {
        Self(Message::Proposal(proposal))
    }
}

pub fn vote(kind: VoteKind, view: u64, digest: Digest) -> Vote {
    Vote { epoch: Epoch(0), view: View(view), kind, digest }
}

pub fn nullification(view: u64) -> Certificate {
    certificate(VoteKind::Nullify, view, Digest::default())
}

pub fn signed(vote: Vote, signer: u16) -> SignedVote {
    SignedVote { vote, signer: ValidatorIndex(signer), signature: Signature([signer as u8; 64]) }
}

/// A block as the leader of `view` would make it on `parent`.
pub fn block(parent: &Block, view: u64) -> Block {
    let proposer = ValidatorIndex((view % 4) as u16);
    Block { view: View(view), proposer, ..super::child(parent, vec![Digest([view as u8; 32])]) }
}

/// The leader's proposal of a block, on a parent that was notarized in `parent_view`; 0 for the first of the epoch.
pub fn proposal(block: &Block, parent_view: u64) -> Proposal {
    let notarized = certificate(VoteKind::Notarize, parent_view, block.parent);
    Proposal {
        view: block.view,
        parent_view: View(parent_view),
        block: block.clone(),
        justification: (parent_view > 0).then_some(notarized),
        signature: Signature([0; 64]),
    }
}

pub fn signs(effects: &[Effect]) -> Vec<Vote> {
    let votes = effects.iter().filter_map(|effect| if let Effect::Sign(vote) = effect { Some(*vote) } else { None });
    votes.collect()
}

/// The messages it sends to all.
pub fn said(effects: &[Effect]) -> Vec<&Message> {
    let said = effects.iter().filter_map(|effect| if let Effect::Broadcast(said) = effect { Some(said) } else { None });
    said.collect()
}

/// The block that it asks for: view, parent, unfinalised ancestors.
pub fn builds(effects: &[Effect]) -> Vec<(View, Digest, Vec<Block>)> {
    let build = |effect: &Effect| match effect {
        Effect::Build { view, parent, ancestors } => Some((*view, *parent, ancestors.clone())),
        _ => None,
    };
    effects.iter().filter_map(build).collect()
}

/// The driver's material for a block: nothing to order.
pub fn built(view: u64, parent: Digest) -> Event {
    Event::Built {
        view: View(view),
        parent,
        batches: Vec::new(),
        time_milliseconds: 0,
        checkpoint: bizra_simplex::Checkpoint::default(),
        boundary: None,
        contradictions: Vec::new(),
    }
}

pub fn fetches(effects: &[Effect]) -> Vec<Want> {
    let wants =
        effects.iter().filter_map(|effect| if let Effect::Fetch(want, _) = effect { Some(*want) } else { None });
    wants.collect()
}

/// When it wants to be woken, if that changed.
pub fn timer(effects: &[Effect]) -> Option<u64> {
    effects.iter().rev().find_map(|effect| if let Effect::SetTimer(at) = effect { Some(at.0) } else { None })
}
