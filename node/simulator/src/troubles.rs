//! What chance does to the nodes and links: crashes, slow disks, pauses, partitions; and what clients do.

use std::collections::BTreeSet;

use bizra_driver::Input;
use bizra_simplex::Protocol;
use bizra_simplex::types::Epoch;

use crate::accounts::{CLIENTS, transfer};
use crate::disk::Failure;
use crate::faults::Fault;
use crate::ledger::PAYLOAD_HEADER;
use crate::node::Node;
use crate::oracle::VALID_PAYLOAD;
use crate::queue::Happening;
use crate::scenario::Trouble;
use crate::schedule::key_of;
use crate::world::World;

impl World {
    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].is_up() {
            self.lose_power(node);
        }
    }

    /// The same while the node starts, when there is no process yet.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.note(4, node, 0);
        self.say(node, || "loses power".into());
        self.nodes[node].stop();
        self.nodes[node].disk.crash(&mut self.random, &mut self.faults);
        if self.random.chance(100) && self.nodes[node].disk.rot(&mut self.random) {
            self.faults.count(Fault::RottenSigningBlock);
        }
        self.note_held(node);
        self.restart_later(node);
    }

    /// The process ends, the machine goes on; half of the time that loses power soon after.
    pub(crate) fn kill(&mut self, node: usize) {
        if self.healed || !self.nodes[node].is_up() {
            return;
        }
        self.say(node, || "is killed".into());
        self.faults.count(Fault::Kill);
        self.nodes[node].stop();
        self.note_held(node);
        let delay = self.random.between(1, 40);
        self.schedule(delay, Happening::Restart { node });
        if self.random.chance(500) {
            let delay = self.random.between(1, 200);
            self.schedule(delay, Happening::PowerLoss { node });
        }
    }

    fn restart_later(&mut self, node: usize) {
        // Now and then long enough to miss more than one range of blocks.
        let longest = self.random.pick(&[300, 3_000, 6_000, 60_000]);
        let down = self.random.between(10, longest);
        self.schedule(down, Happening::Restart { node });
    }

    /// A new binary is installed: the process stops after its turn and starts anew.
    pub(crate) fn upgrade(&mut self, node: usize) {
        if self.nodes[node].supported() == Protocol::LATEST {
            return;
        }
        self.say(node, || "is upgraded".into());
        self.nodes[node].install(Protocol::LATEST);
        if self.nodes[node].is_up() {
            self.crash(node);
        } else {
            self.start(node);
        }
    }

    /// Tells the oracle which payloads of its own a node still holds: only those are owed.
    pub(crate) fn note_held(&mut self, node: usize) {
        let schedule = &self.scenario.schedule;
        let holds: BTreeSet<Vec<u8>> = self.nodes[node].disk.with(|store| {
            let own = store.batches.values().filter(|batch| schedule.node(batch.epoch, batch.origin.0) == Some(node));
            own.map(|batch| batch.payload.to_vec()).collect()
        });
        self.oracle.survived(node, &holds);
    }

    pub(crate) fn trouble(&mut self) {
        if self.healed {
            return;
        }
        let trouble = self.random.pick(&self.scenario.troubles);
        let node = self.random.index(self.nodes.len());
        let longest = self.random.pick(&[1_000, 4_000, 12_000]);
        let long = self.random.between(100, longest);
        self.note(5, node, trouble as u64);
        self.say(node, || format!("{trouble:?} {long}"));
        match trouble {
            Trouble::Crash => {
                self.faults.count(Fault::Crash);
                self.crash(node);
            }
            Trouble::CrashInCommit => self.nodes[node].disk.fail(Failure::Power, self.random.below(8)),
            Trouble::WriteError => self.nodes[node].disk.fail(Failure::Write, self.random.below(8)),
            Trouble::ReadError => self.nodes[node].disk.fail(Failure::Read, self.random.below(8)),
            Trouble::CrashInSend => self.nodes[node].dies_sending = self.nodes[node].is_up(),
            // Half of the time on a slow disk, most likely between a write and the end of its sync: the next process then
            // reads what may not last.
            Trouble::Kill if self.nodes[node].is_up() && self.random.chance(500) => self.kill(node),
            Trouble::Kill if self.nodes[node].is_up() => {
                self.nodes[node].slow_until = self.now + 4_000;
                self.nodes[node].slow_milliseconds = self.random.between(100, 800);
                let delay = self.random.between(100, 2_000);
                self.schedule(delay, Happening::Kill { node });
            }
            Trouble::ClockStep => {
                self.faults.count(Fault::ClockStep);
                self.nodes[node].clocks.skew = self.random.between(0, 600_000).cast_signed() - 300_000;
            }
            Trouble::CrashOfAll => {
                self.faults.count(Fault::CrashOfAll);
                // Half of the time inside their commits: signing records may be ahead of databases everywhere.
                let in_commit = self.random.chance(500);
                for node in 0..self.nodes.len() {
                    if in_commit {
                        self.nodes[node].disk.fail(Failure::Power, self.random.below(3));
                    } else {
                        self.crash(node);
                    }
                }
            }
            Trouble::SlowDisk => {
                self.faults.count(Fault::SlowDisk);
                self.nodes[node].slow_until = self.now + long;
                self.nodes[node].slow_milliseconds = self.random.between(20, 800);
            }
            Trouble::Pause if self.nodes[node].is_up() => {
                self.faults.count(Fault::Pause);
                self.busy_until(node, self.now + long / 2);
            }
            Trouble::Partition => {
                self.faults.count(Fault::Partition);
                let part = self.random.between(1, (1 << self.nodes.len()) - 2);
                self.network.split(part);
                self.schedule(long, Happening::Reconnect);
            }
            Trouble::OneWayPartition => {
                self.faults.count(Fault::OneWayPartition);
                let deaf = self.random.chance(500);
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    let (from, to) = if deaf { (other, node) } else { (node, other) };
                    self.network.block(from, to);
                }
                self.schedule(long, Happening::Reconnect);
            }
            Trouble::LoseDatabase if self.healthy() => {
                self.faults.count(Fault::DatabaseLost);
                self.crash(node);
                self.nodes[node].lose_database();
                self.starts_over(node);
            }
            Trouble::OldVolume if self.healthy() => self.old_volume(node),
            Trouble::Kill | Trouble::Pause | Trouble::LoseDatabase | Trouble::OldVolume => {}
            Trouble::Reconnect => self.network.reconnect(),
        }
        let delay = self.random.between(1, 2 * self.scenario.trouble_interval);
        self.schedule(delay, Happening::Trouble);
    }

    /// A node that has just started with old knowledge soon hears nothing for a while: it acts on what it knows.
    pub(crate) fn deafen(&mut self, node: usize) {
        if self.healed {
            return;
        }
        self.deafens = None;
        self.faults.count(Fault::OneWayPartition);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.network.block(other, node);
        }
        let long = self.random.between(2_500, 9_000);
        self.schedule(long, Happening::Reconnect);
    }

    /// The first time a copy is made, the second time it is used.
    pub(crate) fn old_volume(&mut self, node: usize) {
        let Some(copied) = self.copied else {
            if self.nodes[node].adversary.is_none() {
                let height = self.nodes[node].disk.copy();
                self.copied = Some(node);
                self.note(8, node, height.0);
                let delay = self.random.between(100, 4_000);
                self.schedule(delay, Happening::OldVolume { node });
            }
            return;
        };
        if self.healthy() && self.is_witnessed(copied) {
            self.copied = None;
            self.faults.count(Fault::OldVolume);
            self.crash(copied);
            self.nodes[copied].disk.use_copy();
            self.starts_over(copied);
        }
    }

    /// S5 finds an old copy out if no quorum goes without an honest validator that keeps a later vote of the key than the
    /// copy's record knows. Of votes that fewer have seen it promises nothing.
    fn is_witnessed(&self, node: usize) -> bool {
        let Some(copied) = self.nodes[node].copied_until() else { return false };
        let knows = |other: usize| {
            let kept = self.nodes[other].disk.with_durable(|store| store.highest_vote(key_of(node)));
            other != node && self.nodes[other].adversary.is_none() && kept > Some(copied)
        };
        (copied.0.0..=self.oracle.epochs() + 1).map(Epoch).all(|epoch| {
            let members = self.scenario.schedule.of(epoch);
            let without: u64 = members.iter().filter(|(other, _)| !knows(*other)).map(|(_, power)| power).sum();
            3 * without <= 2 * members.iter().map(|(_, power)| power).sum::<u64>()
        })
    }

    /// G4: a database is rebuilt only while all others are in sync.
    fn healthy(&self) -> bool {
        let tips: Vec<u64> = (0..self.nodes.len()).map(|node| self.oracle.tip(node)).collect();
        let newest = tips.iter().max().copied().unwrap_or_default();
        let is_well = |(node, tip): (&Node, &u64)| node.is_up() && !node.disk.is_old() && tip + 4 >= newest;
        self.nodes.iter().zip(&tips).filter(|(node, _)| node.adversary.is_none()).all(is_well)
    }

    /// What a node had promised is on another volume than the one it starts from.
    fn starts_over(&mut self, node: usize) {
        self.oracle.starts_over(node);
        self.behind = Some(node);
        self.note_held(node);
    }

    /// Clients: some time busy, some time not; one last payload a node after the end of faults.
    pub(crate) fn inject(&mut self) {
        if self.healed {
            return;
        }
        if self.random.chance(10) {
            self.clients_busy = !self.clients_busy;
        }
        if self.clients_busy {
            let node = self.random.index(self.nodes.len());
            let transfer = self.transfer();
            self.inject_at(node, &transfer);
        }
        let delay = self.random.between(1, 2 * self.scenario.payload_interval);
        self.schedule(delay, Happening::Payload);
    }

    /// A transaction for every third payload: most blocks move money, and few bytes are hashed.
    fn transfer(&self) -> Vec<u8> {
        if !self.payloads.is_multiple_of(3) {
            return Vec::new();
        }
        let client = CLIENTS.start + (self.payloads / 3) as usize % CLIENTS.len();
        let other = CLIENTS.start + (self.payloads / 24) as usize % CLIENTS.len();
        let ledger = self.oracle.ledger();
        transfer(client, other, ledger.account(client).nonce, ledger.height() + 100, self.payloads % 7)
    }

    /// A client hands a payload to a node, with this transaction or none.
    pub(crate) fn inject_at(&mut self, node: usize, transaction: &[u8]) {
        if !self.nodes[node].is_validator() {
            return;
        }
        self.payloads += 1;
        let mut payload = vec![VALID_PAYLOAD];
        payload.extend(self.payloads.to_be_bytes());
        if transaction.is_empty() {
            payload.resize(PAYLOAD_HEADER + self.random.index(60), 0);
        } else {
            payload.extend(transaction);
        }
        self.note(6, node, self.payloads);
        self.say(node, || format!("gets payload {}", self.payloads));
        if self.nodes[node].adversary.is_none() {
            self.oracle.injected(payload.clone(), node);
        }
        self.give(node, Input::Payload(payload.into()));
    }

    /// Faults end: all nodes up, all links calm.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.say(0, || "faults end".into());
        self.network.reconnect();
        self.network.weather = self.scenario.calm;
        for node in 0..self.nodes.len() {
            self.nodes[node].slow_until = 0;
            self.nodes[node].dies_sending = false;
            self.nodes[node].disk.disarm();
            self.nodes[node].install(Protocol::LATEST);
            self.start(node);
        }
        for node in 0..self.nodes.len() {
            self.inject_at(node, &[]);
        }
    }
}
