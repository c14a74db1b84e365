#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_zebra::SigningKey;
use proptest::prelude::*;

use super::*;
use bizra_transaction::Transfer;
use bizra_transaction::{Address, ChainId};

fn transaction(seed: u8, nonce: u64) -> Bytes {
    let (chain, recipient) = (ChainId::new("demo-1").unwrap(), Address([1; 32]));
    Transfer { chain, nonce, fee: 0, expiry_height: 9, recipient, amount: 1, memo: &[] }
        .sign(&SigningKey::from([seed; 32]))
        .unwrap()
}

/// The same transaction with another sender and signature.
fn with(bytes: &[u8], sender: [u8; 32], signature: impl FnOnce(&Transaction<'_>) -> [u8; 64]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[34..66].copy_from_slice(&sender);
    let signature = signature(&Transaction::decode(&bytes).unwrap());
    let start = bytes.len() - 64;
    bytes[start..].copy_from_slice(&signature);
    bytes
}

fn item(bytes: &[u8]) -> Item<'_> {
    Item::from(Transaction::decode(bytes).unwrap())
}

/// Together with a valid signature, the equation must say what zebra says of the one signature.
fn assert_agreement(bytes: &[u8]) -> bool {
    let good = transaction(200, 0);
    let mut checker = SignatureChecker::default();
    let expected = is_valid(&item(bytes));
    for _ in 0..2 {
        // The second time with the key from the cache.
        assert_eq!(checker.all_valid([item(bytes)].iter()), expected);
        assert_eq!(checker.all_valid([item(&good), item(bytes)].iter()), expected);
    }
    expected
}

/// All encodings of points of small order, canonical and not: the vectors of ZIP-215.
fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut encodings: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    let minus_zero = |mut bytes: [u8; 32]| {
        bytes[31] |= 0x80;
        bytes
    };
    let prime_plus = |small: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (0xed + small, 0x7f);
        bytes
    };
    let identity = EIGHT_TORSION[0].compress().0;
    let order_two = EIGHT_TORSION[4].compress().0;
    encodings.extend([minus_zero(identity), minus_zero(order_two), prime_plus(1), minus_zero(prime_plus(1))]);
    encodings.extend([prime_plus(0), minus_zero(prime_plus(0))]);
    encodings
}

#[test]
fn zip_215_small_order_and_non_canonical_points_are_valid_alone_and_together() {
    let base = transaction(1, 0);
    let encodings = small_order_encodings();
    assert_eq!(encodings.iter().collect::<std::collections::BTreeSet<_>>().len(), 14);
    let mut all = Vec::new();
    for key in &encodings {
        for commitment in &encodings {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(commitment);
            let bytes = with(&base, *key, |_| signature);
            assert!(assert_agreement(&bytes), "key {key:02x?}, R {commitment:02x?}");
            all.push(bytes);
        }
    }
    let items: Vec<_> = all.iter().map(|bytes| item(bytes)).collect();
    assert!(SignatureChecker::default().all_valid(items.iter()));
}

/// A signature whose key and R carry components of small order: valid only if the cofactor is cleared.
fn mixed_order(base: &[u8], key: u64, nonce: u64, key_torsion: usize, nonce_torsion: usize) -> Vec<u8> {
    let (key, nonce) = (Scalar::from(key) + Scalar::ONE, Scalar::from(nonce) + Scalar::ONE);
    let public = (key * ED25519_BASEPOINT_POINT + EIGHT_TORSION[key_torsion]).compress().0;
    let commitment = (nonce * ED25519_BASEPOINT_POINT + EIGHT_TORSION[nonce_torsion]).compress().0;
    let unfinished = with(base, public, |_| [commitment, [0; 32]].concat().try_into().unwrap());
    let response = nonce + item(&unfinished).challenge * key;
    with(base, public, |_| [commitment, response.to_bytes()].concat().try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn components_of_small_order_are_valid_alone_and_together(
        key: u64, nonce: u64, key_torsion in 0..8_usize, nonce_torsion in 0..8_usize,
    ) {
        prop_assert!(assert_agreement(&mixed_order(&transaction(1, 0), key, nonce, key_torsion, nonce_torsion)));
    }

    #[test]
    fn whatever_is_changed_both_ways_of_checking_agree(at in 66..196_usize, bit in 0..8_u32, seed: u8) {
        let mut bytes = transaction(seed, 1).to_vec();
        bytes[at] ^= 1 << bit;
        // Some changes make it no transaction at all.
        if Transaction::decode(&bytes).is_ok() {
            prop_assert!(!assert_agreement(&bytes));
        }
    }

    #[test]
    fn any_key_and_signature_get_the_same_answer(key: [u8; 32], commitment: [u8; 32], response: [u8; 32]) {
        let signature = [commitment, response].concat().try_into().unwrap();
        prop_assert!(!assert_agreement(&with(&transaction(1, 0), key, |_| signature)));
    }

    #[test]
    fn the_invalid_ones_are_found_wherever_they_are(bad in proptest::collection::btree_set(0..1_200_usize, 0..4)) {
        let good: Vec<Bytes> = (0..8).map(|seed| transaction(seed, 0)).collect();
        let mut forged = good[0].to_vec();
        forged[70] ^= 1;
        let chosen = |index: usize| if bad.contains(&index) { &forged[..] } else { &good[index % 8][..] };
        let items: Vec<_> = (0..1_200).map(|index| item(chosen(index))).collect();
        let expected: Vec<_> = bad.iter().copied().collect();
        prop_assert_eq!(SignatureChecker::default().find_invalid(&items), expected);
    }
}

#[test]
fn a_response_above_the_group_order_is_invalid_alone_and_together() {
    let bytes = transaction(1, 0);
    let canonical = response(&Transaction::decode(&bytes).unwrap()).unwrap().to_bytes();
    // The group order ℓ = 2^252 + 27742317777372353535851937790883648493, little-endian.
    let order: [u8; 32] = (-Scalar::ONE).to_bytes();
    let mut carry = 1_u16;
    let larger: [u8; 32] = std::array::from_fn(|index| {
        carry += u16::from(canonical[index]) + u16::from(order[index]);
        let byte = carry as u8;
        carry >>= 8;
        byte
    });
    let sender = Transaction::decode(&bytes).unwrap().sender.0;
    let forged = with(&bytes, sender, |transaction| [commitment(transaction), larger].concat().try_into().unwrap());
    assert!(!assert_agreement(&forged));
    assert!(assert_agreement(&bytes));
}
