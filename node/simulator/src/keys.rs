//! Signatures that are quick to make: a keyed hash. They cannot be forged inside the simulation, because only
//! [`KeyBook::sign`] makes them and every caller names the key it owns.

use std::sync::Arc;

use bizra_driver::{Keys, PublicKey};
use bizra_simplex::types::Signature;

use crate::random::{Random, fold, fold_bytes};
use crate::schedule::key_of;

/// The secret of every node, held by the simulator.
#[derive(Debug)]
pub struct KeyBook {
    secrets: Vec<u64>,
}

impl KeyBook {
    /// Makes keys for this many nodes.
    pub fn new(random: &mut Random, nodes: usize) -> Arc<Self> {
        Arc::new(Self { secrets: (0..nodes).map(|_| random.number()).collect() })
    }

    /// Signs as this node; `None` if there is no such key.
    pub fn sign(&self, signer: usize, message: &[u8]) -> Option<Signature> {
        let secret = *self.secrets.get(signer)?;
        let tag = fold_bytes(secret, message);
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&tag.to_le_bytes());
        bytes[8..16].copy_from_slice(&fold(tag, secret).to_le_bytes());
        Some(Signature(bytes))
    }

    /// True if this node signed these bytes.
    pub fn verify(&self, signer: usize, message: &[u8], signature: Signature) -> bool {
        self.sign(signer, message) == Some(signature)
    }
}

/// What one node may do with the keys: sign with its own, check all.
#[derive(Clone, Debug)]
pub(crate) struct NodeKeys {
    book: Arc<KeyBook>,
    me: usize,
    votes: bool,
}

impl NodeKeys {
    /// The keys of node `me`, which may vote in some epoch or never.
    pub(crate) fn new(book: Arc<KeyBook>, me: usize, votes: bool) -> Self {
        Self { book, me, votes }
    }
}

impl Keys for NodeKeys {
    fn public_key(&self) -> Option<PublicKey> {
        self.votes.then(|| key_of(self.me))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        // A full node has no key and is never asked; a signature of zeros is valid for nobody.
        self.book.sign(self.me, message).unwrap_or(Signature([0; 64]))
    }

    fn verify(&self, checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, message, signature)| {
            *signer == key_of(usize::from(signer.0[0]))
                && self.book.verify(usize::from(signer.0[0]), message, *signature)
        })
    }
}
