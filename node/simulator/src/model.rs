//! A model check of the shipped core: every reachable state of four [`State`]s within small bounds.
//!
//! The network is an adversary that holds every message ever sent. It may deliver any of them at any time, in any order,
//! again after a restart, or never, so loss, repetition and reordering need no actions of their own. Certificates are delivered, not
//! single votes: as soon as a quorum of votes exists, the adversary can make the certificate, which tells a core the same.
//! Byzantine validators have signed every vote, and as leaders two blocks on every certified parent. Timers fire at any
//! time, and a crash leaves what the core had asked to be made durable.
//!
//! Bounds: four validators, the first `views` views, `crashes` restarts. Bodies, epochs and checkpoints are not modelled:
//! blocks are empty and every check finds them held.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Anchor, Block, Certificate, Checkpoint, Config, Effect, Event, Message, Proposal, Protocol, Record, Safety,
    SignedVote, State, Timing, ValidatorSet, ValidatorSetError, Verdict, Vote, VoteKind, Want,
};
use stateright::{Checker, Model, Property};

use crate::random::fold_bytes;

/// Validators.
const COUNT: usize = 4;

/// The mock signature of everybody: the adversary only ever shows votes that exist.
const SIGNATURE: Signature = Signature([0; 64]);

/// Proposers' clocks, so that blocks of different proposers differ; Byzantine ones use the times below.
const HONEST_TIME: u64 = 10;

/// Nothing waits for work, nothing is sent again: the adversary does that.
const TIMING: Timing = Timing {
    base_milliseconds: 4,
    cap_milliseconds: 4,
    min_view_milliseconds: 0,
    heartbeat_milliseconds: 0,
    resend_milliseconds: u64::MAX / 4,
};

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Views in which messages are delivered and timers fire.
    pub views: u64,
    /// Byzantine validators: the leader of view 1 and those that follow it.
    pub byzantine: usize,
    /// Restarts, of all validators together.
    pub crashes: u8,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Different states.
    pub states: usize,
    /// States generated, repetitions included.
    pub generated: usize,
    /// Longest sequence of actions.
    pub depth: usize,
    /// True if every state within the bounds was seen.
    pub is_complete: bool,
    /// Promises that some sequence of actions breaks, with it.
    pub violations: Vec<(&'static str, String)>,
    /// Things that should be reachable and were not met.
    pub unreached: Vec<&'static str>,
    /// Real time.
    pub elapsed: Duration,
}

/// The actions and promises.
struct Network {
    bounds: Bounds,
    validators: ValidatorSet,
    genesis: Block,
}

/// One honest validator.
#[derive(Clone, Debug)]
struct Replica {
    core: State,
    clock: Millis,
    due: Option<Millis>,
    records: Vec<Record>,
    signed: Vec<Vote>,
    wanted: BTreeSet<Digest>,
    chain: Vec<Block>,
    restarted: bool,
    /// Stands for all of the above.
    print: u64,
}

/// Everything there is.
#[derive(Clone, Debug)]
struct Everything {
    replicas: Vec<Option<Arc<Replica>>>,
    votes: BTreeSet<(Vote, ValidatorIndex)>,
    proposals: BTreeMap<(View, Digest), Arc<Proposal>>,
    crashes: u8,
}

/// One step of the adversary.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Propose(usize, Arc<Proposal>),
    Certify(usize, Vote),
    Fetch(usize, Digest),
    Timeout(usize),
    Crash(usize),
}

impl PartialEq for Everything {
    fn eq(&self, other: &Self) -> bool {
        let prints = |of: &Self| of.replicas.iter().flatten().map(|replica| replica.print).collect::<Vec<_>>();
        self.crashes == other.crashes
            && prints(self) == prints(other)
            && self.votes == other.votes
            && self.proposals.keys().eq(other.proposals.keys())
    }
}

impl Hash for Everything {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.replicas.iter().flatten().for_each(|replica| replica.print.hash(hasher));
        for (vote, signer) in &self.votes {
            (vote.view, vote.kind as u8, vote.digest, signer).hash(hasher);
        }
        self.proposals.keys().for_each(|key| key.hash(hasher));
        self.crashes.hash(hasher);
    }
}

impl Network {
    fn is_byzantine(&self, validator: usize) -> bool {
        (1..=self.bounds.byzantine).contains(&validator)
    }

    /// Every certificate that the adversary can make.
    fn certificates(&self, of: &Everything) -> Vec<Certificate> {
        let mut signers: BTreeMap<Vote, Vec<ValidatorIndex>> = BTreeMap::new();
        for (vote, signer) in of.votes.iter().filter(|(vote, _)| vote.view.0 <= self.bounds.views) {
            signers.entry(*vote).or_default().push(*signer);
        }
        // Without a single honest vote a quorum would need all of them Byzantine.
        let certificate = |(vote, mut signers): (Vote, Vec<ValidatorIndex>)| {
            signers.extend((1..=self.bounds.byzantine).map(|validator| ValidatorIndex(validator as u16)));
            signers.sort_unstable();
            let signatures = signers.iter().map(|signer| (*signer, SIGNATURE)).collect();
            (vote.kind != VoteKind::Propose && self.validators.is_quorum(signers))
                .then_some(Certificate { vote, signatures })
        };
        signers.into_iter().filter_map(certificate).collect()
    }

    fn block(&self, of: &Everything, digest: Digest) -> Option<Block> {
        let mut proposed = of.proposals.values().map(|proposal| &proposal.block).chain([&self.genesis]);
        proposed.find(|block| block.digest() == digest).cloned()
    }

    /// What a Byzantine leader may propose: two blocks on every parent with a certificate.
    fn forgeries(&self, of: &Everything, certificates: &[Certificate]) -> Vec<Arc<Proposal>> {
        let leads = |view: &u64| self.is_byzantine(usize::from(self.validators.leader(View(*view)).0));
        let mut proposals = Vec::new();
        for view in (1..=self.bounds.views).filter(leads).map(View) {
            let certified =
                certificates.iter().filter(|held| held.vote.kind == VoteKind::Notarize && held.view() < view);
            let proposer = self.validators.leader(view);
            for justification in certified.map(Some).chain([None]) {
                let parent = justification.map_or(self.genesis.digest(), |certificate| certificate.vote.digest);
                let Some(below) = self.block(of, parent) else { continue };
                for time_milliseconds in [1, 2] {
                    let time_milliseconds = below.time_milliseconds + time_milliseconds;
                    let block = Block {
                        height: below.height.next(),
                        parent,
                        view,
                        time_milliseconds,
                        proposer,
                        ..self.genesis.clone()
                    };
                    let parent_view = justification.map_or(View(0), Certificate::view);
                    let justification = justification.cloned();
                    proposals.push(Arc::new(Proposal {
                        view,
                        parent_view,
                        block,
                        justification,
                        signature: SIGNATURE,
                    }));
                }
            }
        }
        proposals
    }

    fn recover(&self, me: usize, from: Option<&Replica>) -> Replica {
        let config = Config {
            epoch: Epoch(0),
            cutoff: Height(u64::MAX),
            restarted_at: None,
            validators: self.validators.clone(),
            me: Some(ValidatorIndex(me as u16)),
            timing: TIMING,
            protocol: Protocol::V1,
            signals: Protocol::V1.version(),
        };
        let records = from.map_or_else(Vec::new, |replica| replica.records.clone());
        let signed = from.map_or_else(Vec::new, |replica| replica.signed.clone());
        let anchor = from.map_or_else(|| Anchor::first(self.genesis.clone()), |replica| replica.core.anchor().clone());
        let certificate = from.and_then(|replica| replica.core.anchor_certificate().cloned());
        let safety = Safety::restore(View(0), signed.iter().copied());
        Replica {
            core: State::recover(config, anchor, certificate, records.clone(), safety),
            clock: from.map_or(Millis(0), |replica| replica.clock),
            due: None,
            records,
            signed,
            wanted: BTreeSet::new(),
            chain: from.map_or_else(Vec::new, |replica| replica.chain.clone()),
            restarted: from.is_some(),
            print: 0,
        }
    }
}

impl Everything {
    /// Lets a validator take events, answers what its core asks, and notes what it says.
    fn step(&mut self, me: usize, mut replica: Replica, events: Vec<Event>) {
        let signer = ValidatorIndex(me as u16);
        let mut events = std::collections::VecDeque::from(events);
        while let Some(event) = events.pop_front() {
            for effect in replica.core.step(replica.clock, event) {
                match effect {
                    Effect::Verify(token, _) => events.push_back(Event::Verified(token, true)),
                    Effect::Sign(vote) => {
                        if !replica.signed.contains(&vote) {
                            replica.signed.push(vote);
                        }
                        events.push_back(Event::Signed(SignedVote { vote, signer, signature: SIGNATURE }));
                    }
                    Effect::Persist(record) => replica.records.push(record),
                    Effect::Broadcast(Message::Vote(vote)) => drop(self.votes.insert((vote.vote, vote.signer))),
                    Effect::Broadcast(Message::Proposal(proposal)) => {
                        let vote = proposal.vote();
                        self.votes.insert((vote, signer));
                        self.proposals.insert((proposal.view, vote.digest), Arc::new(proposal));
                    }
                    Effect::Build { view, parent, .. } => events.push_back(Event::Built {
                        view,
                        parent,
                        batches: Vec::new(),
                        time_milliseconds: HONEST_TIME * (1 + me as u64),
                        checkpoint: Checkpoint::default(),
                        boundary: None,
                        contradictions: Vec::new(),
                    }),
                    Effect::Check { block, .. } => events.push_back(Event::Checked(block.digest(), Verdict::Held)),
                    Effect::Fetch(Want::Block(digest), _) => drop(replica.wanted.insert(digest)),
                    Effect::Commit(blocks, _) => replica.chain.extend(blocks),
                    Effect::SetTimer(at) => replica.due = Some(at),
                    // The adversary may show any certificate anyway.
                    Effect::Broadcast(Message::Certificate(_))
                    | Effect::Fetch(Want::View(_), _)
                    | Effect::CatchUp(_)
                    | Effect::Evidence(..) => {}
                }
            }
        }
        replica.print = print(&replica);
        self.replicas[me] = Some(Arc::new(replica));
    }
}

/// A fingerprint of a validator. Who signed a certificate changes nothing but whom the core asks first, and the number of
/// the next verification nothing at all: without them far fewer states differ.
fn print(replica: &Replica) -> u64 {
    let text = format!("{:?}{:?}{:?}{:?}", replica.core, replica.clock, replica.due, replica.wanted);
    let mut hash = u64::from(replica.restarted);
    let mut rest = &text[..];
    while let Some(position) = rest.find("signatures: [").into_iter().chain(rest.find("next_token: ")).min() {
        hash = fold_bytes(hash, &rest.as_bytes()[..position]);
        let end = if rest[position..].starts_with("signatures") { ']' } else { ',' };
        rest = rest[position..].find(end).map_or("", |length| &rest[position + length..]);
    }
    let mut hash = fold_bytes(hash, rest.as_bytes());
    for vote in &replica.signed {
        hash = fold_bytes(hash, &vote.signed_bytes(Digest::default()));
    }
    replica.chain.iter().fold(hash, |hash, block| fold_bytes(hash, &block.digest().0))
}

impl Model for Network {
    type State = Everything;
    type Action = Action;

    fn init_states(&self) -> Vec<Everything> {
        let mut start = Everything {
            replicas: vec![None; COUNT],
            votes: BTreeSet::new(),
            proposals: BTreeMap::new(),
            crashes: self.bounds.crashes,
        };
        for me in (0..COUNT).filter(|me| !self.is_byzantine(*me)) {
            start.step(me, self.recover(me, None), vec![Event::Started, Event::SigningAllowed]);
        }
        vec![start]
    }

    fn actions(&self, of: &Everything, actions: &mut Vec<Action>) {
        let certificates = self.certificates(of);
        let honest = of.proposals.values().filter(|proposal| proposal.view.0 <= self.bounds.views).cloned();
        let mut proposals = self.forgeries(of, &certificates);
        proposals.extend(honest);
        for (me, replica) in of.replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            let final_view = replica.core.anchor().view;
            // What is held already is not delivered again: it would only be looked up and dropped.
            let core = &replica.core;
            let open = proposals
                .iter()
                .filter(|proposal| proposal.view > final_view && core.proposed(proposal.view) != Some(&proposal.block));
            actions.extend(open.map(|proposal| Action::Propose(me, Arc::clone(proposal))));
            let open = certificates
                .iter()
                .map(|certificate| certificate.vote)
                .filter(|vote| vote.view > final_view && !core.certificates(vote.view).any(|held| held.vote == *vote));
            actions.extend(open.map(|vote| Action::Certify(me, vote)));
            actions.extend(replica.wanted.iter().map(|digest| Action::Fetch(me, *digest)));
            let waits = replica.due.is_some_and(|due| due.0 < TIMING.resend_milliseconds);
            if waits && replica.core.view().0 <= self.bounds.views {
                actions.push(Action::Timeout(me));
            }
            if of.crashes > 0 {
                actions.push(Action::Crash(me));
            }
        }
    }

    fn next_state(&self, of: &Everything, action: Action) -> Option<Everything> {
        let mut next = of.clone();
        let replica = |me: usize| of.replicas[me].as_deref().cloned();
        let (me, replica, events) = match action {
            Action::Propose(me, proposal) => {
                // What is built upon must be known to whoever is asked for it.
                next.proposals.insert((proposal.view, proposal.block.digest()), Arc::clone(&proposal));
                (me, replica(me)?, vec![Event::Received(Message::Proposal((*proposal).clone()))])
            }
            Action::Certify(me, vote) => {
                let certificate = self.certificates(of).into_iter().find(|certificate| certificate.vote == vote)?;
                (me, replica(me)?, vec![Event::Received(Message::Certificate(certificate))])
            }
            Action::Fetch(me, digest) => {
                let block = self.block(of, digest)?;
                let mut replica = replica(me)?;
                replica.wanted.remove(&digest);
                (me, replica, vec![Event::Fetched(block)])
            }
            Action::Timeout(me) => {
                let mut replica = replica(me)?;
                replica.clock = replica.due.take()?;
                (me, replica, vec![Event::Tick])
            }
            Action::Crash(me) => {
                next.crashes -= 1;
                (me, self.recover(me, Some(&replica(me)?)), vec![Event::Started, Event::SigningAllowed])
            }
        };
        next.step(me, replica, events);
        (next != *of).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("agreement", |_, of: &Everything| {
                let chains: Vec<&Vec<Block>> = of.replicas.iter().flatten().map(|replica| &replica.chain).collect();
                chains.iter().all(|left| {
                    chains.iter().all(|right| left.iter().zip(right.iter()).all(|(left, right)| left == right))
                })
            }),
            Property::always("validity", |network: &Self, of: &Everything| {
                // Each final block was proposed and follows the one below, from the genesis on.
                of.replicas.iter().flatten().all(|replica| {
                    let mut below = &network.genesis;
                    replica.chain.iter().all(|block| {
                        let follows = block.parent == below.digest() && block.height == below.height.next();
                        below = block;
                        follows && of.proposals.values().any(|proposal| proposal.block == *block)
                    })
                })
            }),
            Property::always("no honest validator contradicts itself", |_, of: &Everything| {
                of.votes.iter().all(|(vote, signer)| {
                    of.votes.iter().all(|(other, by)| signer != by || !vote.conflicts_with(other))
                })
            }),
            Property::sometimes("a block is final", |_, of: &Everything| {
                finality(of, |replica| !replica.chain.is_empty())
            }),
            Property::sometimes("a view is skipped and a later one is final", |_, of: &Everything| {
                finality(of, |replica| replica.core.anchor().view.0 > replica.chain.len() as u64)
            }),
        ];
        if self.bounds.views > 1 && self.bounds.byzantine < 2 {
            properties.push(Property::sometimes("two heights are final", |_, of: &Everything| {
                finality(of, |replica| replica.chain.len() > 1)
            }));
        }
        if self.bounds.crashes > 0 {
            properties.push(Property::sometimes("a restarted validator finalises", |_, of: &Everything| {
                finality(of, |replica| replica.restarted && !replica.chain.is_empty())
            }));
        }
        properties
    }
}

fn finality(of: &Everything, holds: impl Fn(&Replica) -> bool) -> bool {
    of.replicas.iter().flatten().any(|replica| holds(replica))
}

/// Explores all states within `bounds`, breadth first on `jobs` threads, for at most `limit`. Stops at the first broken
/// promise of each kind.
///
/// # Errors
/// Never for four validators; the set's own error otherwise.
pub fn check(bounds: Bounds, jobs: usize, limit: Duration) -> Result<Summary, ValidatorSetError> {
    let validators = ValidatorSet::new(vec![Power(1); COUNT])?;
    let network = Network { bounds, validators, genesis: Block::genesis(Digest([7; 32]), 0) };
    let began = Instant::now();
    let is_promise = |name: &str| ["agreement", "validity"].contains(&name) || name.starts_with("no ");
    let names: Vec<&'static str> = network.properties().iter().map(|property| property.name).collect();
    let checker = network.checker().threads(jobs).timeout(limit).spawn_bfs().join();
    let found = checker.discoveries();
    let broken = names.iter().filter(|name| is_promise(name));
    Ok(Summary {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        is_complete: checker.is_done() && began.elapsed() < limit,
        violations: broken
            .filter_map(|name| found.get(name).map(|path| (*name, format!("{:?}", path.clone().into_actions()))))
            .collect(),
        unreached: names.into_iter().filter(|name| !is_promise(name) && !found.contains_key(name)).collect(),
        elapsed: began.elapsed(),
    })
}
