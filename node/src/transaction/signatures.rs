//! Ed25519 signatures by the ZIP-215 rules, many at once. Checking together and checking one by one always agree, so
//! that no two validators can disagree on a batch; half the cost of one by one from about 256 signatures on.

use ed25519_zebra::batch::{Item, Verifier};
use ed25519_zebra::{Signature, VerificationKeyBytes};
use getrandom::rand_core::{Infallible, TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};

use super::codec::Transaction;

/// Most signatures checked in one equation; larger sets gain little and delay the first answer.
pub const SIGNATURES_AT_ONCE_MAX: usize = 1_024;

/// Size of the pieces a failed set is cut into before its signatures are checked one by one. Bounds what a sender of
/// bad signatures can make others pay to about four times the price of a good one.
const PIECE: usize = 32;

/// The signature of `transaction`, prepared for checking. `scratch` is reused between calls.
pub(super) fn item(transaction: &Transaction<'_>, scratch: &mut Vec<u8>) -> Item {
    transaction.write_signed_message(scratch);
    let key = VerificationKeyBytes::from(transaction.sender.0);
    Item::from((key, Signature::from(transaction.signature), scratch.as_slice()))
}

/// True if all signatures are valid.
pub(super) fn all_valid<'i>(items: impl Iterator<Item = &'i Item> + Clone) -> bool {
    // Without randomness the equation could be tricked; then every signature is checked by itself.
    let Some(random) = Coefficients::new() else {
        return items.into_iter().all(|item| item.clone().verify_single().is_ok());
    };
    let mut verifier = Verifier::new();
    items.for_each(|item| verifier.queue(item.clone()));
    verifier.verify(random).is_ok()
}

/// Indices of the invalid signatures, ascending.
pub(super) fn find_invalid(items: &[Item]) -> Vec<usize> {
    let mut invalid = Vec::new();
    for (group_index, group) in items.chunks(SIGNATURES_AT_ONCE_MAX).enumerate() {
        if all_valid(group.iter()) {
            continue;
        }
        for (piece_index, piece) in group.chunks(PIECE).enumerate() {
            if all_valid(piece.iter()) {
                continue;
            }
            let start = group_index * SIGNATURES_AT_ONCE_MAX + piece_index * PIECE;
            let bad = piece.iter().enumerate().filter(|(_, item)| (*item).clone().verify_single().is_err());
            invalid.extend(bad.map(|(index, _)| start + index));
        }
    }
    invalid
}

/// The random coefficients of one batch equation: SHA-256 in counter mode over a seed from the operating system, one
/// system call a batch instead of one a signature.
struct Coefficients {
    seed: [u8; 32],
    counter: u64,
}

impl Coefficients {
    fn new() -> Option<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok().map(|()| Self { seed, counter: 0 })
    }

    fn block(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into()
    }
}

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for piece in target.chunks_mut(32) {
            let block = self.block();
            piece.iter_mut().zip(block).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}
