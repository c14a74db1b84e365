//! Binds a connection to a consensus key: both ends sign what only the two of them can compute of it.
//!
//! ```text
//! "bizra/v1/connection\0" | genesis hash 32 | role 1 | signer's public key 32 | TLS exporter 32
//!   | length 1 | signer's node name | length 1 | other's node name
//! ```
//!
//! The exporter (RFC 8446 §7.5) differs for every connection and for both legs of a relay, so a proof is good for one
//! connection only, and cannot be passed on. Role and names keep an end from returning to the other what it was sent.
//!
//! The consensus key may sign this without the signing record: the record keeps *votes* from contradicting each other, and
//! nothing else can be read from these bytes. They begin with a domain of their own, which no vote, block or proof of
//! possession begins with, and they are longer than the 32 bytes of a digest, which is what a batch signs. Nothing in them
//! is chosen by the other end: the exporter comes out of the handshake, the names out of configuration and certificate.

use bizra_simplex::types::Digest;
use ed25519_zebra::{Signature, VerificationKey};

use super::ConsensusKey;

const DOMAIN: &[u8] = b"bizra/v1/connection\0";

/// Label of the exporter. RFC 5705 §4 keeps this prefix for labels that are not registered.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-bizra-v1-connection";

/// Bytes of the exporter.
pub const EXPORTER_BYTES: usize = 32;

/// Secret that the two ends of one TLS connection share and nobody else knows.
pub type Exporter = [u8; EXPORTER_BYTES];

/// Which end signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that opened the connection.
    Dialer = 1,
    /// The end that accepted it.
    Listener = 2,
}

/// What a proof is about.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The chain.
    pub genesis_hash: Digest,
    /// The signer's end.
    pub role: Role,
    /// The connection.
    pub exporter: &'a Exporter,
    /// Node name of the signer.
    pub signer: &'a str,
    /// Node name of the other end, at most 255 bytes as every node name is.
    pub other: &'a str,
}

impl Statement<'_> {
    fn signed_bytes(&self, public_key: &[u8; 32]) -> Vec<u8> {
        let Self { genesis_hash, role, exporter, signer, other } = self;
        let mut bytes = Vec::with_capacity(DOMAIN.len() + 3 * 32 + 3 + signer.len() + other.len());
        bytes.extend_from_slice(DOMAIN);
        bytes.extend_from_slice(&genesis_hash.0);
        bytes.push(*role as u8);
        bytes.extend_from_slice(public_key);
        bytes.extend_from_slice(*exporter);
        for name in [signer, other] {
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }
}

/// A claim to a consensus key, for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The key claimed.
    pub public_key: [u8; 32],
    /// Its signature over the statement.
    pub signature: [u8; 64],
}

impl Proof {
    /// True if the holder of the key made this proof for exactly this statement.
    pub fn shows(&self, statement: &Statement<'_>) -> bool {
        let bytes = statement.signed_bytes(&self.public_key);
        VerificationKey::try_from(self.public_key)
            .is_ok_and(|key| key.verify(&Signature::from(self.signature), &bytes).is_ok())
    }
}

impl ConsensusKey {
    /// Proves to the other end of a connection that this node holds the key.
    pub fn prove(&self, statement: &Statement<'_>) -> Proof {
        let public_key = self.public_key();
        Proof { public_key, signature: self.sign(&statement.signed_bytes(&public_key)).to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const STATEMENT: Statement<'_> = Statement {
        genesis_hash: Digest([1; 32]),
        role: Role::Dialer,
        exporter: &[2; EXPORTER_BYTES],
        signer: "demo-v0",
        other: "demo-v1",
    };

    #[test]
    fn a_proof_is_good_for_its_connection_chain_role_and_names_only() {
        let proof = ConsensusKey::generate().unwrap().prove(&STATEMENT);
        assert!(proof.shows(&STATEMENT));
        for other in [
            Statement { genesis_hash: Digest([9; 32]), ..STATEMENT },
            Statement { role: Role::Listener, ..STATEMENT },
            Statement { exporter: &[9; EXPORTER_BYTES], ..STATEMENT },
            Statement { signer: "demo-v2", ..STATEMENT },
            Statement { other: "demo-v2", ..STATEMENT },
            Statement { signer: "demo-v", other: "0demo-v1", ..STATEMENT },
            Statement { signer: "demo-v1", other: "demo-v0", ..STATEMENT },
        ] {
            assert!(!proof.shows(&other), "{other:?}");
        }
        let another = ConsensusKey::generate().unwrap().public_key();
        assert!(!Proof { public_key: another, ..proof }.shows(&STATEMENT));
        assert!(!Proof { public_key: [0xff; 32], ..proof }.shows(&STATEMENT), "no key at all");
    }

    #[test]
    fn what_is_signed_can_be_neither_a_vote_nor_a_digest() {
        let bytes = STATEMENT.signed_bytes(&[3; 32]);
        assert!(bytes.starts_with(DOMAIN) && bytes.len() > 32);
        let vote = bizra_simplex::Vote {
            epoch: bizra_simplex::types::Epoch(0),
            view: bizra_simplex::types::View(1),
            kind: bizra_simplex::VoteKind::Notarize,
            digest: Digest([4; 32]),
        };
        assert!(!vote.signed_bytes(Digest([1; 32])).starts_with(DOMAIN));
    }
}
