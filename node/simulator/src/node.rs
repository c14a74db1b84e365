//! One simulated machine: a volume that outlives its process, and the process while it runs.

use std::sync::Arc;

use bizra_driver::signing_record::{Binding, SigningRecord};
use bizra_driver::{Driver, Halt, Input, Output, Settings};
use bizra_simplex::types::{Digest, Millis};
use bizra_simplex::{Block, Protocol, Timing};

use crate::adversary::Adversary;
use crate::disk::SimulatedDisk;
use crate::keys::{KeyBook, NodeKeys};
use crate::schedule::{Schedule, key_of};

/// Wall clock at virtual time 0, in milliseconds since 1970.
const EPOCH_START: i64 = 1_700_000_000_000;

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
    pub(crate) skew: i64,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        nodes: usize,
        schedule: &Schedule,
        book: Arc<KeyBook>,
        genesis: &Block,
        genesis_hash: Digest,
        skew: i64,
    ) -> Self {
        let settings = Settings {
            genesis_hash,
            timing: Timing::default(),
            epoch_blocks: schedule.blocks(),
            supported: Protocol::LATEST,
            nodes: (0..nodes).map(|node| (key_of(node), node as u16)).collect(),
        };
        let votes = schedule.ever(index);
        let public_key = key_of(index).0;
        let binding = Binding { genesis_hash, volume: Digest(public_key), public_key };
        Self {
            disk: SimulatedDisk::new(genesis.clone(), schedule.clone(), SigningRecord::create(&binding)),
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
            skew,
        }
    }

    /// True if it runs and votes in the epoch that it is in.
    pub(crate) fn is_validator(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.core().config().me.is_some())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.driver.is_some()
    }

    fn wall(&self, now: u64) -> u64 {
        (EPOCH_START + now.cast_signed() + self.skew).cast_unsigned()
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
        let open = || SigningRecord::open(&self.binding, &self.disk.with(crate::store::Store::signing_file));
        let record = self.votes.then(open).transpose()?;
        let (settings, disk, keys) = (self.settings.clone(), self.disk.clone(), self.keys.clone());
        let (driver, output) = Driver::start(settings, disk, keys, record, Millis(now), self.wall(now))?;
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
    }

    /// One turn with everything that waits.
    pub(crate) fn turn(&mut self, now: u64) -> Option<Result<Output, Halt>> {
        let wall = self.wall(now);
        let inputs = std::mem::take(&mut self.inbox);
        self.driver.as_mut().map(|driver| driver.turn(Millis(now), wall, inputs))
    }
}
