//! Whether a submitted transaction is accepted for ordering: checks from cheap to dear, the signature last.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;

use super::metrics::TransactionMetrics;
use super::pending::PendingSet;
use super::signatures::{Item, SignatureChecker};
use crate::blockchain::LedgerReader;
use crate::storage::StorageError;
use bizra_transaction::{Address, ChainId, TraceId, TransactionId};
use bizra_transaction::{DecodeError, Transaction};

/// Why a transaction was not accepted, or was given up afterwards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bytes are not a transaction.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It is meant for another chain.
    #[error("the transaction is for chain {found}, this is {expected}")]
    WrongChain {
        /// The chain it names.
        found: ChainId,
        /// The chain of this node.
        expected: ChainId,
    },
    /// The signature is not the sender's over these bytes.
    #[error("the signature is not the sender's over these bytes")]
    InvalidSignature,
    /// No block to come may hold it.
    #[error("the transaction expired at height {expiry_height}; sign it again with a later expiry height")]
    Expired {
        /// Its expiry height.
        expiry_height: u64,
    },
    /// It was admitted before and is not finalised yet.
    #[error("the transaction is admitted already; wait for its receipt")]
    AlreadyPending,
    /// It has a receipt.
    #[error("the transaction is finalised already; read its receipt")]
    AlreadyFinalised,
    /// A later transaction of the sender was applied: this one is a replay, or its nonce was used twice.
    #[error("the sender's next nonce is {expected}, the transaction has a lower one")]
    NonceTooLow {
        /// The sender's nonce.
        expected: u64,
    },
    /// The sender cannot pay, and nothing of it is pending.
    #[error("the sender has {balance}, amount and fee need more")]
    InsufficientBalance {
        /// The sender's balance, base units.
        balance: u64,
    },
    /// The node has as much work as it can hold.
    #[error("the node is busy; submit again in a moment")]
    Busy,
    /// Admitted, but not finalised within the time limit. It may still be ordered.
    #[error("the transaction was not finalised in time; read its receipt later or submit it again")]
    TimedOut,
    /// A node that does not vote does not order transactions.
    #[error("this node is not a validator; submit to a validator")]
    NotAValidator,
    /// The node is stopping, or cannot read its ledger.
    #[error("the node cannot admit transactions now; submit to another validator")]
    Unavailable,
}

impl Rejection {
    /// Stable name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(error) => error.reason(),
            Self::WrongChain { .. } => "WrongChain",
            Self::InvalidSignature => "InvalidSignature",
            Self::Expired { .. } => "Expired",
            Self::AlreadyPending => "AlreadyPending",
            Self::AlreadyFinalised => "AlreadyFinalised",
            Self::NonceTooLow { .. } => "NonceTooLow",
            Self::InsufficientBalance { .. } => "InsufficientBalance",
            Self::Busy => "Busy",
            Self::TimedOut => "TimedOut",
            Self::NotAValidator => "NotAValidator",
            Self::Unavailable => "Unavailable",
        }
    }
}

/// The answer to one submitted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its id; `None` if the bytes could not be decoded.
    pub id: Option<TransactionId>,
    /// Accepted for ordering, or why not.
    pub result: Result<(), Rejection>,
}

impl Admission {
    /// The answer that turns away whatever `bytes` are for a reason of the node's own.
    pub(super) fn refuse(bytes: &[u8], rejection: Rejection) -> Self {
        let id = Transaction::decode(bytes).is_ok().then(|| TransactionId::of(bytes));
        Self { id, result: Err(rejection) }
    }
}

/// A transaction that passed the checks so far.
pub(super) struct Candidate<'a> {
    /// Place of its answer among the answers of this round.
    pub(super) answer: usize,
    pub(super) id: TransactionId,
    pub(super) trace: TraceId,
    pub(super) bytes: &'a [u8],
    pub(super) sender: Address,
    pub(super) expiry_height: u64,
    nonce: u64,
    cost: Option<u64>,
    transaction: Transaction<'a>,
}

/// Everything that is checked against.
pub(super) struct Checks<'a> {
    pub(super) chain: ChainId,
    pub(super) finalized_height: u64,
    pub(super) ledger: &'a LedgerReader,
    pub(super) metrics: &'a TransactionMetrics,
}

impl Checks<'_> {
    /// Checks one round of submissions. Gives an answer for each, in order, and the accepted ones.
    pub(super) fn run<'b>(
        &self,
        submissions: impl Iterator<Item = (TraceId, &'b Bytes)>,
        pending: &std::sync::Mutex<PendingSet>,
        signatures: &mut SignatureChecker,
    ) -> (Vec<Admission>, Vec<Candidate<'b>>) {
        let mut answers = Vec::new();
        let mut candidates = Vec::new();
        for (trace, bytes) in submissions {
            let answer = answers.len();
            answers.push(match self.decode(answer, trace, bytes) {
                Ok(candidate) => {
                    let id = Some(candidate.id);
                    candidates.push(candidate);
                    Admission { id, result: Ok(()) }
                }
                Err(rejection) => Admission::refuse(bytes, rejection),
            });
        }
        let mut reject = |candidate: &Candidate<'_>, rejection: Rejection| {
            if let Some(answer) = answers.get_mut(candidate.answer) {
                answer.result = Err(rejection);
            }
        };

        let paying = keep_new(&mut candidates, pending, &mut reject);
        match self.check_state(&candidates, &paying) {
            Ok(rejections) => retain_by(&mut candidates, rejections, &mut reject),
            Err(error) => {
                tracing::error!(%error, "admission cannot read the ledger");
                candidates.drain(..).for_each(|candidate| reject(&candidate, Rejection::Unavailable));
            }
        }
        self.check_signatures(&mut candidates, signatures, &mut reject);
        (answers, candidates)
    }

    fn decode<'b>(&self, answer: usize, trace: TraceId, bytes: &'b Bytes) -> Result<Candidate<'b>, Rejection> {
        let transaction = Transaction::decode(bytes)?;
        let terms = &transaction.terms;
        if terms.chain != self.chain {
            return Err(Rejection::WrongChain { found: terms.chain, expected: self.chain });
        }
        if terms.expiry_height <= self.finalized_height {
            return Err(Rejection::Expired { expiry_height: terms.expiry_height });
        }
        Ok(Candidate {
            answer,
            id: TransactionId::of(bytes),
            trace,
            bytes,
            sender: transaction.sender,
            expiry_height: terms.expiry_height,
            nonce: terms.nonce,
            cost: transaction.cost(),
            transaction,
        })
    }

    /// Judges candidates by receipts and accounts; `alone` tells which senders have nothing pending.
    fn check_state(
        &self,
        candidates: &[Candidate<'_>],
        alone: &[bool],
    ) -> Result<Vec<Option<Rejection>>, StorageError> {
        let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id).collect();
        let senders: Vec<_> = candidates.iter().map(|candidate| candidate.sender).collect();
        let finalized = self.ledger.finalized(&ids)?;
        let accounts = self.ledger.accounts(&senders)?;
        let judge = |(((candidate, finalized), account), &alone): (((&Candidate<'_>, bool), _), &bool)| {
            let account: crate::blockchain::Account = account;
            if finalized {
                Some(Rejection::AlreadyFinalised)
            } else if candidate.nonce < account.nonce {
                Some(Rejection::NonceTooLow { expected: account.nonce })
            } else if alone && candidate.cost.is_none_or(|cost| cost > account.balance) {
                Some(Rejection::InsufficientBalance { balance: account.balance })
            } else {
                None
            }
        };
        Ok(candidates.iter().zip(finalized).zip(accounts).zip(alone).map(judge).collect())
    }

    fn check_signatures(
        &self,
        candidates: &mut Vec<Candidate<'_>>,
        signatures: &mut SignatureChecker,
        reject: &mut impl FnMut(&Candidate<'_>, Rejection),
    ) {
        if candidates.is_empty() || !self.chain.is_signed() {
            return;
        }
        let start = Instant::now();
        let items: Vec<Item<'_>> =
            candidates.iter().map(|candidate| Item::from(candidate.transaction.clone())).collect();
        let invalid = signatures.find_invalid(&items);
        self.metrics.verified_at_once.observe(items.len() as f64);
        self.metrics.verify_seconds.observe(start.elapsed().as_secs_f64());
        let mut rejections = vec![None; candidates.len()];
        for index in invalid {
            if let Some(rejection) = rejections.get_mut(index) {
                *rejection = Some(Rejection::InvalidSignature);
            }
        }
        retain_by(candidates, rejections, reject);
    }
}

/// Drops what is pending or twice in this round; tells of each remaining one whether its sender has nothing else
/// under way.
fn keep_new(
    candidates: &mut Vec<Candidate<'_>>,
    pending: &std::sync::Mutex<PendingSet>,
    reject: &mut impl FnMut(&Candidate<'_>, Rejection),
) -> Vec<bool> {
    let pending = super::pending::lock(pending);
    let mut ids = HashSet::with_capacity(candidates.len());
    let mut senders = HashSet::with_capacity(candidates.len());
    let mut alone = Vec::with_capacity(candidates.len());
    candidates.retain(|candidate| {
        let new = !pending.contains(&candidate.id) && ids.insert(candidate.id);
        if new {
            alone.push(senders.insert(candidate.sender) && !pending.has_sender(&candidate.sender));
        } else {
            reject(candidate, Rejection::AlreadyPending);
        }
        new
    });
    alone
}

fn retain_by(
    candidates: &mut Vec<Candidate<'_>>,
    rejections: Vec<Option<Rejection>>,
    reject: &mut impl FnMut(&Candidate<'_>, Rejection),
) {
    let mut rejections = rejections.into_iter();
    candidates.retain(|candidate| match rejections.next().flatten() {
        Some(rejection) => {
            reject(candidate, rejection);
            false
        }
        None => true,
    });
}
