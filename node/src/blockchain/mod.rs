//! The ledger: accounts, receipts and totals, changed only by executing finalised blocks in height order.
//!
//! Owns the families `Accounts`, `State`, `History`, `Transactions` and `Ledger`. What enters: finalised blocks with the bodies of their
//! batches ([`Ledger::execute`], on the driver thread; the writes join the turn's atomic batch). What leaves: one
//! [`BlockOutcome`] a block, and reads through [`LedgerReader`].

mod accounts;
mod checkpoint;
mod commitment;
mod conservation;
mod effect;
mod genesis;
mod history;
mod ledger;
pub mod merkle;
mod metrics;
mod proof;
mod pruning;
mod reader;
mod rebuild;
mod receipt;
mod record;
mod restart;
mod sealing;
mod snapshot;
mod state_entries;
#[cfg(test)]
mod state_tests;

pub use bizra_ledger::{Account, Failure};
pub use checkpoint::{BlockSummary, checkpoint_of};
pub use conservation::{Conservation, ConservationError, verify_conservation};
pub use effect::{Effect, Moment};
pub use ledger::{BlockOutcome, Ledger, LedgerError};
pub use metrics::LedgerMetrics;
pub use proof::{InclusionProof, ProofError};
pub use pruning::{forget_history, prune_ledger};
pub use reader::{AtHeight, LedgerReader, Totals};
pub use rebuild::{Difference, Since, compare_ledgers, rebuild, rebuildable};
pub use receipt::Receipt;
pub use record::TransactionRecord;
pub use restart::{LedgerRestart, RestartError};
pub use sealing::{CommitmentError, verify_commitment};
pub use snapshot::{Section, SnapshotItem, last_cutoffs, put_item, read_snapshot, recent_block, seal_snapshot};
