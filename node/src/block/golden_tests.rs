//! The stored form of everything that blocks and consensus leave in the database: keys and values.

#![allow(clippy::unwrap_used)]

use bizra_driver::batch::Batch;
use bizra_driver::light::Link;
use bizra_driver::{Member, PublicKey};
use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Boundary, Certificate, Checkpoint, Contradiction, Record, Reputation, SignedVote, Version, Vote, VoteKind,
};
use bytes::Bytes;

use super::BlockStore;
use crate::golden::assert_golden;
use crate::storage::{Database, Family};

fn signed(kind: VoteKind, digest: Digest) -> SignedVote {
    let vote = Vote { epoch: Epoch(1), view: View(9), kind, digest };
    SignedVote { vote, signer: ValidatorIndex(2), signature: Signature([0xa2; 64]) }
}

fn certificate(kind: VoteKind, digest: Digest) -> Certificate {
    let SignedVote { vote, signer, signature } = signed(kind, digest);
    Certificate { vote, signatures: vec![(signer, signature)] }
}

fn batch(sequence: u64) -> Batch {
    let payload = Bytes::from_static(b"transactions");
    Batch { epoch: Epoch(1), origin: ValidatorIndex(2), sequence, payload, signature: Signature([0xb0; 64]) }
}

#[test]
fn version_1_of_every_stored_form_of_consensus_never_changes() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let genesis = Block::genesis(Digest([7; 32]), 1_000);
    let store = BlockStore::open(database.clone(), genesis.clone()).unwrap();
    let contradiction = Contradiction::new(
        signed(VoteKind::Nullify, Digest::default()),
        signed(VoteKind::Finalize, Digest([0x11; 32])),
    );
    let block = Block {
        epoch: Epoch(1),
        height: Height(1),
        parent: genesis.digest(),
        view: View(2),
        proposer: ValidatorIndex(2),
        signals: Version(2),
        time_milliseconds: 2_000,
        checkpoint: Checkpoint { height: Height(0), state: Digest([0x33; 32]), receipts: Digest([0x44; 32]) },
        boundary: Some(Boundary { validators: Digest([0x55; 32]), snapshot: Digest([0x56; 32]), version: Version(2) }),
        batches: vec![Digest([0x66; 32])],
        contradictions: vec![contradiction],
    };
    let key = PublicKey([0x88; 32]);
    let records = [Record::Block(block.clone()), Record::Certificate(certificate(VoteKind::Notarize, block.digest()))];

    let mut now = String::new();
    let mut dump = |when: &str| {
        for (family, name) in
            [(Family::Blocks, "blocks"), (Family::Batches, "batches"), (Family::Consensus, "consensus")]
        {
            for item in database.scan(family, &[]).unwrap() {
                let (key, value) = item.unwrap();
                now += &[when, name, &hex::encode(&key), &hex::encode(value)].join(" ");
                now.push('\n');
            }
        }
    };
    let mut writes = database.writes();
    for record in &records {
        store.put_record(&mut writes, record).unwrap();
    }
    store.put_batch(&mut writes, Digest([0x66; 32]), &batch(1)).unwrap();
    store.put_vote(&mut writes, key, &signed(VoteKind::Finalize, block.digest())).unwrap();
    store.put_evidence(&mut writes, key, &contradiction.first, &contradiction.second).unwrap();
    writes.commit_unsynced().unwrap();
    dump("proposed");
    // Everything that was written is read back as it was.
    assert_eq!(store.records().unwrap(), records);
    assert_eq!(store.unordered().unwrap(), [batch(1)]);
    assert_eq!(store.highest_votes().unwrap(), [(key, signed(VoteKind::Finalize, block.digest()))]);
    assert_eq!(store.evidence().unwrap(), [(key, contradiction)]);

    let finalization = certificate(VoteKind::Finalize, block.digest());
    let mut writes = database.writes();
    store.finalize(&mut writes, std::slice::from_ref(&block), &finalization).unwrap();
    let next = vec![Member { key, power: Power(3), reputation: Reputation::FLOOR }];
    store.put_link(&mut writes, &Link { block: block.clone(), finalization: finalization.clone(), next }).unwrap();
    writes.commit_unsynced().unwrap();
    store.finalized_to(&block);
    dump("final");
    let (anchor, certificate) = store.anchor().unwrap();
    assert_eq!((anchor.block, certificate), (block, Some(finalization)));
    assert!(store.records().unwrap().is_empty() && store.is_ordered(Digest([0x66; 32])).unwrap());
    assert_golden("block/golden/stored.txt", &now);
}
