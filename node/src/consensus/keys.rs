//! Signing and checking votes with Ed25519 under ZIP-215 rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bizra_driver::{Keys, PublicKey};
use bizra_simplex::VALIDATORS_MAX;
use bizra_simplex::types::Signature;
use ed25519_zebra::VerificationKey;

use crate::identity::ConsensusKey;

/// The node's key, and the keys it checks with, ready for use.
pub struct NodeKeys {
    own: Arc<ConsensusKey>,
    /// Unpacking a key costs a tenth of a check. Holds the validators of a few epochs; bytes that are no key are `None`.
    known: Mutex<BTreeMap<PublicKey, Option<VerificationKey>>>,
}

/// Most keys kept ready.
const KNOWN_MAX: usize = 4 * VALIDATORS_MAX;

impl NodeKeys {
    /// Signs with this key.
    pub fn new(own: Arc<ConsensusKey>) -> Self {
        Self { own, known: Mutex::default() }
    }

    /// Checks signatures without keeping the keys; true if every one is valid.
    pub fn are_valid(checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, message, signature)| {
            let key = VerificationKey::try_from(signer.0);
            key.is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
        })
    }

    fn key(&self, signer: &PublicKey) -> Option<VerificationKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX && !known.contains_key(signer) {
            known.clear();
        }
        *known.entry(*signer).or_insert_with(|| VerificationKey::try_from(signer.0).ok())
    }
}

impl Keys for NodeKeys {
    fn public_key(&self) -> Option<PublicKey> {
        Some(PublicKey(self.own.public_key()))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.own.sign(message).to_bytes())
    }

    fn verify(&self, checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, message, signature)| {
            let key = self.key(signer);
            key.is_some_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
        })
    }
}
