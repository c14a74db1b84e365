//! The owner's key, as it is in a Secret.

use bizra_transaction::Address;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::api::core::v1::Secret;
use zeroize::{Zeroize as _, Zeroizing};

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
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        let data = data.ok_or_else(|| OwnerKeyError::Missing(name.to_owned()))?;
        let malformed = || OwnerKeyError::Malformed(name.to_owned());
        let text = std::str::from_utf8(&data.0).map_err(|_| malformed())?;
        let seed = bizra_proto::ceremony::decode_hex::<32>(text.trim_end()).map(Zeroizing::new);
        seed.map(|seed| Self(SigningKey::from(*seed))).ok_or_else(malformed)
    }

    /// The key's account.
    pub fn address(&self) -> Address {
        Address(VerificationKeyBytes::from(&self.0).into())
    }

    /// The key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }
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
}
