//! The signed transaction, byte by byte. One layout, one form: what decodes re-encodes to the same bytes.
//!
//! | offset | width | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 1 = transfer, the others in [`Operation`] |
//! | 2 | 32 | chain id, ASCII, zero-padded |
//! | 34 | 32 | sender, an Ed25519 public key |
//! | 66 | 8 | nonce |
//! | 74 | 8 | fee, base units |
//! | 82 | 8 | expiry height: invalid in blocks above it; never 0 |
//! | 90 | b | body of its kind |
//! | 90+b | 64 | Ed25519 signature over `bizra/v1/transaction\0` and all bytes before it |
//!
//! The body of a transfer:
//!
//! | offset | width | field |
//! | --- | --- | --- |
//! | 90 | 32 | recipient |
//! | 122 | 8 | amount, base units |
//! | 130 | 2 | memo length, at most 512 |
//! | 132 | m | memo, any bytes |
//!
//! Integers are big-endian.

use bytes::Bytes;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use super::identifier::{Address, ChainId};
use super::operation::Operation;

/// Encoding version.
pub(crate) const VERSION: u8 = 1;
/// Longest memo, in bytes.
pub const MEMO_MAX_BYTES: usize = 512;
/// Width of an encoded transaction without a body.
pub const TRANSACTION_MIN_BYTES: usize = 154;
/// Longest encoded transaction, in bytes: a transfer with the longest memo. Bounds what is read before anything is known
/// of the sender.
pub const TRANSACTION_MAX_BYTES: usize = 196 + MEMO_MAX_BYTES;

const SIGNATURE_BYTES: usize = 64;
const SIGNATURE_DOMAIN: &[u8] = b"bizra/v1/transaction\0";

/// Place of a transfer among the kinds.
const TRANSFER: u8 = 1;

/// Why bytes are not a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("the transaction ends early; the shortest has {TRANSACTION_MIN_BYTES} bytes")]
    Truncated,
    /// More bytes than any transaction may have.
    #[error("the transaction has {0} bytes; at most {TRANSACTION_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// Bytes follow the signature.
    #[error("bytes follow the signature; a transaction has one form only")]
    TrailingBytes,
    /// A version this build does not know.
    #[error("transaction version {0} is unknown; this node reads version {VERSION}")]
    UnknownVersion(u8),
    /// A kind this build does not know.
    #[error("transaction kind {0} is unknown; this node knows 1 to 10")]
    UnknownKind(u8),
    /// The chain id is not a zero-padded chain name.
    #[error("the chain id is not 1 to 32 of a-z, 0-9 and '-', padded with zeros")]
    MalformedChainId,
    /// Height 0 is the genesis: nothing can be ordered there.
    #[error("the expiry height must be above 0")]
    ZeroExpiryHeight,
    /// The memo is longer than allowed.
    #[error("the memo has {0} bytes; at most {MEMO_MAX_BYTES} are allowed")]
    MemoTooLong(usize),
    /// The body has the width of its kind, but a value no such body has.
    #[error("the body of the transaction holds a value that is not allowed")]
    MalformedBody,
}

impl DecodeError {
    /// Stable name for clients and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "Truncated",
            Self::TooLarge(_) => "TooLarge",
            Self::TrailingBytes => "TrailingBytes",
            Self::UnknownVersion(_) => "UnknownVersion",
            Self::UnknownKind(_) => "UnknownKind",
            Self::MalformedChainId => "MalformedChainId",
            Self::ZeroExpiryHeight => "ZeroExpiryHeight",
            Self::MemoTooLong(_) => "MemoTooLong",
            Self::MalformedBody => "MalformedBody",
        }
    }
}

/// A transfer before it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// The chain it is meant for; another chain refuses it.
    pub chain: ChainId,
    /// The sender's nonce: how many of its transactions were applied before.
    pub nonce: u64,
    /// Paid to the fee pool, base units.
    pub fee: u64,
    /// Highest block that may hold it; above 0.
    pub expiry_height: u64,
    /// Receives the amount.
    pub recipient: Address,
    /// Base units.
    pub amount: u64,
    /// Any bytes, at most [`MEMO_MAX_BYTES`].
    pub memo: &'a [u8],
}

impl Transfer<'_> {
    /// Encodes and signs the transfer as the owner of `key`.
    pub fn sign(&self, key: &SigningKey) -> Result<Bytes, DecodeError> {
        let memo_length = u16::try_from(self.memo.len())
            .ok()
            .filter(|&length| usize::from(length) <= MEMO_MAX_BYTES)
            .ok_or(DecodeError::MemoTooLong(self.memo.len()))?;
        let Self { chain, nonce, fee, expiry_height, .. } = *self;
        let terms = Terms { chain, nonce, fee, expiry_height };
        sign(&terms, TRANSFER, key, |buffer| {
            buffer.extend_from_slice(&self.recipient.0);
            buffer.extend_from_slice(&self.amount.to_be_bytes());
            buffer.extend_from_slice(&memo_length.to_be_bytes());
            buffer.extend_from_slice(self.memo);
            Ok(())
        })
    }
}

/// What every transaction says, whatever it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The chain it is meant for; another chain refuses it.
    pub chain: ChainId,
    /// The sender's nonce: how many of its transactions were applied before.
    pub nonce: u64,
    /// Paid to the fee pool, base units.
    pub fee: u64,
    /// Highest block that may hold it; above 0.
    pub expiry_height: u64,
}

impl Terms {
    /// Encodes and signs an operation under these terms as the owner of `key`.
    pub fn sign(&self, operation: &Operation, key: &SigningKey) -> Result<Bytes, DecodeError> {
        sign(self, operation.kind(), key, |buffer| operation.write(buffer))
    }
}

fn sign(
    terms: &Terms,
    kind: u8,
    key: &SigningKey,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>,
) -> Result<Bytes, DecodeError> {
    if terms.expiry_height == 0 {
        return Err(DecodeError::ZeroExpiryHeight);
    }
    // The domain is written first so that the message to sign is one slice, then cut off.
    let mut buffer = Vec::with_capacity(SIGNATURE_DOMAIN.len() + 256);
    buffer.extend_from_slice(SIGNATURE_DOMAIN);
    buffer.extend_from_slice(&[VERSION, kind]);
    buffer.extend_from_slice(terms.chain.as_bytes());
    buffer.extend_from_slice(VerificationKeyBytes::from(key).as_ref());
    buffer.extend_from_slice(&terms.nonce.to_be_bytes());
    buffer.extend_from_slice(&terms.fee.to_be_bytes());
    buffer.extend_from_slice(&terms.expiry_height.to_be_bytes());
    body(&mut buffer)?;
    let signature = key.sign(&buffer);
    buffer.extend_from_slice(&signature.to_bytes());
    Ok(Bytes::from(buffer).slice(SIGNATURE_DOMAIN.len()..))
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Moves money from the sender to a recipient.
    Transfer {
        /// Receives the amount.
        recipient: Address,
        /// Base units.
        amount: u64,
        /// Any bytes.
        memo: &'a [u8],
    },
    /// Changes the validator registry. Boxed: rare, and larger than a transfer.
    Operation(Box<Operation>),
}

/// A decoded transaction: its fields, and views into its bytes. Decoding does not check the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The account that pays and whose key must have signed.
    pub sender: Address,
    /// Chain, nonce, fee and expiry.
    pub terms: Terms,
    /// What it does.
    pub action: Action<'a>,
    /// The signature, unchecked.
    pub signature: [u8; SIGNATURE_BYTES],
    signed: &'a [u8],
}

impl<'a> Transaction<'a> {
    /// Decodes one transaction that fills `bytes` exactly. Total: any bytes give an answer.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > TRANSACTION_MAX_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let [kind] = take(&mut rest)?;
        let chain = take(&mut rest)?;
        let sender = Address(take(&mut rest)?);
        let nonce = u64::from_be_bytes(take(&mut rest)?);
        let fee = u64::from_be_bytes(take(&mut rest)?);
        let expiry_height = u64::from_be_bytes(take(&mut rest)?);
        let action = match kind {
            TRANSFER => Self::decode_transfer(&mut rest)?,
            kind => Action::Operation(Box::new(Operation::read(kind, &mut rest)?)),
        };
        let signature = take(&mut rest)?;
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes);
        }
        let chain = ChainId::from_padded(chain).ok_or(DecodeError::MalformedChainId)?;
        if expiry_height == 0 {
            return Err(DecodeError::ZeroExpiryHeight);
        }
        let (signed, _) = bytes.split_at_checked(bytes.len() - SIGNATURE_BYTES).ok_or(DecodeError::Truncated)?;
        Ok(Self { sender, terms: Terms { chain, nonce, fee, expiry_height }, action, signature, signed })
    }

    fn decode_transfer(rest: &mut &'a [u8]) -> Result<Action<'a>, DecodeError> {
        let recipient = Address(take(rest)?);
        let amount = u64::from_be_bytes(take(rest)?);
        let memo_length = usize::from(u16::from_be_bytes(take(rest)?));
        if memo_length > MEMO_MAX_BYTES {
            return Err(DecodeError::MemoTooLong(memo_length));
        }
        let (memo, tail) = rest.split_at_checked(memo_length).ok_or(DecodeError::Truncated)?;
        *rest = tail;
        Ok(Action::Transfer { recipient, amount, memo })
    }

    /// What it takes from the sender's balance at once, base units; `None` beyond 64 bits.
    pub fn cost(&self) -> Option<u64> {
        let amount = match &self.action {
            Action::Transfer { amount, .. } => *amount,
            Action::Operation(operation) => match **operation {
                Operation::ReserveStake { amount } => amount,
                _ => 0,
            },
        };
        self.terms.fee.checked_add(amount)
    }

    /// The message the signature is over, in two parts.
    pub fn signed_message(&self) -> [&'a [u8]; 2] {
        [SIGNATURE_DOMAIN, self.signed]
    }
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn transfer(memo: &[u8]) -> Transfer<'_> {
        Transfer {
            chain: ChainId::new("demo-1").unwrap(),
            nonce: 7,
            fee: 1,
            expiry_height: 100,
            recipient: Address([9; 32]),
            amount: 5,
            memo,
        }
    }

    #[test]
    fn a_transfer_with_a_memo_of_60_bytes_has_256() {
        assert_eq!(transfer(&[0; 60]).sign(&SigningKey::from([1; 32])).unwrap().len(), 256);
    }

    #[test]
    fn every_way_to_be_malformed_has_its_own_reason() {
        let good = transfer(b"hi").sign(&SigningKey::from([1; 32])).unwrap();
        let with = |offset: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[offset] = byte;
            Transaction::decode(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 2), DecodeError::UnknownVersion(2));
        assert_eq!(with(1, 11), DecodeError::UnknownKind(11));
        assert_eq!(with(1, 0), DecodeError::UnknownKind(0));
        assert_eq!(with(33, b'x'), DecodeError::MalformedChainId);
        assert_eq!(with(89, 0), DecodeError::ZeroExpiryHeight);
        assert_eq!(with(130, 9), DecodeError::MemoTooLong(0x902));
        assert_eq!(with(131, 1), DecodeError::TrailingBytes);
        assert_eq!(with(131, 3), DecodeError::Truncated);
        assert_eq!(Transaction::decode(&[]), Err(DecodeError::Truncated));
        assert_eq!(Transaction::decode(&[1; 709]), Err(DecodeError::TooLarge(709)));
        assert_eq!(transfer(&[0; 513]).sign(&SigningKey::from([1; 32])), Err(DecodeError::MemoTooLong(513)));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            let _ = Transaction::decode(&bytes);
        }

        #[test]
        fn damaged_transactions_get_an_answer(at in 0..256_usize, byte: u8, cut in 0..256_usize) {
            let mut bytes = transfer(&[3; 60]).sign(&SigningKey::from([1; 32])).unwrap().to_vec();
            bytes[at] = byte;
            let _ = Transaction::decode(&bytes);
            prop_assert!(Transaction::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn what_was_signed_decodes_to_the_same(
            nonce: u64, fee: u64, expiry_height in 1..=u64::MAX, recipient: [u8; 32], amount: u64,
            memo in proptest::collection::vec(any::<u8>(), 0..=MEMO_MAX_BYTES),
        ) {
            let key = SigningKey::from([4; 32]);
            let transfer = Transfer {
                chain: ChainId::new("c").unwrap(), nonce, fee, expiry_height, recipient: Address(recipient), amount,
                memo: &memo,
            };
            let bytes = transfer.sign(&key).unwrap();
            let decoded = Transaction::decode(&bytes).unwrap();
            let Terms { chain, nonce, fee, expiry_height } = decoded.terms;
            let Action::Transfer { recipient, amount, memo } = decoded.action else { panic!("another kind") };
            prop_assert_eq!(Transfer { chain, nonce, fee, expiry_height, recipient, amount, memo }, transfer);
            prop_assert_eq!(decoded.sender.0, <[u8; 32]>::from(VerificationKeyBytes::from(&key)));
        }
    }
}
