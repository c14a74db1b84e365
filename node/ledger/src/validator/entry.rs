//! Names of entries of the ledger's state. Accounts have a family of their own; everything else is kept under these.

use crate::stored::StorageError;
use bizra_transaction::Address;

/// What an entry of the state is about. The letter is its place in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    /// An account, by address.
    Account = b'a',
    /// The set of an epoch, by number.
    ValidatorSet = b'e',
    /// The version a consensus key signalled last, by key.
    Signal = b'g',
    /// Digests of the last blocks.
    RecentBlocks = b'h',
    /// Turns to lead since the last cut-off, by owner.
    Turns = b'l',
    /// The parameters in force.
    Parameters = b'p',
    /// Parameters a validator's owner wants, by owner.
    Approval = b'q',
    /// The stake of an account, by address.
    Stake = b's',
    /// Sums and clocks of the ledger.
    Totals = b't',
    /// A registered validator, by owner.
    Validator = b'v',
    /// Epoch and view of the last block.
    LastView = b'w',
    /// A consensus key that was punished, by key.
    Punished = b'x',
    /// The epoch in which blocks reported a consensus key last, by key.
    Reported = b'y',
}

/// Key of a state entry: its domain and 32 bytes. One width, so that key and value cannot run into each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryKey(pub [u8; Self::BYTES]);

impl EntryKey {
    /// Width.
    pub const BYTES: usize = 33;

    /// Key of what has these 32 bytes for its name.
    pub fn new(domain: Domain, id: [u8; 32]) -> Self {
        let mut key = [domain as u8; Self::BYTES];
        key[1..].copy_from_slice(&id);
        Self(key)
    }

    /// Key of what belongs to an account.
    pub fn of(domain: Domain, address: Address) -> Self {
        Self::new(domain, address.0)
    }

    /// Key of what there is one of.
    pub fn single(domain: Domain) -> Self {
        Self::new(domain, [0; 32])
    }

    /// Key of what is counted.
    pub fn numbered(domain: Domain, number: u64) -> Self {
        let mut id = [0; 32];
        id[24..].copy_from_slice(&number.to_be_bytes());
        Self::new(domain, id)
    }

    /// The 32 bytes.
    pub fn id(&self) -> [u8; 32] {
        let [_, id @ ..] = self.0;
        id
    }

    /// The account this entry is, if it is one.
    pub fn account(&self) -> Option<Address> {
        (self.0[0] == Domain::Account as u8).then(|| Address(self.id()))
    }
}

/// The state entries as of the transaction being executed.
pub trait Entries {
    /// Reads an entry.
    fn get(&self, key: &EntryKey) -> Result<Option<Vec<u8>>, StorageError>;
    /// Sets or removes an entry.
    fn set(&mut self, key: EntryKey, value: Option<Vec<u8>>) -> Result<(), StorageError>;
}
