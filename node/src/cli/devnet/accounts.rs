//! Accounts for development: keys that everybody can compute, with money that is worth nothing.

use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const DOMAIN: &[u8] = b"bizra/v1/development-account\0";

/// An entry of `accounts.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevelopmentAccount {
    /// Public key, lower-case hex: the account's address.
    pub address: String,
    /// Seed of the secret key, lower-case hex.
    pub secret_key: String,
}

/// The key of the account of that index, the same on every machine.
pub fn development_key(index: u32) -> SigningKey {
    SigningKey::from(seed(index))
}

impl DevelopmentAccount {
    /// The account of that index.
    pub fn of(index: u32) -> Self {
        let public_key: [u8; 32] = VerificationKeyBytes::from(&development_key(index)).into();
        Self { address: hex::encode(public_key), secret_key: hex::encode(seed(index)) }
    }
}

fn seed(index: u32) -> [u8; 32] {
    Sha256::new().chain_update(DOMAIN).chain_update(index.to_be_bytes()).finalize().into()
}
