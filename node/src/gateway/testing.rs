//! A node for tests: the real ledger, pool and servers, with an order of one's own instead of consensus.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bizra_driver::batch::Batch;
use bizra_proto::ceremony::{Genesis, GenesisAccount};
use bizra_proto::parameters::Parameters;
use bizra_simplex::block::Block;
use bizra_simplex::types::{Epoch, Signature, ValidatorIndex};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::blockchain::{BlockOutcome, Ledger, LedgerMetrics};
use crate::event_store;
use crate::storage::Database;
use crate::transaction::{PackedBatch, TransactionMetrics};
use tokio::net::TcpListener;

/// Name of the chain of the node.
pub(crate) const CHAIN: &str = "demo-1";

#[derive(Default)]
struct Blocks {
    blocks: Mutex<Vec<BlockView>>,
    payloads: Mutex<HashMap<Digest, Bytes>>,
}

impl BlockReader for Blocks {
    fn block(&self, Height(height): Height) -> Result<Option<BlockView>, StorageError> {
        Ok(self.blocks.lock().unwrap().get(height as usize).cloned())
    }

    fn finalized(&self) -> (Height, Digest) {
        self.blocks.lock().unwrap().last().map(|block| (block.height, block.hash)).unwrap_or_default()
    }

    fn batch_payload(&self, batch: &Digest) -> Result<Option<Bytes>, StorageError> {
        Ok(self.payloads.lock().unwrap().get(batch).cloned())
    }

    // Nobody votes here, so nothing is certified.
    fn epoch_links(&self, _: Epoch, _: usize) -> Result<Vec<Bytes>, StorageError> {
        Ok(Vec::new())
    }

    fn finalised_headers(&self, _: Height) -> Result<Option<Headers>, StorageError> {
        Ok(None)
    }

    fn header_naming(&self, _: Height, _: Height) -> Result<Option<Height>, StorageError> {
        Ok(None)
    }
}

/// A running node and its addresses.
pub(crate) struct OneNode {
    pub(crate) grpc: String,
    pub(crate) http: SocketAddr,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    ordering: Option<JoinHandle<()>>,
    _ready: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl OneNode {
    pub(crate) async fn start(accounts: Vec<GenesisAccount>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        let validators = Vec::new();
        let genesis = Genesis {
            version: 1,
            chain_id: CHAIN.to_owned(),
            time_milliseconds: 0,
            validators,
            accounts,
            parameters: Parameters::default(),
        };
        let registry = prometheus::Registry::new();
        let ledger =
            Ledger::open(database.clone(), &genesis, Digest([6; 32]), LedgerMetrics::new(&registry).unwrap()).unwrap();
        let (sender, batches) = mpsc::channel(16);
        let chain = ChainId::new(CHAIN).unwrap();
        let reader = LedgerReader::new(database.clone());
        let metrics = TransactionMetrics::new(&registry).unwrap();
        let pool = TransactionPool::start(chain, reader.clone(), sender, watch::channel(true).1, metrics).unwrap();
        let blocks = Arc::new(Blocks::default());
        let metrics = GatewayMetrics::new(&registry).unwrap();
        let (writer, events) = event_store::open(database.clone(), blocks.clone()).unwrap();
        let gateway = Gateway::new(chain, Digest([6; 32]), pool.clone(), reader, blocks.clone(), events, metrics);
        let stopping = Arc::new(AtomicBool::new(false));
        let stopping_too = Arc::clone(&stopping);
        let executed = move |outcome: &BlockOutcome| {
            pool.on_finalized(outcome);
            writer.applied(outcome.height);
        };
        let ordering = std::thread::spawn(move || order(&database, ledger, &executed, &blocks, batches, &stopping_too));

        let (stop, stopped) = watch::channel(false);
        let shutdown = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|&stopped| stopped).await;
        };
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (http_address, grpc_address) = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        tokio::spawn(serve_http(gateway.clone(), http, shutdown(stopped.clone())));
        let (ready, readiness) = watch::channel(true);
        tokio::spawn(serve_grpc(gateway, grpc, readiness, shutdown(stopped)));
        Self {
            grpc: format!("http://{grpc_address}"),
            http: http_address,
            stop,
            stopping,
            ordering: Some(ordering),
            _ready: ready,
            _folder: folder,
        }
    }
}

impl Drop for OneNode {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // A database that is still open in a thread when the process ends crashes its clean-up.
        self.stopping.store(true, Ordering::Relaxed);
        self.ordering.take().unwrap().join().unwrap();
    }
}

fn order(
    database: &Database,
    mut ledger: Ledger,
    executed: &impl Fn(&BlockOutcome),
    blocks: &Blocks,
    mut batches: mpsc::Receiver<PackedBatch>,
    stopping: &AtomicBool,
) {
    let mut parent = Digest([6; 32]);
    let view = |block: &Block| BlockView {
        height: block.height,
        hash: block.digest(),
        parent: block.parent,
        time_milliseconds: block.time_milliseconds,
        epoch: block.epoch,
        checkpoint: block.checkpoint,
        next_validators: block.boundary.map(|boundary| boundary.validators),
        batches: block.batches.clone(),
        view: block.height.0 + 1,
    };
    blocks.blocks.lock().unwrap().push(view(&Block::genesis(parent, 0)));
    let mut sequence = 0;
    while !stopping.load(Ordering::Relaxed) {
        let Ok(PackedBatch { payload }) = batches.try_recv() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        sequence += 1;
        let height = ledger.executed().next();
        let (epoch, origin) = (Epoch(0), ValidatorIndex(0));
        let batch = Batch { epoch, origin, sequence, payload, signature: Signature([0; 64]) };
        let digest = batch.digest(Digest([6; 32]));
        let genesis = Block::genesis(parent, sequence);
        let block = Block { height, batches: vec![digest], ..genesis };
        let mut writes = database.writes();
        let outcome = ledger.execute(&block, std::slice::from_ref(&batch), &mut writes).unwrap();
        event_store::append(&mut writes, &outcome).unwrap();
        writes.commit_unsynced().unwrap();
        parent = outcome.hash;
        blocks.payloads.lock().unwrap().insert(digest, batch.payload);
        blocks.blocks.lock().unwrap().push(view(&block));
        executed(&outcome);
    }
}
