//! Whole requests over REST: path, query and body, against the node's own router and an empty ledger.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri};
use bizra_node::block::BlockStore;
use bizra_node::blockchain::{Ledger, LedgerMetrics, LedgerReader};
use bizra_node::event_store;
use bizra_node::gateway::{Gateway, GatewayMetrics, router};
use bizra_node::storage::Database;
use bizra_node::transaction::{ChainId, PackedBatch, TransactionMetrics, TransactionPool};
use bizra_proto::ceremony::Genesis;
use bizra_proto::parameters::Parameters;
use bizra_simplex::Block;
use bizra_simplex::types::Digest;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tower_service::Service as _;

/// A request that waits longer, for finality, is cut.
const PATIENCE: Duration = Duration::from_millis(20);

struct Edge {
    runtime: Runtime,
    router: Router,
    /// Never read: batches pile up, and then the node is busy.
    _payloads: mpsc::Receiver<PackedBatch>,
    _folder: tempfile::TempDir,
}

/// The first line is path and query, the rest a body that makes it a POST. Nothing a client sends is the server's fault.
pub(crate) fn request(data: &[u8]) {
    static EDGE: OnceLock<Edge> = OnceLock::new();
    let edge = EDGE.get_or_init(|| edge().expect("an empty node can be made"));
    let (line, body) = data.iter().position(|byte| *byte == b'\n').map_or((data, &[][..]), |end| {
        let (line, rest) = data.split_at(end);
        (line, rest.get(1..).unwrap_or_default())
    });
    let Ok(uri) = Uri::try_from(line) else { return };
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = if body.is_empty() { Method::GET } else { Method::POST };
    *request.uri_mut() = uri;
    let mut router = edge.router.clone();
    let answer = edge.runtime.block_on(async { tokio::time::timeout(PATIENCE, router.call(request)).await });
    if let Ok(Ok(response)) = answer {
        assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "the server blames itself");
    }
}

fn edge() -> Result<Edge, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let database = Database::open(folder.path())?;
    let chain = ChainId::new("fuzz").ok_or("no chain id")?;
    let genesis = Genesis {
        version: 1,
        chain_id: "fuzz".to_owned(),
        time_milliseconds: 0,
        validators: Vec::new(),
        accounts: Vec::new(),
        parameters: Parameters::default(),
    };
    let hash = Digest([6; 32]);
    let registry = prometheus::Registry::new();
    let blocks = BlockStore::open(database.clone(), Block::genesis(hash, 0))?;
    Ledger::open(database.clone(), &genesis, hash, LedgerMetrics::new(&registry)?)?;
    let reader = LedgerReader::new(database.clone());
    let blocks = Arc::new(blocks);
    // Its writer is dropped: no event ever comes, and a subscription ends.
    let (_, events) = event_store::open(database, blocks.clone())?;
    let (sender, payloads) = mpsc::channel(4);
    let inside = runtime.enter();
    let (metrics, orders) = (TransactionMetrics::new(&registry)?, watch::channel(true).1);
    let pool = TransactionPool::start(chain, reader.clone(), sender, orders, metrics)?;
    let gateway = Gateway::new(chain, hash, pool, reader, blocks, events, GatewayMetrics::new(&registry)?);
    drop(inside);
    Ok(Edge { router: router(gateway), runtime, _payloads: payloads, _folder: folder })
}
