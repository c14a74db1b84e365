//! Signing and checking votes with Ed25519 under ZIP-215 rules.

use bizra_driver::Keys;
use bizra_simplex::types::{Signature, ValidatorIndex};
use ed25519_zebra::VerificationKey;

use crate::configuration::genesis::Member;
use crate::identity::ConsensusKey;

/// The node's key and the keys of all validators, ready for use.
pub struct NodeKeys {
    own: ConsensusKey,
    validators: Vec<VerificationKey>,
}

impl NodeKeys {
    /// Prepares the keys of the set. A validator whose bytes are no key cannot be in a genesis; its votes never verify.
    pub fn new(own: ConsensusKey, members: &[Member]) -> Result<Self, ed25519_zebra::Error> {
        let validators =
            members.iter().map(|member| VerificationKey::try_from(member.public_key)).collect::<Result<_, _>>()?;
        Ok(Self { own, validators })
    }
}

impl Keys for NodeKeys {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.own.sign(message).to_bytes())
    }

    fn verify(&self, checks: &[(ValidatorIndex, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, message, signature)| {
            let key = self.validators.get(usize::from(signer.0));
            key.is_some_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
        })
    }
}
