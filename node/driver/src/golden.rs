//! Golden files: every message between nodes and every stored form of consensus, as bytes that nodes of different builds
//! must agree on. Each line is a name and what it encodes to, in hex; each must also decode to the value it came from.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Boundary, Certificate, Checkpoint, Contradiction, Message, Proposal, Reputation, SignedVote, Version, Vote,
    VoteKind,
};
use bytes::Bytes;

use crate::batch::Batch;
use crate::codec::{Reader, Write};
use crate::light::{Headers, Link};
use crate::ports::{Member, PublicKey};
use crate::signing_record::{BLOCK_BYTES, Binding, BlockWrite, FILE_BLOCKS, SigningRecord};
use crate::wire::PeerMessage;

/// Compares with a file beside this one; Cargo runs tests in the folder of their package. With `BIZRA_WRITE_GOLDEN` set it is
/// written instead, which is right only for forms that were never released: a released one gets a new version and a new file.
fn assert_golden(name: &str, now: &str) {
    let path = Path::new("src/golden").join(name);
    if std::env::var_os("BIZRA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(now == golden, "the form in {} changed; now it is:\n{now}", path.display());
}

fn line(text: &mut String, name: &str, bytes: &[u8]) {
    write!(text, "{name} ").unwrap();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text.push('\n');
}

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn signed(kind: VoteKind, block: u8, signer: u16) -> SignedVote {
    let digest = if kind == VoteKind::Nullify { Digest::default() } else { digest(block) };
    let vote = Vote { epoch: Epoch(0x0102), view: View(0x0304), kind, digest };
    SignedVote { vote, signer: ValidatorIndex(signer), signature: Signature([0xa0 + signer as u8; 64]) }
}

fn certificate(kind: VoteKind) -> Certificate {
    let votes = [0, 1, 2].map(|signer| signed(kind, 0x11, signer));
    Certificate { vote: votes[0].vote, signatures: votes.map(|vote| (vote.signer, vote.signature)).to_vec() }
}

fn contradiction() -> Contradiction {
    Contradiction::new(signed(VoteKind::Finalize, 0x11, 3), signed(VoteKind::Nullify, 0, 3))
}

fn member(key: PublicKey) -> Member {
    Member { key, power: Power(0x0708), reputation: Reputation::new(0x0123).unwrap() }
}

/// A block in which nothing optional is missing.
fn boundary_block() -> Block {
    Block {
        epoch: Epoch(0x0102),
        height: Height(0x0a0b_0c0d),
        parent: digest(0x22),
        view: View(0x0303),
        proposer: ValidatorIndex(3),
        signals: Version(2),
        time_milliseconds: 0x0188_0000_0001,
        checkpoint: Checkpoint { height: Height(0x0a0b_0c00), state: digest(0x33), receipts: digest(0x44) },
        boundary: Some(Boundary { validators: digest(0x55), snapshot: digest(0x56), version: Version(2) }),
        batches: vec![digest(0x66), digest(0x77)],
        contradictions: vec![contradiction()],
    }
}

fn plain_block() -> Block {
    Block { boundary: None, batches: Vec::new(), contradictions: Vec::new(), ..boundary_block() }
}

fn batch() -> Batch {
    Batch {
        epoch: Epoch(0x0102),
        origin: ValidatorIndex(3),
        sequence: 0x0506,
        payload: Bytes::from_static(b"transactions"),
        signature: Signature([0xb0; 64]),
    }
}

fn messages() -> Vec<(&'static str, PeerMessage)> {
    let proposal = |block, justification| {
        let (view, parent_view) = (View(0x0304), View(0x0302));
        PeerMessage::Consensus(Message::Proposal(Proposal {
            view,
            parent_view,
            block,
            justification,
            signature: Signature([0xc0; 64]),
        }))
    };
    let vote = |kind| PeerMessage::Consensus(Message::Vote(signed(kind, 0x11, 2)));
    let certified = |kind| PeerMessage::Consensus(Message::Certificate(certificate(kind)));
    let key = PublicKey([0x88; 32]);
    let Contradiction { first, second } = contradiction();
    let link = Link { block: boundary_block(), finalization: certificate(VoteKind::Finalize), next: vec![member(key)] };
    vec![
        ("proposal_first", proposal(plain_block(), None)),
        ("proposal_boundary", proposal(boundary_block(), Some(certificate(VoteKind::Notarize)))),
        ("vote_notarize", vote(VoteKind::Notarize)),
        ("vote_nullify", vote(VoteKind::Nullify)),
        ("vote_finalize", vote(VoteKind::Finalize)),
        ("notarization", certified(VoteKind::Notarize)),
        ("nullification", certified(VoteKind::Nullify)),
        ("finalization", certified(VoteKind::Finalize)),
        ("batch", PeerMessage::Batch(batch())),
        ("fetch_block", PeerMessage::FetchBlock(digest(0x11))),
        ("block", PeerMessage::Block(boundary_block())),
        ("fetch_view", PeerMessage::FetchView(View(0x0304))),
        ("fetch_batch", PeerMessage::FetchBatch(digest(0x66))),
        ("fetch_range", PeerMessage::FetchRange(Height(0x0a0b))),
        ("range", PeerMessage::Range(vec![plain_block(), boundary_block()], certificate(VoteKind::Finalize))),
        ("fetch_highest_vote", PeerMessage::FetchHighestVote(key)),
        ("highest_vote", PeerMessage::HighestVote(key, Some(signed(VoteKind::Finalize, 0x11, 2)))),
        ("highest_vote_none", PeerMessage::HighestVote(key, None)),
        ("status", PeerMessage::Status(Height(0x0a0b))),
        ("fetch_held", PeerMessage::FetchHeld(vec![digest(0x66), digest(0x77)])),
        ("held", PeerMessage::Held(vec![digest(0x77)])),
        ("evidence", PeerMessage::Evidence(first, second)),
        ("fetch_boundaries", PeerMessage::FetchBoundaries(Epoch(0x0102))),
        ("boundaries", PeerMessage::Boundaries(Height(0x0a0b), Epoch(0x0102), vec![link])),
        ("fetch_manifest", PeerMessage::FetchManifest(Height(0x0a00))),
        ("manifest", PeerMessage::Manifest(Height(0x0a00), vec![digest(0x66), digest(0x77)])),
        ("fetch_chunk", PeerMessage::FetchChunk(Height(0x0a00), 1)),
        ("chunk", PeerMessage::Chunk(Height(0x0a00), 1, Bytes::from_static(b"items"))),
    ]
}

/// A message without a line in the file does not compile here.
fn is_golden(message: &PeerMessage) {
    match message {
        PeerMessage::Consensus(Message::Proposal(_) | Message::Vote(_) | Message::Certificate(_))
        | PeerMessage::Batch(_)
        | PeerMessage::FetchBlock(_)
        | PeerMessage::Block(_)
        | PeerMessage::FetchView(_)
        | PeerMessage::FetchBatch(_)
        | PeerMessage::FetchRange(_)
        | PeerMessage::Range(..)
        | PeerMessage::FetchHighestVote(_)
        | PeerMessage::HighestVote(..)
        | PeerMessage::Status(_)
        | PeerMessage::FetchHeld(_)
        | PeerMessage::Held(_)
        | PeerMessage::Evidence(..)
        | PeerMessage::FetchBoundaries(_)
        | PeerMessage::Boundaries(..)
        | PeerMessage::FetchManifest(_)
        | PeerMessage::Manifest(..)
        | PeerMessage::FetchChunk(..)
        | PeerMessage::Chunk(..) => {}
    }
}

#[test]
fn every_message_has_the_form_it_had() {
    let mut text = String::new();
    for (name, message) in messages() {
        is_golden(&message);
        let bytes = message.encode();
        line(&mut text, name, &bytes);
        assert_eq!(PeerMessage::decode(bytes).as_ref(), Ok(&message), "{name}");
    }
    assert_golden("wire.txt", &text);
}

/// What is signed and hashed: the same on every node for ever.
#[test]
fn everything_that_is_signed_or_hashed_has_the_form_it_had() {
    let genesis = digest(0x99);
    let mut text = String::new();
    for kind in [VoteKind::Propose, VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize] {
        line(&mut text, &format!("signed_{kind:?}").to_lowercase(), &signed(kind, 0x11, 2).vote.signed_bytes(genesis));
    }
    line(&mut text, "digest_of_genesis_block", &Block::genesis(genesis, 1_000).digest().0);
    line(&mut text, "digest_of_block", &plain_block().digest().0);
    line(&mut text, "digest_of_boundary", &boundary_block().digest().0);
    line(&mut text, "digest_of_batch", &batch().digest(genesis).0);
    assert_golden("digests.txt", &text);
}

/// The parts that stored values are made of; a byte of the format's version comes before each in the database.
#[test]
fn every_stored_part_has_the_form_it_had() {
    let mut text = String::new();
    let mut check = |name: &str, put: &dyn Fn(&mut Vec<u8>), same: &dyn Fn(&mut Reader) -> bool| {
        let mut bytes = Vec::new();
        put(&mut bytes);
        line(&mut text, name, &bytes);
        let mut reader = Reader::new(bytes.into());
        assert!(same(&mut reader), "{name} does not decode to what it was");
        assert_eq!(reader.end(), Ok(()), "{name}");
    };
    let (block, certificate, batch, told) =
        (boundary_block(), certificate(VoteKind::Finalize), batch(), contradiction());
    let checkpoint = block.checkpoint;
    let vote = signed(VoteKind::Notarize, 0x11, 2);
    check("block", &|bytes| bytes.put_block(&block), &|reader| reader.block().as_ref() == Ok(&block));
    check("certificate", &|bytes| bytes.put_certificate(&certificate), &|reader| {
        reader.certificate().as_ref() == Ok(&certificate)
    });
    check("batch", &|bytes| bytes.put_batch(&batch), &|reader| reader.batch().as_ref() == Ok(&batch));
    check("vote", &|bytes| bytes.put_vote(&vote.vote), &|reader| reader.vote() == Ok(vote.vote));
    check("signed_vote", &|bytes| bytes.put_signed_vote(&vote), &|reader| reader.signed_vote() == Ok(vote));
    check("checkpoint", &|bytes| bytes.put_checkpoint(&checkpoint), &|reader| reader.checkpoint() == Ok(checkpoint));
    check(
        "contradiction",
        &|bytes| {
            bytes.put_signed_vote(&told.first);
            bytes.put_signed_vote(&told.second);
        },
        &|reader| reader.contradiction() == Ok(told),
    );
    let next = vec![member(PublicKey([0x88; 32]))];
    let link = Link { block: boundary_block(), finalization: certificate.clone(), next };
    line(&mut text, "link", &link.encode());
    assert_eq!(Link::decode(link.encode()), Ok(link));
    let headers = Headers { blocks: vec![plain_block(), boundary_block()], finalization: certificate };
    line(&mut text, "headers", &headers.encode());
    assert_eq!(Headers::decode(headers.encode()), Ok(headers));
    assert_golden("stored.txt", &text);
}

#[test]
fn the_signing_record_has_the_form_it_had() {
    let binding = Binding { genesis_hash: digest(0x99), volume: digest(0xaa), public_key: [0x88; 32] };
    let mut file: Vec<Box<[u8; BLOCK_BYTES]>> = (0..FILE_BLOCKS).map(|_| Box::new([0; BLOCK_BYTES])).collect();
    let mut text = String::new();
    let mut write = |text: &mut String, name: &str, blocks: Vec<BlockWrite>| {
        for (index, block) in blocks {
            // What follows is zeros; a block of nothing else has no line.
            if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
                line(text, &format!("{name}_{index}"), &block[..=last]);
            }
            *file[index as usize] = *block;
        }
    };
    write(&mut text, "header", SigningRecord::create(&binding));
    let mut empty: Vec<_> = SigningRecord::create(&binding).into_iter().map(|(_, block)| block).collect();
    empty.truncate(FILE_BLOCKS as usize);
    let mut record = SigningRecord::open(&binding, &empty).unwrap();
    let votes = [
        signed(VoteKind::Propose, 0x11, 2).vote,
        signed(VoteKind::Notarize, 0x11, 2).vote,
        Vote { view: View(0x0303), ..signed(VoteKind::Finalize, 0x12, 2).vote },
    ];
    write(&mut text, "slot", record.reserve(&votes).unwrap());
    write(&mut text, "slot", record.reserve(&[signed(VoteKind::Nullify, 0, 2).vote]).unwrap());
    let read = SigningRecord::open(&binding, &file).unwrap();
    for vote in votes.iter().chain([&signed(VoteKind::Nullify, 0, 2).vote]) {
        assert!(read.contains(vote), "{vote:?}");
    }
    assert_eq!(read.floor(), record.floor());
    assert_golden("signing_record.txt", &text);
}
