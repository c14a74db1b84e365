//! The driver on real ground: a thread of its own, RocksDB and the signing record, the node's keys, the network.
//!
//! What enters: frames of peers, payloads of the transaction pool. What leaves: frames, executed blocks
//! ([`crate::blockchain::BlockOutcome`], after they are applied), and the node's status.

mod disk;
mod keys;
mod metrics;
mod record_file;
mod runtime;
mod verifier;

pub use disk::{ExecutedBlocks, NodeDisk};
pub use keys::NodeKeys;
pub use metrics::ConsensusMetrics;
pub use record_file::{RecordFile, RecordFileError};
pub use runtime::{Consensus, ConsensusError, ConsensusSetup, Ended};
pub(crate) use runtime::{binding, is_record_refused, open_record};
