//! One driver, fed by hand: what a turn lets out and what it survives.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use bizra_driver::batch::BATCH_PAYLOAD_MAX_BYTES;
use bizra_driver::signing_record::{Binding, BlockWrite, SigningRecord, VOTES_PER_SLOT_MAX};
use bizra_driver::wire::PeerMessage;
use bizra_driver::{
    Batch, Change, Disk, DiskError, Driver, Fence, Halt, Input, Keys, Member, NodeIndex, PublicKey, Recovered,
    Restarts, Settings, Signing, UNORDERED_BYTES_PER_ORIGIN_MAX,
};
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Anchor, Block, Certificate, Checkpoint, Contradiction, Message, Protocol, Record, Reputation, SignedVote, Timing,
    Version, Vote, VoteKind,
};
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

/// Remembers nothing but what it was given at the start, and counts syncs.
struct FixedDisk {
    recovered: Recovered,
    syncs: u64,
}

impl Disk for FixedDisk {
    fn recover(&mut self) -> Result<Recovered, DiskError> {
        Ok(self.recovered.clone())
    }

    fn commit(&mut self, _: Vec<Change>, _: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        self.syncs += u64::from(sync);
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
        let members =
            (0..4).map(|index| Member { key: key(index), power: Power(1), reputation: Reputation::FULL }).collect();
        Ok((epoch == Epoch(0)).then_some(members))
    }

    fn snapshot(&self, _: Epoch) -> Result<Option<Digest>, DiskError> {
        Ok(None)
    }

    fn version(&self, _: Epoch) -> Result<Option<Version>, DiskError> {
        Ok(Some(Protocol::V2.version()))
    }

    fn is_reported(&self, _: PublicKey, _: Epoch) -> Result<bool, DiskError> {
        Ok(false)
    }
}

fn validator(records: Vec<Record>) -> Driver<FixedDisk, IndexKeys> {
    start(records, Protocol::LATEST, everybody(), Fence::Open).unwrap()
}

fn everybody() -> BTreeMap<PublicKey, NodeIndex> {
    (0..4).map(|index| (key(index), u16::from(index))).collect()
}

fn start(
    records: Vec<Record>,
    supported: Protocol,
    nodes: BTreeMap<PublicKey, NodeIndex>,
    fence: Fence,
) -> Result<Driver<FixedDisk, IndexKeys>, Halt> {
    let settings = Settings {
        genesis_hash: GENESIS,
        timing: Timing::default(),
        epoch_blocks: None,
        supported,
        nodes,
        restarts: Restarts::default(),
        fence,
    };
    let binding = Binding { genesis_hash: GENESIS, volume: Digest([1; 32]), public_key: [2; 32] };
    let file: Vec<_> = SigningRecord::create(&binding).into_iter().map(|(_, block)| block).collect();
    let record = SigningRecord::open(&binding, &file).unwrap();
    let recovered = Recovered {
        anchor: Anchor::first(Block::genesis(GENESIS, 0)),
        anchor_certificate: None,
        records,
        batches: Vec::new(),
        executed: Height(0),
        highest_votes: Vec::new(),
        evidence: Vec::new(),
    };
    let disk = FixedDisk { recovered, syncs: 0 };
    Driver::start(settings, disk, IndexKeys, Some(record), Millis(0), 0).map(|(driver, _)| driver)
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

/// A batch of validator 2 with its valid signature.
fn batch(sequence: u64, payload: Bytes) -> Batch {
    let (epoch, origin) = (Epoch(0), ValidatorIndex(2));
    Batch { epoch, origin, sequence, payload, signature: Signature([2; 64]) }
}

/// D4: the checks that are under way count.
#[test]
fn an_origin_has_no_more_under_way_than_its_share() {
    let mut driver = validator(Vec::new());
    let payload = Bytes::from(vec![0; BATCH_PAYLOAD_MAX_BYTES]);
    let full = UNORDERED_BYTES_PER_ORIGIN_MAX / BATCH_PAYLOAD_MAX_BYTES;
    let batches: Vec<Batch> = (0..=full as u64).map(|sequence| batch(sequence, payload.clone())).collect();
    let pushes = batches.iter().map(|batch| Input::Message(2, PeerMessage::Batch(batch.clone())));
    let output = driver.turn(Millis(1), 0, pushes).unwrap();
    assert_eq!(output.verify.len(), full);
    // Held instead of under way is the same.
    driver.turn(Millis(2), 0, [Input::BatchVerified(batches[0].clone(), true)]).unwrap();
    let last = || Input::Message(2, PeerMessage::Batch(batches[full].clone()));
    assert!(driver.turn(Millis(3), 0, [last()]).unwrap().verify.is_empty());
}

fn contradiction(signer: u16, first: u8) -> [SignedVote; 2] {
    [first, first + 1].map(|digest| SignedVote {
        vote: Vote { epoch: Epoch(0), view: View(1), kind: VoteKind::Notarize, digest: Digest([digest; 32]) },
        signer: ValidatorIndex(signer),
        signature: Signature([signer as u8; 64]),
    })
}

/// V6, V7: what is known to contradict is in the first block that this node makes; once.
#[test]
fn a_leader_reports_the_contradictions_it_holds() {
    let mut driver = validator(Vec::new());
    let [one, other] = contradiction(3, 7);
    let told = Input::Message(1, PeerMessage::Evidence(other, one));
    let again = Input::Message(1, PeerMessage::Evidence(one, other));
    let forged = SignedVote { signature: Signature([9; 64]), ..contradiction(2, 5)[1] };
    let lie = Input::Message(1, PeerMessage::Evidence(contradiction(2, 5)[0], forged));
    let output = driver.turn(Millis(1), 0, [told, again, lie]).unwrap();
    assert_eq!(output.evidence, [(one, other)]);
    // Views 1 to 3 are nullified, view 4 is its own.
    driver.turn(Millis(2), 0, answers()).unwrap();
    let nullified = (1..4).flat_map(|view| {
        (1..4_u16).map(move |signer| {
            let (kind, digest) = (VoteKind::Nullify, Digest::default());
            let vote = Vote { epoch: Epoch(0), view: View(view), kind, digest };
            let vote = SignedVote { vote, signer: ValidatorIndex(signer), signature: Signature([signer as u8; 64]) };
            Input::Message(signer, PeerMessage::Consensus(Message::Vote(vote)))
        })
    });
    driver.turn(Millis(3), 0, nullified).unwrap();
    let output = driver.turn(Millis(2_000), 0, [Input::Tick]).unwrap();
    let proposal = output.sends.iter().find_map(|(_, message)| match message {
        PeerMessage::Consensus(Message::Proposal(proposal)) => Some(proposal),
        _ => None,
    });
    let block = &proposal.unwrap().block;
    assert_eq!(block.contradictions, [Contradiction::new(one, other)]);
    assert_eq!((block.signals, block.proposer), (Protocol::LATEST.version(), ValidatorIndex(0)));
}

/// Neither votes nor batches, whatever is asked of it, and long after its timers have run out.
#[test]
fn a_fenced_validator_signs_nothing() {
    let sends = |fence: Fence| {
        let mut driver = start(Vec::new(), Protocol::LATEST, everybody(), fence).unwrap();
        let mut sends = driver.turn(Millis(1), 0, answers()).unwrap().sends;
        let payload = Input::Payload(Bytes::from_static(b"x"));
        sends.extend(driver.turn(Millis(2), 0, [payload]).unwrap().sends);
        sends.extend(driver.turn(Millis(60_000), 0, [Input::Tick]).unwrap().sends);
        let signed = sends.iter().any(|(_, message)| {
            matches!(message, PeerMessage::Batch(_) | PeerMessage::Consensus(Message::Vote(_) | Message::Proposal(_)))
        });
        (driver.signing(), signed)
    };
    assert_eq!(sends(Fence::Open), (Signing::Allowed, true), "or the test cannot fail");
    assert_eq!(sends(Fence::Closed), (Signing::Fenced, false));
}

/// P3: rules that this node does not know.
#[test]
fn an_epoch_of_an_unknown_version_is_not_entered() {
    let halt = start(Vec::new(), Protocol::V1, everybody(), Fence::Open).map(|_| ()).unwrap_err();
    let (needed, supported) = (Protocol::V2.version(), Protocol::V1.version());
    assert_eq!(halt, Halt::UpgradeRequired { epoch: Epoch(0), needed, supported });
    assert!(halt.to_string().contains("upgrade the node"), "{halt}");
}

#[test]
fn what_the_process_before_wrote_is_synced_before_anything_is_said() {
    let mut driver = validator(Vec::new());
    assert_eq!(driver.disk().syncs, 1);
    driver.turn(Millis(1), 0, [Input::Tick]).unwrap();
    assert_eq!(driver.disk().syncs, 1, "nothing was written since");
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

#[test]
fn a_validator_is_the_node_that_proved_its_key_last_and_nobody_before() {
    let mut driver = start(Vec::new(), Protocol::LATEST, BTreeMap::new(), Fence::Open).unwrap();
    let status = |node: u16| Input::Message(node, PeerMessage::Status(Height(7)));
    let answer = |node: u16| Input::Message(node, PeerMessage::HighestVote(key(0), None));
    driver.turn(Millis(1), 0, (11..14).map(status)).unwrap();
    driver.turn(Millis(2), 0, (11..14).map(answer)).unwrap();
    assert_eq!(driver.network_height(), Height(0), "what nodes without a proven key say has no power");
    assert_eq!(driver.signing(), Signing::Locked, "nor does it unlock the key (S5)");

    let prove = |node: u16, index: u8| Input::Holder(node, Some(key(index)));
    driver.turn(Millis(3), 0, [prove(11, 1), answer(11)]).unwrap();
    // The same once more, and a key that is no validator's.
    driver.turn(Millis(4), 0, [prove(12, 9), answer(12), prove(11, 1), answer(11)]).unwrap();
    assert_eq!(driver.signing(), Signing::Locked);
    driver.turn(Millis(5), 0, [prove(12, 2), answer(12)]).unwrap();
    assert_eq!(driver.signing(), Signing::Allowed, "three of four powers, this node included");

    // A validator that comes back on another volume, under another number, is found there from its proof on.
    driver.turn(Millis(6), 0, [prove(14, 1), status(14), status(12)]).unwrap();
    assert_eq!(driver.network_height(), Height(7));
    driver.turn(Millis(7), 0, [Input::Holder(14, None)]).unwrap();
    assert_eq!(driver.reported_height(14), Height(0), "who is gone says nothing any more");
    assert_eq!(driver.network_height(), Height(0));
}
