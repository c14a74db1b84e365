//! Accounts of the simulated ledger, by number. Their keys are real: what clients and owners send are real transactions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bizra_transaction::{Address, ChainId, Operation, Terms, Transfer};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

/// Accounts that own validators or may come to; more than any network has nodes.
const OWNERS: usize = 112;

/// Accounts of clients come after them.
pub(crate) const CLIENTS: std::ops::Range<usize> = OWNERS..OWNERS + 8;

struct Book {
    keys: Vec<(SigningKey, Address)>,
    numbers: BTreeMap<Address, usize>,
}

static BOOK: LazyLock<Book> = LazyLock::new(|| {
    let key = |number: usize| {
        let key = SigningKey::from([number as u8 + 1; 32]);
        let address = Address(VerificationKeyBytes::from(&key).into());
        (key, address)
    };
    let keys: Vec<_> = (0..CLIENTS.end).map(key).collect();
    let numbers = keys.iter().enumerate().map(|(number, (_, address))| (*address, number)).collect();
    Book { keys, numbers }
});

/// The address of an account.
pub(crate) fn address(account: usize) -> Address {
    BOOK.keys[account].1
}

/// The number of an account.
pub(crate) fn account_of(address: Address) -> Option<usize> {
    BOOK.numbers.get(&address).copied()
}

/// The chain that transactions name.
fn chain() -> Option<ChainId> {
    ChainId::new("simulated")
}

/// A signed transfer; empty if there is none like that.
pub(crate) fn transfer(from: usize, to: usize, nonce: u64, expiry_height: u64, amount: u64) -> Vec<u8> {
    let Some(chain) = chain() else { return Vec::new() };
    let transfer = Transfer { chain, nonce, fee: 1, expiry_height, recipient: address(to), amount, memo: &[] };
    transfer.sign(&BOOK.keys[from].0).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

/// A signed operation of an owner.
pub(crate) fn operation(owner: usize, nonce: u64, expiry_height: u64, operation: &Operation) -> Vec<u8> {
    let Some(chain) = chain() else { return Vec::new() };
    let terms = Terms { chain, nonce, fee: 1, expiry_height };
    terms.sign(operation, &BOOK.keys[owner].0).map(|bytes| bytes.to_vec()).unwrap_or_default()
}
