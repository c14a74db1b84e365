//! Forgetting the past on a thread of its own, in small steps, off the way of consensus.
//!
//! A node keeps the configured number of blocks, never fewer than [`EPOCHS_MIN`] epochs, so that peers a boundary behind and
//! those who begin at a snapshot find what they need. What is older goes: bodies, blocks, certificates, receipts, events and
//! former values. The state never goes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bizra_simplex::types::Height;

use crate::block::BlockStore;
use crate::blockchain::{LedgerReader, forget_history, prune_ledger};
use crate::configuration::RetentionConfiguration;
use crate::event_store::prune_events;
use crate::storage::{Database, StorageError};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Blocks removed in one write: about as much as consensus writes in a second.
const BLOCKS_PER_STEP: u64 = 64;

/// Pause between two steps, so that a long way back does not fill the disk's queue.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// Fewest epochs kept, counted in cut-offs below the last: who joins takes a snapshot that is up to two cut-offs old, and
/// may need the length of another epoch to fetch it.
const EPOCHS_MIN: u64 = 3;

/// Fewest blocks kept: key proofs and the recomputation of a checkpoint look back 116.
const BLOCKS_MIN: u64 = 256;

/// The running thread; dropping it ends it after its step.
pub struct Pruner {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pruner {
    /// Starts the thread; with `archive` there is none.
    pub fn start(
        configuration: RetentionConfiguration,
        database: Database,
        blocks: BlockStore,
    ) -> Result<Self, std::io::Error> {
        if configuration.archive {
            return Ok(Self { stop: None, thread: None });
        }
        let (stop, stopped) = channel();
        let keep = configuration.blocks;
        let thread = std::thread::Builder::new().name("pruning".to_owned()).spawn(move || {
            if let Err(error) = run(keep, &database, &blocks, &stopped) {
                tracing::error!(%error, "pruning stopped; the disk will fill");
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Pruner {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was logged, and nothing here depends on the thread.
            let _ = thread.join();
        }
    }
}

fn run(keep: u64, database: &Database, blocks: &BlockStore, stopped: &Receiver<()>) -> Result<(), StorageError> {
    let mut pause = Duration::ZERO;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = if step(keep, database, blocks)? { STEP_PAUSE } else { INTERVAL };
    }
    Ok(())
}

/// Removes at most [`BLOCKS_PER_STEP`] blocks; true if there may be more to remove.
pub(crate) fn step(keep: u64, database: &Database, blocks: &BlockStore) -> Result<bool, StorageError> {
    let reader = LedgerReader::new(database.clone());
    let totals = reader.totals()?;
    let executed = totals.height;
    let before = reader.oldest()?;
    let epochs = totals.next_cutoff.saturating_sub((EPOCHS_MIN + 1).saturating_mul(reader.parameters()?.epoch_blocks));
    // History of an earlier run is dropped by this run's compactions too.
    forget_history(database, before, epochs);
    let wanted = executed.saturating_sub(keep.max(BLOCKS_MIN)).min(epochs);
    if wanted <= before {
        return Ok(false);
    }
    let oldest = wanted.min(before + BLOCKS_PER_STEP);
    let mut writes = database.writes();
    // One more than was kept: a database that began at a snapshot also holds the block at its cut-off.
    for height in before.saturating_sub(1).max(1)..oldest {
        blocks.prune(&mut writes, Height(height))?;
    }
    prune_ledger(&mut writes, before, oldest)?;
    prune_events(&mut writes, before, oldest)?;
    writes.commit_unsynced()?;
    forget_history(database, oldest, epochs);
    Ok(oldest < wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_driver::batch::Batch;
    use bizra_proto::ceremony::Genesis;
    use bizra_proto::parameters::Parameters;
    use bizra_simplex::block::Boundary;
    use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex, View};
    use bizra_simplex::{Block, Certificate, Version, Vote, VoteKind};
    use bytes::Bytes;
    use ed25519_zebra::SigningKey;

    use super::*;
    use crate::blockchain::{Ledger, LedgerMetrics};
    use crate::event_store;
    use crate::transaction::{Address, ChainId, PayloadBuilder, TraceId, Transfer};

    const BLOCKS: u64 = 700;

    fn payload(height: u64) -> Bytes {
        let chain = ChainId::new("demo-1").unwrap();
        let transfer = Transfer {
            chain,
            nonce: height,
            fee: 0,
            expiry_height: 1,
            recipient: Address([1; 32]),
            amount: 1,
            memo: b"",
        };
        let mut builder = PayloadBuilder::default();
        builder.push(TraceId::default(), &transfer.sign(&SigningKey::from([1; 32])).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn old_blocks_go_in_steps_but_three_epochs_and_boundaries_stay() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        let genesis_block = Block::genesis(Digest([1; 32]), 0);
        let blocks = BlockStore::open(database.clone(), genesis_block.clone()).unwrap();
        let parameters = Parameters { epoch_blocks: 160, ..Parameters::default() };
        let chain_id = "demo-1".to_owned();
        let (validators, accounts) = (Vec::new(), Vec::new());
        let genesis = Genesis { version: 1, chain_id, time_milliseconds: 0, validators, accounts, parameters };
        let metrics = LedgerMetrics::new(&prometheus::Registry::new()).unwrap();
        let mut ledger = Ledger::open(database.clone(), &genesis, Digest([1; 32]), metrics).unwrap();
        let mut chain = vec![genesis_block];
        for height in 1..=BLOCKS {
            let (origin, sequence, payload) = (ValidatorIndex(0), height, payload(height));
            let epoch = Epoch((height - 1) / 160);
            let batch = Batch { epoch, origin, sequence, payload, signature: Signature([0; 64]) };
            let digest = batch.digest(Digest([1; 32]));
            let parent = chain[height as usize - 1].digest();
            let block = Block {
                epoch,
                height: Height(height),
                batches: vec![digest],
                boundary: height.is_multiple_of(160).then_some(Boundary {
                    validators: Digest([2; 32]),
                    snapshot: Digest([3; 32]),
                    version: Version(1),
                }),
                ..Block::genesis(parent, height)
            };
            let vote =
                Vote { epoch: block.epoch, view: View(height), kind: VoteKind::Finalize, digest: block.digest() };
            let certificate = Certificate { vote, signatures: Vec::new() };
            let mut writes = database.writes();
            blocks.put_batch(&mut writes, digest, &batch).unwrap();
            blocks.finalize(&mut writes, std::slice::from_ref(&block), &certificate).unwrap();
            let outcome = ledger.execute(&block, &[batch], &mut writes).unwrap();
            event_store::append(&mut writes, &outcome).unwrap();
            writes.commit_unsynced().unwrap();
            blocks.finalized_to(&block);
            chain.push(block);
        }

        assert!(step(1, &database, &blocks).unwrap(), "one step does not do it all");
        assert_eq!(LedgerReader::new(database.clone()).oldest().unwrap(), BLOCKS_PER_STEP);
        while step(1, &database, &blocks).unwrap() {}
        // The last cut-off is at 640: three epochs stay, though one block was asked.
        assert_eq!(LedgerReader::new(database.clone()).oldest().unwrap(), 160);
        for (height, block) in (0..).zip(&chain).skip(1) {
            let body = blocks.batch(block.batches[0]).unwrap();
            assert_eq!(body.is_some(), height >= 160, "body of {height}");
            let boundary = height % 160 == 0;
            assert_eq!(blocks.get(Height(height)).unwrap().is_some(), height >= 160 || boundary, "block {height}");
            assert_eq!(blocks.finalization(Height(height)).unwrap().is_some(), height >= 160 || boundary);
            assert_eq!(event_store::stored_record(&database, height).unwrap().is_some(), height >= 160);
        }
        // What is left is enough to start from, and to go on.
        let metrics = LedgerMetrics::new(&prometheus::Registry::new()).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(database.clone(), &genesis, Digest([1; 32]), metrics).unwrap();
        crate::blockchain::verify_commitment(&database).unwrap();
        let parent = chain[BLOCKS as usize].digest();
        let next = Block { height: Height(BLOCKS + 1), parent, batches: Vec::new(), ..chain[BLOCKS as usize].clone() };
        ledger.execute(&next, &[], &mut database.writes()).unwrap();
    }
}
