//! Restarts at random moments (E6): four drivers on disks in memory and a network that delays and loses, two of them gone from
//! one moment to the next, a restart chosen from what the other two hold, and later the lost ones back, with copies of the
//! survivors that know nothing of the restart. And two ways of doing it wrong, which these runs must notice.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bizra_driver::signing_record::{BLOCK_BYTES, Binding, BlockWrite, SigningRecord};
use bizra_driver::wire::PeerMessage;
use bizra_driver::{
    Batch, Change, Destination, Disk, DiskError, Driver, Fence, Input, Keys, Member, Output, PublicKey, RESTART_EPOCHS,
    Recovered, Restart, Restarts, Settings,
};
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, Signature, View};
use bizra_simplex::{
    Anchor, Block, Certificate, Checkpoint, Protocol, Record, Reputation, SignedVote, Timing, Version, VoteKind,
};
use sha2::{Digest as _, Sha256};

const GENESIS: Digest = Digest([9; 32]);
const WALL: u64 = 1_700_000_000_000;
const TIMING: Timing = Timing {
    base_milliseconds: 200,
    cap_milliseconds: 800,
    min_view_milliseconds: 5,
    heartbeat_milliseconds: 40,
    resend_milliseconds: 200,
};

fn key(index: u16) -> PublicKey {
    PublicKey([index as u8; 32])
}

fn members(indices: [u16; 4]) -> Vec<Member> {
    indices.map(|index| Member { key: key(index), power: Power(1), reputation: Reputation::FULL }).to_vec()
}

/// A signature is a hash over key and message: only of exactly that message.
fn signature(key: PublicKey, message: &[u8]) -> Signature {
    let hash: [u8; 32] = Sha256::new().chain_update(key.0).chain_update(message).finalize().into();
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&hash);
    Signature(bytes)
}

struct OwnKey(u16);

impl Keys for OwnKey {
    fn public_key(&self) -> Option<PublicKey> {
        Some(key(self.0))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        signature(key(self.0), message)
    }

    fn verify(&self, checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, message, given)| signature(*signer, message) == *given)
    }
}

/// What a volume holds.
#[derive(Clone)]
struct Volume {
    blocks: Vec<Block>,
    finalizations: BTreeMap<Height, Certificate>,
    records: Vec<Record>,
    highest: BTreeMap<PublicKey, SignedVote>,
    file: Vec<Arc<[u8; BLOCK_BYTES]>>,
}

fn binding(index: u16) -> Binding {
    Binding { genesis_hash: GENESIS, volume: Digest([1; 32]), public_key: key(index).0 }
}

impl Volume {
    fn new(index: u16) -> Self {
        let file = SigningRecord::create(&binding(index)).into_iter().map(|(_, block)| block).collect();
        let (records, finalizations, highest) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { blocks: vec![Block::genesis(GENESIS, 0)], finalizations, records, highest, file }
    }

    fn record(&self, index: u16) -> SigningRecord {
        SigningRecord::open(&binding(index), &self.file).unwrap()
    }

    fn write(&mut self, blocks: Vec<BlockWrite>) {
        for (index, block) in blocks {
            self.file[index as usize] = block;
        }
    }

    fn last(&self) -> (&Block, Option<&Certificate>) {
        let last = self.blocks.last().unwrap();
        (last, self.finalizations.get(&last.height))
    }

    /// The block notarized or final in the highest view, with its certificate; `notarized` is false for the final one only.
    fn best(&self, notarized: bool) -> Option<(Block, Certificate)> {
        let (last, finalization) = self.last();
        let mut best = finalization.map(|finalization| (last.clone(), finalization.clone()));
        let blocks: BTreeMap<Digest, &Block> = self
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Block(block) => Some((block.digest(), block)),
                Record::Certificate(_) => None,
            })
            .collect();
        for record in self.records.iter().filter(|_| notarized) {
            let Record::Certificate(certificate) = record else { continue };
            let higher = best.as_ref().is_none_or(|(_, known)| certificate.view() > known.view());
            if certificate.vote.kind != VoteKind::Notarize || !higher {
                continue;
            }
            let mut at = certificate.vote.digest;
            while let Some(block) = blocks.get(&at) {
                at = block.parent;
            }
            if at == last.digest()
                && let Some(block) = blocks.get(&certificate.vote.digest)
            {
                best = Some(((*block).clone(), certificate.clone()));
            }
        }
        best
    }
}

struct MemoryDisk {
    volume: Rc<RefCell<Volume>>,
    restarts: Restarts,
}

impl Disk for MemoryDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        let volume = self.volume.borrow();
        let (last, certificate) = volume.last();
        let view = certificate.map_or(View(0), Certificate::view);
        Ok(Recovered {
            anchor: Anchor { view, digest: last.digest(), block: last.clone() },
            anchor_certificate: certificate.cloned(),
            records: volume.records.clone(),
            batches: Vec::new(),
            executed: last.height,
            highest_votes: volume.highest.iter().map(|(key, vote)| (*key, *vote)).collect(),
            evidence: Vec::new(),
        })
    }

    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, _: bool) -> Result<(), DiskError> {
        let mut volume = self.volume.borrow_mut();
        volume.write(signing);
        for change in changes {
            match change {
                Change::Record(record) => volume.records.push(record),
                Change::Finalize(blocks, certificate) => {
                    let (height, view, epoch) =
                        (blocks.last().unwrap().height, certificate.view(), certificate.vote.epoch);
                    volume.blocks.extend(blocks);
                    volume.finalizations.insert(height, certificate);
                    volume.records.retain(|record| match record {
                        Record::Block(block) => block.height > height,
                        Record::Certificate(held) => held.vote.epoch == epoch && held.view() > view,
                    });
                }
                Change::HighestVote(key, vote) => drop(volume.highest.insert(key, vote)),
                Change::Evidence(key, first, second) => panic!("{key:?} contradicts itself: {first:?} {second:?}"),
                Change::Batch(..) | Change::Execute(..) | Change::Forget(_) => {}
            }
        }
        Ok(())
    }

    fn finalized_block(&self, height: Height) -> Result<Option<Block>, DiskError> {
        Ok(self.volume.borrow().blocks.get(height.0 as usize).cloned())
    }

    fn height_of(&self, digest: Digest) -> Result<Option<Height>, DiskError> {
        let volume = self.volume.borrow();
        Ok(volume.blocks.iter().find(|block| block.digest() == digest).map(|block| block.height))
    }

    fn finalization(&self, height: Height) -> Result<Option<Certificate>, DiskError> {
        Ok(self.volume.borrow().finalizations.get(&height).cloned())
    }

    fn batch(&self, _: Digest) -> Result<Option<Batch>, DiskError> {
        Ok(None)
    }

    fn is_ordered(&self, _: Digest) -> Result<bool, DiskError> {
        Ok(false)
    }

    fn checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError> {
        Ok(Some(Checkpoint { height, state: Digest([7; 32]), receipts: Digest([8; 32]) }))
    }

    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError> {
        if epoch == Epoch(0) {
            return Ok(Some(members([0, 1, 2, 3])));
        }
        let executed = self.volume.borrow().last().0.height;
        let begun = self.restarts.beginning(epoch).filter(|restart| restart.block.height <= executed);
        Ok(begun.map(|restart| restart.validators.clone()))
    }

    fn snapshot(&self, _: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(None)
    }

    fn version(&self, _: Epoch) -> Result<Option<Version>, DiskError> {
        Ok(Some(Protocol::V1.version()))
    }

    fn is_reported(&self, _: PublicKey, _: Epoch) -> Result<bool, DiskError> {
        Ok(false)
    }
}

/// A running node, its volume, and when it wants to be woken.
type Node = (Driver<MemoryDisk, OwnKey>, Rc<RefCell<Volume>>, u64);

/// Nodes that hear each other.
struct World {
    nodes: BTreeMap<u16, Node>,
    wire: BTreeMap<(u64, u64), (u16, u16, PeerMessage)>,
    now: u64,
    sent: u64,
    random: u64,
}

impl World {
    fn start(volumes: BTreeMap<u16, Volume>, restarts: &Restarts, seed: u64) -> Self {
        let nodes: BTreeMap<PublicKey, u16> = volumes.keys().map(|index| (key(*index), *index)).collect();
        let mut world = Self { nodes: BTreeMap::new(), wire: BTreeMap::new(), now: 0, sent: 0, random: seed };
        let mut outputs = Vec::new();
        for (index, volume) in volumes {
            let record = volume.record(index);
            let volume = Rc::new(RefCell::new(volume));
            let disk = MemoryDisk { volume: Rc::clone(&volume), restarts: restarts.clone() };
            let settings = Settings {
                genesis_hash: GENESIS,
                timing: TIMING,
                epoch_blocks: None,
                supported: Protocol::V1,
                nodes: nodes.clone(),
                restarts: restarts.clone(),
                fence: Fence::Open,
            };
            let started = Driver::start(settings, disk, OwnKey(index), Some(record), Millis(0), WALL);
            let (driver, output) = started.unwrap();
            world.nodes.insert(index, (driver, volume, 0));
            outputs.push((index, output));
        }
        for (index, output) in outputs {
            world.send(index, output);
        }
        world
    }

    /// `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn send(&mut self, from: u16, output: Output) {
        if let Some((_, _, wake)) = self.nodes.get_mut(&from) {
            *wake = output.wake.map_or(u64::MAX, |wake| wake.0).max(self.now + 1);
        }
        let everybody: Vec<u16> = self.nodes.keys().copied().filter(|to| *to != from).collect();
        for (destination, message) in output.sends {
            let to = match destination {
                Destination::All => everybody.clone(),
                Destination::One(to) => vec![to],
            };
            for to in to {
                let (lost, delay) = (self.random().is_multiple_of(20), 1 + self.random() % 60);
                self.sent += 1;
                if !lost {
                    self.wire.insert((self.now + delay, self.sent), (from, to, message.clone()));
                }
            }
        }
    }

    /// One message or one tick.
    fn step(&mut self) {
        let tick = self.nodes.iter().map(|(index, (.., wake))| (*wake, *index)).min().unwrap();
        let (index, input) = match self.wire.first_key_value() {
            Some((&(at, _), _)) if at <= tick.0 => {
                let (_, (from, to, message)) = self.wire.pop_first().unwrap();
                self.now = self.now.max(at);
                (to, Input::Message(from, message))
            }
            _ => {
                self.now = self.now.max(tick.0);
                (tick.1, Input::Tick)
            }
        };
        let Some((driver, ..)) = self.nodes.get_mut(&index) else { return };
        let output = driver.turn(Millis(self.now), WALL + self.now, [input, Input::Tick]).unwrap();
        self.send(index, output);
    }

    fn run(&mut self, until: u64, mut done: impl FnMut(&Self) -> bool) {
        while self.now < until && !done(self) {
            self.step();
        }
    }

    fn chain(&self, index: u16) -> Vec<Digest> {
        self.nodes[&index].1.borrow().blocks.iter().map(Block::digest).collect()
    }

    fn volume(&self, index: u16) -> Volume {
        self.nodes[&index].1.borrow().clone()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Right,
    /// From the highest block that is provably final, whatever survivors have signed a finalize for.
    BelowFinalizeVote,
    /// Survivors could go on signing in the epoch that ended.
    FloorNotRaised,
}

struct Outcome {
    /// Everything that was final anywhere is in the new chain.
    kept: bool,
    /// Nothing else ever becomes final.
    single: bool,
    /// The new chain grows.
    alive: bool,
}

fn recover(seed: u64, way: Way) -> Option<Outcome> {
    let volumes = |indices: [u16; 4]| indices.map(|index| (index, Volume::new(index))).into();
    let mut before = World::start(volumes([0, 1, 2, 3]), &Restarts::default(), seed);
    let moment = 700 + before.random() % 1_500;
    before.run(moment, |_| false);
    let told: Vec<Vec<Digest>> = (0..4).map(|index| before.chain(index)).collect();

    let bests = [0, 1].map(|index| before.volume(index).best(way != Way::BelowFinalizeVote));
    let (block, certificate) = bests.into_iter().flatten().max_by_key(|(_, certificate)| certificate.view())?;
    let (epoch, height) = (Epoch(RESTART_EPOCHS), block.height);
    let mut restarts = Restarts::default();
    let validators = members([0, 1, 4, 5]);
    restarts.push(Restart { block, certificate, epoch, validators, domain: Digest([3; 32]) });
    let apply = |index: u16, mut volume: Volume| {
        if way != Way::FloorNotRaised {
            let writes = volume.record(index).raise_floor((epoch, View(0)));
            volume.write(writes);
        }
        (index, volume)
    };
    let survivors = [0, 1].map(|index| apply(index, before.volume(index)));
    let fresh = [4, 5].map(|index| apply(index, Volume::new(index)));
    let mut after = World::start(survivors.clone().into_iter().chain(fresh).collect(), &restarts, seed + 1);
    let goal = height.0 as usize + 4;
    let reached = |world: &World| [0, 1, 4, 5].into_iter().all(|index| world.chain(index).len() > goal);
    after.run(30_000, reached);

    // The lost ones come back, beside survivors that have lost the document.
    let lost = [2, 3].map(|index| (index, before.volume(index)));
    let mut old = World::start(survivors.into_iter().chain(lost).collect(), &Restarts::default(), seed + 2);
    old.run(6_000, |_| false);

    let chain = after.chain(0);
    let is_prefix = |other: &[Digest], end: usize| other.len() <= end && chain.starts_with(other);
    let kept = told.iter().all(|told| is_prefix(told, height.0 as usize + 1));
    let single = (0..4).all(|index| is_prefix(&old.chain(index), height.0 as usize + 1));
    Some(Outcome { kept, single, alive: reached(&after) })
}

#[test]
fn a_restart_at_any_moment_keeps_what_was_final_and_the_old_validators_finalise_nothing_more() {
    let mut restarted = 0;
    for seed in 0..200 {
        let Some(Outcome { kept, single, alive }) = recover(1_000 * seed, Way::Right) else { continue };
        restarted += 1;
        assert!(kept && single && alive, "seed {seed}: kept {kept}, single {single}, alive {alive}");
    }
    assert!(restarted > 150);
}

#[test]
fn these_runs_notice_a_restart_below_a_finalize_vote() {
    let notice = |seed: u64| recover(1_000 * seed, Way::BelowFinalizeVote).is_some_and(|outcome| !outcome.kept);
    assert!((0..40).any(notice));
}

#[test]
fn these_runs_notice_a_floor_that_was_not_raised() {
    let notice = |seed: u64| recover(1_000 * seed, Way::FloorNotRaised).is_some_and(|outcome| !outcome.single);
    assert!((0..10).any(notice));
}
