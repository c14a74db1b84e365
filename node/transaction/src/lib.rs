//! The signed transaction of the ledger: its encoding, its identifiers, and what it can do. Whoever signs one (a client, the
//! operator for a validator's owner) and whoever executes it read the same bytes.

mod codec;
mod identifier;
mod operation;

pub use codec::{
    Action, DecodeError, MEMO_MAX_BYTES, TRANSACTION_MAX_BYTES, TRANSACTION_MIN_BYTES, Terms, Transaction, Transfer,
};
pub use identifier::{Address, ChainId, OPAQUE_CHAIN, TraceId, TransactionId};
pub use operation::{Equivocation, KeyProof, Operation, Verify, verify};
