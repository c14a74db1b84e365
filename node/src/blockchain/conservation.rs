//! Conservation of money (PROTOCOL H4), checked on a real database: balances, stakes,
//! fee pool and what was slashed add up to the supply.

use crate::storage::{Database, Family, StorageError};

use super::reader::{LedgerReader, Totals};
use crate::validator::{Domain, Stake};
use bizra_ledger::Account;

/// The sums that were compared, base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conservation {
    /// How many accounts there are.
    pub accounts: u64,
    /// Sum of their balances.
    pub balances: u128,
    /// Sum of the stakes, reserved and unbonding.
    pub stakes: u128,
    /// Totals of the ledger.
    pub totals: Totals,
}

/// The check failed or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConservationError {
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Money appeared or vanished.
    #[error(
        "money is not conserved at height {}: {} accounts hold {}, stakes {} of {}, the fee pool {}, slashed are {}, but the \
         supply is {}",
        .0.totals.height, .0.accounts, .0.balances, .0.stakes, .0.totals.staked, .0.totals.fees, .0.totals.slashed,
        .0.totals.supply
    )]
    NotConserved(Conservation),
}

/// Adds up every account. Reads the whole family: for a database no node is running on.
pub fn verify_conservation(database: &Database) -> Result<Conservation, ConservationError> {
    let totals = LedgerReader::new(database.clone()).totals()?;
    let mut sums = Conservation { accounts: 0, balances: 0, stakes: 0, totals };
    for item in database.scan(Family::Accounts, &[])? {
        let (_, value) = item?;
        sums.accounts += 1;
        sums.balances += u128::from(Account::decode(&value)?.balance);
    }
    for item in super::state_entries::stored(database)? {
        let (key, value) = item?;
        if key.0[0] == Domain::Stake as u8 {
            let Stake { reserved, unbonding } = Stake::decode(&value)?;
            sums.stakes += u128::from(reserved) + unbonding.iter().map(|part| u128::from(part.amount)).sum::<u128>();
        }
    }
    let held = sums.balances + sums.stakes + u128::from(totals.fees) + u128::from(totals.slashed);
    if held == u128::from(totals.supply) && sums.stakes == u128::from(totals.staked) {
        Ok(sums)
    } else {
        Err(ConservationError::NotConserved(sums))
    }
}
