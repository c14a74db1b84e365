//! The first frame of every stream: who sends, for which chain, in which lane.
//!
//! ```text
//! version 1 byte | lane 1 byte | genesis hash 32 bytes | node name, 1 to 63 bytes
//! ```
//!
//! A stream that carries only a Hello is answered when it ends: so the caller learns whether it is welcome.

use bizra_simplex::types::Digest;
use bytes::Bytes;

use super::queue::Lane;
use crate::configuration::is_node_name;

/// The version this build speaks.
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 2 + 32;

/// A caller's introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) lane: Lane,
    pub(super) genesis_hash: Digest,
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
        let head = [VERSION, self.lane.number()];
        [head.as_slice(), &self.genesis_hash.0, self.node_name.as_bytes()].concat().into()
    }

    /// Reads a frame from an untrusted caller; the version comes first, so that later versions may change the rest.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, HelloError> {
        match frame.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(HelloError::Version(other)),
            None => return Err(HelloError::Malformed),
        }
        let (fixed, name) = frame.split_at_checked(FIXED_BYTES).ok_or(HelloError::Malformed)?;
        let lane = fixed.get(1).copied().and_then(Lane::from_number).ok_or(HelloError::Malformed)?;
        let hash = fixed.get(2..).and_then(|hash| hash.try_into().ok()).ok_or(HelloError::Malformed)?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_node_name(name)).ok_or(HelloError::Malformed)?;
        Ok(Self { lane, genesis_hash: Digest(hash), node_name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hello() -> Hello {
        Hello { lane: Lane::Data, genesis_hash: Digest([7; 32]), node_name: "demo-v0".to_owned() }
    }

    #[test]
    fn a_hello_survives_a_round_trip() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn every_truncation_and_every_bad_name_is_refused() {
        let frame = hello().encode();
        for length in 0..=FIXED_BYTES {
            assert_eq!(Hello::decode(&frame[..length]), Err(HelloError::Malformed), "{length}");
        }
        let long = Hello { node_name: "a".repeat(64), ..hello() };
        assert_eq!(Hello::decode(&long.encode()), Err(HelloError::Malformed));
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(Hello::decode(&[9, 0]), Err(HelloError::Version(9)));
    }
}
