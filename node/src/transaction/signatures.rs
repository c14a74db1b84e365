//! Ed25519 signatures by the ZIP-215 rules, many at once. Checking together and checking one by one always agree, so
//! that no two validators can disagree on a batch.
//!
//! The equation is that of ZIP-215 and of `ed25519-zebra`: for random 128-bit z,
//! `8·(Σ z·R + Σ (z·k)·A − (Σ z·s)·B) = 0`, with R and A decompressed leniently (non-canonical encodings count), s
//! canonical, and the cofactor cleared. It is ours because `ed25519-zebra` decompresses every key of every batch: the
//! keys of senders seen lately are kept decompressed here, which takes a quarter of the work away. The field and group
//! arithmetic is `curve25519-dalek`'s, which zebra uses too; a signature checked alone, as after a failed batch, is
//! checked by zebra itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use ed25519_zebra::{Signature, VerificationKey};
use sha2::{Digest as _, Sha256, Sha512};

use crate::generations::Generations;
use bizra_transaction::Transaction;

/// Most signatures checked in one equation; larger sets gain little and delay the first answer.
pub const SIGNATURES_AT_ONCE_MAX: usize = 1_024;

/// Size of the pieces a failed set is cut into before its signatures are checked one by one. Bounds what a sender of
/// bad signatures can make others pay to a few times the price of a good one.
const PIECE: usize = 32;

/// Most decompressed keys kept, about 200 bytes each. Bounds what an attacker with many keys can pin; more senders than
/// this cost what they would cost without the cache.
const KEYS_MAX: usize = 65_536;

/// One signature to check, prepared: everything that depends on the message is computed.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    transaction: Transaction<'a>,
    /// k = SHA-512(R ‖ A ‖ message) mod ℓ.
    challenge: Scalar,
}

impl<'a> From<Transaction<'a>> for Item<'a> {
    fn from(transaction: Transaction<'a>) -> Self {
        let mut hash = Sha512::new();
        hash.update(commitment(&transaction));
        hash.update(transaction.sender.0);
        transaction.signed_message().into_iter().for_each(|part| hash.update(part));
        Self { transaction, challenge: Scalar::from_hash(hash) }
    }
}

/// R: the first half of the signature.
fn commitment(transaction: &Transaction<'_>) -> [u8; 32] {
    std::array::from_fn(|index| transaction.signature[index])
}

/// s: the second half of the signature, if it is canonical.
fn response(transaction: &Transaction<'_>) -> Option<Scalar> {
    Scalar::from_canonical_bytes(std::array::from_fn(|index| transaction.signature[32 + index])).into()
}

/// Checks signatures and remembers the decompressed keys of their senders. Each thread that checks has its own.
pub(super) struct SignatureChecker {
    keys: Generations<[u8; 32], EdwardsPoint>,
}

impl Default for SignatureChecker {
    fn default() -> Self {
        Self { keys: Generations::new(KEYS_MAX) }
    }
}

impl SignatureChecker {
    /// True if all signatures are valid.
    pub(super) fn all_valid<'i, 'a: 'i>(&mut self, items: impl Iterator<Item = &'i Item<'a>> + Clone) -> bool {
        // Without randomness the equation could be tricked; then every signature is checked by itself.
        match Coefficients::new() {
            Some(coefficients) => self.equation_holds(items, coefficients),
            None => items.into_iter().all(is_valid),
        }
    }

    fn equation_holds<'i, 'a: 'i>(
        &mut self,
        items: impl Iterator<Item = &'i Item<'a>>,
        mut coefficients: Coefficients,
    ) -> bool {
        let room = 2 * items.size_hint().0 + 1;
        let (mut scalars, mut points) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut senders: HashMap<[u8; 32], usize> = HashMap::with_capacity(room / 2);
        let mut base = Scalar::ZERO;
        for Item { transaction, challenge } in items {
            let commitment = CompressedEdwardsY(commitment(transaction)).decompress();
            let (Some(commitment), Some(response)) = (commitment, response(transaction)) else { return false };
            let coefficient = coefficients.next();
            base -= coefficient * response;
            match senders.entry(transaction.sender.0) {
                // Several signatures of one sender share the term of its key.
                Entry::Occupied(place) => {
                    if let Some(scalar) = scalars.get_mut(*place.get()) {
                        *scalar += coefficient * challenge;
                    }
                }
                Entry::Vacant(place) => {
                    let Some(key) = self.key(place.key()) else { return false };
                    place.insert(scalars.len());
                    scalars.push(coefficient * challenge);
                    points.push(key);
                }
            }
            scalars.push(coefficient);
            points.push(commitment);
        }
        scalars.push(base);
        points.push(ED25519_BASEPOINT_POINT);
        EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity()
    }

    fn key(&mut self, bytes: &[u8; 32]) -> Option<EdwardsPoint> {
        if let Some(known) = self.keys.get(bytes) {
            return Some(known);
        }
        let key = CompressedEdwardsY(*bytes).decompress()?;
        self.keys.put(*bytes, key);
        Some(key)
    }

    /// Indices of the invalid signatures, ascending.
    pub(super) fn find_invalid(&mut self, items: &[Item<'_>]) -> Vec<usize> {
        let mut invalid = Vec::new();
        for (group_index, group) in items.chunks(SIGNATURES_AT_ONCE_MAX).enumerate() {
            if self.all_valid(group.iter()) {
                continue;
            }
            for (piece_index, piece) in group.chunks(PIECE).enumerate() {
                if self.all_valid(piece.iter()) {
                    continue;
                }
                let start = group_index * SIGNATURES_AT_ONCE_MAX + piece_index * PIECE;
                let bad = piece.iter().enumerate().filter(|(_, item)| !is_valid(item));
                invalid.extend(bad.map(|(index, _)| start + index));
            }
        }
        invalid
    }
}

/// Checks one signature by itself.
fn is_valid(item: &Item<'_>) -> bool {
    let message = item.transaction.signed_message().concat();
    let key = VerificationKey::try_from(item.transaction.sender.0);
    key.is_ok_and(|key| key.verify(&Signature::from(item.transaction.signature), &message).is_ok())
}

/// The random coefficients of one equation: SHA-256 in counter mode over a seed from the operating system, one system
/// call an equation instead of one a signature.
struct Coefficients {
    seed: [u8; 32],
    counter: u64,
}

impl Coefficients {
    fn new() -> Option<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok().map(|()| Self { seed, counter: 0 })
    }

    fn next(&mut self) -> Scalar {
        self.counter += 1;
        let block = Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize();
        Scalar::from(u128::from_le_bytes(std::array::from_fn(|index| block[index])))
    }
}

#[cfg(test)]
#[path = "signatures_tests.rs"]
mod tests;
