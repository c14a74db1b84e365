//! Signed transactions on their way to an order: their encoding, their stateless validity, and their admission.
//!
//! What enters: encoded transactions of clients ([`TransactionPool`]), payloads of other validators
//! ([`PayloadVerifier`]), and the outcome of each finalised block ([`TransactionPool::on_finalized`]). What leaves:
//! [`PackedBatch`]es for consensus, and receipts for whoever waits. Owns no storage; reads the ledger through
//! `LedgerReader`.

mod admission;
mod backlog;
mod batcher;
mod codec;
mod events;
mod identifier;
mod metrics;
mod operation;
mod payload;
mod pending;
mod pool;
mod signatures;
mod verify;

pub use admission::{Admission, Rejection};
pub use batcher::PackedBatch;
pub use codec::{
    Action, DecodeError, MEMO_MAX_BYTES, TRANSACTION_MAX_BYTES, TRANSACTION_MIN_BYTES, Terms, Transaction, Transfer,
};
pub use events::{Overflowed, StreamEvent, StreamEvents};
pub use identifier::{Address, ChainId, OPAQUE_CHAIN, TraceId, TransactionId};
pub use metrics::TransactionMetrics;
pub use operation::{Equivocation, KeyProof, Operation};
pub use payload::{Entry, LayoutError, PAYLOAD_TRANSACTIONS_MAX, Payload, PayloadBuilder};
pub use pending::FinalityWaiter;
pub use pool::{PoolClosed, REQUEST_TRANSACTIONS_MAX, StreamSubmitter, TransactionPool};
pub use signatures::SIGNATURES_AT_ONCE_MAX;
pub use verify::{PayloadError, PayloadVerifier};
