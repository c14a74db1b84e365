//! The oracle is not blind: it is shown histories that never may happen, and finds each fault.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Change};
use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Certificate, Message, Record, SignedVote, Version, Vote, VoteKind};
use bizra_simulator::oracle::{Oracle, VALID_PAYLOAD, batch_digest, block_digest, vote_bytes};
use bizra_simulator::{KeyBook, Random, Schedule};

const GENESIS: Digest = Digest([3; 32]);

/// Four validators of equal power, the last one Byzantine.
struct Court {
    keys: Arc<KeyBook>,
    oracle: Oracle,
    genesis: Block,
}

impl Court {
    fn new() -> Self {
        let keys = KeyBook::new(&mut Random::new(1), 4);
        let genesis = Block::genesis(GENESIS, 0);
        let honest = vec![true, true, true, false];
        let oracle = Oracle::new(Schedule::fixed(&[1; 4]), honest, Arc::clone(&keys), GENESIS, &genesis);
        Self { keys, oracle, genesis }
    }

    fn sign(&self, signer: u16, view: u64, kind: VoteKind, digest: Digest) -> SignedVote {
        let vote = Vote { epoch: Epoch(0), view: View(view), kind, digest };
        let signature = self.keys.sign(usize::from(signer), &vote_bytes(GENESIS, &vote)).unwrap();
        SignedVote { vote, signer: ValidatorIndex(signer), signature }
    }

    /// A node keeps a block, and a notarization of it.
    fn keeps(&mut self, node: usize, view: u64, block: &Block) {
        let digest = block_digest(block);
        let signatures = [0, 1, 2].map(|signer| self.sign(signer, view, VoteKind::Notarize, digest));
        let vote = signatures[0].vote;
        let signatures = signatures.iter().map(|signed| (signed.signer, signed.signature)).collect();
        let records = [Record::Block(block.clone()), Record::Certificate(Certificate { vote, signatures })];
        self.oracle.committed(1, node, &records.map(Change::Record));
    }

    fn finalization(&self, view: u64, block: &Block, signers: &[u16]) -> Certificate {
        let votes: Vec<SignedVote> =
            signers.iter().map(|signer| self.sign(*signer, view, VoteKind::Finalize, block_digest(block))).collect();
        let signatures = votes.iter().map(|vote| (vote.signer, vote.signature)).collect();
        Certificate { vote: votes[0].vote, signatures }
    }

    fn child(parent: &Block, mark: u64, batches: Vec<Digest>) -> Block {
        let parent_digest = block_digest(parent);
        Block {
            height: parent.height.next(),
            parent: parent_digest,
            view: parent.view.next(),
            proposer: ValidatorIndex((parent.view.0 + 1) as u16 % 4),
            time_milliseconds: mark,
            batches,
            signals: Version(2),
            ..Block::genesis(GENESIS, 0)
        }
    }

    fn commit(&mut self, node: usize, block: &Block) {
        let certificate = self.finalization(block.height.0, block, &[0, 1, 2]);
        self.oracle.committed(1, node, &[Change::Finalize(vec![block.clone()], certificate)]);
    }

    fn batch(&self, origin: u16, payload: &[u8]) -> (Digest, Batch) {
        let mut batch = Batch {
            epoch: Epoch(0),
            origin: ValidatorIndex(origin),
            sequence: 1,
            payload: payload.to_vec().into(),
            signature: Signature([0; 64]),
        };
        let digest = batch_digest(GENESIS, &batch);
        batch.signature = self.keys.sign(usize::from(origin), &digest.0).unwrap();
        (digest, batch)
    }

    fn vote(&mut self, signer: u16, view: u64, kind: VoteKind, digest: Digest) {
        let vote = self.sign(signer, view, kind, digest);
        self.oracle.sent(1, usize::from(signer), &PeerMessage::Consensus(Message::Vote(vote)));
    }

    fn finds(&self, what: &str) -> bool {
        self.oracle.violations().iter().any(|violation| violation.what.contains(what))
    }

    fn is_content(&self) -> bool {
        self.oracle.violations().is_empty()
    }
}

#[test]
fn a_sound_history_is_accepted() {
    let mut court = Court::new();
    let (digest, batch) = court.batch(1, &[VALID_PAYLOAD, 7]);
    court.oracle.injected(batch.payload.to_vec(), 1);
    let block = Court::child(&court.genesis, 1, vec![digest]);
    for node in 0..3 {
        court.oracle.committed(1, node, &[Change::Batch(digest, batch.clone())]);
        court.keeps(node, 1, &block);
        court.vote(node as u16, 1, VoteKind::Notarize, block_digest(&block));
        court.vote(node as u16, 1, VoteKind::Notarize, block_digest(&block));
        court.vote(node as u16, 1, VoteKind::Finalize, block_digest(&block));
        court.commit(node, &block);
        court.oracle.committed(2, node, &[Change::Execute(block.clone(), vec![batch.clone()])]);
        court.oracle.promised(node);
        court.oracle.restarted(3, node, (1, block_digest(&block)), 1);
    }
    assert!(court.is_content(), "{:?}", court.oracle.violations());
    assert_eq!(court.oracle.lagging(1), (Vec::new(), 0));
}

#[test]
fn two_blocks_at_one_height_are_found() {
    let mut court = Court::new();
    let (left, right) = (Court::child(&court.genesis, 1, vec![]), Court::child(&court.genesis, 2, vec![]));
    court.commit(0, &left);
    assert!(court.is_content());
    court.commit(1, &right);
    assert!(court.finds("agreement"));
}

#[test]
fn a_gap_and_a_wrong_parent_are_found() {
    let mut court = Court::new();
    let first = Court::child(&court.genesis, 1, vec![]);
    court.commit(0, &Court::child(&first, 1, vec![]));
    assert!(court.finds("finalised height 2 after 0"));
    let mut court = Court::new();
    court.commit(0, &Block { parent: Digest([1; 32]), ..first });
    assert!(court.finds("does not follow"));
}

#[test]
fn a_weak_repeated_or_forged_certificate_is_found() {
    for signers in [&[0_u16, 1][..], &[0, 1, 1, 1]] {
        let mut court = Court::new();
        let block = Court::child(&court.genesis, 1, vec![]);
        let certificate = court.finalization(1, &block, signers);
        court.oracle.committed(1, 0, &[Change::Finalize(vec![block], certificate)]);
        assert!(court.finds("a certificate with power 2 of 4"));
    }
    let mut court = Court::new();
    let block = Court::child(&court.genesis, 1, vec![]);
    let mut certificate = court.finalization(1, &block, &[0, 1, 2]);
    certificate.signatures[2].1.0[0] ^= 1;
    court.oracle.committed(1, 0, &[Change::Finalize(vec![block.clone()], certificate)]);
    assert!(court.finds("signatures valid: false"));
    let mut court = Court::new();
    let other = court.finalization(1, &Court::child(&court.genesis, 2, vec![]), &[0, 1, 2]);
    court.oracle.committed(1, 0, &[Change::Finalize(vec![block], other)]);
    assert!(court.finds("does not finalise the committed block"));
}

#[test]
fn every_contradiction_of_an_honest_key_is_found() {
    use VoteKind::{Finalize, Notarize, Nullify, Propose};
    let blocks = [1, 2].map(|mark| Court::child(&Court::new().genesis, mark, vec![]));
    let (a, b, none) = (block_digest(&blocks[0]), block_digest(&blocks[1]), Digest::default());
    for pair in [
        [(Notarize, a), (Notarize, b)],
        [(Finalize, a), (Finalize, b)],
        [(Nullify, none), (Notarize, a)],
        [(Nullify, none), (Finalize, a)],
        [(Finalize, a), (Nullify, none)],
    ] {
        let mut court = Court::new();
        court.keeps(1, 1, &blocks[0]);
        for (kind, digest) in pair {
            assert!(court.is_content());
            court.vote(1, 1, kind, digest);
        }
        assert!(court.finds("contradicts itself"), "{pair:?}");
    }
    let mut court = Court::new();
    for (mark, content) in [(1, true), (2, false)] {
        let block = Court::child(&court.genesis, mark, vec![]);
        let signature = court.sign(1, 5, Propose, block_digest(&block)).signature;
        let (view, parent_view) = (View(5), View(0));
        let proposal = bizra_simplex::Proposal { view, parent_view, block, justification: None, signature };
        court.oracle.sent(1, 1, &PeerMessage::Consensus(Message::Proposal(proposal)));
        assert_eq!(court.is_content(), content);
    }
}

#[test]
fn a_vote_without_what_it_rests_on_is_found() {
    let genesis = Court::new().genesis;
    let block = Court::child(&genesis, 1, vec![]);
    let naming = Court::child(&genesis, 1, vec![Digest([9; 32])]);
    let orphan = Court::child(&block, 1, vec![]);
    for (held, view, kind, what) in [
        (&naming, 1, VoteKind::Notarize, "D2"),
        (&orphan, 1, VoteKind::Notarize, "V4: notarizes on a parent"),
        (&block, 2, VoteKind::Notarize, "V4: notarizes, but view 1"),
        (&block, 2, VoteKind::Finalize, "V2"),
    ] {
        let mut court = Court::new();
        let record = Change::Record(Record::Block(held.clone()));
        court.oracle.committed(1, 1, &[record]);
        court.vote(1, view, kind, block_digest(held));
        assert!(court.finds(what), "{what}");
    }
}

#[test]
fn a_vote_to_order_once_more_what_the_own_chain_orders_is_found_from_the_next_turn_on() {
    for (later_turn, lost, found) in [(true, false, true), (false, false, false), (true, true, false)] {
        let mut court = Court::new();
        let (digest, batch) = court.batch(3, &[VALID_PAYLOAD]);
        let first = Court::child(&court.genesis, 1, vec![digest]);
        let again = Court::child(&first, 2, vec![digest]);
        court.oracle.committed(1, 1, &[Change::Batch(digest, batch)]);
        court.keeps(1, 1, &first);
        court.oracle.committed(1, 1, &[Change::Record(Record::Block(again.clone()))]);
        court.commit(1, &first);
        if later_turn {
            court.oracle.committed(2, 1, &[]);
        }
        if lost {
            court.oracle.restarted(3, 1, (0, block_digest(&court.genesis)), 0);
        }
        court.vote(1, 2, VoteKind::Notarize, block_digest(&again));
        assert_eq!(court.finds("D3"), found, "in a later turn: {later_turn}, lost in a crash: {lost}");
        assert_eq!(court.is_content(), !found);
    }
}

#[test]
fn forged_double_and_invalid_payloads_are_found() {
    let run = |payload: &[u8], injected: bool, break_signature: bool| {
        let mut court = Court::new();
        let (digest, mut batch) = court.batch(1, payload);
        if injected {
            court.oracle.injected(payload.to_vec(), 1);
        }
        batch.signature.0[0] ^= u8::from(break_signature);
        let first = Court::child(&court.genesis, 1, vec![digest]);
        let second = Court::child(&first, 1, vec![digest]);
        court.commit(0, &first);
        court.commit(0, &second);
        court.oracle.committed(1, 0, &[Change::Execute(first, vec![batch.clone()])]);
        let once = court.is_content();
        court.oracle.committed(1, 0, &[Change::Execute(second, vec![batch])]);
        (court, once)
    };
    let (court, once) = run(&[VALID_PAYLOAD, 1], true, false);
    assert!(once && court.finds("is ordered at 1 and at 2"));
    assert!(run(&[VALID_PAYLOAD, 1], false, false).0.finds("no client gave"));
    assert!(run(&[0xff, 1], true, false).0.finds("invalid payload"));
    assert!(run(&[VALID_PAYLOAD, 1], true, true).0.finds("did not sign"));
}

#[test]
fn lost_finality_and_lost_payloads_are_found() {
    let mut court = Court::new();
    let block = Court::child(&court.genesis, 1, vec![]);
    court.commit(0, &block);
    court.oracle.promised(0);
    court.oracle.restarted(2, 0, (0, block_digest(&court.genesis)), 0);
    assert!(court.finds("durability"));
    let mut court = Court::new();
    court.oracle.injected(vec![VALID_PAYLOAD, 1], 1);
    court.oracle.injected(vec![VALID_PAYLOAD, 2], 1);
    assert_eq!(court.oracle.lagging(0).1, 2);
    court.oracle.survived(1, &BTreeSet::from([vec![VALID_PAYLOAD, 2]]));
    assert_eq!(court.oracle.lagging(0).1, 1);
    assert_eq!(court.oracle.lagging(1).0, [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn evidence_against_an_honest_key_is_found() {
    let mut court = Court::new();
    for (signer, content) in [(3, true), (1, false)] {
        let first = court.sign(signer, 1, VoteKind::Notarize, Digest([1; 32]));
        let second = court.sign(signer, 1, VoteKind::Notarize, Digest([2; 32]));
        court.oracle.evidence(1, 0, &first, &second);
        assert_eq!(court.is_content(), content);
    }
}
