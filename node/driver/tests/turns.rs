//! One driver, fed by hand: what a turn lets out and what it survives.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bizra_driver::signing_record::{BLOCK_BYTES, Binding, BlockWrite, SigningRecord, VOTES_PER_SLOT_MAX};
use bizra_driver::wire::PeerMessage;
use bizra_driver::{
    Batch, Change, Disk, DiskError, Driver, Input, Keys, Member, PublicKey, Recovered, Settings, Signing,
};
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{Anchor, Block, Certificate, Checkpoint, Message, Record, Timing, Vote, VoteKind};
use bytes::Bytes;

const GENESIS: Digest = Digest([9; 32]);

fn key(index: u8) -> PublicKey {
    PublicKey([index; 32])
}

/// A signature is valid if all its bytes are the signer's index.
struct IndexKeys;

impl Keys for IndexKeys {
    fn public_key(&self) -> Option<PublicKey> {
        Some(key(0))
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 64])
    }

    fn verify(&self, checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool {
        checks.iter().all(|(signer, _, signature)| signature.0 == [signer.0[0]; 64])
    }
}

/// Remembers nothing but what it was given at the start.
struct FixedDisk(Recovered);

impl Disk for FixedDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        Ok(self.0.clone())
    }

    fn commit(&mut self, _: Vec<Change>, _: Vec<BlockWrite>, _: bool) -> Result<(), DiskError> {
        Ok(())
    }

    fn finalized_block(&self, _: Height) -> Result<Option<Block>, DiskError> {
        Ok(None)
    }

    fn height_of(&self, _: Digest) -> Result<Option<Height>, DiskError> {
        Ok(None)
    }

    fn finalization(&self, _: Height) -> Result<Option<Certificate>, DiskError> {
        Ok(None)
    }

    fn batch(&self, _: Digest) -> Result<Option<Batch>, DiskError> {
        Ok(None)
    }

    fn is_ordered(&self, _: Digest) -> Result<bool, DiskError> {
        Ok(false)
    }

    fn checkpoint(&self, _: Height) -> Result<Option<Checkpoint>, DiskError> {
        Ok(None)
    }

    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError> {
        let members = (0..4).map(|index| Member { key: key(index), power: Power(1) }).collect();
        Ok((epoch == Epoch(0)).then_some(members))
    }

    fn snapshot(&self, _: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(None)
    }
}

fn validator(records: Vec<Record>) -> Driver<FixedDisk, IndexKeys> {
    let settings = Settings {
        genesis_hash: GENESIS,
        timing: Timing::default(),
        epoch_blocks: None,
        nodes: (0..4).map(|index| (key(index), u16::from(index))).collect(),
    };
    let binding = Binding { genesis_hash: GENESIS, volume: Digest([1; 32]), public_key: [2; 32] };
    let file: Vec<Box<[u8; BLOCK_BYTES]>> =
        SigningRecord::create(&binding).into_iter().map(|(_, block)| block).collect();
    let record = SigningRecord::open(&binding, &file).unwrap();
    let disk = FixedDisk(Recovered {
        anchor: Anchor::first(Block::genesis(GENESIS, 0)),
        anchor_certificate: None,
        records,
        batches: Vec::new(),
        executed: Height(0),
        highest_votes: Vec::new(),
        accused: Vec::new(),
    });
    Driver::start(settings, disk, IndexKeys, Some(record), Millis(0), 0).unwrap().0
}

fn answers() -> Vec<Input> {
    (1..4).map(|peer| Input::Message(peer, PeerMessage::HighestVote(key(0), None))).collect()
}

#[test]
fn a_wrong_signature_under_a_batch_says_nothing_about_the_batch() {
    let mut driver = validator(Vec::new());
    let sound = Batch {
        epoch: Epoch(0),
        origin: ValidatorIndex(2),
        sequence: 1,
        payload: Bytes::from_static(b"x"),
        signature: Signature([2; 64]),
    };
    let forged = Batch { signature: Signature([3; 64]), ..sound.clone() };
    let output = driver.turn(Millis(1), 0, [Input::Message(3, PeerMessage::Batch(forged))]).unwrap();
    assert!(output.verify.is_empty());
    let output = driver.turn(Millis(2), 0, [Input::Message(2, PeerMessage::Batch(sound.clone()))]).unwrap();
    assert_eq!(output.verify, [sound]);
}

#[test]
fn more_votes_than_a_slot_holds_are_signed_in_one_turn_slot_by_slot() {
    let views = VOTES_PER_SLOT_MAX as u64 + 10;
    let mut records = Vec::new();
    let mut parent = Block::genesis(GENESIS, 0);
    for view in 1..=views {
        let block = Block { height: parent.height.next(), parent: parent.digest(), ..parent.clone() };
        let vote = Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Notarize, digest: block.digest() };
        let signatures = (1..4_u16).map(|signer| (ValidatorIndex(signer), Signature([signer as u8; 64]))).collect();
        records.push(Record::Certificate(Certificate { vote, signatures }));
        records.push(Record::Block(block.clone()));
        parent = block;
    }
    let mut driver = validator(records);
    let output = driver.turn(Millis(1), 0, answers()).unwrap();
    let finalized = output.sends.iter().filter(|(_, message)| {
        matches!(message, PeerMessage::Consensus(Message::Vote(signed)) if signed.vote.kind == VoteKind::Finalize)
    });
    assert_eq!(finalized.count() as u64, views);
}

#[test]
fn who_is_far_behind_signs_nothing_though_a_quorum_has_answered() {
    let votes = |heights: &[u64]| {
        let mut driver = validator(Vec::new());
        let statuses =
            (1..).zip(heights).map(|(peer, height)| Input::Message(peer, PeerMessage::Status(Height(*height))));
        driver.turn(Millis(1), 0, statuses.chain(answers())).unwrap();
        let output = driver.turn(Millis(60_000), 0, [Input::Tick]).unwrap();
        let signed = |message: &PeerMessage| matches!(message, PeerMessage::Consensus(Message::Vote(_)));
        (driver.signing(), output.sends.iter().any(|(_, message)| signed(message)))
    };
    assert_eq!(votes(&[100, 100]), (Signing::Locked, false));
    // One of four may be a liar, and a few blocks are no distance.
    assert_eq!(votes(&[100]), (Signing::Allowed, true));
    assert_eq!(votes(&[8, 8, 8]), (Signing::Allowed, true));
}
