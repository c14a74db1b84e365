//! The rules of the ledger, pure: one transaction against the accounts of its block.
//!
//! In this order, the first that fails decides the receipt:
//! 1. A transaction that already has a receipt is skipped; its receipt stands (PROTOCOL D1).
//! 2. The block's height is not above the expiry height, else `Expired`.
//! 3. The nonce is the sender's, else `BadNonce`.
//! 4. The sender's balance covers amount and fee, else `InsufficientBalance`.
//!
//! An applied transfer moves the amount to the recipient and the fee to the fee pool, and raises the sender's nonce. A
//! failed one changes nothing, the nonce included: a key that owns nothing cannot leave an account behind, and the
//! owner may sign another transaction with the same nonce.

use super::accounts::{BlockAccounts, Slot};
use super::receipt::Failure;

/// What execution needs of a transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) sender: Slot,
    pub(super) recipient: Slot,
    pub(super) nonce: u64,
    pub(super) fee: u64,
    pub(super) amount: u64,
    pub(super) expiry_height: u64,
}

/// A sum left 64 bits, which the genesis' bound on the supply excludes: the database contradicts itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SupplyExceeded;

/// Applies rules 2 to 4 in a block of height `height`.
pub(super) fn apply(
    step: &Step,
    height: u64,
    accounts: &mut BlockAccounts,
    fees: &mut u64,
) -> Result<Option<Failure>, SupplyExceeded> {
    if height > step.expiry_height {
        return Ok(Some(Failure::Expired));
    }
    let mut sender = accounts.get(step.sender);
    if sender.nonce != step.nonce {
        return Ok(Some(Failure::BadNonce));
    }
    let cost = step.amount.checked_add(step.fee);
    let Some(remaining) = cost.and_then(|cost| sender.balance.checked_sub(cost)) else {
        return Ok(Some(Failure::InsufficientBalance));
    };
    let fees_after = fees.checked_add(step.fee).ok_or(SupplyExceeded)?;
    sender.balance = remaining;
    sender.nonce = sender.nonce.checked_add(1).ok_or(SupplyExceeded)?;
    accounts.set(step.sender, sender);
    // Read after the sender was written: they may be the same account.
    let mut recipient = accounts.get(step.recipient);
    recipient.balance = recipient.balance.checked_add(step.amount).ok_or(SupplyExceeded)?;
    accounts.set(step.recipient, recipient);
    *fees = fees_after;
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::record::Account;
    use super::*;
    use crate::transaction::Address;

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
            let (sender, recipient) = (self.slots[from], self.slots[to]);
            let step = Step { sender, recipient, nonce, fee, amount, expiry_height: 10 };
            apply(&step, 10, &mut self.accounts, &mut self.fees).unwrap()
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
        let (sender, recipient) = (world.slots[0], world.slots[1]);
        let late = Step { sender, recipient, nonce: 0, fee: 0, amount: 1, expiry_height: 10 };
        assert_eq!(apply(&late, 11, &mut world.accounts, &mut world.fees), Ok(Some(Failure::Expired)));
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
