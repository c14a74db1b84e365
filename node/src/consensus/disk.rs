//! The real disk: RocksDB for blocks, batches and the ledger, a file for the signing record.

use std::sync::Arc;

use bizra_driver::signing_record::BlockWrite;
use bizra_driver::{Batch, Change, Disk, DiskError, Recovered};
use bizra_simplex::types::{Digest, Height};
use bizra_simplex::{Block, Certificate};
use prometheus::IntCounter;

use super::record_file::RecordFile;
use crate::block::BlockStore;
use crate::blockchain::{BlockOutcome, Ledger};
use crate::storage::{Database, StorageError};

/// Called with every executed block, in height order, after its effects are applied.
pub type ExecutedBlocks = Box<dyn FnMut(Arc<BlockOutcome>) + Send>;

/// Database, ledger and signing record of one node.
pub struct NodeDisk {
    database: Database,
    blocks: BlockStore,
    ledger: Ledger,
    record: Option<RecordFile>,
    executed: ExecutedBlocks,
    syncs: IntCounter,
}

impl NodeDisk {
    /// `record` is `None` for a full node.
    pub fn new(
        database: Database,
        blocks: BlockStore,
        ledger: Ledger,
        record: Option<RecordFile>,
        executed: ExecutedBlocks,
        syncs: IntCounter,
    ) -> Self {
        Self { database, blocks, ledger, record, executed, syncs }
    }

    fn write(&mut self, mut changes: Vec<Change>, sync: bool) -> Result<(), StorageError> {
        // A batch that is kept and ordered in the same turn must not stay listed as unordered.
        changes.sort_by_key(|change| !matches!(change, Change::Batch(..)));
        let mut writes = self.database.writes();
        let mut outcomes = Vec::new();
        let mut last_finalized = None;
        for change in changes {
            match change {
                Change::Record(record) => self.blocks.put_record(&mut writes, &record)?,
                Change::Batch(digest, batch) => self.blocks.put_batch(&mut writes, digest, &batch)?,
                Change::Finalize(blocks, certificate) => {
                    self.blocks.finalize(&mut writes, &blocks, &certificate)?;
                    last_finalized = blocks.into_iter().next_back().or(last_finalized);
                }
                Change::Execute(block, batches) => {
                    // The ledger reads what the block before has written. A crash between the two is made good at the
                    // next start, from the executed height.
                    if !outcomes.is_empty() {
                        std::mem::replace(&mut writes, self.database.writes()).commit_unsynced()?;
                    }
                    outcomes.push(self.ledger.execute(&block, &batches, &mut writes)?);
                }
                Change::HighestVote(vote) => self.blocks.put_vote(&mut writes, &vote)?,
            }
        }
        if sync {
            writes.commit_synced()?;
        } else {
            writes.commit_unsynced()?;
        }
        if let Some(block) = last_finalized {
            self.blocks.finalized_to(&block);
        }
        for outcome in outcomes {
            (self.executed)(Arc::new(outcome));
        }
        Ok(())
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
            })
        };
        read().map_err(disk_error)
    }

    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        self.syncs.inc_by(u64::from(sync));
        if signing.is_empty() {
            return self.write(changes, sync).map_err(disk_error);
        }
        // S4: the two syncs of a turn go to the disk at the same time. Both must succeed.
        let record = self.record.take().ok_or_else(|| DiskError::Failed("a full node cannot sign".to_owned()))?;
        let (written, recorded) = std::thread::scope(|scope| {
            let recording = scope.spawn(|| record.write(&signing));
            let written = self.write(changes, sync);
            (written, recording.join())
        });
        self.record = Some(record);
        written.map_err(disk_error)?;
        match recorded {
            Ok(result) => result.map_err(|error| DiskError::Failed(error.to_string())),
            Err(_) => Err(DiskError::Failed("writing the signing record panicked".to_owned())),
        }
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
}

fn disk_error(error: StorageError) -> DiskError {
    match error {
        StorageError::Corrupt(what) => DiskError::Corrupt(what),
        StorageError::Failed(what) => DiskError::Failed(what),
    }
}
