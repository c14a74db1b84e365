//! Shipped drivers on simulated disks without the [`crate::World`] around them, for runs that choose every event
//! themselves. The only place outside [`crate::node`] that knows how a driver is made.

use std::sync::Arc;

use bizra_driver::signing_record::{Binding, BlockWrite, SigningRecord};
use bizra_driver::{Change, Driver, Fence, Halt, Input, Output, Restarts, Settings};
use bizra_simplex::types::{Digest, Epoch, Millis};
use bizra_simplex::{Block, Protocol, Timing};

use crate::disk::SimulatedDisk;
use crate::keys::{KeyBook, NodeKeys};
use crate::ledger::Ledger;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::schedule::{Schedule, key_of};

/// Wall clock at virtual time 0, in milliseconds since 1970.
const WALL_START: u64 = 1_700_000_000_000;

pub(crate) const GENESIS_HASH: Digest = Digest([7; 32]);

/// What all runs of one size share, made once: a signing record is two megabytes to create and to read.
pub(crate) struct Rig {
    settings: Settings,
    schedule: Schedule,
    ledger: Ledger,
    genesis: Block,
    book: Arc<KeyBook>,
    volumes: Vec<(Vec<BlockWrite>, SigningRecord)>,
}

/// A process of a validator on its own disk.
pub(crate) struct Participant {
    driver: Driver<SimulatedDisk, NodeKeys>,
    disk: SimulatedDisk,
    wall: u64,
}

impl Rig {
    /// `validators` of equal power.
    pub(crate) fn new(validators: usize, timing: Timing) -> Result<Self, Halt> {
        Self::of(Schedule::fixed(&vec![1; validators]), timing)
    }

    /// Validators of a schedule that are the same in every epoch.
    pub(crate) fn of(schedule: Schedule, timing: Timing) -> Result<Self, Halt> {
        let validators = schedule.of(Epoch(0)).len();
        let nodes = (0..validators).map(|node| (key_of(node), node as u16)).collect();
        let supported = Protocol::LATEST;
        let settings = Settings {
            genesis_hash: GENESIS_HASH,
            timing,
            epoch_blocks: schedule.blocks(),
            supported,
            nodes,
            restarts: Restarts::default(),
            fence: Fence::Open,
        };
        let volume = |node: usize| {
            let public_key = key_of(node).0;
            let binding = Binding { genesis_hash: GENESIS_HASH, volume: Digest(public_key), public_key };
            let blocks = SigningRecord::create(&binding);
            let file: Vec<_> = blocks.iter().map(|(_, block)| block.clone()).collect();
            let record = SigningRecord::open(&binding, &file)?;
            let written = blocks.into_iter().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            Ok((written.collect(), record))
        };
        let book = KeyBook::new(&mut Random::new(1), validators);
        Ok(Self {
            settings,
            ledger: Ledger::genesis(&schedule, Arc::clone(&book), GENESIS_HASH),
            schedule,
            genesis: Block::genesis(GENESIS_HASH, 1_000),
            book,
            volumes: (0..validators).map(volume).collect::<Result<_, Halt>>()?,
        })
    }

    /// A judge of these validators.
    pub(crate) fn oracle(&self, honest: Vec<bool>) -> Oracle {
        Oracle::new(self.schedule.clone(), honest, Arc::clone(&self.book), GENESIS_HASH, &self.genesis)
    }

    /// Starts a validator at virtual time 0 on an empty disk; its wall clock is `skew` milliseconds ahead.
    pub(crate) fn boot(&self, validator: usize, skew: u64) -> Result<(Participant, Output), Halt> {
        self.boot_at(validator, Millis(0), skew)
    }

    /// The same at a later time.
    pub(crate) fn boot_at(&self, validator: usize, now: Millis, skew: u64) -> Result<(Participant, Output), Halt> {
        let (written, record) = self.volumes[validator].clone();
        let disk = SimulatedDisk::new(self.genesis.clone(), self.ledger.clone(), self.schedule.blocks(), written);
        let keys = NodeKeys::new(Arc::clone(&self.book), validator, true);
        let wall = WALL_START + skew;
        let (settings, wall_now) = (self.settings.clone(), wall + now.0);
        let (driver, output) = Driver::start(settings, disk.clone(), keys, Some(record), now, wall_now)?;
        disk.synced();
        Ok((Participant { driver, disk, wall }, output))
    }
}

impl Participant {
    /// One turn; its disk syncs at once.
    pub(crate) fn turn(&mut self, now: u64, inputs: Vec<Input>) -> Result<Output, Halt> {
        let output = self.driver.turn(Millis(now), self.wall + now, inputs)?;
        self.disk.synced();
        Ok(output)
    }

    /// What was finalised and executed since this was asked last.
    pub(crate) fn take_seen(&self) -> Vec<Change> {
        self.disk.take_seen()
    }

    /// The view it is in.
    pub(crate) fn view(&self) -> u64 {
        self.driver.core().view().0
    }
}
