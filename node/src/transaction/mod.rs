//! Signed transactions on their way to an order: their stateless validity, and their admission. The encoding is in
//! `bizra-transaction`.
//!
//! What enters: encoded transactions of clients ([`TransactionPool`]), payloads of other validators
//! ([`PayloadVerifier`]), and the outcome of each finalised block ([`TransactionPool::on_finalized`]). What leaves:
//! [`PackedBatch`]es for consensus, and receipts for whoever waits. Owns no storage; reads the ledger through
//! `LedgerReader`.

mod admission;
mod backlog;
mod batcher;
mod events;
mod metrics;
mod payload;
mod pending;
mod pool;
mod signatures;
mod verify;

pub use admission::{Admission, Rejection};
pub use batcher::PackedBatch;
pub use bizra_transaction::{
    Action, Address, ChainId, DecodeError, Equivocation, KeyProof, MEMO_MAX_BYTES, OPAQUE_CHAIN, Operation,
    TRANSACTION_MAX_BYTES, TRANSACTION_MIN_BYTES, Terms, TraceId, Transaction, TransactionId, Transfer,
};
pub use events::{Overflowed, StreamEvent, StreamEvents};
pub use metrics::TransactionMetrics;
pub use payload::{Entry, LayoutError, PAYLOAD_TRANSACTIONS_MAX, Payload, PayloadBuilder};
pub use pending::FinalityWaiter;
pub use pool::{PoolClosed, REQUEST_TRANSACTIONS_MAX, StreamSubmitter, TransactionPool};
pub use signatures::SIGNATURES_AT_ONCE_MAX;
pub use verify::{PayloadError, PayloadVerifier};
