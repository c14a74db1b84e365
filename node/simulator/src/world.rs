//! The loop: takes the earliest event, lets it happen, and writes down what follows from it.

use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Change, Destination, DiskError, Driver, Halt, Input, Output, Signing};
use bizra_simplex::types::Digest;
use bizra_simplex::{Block, Message, Protocol, VoteKind};
use bytes::Bytes;

use crate::adversary::{Adversary, Sends};
use crate::audit::Turnover;
use crate::disk::Failure;
use crate::faults::{Fault, Faults};
use crate::keys::KeyBook;
use crate::network::Network;
use crate::node::{Clocks, Node};
use crate::oracle::{Oracle, Violation};
use crate::owners::Owners;
use crate::queue::{Happening, Queue};
use crate::random::{Random, fold, fold_bytes};
use crate::scenario::Scenario;

/// Virtual milliseconds after the end of faults within which everything owed must have happened. Long enough for some
/// capped timeouts (8 s each) of Byzantine leaders in a row.
pub const LIVENESS_BOUND: u64 = 60_000;

/// Blocks that every honest node must finalise and execute after the end of faults.
pub const LIVENESS_BLOCKS: u64 = 5;

/// Views ahead of its own of which a node keeps votes at most, by the specification (R4).
const FUTURE_VIEWS_KEPT: u64 = 64;

/// Turns after which a run is given up: honest nodes that talk without end are a violation too.
const STEPS_MAX: u64 = 2_000_000;

/// Whether events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Only hashed.
    Off,
    /// One line each on standard output.
    Print,
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Hash over every event.
    pub hash: u64,
    /// Turns of drivers.
    pub steps: u64,
    /// Blocks finalised.
    pub blocks: u64,
    /// Those of them that order something.
    pub loaded_blocks: u64,
    /// Epochs ended.
    pub epochs: u64,
    /// Payloads of clients executed.
    pub payloads: u64,
    /// Contradictions of Byzantine validators that were found.
    pub evidence: u64,
    /// Byzantine validators that final blocks report.
    pub reported: u64,
    /// Activations of a newer version of the protocol.
    pub activations: u64,
    /// How validators changed.
    pub turnover: Turnover,
    /// Virtual milliseconds.
    pub virtual_milliseconds: u64,
    /// Virtual milliseconds from the end of faults until everything owed had happened.
    pub recovery_milliseconds: u64,
    /// Faults injected.
    pub faults: Faults,
}

/// Everything there is in one run.
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) oracle: Oracle,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    pub(crate) hash: u64,
    pub(crate) steps: u64,
    pub(crate) evidence: u64,
    pub(crate) payloads: u64,
    /// Clients send until then, pause, and go on.
    pub(crate) clients_busy: bool,
    pub(crate) healed: bool,
    /// The node that starts next with old knowledge.
    pub(crate) behind: Option<usize>,
    /// The node that hears nothing for a while as soon as it may sign.
    pub(crate) deafens: Option<usize>,
    /// The node of whose volume there is a copy.
    pub(crate) copied: Option<usize>,
    /// Who orders changes of validators.
    pub(crate) owners: Owners,
}

impl World {
    /// Sets the scene; nothing has happened yet.
    pub fn new(mut scenario: Scenario, trace: Trace) -> Self {
        scenario.schedule = scenario.schedule.anew();
        let mut random = Random::new(scenario.seed);
        let book = KeyBook::new(&mut random, scenario.nodes());
        let genesis_hash = Digest([(scenario.seed % 251) as u8; 32]);
        let genesis = Block::genesis(genesis_hash, 1_000);
        let count = scenario.nodes();
        let (mut nodes, mut upgrades) = (Vec::with_capacity(count), Vec::new());
        for index in 0..count {
            let clocks = Clocks { skew: scenario.skews[index], drift: scenario.drifts[index] };
            let (book, schedule) = (Arc::clone(&book), &scenario.schedule);
            let mut node = Node::new(index, count, schedule, Arc::clone(&book), &genesis, genesis_hash, clocks);
            if let Some(binary) = scenario.upgrades.get(index).copied().flatten() {
                node.install(Protocol::V1);
                upgrades.push((index, binary));
            }
            node.adversary = scenario
                .behaviours(index)
                .map(|behaviours| Adversary::new(index, count, book, schedule.clone(), genesis_hash, behaviours));
            nodes.push(node);
        }
        let honest = nodes.iter().map(|node| node.adversary.is_none()).collect();
        let oracle = Oracle::new(scenario.schedule.clone(), honest, book, genesis_hash, &genesis);
        let network = Network::new(count, scenario.weather);
        let mut faults = Faults::default();
        scenario.skews.iter().filter(|skew| **skew != 0).for_each(|_| faults.count(Fault::ClockSkew));
        scenario.drifts.iter().filter(|drift| **drift != 0).for_each(|_| faults.count(Fault::ClockDrift));
        let mut queue = Queue::default();
        for (node, at) in upgrades {
            queue.push(at, Happening::Upgrade { node });
        }
        Self {
            scenario,
            random,
            now: 0,
            queue,
            network,
            nodes,
            oracle,
            faults,
            trace,
            hash: 0,
            steps: 0,
            evidence: 0,
            payloads: 0,
            clients_busy: true,
            healed: false,
            behind: None,
            deafens: None,
            copied: None,
            owners: Owners::default(),
        }
    }

    /// Plays the scenario to its end.
    pub fn run(mut self) -> Report {
        for node in 0..self.nodes.len() {
            let delay = self.random.below(300);
            self.schedule(delay, Happening::Restart { node });
            if self.nodes[node].adversary.is_some() {
                self.schedule(delay, Happening::Mischief { node });
            }
        }
        self.schedule(500, Happening::Payload);
        if !self.scenario.troubles.is_empty() {
            self.schedule(1_000, Happening::Trouble);
        }
        self.run_until(self.scenario.heal_at);
        self.heal();
        let healed_at = self.now;
        let target = self.oracle.height() + LIVENESS_BLOCKS;
        let mut converged = false;
        while !converged && self.now < healed_at + self.scenario.liveness_bound && self.oracle.violations().is_empty() {
            self.run_until(self.now + 250);
            let (lagging, owed) = self.oracle.lagging(target);
            converged = lagging.is_empty() && owed == 0 && self.untold().is_none();
        }
        if !converged && self.oracle.violations().is_empty() {
            let (lagging, owed) = self.oracle.lagging(target);
            for (node, executed) in lagging {
                let tip = self.oracle.tip(node);
                let what = format!("liveness: finalised {tip}, executed {executed}, but {target} was due");
                self.oracle.accuse(self.now, node, what);
            }
            if let Some((node, what)) = self.untold() {
                self.oracle.accuse(self.now, node, what);
            }
            if owed > 0 {
                self.oracle.accuse(self.now, 0, format!("liveness: {owed} payloads were never executed"));
            }
        }
        Report {
            seed: self.scenario.seed,
            violations: self.oracle.violations().to_vec(),
            hash: fold(self.hash, self.oracle.height()),
            steps: self.steps,
            blocks: self.oracle.height(),
            loaded_blocks: self.oracle.loaded(),
            epochs: self.oracle.epochs(),
            payloads: self.oracle.payloads_executed(),
            evidence: self.evidence,
            reported: self.oracle.reported(),
            turnover: self.oracle.turnover().clone(),
            activations: u64::from(self.oracle.last_version() - self.scenario.schedule.first().version().0),
            virtual_milliseconds: self.now,
            recovery_milliseconds: self.now - healed_at,
            faults: self.faults,
        }
    }

    /// V7: an honest validator that knows of a contradiction which the chain has not been told.
    fn untold(&self) -> Option<(usize, String)> {
        let knowing = |(index, node): (usize, &Node)| {
            let driver = node.driver.as_ref().filter(|_| node.adversary.is_none() && node.is_validator())?;
            let now = driver.core().config().epoch;
            let tells = driver.core().config().protocol >= Protocol::V2;
            let (key, epoch) = driver
                .evidence()
                .find(|(key, _)| tells && !node.disk.with(|store| store.ledger.is_reported(*key, now)))?;
            Some((index, format!("liveness: the contradiction of {key:?} in epoch {epoch} was never reported")))
        };
        self.nodes.iter().enumerate().find_map(knowing)
    }

    pub(crate) fn schedule(&mut self, delay: u64, happening: Happening) {
        self.schedule_at(self.now + delay, happening);
    }

    fn schedule_at(&mut self, time: u64, happening: Happening) {
        self.queue.push(time, happening);
    }

    pub(crate) fn note(&mut self, code: u64, node: usize, detail: u64) {
        for number in [self.now, code, node as u64, detail] {
            self.hash = fold(self.hash, number);
        }
    }

    pub(crate) fn say(&self, node: usize, what: impl FnOnce() -> String) {
        if self.trace == Trace::Print {
            println!("{:>7} {node} {}", self.now, what());
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.oracle.violations().is_empty()
            && let Some((time, happening)) = self.queue.pop(end)
        {
            self.now = time;
            self.happen(happening);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Frame { from, to, frame } => self.deliver(from, to, &frame),
            Happening::Wake { node, incarnation } => {
                let sleeper = &mut self.nodes[node];
                if sleeper.incarnation == incarnation && sleeper.wake == Some(self.now) {
                    sleeper.wake = None;
                    self.note(2, node, 0);
                    self.give(node, Input::Tick);
                }
            }
            Happening::Release { node } => {
                if self.nodes[node].busy == Some(self.now) {
                    self.nodes[node].busy = None;
                    self.nodes[node].disk.synced();
                    let output = std::mem::take(&mut self.nodes[node].pending);
                    self.release(node, output);
                    self.turn(node);
                }
            }
            Happening::Verified { node, incarnation, batch } => {
                // What the shipped verifier checks: the origin's signature and the transactions.
                if self.nodes[node].incarnation == incarnation {
                    let valid = self.oracle.accepts(&batch);
                    self.give(node, Input::BatchVerified(batch, valid));
                }
            }
            Happening::Restart { node } => self.start(node),
            Happening::PowerLoss { node } => self.crash(node),
            Happening::Kill { node } => self.kill(node),
            Happening::Upgrade { node } => self.upgrade(node),
            Happening::Reconnect => self.network.reconnect(),
            Happening::Deafen { node } => self.deafen(node),
            Happening::OldVolume { node } if self.copied == Some(node) && !self.healed => self.old_volume(node),
            Happening::OldVolume { .. } => {}
            Happening::Trouble => self.trouble(),
            Happening::Payload => self.inject(),
            Happening::Order => self.order(),
            Happening::Mischief { node } => {
                if self.nodes[node].adversary.as_ref().is_some_and(|adversary| adversary.forgets(&mut self.random)) {
                    self.faults.count(Fault::Amnesia);
                    self.nodes[node].forget_everything();
                    self.schedule(10, Happening::Restart { node });
                }
                if let Some(adversary) = &mut self.nodes[node].adversary {
                    let sends = adversary.act(&mut self.random, &mut self.faults);
                    self.transmit(node, sends);
                    let delay = self.random.between(50, 500);
                    self.schedule(delay, Happening::Mischief { node });
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, frame: &Bytes) {
        if !self.nodes[to].is_up() {
            return;
        }
        self.note(1, to, fold_bytes(from as u64, frame));
        let Ok(mut message) = PeerMessage::decode(frame.clone()) else { return };
        self.say(to, || format!("<- {from} {message:?}"));
        if let Some(adversary) = &mut self.nodes[to].adversary {
            let sends = adversary.hear(&mut self.random, &mut self.faults, frame, &message);
            message = adversary.hears(message);
            self.transmit(to, sends);
        }
        self.give(to, Input::Message(from as u16, message));
    }

    pub(crate) fn give(&mut self, node: usize, input: Input) {
        self.nodes[node].inbox.push(input);
        self.turn(node);
    }

    /// Lets a node handle what waits for it, unless it is busy.
    fn turn(&mut self, node: usize) {
        if self.nodes[node].busy.is_some() || self.nodes[node].inbox.is_empty() {
            return;
        }
        if let Some(result) = self.nodes[node].turn(self.now) {
            self.steps += 1;
            if self.steps == STEPS_MAX {
                self.oracle.accuse(self.now, node, format!("liveness: {STEPS_MAX} turns without an end"));
            }
            self.after_turn(node, result);
        }
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].is_up() {
            return;
        }
        let (height, digest, executed) = self.nodes[node].disk.with(crate::store::Store::tip);
        self.note(3, node, height.0);
        self.say(node, || format!("starts at {height}, executed {executed}"));
        if self.nodes[node].adversary.is_none() {
            self.oracle.restarted(self.now, node, (height.0, digest), executed.0);
            if let Some(vote) = self.nodes[node].unfounded_vote() {
                self.oracle.accuse(self.now, node, format!("V2: recorded {vote:?} and lost what it rests on"));
            }
        }
        if self.behind.take_if(|behind| *behind == node).is_some() && self.random.chance(700) {
            let delay = self.random.between(0, 700);
            if delay.is_multiple_of(2) {
                self.schedule(delay, Happening::Deafen { node });
            } else {
                self.deafens = Some(node);
            }
        }
        let result = self.nodes[node].start(self.now);
        self.after_turn(node, result);
    }

    fn after_turn(&mut self, node: usize, result: Result<Output, Halt>) {
        let honest = self.nodes[node].adversary.is_none();
        let seen = self.nodes[node].disk.take_seen();
        let named = self.nodes[node].disk.take_named();
        if honest {
            self.oracle.committed(self.now, node, &seen);
            for (epoch, members) in named {
                self.oracle.named(self.now, node, epoch, &members);
            }
            if seen.iter().any(|change| matches!(change, Change::Execute(..))) {
                self.nodes[node].disk.with(|store| self.oracle.holds(self.now, node, &store.ledger));
                self.orders();
            }
            if let Some(driver) = &self.nodes[node].driver {
                let config = driver.core().config();
                self.oracle.runs(self.now, node, config.epoch, config.protocol.version());
                if self.deafens == Some(node) && driver.signing() == Signing::Allowed {
                    self.deafen(node);
                }
            }
            if seen.iter().any(|change| matches!(change, Change::Forget(_))) {
                self.note_held(node);
            }
        }
        let syncs = self.nodes[node].disk.take_syncs();
        if honest {
            self.check_bounds(node);
        }
        match result {
            Ok(output) => {
                let slow = self.now < self.nodes[node].slow_until;
                let longest = if slow { self.nodes[node].slow_milliseconds } else { 2 };
                let delay: u64 = (0..syncs).map(|_| self.random.between(0, longest)).sum();
                if delay == 0 {
                    // Without a sync of its own, a turn may rest on what a killed process has left unsynced.
                    if syncs > 0 {
                        self.nodes[node].disk.synced();
                    }
                    self.release(node, output);
                } else {
                    self.nodes[node].pending = output;
                    self.busy_until(node, self.now + delay);
                }
            }
            Err(Halt::Disk(DiskError::Failed(_))) => {
                // What was in flight when a write failed is there or not, as after a crash (S2).
                self.faults.count(match self.nodes[node].disk.take_failure() {
                    Some(Failure::Write) => Fault::WriteError,
                    Some(Failure::Read) => Fault::ReadError,
                    Some(Failure::Power) | None => Fault::CrashInCommit,
                });
                self.lose_power(node);
            }
            Err(Halt::SignedElsewhere(..)) if self.nodes[node].disk.put_back() => {
                // S5 at work: peers have seen what the old copy does not know. Its own volume comes back.
                self.nodes[node].stop();
                // What it finalised and what clients gave it meanwhile is on the copy that was thrown away.
                self.oracle.starts_over(node);
                self.note_held(node);
                self.schedule(500, Happening::Restart { node });
            }
            Err(Halt::UpgradeRequired { epoch, needed, supported }) if honest => {
                // P3 at work: it waits for its upgrade. What it was given last may never leave its disk.
                self.faults.count(Fault::OldBinary);
                self.note(9, node, epoch.0);
                self.say(node, || format!("stops: epoch {epoch} needs {needed}, knows {supported}"));
                if supported >= needed || supported != self.nodes[node].supported().version() {
                    self.oracle.accuse(self.now, node, format!("stopped at version {needed} and knows {supported}"));
                }
                self.oracle.runs(self.now, node, epoch, needed);
                self.nodes[node].stop();
                self.note_held(node);
            }
            Err(halt) if honest => {
                self.oracle.accuse(self.now, node, format!("an honest node stopped: {halt}"));
                self.nodes[node].stop();
            }
            // Its own lies caught up with it; the mischief goes on without a driver.
            Err(_) => self.nodes[node].stop(),
        }
    }

    pub(crate) fn busy_until(&mut self, node: usize, time: u64) {
        let until = self.nodes[node].busy.map_or(time, |busy| busy.max(time));
        self.nodes[node].busy = Some(until);
        self.schedule_at(until, Happening::Release { node });
    }

    /// Lets out what a turn decided, now that it is durable.
    fn release(&mut self, node: usize, output: Output) {
        let Output { sends, verify, wake, evidence, blamed } = output;
        if self.nodes[node].adversary.is_none() {
            self.oracle.promised(node);
            for (_, message) in &sends {
                self.oracle.sent(self.now, node, message);
                self.check_bodies(node, message);
            }
            for (first, second) in &evidence {
                self.evidence += 1;
                self.may_report(*first, *second);
                self.oracle.evidence(self.now, node, first, second);
            }
            for culprit in blamed.into_iter().map(usize::from) {
                if self.nodes[culprit].adversary.is_none() {
                    self.oracle.accuse(self.now, node, format!("blames honest node {culprit} for what is invalid"));
                }
            }
        }
        let mut frames = match &mut self.nodes[node].adversary {
            Some(adversary) => adversary.twist(&mut self.random, &mut self.faults, sends),
            None => self.frames(node, &sends),
        };
        if self.nodes[node].dies_sending && frames.len() > 1 {
            frames.truncate(self.random.index(frames.len()));
            self.transmit(node, frames);
            self.faults.count(Fault::CrashInSend);
            return self.crash(node);
        }
        self.transmit(node, frames);
        let incarnation = self.nodes[node].incarnation;
        for batch in verify {
            let delay = self.random.between(0, 5);
            self.schedule(delay, Happening::Verified { node, incarnation, batch });
        }
        if let Some(wake) = wake {
            let at = self.nodes[node].moment(wake.0).max(self.now + 1);
            if self.nodes[node].wake.replace(at) != Some(at) {
                self.schedule_at(at, Happening::Wake { node, incarnation });
            }
        }
    }

    /// R4: nobody can make a node keep votes of views without end.
    fn check_bounds(&mut self, node: usize) {
        let Some(core) = self.nodes[node].driver.as_ref().map(Driver::core) else { return };
        let (view, kept) = (core.view().0, core.highest_view_kept().0);
        if kept > view + FUTURE_VIEWS_KEPT {
            self.oracle.accuse(self.now, node, format!("R4: keeps votes of view {kept} in view {view}"));
        }
    }

    /// D2: who votes for a block has all its bodies on disk, synced.
    fn check_bodies(&mut self, node: usize, message: &PeerMessage) {
        let PeerMessage::Consensus(Message::Vote(signed)) = message else { return };
        let Some(driver) = &self.nodes[node].driver else { return };
        if !matches!(signed.vote.kind, VoteKind::Notarize | VoteKind::Finalize) {
            return;
        }
        let block = driver.core().block(signed.vote.digest);
        if let Some(digest) = block.and_then(|block| self.nodes[node].disk.lacks(block)) {
            self.oracle.accuse(self.now, node, format!("voted {:?} without {digest:?} on disk", signed.vote));
        }
    }

    fn frames(&self, node: usize, sends: &[(Destination, PeerMessage)]) -> Sends {
        let mut frames = Sends::new();
        for (to, message) in sends {
            self.say(node, || format!("-> {to:?} {message:?}"));
            let frame = message.encode();
            match to {
                Destination::All => {
                    let others = (0..self.nodes.len()).filter(|other| *other != node);
                    frames.extend(others.map(|other| (other, frame.clone())));
                }
                Destination::One(to) => frames.push((usize::from(*to), frame)),
            }
        }
        frames
    }

    fn transmit(&mut self, from: usize, sends: Sends) {
        for (to, frame) in sends {
            if to >= self.nodes.len() || to == from {
                continue;
            }
            let arrivals = self.network.route(&mut self.random, &mut self.faults, self.now, from, to);
            for arrival in arrivals.into_iter().flatten() {
                self.schedule_at(arrival, Happening::Frame { from, to, frame: frame.clone() });
            }
        }
    }
}
