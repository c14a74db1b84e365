//! One simulated machine: a volume that outlives its process, and the process while it runs.

use std::sync::Arc;

use bizra_driver::signing_record::{Binding, Moment, RecordError, SigningRecord};
use bizra_driver::{Driver, Fence, Halt, Input, Output, Restarts, Settings};
use bizra_simplex::types::{Digest, Millis};
use bizra_simplex::{Block, Protocol, Timing, Vote};

use crate::adversary::Adversary;
use crate::disk::SimulatedDisk;
use crate::keys::{KeyBook, NodeKeys};
use crate::ledger::Ledger;
use crate::schedule::{Schedule, key_of};
use crate::store::Store;

/// Wall clock at virtual time 0, in milliseconds since 1970.
const EPOCH_START: i64 = 1_700_000_000_000;

/// Millionths of a whole.
const MILLION: i64 = 1_000_000;

/// What is wrong with a machine's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// How much the wall clock is ahead, in milliseconds.
    pub(crate) skew: i64,
    /// How much too fast all of them run, in millionths.
    pub(crate) drift: i64,
}

/// A machine.
pub(crate) struct Node {
    settings: Settings,
    binding: Binding,
    votes: bool,
    keys: NodeKeys,
    pub(crate) disk: SimulatedDisk,
    pub(crate) driver: Option<Driver<SimulatedDisk, NodeKeys>>,
    /// Counts starts: what was meant for an earlier process is not for this one.
    pub(crate) incarnation: u64,
    pub(crate) adversary: Option<Adversary>,
    /// Inputs that wait until the process has time.
    pub(crate) inbox: Vec<Input>,
    /// Until when a sync or a pause keeps the process busy; its last outputs leave then.
    pub(crate) busy: Option<u64>,
    pub(crate) pending: Output,
    pub(crate) wake: Option<u64>,
    pub(crate) slow_until: u64,
    pub(crate) slow_milliseconds: u64,
    pub(crate) clocks: Clocks,
    /// Power fails in the middle of its next sending.
    pub(crate) dies_sending: bool,
    /// Votes up to here rest on a database that was lost.
    excused: Moment,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        nodes: usize,
        schedule: &Schedule,
        book: Arc<KeyBook>,
        genesis: &Block,
        genesis_hash: Digest,
        clocks: Clocks,
    ) -> Self {
        let settings = Settings {
            genesis_hash,
            timing: Timing::default(),
            epoch_blocks: schedule.blocks(),
            supported: Protocol::LATEST,
            nodes: (0..nodes).map(|node| (key_of(node), node as u16)).collect(),
            restarts: Restarts::default(),
            fence: Fence::Open,
        };
        let votes = schedule.ever(index);
        let public_key = key_of(index).0;
        let ledger = Ledger::genesis(schedule, Arc::clone(&book), genesis_hash);
        let binding = Binding { genesis_hash, volume: Digest(public_key), public_key };
        Self {
            disk: SimulatedDisk::new(genesis.clone(), ledger, schedule.blocks(), SigningRecord::create(&binding)),
            settings,
            binding,
            votes,
            keys: NodeKeys::new(book, index, votes),
            driver: None,
            incarnation: 0,
            adversary: None,
            inbox: Vec::new(),
            busy: None,
            pending: Output::default(),
            wake: None,
            slow_until: 0,
            slow_milliseconds: 0,
            clocks,
            dies_sending: false,
            excused: Moment::default(),
        }
    }

    /// True if it runs and votes in the epoch that it is in.
    pub(crate) fn is_validator(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.core().config().me.is_some())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.driver.is_some()
    }

    /// Its own clock, in milliseconds since the start.
    fn clock(&self, now: u64) -> u64 {
        (now.cast_signed() + now.cast_signed() * self.clocks.drift / MILLION).cast_unsigned()
    }

    /// When its own clock shows this.
    pub(crate) fn moment(&self, clock: u64) -> u64 {
        let rate = (MILLION + self.clocks.drift).cast_unsigned();
        if self.clocks.drift == 0 { clock } else { clock.saturating_mul(MILLION.cast_unsigned()).div_ceil(rate) + 1 }
    }

    fn wall(&self, now: u64) -> u64 {
        (EPOCH_START + self.clock(now).cast_signed() + self.clocks.skew).cast_unsigned()
    }

    /// Everything on its volume is gone, the signing record too: what no honest machine is ever started with.
    pub(crate) fn forget_everything(&mut self) {
        self.stop();
        self.disk.wipe(SigningRecord::create(&self.binding));
    }

    /// The database is gone, the signing record is not. Call it while the node is down.
    pub(crate) fn lose_database(&mut self) {
        self.disk.lose_database();
        let recorded = self.disk.with(|store| self.record_of(store).ok().map(|record| record.latest()));
        self.excused = self.excused.max(recorded.unwrap_or_default());
    }

    fn record_of(&self, store: &Store) -> Result<SigningRecord, RecordError> {
        SigningRecord::open(&self.binding, &store.signing_file())
    }

    /// A finalize vote in its record that rests on nothing in its database, though that was not lost.
    pub(crate) fn unfounded_vote(&self) -> Option<Vote> {
        self.disk.with(|store| store.unfounded(&self.record_of(store).ok()?, self.excused))
    }

    /// The last moment of which the record in the copy of its volume knows.
    pub(crate) fn copied_until(&self) -> Option<Moment> {
        self.disk.with_copy(|store| self.record_of(store).ok().map(|record| record.latest()))?
    }

    /// The node's binary from the next start on.
    pub(crate) fn install(&mut self, supported: Protocol) {
        self.settings.supported = supported;
    }

    /// The highest version its binary goes by.
    pub(crate) fn supported(&self) -> Protocol {
        self.settings.supported
    }

    /// Starts a process from what the disk holds.
    pub(crate) fn start(&mut self, now: u64) -> Result<Output, Halt> {
        self.incarnation += 1;
        let record = self.votes.then(|| self.disk.with(|store| self.record_of(store))).transpose()?;
        let (settings, disk, keys) = (self.settings.clone(), self.disk.clone(), self.keys.clone());
        let (clock, wall) = (Millis(self.clock(now)), self.wall(now));
        let (driver, output) = Driver::start(settings, disk, keys, record, clock, wall)?;
        self.driver = Some(driver);
        Ok(output)
    }

    /// Ends the process.
    pub(crate) fn stop(&mut self) {
        self.driver = None;
        self.inbox.clear();
        self.busy = None;
        self.pending = Output::default();
        self.wake = None;
        self.dies_sending = false;
    }

    /// One turn with everything that waits.
    pub(crate) fn turn(&mut self, now: u64) -> Option<Result<Output, Halt>> {
        let (clock, wall) = (Millis(self.clock(now)), self.wall(now));
        let driver = self.driver.as_mut()?;
        Some(driver.turn(clock, wall, self.inbox.drain(..)))
    }
}
