//! The thread that serves snapshots to peers and fetches one itself, beside consensus: neither waits for the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bizra_driver::Restarts;
use bizra_driver::light::Link;
use bizra_driver::wire::{BOUNDARIES_MAX, PeerMessage};
use bizra_simplex::types::{Digest, Height, Millis};
use tokio::sync::oneshot;

use super::folders::DatabaseFolders;
use super::join::{Chain, Joiner, Policy, Progress, Surroundings};
use super::store::SnapshotStore;
use crate::block::BlockStore;
use crate::blockchain::LedgerReader;
use crate::configuration::{LoadedGenesis, SyncConfiguration};
use crate::network::{NetworkHandle, PeerId};
use crate::storage::{Database, StorageError};

/// Messages that wait for the thread; more are dropped, and asked for again.
const WAITING_MAX: usize = 256;

/// Requests of one peer that wait for its budget; more are dropped, and asked for again.
const REQUESTS_PER_PEER_MAX: usize = 16;

/// Bytes of boundaries in one answer, unless a single one is larger.
const BOUNDARIES_BYTES_MAX: usize = 256 << 10;

/// A budget that was not used collects for this long.
const BURST: Duration = Duration::from_secs(1);

/// Time between two looks at timers, idle and while something is under way.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
const BUSY_INTERVAL: Duration = Duration::from_millis(20);

/// Everything the service is made of.
pub struct SnapshotSetup {
    /// The chain.
    pub genesis: Arc<LoadedGenesis>,
    /// Its restarts.
    pub restarts: Restarts,
    /// When to join, and how much to serve.
    pub configuration: SyncConfiguration,
    /// True if the node keeps everything: what it has is never replaced then.
    pub archive: bool,
    /// True if the database was made by this start.
    pub empty: bool,
    /// The database.
    pub database: Database,
    /// Its blocks.
    pub blocks: BlockStore,
    /// Snapshots for peers.
    pub store: SnapshotStore,
    /// Where a snapshot becomes a database.
    pub folders: DatabaseFolders,
    /// The sending side of the network.
    pub network: NetworkHandle,
}

/// What others see of the thread.
#[derive(Debug, Default)]
struct Shared {
    progress: Option<Progress>,
    wants_range: bool,
    executed: Height,
    network: Height,
}

/// The running thread; dropping it ends it.
pub struct SnapshotService {
    messages: Option<SyncSender<(PeerId, PeerMessage)>>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotService {
    /// Starts the thread. `ready` is answered when a whole snapshot waits for the node's next start, or with what failed.
    pub fn start(setup: SnapshotSetup, ready: oneshot::Sender<Result<(), StorageError>>) -> std::io::Result<Self> {
        let (messages, waiting) = sync_channel(WAITING_MAX);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("snapshot-sync".to_owned()).spawn(move || {
            let result = Worker::new(setup, seen).and_then(|worker| worker.run(&waiting));
            if let Some(result) = result.transpose() {
                // The receiver is gone only when the node stops anyway.
                let _ = ready.send(result);
            }
        })?;
        Ok(Self { messages: Some(messages), shared, thread: Some(thread) })
    }

    /// Takes a message that is not for the driver; gives back any other.
    pub fn take(&self, from: PeerId, message: PeerMessage) -> Option<PeerMessage> {
        let is_for_us = match &message {
            PeerMessage::FetchBoundaries(_)
            | PeerMessage::Boundaries(..)
            | PeerMessage::FetchManifest(_)
            | PeerMessage::Manifest(..)
            | PeerMessage::FetchChunk(..)
            | PeerMessage::Chunk(..) => true,
            PeerMessage::Range(..) => lock(&self.shared).wants_range,
            _ => false,
        };
        if !is_for_us {
            return Some(message);
        }
        if let Some(messages) = &self.messages {
            // Full or gone: what is lost is asked for again.
            let _ = messages.try_send((from, message));
        }
        None
    }

    /// Tells how far this node and the network are.
    pub fn heights(&self, executed: Height, network: Height) {
        let mut shared = lock(&self.shared);
        (shared.executed, shared.network) = (executed, network);
    }

    /// How far the snapshot under way has come; `None` if there is none.
    pub fn progress(&self) -> Option<Progress> {
        lock(&self.shared).progress
    }
}

impl Drop for SnapshotService {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was logged.
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one peer may still be sent, and what of it waits.
struct Account {
    bytes: u64,
    refilled: Instant,
    waiting: VecDeque<PeerMessage>,
}

struct Worker {
    setup: SnapshotSetup,
    shared: Arc<Mutex<Shared>>,
    joiner: Option<Joiner>,
    accounts: BTreeMap<PeerId, Account>,
    clock: Instant,
}

impl Worker {
    fn new(setup: SnapshotSetup, shared: Arc<Mutex<Shared>>) -> Result<Self, StorageError> {
        let genesis = &setup.genesis;
        let member = |member: &crate::configuration::genesis::Member| bizra_driver::Member {
            key: bizra_driver::PublicKey(member.public_key),
            power: member.power,
            reputation: bizra_simplex::Reputation::FULL,
        };
        let epoch_blocks = genesis.genesis.parameters.epoch_blocks;
        let chain = Chain {
            rules: crate::light::chain_rules(genesis),
            genesis: bizra_simplex::Block::genesis(genesis.hash, genesis.genesis.time_milliseconds),
            members: genesis.validators.iter().map(member).collect(),
            epoch_blocks,
            restarts: setup.restarts.clone(),
        };
        let policy = Policy {
            behind_blocks: setup.configuration.snapshot_behind_blocks,
            replaceable: setup.empty || !setup.archive,
            empty: setup.empty,
        };
        let joiner = if setup.configuration.snapshot {
            let joiner = Joiner::new(chain, setup.folders.clone(), policy);
            Some(joiner.map_err(|error| StorageError::Failed(format!("the genesis cannot be walked from: {error}")))?)
        } else {
            None
        };
        Ok(Self { setup, shared, joiner, accounts: BTreeMap::new(), clock: Instant::now() })
    }

    /// Until the node stops (`None`) or a whole snapshot is there.
    fn run(mut self, waiting: &Receiver<(PeerId, PeerMessage)>) -> Result<Option<()>, StorageError> {
        loop {
            let busy = self.accounts.values().any(|account| !account.waiting.is_empty())
                || lock(&self.shared).progress.is_some();
            let message = waiting.recv_timeout(if busy { BUSY_INTERVAL } else { IDLE_INTERVAL });
            let now = Millis(self.clock.elapsed().as_millis() as u64);
            match message {
                Ok((from, message)) => self.receive(now, from, message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
            self.serve()?;
            let around = self.surroundings();
            let Some(joiner) = &mut self.joiner else { continue };
            joiner.tick(now, &around)?;
            for (to, message) in joiner.take_sends() {
                self.setup.network.send(to, message.encode());
            }
            let (progress, wants_range) = (joiner.progress(), joiner.wants_range());
            let mut shared = lock(&self.shared);
            (shared.progress, shared.wants_range) = (progress, wants_range);
            if joiner.is_done() {
                return Ok(Some(()));
            }
        }
    }

    fn surroundings(&self) -> Surroundings {
        let (executed, network) = {
            let shared = lock(&self.shared);
            (shared.executed, shared.network)
        };
        Surroundings { executed, network, connected: self.setup.network.connected() }
    }

    fn receive(&mut self, now: Millis, from: PeerId, message: PeerMessage) -> Result<(), StorageError> {
        match message {
            PeerMessage::FetchBoundaries(_) | PeerMessage::FetchManifest(_) | PeerMessage::FetchChunk(..) => {
                let budget = self.setup.configuration.serve_bytes_per_second;
                let account = self.accounts.entry(from).or_insert_with(|| Account {
                    bytes: budget,
                    refilled: Instant::now(),
                    waiting: VecDeque::new(),
                });
                if account.waiting.len() < REQUESTS_PER_PEER_MAX {
                    account.waiting.push_back(message);
                }
            }
            answer => {
                let around = self.surroundings();
                if let Some(joiner) = &mut self.joiner {
                    joiner.receive(now, from, answer, &around)?;
                }
            }
        }
        Ok(())
    }

    /// Answers what the peers' budgets allow. An answer may overdraw a budget, once: it is bounded itself.
    fn serve(&mut self) -> Result<(), StorageError> {
        let budget = self.setup.configuration.serve_bytes_per_second;
        let mut answers = Vec::new();
        for (peer, account) in &mut self.accounts {
            let earned = account.refilled.elapsed().min(BURST).as_millis() as u64 * budget / 1_000;
            let most = budget.saturating_mul(BURST.as_secs());
            if earned > 0 {
                account.bytes = account.bytes.saturating_add(earned).min(most);
                account.refilled = Instant::now();
            }
            while account.bytes > 0
                && let Some(request) = account.waiting.pop_front()
            {
                let Some(answer) = answer(&self.setup, &request)? else { continue };
                let frame = answer.encode();
                let cost = frame.len() as u64;
                // What is owed delays the next answer.
                let debt = cost.saturating_sub(account.bytes);
                account.bytes = account.bytes.saturating_sub(cost);
                if debt > 0 {
                    account.refilled += Duration::from_millis(debt.saturating_mul(1_000) / budget.max(1));
                }
                answers.push((*peer, frame));
            }
        }
        let peers = self.setup.network.senders();
        for (peer, frame) in answers {
            peers.answer(peer, frame);
        }
        Ok(())
    }
}

fn answer(setup: &SnapshotSetup, request: &PeerMessage) -> Result<Option<PeerMessage>, StorageError> {
    Ok(match *request {
        PeerMessage::FetchBoundaries(first) => {
            let oldest = Height(LedgerReader::new(setup.database.clone()).oldest()?);
            let (mut links, mut bytes) = (Vec::new(), 0);
            for encoded in setup.blocks.links(first, BOUNDARIES_MAX)? {
                bytes += encoded.len();
                if bytes > BOUNDARIES_BYTES_MAX && !links.is_empty() {
                    break;
                }
                let link = Link::decode(encoded);
                links.push(link.map_err(|error| StorageError::Corrupt(format!("a stored link: {error}")))?);
            }
            Some(PeerMessage::Boundaries(oldest, first, links))
        }
        PeerMessage::FetchManifest(cutoff) => {
            let manifest = setup.store.manifest(cutoff.0);
            let hashes: Vec<Digest> = manifest.map(|manifest| manifest.hashes.clone()).unwrap_or_default();
            Some(PeerMessage::Manifest(cutoff, hashes))
        }
        PeerMessage::FetchChunk(cutoff, index) => {
            let chunk = setup.store.chunk(cutoff.0, index).unwrap_or_default();
            Some(PeerMessage::Chunk(cutoff, index, chunk.into()))
        }
        _ => None,
    })
}
