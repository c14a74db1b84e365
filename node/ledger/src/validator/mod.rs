//! Validators: who may vote in which epoch, for how much money, under which parameters.
//!
//! Pure rules over entries of the ledger's state; the ledger calls them while it executes blocks and stores what they
//! change. What enters: [`Operation`](bizra_transaction::Operation)s of owners, what blocks say of their proposers and of
//! contradictions, and the cut-off of each epoch. What leaves: [`ValidatorSetRecord`]s.

mod entry;
mod next_set;
mod record;
mod registry;
mod reports;
mod reputation;
mod versions;

pub use entry::{Domain, Entries, EntryKey};
pub use record::{Member, Stake, Unbonding, Validator, ValidatorSetRecord, ValidatorStatus};
pub use registry::{Money, OperationError, RECENT_BLOCKS, Registry, Turn};
pub use reports::Report;
pub use reports::is_reported;
pub use reputation::Conduct;
pub use reputation::decode_turns;
