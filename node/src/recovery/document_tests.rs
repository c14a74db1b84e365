#![allow(clippy::unwrap_used)]

use super::super::fixture::{block, document, genesis, key, public, validator};
use super::*;
use crate::golden::assert_golden;
use crate::validator::ValidatorSetRecord;

type Change = Box<dyn Fn(&mut RestartDocument)>;

fn checked() -> CheckedRestart {
    document().check(&genesis()).unwrap()
}

fn last_set() -> ValidatorSetRecord {
    let member = |validator: &GenesisValidator| Member {
        owner: Address(decode_hex(validator.owner.as_deref().unwrap()).unwrap()),
        name: validator.name.clone(),
        consensus_key: decode_hex(&validator.public_key).unwrap(),
        power: 1,
        conduct: Conduct::default(),
    };
    let members = genesis().genesis.validators.iter().map(member).collect();
    ValidatorSetRecord { epoch: 2, cutoff: 32, version: 1, members }
}

#[test]
fn version_1_of_a_document_never_changes() {
    let signed = checked().sign(&key(101)).sign(&key(102)).sign(&key(103));
    let file = String::from_utf8(signed.document.to_file()).unwrap();
    assert_golden("recovery/golden/restart_v1.txt", &format!("{}\n{file}", signed.hash));
    let again = RestartDocument::parse(file.as_bytes()).unwrap().check(&genesis()).unwrap();
    assert_eq!((again.hash, again.ledger.signers.len()), (signed.hash, 3));
}

#[test]
fn owners_of_more_than_two_thirds_of_the_power_restart_and_nobody_else() {
    let mut restart = checked();
    // Strangers, and the consensus keys of the validators, weigh nothing.
    for seed in [1, 2, 3, 4, 200, 101, 102] {
        restart = restart.sign(&key(seed));
        assert!(restart.ledger.weigh(&last_set()).is_err());
    }
    restart = restart.sign(&key(101));
    assert!(restart.ledger.weigh(&last_set()).is_err(), "signing twice counts once");
    // Two copies, put together.
    let copy = checked().sign(&key(104)).sign(&key(101));
    let joined = restart.join(copy).document.check(&genesis()).unwrap();
    joined.ledger.weigh(&last_set()).unwrap();
}

#[test]
fn a_signature_is_for_one_document_and_every_field_makes_another() {
    let signed = checked().sign(&key(101)).document;
    let (other_block, other_certificate) = block(2, 41, 9, VoteKind::Notarize);
    let changes: Vec<Change> = vec![
        Box::new(|document| document.may_lose_finality = true),
        Box::new(|document| document.epoch = 6),
        Box::new(|document| document.state_commitment = "66".repeat(32)),
        Box::new(|document| document.validators[0] = validator(1, 1, 2)),
        Box::new(|document| document.validators[0] = validator(1, 21, 1)),
        Box::new(|document| document.validators[0].owner = Some(public(109))),
        Box::new(|document| document.validators[0].name = "other".to_owned()),
        Box::new(|document| document.validators.swap(0, 1)),
        Box::new(|document| drop(document.validators.pop())),
        Box::new(|document| (document.number, document.previous) = (2, "77".repeat(32))),
        Box::new(move |document| {
            document.height = 41;
            document.block_hash = other_block.digest().to_string();
            document.block = encode_block(&other_block);
            document.certificate = encode_certificate(&other_certificate);
        }),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut other = signed.clone();
        change(&mut other);
        let error = other.clone().check(&genesis()).unwrap_err();
        assert!(matches!(error, DocumentError::Signature { .. }), "{index}: {error}");
        other.signatures.clear();
        assert_ne!(other.check(&genesis()).unwrap().hash, checked().hash, "{index}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let (_, foreign) = block(2, 41, 9, VoteKind::Notarize);
    let (_, nullify) = block(2, 40, 9, VoteKind::Nullify);
    let changes: Vec<(&str, Change)> = vec![
        ("version", Box::new(|document| document.version = 2)),
        ("another chain", Box::new(|document| document.genesis_hash = "11".repeat(32))),
        ("no first", Box::new(|document| document.previous = "11".repeat(32))),
        ("no number", Box::new(|document| document.number = 0)),
        ("height", Box::new(|document| document.height = 41)),
        ("hash", Box::new(|document| document.block_hash = "11".repeat(32))),
        ("block", Box::new(|document| document.block.push_str("00"))),
        ("certificate", Box::new(move |document| document.certificate = encode_certificate(&foreign))),
        ("nullification", Box::new(move |document| document.certificate = encode_certificate(&nullify))),
        ("an epoch too near", Box::new(|document| document.epoch = 4)),
        ("an epoch too far", Box::new(|document| document.epoch = u64::MAX)),
        ("nobody", Box::new(|document| document.validators.clear())),
        ("a key twice", Box::new(|document| document.validators[0] = validator(5, 2, 1))),
        ("an owner twice", Box::new(|document| document.validators[0].owner = Some(public(102)))),
        ("no owner", Box::new(|document| document.validators[0].owner = None)),
        ("no power", Box::new(|document| document.validators[0].power = "0".to_owned())),
        ("no node's name", Box::new(|document| document.validators[0].name = "V 1".to_owned())),
        (
            "a key without proof",
            Box::new(|document| {
                let proof = document.validators[1].proof_of_possession.clone();
                document.validators[0].proof_of_possession = proof;
            }),
        ),
    ];
    for (what, change) in changes {
        let mut other = document();
        change(&mut other);
        assert!(other.check(&genesis()).is_err(), "{what}");
    }
    for junk in [&b""[..], b"{}", b"[1]", b"\xff"] {
        assert!(RestartDocument::parse(junk).is_err());
    }
}

#[test]
fn restarts_come_one_after_the_other() {
    let hash = genesis().hash;
    let first = checked();
    first.follows(None, hash).unwrap();
    let second = |epoch: u64, height: u64, begins: u64, previous: Digest| {
        let (block, certificate) = block(epoch, height, 3, VoteKind::Finalize);
        let document = RestartDocument {
            number: 2,
            previous: previous.to_string(),
            height,
            block_hash: block.digest().to_string(),
            block: encode_block(&block),
            certificate: encode_certificate(&certificate),
            epoch: begins,
            ..document()
        };
        document.check(&genesis()).unwrap().follows(Some(&first), hash)
    };
    second(6, 90, 9, first.hash).unwrap();
    // At the same block again: nothing came of the first.
    second(2, 40, 8, first.hash).unwrap();
    for (epoch, height, begins, previous) in [
        (6, 90, 9, Digest([1; 32])),
        (6, 90, 9, hash),
        (2, 41, 8, first.hash),
        (6, 39, 9, first.hash),
        (2, 40, 7, first.hash),
    ] {
        assert!(second(epoch, height, begins, previous).is_err(), "{epoch} {height} {begins}");
    }
    assert!(first.follows(Some(&first), hash).is_err());
}
