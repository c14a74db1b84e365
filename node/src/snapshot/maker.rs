//! The thread that makes snapshots: woken when a cut-off is executed, and once at the start for what is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::store::{SnapshotError, SnapshotStore};
use crate::blockchain::{LedgerReader, last_cutoffs};
use crate::storage::Database;

/// A node that was away makes the two snapshots that the next boundaries name; older ones nobody asks for.
const MISSING_MADE: u64 = 2;

/// Called when a snapshot is there: a vote may wait for it.
pub type Made = Box<dyn Fn() + Send>;

/// The running thread; dropping it ends it after the chunk it makes.
pub struct SnapshotMaker {
    wake: Option<Sender<()>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotMaker {
    /// Starts the thread.
    pub fn start(database: Database, store: SnapshotStore, made: Made) -> std::io::Result<Self> {
        let (wake, woken) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            run(&database, &store, &made, &woken, &stop);
        })?;
        Ok(Self { wake: Some(wake), stopped, thread: Some(thread) })
    }

    /// To be called when a cut-off height is executed and committed.
    pub fn cutoff_executed(&self) {
        if let Some(wake) = &self.wake {
            // The thread is gone only when the node stops.
            let _ = wake.send(());
        }
    }
}

impl Drop for SnapshotMaker {
    fn drop(&mut self) {
        self.wake = None;
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was logged; without snapshots this node stops voting at the next boundary.
            let _ = thread.join();
        }
    }
}

fn run(database: &Database, store: &SnapshotStore, made: &Made, woken: &Receiver<()>, stopped: &AtomicBool) {
    loop {
        match make_missing(database, store, made, stopped) {
            Ok(()) => {}
            Err(SnapshotError::Stopped) => return,
            Err(error) => {
                tracing::error!(%error, "a snapshot cannot be made; without it this node votes for no end of an epoch");
            }
        }
        if woken.recv().is_err() {
            return;
        }
        // One look covers all that was executed until now.
        while woken.try_recv().is_ok() {}
    }
}

/// Makes what is missing of the last cut-offs, the older one first: it is needed first.
fn make_missing(
    database: &Database,
    store: &SnapshotStore,
    made: &Made,
    stopped: &AtomicBool,
) -> Result<(), SnapshotError> {
    let mut cutoffs = last_cutoffs(database, MISSING_MADE)?;
    let oldest = LedgerReader::new(database.clone()).oldest()?;
    cutoffs.retain(|cutoff| *cutoff >= oldest && store.root(*cutoff).is_none());
    for cutoff in cutoffs.into_iter().rev() {
        let start = Instant::now();
        let root = store.make(database, cutoff, stopped)?;
        let chunks = store.manifest(cutoff).map_or(0, |manifest| manifest.hashes.len());
        let milliseconds = start.elapsed().as_millis() as u64;
        tracing::info!(cutoff, %root, chunks, milliseconds, "snapshot made");
        made();
    }
    Ok(())
}
