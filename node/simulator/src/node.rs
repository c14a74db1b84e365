//! One simulated machine: a volume that outlives its process, and the process while it runs.

use std::sync::Arc;

use bizra_driver::signing_record::{Binding, SigningRecord};
use bizra_driver::{Driver, Halt, Input, Output};
use bizra_simplex::types::{Digest, Epoch, Millis, Power, ValidatorIndex};
use bizra_simplex::{Block, Config, Timing, ValidatorSet, ValidatorSetError};

use crate::adversary::Adversary;
use crate::disk::SimulatedDisk;
use crate::keys::{KeyBook, NodeKeys};

/// Wall clock at virtual time 0, in milliseconds since 1970.
const EPOCH_START: i64 = 1_700_000_000_000;

/// A machine.
pub(crate) struct Node {
    config: Config,
    binding: Binding,
    genesis_hash: Digest,
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
        powers: &[u64],
        book: Arc<KeyBook>,
        genesis: &Block,
        genesis_hash: Digest,
        skew: i64,
    ) -> Result<Self, ValidatorSetError> {
        let config = Config {
            epoch: Epoch(0),
            validators: ValidatorSet::new(powers.iter().copied().map(Power).collect())?,
            me: (index < powers.len()).then_some(ValidatorIndex(index as u16)),
            timing: Timing::default(),
        };
        let mark = [index as u8; 32];
        let binding = Binding { genesis_hash, volume: Digest(mark), public_key: mark };
        Ok(Self {
            disk: SimulatedDisk::new(genesis.clone(), SigningRecord::create(&binding)),
            config,
            binding,
            genesis_hash,
            keys: NodeKeys::new(book, index),
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
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.driver.is_some()
    }

    fn wall(&self, now: u64) -> u64 {
        (EPOCH_START + now.cast_signed() + self.skew).cast_unsigned()
    }

    /// Starts a process from what the disk holds.
    pub(crate) fn start(&mut self, now: u64) -> Result<Output, Halt> {
        self.incarnation += 1;
        let record = match self.config.me {
            Some(_) => Some(SigningRecord::open(&self.binding, &self.disk.with(crate::store::Store::signing_file))?),
            None => None,
        };
        let (config, disk, keys) = (self.config.clone(), self.disk.clone(), self.keys.clone());
        let wall = self.wall(now);
        let (driver, output) = Driver::start(config, self.genesis_hash, disk, keys, record, Millis(now), wall)?;
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
