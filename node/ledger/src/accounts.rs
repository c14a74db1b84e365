//! Accounts, and those that one block touches.

use std::collections::HashMap;

use bizra_transaction::Address;

use crate::stored::{Fields, StorageError};

/// An account as of the last executed block. An account nobody paid to or from has all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Base units.
    pub balance: u64,
    /// Transactions of this account applied so far; the nonce its next one must carry.
    pub nonce: u64,
}

impl Account {
    /// Width of the stored form.
    pub const BYTES: usize = 16;

    /// The stored form.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.balance.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nonce.to_be_bytes());
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            let account = Self { balance: fields.u64()?, nonce: fields.u64()? };
            fields.end().map(|()| account)
        };
        read().ok_or_else(|| StorageError::Corrupt("an account of the ledger does not decode".to_owned()))
    }
}

/// Place of an account in a [`BlockAccounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// An account that a block touches.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Whose it is.
    pub address: Address,
    /// As it was before the block.
    pub before: Account,
    /// As it is now.
    pub account: Account,
}

impl Touched {
    /// True if the block changed it.
    pub fn changed(&self) -> bool {
        self.before != self.account
    }
}

/// The accounts one block touches, in the order of their first mention.
#[derive(Debug, Default)]
pub struct BlockAccounts {
    slots: HashMap<Address, Slot>,
    touched: Vec<Touched>,
}

impl BlockAccounts {
    /// The slot of an account; it holds nothing until [`Self::load`].
    pub fn mention(&mut self, address: Address) -> Slot {
        let next = Slot(self.touched.len() as u32);
        let slot = *self.slots.entry(address).or_insert(next);
        if slot == next {
            self.touched.push(Touched { address, before: Account::default(), account: Account::default() });
        }
        slot
    }

    /// Reads all mentioned accounts: from what is known in memory, and the others at once, in the order of their addresses.
    pub fn load(
        &mut self,
        known: impl Fn(&Address) -> Option<Account>,
        read: impl FnOnce(&[Address]) -> Result<Vec<Account>, StorageError>,
    ) -> Result<(), StorageError> {
        let mut missing = Vec::new();
        for touched in &mut self.touched {
            match known(&touched.address) {
                Some(account) => (touched.before, touched.account) = (account, account),
                None => missing.push(touched),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let addresses: Vec<Address> = missing.iter().map(|touched| touched.address).collect();
        for (touched, account) in missing.into_iter().zip(read(&addresses)?) {
            (touched.before, touched.account) = (account, account);
        }
        Ok(())
    }

    /// The account in a slot this block mentioned.
    pub fn get(&self, Slot(index): Slot) -> Account {
        self.touched.get(index as usize).map(|touched| touched.account).unwrap_or_default()
    }

    /// Replaces the account in a slot.
    pub fn set(&mut self, Slot(index): Slot, account: Account) {
        if let Some(touched) = self.touched.get_mut(index as usize) {
            touched.account = account;
        }
    }

    /// All of them, in the order of their first mention.
    pub fn touched(&self) -> &[Touched] {
        &self.touched
    }
}
