#![allow(clippy::unwrap_used, clippy::panic)]

use bizra_simplex::types::Height;
use ed25519_zebra::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{Action, ChainId, TRANSACTION_MAX_BYTES, Terms, Transaction, Transfer};

fn terms() -> Terms {
    Terms { chain: ChainId::new("demo-1").unwrap(), nonce: 7, fee: 1, expiry_height: 100 }
}

fn operations() -> Vec<Operation> {
    let proof = KeyProof { public_key: [3; 32], height: 9, block: Digest([4; 32]), signature: Signature([5; 64]) };
    let vote = |digest| Vote { epoch: Epoch(1), view: View(2), kind: VoteKind::Notarize, digest: Digest([digest; 32]) };
    let (first, second) = ((vote(1), Signature([6; 64])), (vote(2), Signature([7; 64])));
    vec![
        Operation::ReserveStake { amount: 1_000 },
        Operation::ReleaseStake { amount: 999 },
        Operation::RegisterValidator { name: "demo-v4".to_owned() },
        Operation::DeregisterValidator,
        Operation::ActivateValidator(proof),
        Operation::DeactivateValidator,
        Operation::RotateConsensusKey(proof),
        Operation::ReportEquivocation(Equivocation { public_key: [8; 32], first, second }),
        Operation::UpdateParameters(Parameters::default()),
    ]
}

fn encoded() -> Vec<Vec<u8>> {
    let key = SigningKey::from([1; 32]);
    let Terms { chain, nonce, fee, expiry_height } = terms();
    let recipient = Address([9; 32]);
    let transfer = Transfer { chain, nonce, fee, expiry_height, recipient, amount: 5, memo: b"hi" }.sign(&key).unwrap();
    let operations = operations().into_iter().map(|operation| terms().sign(&operation, &key).unwrap().to_vec());
    std::iter::once(transfer.to_vec()).chain(operations).collect()
}

#[test]
fn version_1_of_every_kind_never_changes() {
    let lines = encoded().iter().map(hex::encode).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(lines, include_str!("golden/transactions.txt"), "a form that was released gets a new version");
}

#[test]
fn every_operation_survives_a_round_trip_and_has_its_own_kind() {
    let kinds: std::collections::BTreeSet<u8> = operations().iter().map(Operation::kind).collect();
    assert_eq!(kinds, (2..=10).collect());
    for operation in operations() {
        let bytes = terms().sign(&operation, &SigningKey::from([1; 32])).unwrap();
        let decoded = Transaction::decode(&bytes).unwrap();
        assert_eq!((decoded.terms, decoded.action), (terms(), Action::Operation(Box::new(operation))));
        assert_eq!(Transaction::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated));
        let longer = [&bytes[..], &[0]].concat();
        assert!(Transaction::decode(&longer).is_err());
    }
}

#[test]
fn values_no_body_has_are_malformed() {
    let with = |operation: &Operation, offset: usize, byte: u8| {
        let mut bytes = terms().sign(operation, &SigningKey::from([1; 32])).unwrap().to_vec();
        bytes[offset] = byte;
        Transaction::decode(&bytes).map(|_| ()).unwrap_err()
    };
    let [.., register, _, _, _, _, report, update] = &operations()[..] else { panic!() };
    assert_eq!(with(register, 91, b'_'), DecodeError::MalformedBody);
    assert_eq!(with(report, 90 + 48, 9), DecodeError::MalformedBody);
    assert_eq!(with(update, 90 + 7, 1), DecodeError::MalformedBody);
    let nameless = Operation::RegisterValidator { name: String::new() };
    assert!(terms().sign(&nameless, &SigningKey::from([1; 32])).is_err());
}

#[test]
fn key_proofs_and_evidence_bind_what_they_are_about() {
    let (key, owner) = (SigningKey::from([2; 32]), Address([1; 32]));
    let public_key = ed25519_zebra::VerificationKeyBytes::from(&key).into();
    let block = bizra_simplex::Block::genesis(Digest([1; 32]), 0);
    assert_eq!(block.height, Height(0));
    let signature = Signature(key.sign(&KeyProof::message(owner, 0, block.digest())).into());
    let proof = KeyProof { public_key, height: 0, block: block.digest(), signature };
    assert!(proof.is_valid(owner));
    assert!(!proof.is_valid(Address([2; 32])));
    assert!(!KeyProof { height: 1, ..proof }.is_valid(owner));

    let genesis = Digest([7; 32]);
    let sign = |vote: Vote| (vote, Signature(key.sign(&vote.signed_bytes(genesis)).into()));
    let vote = |kind, digest| Vote { epoch: Epoch(1), view: View(2), kind, digest: Digest([digest; 32]) };
    let (one, two) = (sign(vote(VoteKind::Notarize, 1)), sign(vote(VoteKind::Notarize, 2)));
    let evidence = Equivocation { public_key, first: one, second: two };
    assert!(evidence.is_valid_by(genesis, &verify));
    assert!(!evidence.is_valid_by(Digest([8; 32]), &verify));
    assert!(!Equivocation { second: one, ..evidence }.is_valid_by(genesis, &verify));
    let honest = sign(vote(VoteKind::Finalize, 1));
    assert!(!Equivocation { second: honest, ..evidence }.is_valid_by(genesis, &verify));
}

proptest! {
    #[test]
    fn any_body_gets_an_answer(kind: u8, body in proptest::collection::vec(any::<u8>(), 64..400)) {
        let mut bytes = encoded().remove(0);
        bytes.truncate(90);
        bytes[1] = kind;
        bytes.extend(body);
        prop_assert!(bytes.len() <= TRANSACTION_MAX_BYTES);
        if let Ok(transaction) = Transaction::decode(&bytes)
            && let Action::Operation(operation) = transaction.action
        {
            // One form only: what decodes encodes to the same body.
            let again = transaction.terms.sign(&operation, &SigningKey::from([1; 32])).unwrap();
            prop_assert_eq!(&again[90..again.len() - 64], &bytes[90..bytes.len() - 64]);
        }
    }
}
