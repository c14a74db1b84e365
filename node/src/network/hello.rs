//! The first frame of every stream: who sends, for which chain, in which lane, and the proof of its consensus key.
//!
//! ```text
//! version 1 byte | lane 1 byte | genesis hash 32 bytes | public key 32 bytes | signature 64 bytes | node name, 1 to 63 bytes
//! ```
//!
//! The signature is the caller's [`Proof`] for this connection. A stream that carries only a Hello is answered with the
//! proof of the other end: so the caller learns whether it is welcome, and with whom it talks.

use bizra_proto::ceremony::is_node_name;
use bizra_simplex::types::Digest;
use bytes::Bytes;

use super::queue::Lane;
use crate::identity::connection::Proof;

/// The version this build speaks. Version 1 proved no key.
const VERSION: u8 = 2;
const FIXED_BYTES: usize = 2 + 32 + 32 + 64;

/// A caller's introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) lane: Lane,
    pub(super) genesis_hash: Digest,
    pub(super) proof: Proof,
    pub(super) node_name: String,
}

/// Why a first frame is not a Hello.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error(
        "the caller speaks version {0} of the peer protocol and this node speaks version {VERSION}: upgrade the older"
    )]
    Version(u8),
    #[error("the first frame is not a Hello")]
    Malformed,
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let Self { lane, genesis_hash, proof: Proof { public_key, signature }, node_name } = self;
        let head = [VERSION, lane.number()];
        [head.as_slice(), &genesis_hash.0, public_key, signature, node_name.as_bytes()].concat().into()
    }

    /// Reads a frame from an untrusted caller; the version comes first, so that later versions may change the rest.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, HelloError> {
        match frame.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(HelloError::Version(other)),
            None => return Err(HelloError::Malformed),
        }
        let read = || {
            let (fixed, name) = frame.split_at_checked(FIXED_BYTES)?;
            let lane = Lane::from_number(*fixed.get(1)?)?;
            let genesis_hash = Digest(fixed.get(2..34)?.try_into().ok()?);
            let proof =
                Proof { public_key: fixed.get(34..66)?.try_into().ok()?, signature: fixed.get(66..)?.try_into().ok()? };
            let node_name = std::str::from_utf8(name).ok().filter(|name| is_node_name(name))?.to_owned();
            Some(Self { lane, genesis_hash, proof, node_name })
        };
        read().ok_or(HelloError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_decodes_is_canonical_and_nothing_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..250),
            name in "[a-z0-9-]{0,70}",
        ) {
            for frame in [&bytes[..], &[&[VERSION, 0][..], &bytes, name.as_bytes()].concat()] {
                if let Ok(hello) = Hello::decode(frame) {
                    prop_assert_eq!(hello.encode(), frame);
                }
            }
        }
    }

    fn hello() -> Hello {
        Hello {
            lane: Lane::Data,
            genesis_hash: Digest([7; 32]),
            proof: Proof { public_key: [8; 32], signature: [9; 64] },
            node_name: "demo-v0".to_owned(),
        }
    }

    #[test]
    fn a_hello_survives_a_round_trip() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn every_truncation_and_every_bad_name_is_refused() {
        let frame = hello().encode();
        for length in 1..=FIXED_BYTES {
            assert_eq!(Hello::decode(&frame[..length]), Err(HelloError::Malformed), "{length}");
        }
        assert_eq!(Hello::decode(&[]), Err(HelloError::Malformed));
        let long = Hello { node_name: "a".repeat(64), ..hello() };
        assert_eq!(Hello::decode(&long.encode()), Err(HelloError::Malformed));
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(Hello::decode(&[9, 0]), Err(HelloError::Version(9)));
    }
}
