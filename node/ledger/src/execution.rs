//! The rules of the ledger, pure: one transaction against the accounts of its block and the validator registry.
//!
//! In this order, the first that fails decides the receipt:
//! 1. A transaction that has a receipt of the last [`RECEIPT_BLOCKS`] blocks is skipped; its receipt stands (PROTOCOL D1).
//! 2. The block's height is not above the expiry height, else `Expired`, and at most [`RECEIPT_BLOCKS`] below it, else
//!    `ExpiryTooFar`: so whoever forgot an older receipt comes to the same outcome as whoever kept it.
//! 3. The nonce is the sender's, else `BadNonce`.
//! 4. The sender's balance covers amount and fee, else `InsufficientBalance`.
//! 5. The rules of the operation, in the validator context.
//!
//! An applied transaction moves its amount and the fee, and raises the sender's nonce. A failed one changes nothing, the
//! nonce included: a key that owns nothing cannot leave an account behind, and the owner may sign another transaction
//! with the same nonce.

use crate::accounts::{BlockAccounts, Slot};
use crate::failure::Failure;
use crate::stored::StorageError;
use crate::validator::{Entries, Money, OperationError, Registry, Turn};
use bizra_transaction::{Address, Operation};

/// For so many blocks a receipt keeps its transaction from being executed again, and so far ahead may an expiry be.
pub const RECEIPT_BLOCKS: u64 = 100_000;

/// What execution needs of a transaction.
#[derive(Debug)]
pub struct Step {
    /// Who pays and has signed.
    pub sender: Slot,
    /// Its nonce.
    pub nonce: u64,
    /// Base units.
    pub fee: u64,
    /// The highest block that may hold it.
    pub expiry_height: u64,
    /// What it does.
    pub action: StepAction,
}

/// What it does.
#[derive(Debug)]
pub enum StepAction {
    /// Moves money.
    Transfer {
        /// Receives it.
        recipient: Slot,
        /// Base units.
        amount: u64,
    },
    /// Changes the registry in the name of an owner.
    Operation(Address, Box<Operation>),
}

/// Everything outside of accounts that a transaction may change.
pub struct Ground<'a, E> {
    /// The fee pool, base units.
    pub fees: &'a mut u64,
    /// Money in stakes, and what was slashed.
    pub money: &'a mut Money,
    /// Validators, sets, parameters.
    pub registry: &'a mut Registry,
    /// What else an operation may see and change.
    pub turn: Turn<'a, E>,
}

/// A sum left 64 bits, which the genesis' bound on the supply excludes: the database contradicts itself.
fn supply_exceeded() -> StorageError {
    StorageError::Corrupt("balances exceed the supply".to_owned())
}

/// Applies rules 2 to 5 in a block of height `height`.
pub fn apply<E: Entries>(
    step: &Step,
    height: u64,
    accounts: &mut BlockAccounts,
    ground: &mut Ground<'_, E>,
) -> Result<Option<Failure>, StorageError> {
    if height > step.expiry_height {
        return Ok(Some(Failure::Expired));
    }
    if step.expiry_height - height > RECEIPT_BLOCKS {
        return Ok(Some(Failure::ExpiryTooFar));
    }
    let mut sender = accounts.get(step.sender);
    if sender.nonce != step.nonce {
        return Ok(Some(Failure::BadNonce));
    }
    let Some(remaining) = sender.balance.checked_sub(step.fee) else {
        return Ok(Some(Failure::InsufficientBalance));
    };
    sender.balance = remaining;
    let fees = ground.fees.checked_add(step.fee).ok_or_else(supply_exceeded)?;
    sender.nonce = sender.nonce.checked_add(1).ok_or_else(supply_exceeded)?;
    match &step.action {
        StepAction::Transfer { recipient, amount } => {
            let Some(remaining) = sender.balance.checked_sub(*amount) else {
                return Ok(Some(Failure::InsufficientBalance));
            };
            sender.balance = remaining;
            accounts.set(step.sender, sender);
            // Read after the sender was written: they may be the same account.
            let mut paid = accounts.get(*recipient);
            paid.balance = paid.balance.checked_add(*amount).ok_or_else(supply_exceeded)?;
            accounts.set(*recipient, paid);
        }
        StepAction::Operation(owner, operation) => {
            let Ground { money, registry, turn, .. } = ground;
            match registry.execute(operation, *owner, &mut sender.balance, money, turn) {
                Ok(()) => accounts.set(step.sender, sender),
                Err(OperationError::Failed(failure)) => return Ok(Some(failure)),
                Err(OperationError::Storage(error)) => return Err(error),
            }
        }
    }
    *ground.fees = fees;
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::accounts::Account;
    use crate::validator::EntryKey;
    use bizra_proto::parameters::Parameters;
    use bizra_simplex::types::Digest;

    struct NoEntries;

    impl Entries for NoEntries {
        fn get(&self, _: &EntryKey) -> Result<Option<Vec<u8>>, StorageError> {
            Ok(None)
        }

        fn set(&mut self, _: EntryKey, _: Option<Vec<u8>>) -> Result<(), StorageError> {
            Ok(())
        }
    }

    struct World {
        accounts: BlockAccounts,
        slots: Vec<Slot>,
        fees: u64,
    }

    fn world(balances: &[u64]) -> World {
        let mut accounts = BlockAccounts::default();
        let slots: Vec<Slot> = (0..balances.len()).map(|n| accounts.mention(Address([n as u8; 32]))).collect();
        for (&slot, &balance) in slots.iter().zip(balances) {
            accounts.set(slot, Account { balance, nonce: 0 });
        }
        World { accounts, slots, fees: 0 }
    }

    impl World {
        fn run(&mut self, from: usize, to: usize, nonce: u64, fee: u64, amount: u64) -> Option<Failure> {
            self.run_at(150_000, from, to, nonce, fee, amount)
        }

        fn run_at(&mut self, at: u64, from: usize, to: usize, nonce: u64, fee: u64, amount: u64) -> Option<Failure> {
            let (sender, recipient) = (self.slots[from], self.slots[to]);
            let action = StepAction::Transfer { recipient, amount };
            let step = Step { sender, nonce, fee, expiry_height: 200_000, action };
            let mut registry = Registry::genesis(Vec::new(), Parameters::default(), &mut NoEntries).unwrap();
            let turn = Turn {
                entries: &mut NoEntries,
                height: at,
                recent_block: &|_| None,
                domain: &|_| Digest::default(),
                verify: &bizra_transaction::verify,
                signature_checks: &mut 0,
            };
            let mut money = Money::default();
            let mut ground = Ground { fees: &mut self.fees, money: &mut money, registry: &mut registry, turn };
            apply(&step, at, &mut self.accounts, &mut ground).unwrap()
        }

        fn total(&self) -> u64 {
            self.slots.iter().map(|&slot| self.accounts.get(slot).balance).sum::<u64>() + self.fees
        }
    }

    #[test]
    fn a_transfer_moves_amount_and_fee_and_raises_the_nonce() {
        let mut world = world(&[10, 0]);
        assert_eq!(world.run(0, 1, 0, 1, 5), None);
        assert_eq!(world.accounts.get(world.slots[0]), Account { balance: 4, nonce: 1 });
        assert_eq!(world.accounts.get(world.slots[1]), Account { balance: 5, nonce: 0 });
        assert_eq!(world.fees, 1);
    }

    #[test]
    fn failures_change_nothing() {
        let mut world = world(&[10, 0]);
        assert_eq!(world.run(0, 1, 1, 0, 1), Some(Failure::BadNonce));
        assert_eq!(world.run(0, 1, 0, 1, 10), Some(Failure::InsufficientBalance));
        assert_eq!(world.run(0, 1, 0, u64::MAX, u64::MAX), Some(Failure::InsufficientBalance));
        assert_eq!(world.run_at(200_001, 0, 1, 0, 0, 1), Some(Failure::Expired));
        assert_eq!(world.run_at(99_999, 0, 1, 0, 0, 1), Some(Failure::ExpiryTooFar));
        assert_eq!(world.accounts.get(world.slots[0]), Account { balance: 10, nonce: 0 });
        assert_eq!(world.total(), 10);
    }

    #[test]
    fn paying_oneself_costs_the_fee_only() {
        let mut world = world(&[10]);
        assert_eq!(world.run(0, 0, 0, 2, 8), None);
        assert_eq!(world.accounts.get(world.slots[0]), Account { balance: 8, nonce: 1 });
        assert_eq!(world.total(), 10);
    }

    proptest! {
        #[test]
        fn money_is_conserved(
            balances in proptest::collection::vec(0..1000_u64, 3),
            steps in proptest::collection::vec((0..3_usize, 0..3_usize, 0..4_u64, 0..5_u64, 0..600_u64), 0..50),
        ) {
            let mut world = world(&balances);
            for (from, to, nonce, fee, amount) in steps {
                world.run(from, to, nonce, fee, amount);
                prop_assert_eq!(world.total(), balances.iter().sum::<u64>());
            }
        }
    }
}
