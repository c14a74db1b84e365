//! Several states, instant or withheld messages, signatures that are always valid.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod lone;

use std::collections::VecDeque;

use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Anchor, Block, Boundary, Certificate, Checkpoint, Config, Contradiction, Effect, Event, Message, Protocol, Record,
    Safety, SignedVote, State, Timing, ValidatorSet, Verdict, Version, Vote, VoteKind,
};

/// What the state at the cut-off height says of the next epoch.
pub const NEXT_EPOCH: Boundary =
    Boundary { validators: Digest([77; 32]), snapshot: Digest([78; 32]), version: Version(2) };

pub struct Node {
    pub state: State,
    pub signed: Vec<Vote>,
    pub records: Vec<Record>,
    pub committed: Vec<Block>,
    pub last_certificate: Option<Certificate>,
    pub anchor: Anchor,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub now: u64,
    /// Messages on their way: (receiver, message).
    pub wire: VecDeque<(usize, Message)>,
    pub silent: Vec<usize>,
    /// What leaders have executed.
    pub checkpoint: Checkpoint,
}

pub fn genesis() -> Anchor {
    Anchor::first(Block::genesis(Digest([9; 32]), 0))
}

pub fn config(me: usize) -> Config {
    Config {
        epoch: Epoch(0),
        cutoff: Height(CHECKPOINT_INTERVAL),
        restarted_at: None,
        validators: ValidatorSet::new(vec![Power(1); 4]).unwrap(),
        me: Some(ValidatorIndex(me as u16)),
        timing: Timing::default(),
        protocol: Protocol::V1,
        signals: Protocol::V2.version(),
    }
}

impl Cluster {
    pub fn start() -> Self {
        let nodes = (0..4)
            .map(|me| Node {
                state: State::recover(config(me), genesis(), None, Vec::new(), Safety::default()),
                signed: Vec::new(),
                records: Vec::new(),
                committed: Vec::new(),
                last_certificate: None,
                anchor: genesis(),
            })
            .collect();
        let mut cluster =
            Self { nodes, now: 0, wire: VecDeque::new(), silent: Vec::new(), checkpoint: Checkpoint::default() };
        for node in 0..4 {
            cluster.feed(node, Event::Started);
            cluster.feed(node, Event::SigningAllowed);
        }
        cluster
    }

    pub fn feed(&mut self, at: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.nodes[at].state.step(Millis(self.now), event) {
                match effect {
                    Effect::Verify(token, _) => events.push_back(Event::Verified(token, true)),
                    Effect::Sign(vote) => {
                        let node = &mut self.nodes[at];
                        assert!(node.signed.iter().all(|earlier| !earlier.conflicts_with(&vote)));
                        node.signed.push(vote);
                        let signer = ValidatorIndex(at as u16);
                        events.push_back(Event::Signed(SignedVote {
                            vote,
                            signer,
                            signature: Signature([at as u8; 64]),
                        }));
                    }
                    Effect::Persist(record) => self.nodes[at].records.push(record),
                    Effect::Broadcast(message) => {
                        for other in (0..4).filter(|other| *other != at && !self.silent.contains(&at)) {
                            self.wire.push_back((other, message.clone()));
                        }
                    }
                    Effect::Build { view, parent, .. } => events.push_back(Event::Built {
                        view,
                        parent,
                        batches: vec![Digest([view.0 as u8; 32])],
                        time_milliseconds: self.now,
                        checkpoint: self.checkpoint,
                        boundary: Some(NEXT_EPOCH),
                        contradictions: vec![contradiction(0, 1, 3)],
                    }),
                    Effect::Check { block, .. } => {
                        events.push_back(Event::Checked(block.digest(), Verdict::Held));
                    }
                    Effect::Commit(blocks, certificate) => {
                        let node = &mut self.nodes[at];
                        let last = blocks.last().unwrap().clone();
                        node.anchor = Anchor { view: certificate.view(), digest: last.digest(), block: last };
                        node.committed.extend(blocks);
                        node.last_certificate = Some(certificate);
                    }
                    Effect::Fetch(..) | Effect::CatchUp(_) | Effect::SetTimer(_) => {}
                    Effect::Evidence(first, second) => panic!("evidence against an honest node: {first:?} {second:?}"),
                }
            }
        }
    }

    /// Delivers everything that is on its way now; what is sent meanwhile waits for the next delay.
    pub fn one_network_delay(&mut self) {
        for _ in 0..self.wire.len() {
            let (to, message) = self.wire.pop_front().unwrap();
            if !self.silent.contains(&to) {
                self.feed(to, Event::Received(message));
            }
        }
    }

    pub fn settle(&mut self) {
        while !self.wire.is_empty() {
            self.one_network_delay();
        }
    }

    pub fn tick(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        for node in (0..4).filter(|node| !self.silent.contains(node)).collect::<Vec<_>>() {
            self.feed(node, Event::Tick);
        }
        self.settle();
    }

    pub fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let safety = Safety::restore(View(0), node.signed.clone());
        let certificate = node.last_certificate.clone();
        node.state = State::recover(config(at), node.anchor.clone(), certificate, node.records.clone(), safety);
        self.feed(at, Event::Started);
        self.feed(at, Event::SigningAllowed);
    }

    pub fn heights(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.state.anchor().height().0).collect()
    }

    pub fn agree(&self) {
        let longest = self.nodes.iter().map(|node| &node.committed).max_by_key(|blocks| blocks.len()).unwrap();
        for node in &self.nodes {
            assert_eq!(node.committed[..], longest[..node.committed.len()]);
        }
    }
}

pub fn child(parent: &Block, batches: Vec<Digest>) -> Block {
    Block { height: parent.height.next(), parent: parent.digest(), batches, view: parent.view.next(), ..parent.clone() }
}

/// The same block as the leader of this view, one of the first three, would make it.
pub fn by(leader: u16, block: Block) -> Block {
    Block { proposer: ValidatorIndex(leader), view: View(leader.into()), ..block }
}

/// Two notarize votes of a validator in one view.
pub fn contradiction(epoch: u64, view: u64, signer: u16) -> Contradiction {
    let vote = |digest| SignedVote {
        vote: Vote { epoch: Epoch(epoch), view: View(view), kind: VoteKind::Notarize, digest: Digest([digest; 32]) },
        signer: ValidatorIndex(signer),
        signature: Signature([0; 64]),
    };
    Contradiction::new(vote(2), vote(1))
}

pub fn certificate(kind: VoteKind, view: u64, digest: Digest) -> Certificate {
    let signatures = (1..4).map(|signer| (ValidatorIndex(signer), Signature([0; 64]))).collect();
    Certificate { vote: Vote { epoch: Epoch(0), view: View(view), kind, digest }, signatures }
}
