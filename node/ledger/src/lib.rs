//! The rules of the ledger without its database: accounts, transactions, stakes, and who validates in which epoch.
//!
//! Pure: what is stored is read and written through [`Entries`], signatures are checked through [`Turn`]. The node executes
//! blocks by these rules over `RocksDB`, the simulator over a model of a disk.

mod accounts;
mod execution;
mod failure;
mod stored;
mod validator;

pub use accounts::{Account, BlockAccounts, Slot, Touched};
pub use execution::{Ground, RECEIPT_BLOCKS, Step, StepAction, apply};
pub use failure::Failure;
pub use stored::{Fields, StorageError};
pub use validator::{
    Conduct, Domain, Entries, EntryKey, Member, Money, OperationError, RECENT_BLOCKS, Registry, Report, Stake, Turn,
    Unbonding, Validator, ValidatorSetRecord, ValidatorStatus, decode_turns, is_reported,
};
