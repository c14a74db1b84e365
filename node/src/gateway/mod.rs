//! The edge: signed transactions in; receipts, blocks, accounts and events out, over gRPC and REST.
//!
//! Every byte that arrives here is hostile until proven otherwise: bodies and messages are bounded, requests have
//! deadlines, errors are typed, and nothing from outside stops the node. Owns no storage.

mod events;
mod grpc;
mod grpc_events;
mod http;
mod http_events;
mod light;
mod metrics;
mod problem;
mod queries;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use bizra_driver::light::Headers;
use bizra_simplex::Checkpoint;
use bizra_simplex::types::{Digest, Epoch, Height};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::blockchain::LedgerReader;
use crate::event_store::EventLog;
use crate::storage::StorageError;
use crate::transaction::{ChainId, TransactionPool};

pub use events::event_json;
pub(crate) use grpc::fixed;
pub use grpc::{LedgerEndpoint, ledger_endpoint, serve_grpc};
pub use http::{read_transaction, router, serve_http};
pub use metrics::GatewayMetrics;

/// How long open requests may go on after the node was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Most reads of the database under way, each on a thread of its own; the others wait their turn.
const READS_AT_ONCE_MAX: usize = 16;

/// A finalised block, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// Its height.
    pub height: Height,
    /// Its digest.
    pub hash: Digest,
    /// Digest of its parent.
    pub parent: Digest,
    /// Milliseconds since 1970; monotone, informational.
    pub time_milliseconds: u64,
    /// Epoch of its validators.
    pub epoch: Epoch,
    /// The executed state it vouches for.
    pub checkpoint: Checkpoint,
    /// Hash of the next epoch's validators, on the last block of an epoch.
    pub next_validators: Option<Digest>,
    /// Batches it ordered.
    pub batches: Vec<Digest>,
    /// View of the certificate that finalised it or a descendant of it.
    pub view: u64,
}

/// Finalised blocks, read from any thread. Implemented by the owner of the blocks.
pub trait BlockReader: Send + Sync {
    /// The finalised block at a height; `None` above the last finalised one, or where blocks were pruned.
    fn block(&self, height: Height) -> Result<Option<BlockView>, StorageError>;
    /// Height and digest of the last finalised block.
    fn finalized(&self) -> (Height, Digest);
    /// The payload of an ordered batch; `None` if it was pruned.
    fn batch_payload(&self, batch: &Digest) -> Result<Option<Bytes>, StorageError>;
    /// Up to `limit` links from one epoch to the next, encoded, of consecutive epochs from `from` on.
    fn epoch_links(&self, from: Epoch, limit: usize) -> Result<Vec<Bytes>, StorageError>;
    /// The headers from a height up to the first with a finalization; `None` if they are not all there.
    fn finalised_headers(&self, from: Height) -> Result<Option<Headers>, StorageError>;
    /// Height of the first header that names a checkpoint; `oldest` is the oldest height kept.
    fn header_naming(&self, checkpoint: Height, oldest: Height) -> Result<Option<Height>, StorageError>;
}

/// The gateway could not be opened or stopped unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The reflection service could not be made from the built-in descriptors.
    #[error("gRPC reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The HTTP server failed.
    #[error("the HTTP server failed: {0}")]
    Http(#[from] std::io::Error),
}

/// Everything the edge reads from and submits to. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    chain: ChainId,
    genesis_hash: Digest,
    pool: TransactionPool,
    ledger: LedgerReader,
    blocks: Arc<dyn BlockReader>,
    events: EventLog,
    metrics: GatewayMetrics,
    reads: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway to one node's contexts.
    pub fn new(
        chain: ChainId,
        genesis_hash: Digest,
        pool: TransactionPool,
        ledger: LedgerReader,
        blocks: Arc<dyn BlockReader>,
        events: EventLog,
        metrics: GatewayMetrics,
    ) -> Self {
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE_MAX));
        Self { chain, genesis_hash, pool, ledger, blocks, events, metrics, reads }
    }
}
