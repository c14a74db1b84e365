//! Names of things in the ledger: chains, accounts, transactions and traces, as fixed-width bytes.

use std::fmt;

use bizra_proto::ceremony::{self, CHAIN_ID_MAX_BYTES};
use sha2::{Digest as _, Sha256};

const TRANSACTION_ID_DOMAIN: &[u8] = b"bizra/v1/transaction-id\0";

/// Name of the one chain whose transactions count whatever their signature is, to measure what signatures cost. Every
/// transaction names its chain, so none of this chain is worth anything on another; and a node of this chain starts only
/// if nothing but its own machine can reach it.
pub const OPAQUE_CHAIN: &str = "devnet-opaque";

macro_rules! lower_hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }
    };
}

/// A chain's name, zero-padded to its width in a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainId([u8; CHAIN_ID_MAX_BYTES]);

impl ChainId {
    /// The chain named `text`; `None` unless it is 1 to 32 of `a-z`, `0-9` and `-`.
    pub fn new(text: &str) -> Option<Self> {
        let mut padded = [0; CHAIN_ID_MAX_BYTES];
        padded.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        ceremony::is_chain_id(text).then_some(Self(padded))
    }

    /// Reads the padded form; `None` unless it is exactly what [`Self::as_bytes`] gives for some name.
    pub fn from_padded(padded: [u8; CHAIN_ID_MAX_BYTES]) -> Option<Self> {
        let length = padded.iter().position(|&byte| byte == 0).unwrap_or(padded.len());
        let (name, padding) = padded.split_at(length);
        let name = std::str::from_utf8(name).ok()?;
        (ceremony::is_chain_id(name) && padding.iter().all(|&byte| byte == 0)).then_some(Self(padded))
    }

    /// True on every chain but [`OPAQUE_CHAIN`]: a transaction counts only with its sender's signature.
    pub fn is_signed(&self) -> bool {
        Self::new(OPAQUE_CHAIN) != Some(*self)
    }

    /// The padded form.
    pub fn as_bytes(&self) -> &[u8; CHAIN_ID_MAX_BYTES] {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take_while(|&&byte| byte != 0).try_for_each(|&byte| write!(formatter, "{}", char::from(byte)))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// An account: the Ed25519 public key of its owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 32]);
lower_hex!(Address);

/// Identifies a signed transaction: SHA-256 of all its bytes, in a domain of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 32]);
lower_hex!(TransactionId);

impl TransactionId {
    /// The id of an encoded transaction.
    pub fn of(encoded: &[u8]) -> Self {
        Self(Sha256::new().chain_update(TRANSACTION_ID_DOMAIN).chain_update(encoded).finalize().into())
    }
}

/// W3C trace id under which a transaction was submitted; all zeros when the client sent none. It travels inside the
/// batch, so that every node knows the same correlation id (PROTOCOL H3).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);
lower_hex!(TraceId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_chain_id_survives_padding_and_has_one_form_only() {
        let chain = ChainId::new("demo-1").unwrap();
        assert_eq!(ChainId::from_padded(*chain.as_bytes()), Some(chain));
        assert_eq!(chain.to_string(), "demo-1");
        let mut hidden = *chain.as_bytes();
        hidden[31] = b'x';
        assert_eq!(ChainId::from_padded(hidden), None);
        assert_eq!(ChainId::from_padded([0; 32]), None);
        assert_eq!(ChainId::new("Demo"), None);
        assert_eq!(ChainId::new(&"a".repeat(33)), None);
        assert!(ChainId::new(&"a".repeat(32)).is_some());
    }
}
