//! The ledger: accounts, receipts and totals, changed only by executing finalised blocks in height order.
//!
//! Owns the families `Accounts`, `Transactions` and `Ledger`. What enters: finalised blocks with the bodies of their
//! batches ([`Ledger::execute`], on the driver thread; the writes join the turn's atomic batch). What leaves: one
//! [`BlockOutcome`] a block, and reads through [`LedgerReader`].

mod accounts;
mod conservation;
mod execution;
mod ledger;
mod metrics;
mod reader;
mod receipt;
mod record;

pub use conservation::{Conservation, ConservationError, verify_conservation};
pub use ledger::{BlockOutcome, Ledger, LedgerError};
pub use metrics::LedgerMetrics;
pub use reader::{LedgerReader, Totals};
pub use receipt::{Failure, Receipt};
pub use record::{Account, TransactionRecord};
