//! The driver's thread: collects what has happened, takes a turn, sends what came out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bizra_driver::signing_record::{Binding, SigningRecord};
use bizra_driver::wire::PeerMessage;
use bizra_driver::{
    Destination, DiskError, Driver, Fence, Halt, Input, Output, PublicKey, Restarts, Settings, Signing,
};
use bizra_proto::exit::{ExitReason, Termination};
use bizra_proto::v1::{PeerStatus, SigningState, SnapshotProgress, SyncState};
use bizra_simplex::types::{Digest, Epoch, Millis};
use bizra_simplex::{Protocol, Timing, Version};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::disk::{ExecutedBlocks, NodeDisk, disk_error};
use super::keys::NodeKeys;
use super::metrics::ConsensusMetrics;
use super::record_file::{RecordFile, RecordFileError};
use super::verifier::Verifier;
use crate::block::BlockStore;
use crate::blockchain::Ledger;
use crate::configuration::{LoadedGenesis, SyncConfiguration};
use crate::identity::{ConsensusKey, IdentityError, SignerFolder};
use crate::monitoring::StatusHandle;
use crate::network::{NetworkEvent, NetworkHandle, PeerId};
use crate::snapshot::{DatabaseFolders, Progress, SnapshotMaker, SnapshotService, SnapshotSetup, SnapshotStore};
use crate::storage::Database;
use crate::transaction::{ChainId, PackedBatch};

/// Inputs of one turn at most: keeps a turn short when much is waiting.
const INPUTS_PER_TURN_MAX: usize = 512;

/// A node this many blocks behind counts as catching up.
const IN_SYNC_BLOCKS: u64 = 3;

/// The longest sleep: also the longest silence of the status.
const WAKE_MAX: Duration = Duration::from_secs(1);

/// The status is renewed at most this often: whoever waits for it is woken each time, and turns are many.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// What can keep consensus from starting.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The signer folder refuses.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The signing record refuses.
    #[error(transparent)]
    Record(#[from] RecordFileError),
    /// The chain id cannot travel in transactions.
    #[error("the genesis has no valid chain id")]
    ChainId,
    /// A restart is pinned, and the key could still sign in an epoch before it.
    #[error(
        "a restart with epoch {0} is pinned, and the floor of the signing record is in epoch {1}: the record is an older \
         copy, or the pin was copied here; this key must not sign"
    )]
    FloorNotRaised(Epoch, Epoch),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The driver stopped.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The driver's thread died.
    #[error("the consensus thread panicked: a bug; the node stops so that nothing unsafe is sent")]
    Panicked,
}

impl From<ConsensusError> for Termination {
    fn from(error: ConsensusError) -> Self {
        let reason = match &error {
            ConsensusError::Identity(error) => error.reason(),
            ConsensusError::Record(RecordFileError::Refused(_) | RecordFileError::Missing(_))
            | ConsensusError::FloorNotRaised(..)
            | ConsensusError::Halt(Halt::Record(_)) => ExitReason::SigningRecordRefused,
            ConsensusError::Halt(Halt::Disk(DiskError::Corrupt(_)) | Halt::Diverged(_)) => ExitReason::DatabaseCorrupt,
            ConsensusError::Halt(Halt::SignedElsewhere(..)) => ExitReason::SignedElsewhere,
            ConsensusError::Halt(Halt::UpgradeRequired { .. }) => ExitReason::UpgradeRequired,
            ConsensusError::ChainId | ConsensusError::Halt(Halt::Disk(DiskError::Restart(_))) => {
                ExitReason::WrongGenesis
            }
            ConsensusError::Record(RecordFileError::Io { .. })
            | ConsensusError::Halt(Halt::Disk(DiskError::Failed(_)))
            | ConsensusError::Thread(_)
            | ConsensusError::Panicked => ExitReason::StorageFailed,
        };
        Self { reason, message: error.to_string() }
    }
}

/// Everything consensus is made of.
pub struct ConsensusSetup {
    /// The chain.
    pub genesis: Arc<LoadedGenesis>,
    /// The restarts of the chain that are pinned here.
    pub restarts: Restarts,
    /// Where the signing record lives.
    pub signer: SignerFolder,
    /// The node's consensus key.
    pub key: Arc<ConsensusKey>,
    /// Identity of the volume; see S1.
    pub volume_id: String,
    /// The highest version of the protocol this node goes by (PROTOCOL P1).
    pub supported: Protocol,
    /// Whether this node may sign at all.
    pub fence: Fence,
    /// The node's database.
    pub database: Database,
    /// Its blocks.
    pub blocks: BlockStore,
    /// Its ledger.
    pub ledger: Ledger,
    /// Where executed blocks go.
    pub executed: ExecutedBlocks,
    /// Snapshots for peers.
    pub snapshots: SnapshotStore,
    /// The database's folders.
    pub folders: DatabaseFolders,
    /// How to come to the present.
    pub sync: SyncConfiguration,
    /// True if the node keeps everything.
    pub archive: bool,
    /// True if the database was made by this start.
    pub empty: bool,
    /// The sending side of the network.
    pub network: NetworkHandle,
    /// What the network brings.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// Payloads of the transaction pool.
    pub payloads: mpsc::Receiver<PackedBatch>,
    /// Where the node's picture of itself goes.
    pub status: StatusHandle,
    /// Metrics.
    pub metrics: ConsensusMetrics,
}

/// Why the thread ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// A snapshot from peers waits to become the database, with the next start.
    SnapshotReady,
}

/// The running thread.
pub struct Consensus {
    thread: JoinHandle<Result<Ended, ConsensusError>>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Consensus {
    /// Starts the thread. Recovery happens there; failures come out of [`Self::ended`] and [`Self::stop`].
    pub fn start(setup: ConsensusSetup) -> Result<Self, ConsensusError> {
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("consensus".to_owned()).spawn(move || {
            let result = run(setup, stopped);
            // The receiver is gone only when the node is stopping anyway.
            let _ = end.send(());
            result
        })?;
        Ok(Self { thread, stop, ended })
    }

    /// Waits until the thread ends by itself: a failure, or a snapshot that is ready.
    pub async fn ended(&mut self) {
        // An error means the thread died without a word.
        let _ = (&mut self.ended).await;
    }

    /// Ends the thread after its turn and returns why it had ended, if it had.
    pub fn stop(self) -> Result<Ended, ConsensusError> {
        // The thread may have ended already.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(Err(ConsensusError::Panicked))
    }
}

fn run(setup: ConsensusSetup, stopped: oneshot::Receiver<()>) -> Result<Ended, ConsensusError> {
    // A test of what watching nodes see: this one does not believe its peers that its key signs elsewhere (S5).
    #[cfg(feature = "planted")]
    bizra_simplex::planted::plant(
        std::env::var_os("BIZRA_PLANTED").map(|_| bizra_simplex::planted::Bug::ClaimUnchecked),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(turns(setup, stopped))
}

/// What the record of a key on this volume belongs to (PROTOCOL S1).
pub(crate) fn binding(genesis_hash: Digest, volume_id: &str, public_key: [u8; 32]) -> Binding {
    Binding { genesis_hash, volume: Digest(Sha256::digest(volume_id.as_bytes()).into()), public_key }
}

/// Opens the record of a validator; on the first start of its key makes it.
pub(crate) fn open_record(
    signer: &SignerFolder,
    binding: &Binding,
) -> Result<(RecordFile, SigningRecord), ConsensusError> {
    let path = signer.record_path();
    if signer.may_make_record() {
        RecordFile::create(&path, binding)?;
        signer.record_made()?;
    }
    Ok(RecordFile::open(Path::new(&path), binding)?)
}

/// True if the record of this key refuses for good: what was signed with it is not known any more.
pub(crate) fn is_record_refused(signer: &SignerFolder, binding: &Binding) -> Result<bool, ConsensusError> {
    if signer.may_make_record() {
        return Ok(false);
    }
    match RecordFile::read(&signer.record_path(), binding) {
        Ok(_) => Ok(false),
        Err(RecordFileError::Missing(_) | RecordFileError::Refused(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

async fn turns(setup: ConsensusSetup, mut stopped: oneshot::Receiver<()>) -> Result<Ended, ConsensusError> {
    let ConsensusSetup {
        genesis,
        restarts,
        signer,
        key,
        volume_id,
        supported,
        fence,
        database,
        blocks,
        ledger,
        executed,
        snapshots,
        folders,
        sync,
        archive,
        empty,
        network,
        mut events,
        mut payloads,
        status,
        metrics,
    } = setup;
    let settings = Settings {
        genesis_hash: genesis.hash,
        timing: Timing::default(),
        epoch_blocks: Some(genesis.genesis.parameters.epoch_blocks),
        supported,
        // Nobody has proven a key yet. Until they have, nobody counts as a validator, whatever its name.
        nodes: BTreeMap::new(),
        restarts,
        fence,
    };
    // Who is no validator now may be one in a later epoch.
    let binding = binding(genesis.hash, &volume_id, key.public_key());
    let (file, record) = open_record(&signer, &binding)?;
    if let Some(restart) = settings.restarts.last().filter(|restart| record.floor().0 < restart.epoch) {
        return Err(ConsensusError::FloorNotRaised(restart.epoch, record.floor().0));
    }
    let keys = NodeKeys::new(key);
    let chain = ChainId::new(&genesis.genesis.chain_id).ok_or(ConsensusError::ChainId)?;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let made = answers.clone();
    let (verifier, _thread) = Verifier::start(chain, answers)?;
    let clock = Instant::now();
    let now = || Millis(clock.elapsed().as_millis() as u64);
    // A vote may wait for a snapshot: a tick makes the driver look again.
    let made = Box::new(move || {
        let _ = made.send(Input::Tick);
    });
    let maker = SnapshotMaker::start(database.clone(), snapshots.clone(), made)?;
    let (ready, mut snapshot_ready) = oneshot::channel();
    let service = SnapshotSetup {
        genesis: Arc::clone(&genesis),
        restarts: settings.restarts.clone(),
        configuration: sync,
        archive,
        empty,
        database: database.clone(),
        blocks: blocks.clone(),
        store: snapshots.clone(),
        folders,
        network: network.clone(),
    };
    let service = SnapshotService::start(service, ready)?;
    let disk = NodeDisk::new(database, blocks, ledger, Some(file), executed, metrics.clone(), (snapshots, maker))?;

    let (mut driver, mut output) = Driver::start(settings, disk, keys, Some(record), now(), wall_clock())?;
    tracing::info!(
        height = driver.core().anchor().height().0,
        view = driver.core().view().0,
        epoch = driver.core().config().epoch.0,
        validator = driver.core().config().me.map(|index| index.0),
        "consensus started"
    );
    let mut status_due = Instant::now();
    loop {
        let mut sleep = output.wake.map_or(WAKE_MAX, |wake| Duration::from_millis(wake.0.saturating_sub(now().0)));
        dispatch(output, &network, &verifier, &metrics);
        let until_status = status_due.saturating_duration_since(Instant::now());
        if until_status.is_zero() {
            let progress = service.progress();
            driver.pause_ranges(progress.is_some());
            service.heights(driver.executed(), driver.network_height());
            publish(&driver, supported, &network, &status, &metrics, progress);
            status_due = Instant::now() + STATUS_INTERVAL;
        } else {
            sleep = sleep.min(until_status);
        }
        let mut inputs = Vec::new();
        tokio::select! {
            biased;
            _ = &mut stopped => return Ok(Ended::Stopped),
            Ok(result) = &mut snapshot_ready => {
                result.map_err(|error| Halt::Disk(disk_error(error)))?;
                return Ok(Ended::SnapshotReady);
            }
            Some(input) = answered.recv() => inputs.push(input),
            Some(event) = events.recv() => inputs.extend(input(event, &network, &service, &metrics)),
            Some(batch) = payloads.recv() => inputs.push(Input::Payload(batch.payload)),
            () = tokio::time::sleep(sleep.min(WAKE_MAX)) => {}
        }
        while inputs.len() < INPUTS_PER_TURN_MAX {
            if let Ok(input) = answered.try_recv() {
                inputs.push(input);
            } else if let Ok(event) = events.try_recv() {
                inputs.extend(input(event, &network, &service, &metrics));
            } else if let Ok(batch) = payloads.try_recv() {
                inputs.push(Input::Payload(batch.payload));
            } else {
                break;
            }
        }
        inputs.push(Input::Tick);
        metrics.turns.inc();
        let timer = metrics.turn_seconds.start_timer();
        output = driver.turn(now(), wall_clock(), inputs)?;
        timer.observe_duration();
    }
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

fn dispatch(output: Output, network: &NetworkHandle, verifier: &Verifier, metrics: &ConsensusMetrics) {
    let peers = network.senders();
    for (destination, message) in output.sends {
        let frame = message.encode();
        match destination {
            Destination::All => peers.broadcast(frame),
            Destination::One(node) if message.is_question() => peers.send(PeerId(node), frame),
            // Nothing but questions and answers goes to one node.
            Destination::One(node) => peers.answer(PeerId(node), frame),
        }
    }
    for batch in output.verify {
        if !verifier.check(batch) {
            tracing::error!("the verifier thread is gone");
        }
    }
    for node in output.blamed {
        network.malformed(PeerId(node), &"it signed an invalid batch, or sent an invalid signature");
    }
    for (first, second) in output.evidence {
        metrics.evidence.inc();
        tracing::error!(validator = first.signer.0, ?first, ?second, "contradicting votes");
    }
}

fn publish(
    driver: &Driver<NodeDisk, NodeKeys>,
    supported: Protocol,
    network: &NetworkHandle,
    status: &StatusHandle,
    metrics: &ConsensusMetrics,
    snapshot: Option<Progress>,
) {
    let core = driver.core();
    let anchor = core.anchor();
    let network_height = driver.network_height();
    let behind = network_height.0.saturating_sub(driver.executed().0);
    metrics.finalized_height.set(anchor.height().0.cast_signed());
    metrics.view.set(core.view().0.cast_signed());
    metrics.unordered_batches.set((driver.unordered_batches() as u64).cast_signed());
    let newer = Version(supported.version().0.saturating_add(1));
    let newer_power = driver.disk().power_signalling(newer);
    metrics.protocol_version.set(i64::from(core.config().protocol.version().0));
    metrics.supported_version.set(i64::from(supported.version().0));
    metrics.newer_power.set(newer_power.cast_signed());
    let peers = network.peers();
    status.update(|status| {
        status.epoch = core.config().epoch.0;
        status.view = core.view().0;
        status.finalized_height = anchor.height().0;
        status.finalized_hash = anchor.digest.to_string();
        status.network_height = network_height.0;
        status.last_voted_height = driver.last_voted().0;
        status.protocol_version = core.config().protocol.version().0;
        status.supported_protocol_version = supported.version().0;
        status.newer_protocol_power = newer_power;
        status.total_power = core.config().validators.total().0;
        status.power = core.config().me.and_then(|me| core.config().validators.power(me)).map_or(0, |power| power.0);
        status.set_sync_state(match () {
            () if snapshot.is_some() => SyncState::CatchingUp,
            () if !driver.knows_network() => SyncState::Starting,
            () if behind > IN_SYNC_BLOCKS => SyncState::CatchingUp,
            () => SyncState::InSync,
        });
        status.snapshot =
            snapshot.map(|Progress { height, chunks, chunks_total }| SnapshotProgress { height, chunks, chunks_total });
        status.set_signing_state(match driver.signing() {
            Signing::NotAValidator => SigningState::NotAValidator,
            Signing::Locked => SigningState::Locked,
            Signing::Allowed => SigningState::Allowed,
            Signing::Fenced => SigningState::Fenced,
        });
        status.peers = peers
            .into_iter()
            .map(|peer| PeerStatus {
                node_name: peer.name,
                connected: peer.connected,
                finalized_height: driver.reported_height(peer.id.0).0,
                public_key: peer.public_key.map(hex::encode).unwrap_or_default(),
            })
            .collect();
    });
}

/// What an event of the network is to the driver, which knows peers by the network's numbers.
fn input(
    event: NetworkEvent,
    network: &NetworkHandle,
    service: &SnapshotService,
    metrics: &ConsensusMetrics,
) -> Option<Input> {
    match event {
        NetworkEvent::Frame(inbound) => {
            let from = inbound.from;
            match PeerMessage::decode(inbound.frame) {
                Ok(question) if question.is_question() && !network.may_ask(from) => None,
                Ok(message) => service.take(from, message).map(|message| Input::Message(from.0, message)),
                Err(error) => {
                    metrics.malformed_frames.inc();
                    network.malformed(from, &error);
                    None
                }
            }
        }
        // A last word of a peer that was removed meanwhile is not one of a peer.
        NetworkEvent::Proven(peer, key) => {
            let name = network.name(peer)?;
            tracing::info!(peer = name, public_key = hex::encode(key), "a peer has proven its consensus key");
            Some(Input::Holder(peer.0, Some(PublicKey(key))))
        }
        NetworkEvent::Removed(peer) => Some(Input::Holder(peer.0, None)),
        NetworkEvent::Connected(_) | NetworkEvent::Disconnected(_) => None,
    }
}
