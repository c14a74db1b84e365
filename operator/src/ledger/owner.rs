//! Keys of owners' accounts, as they are in Secrets.

use std::sync::Arc;

use bizra_transaction::Address;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// Key of the seed in the Secret of a network's owners.
pub const SEED: &str = "owners.seed";

/// Domain of the hash that makes an owner's key of a seed.
const DERIVATION: &[u8] = b"bizra/v1/owner-of-validator\0";

/// The Ed25519 key of an account. Wiped from memory when it is dropped; read anew for each reconciliation.
pub struct OwnerKey(SigningKey);

/// A Secret without an owner's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerKeyError {
    /// The Secret has no such key.
    #[error("it has no key {0}")]
    Missing(String),
    /// The key holds something else.
    #[error("its key {0} does not hold 64 lower-case hex digits, as `bizra-node keygen` writes them")]
    Malformed(String),
}

impl OwnerKey {
    /// Reads the key of this name.
    pub fn read(secret: &Secret, name: &str) -> Result<Self, OwnerKeyError> {
        hex_of(secret, name).map(|seed| Self(SigningKey::from(*seed)))
    }

    /// The key's account.
    pub fn address(&self) -> Address {
        Address(VerificationKeyBytes::from(&self.0).into())
    }

    /// The key as `bizra-node keygen` writes keys: 64 lower-case hex digits.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(<[u8; 32]>::from(self.0));
        Zeroizing::new(hex::encode(*key))
    }

    /// The key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

/// The secret that the keys of a network's generated owners are derived from: one to make, to keep and to save, and every address is
/// known before the first genesis.
#[derive(Clone)]
pub struct OwnerSeed(Arc<Zeroizing<[u8; 32]>>);

impl OwnerSeed {
    /// A new one, as its Secret holds it: 64 lower-case hex digits.
    pub fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Zeroizing::new(hex::encode(*seed)))
    }

    /// Reads the seed of a Secret.
    pub fn read(secret: &Secret) -> Result<Self, OwnerKeyError> {
        hex_of(secret, SEED).map(|seed| Self(Arc::new(seed)))
    }

    /// The seed that is this text.
    pub fn parse(text: &str) -> Option<Self> {
        bizra_proto::ceremony::decode_hex::<32>(text.trim_end()).map(|seed| Self(Arc::new(Zeroizing::new(seed))))
    }

    /// The key of the owner of the Validator with this name. The seed has a fixed length and comes before the name, so different names
    /// have different keys, and a key tells nothing of another.
    pub fn owner(&self, validator: &str) -> OwnerKey {
        let mut hasher = Sha256::new();
        hasher.update(DERIVATION);
        hasher.update(**self.0);
        hasher.update(validator.as_bytes());
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(hasher.finalize().into());
        OwnerKey(SigningKey::from(*seed))
    }
}

impl std::fmt::Debug for OwnerSeed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OwnerSeed")
    }
}

fn hex_of(secret: &Secret, name: &str) -> Result<Zeroizing<[u8; 32]>, OwnerKeyError> {
    let data = secret.data.as_ref().and_then(|data| data.get(name));
    let data = data.ok_or_else(|| OwnerKeyError::Missing(name.to_owned()))?;
    let text = std::str::from_utf8(&data.0).ok();
    let seed = text.and_then(|text| bizra_proto::ceremony::decode_hex::<32>(text.trim_end()));
    seed.map(Zeroizing::new).ok_or_else(|| OwnerKeyError::Malformed(name.to_owned()))
}

impl Drop for OwnerKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for OwnerKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "OwnerKey({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn secret(text: &[u8]) -> Secret {
        let data = k8s_openapi::ByteString(text.to_vec());
        serde_json::from_value(json!({"data": {"owner.key": data}})).unwrap()
    }

    #[test]
    fn a_key_is_64_hex_digits_and_nothing_else() {
        let hex = hex::encode([7; 32]);
        let key = OwnerKey::read(&secret(format!("{hex}\n").as_bytes()), "owner.key").unwrap();
        assert_eq!(key.address().0, <[u8; 32]>::from(VerificationKeyBytes::from(&SigningKey::from([7; 32]))));
        assert!(!format!("{key:?}").contains(&hex));
        let malformed = Err(OwnerKeyError::Malformed("owner.key".to_owned()));
        for bad in [&hex.as_bytes()[1..], b"", &[0xff; 64], hex.to_uppercase().replace('7', "A").as_bytes()] {
            assert_eq!(OwnerKey::read(&secret(bad), "owner.key").map(|_| ()), malformed.clone().map(|(): ()| ()));
        }
        let missing = OwnerKey::read(&secret(hex.as_bytes()), "other").map(|_| ());
        assert_eq!(missing, Err(OwnerKeyError::Missing("other".to_owned())));
    }

    #[test]
    fn every_validator_has_an_owner_of_its_own_and_always_the_same() {
        let seed = OwnerSeed::parse(&"07".repeat(32)).unwrap();
        let address = |seed: &OwnerSeed, name: &str| seed.owner(name).address().to_string();
        // Money lies on these accounts: this must never change.
        assert_eq!(address(&seed, "demo-v0"), "e68c8db60cb1be08e1cddd8c629e7fc2306168652c9e7c80a157e46c7c74e238");
        let other = OwnerSeed::parse(&OwnerSeed::generate().unwrap()).unwrap();
        let addresses = [(&seed, "demo-v0"), (&seed, "demo-v1"), (&seed, "demo-v"), (&other, "demo-v0")];
        let distinct: std::collections::BTreeSet<_> = addresses.map(|(seed, name)| address(seed, name)).into();
        assert_eq!(distinct.len(), 4);
        let key = seed.owner("demo-v0");
        let read = OwnerKey::read(&secret(key.to_hex().as_bytes()), "owner.key").unwrap();
        assert_eq!(read.address(), key.address());
        assert!(OwnerSeed::parse("07").is_none());
    }
}
