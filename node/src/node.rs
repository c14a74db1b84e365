//! A whole node in one process: every context, wired through its handle.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bizra_driver::Fence;
use bizra_proto::exit::{ExitReason, Termination};
use bizra_proto::v1::NodeStatus;
use bizra_simplex::types::Height;
use bizra_simplex::{Block, Protocol};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::block::BlockStore;
use crate::blockchain::{BlockOutcome, Ledger, LedgerError, LedgerMetrics, LedgerReader};
use crate::configuration::{Configuration, ListenConfiguration, LoadedGenesis, SigningConfiguration};
use crate::consensus::{Consensus, ConsensusError, ConsensusMetrics, ConsensusSetup, Ended};
use crate::event_store;
use crate::gateway::{Gateway, GatewayError, GatewayMetrics, ledger_endpoint, serve_grpc, serve_http};
use crate::identity::SignerFolder;
use crate::monitoring::status::readiness;
use crate::monitoring::{MonitoringEndpoint, StatusHandle};
use crate::network::admin::AdminEndpoint;
use crate::network::{Network, NetworkConfig, NetworkError, TlsMaterial};
use crate::recovery::{PinnedRestarts, RecoveryError};
use crate::retention::Pruner;
use crate::snapshot::{DatabaseFolders, SnapshotStore};
use crate::storage::{Database, StorageError};
use crate::transaction::{ChainId, TransactionMetrics, TransactionPool};

/// Frames of peers waiting for the driver; peers are pressed back beyond. Room for what one peer may have unconsumed in all
/// its lanes, and as much again, so that a peer that floods does not take the others' places.
const EVENTS_WAITING_MAX: usize = 8_192;

/// How often the configuration file is looked at for new peers and for a fence.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);

/// A volume with less free bytes is full.
const FULL_BYTES: u64 = 16 << 20;

/// Payloads waiting for the driver; submissions are told to come again beyond.
const PAYLOADS_WAITING_MAX: usize = 64;

/// The parts of a running node, in the order in which they stop.
pub struct Node {
    shutdown: watch::Sender<bool>,
    servers: Vec<JoinHandle<Result<(), GatewayError>>>,
    consensus: Consensus,
    admin: AdminEndpoint,
    network: Network,
    monitoring: MonitoringEndpoint,
    status: StatusHandle,
    pruner: Pruner,
    data_dir: PathBuf,
    /// What the configuration file says of signing now.
    signing: watch::Receiver<SigningConfiguration>,
}

impl Node {
    /// Checks everything, opens everything, and returns when the node takes part. Nothing is left running on an error. The
    /// file is the one the configuration was read from; new peers in it are taken up while the node runs.
    pub async fn start(configuration: Configuration, configuration_file: &Path) -> Result<Self, Termination> {
        Self::start_supporting(configuration, configuration_file, Protocol::LATEST).await
    }

    /// The same for a node that goes by no higher version of the protocol than `supported`, as one that was not upgraded.
    pub async fn start_supporting(
        configuration: Configuration,
        configuration_file: &Path,
        supported: Protocol,
    ) -> Result<Self, Termination> {
        let genesis = Arc::new(LoadedGenesis::load(&configuration.genesis_file)?);
        let signer = SignerFolder::open(&configuration.data_dir, &configuration.volume_id)?;
        signer.pin_genesis(genesis.hash)?;
        let restarts = PinnedRestarts::load(&signer, &genesis)?;
        let chain = ChainId::new(&genesis.genesis.chain_id).ok_or(ConsensusError::ChainId)?;
        refuse_unsigned_in_public(&chain, &configuration.listen)?;
        let consensus_key = Arc::new(signer.consensus_key()?);
        let public_key = consensus_key.public_key();
        let is_validator = genesis.index_of_key(&public_key).is_some() || restarts.names_key(&public_key);
        let status = StatusHandle::new(NodeStatus {
            node_name: configuration.node_name.clone(),
            chain_id: genesis.genesis.chain_id.clone(),
            genesis_hash: genesis.hash.to_string(),
            public_key: hex::encode(public_key),
            ..NodeStatus::default()
        });

        let registry = crate::monitoring::registry().map_err(|error| metrics_error(&error))?;
        let metrics = ConsensusMetrics::new(&registry).map_err(|error| metrics_error(&error))?;
        let ledger_metrics = LedgerMetrics::new(&registry).map_err(|error| metrics_error(&error))?;
        let transaction_metrics = TransactionMetrics::new(&registry).map_err(|error| metrics_error(&error))?;
        let gateway_metrics = GatewayMetrics::new(&registry).map_err(|error| metrics_error(&error))?;
        // First of all, so that probes are answered while the database opens.
        let monitoring =
            MonitoringEndpoint::start(configuration.listen.monitoring, registry.clone(), status.clone()).await?;
        let tls = TlsMaterial::load(configuration.tls.files(), signer.tls_key()?, &configuration.node_name)?;

        let folders = DatabaseFolders::new(&configuration.data_dir);
        let genesis_block = Block::genesis(genesis.hash, genesis.genesis.time_milliseconds);
        let data_dir = configuration.data_dir.clone();
        let rebuild = |error: StorageError| rebuild_hint(error.into(), &data_dir);
        folders.settle(&genesis_block)?;
        // A snapshot on its way means that this database had nothing that it may not take the place of.
        let unfinished = folders.joining().exists();
        let database = Database::open(&folders.database()).map_err(rebuild)?;
        let blocks = BlockStore::open(database.clone(), genesis_block).map_err(rebuild)?;
        restarts.check_blocks(&blocks)?;
        let ledger = Ledger::open(database.clone(), &genesis.genesis, genesis.hash, ledger_metrics)
            .map_err(|error| rebuild_hint(error.into(), &data_dir))?
            .with_restarts(restarts.ledger());
        folders.unmark_corrupt()?;
        let empty = unfinished || ledger.executed() == Height(0);
        let snapshots = SnapshotStore::open(&folders.snapshots()).map_err(StorageError::from)?;

        let (event_sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let network_config = NetworkConfig {
            node_name: configuration.node_name.clone(),
            genesis_hash: restarts.domain(),
            consensus_key: Arc::clone(&consensus_key),
            listen: configuration.listen.peer,
            peers: configuration.peers.clone(),
        };
        let mut network = Network::start(network_config, tls.clone(), &registry, event_sender).await?;
        let signing = network.follow(configuration_file.to_owned(), configuration.clone(), FOLLOW_INTERVAL);
        let data_dir = configuration.data_dir.clone();
        let key = Arc::clone(&consensus_key);
        let admin = AdminEndpoint::start(configuration.listen.admin, tls, status.clone(), key, data_dir).await?;
        let grpc = bind("grpc", configuration.listen.grpc).await?;
        let http = bind("http", configuration.listen.http).await?;

        let (outbound, payloads) = mpsc::channel(PAYLOADS_WAITING_MAX);
        let fence = match configuration.signing {
            SigningConfiguration::Allowed => Fence::Open,
            SigningConfiguration::Fenced => Fence::Closed,
        };
        // Batches need a signature, too, of a key in the set: others join it, and leave it, while they run.
        let orders = follow(status.clone(), move |status| {
            let is_member = if status.total_power == 0 { is_validator } else { status.power > 0 };
            is_member && fence == Fence::Open
        });
        let reader = LedgerReader::new(database.clone());
        let pool = TransactionPool::start(chain, reader.clone(), outbound, orders, transaction_metrics)?;
        let finality = pool.clone();
        let (event_writer, event_log) = event_store::open(database.clone(), Arc::new(blocks.clone()))?;
        let pruner =
            Pruner::start(configuration.retention, database.clone(), blocks.clone()).map_err(ConsensusError::from)?;
        let consensus = Consensus::start(ConsensusSetup {
            genesis: Arc::clone(&genesis),
            restarts: restarts.consensus(),
            signer,
            key: consensus_key,
            volume_id: configuration.volume_id,
            supported,
            fence,
            database,
            blocks: blocks.clone(),
            ledger,
            executed: Box::new(move |outcome: Arc<BlockOutcome>| {
                finality.on_finalized(&outcome);
                event_writer.applied(outcome.height);
            }),
            snapshots,
            folders,
            sync: configuration.sync,
            archive: configuration.retention.archive,
            empty,
            network: network.handle(),
            events,
            payloads,
            status: status.clone(),
            metrics,
        })?;

        let gateway = Gateway::new(chain, genesis.hash, pool, reader, Arc::new(blocks), event_log, gateway_metrics);
        admin.open_ledger(ledger_endpoint(gateway.clone()));
        let (shutdown, stopping) = watch::channel(false);
        let ready = follow(status.clone(), |status| readiness(status).is_ok());
        let servers = vec![
            tokio::spawn(serve_grpc(gateway.clone(), grpc, ready, stopped(stopping.clone()))),
            tokio::spawn(serve_http(gateway, http, stopped(stopping))),
        ];
        let data_dir = configuration.data_dir;
        Ok(Self { shutdown, servers, consensus, admin, network, monitoring, status, pruner, data_dir, signing })
    }

    /// The node's picture of itself.
    pub fn status(&self) -> &StatusHandle {
        &self.status
    }

    /// Starts a node and runs it until `stop` resolves. When a snapshot from peers is ready it takes the place of the
    /// database, and the node starts on it. A fence that is set or lifted in the configuration file is a new start, too, so
    /// that a key which may sign again has asked its peers what it has signed (S5).
    pub async fn run(
        configuration: Configuration,
        configuration_file: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Termination> {
        let data_dir = configuration.data_dir.clone();
        let folders = DatabaseFolders::new(&data_dir);
        let result = Self::run_again(configuration, configuration_file, stop).await;
        let result = result.map_err(|termination| tell_full_volume(termination, &data_dir));
        if result.as_ref().is_err_and(|termination| termination.reason == ExitReason::DatabaseCorrupt)
            && let Err(error) = folders.mark_corrupt()
        {
            tracing::warn!(%error, "the damaged database cannot be marked; a reset has to be asked for without `--if-corrupt`");
        }
        result
    }

    async fn run_again(
        mut configuration: Configuration,
        configuration_file: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Termination> {
        let mut stop = std::pin::pin!(stop);
        loop {
            let node = Self::start(configuration.clone(), configuration_file).await?;
            let mut wish = node.signing.clone();
            let mut told_to_stop = false;
            let until = async {
                tokio::select! {
                    () = stop.as_mut() => told_to_stop = true,
                    Ok(wish) = wish.wait_for(|wish| *wish != configuration.signing) => {
                        tracing::warn!(signing = ?*wish, "the configuration says something else of signing: starting anew");
                    }
                }
            };
            node.run_until(until).await?;
            if told_to_stop {
                return Ok(());
            }
            configuration.signing = *wish.borrow();
        }
    }

    /// Runs until `stop` resolves or consensus ends by itself, then stops everything in order: no new submissions, then
    /// consensus after its turn, then the rest.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<Ended, Termination> {
        tokio::select! {
            () = stop => tracing::info!("stopping"),
            () = self.consensus.ended() => {}
        }
        self.shutdown.send_replace(true);
        let consensus = self.consensus;
        let pruner = self.pruner;
        // Joining waits for the driver's turn, which may wait for a disk.
        let ended = tokio::task::spawn_blocking(move || {
            drop(pruner);
            consensus.stop()
        })
        .await;
        for server in self.servers {
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "a server did not stop cleanly");
            }
        }
        self.network.shutdown().await;
        self.admin.shutdown().await;
        self.monitoring.shutdown().await;
        let data_dir = self.data_dir;
        ended
            .unwrap_or(Err(ConsensusError::Panicked))
            .map_err(|error| rebuild_hint(Termination::from(error), &data_dir))
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means the sender is gone, and the node with it.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Whether something holds by the node's picture of itself, as a channel.
fn follow(status: StatusHandle, holds: impl Fn(&NodeStatus) -> bool + Send + Sync + 'static) -> watch::Receiver<bool> {
    let mut held = holds(&status.current());
    let (sender, receiver) = watch::channel(held);
    tokio::spawn(async move {
        while !sender.is_closed() {
            let was = held;
            status.wait_for(|status| holds(status) != was).await;
            held = !was;
            sender.send_replace(held);
        }
    });
    receiver
}

async fn bind(purpose: &'static str, address: SocketAddr) -> Result<TcpListener, NetworkError> {
    TcpListener::bind(address).await.map_err(|source| NetworkError::Bind { purpose, address, source })
}

/// A chain without signatures is for measuring, on one machine.
fn refuse_unsigned_in_public(chain: &ChainId, listen: &ListenConfiguration) -> Result<(), Termination> {
    let ListenConfiguration { peer, grpc, http, admin, monitoring } = listen;
    if chain.is_signed() || [peer, grpc, http, admin, monitoring].into_iter().all(|address| address.ip().is_loopback())
    {
        return Ok(());
    }
    let message = format!("chain {chain} checks no signatures: a node of it may listen on loopback addresses only");
    Err(Termination { reason: ExitReason::InvalidConfiguration, message })
}

fn metrics_error(error: &prometheus::Error) -> Termination {
    Termination { reason: ExitReason::InvalidConfiguration, message: format!("metrics cannot be registered: {error}") }
}

/// A write that failed on a volume with next to nothing left failed for that.
fn tell_full_volume(termination: Termination, data_dir: &Path) -> Termination {
    let Ok(volume) = rustix::fs::statvfs(data_dir) else { return termination };
    let (total, free) =
        (volume.f_blocks.saturating_mul(volume.f_frsize), volume.f_bavail.saturating_mul(volume.f_frsize));
    if termination.reason != ExitReason::StorageFailed || !is_full(total, free) {
        return termination;
    }
    let message = format!("{}; {free} bytes of {total} are free: the volume has to grow", termination.message);
    Termination { reason: ExitReason::VolumeFull, message }
}

/// A database writes files of megabytes at once, so it is stopped a little before the last byte.
fn is_full(total: u64, free: u64) -> bool {
    free < FULL_BYTES || free.saturating_mul(50) < total
}

/// Names the command that helps if the database is damaged.
fn rebuild_hint(termination: Termination, data_dir: &Path) -> Termination {
    let Termination { reason, message } = termination;
    let message = match reason {
        ExitReason::DatabaseCorrupt => format!(
            "{message}; `bizra-node reset-database --data-dir {}` sets the database aside, and the next start makes it anew \
             from peers; keys and signing record stay",
            data_dir.display()
        ),
        _ => message,
    };
    Termination { reason, message }
}

impl From<RecoveryError> for Termination {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Configuration(error) => error.into(),
            RecoveryError::Identity(error) => error.into(),
            RecoveryError::Record(error) => error.into(),
            RecoveryError::Storage(error) => error.into(),
            RecoveryError::Ledger(error) => error.into(),
            error => Self { reason: ExitReason::WrongGenesis, message: error.to_string() },
        }
    }
}

impl From<LedgerError> for Termination {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Storage(error) => error.into(),
            LedgerError::Genesis(_) | LedgerError::AnotherChain { .. } => {
                Self { reason: ExitReason::WrongGenesis, message: error.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transaction::OPAQUE_CHAIN;

    #[test]
    fn a_volume_is_full_a_little_before_its_last_byte() {
        let gibibyte = 1 << 30;
        assert!(is_full(gibibyte, 0) && is_full(gibibyte, gibibyte / 51) && is_full(100 << 20, 15 << 20));
        assert!(!is_full(gibibyte, gibibyte / 10));
    }

    #[test]
    fn a_chain_without_signatures_is_never_served_to_others() {
        let loopback: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let private = ListenConfiguration {
            peer: loopback,
            grpc: loopback,
            http: loopback,
            admin: loopback,
            monitoring: loopback,
        };
        let public = ListenConfiguration { grpc: "0.0.0.0:1".parse().unwrap(), ..private.clone() };
        let (opaque, signed) = (ChainId::new(OPAQUE_CHAIN).unwrap(), ChainId::new("demo-1").unwrap());
        assert!(refuse_unsigned_in_public(&opaque, &private).is_ok());
        assert!(refuse_unsigned_in_public(&opaque, &public).is_err());
        assert!(refuse_unsigned_in_public(&signed, &public).is_ok());
    }
}
