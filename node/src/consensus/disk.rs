//! The real disk: RocksDB for blocks, batches and the ledger, a file for the signing record.

use std::sync::{Arc, mpsc};

use bizra_driver::light::Link;
use bizra_driver::signing_record::BlockWrite;
use bizra_driver::{Batch, Change, Disk, DiskError, Member, PublicKey, Recovered};
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Block, Certificate, Checkpoint, Version};

use super::metrics::ConsensusMetrics;
use super::record_file::{RecordFile, RecordFileError};
use crate::block::BlockStore;
use crate::blockchain::{BlockOutcome, Ledger, RestartError};
use crate::event_store;
use crate::snapshot::{SnapshotMaker, SnapshotStore};
use crate::storage::{Database, StorageError, Writes};
use crate::validator::ValidatorSetRecord;

/// Called with every executed block, in height order, after its effects are applied.
pub type ExecutedBlocks = Box<dyn FnMut(Arc<BlockOutcome>) + Send>;

/// Database, ledger and signing record of one node.
pub struct NodeDisk {
    database: Database,
    blocks: BlockStore,
    ledger: Ledger,
    record: Option<Recorder>,
    executed: ExecutedBlocks,
    metrics: ConsensusMetrics,
    snapshots: SnapshotStore,
    maker: SnapshotMaker,
    epoch_blocks: u64,
    /// True while something written may not be durable: also at the start, of what another process wrote.
    unsynced: bool,
}

impl NodeDisk {
    /// `record` is `None` for a full node. An error means that its thread could not be started.
    pub fn new(
        database: Database,
        blocks: BlockStore,
        ledger: Ledger,
        record: Option<RecordFile>,
        executed: ExecutedBlocks,
        metrics: ConsensusMetrics,
        (snapshots, maker): (SnapshotStore, SnapshotMaker),
    ) -> std::io::Result<Self> {
        let epoch_blocks = ledger.parameters().epoch_blocks;
        let record = record.map(Recorder::start).transpose()?;
        let unsynced = true;
        Ok(Self { database, blocks, ledger, record, executed, metrics, snapshots, maker, epoch_blocks, unsynced })
    }

    /// Power of the set computed last that signals this version or a higher one (PROTOCOL P1).
    pub fn power_signalling(&self, version: Version) -> u64 {
        self.ledger.power_signalling(version.0)
    }

    fn write(&mut self, mut changes: Vec<Change>, sync: bool) -> Result<(), StorageError> {
        if changes.is_empty() && !self.unsynced {
            return Ok(());
        }
        self.unsynced = !sync;
        // A batch that is kept and ordered in the same turn must not stay listed as unordered.
        changes.sort_by_key(|change| !matches!(change, Change::Batch(..)));
        let mut writes = self.database.writes();
        let mut outcomes = Vec::new();
        let mut last_finalized = None;
        let mut ends = Vec::new();
        for change in changes {
            match change {
                Change::Record(record) => self.blocks.put_record(&mut writes, &record)?,
                Change::Batch(digest, batch) => self.blocks.put_batch(&mut writes, digest, &batch)?,
                Change::Finalize(blocks, certificate) => {
                    self.blocks.finalize(&mut writes, &blocks, &certificate)?;
                    last_finalized = blocks.into_iter().next_back().or(last_finalized);
                    if last_finalized.as_ref().is_some_and(|block| block.boundary.is_some()) {
                        ends.push(certificate);
                    }
                }
                Change::Execute(block, batches) => {
                    let outcome = self.ledger.execute(&block, &batches, &mut writes)?;
                    event_store::append(&mut writes, &outcome)?;
                    outcomes.push(outcome);
                    if block.boundary.is_some() {
                        self.put_link(&mut writes, block, &ends)?;
                    }
                }
                Change::Forget(batches) => self.blocks.forget_batches(&mut writes, &batches)?,
                Change::Evidence(key, first, second) => self.blocks.put_evidence(&mut writes, key, &first, &second)?,
                Change::HighestVote(key, vote) => self.blocks.put_vote(&mut writes, key, &vote)?,
            }
        }
        if sync {
            self.metrics.syncs.inc();
            writes.commit_synced()?;
        } else {
            writes.commit_unsynced()?;
        }
        if let Some(block) = last_finalized {
            self.blocks.finalized_to(&block);
        }
        if outcomes.iter().any(|outcome| outcome.height.0.is_multiple_of(self.epoch_blocks)) {
            self.maker.cutoff_executed();
        }
        for outcome in outcomes {
            (self.executed)(Arc::new(outcome));
        }
        Ok(())
    }
}

impl NodeDisk {
    /// The validators of an epoch: a restart's from the block below it on, all others as the state names them.
    fn set(&self, epoch: Epoch) -> Result<Option<Arc<ValidatorSetRecord>>, DiskError> {
        let restarted = self.ledger.restarted_set(epoch.0).map_err(|error| match error {
            RestartError::Storage(error) => disk_error(error),
            error => DiskError::Restart(error.to_string()),
        })?;
        Ok(restarted.or_else(|| self.ledger.validators_of_epoch(epoch.0)))
    }

    /// Keeps the link to the next epoch for light clients, once its last block is executed (E5). `ends` are
    /// finalizations of this turn, not readable yet.
    fn put_link(&self, writes: &mut Writes<'_>, block: Block, ends: &[Certificate]) -> Result<(), StorageError> {
        let stored = self.blocks.finalization(block.height)?;
        let digest = block.digest();
        let finalization = ends.iter().find(|end| end.vote.digest == digest).cloned().or(stored);
        let next = self.ledger.validators_of_epoch(block.epoch.next().0);
        let (Some(finalization), Some(next)) = (finalization, next) else {
            let what =
                format!("the last block {} of epoch {} has no finalization or successors", block.height, block.epoch);
            return Err(StorageError::Corrupt(what));
        };
        self.blocks.put_link(writes, &Link { block, finalization, next: next.voters() })
    }
}

/// Writes and syncs the signing record while the driver's thread does the same with the database. The thread ends when
/// this is dropped.
struct Recorder {
    writes: mpsc::Sender<Vec<BlockWrite>>,
    /// One answer for each write.
    results: mpsc::Receiver<Result<(), RecordFileError>>,
}

impl Recorder {
    fn start(file: RecordFile) -> std::io::Result<Self> {
        let (writes, jobs) = mpsc::channel::<Vec<BlockWrite>>();
        let (answers, results) = mpsc::channel();
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            while let Ok(blocks) = jobs.recv() {
                if answers.send(file.write(&blocks)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { writes, results })
    }
}

impl Disk for NodeDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        let read = || -> Result<Recovered, StorageError> {
            let (anchor, anchor_certificate) = self.blocks.anchor()?;
            Ok(Recovered {
                anchor,
                anchor_certificate,
                records: self.blocks.records()?,
                batches: self.blocks.unordered()?,
                executed: self.ledger.executed(),
                highest_votes: self.blocks.highest_votes()?,
                evidence: self.blocks.evidence()?,
            })
        };
        read().map_err(disk_error)
    }

    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        if signing.is_empty() {
            return self.write(changes, sync).map_err(disk_error);
        }
        // S4: two syncs of one commit go to the disk at the same time. Both must succeed.
        let record = self.record.as_ref().ok_or_else(|| DiskError::Failed("a full node cannot sign".to_owned()))?;
        let gone = || DiskError::Failed("the thread that writes the signing record is gone".to_owned());
        self.metrics.record_syncs.inc();
        record.writes.send(signing).map_err(|_| gone())?;
        let written = self.write(changes, sync);
        let record = self.record.as_ref().ok_or_else(gone)?;
        let recorded = record.results.recv().map_err(|_| gone())?;
        written.map_err(disk_error)?;
        recorded.map_err(|error| DiskError::Failed(error.to_string()))
    }

    fn finalized_block(&self, height: Height) -> Result<Option<Block>, DiskError> {
        self.blocks.get(height).map(|stored| stored.map(|stored| stored.block)).map_err(disk_error)
    }

    fn height_of(&self, block: Digest) -> Result<Option<Height>, DiskError> {
        self.blocks.height_of(block).map_err(disk_error)
    }

    fn finalization(&self, height: Height) -> Result<Option<Certificate>, DiskError> {
        self.blocks.finalization(height).map_err(disk_error)
    }

    fn batch(&self, digest: Digest) -> Result<Option<Batch>, DiskError> {
        self.blocks.batch(digest).map_err(disk_error)
    }

    fn is_ordered(&self, batch: Digest) -> Result<bool, DiskError> {
        self.blocks.is_ordered(batch).map_err(disk_error)
    }

    fn checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError> {
        self.ledger.checkpoint(height.0).map_err(disk_error)
    }

    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError> {
        Ok(self.set(epoch)?.map(|set| set.voters()))
    }

    fn snapshot(&self, epoch: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(self.snapshots.root(self.epoch_blocks.saturating_mul(epoch.next().0)))
    }

    fn version(&self, epoch: Epoch) -> Result<Option<Version>, DiskError> {
        Ok(self.set(epoch)?.map(|set| Version(set.version)))
    }

    fn is_reported(&self, key: PublicKey, epoch: Epoch) -> Result<bool, DiskError> {
        self.ledger.is_reported(key.0, epoch.0).map_err(disk_error)
    }
}

pub(super) fn disk_error(error: StorageError) -> DiskError {
    match error {
        StorageError::Corrupt(what) => DiskError::Corrupt(what),
        StorageError::Failed(what) => DiskError::Failed(what),
    }
}
