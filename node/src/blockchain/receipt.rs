//! What became of a transaction.

use crate::transaction::{TraceId, TransactionId};

/// Why a finalised transaction changed nothing. The number is its stored form; 0 stands for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Failure {
    /// Its nonce was not the number of transactions its sender had applied before.
    BadNonce = 1,
    /// The block's height was above its expiry height.
    Expired = 2,
    /// The sender could not pay amount and fee.
    InsufficientBalance = 3,
}

impl Failure {
    /// Every failure, in order of its number.
    pub const ALL: [Self; 3] = [Self::BadNonce, Self::Expired, Self::InsufficientBalance];

    /// Stable name for clients and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadNonce => "BadNonce",
            Self::Expired => "Expired",
            Self::InsufficientBalance => "InsufficientBalance",
        }
    }
}

/// The lasting outcome of one finalised transaction. The first one stands: a duplicate never changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub id: TransactionId,
    /// Height of its block.
    pub height: u64,
    /// Position among the transactions the block executed, duplicates not counted.
    pub index: u32,
    /// `None` if it was applied.
    pub failure: Option<Failure>,
    /// Trace id of its submit.
    pub trace: TraceId,
}
