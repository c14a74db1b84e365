//! A disk that can lose what was not synced. Reads see everything written; a crash keeps what was synced, some prefix of
//! the database commits after that (each whole or not at all), and any mixture of new, old and garbled blocks of the
//! signing record's write in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bizra_driver::signing_record::{BLOCK_BYTES, BlockWrite};
use bizra_driver::{Batch, Change, Disk, DiskError, Member, PublicKey, Recovered};
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Block, Certificate, Checkpoint, Version};

use crate::faults::{Fault, Faults};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::store::{Store, Written};

/// One commit whose sync is not known to have finished.
#[derive(Debug)]
struct Commit {
    changes: Vec<Written>,
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
    /// What fails, and after how many operations of its kind from now.
    failing: Option<(Failure, u64)>,
    /// What was committed since it was last taken, for the oracle.
    seen: Vec<Change>,
    /// The validators of which the process was told since it was last asked.
    named: Vec<(Epoch, Vec<Member>)>,
    syncs: u64,
    /// An old copy of the volume, and the volume while the copy is used in its place.
    copy: Option<Store>,
    aside: Option<Store>,
}

/// What can go wrong in one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Power fails inside a commit.
    Power,
    /// A write or sync fails.
    Write,
    /// A read fails.
    Read,
}

/// A handle on a node's volume, which outlives the node's process.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Rc<RefCell<Inner>>);

impl SimulatedDisk {
    /// A new volume with a fresh signing record.
    pub(crate) fn new(genesis: Block, ledger: Ledger, epoch_blocks: Option<u64>, record: Vec<BlockWrite>) -> Self {
        let mut store = Store::new(genesis, ledger, epoch_blocks);
        for (index, block) in record {
            if block.iter().any(|byte| *byte != 0) {
                store.write((index, block));
            }
        }
        Self(Rc::new(RefCell::new(Inner {
            live: store.clone(),
            durable: store,
            journal: Vec::new(),
            failing: None,
            seen: Vec::new(),
            named: Vec::new(),
            syncs: 0,
            copy: None,
            aside: None,
        })))
    }

    /// The operation that follows `after` others of its kind will fail.
    pub(crate) fn fail(&self, failure: Failure, after: u64) {
        self.0.borrow_mut().failing = Some((failure, after));
    }

    /// Nothing is to fail any more.
    pub(crate) fn disarm(&self) {
        self.0.borrow_mut().failing = None;
    }

    /// What failed, if anything did, and forgets it.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.0.borrow_mut().failing.take_if(|(_, after)| *after == u64::MAX).map(|(failure, _)| failure)
    }

    /// Syncs asked for since this was asked last.
    pub(crate) fn take_syncs(&self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().syncs)
    }

    /// Changes committed since this was asked last.
    pub(crate) fn take_seen(&self) -> Vec<Change> {
        std::mem::take(&mut self.0.borrow_mut().seen)
    }

    /// The validators of which the process was told since this was asked last.
    pub(crate) fn take_named(&self) -> Vec<(Epoch, Vec<Member>)> {
        std::mem::take(&mut self.0.borrow_mut().named)
    }

    /// Every sync asked for so far has finished.
    pub(crate) fn synced(&self) {
        let inner = &mut *self.0.borrow_mut();
        let Some(last) = inner.journal.iter().rposition(|commit| commit.sync) else { return };
        for commit in inner.journal.drain(..=last) {
            commit.changes.iter().for_each(|change| inner.durable.apply(change));
            commit.signing.into_iter().for_each(|write| inner.durable.write(write));
        }
    }

    /// Power fails: decides what is left.
    pub(crate) fn crash(&self, random: &mut Random, faults: &mut Faults) {
        let inner = &mut *self.0.borrow_mut();
        inner.failing = None;
        inner.seen.clear();
        let journal = std::mem::take(&mut inner.journal);
        // Commits follow one another: nothing of one is written before the sync of the one before has finished.
        let finished = random.between(0, journal.iter().filter(|commit| commit.sync).count() as u64);
        let mut syncs = 0;
        let mut database_ended = false;
        for commit in journal {
            if syncs < finished {
                syncs += u64::from(commit.sync);
                commit.changes.iter().for_each(|change| inner.durable.apply(change));
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
                commit.changes.iter().for_each(|change| inner.durable.apply(change));
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
            Arc::make_mut(block)[random.index(BLOCK_BYTES)] ^= 1 << random.below(8);
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

    /// Reads the copy, if there is one.
    pub(crate) fn with_copy<T>(&self, read: impl FnOnce(&Store) -> T) -> Option<T> {
        self.0.borrow().copy.as_ref().map(read)
    }

    /// Puts the old copy in the place of the volume. Call it while the node is down.
    pub(crate) fn use_copy(&self) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(old) = inner.copy.take() {
            inner.aside = Some(std::mem::replace(&mut inner.durable, old));
            inner.live = inner.durable.clone();
        }
    }

    /// True while an old copy is in the place of the volume.
    pub(crate) fn is_old(&self) -> bool {
        self.0.borrow().aside.is_some()
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

    /// The volume is as on the first day.
    pub(crate) fn wipe(&self, record: Vec<BlockWrite>) {
        let inner = &mut *self.0.borrow_mut();
        inner.journal.clear();
        inner.seen.clear();
        inner.failing = None;
        inner.durable.lose_database();
        inner.durable.signing.clear();
        for (index, block) in record.into_iter().filter(|(_, block)| block.iter().any(|byte| *byte != 0)) {
            inner.durable.write((index, block));
        }
        inner.live = inner.durable.clone();
    }

    /// A read by the process, which may fail.
    fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, DiskError> {
        let inner = &mut *self.0.borrow_mut();
        if inner.fails(Failure::Read) {
            return Err(DiskError::Failed("a read failed".into()));
        }
        Ok(read(&inner.live))
    }

    /// Reads what would survive a crash.
    pub(crate) fn with_durable<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.0.borrow().durable)
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
            let mut torn = store.signing.get(&index).map_or([0; BLOCK_BYTES], |block| **block);
            if random.chance(500) {
                // The front of the new block over the rest of the old one.
                let cut = random.index(120);
                torn[..cut].copy_from_slice(&block[..cut]);
            } else {
                for byte in &mut torn[..64] {
                    *byte = random.number() as u8;
                }
            }
            store.write((index, Arc::new(torn)));
        }
    }
}

impl Inner {
    /// Counts an operation; true if it is the one that fails. The failure is kept until it is taken.
    fn fails(&mut self, kind: Failure) -> bool {
        match &mut self.failing {
            Some((failure, after)) if *failure == kind && *after != u64::MAX => {
                *after = after.wrapping_sub(1);
                *after == u64::MAX
            }
            _ => false,
        }
    }
}

impl Disk for SimulatedDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        self.0.borrow_mut().live.ledger.reopen();
        self.read(Store::recover)
    }

    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        let inner = &mut *self.0.borrow_mut();
        let power_fails = inner.fails(Failure::Power);
        let write_fails = inner.fails(Failure::Write);
        // The write itself, or the sync after it: then whatever reached the disk may be there.
        let reached = !write_fails || changes.len().is_multiple_of(2);
        if reached {
            let told = changes.iter().filter(|change| !matches!(change, Change::HighestVote(..)));
            inner.seen.extend(told.cloned());
        }
        let changes: Vec<Written> = changes.into_iter().map(Written::from).collect();
        if write_fails {
            if reached {
                inner.journal.push(Commit { changes, signing, sync });
            }
            return Err(DiskError::Failed("a write or sync failed".into()));
        }
        for change in &changes {
            inner.live.apply(change);
        }
        for write in &signing {
            inner.live.write(write.clone());
        }
        inner.syncs += u64::from(sync);
        inner.journal.push(Commit { changes, signing, sync });
        if power_fails { Err(DiskError::Failed("power failed".into())) } else { Ok(()) }
    }

    fn finalized_block(&self, height: Height) -> Result<Option<Block>, DiskError> {
        self.read(|store| store.block(height).cloned())
    }

    fn height_of(&self, block: Digest) -> Result<Option<Height>, DiskError> {
        self.read(|store| store.height_of(block))
    }

    fn finalization(&self, height: Height) -> Result<Option<Certificate>, DiskError> {
        self.read(|store| store.finalization(height).cloned())
    }

    fn batch(&self, digest: Digest) -> Result<Option<Batch>, DiskError> {
        self.read(|store| store.batches.get(&digest).cloned())
    }

    fn is_ordered(&self, batch: Digest) -> Result<bool, DiskError> {
        self.read(|store| store.is_ordered(batch))
    }

    fn checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError> {
        self.read(|store| store.checkpoint(height))
    }

    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError> {
        let members = self.read(|store| store.ledger.voters(epoch))?;
        self.0.borrow_mut().named.extend(members.clone().map(|members| (epoch, members)));
        Ok(members)
    }

    fn snapshot(&self, epoch: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(self.with(|store| store.snapshot(epoch)))
    }

    fn version(&self, epoch: Epoch) -> Result<Option<Version>, DiskError> {
        self.read(|store| store.ledger.version(epoch))
    }

    fn is_reported(&self, key: PublicKey, epoch: Epoch) -> Result<bool, DiskError> {
        self.read(|store| store.ledger.is_reported(key, epoch))
    }
}
