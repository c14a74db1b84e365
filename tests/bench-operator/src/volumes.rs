//! What is on volumes: keys that live as long as the claim's uid, and what the init container `key` reports of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bizra_proto::ceremony::{KeyReport, genesis_hash, prove_possession};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

/// The keys of one node.
pub(crate) struct Volume {
    key: SigningKey,
    /// The TLS key.
    pub(crate) tls_key: rcgen::KeyPair,
}

impl Volume {
    /// The consensus key, as a node tells it.
    pub(crate) fn public_key(&self) -> String {
        hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&self.key)))
    }

    /// The termination message of the init container.
    pub(crate) fn report(&self, chain_id: &str) -> String {
        let request = rcgen::CertificateParams::default().serialize_request(&self.tls_key).unwrap();
        serde_json::to_string(&KeyReport {
            public_key: self.public_key(),
            proof_of_possession: prove_possession(&self.key, chain_id),
            certificate_request: request.pem().unwrap(),
            genesis_hash: None,
        })
        .unwrap()
    }
}

/// All volumes, by the uid of their claim.
#[derive(Default)]
pub(crate) struct Volumes(Mutex<HashMap<String, Arc<Volume>>>);

impl Volumes {
    /// The volume of this claim; made when it is first used.
    pub(crate) fn of(&self, claim_uid: &str) -> Arc<Volume> {
        let known = self.0.lock().unwrap().get(claim_uid).cloned();
        known.unwrap_or_else(|| {
            let key = SigningKey::from(genesis_hash(claim_uid.as_bytes()));
            let volume = Arc::new(Volume { key, tls_key: rcgen::KeyPair::generate().unwrap() });
            Arc::clone(self.0.lock().unwrap().entry(claim_uid.to_owned()).or_insert(volume))
        })
    }
}
