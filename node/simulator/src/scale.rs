//! Finality and bytes by network size, with the real messages, the real codec and a fixed matrix of delays. Nodes compute
//! and sync in no time: what is shown is the protocol's share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Change, Destination, Halt, Input, Output};
use bizra_simplex::types::{Digest, Millis};
use bizra_simplex::{Block, Message, Timing};
use bytes::Bytes;

use crate::oracle::{VALID_PAYLOAD, batch_digest};
use crate::rig::{GENESIS_HASH, Participant, Rig};

/// Round trips in milliseconds between Washington DC, Frankfurt, Tokyo, Sydney and São Paulo: monthly averages that IBM
/// Cloud published for its regions, 28 September to 27 October 2024 (ibm-cloud-docs/vpc, network-latency.md), rounded up
/// to even numbers. Within a region 2 ms (its zones: 1.5 to 2.4 ms).
const ROUND_TRIPS: [[u64; 5]; 5] = [
    [2, 92, 170, 214, 120],
    [92, 2, 232, 250, 198],
    [170, 232, 2, 116, 288],
    [214, 250, 116, 2, 328],
    [120, 198, 288, 328, 2],
];

/// One more delay in each direction of a slow region, in milliseconds.
const SLOW_MILLISECONDS: u64 = 300;

/// The region that is slow: Tokyo.
const SLOW_REGION: usize = 2;

/// A batch: 100 transfers of 256 bytes.
const BATCH_BYTES: usize = 25_600;

/// Time between two batches, each of the next validator in turn, in milliseconds.
const BATCH_INTERVAL: u64 = 50;

/// Virtual time after which a run is given up, in milliseconds.
const LONGEST: u64 = 600_000;

/// Where nodes stand and what ails them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Every message takes so many milliseconds.
    Equal(u64),
    /// Five regions, all well.
    Regions,
    /// Five regions, and as many validators down as may fail.
    Down,
    /// Five regions, one of them far slower than usual.
    SlowRegion,
}

impl Case {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal(_) => "equal",
            Self::Regions => "regions",
            Self::Down => "f down",
            Self::SlowRegion => "slow region",
        }
    }

    fn delay(self, from: usize, to: usize) -> u64 {
        let (from, to) = (from % 5, to % 5);
        let usual = ROUND_TRIPS[from][to] / 2;
        match self {
            Self::Equal(delay) => delay,
            Self::SlowRegion if from != to && (from == SLOW_REGION || to == SLOW_REGION) => usual + SLOW_MILLISECONDS,
            Self::Regions | Self::Down | Self::SlowRegion => usual,
        }
    }
}

/// What came of one size and case. Times in virtual milliseconds.
#[derive(Clone, Debug)]
pub struct Row {
    /// Validators.
    pub validators: usize,
    /// The case.
    pub case: Case,
    /// Blocks that every running validator finalised.
    pub blocks: u64,
    /// From the first sending of a proposal to finality, for every block and validator, ascending.
    pub finality: Vec<u64>,
    /// From a batch at its origin to the first proposal that names it, ascending: dissemination and waiting for a leader.
    pub dissemination: Vec<u64>,
    /// Mean delay between two different running validators.
    pub mean_delay: f64,
    /// Bytes that a validator sends a block, batches left out.
    pub consensus_bytes: u64,
    /// Bytes that a validator sends a block in batches.
    pub batch_bytes: u64,
}

impl Row {
    /// A percentile of ascending numbers; 0 of none.
    pub fn percentile(numbers: &[u64], percent: usize) -> u64 {
        numbers.get((numbers.len() * percent / 100).min(numbers.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

enum Happening {
    Frame(usize, Rc<PeerMessage>),
    Wake,
    Client(Bytes),
}

pub(crate) struct Field {
    case: Case,
    pub(crate) now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, usize, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    nodes: Vec<Option<Participant>>,
    wakes: Vec<u64>,
    proposed: BTreeMap<Digest, u64>,
    born: BTreeMap<Digest, u64>,
    heights: Vec<u64>,
    row: Row,
    /// Running validators, which clients send batches to in turn.
    clients_of: Vec<usize>,
    batches: u64,
    next_batch: u64,
    /// When each batch came into the world.
    pub(crate) births: BTreeMap<Digest, u64>,
    /// What the first running validator finalised, and when.
    pub(crate) finals: Vec<(Block, u64)>,
}

/// Bytes of a message on a connection: its encoding in a protobuf field in a gRPC message in an HTTP/2 frame.
fn wire_bytes(message: &PeerMessage) -> u64 {
    let length = message.encode().len() as u64;
    let varint = u64::from(64 - length.leading_zeros()).div_ceil(7).max(1);
    length + 1 + varint + 5 + 9
}

impl Field {
    /// These validators run, from time 0.
    pub(crate) fn new(rig: &Rig, validators: usize, case: Case, running: Vec<usize>) -> Result<Self, Halt> {
        let mut field = Self {
            case,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            nodes: (0..validators).map(|_| None).collect(),
            wakes: vec![0; validators],
            proposed: BTreeMap::new(),
            born: BTreeMap::new(),
            heights: vec![0; validators],
            row: Row {
                validators,
                case,
                blocks: 0,
                finality: Vec::new(),
                dissemination: Vec::new(),
                mean_delay: 0.0,
                consensus_bytes: 0,
                batch_bytes: 0,
            },
            clients_of: running,
            batches: 0,
            next_batch: BATCH_INTERVAL,
            births: BTreeMap::new(),
            finals: Vec::new(),
        };
        let mut outputs = Vec::new();
        for node in field.clients_of.clone() {
            let (participant, output) = rig.boot(node, 0)?;
            field.nodes[node] = Some(participant);
            outputs.push((node, output));
        }
        for (node, output) in outputs {
            field.after_turn(node, output);
        }
        Ok(field)
    }

    /// One more validator starts now, on an empty disk. Clients do not know of it.
    pub(crate) fn boot(&mut self, rig: &Rig, node: usize) -> Result<(), Halt> {
        let (participant, output) = rig.boot_at(node, Millis(self.now), 0)?;
        self.nodes[node] = Some(participant);
        self.after_turn(node, output);
        Ok(())
    }

    /// The next turn of any validator. False once nothing happens any more, or for too long.
    pub(crate) fn step(&mut self) -> bool {
        if self.now >= LONGEST || !self.advance() {
            return false;
        }
        if self.now >= self.next_batch {
            let node = self.clients_of[self.batches as usize % self.clients_of.len()];
            self.batches += 1;
            self.next_batch = self.now + BATCH_INTERVAL;
            let mut payload = vec![VALID_PAYLOAD; BATCH_BYTES];
            payload[1..9].copy_from_slice(&self.batches.to_be_bytes());
            let at = self.now + 1;
            self.push(at, node, Happening::Client(payload.into()));
        }
        true
    }

    fn push(&mut self, time: u64, node: usize, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert(self.sequence, happening);
        self.queue.push(Reverse((time, node, self.sequence)));
    }

    fn after_turn(&mut self, node: usize, output: Output) {
        for change in self.nodes[node].as_ref().map(Participant::take_seen).unwrap_or_default() {
            if let Change::Finalize(blocks, _) = change {
                for block in blocks {
                    self.heights[node] = block.height.0;
                    if self.clients_of.first() == Some(&node) {
                        self.finals.push((block.clone(), self.now));
                    }
                    if let Some(proposed) = self.proposed.get(&block.digest()) {
                        self.row.finality.push(self.now - proposed);
                    }
                }
            }
        }
        for batch in output.verify {
            let input = Input::BatchVerified(batch, true);
            self.turn(node, vec![input]);
        }
        for (destination, message) in output.sends {
            let to: Vec<usize> = match destination {
                Destination::All => (0..self.nodes.len()).filter(|to| *to != node).collect(),
                Destination::One(to) => vec![usize::from(to)],
            };
            match &message {
                PeerMessage::Consensus(Message::Proposal(proposal)) => {
                    self.proposed.entry(proposal.block.digest()).or_insert(self.now);
                    for batch in &proposal.block.batches {
                        if let Some(born) = self.born.remove(batch) {
                            self.row.dissemination.push(self.now - born);
                        }
                    }
                }
                PeerMessage::Batch(batch) if usize::from(batch.origin.0) == node => {
                    let digest = batch_digest(GENESIS_HASH, batch);
                    self.born.entry(digest).or_insert(self.now);
                    self.births.entry(digest).or_insert(self.now);
                }
                _ => {}
            }
            let running: Vec<usize> = to.into_iter().filter(|to| self.nodes[*to].is_some()).collect();
            let bytes = wire_bytes(&message) * running.len() as u64;
            match message {
                PeerMessage::Batch(_) => self.row.batch_bytes += bytes,
                _ => self.row.consensus_bytes += bytes,
            }
            let message = Rc::new(message);
            for to in running {
                let at = self.now + self.case.delay(node, to);
                self.push(at, to, Happening::Frame(node, Rc::clone(&message)));
            }
        }
        if let Some(wake) = output.wake {
            let at = wake.0.max(self.now + 1);
            if self.wakes[node] <= self.now || at < self.wakes[node] {
                self.wakes[node] = at;
                self.push(at, node, Happening::Wake);
            }
        }
    }

    fn turn(&mut self, node: usize, inputs: Vec<Input>) {
        let now = self.now;
        if let Some(Ok(output)) = self.nodes[node].as_mut().map(|participant| participant.turn(now, inputs)) {
            self.after_turn(node, output);
        }
    }

    /// Everything that reaches one node in one millisecond is one turn.
    fn advance(&mut self) -> bool {
        let Some(Reverse((time, node, _))) = self.queue.peek().copied() else { return false };
        self.now = time;
        let mut inputs = Vec::new();
        while let Some(Reverse((at, to, sequence))) = self.queue.peek().copied()
            && (at, to) == (time, node)
        {
            self.queue.pop();
            match self.happenings.remove(&sequence) {
                Some(Happening::Frame(from, message)) => inputs.push(Input::Message(from as u16, (*message).clone())),
                Some(Happening::Wake) if !inputs.contains(&Input::Tick) => inputs.push(Input::Tick),
                Some(Happening::Client(payload)) => inputs.push(Input::Payload(payload)),
                Some(Happening::Wake) | None => {}
            }
        }
        self.turn(node, inputs);
        true
    }
}

/// Runs `validators` until each has finalised `blocks`.
///
/// # Errors
/// If a driver does not start.
pub fn run(validators: usize, case: Case, blocks: u64) -> Result<Row, Halt> {
    let rig = Rig::new(validators, Timing::default())?;
    let down = if case == Case::Down { (validators - 1) / 3 } else { 0 };
    // Spread over the regions and the rotation.
    let is_down = |node: usize| down > 0 && node % 3 == 1 && node / 3 < down;
    let running: Vec<usize> = (0..validators).filter(|node| !is_down(*node)).collect();
    let pairs =
        running.iter().flat_map(|from| running.iter().map(move |to| (*from, *to))).filter(|(from, to)| from != to);
    let delays: Vec<u64> = pairs.map(|(from, to)| case.delay(from, to)).collect();
    let mean_delay = delays.iter().sum::<u64>() as f64 / delays.len().max(1) as f64;
    let mut field = Field::new(&rig, validators, case, running.clone())?;
    let least = |field: &Field| running.iter().map(|node| field.heights[*node]).min().unwrap_or_default();
    while least(&field) < blocks && field.step() {}
    let mut row = field.row;
    row.mean_delay = mean_delay;
    row.blocks = running.iter().map(|node| field.heights[*node]).min().unwrap_or_default();
    let share = (running.len() as u64 * row.blocks).max(1);
    row.consensus_bytes /= share;
    row.batch_bytes /= share;
    row.finality.sort_unstable();
    row.dissemination.sort_unstable();
    Ok(row)
}
