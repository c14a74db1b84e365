//! What makes a batch valid by itself (PROTOCOL D1): layout, encoding, chain id and signatures of all its
//! transactions. The answer depends on the payload and the chain alone, never on a node's height or state, so every
//! validator gives the same one. A well-formed expiry height is part of the encoding; whether it has passed is judged
//! at execution, against the height of the block, where it gives a failed receipt.

use std::ops::Range;

use super::payload::{LayoutError, Payload};
use super::signatures::{Item, SIGNATURES_AT_ONCE_MAX, SignatureChecker};
use bizra_transaction::ChainId;
use bizra_transaction::{DecodeError, Transaction};
use bytes::Bytes;

/// Why a payload is invalid. Its origin signed it, so its origin is accountable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload itself is malformed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A transaction is malformed.
    #[error("transaction {index} of the payload: {error}")]
    Transaction {
        /// Its position in the payload.
        index: u32,
        /// What is wrong.
        error: DecodeError,
    },
    /// A transaction is for another chain.
    #[error("transaction {index} of the payload is for chain {chain:?}")]
    WrongChain {
        /// Its position in the payload.
        index: u32,
        /// The chain it names.
        chain: ChainId,
    },
    /// A signature is not by the sender, or not over these bytes.
    #[error("transaction {index} of the payload has an invalid signature")]
    InvalidSignature {
        /// Its position in the payload.
        index: u32,
    },
}

impl PayloadError {
    /// Stable name for metrics and evidence.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Layout(_) => "MalformedPayload",
            Self::Transaction { error, .. } => error.reason(),
            Self::WrongChain { .. } => "WrongChain",
            Self::InvalidSignature { .. } => "InvalidSignature",
        }
    }
}

/// Checks payloads of other validators. Keeps what makes checking cheaper from call to call.
pub struct PayloadVerifier {
    chain: ChainId,
    signatures: SignatureChecker,
}

impl PayloadVerifier {
    /// A verifier for one chain.
    pub fn new(chain: ChainId) -> Self {
        Self { chain, signatures: SignatureChecker::default() }
    }

    /// Checks many payloads, of one or of many origins; the answers are in the order of the payloads. Signatures are
    /// checked up to 1,024 at once across payloads, and by halves of the payloads when a check fails (PROTOCOL D5).
    /// Call it on a verification thread, and for each payload once. A payload this node packed itself was verified at
    /// admission already.
    pub fn verify(&mut self, payloads: &[Bytes]) -> Vec<Result<(), PayloadError>> {
        let mut results = Vec::with_capacity(payloads.len());
        let mut items = Vec::new();
        let mut queue: Vec<(usize, Range<usize>)> = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let start = items.len();
            let result = collect_items(&self.chain, payload, &mut items);
            match result {
                Ok(()) => queue.push((index, start..items.len())),
                Err(_) => items.truncate(start),
            }
            results.push(result);
        }
        let mut rest = queue.as_slice();
        while !rest.is_empty() {
            let mut signatures = 0;
            let within = rest.iter().take_while(|(_, range)| {
                signatures += range.len();
                signatures <= SIGNATURES_AT_ONCE_MAX
            });
            // A payload with more than 1,024 signatures goes alone; it is checked in pieces of 1,024.
            let (group, later) = rest.split_at(within.count().max(1));
            self.bisect(group, &items, &mut results);
            rest = later;
        }
        results
    }

    /// Marks the payloads of `group` that hold an invalid signature.
    fn bisect(
        &mut self,
        group: &[(usize, Range<usize>)],
        items: &[Item<'_>],
        results: &mut [Result<(), PayloadError>],
    ) {
        if let [(payload, range)] = group {
            let invalid = items.get(range.clone()).map(|items| self.signatures.find_invalid(items)).unwrap_or_default();
            if let (Some(index), Some(result)) = (invalid.first(), results.get_mut(*payload)) {
                *result = Err(PayloadError::InvalidSignature { index: *index as u32 });
            }
            return;
        }
        let all = group.iter().flat_map(|(_, range)| items.get(range.clone()).unwrap_or_default());
        if self.signatures.all_valid(all) {
            return;
        }
        let (left, right) = group.split_at(group.len() / 2);
        self.bisect(left, items, results);
        self.bisect(right, items, results);
    }
}

fn collect_items<'a>(chain: &ChainId, payload: &'a [u8], items: &mut Vec<Item<'a>>) -> Result<(), PayloadError> {
    let payload = Payload::parse(payload)?;
    items.reserve(payload.count());
    for (index, entry) in (0..).zip(payload.entries()) {
        let transaction =
            Transaction::decode(entry.transaction).map_err(|error| PayloadError::Transaction { index, error })?;
        if transaction.terms.chain != *chain {
            return Err(PayloadError::WrongChain { index, chain: transaction.terms.chain });
        }
        if chain.is_signed() {
            items.push(Item::from(transaction));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ed25519_zebra::SigningKey;

    use super::super::payload::PayloadBuilder;
    use super::*;
    use bizra_transaction::Transfer;
    use bizra_transaction::{Address, TraceId};

    fn chain() -> ChainId {
        ChainId::new("demo-1").unwrap()
    }

    fn transaction(chain: ChainId, seed: u8, nonce: u64) -> Bytes {
        let recipient = Address([1; 32]);
        Transfer { chain, nonce, fee: 0, expiry_height: 9, recipient, amount: 1, memo: &[] }
            .sign(&SigningKey::from([seed; 32]))
            .unwrap()
    }

    fn payload(transactions: &[Bytes]) -> Bytes {
        let mut builder = PayloadBuilder::default();
        for transaction in transactions {
            builder.push(TraceId::default(), transaction);
        }
        builder.finish().unwrap()
    }

    fn forged(seed: u8) -> Bytes {
        let mut bytes = transaction(chain(), seed, 0).to_vec();
        bytes[129] ^= 1;
        Bytes::from(bytes)
    }

    #[test]
    fn one_bad_signature_condemns_its_own_payload_only() {
        let good = |seed: u8| payload(&[transaction(chain(), seed, 0), transaction(chain(), seed, 1)]);
        let bad = payload(&[transaction(chain(), 8, 0), forged(8), transaction(chain(), 8, 2)]);
        let results = PayloadVerifier::new(chain()).verify(&[good(1), good(2), bad.clone(), good(3), bad]);
        let expected = Err(PayloadError::InvalidSignature { index: 1 });
        assert_eq!(results, [Ok(()), Ok(()), expected, Ok(()), expected]);
    }

    #[test]
    fn a_payload_of_another_chain_or_of_noise_is_invalid() {
        let other = payload(&[transaction(chain(), 1, 0), transaction(ChainId::new("demo-2").unwrap(), 1, 0)]);
        let results =
            PayloadVerifier::new(chain()).verify(&[other, Bytes::from_static(b"noise"), payload(&[forged(1)])]);
        assert!(matches!(results[0], Err(PayloadError::WrongChain { index: 1, .. })));
        assert!(matches!(results[1], Err(PayloadError::Layout(_))));
        assert_eq!(results[2], Err(PayloadError::InvalidSignature { index: 0 }));
    }

    #[test]
    fn a_bad_signature_beyond_the_first_thousand_is_found() {
        let good = transaction(chain(), 1, 0);
        let mut transactions = vec![good; 1_100];
        transactions[1_050] = forged(1);
        let results = PayloadVerifier::new(chain()).verify(&[payload(&transactions)]);
        assert_eq!(results, [Err(PayloadError::InvalidSignature { index: 1_050 })]);
    }
}
