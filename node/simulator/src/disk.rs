//! A disk that can lose what was not synced. Reads see everything written; a crash keeps what was synced, some prefix of
//! the database commits after that (each whole or not at all), and any mixture of new, old and garbled blocks of the
//! signing record's write in flight.

use std::cell::RefCell;
use std::rc::Rc;

use bizra_driver::signing_record::{BLOCK_BYTES, BlockWrite};
use bizra_driver::{Batch, Change, Disk, DiskError, Member, PublicKey, Recovered};
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Block, Certificate, Checkpoint, Version};

use crate::faults::{Fault, Faults};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::store::Store;

/// Blocks by which an old copy of a volume lags when it is used: S5 promises nothing about votes that no peer has seen.
const OLD_COPY_BLOCKS: u64 = 12;

/// One commit whose sync is not known to have finished.
#[derive(Debug)]
struct Commit {
    changes: Vec<Change>,
    signing: Vec<BlockWrite>,
    sync: bool,
}

#[derive(Debug)]
struct Inner {
    /// What reads see.
    live: Store,
    /// What survives a crash for sure.
    durable: Store,
    journal: Vec<Commit>,
    /// The commit, counted from now, in which power fails.
    fails_at: Option<u64>,
    /// What was committed since it was last taken, for the oracle.
    seen: Vec<Change>,
    syncs: u64,
    /// An old copy of the volume, and the volume while the copy is used in its place.
    copy: Option<Store>,
    aside: Option<Store>,
}

/// A handle on a node's volume, which outlives the node's process.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Rc<RefCell<Inner>>);

impl SimulatedDisk {
    /// A new volume with a fresh signing record.
    pub(crate) fn new(genesis: Block, schedule: Schedule, record: Vec<BlockWrite>) -> Self {
        let mut store = Store::new(genesis, schedule);
        for (index, block) in record {
            if block.iter().any(|byte| *byte != 0) {
                store.write((index, block));
            }
        }
        Self(Rc::new(RefCell::new(Inner {
            live: store.clone(),
            durable: store,
            journal: Vec::new(),
            fails_at: None,
            seen: Vec::new(),
            syncs: 0,
            copy: None,
            aside: None,
        })))
    }

    /// Power fails inside the commit that follows `after` others.
    pub(crate) fn fail_commit(&self, after: u64) {
        self.0.borrow_mut().fails_at = Some(after);
    }

    /// No power failure is to come.
    pub(crate) fn disarm(&self) {
        self.0.borrow_mut().fails_at = None;
    }

    /// Syncs asked for since this was asked last.
    pub(crate) fn take_syncs(&self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().syncs)
    }

    /// Changes committed since this was asked last.
    pub(crate) fn take_seen(&self) -> Vec<Change> {
        std::mem::take(&mut self.0.borrow_mut().seen)
    }

    /// Every sync asked for so far has finished.
    pub(crate) fn synced(&self) {
        let inner = &mut *self.0.borrow_mut();
        let Some(last) = inner.journal.iter().rposition(|commit| commit.sync) else { return };
        for commit in inner.journal.drain(..=last) {
            commit.changes.into_iter().for_each(|change| inner.durable.apply(change));
            commit.signing.into_iter().for_each(|write| inner.durable.write(write));
        }
    }

    /// Power fails: decides what is left.
    pub(crate) fn crash(&self, random: &mut Random, faults: &mut Faults) {
        let inner = &mut *self.0.borrow_mut();
        inner.fails_at = None;
        inner.seen.clear();
        let journal = std::mem::take(&mut inner.journal);
        // Commits follow one another: nothing of one is written before the sync of the one before has finished.
        let finished = random.between(0, journal.iter().filter(|commit| commit.sync).count() as u64);
        let mut syncs = 0;
        let mut database_ended = false;
        for commit in journal {
            if syncs < finished {
                syncs += u64::from(commit.sync);
                commit.changes.into_iter().for_each(|change| inner.durable.apply(change));
                commit.signing.into_iter().for_each(|write| inner.durable.write(write));
                continue;
            }
            for write in commit.signing {
                // Both files are written at the same time: either may be ahead of the other.
                tear(&mut inner.durable, write, random, faults);
            }
            database_ended |= random.chance(500);
            if database_ended {
                faults.count(Fault::LostWrites);
            } else {
                commit.changes.into_iter().for_each(|change| inner.durable.apply(change));
            }
            if commit.sync {
                break;
            }
        }
        inner.live = inner.durable.clone();
    }

    /// One copy of some slot rots; the other must do.
    pub(crate) fn rot(&self, random: &mut Random) -> bool {
        let inner = &mut *self.0.borrow_mut();
        let slots: Vec<u64> = inner.durable.signing.keys().copied().filter(|index| *index >= 2).collect();
        if slots.is_empty() {
            return false;
        }
        let index = random.pick(&slots);
        let twin = bizra_driver::signing_record::SLOTS;
        let other = if index >= 2 + twin { index - twin } else { index + twin };
        // A slot whose copies differ was torn already: rot on top of that is a second fault in the same place.
        let sound = inner.durable.signing.contains_key(&other)
            && inner.durable.signing.get(&index) == inner.durable.signing.get(&other);
        if let Some(block) = inner.durable.signing.get_mut(&index).filter(|_| sound) {
            block[random.index(BLOCK_BYTES)] ^= 1 << random.below(8);
            inner.live = inner.durable.clone();
        }
        sound
    }

    /// The database is gone, the signing record is not. Call it while the node is down.
    pub(crate) fn lose_database(&self) {
        let inner = &mut *self.0.borrow_mut();
        inner.durable.lose_database();
        inner.live = inner.durable.clone();
    }

    /// Copies the volume as it is now; returns the height the copy is at.
    pub(crate) fn copy(&self) -> Height {
        let inner = &mut *self.0.borrow_mut();
        let (height, ..) = inner.durable.tip();
        inner.copy = Some(inner.durable.clone());
        height
    }

    /// True if there is a copy that lags far behind.
    pub(crate) fn copy_is_old(&self) -> bool {
        let inner = self.0.borrow();
        inner.copy.as_ref().is_some_and(|copy| copy.tip().0.0 + OLD_COPY_BLOCKS <= inner.durable.tip().0.0)
    }

    /// Puts the old copy in the place of the volume if it lags far behind. Call it while the node is down.
    pub(crate) fn use_copy(&self) -> bool {
        let inner = &mut *self.0.borrow_mut();
        let (now, ..) = inner.durable.tip();
        let old = inner.copy.take_if(|copy| copy.tip().0.0 + OLD_COPY_BLOCKS <= now.0);
        let Some(old) = old else { return false };
        inner.aside = Some(std::mem::replace(&mut inner.durable, old));
        inner.live = inner.durable.clone();
        true
    }

    /// Puts the volume back in its place; false if it is there.
    pub(crate) fn put_back(&self) -> bool {
        let inner = &mut *self.0.borrow_mut();
        let Some(volume) = inner.aside.take() else { return false };
        inner.journal.clear();
        inner.live = volume.clone();
        inner.durable = volume;
        true
    }

    /// A batch of the block that would not survive a crash.
    pub(crate) fn lacks(&self, block: &Block) -> Option<Digest> {
        let durable = &self.0.borrow().durable;
        block.batches.iter().find(|digest| !durable.batches.contains_key(*digest)).copied()
    }

    /// Reads what is on the disk now.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.0.borrow().live)
    }
}

/// What becomes of one block of a write in flight.
fn tear(store: &mut Store, (index, block): BlockWrite, random: &mut Random, faults: &mut Faults) {
    match random.below(10) {
        0..4 => store.write((index, block)),
        4..8 => faults.count(Fault::LostSigningBlock),
        _ => {
            faults.count(Fault::TornSigningBlock);
            let mut torn = store.signing.get(&index).cloned().unwrap_or_else(|| Box::new([0; BLOCK_BYTES]));
            if random.chance(500) {
                // The front of the new block over the rest of the old one.
                let cut = random.index(120);
                torn[..cut].copy_from_slice(&block[..cut]);
            } else {
                for byte in &mut torn[..64] {
                    *byte = random.number() as u8;
                }
            }
            store.write((index, torn));
        }
    }
}

impl Disk for SimulatedDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        Ok(self.with(Store::recover))
    }

    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        let inner = &mut *self.0.borrow_mut();
        let fails = inner.fails_at == Some(0);
        inner.fails_at = inner.fails_at.and_then(|commits| commits.checked_sub(1));
        for change in &changes {
            if !matches!(change, Change::HighestVote(..)) {
                inner.seen.push(change.clone());
            }
            inner.live.apply(change.clone());
        }
        for write in &signing {
            inner.live.write(write.clone());
        }
        inner.syncs += u64::from(sync);
        inner.journal.push(Commit { changes, signing, sync });
        if fails { Err(DiskError::Failed("power failed".into())) } else { Ok(()) }
    }

    fn finalized_block(&self, height: Height) -> Result<Option<Block>, DiskError> {
        Ok(self.with(|store| store.block(height).cloned()))
    }

    fn height_of(&self, block: Digest) -> Result<Option<Height>, DiskError> {
        Ok(self.with(|store| store.height_of(block)))
    }

    fn finalization(&self, height: Height) -> Result<Option<Certificate>, DiskError> {
        Ok(self.with(|store| store.finalization(height).cloned()))
    }

    fn batch(&self, digest: Digest) -> Result<Option<Batch>, DiskError> {
        Ok(self.with(|store| store.batches.get(&digest).cloned()))
    }

    fn is_ordered(&self, batch: Digest) -> Result<bool, DiskError> {
        Ok(self.with(|store| store.is_ordered(batch)))
    }

    fn checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError> {
        Ok(self.with(|store| store.checkpoint(height)))
    }

    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError> {
        Ok(self.with(|store| store.validators(epoch)))
    }

    fn snapshot(&self, epoch: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(self.with(|store| store.snapshot(epoch)))
    }

    fn version(&self, epoch: Epoch) -> Result<Option<Version>, DiskError> {
        Ok(self.with(|store| store.version(epoch)))
    }

    fn is_reported(&self, key: PublicKey, _: Epoch) -> Result<bool, DiskError> {
        Ok(self.with(|store| store.is_reported(key)))
    }
}
