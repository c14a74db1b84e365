//! Validators: who may vote in which epoch, for how much money, under which parameters. The rules are in `bizra-ledger`.

pub use bizra_ledger::{Conduct, Member, Report, Stake, Unbonding, Validator, ValidatorSetRecord, ValidatorStatus};
pub(crate) use bizra_ledger::{
    Domain, Entries, EntryKey, Money, RECENT_BLOCKS, Registry, Turn, decode_turns, is_reported,
};
