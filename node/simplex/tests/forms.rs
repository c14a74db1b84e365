//! The form of blocks, certificates, proposals and votes: what is sound, and the same with one rule broken at a time.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::block::{BATCHES_PER_BLOCK_MAX, CHECKPOINT_INTERVAL, CHECKPOINT_LAG_MAX};
use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Certificate, Checkpoint, Contradiction, Proposal, Protocol, SignedVote, ValidatorSet, Version, Vote,
    VoteKind,
};
use cluster::{NEXT_EPOCH, by, certificate, child, contradiction, genesis};

const CUTOFF: Height = Height(4 * CHECKPOINT_INTERVAL);

fn checkpoint(height: u64) -> Checkpoint {
    Checkpoint { height: Height(height), state: Digest([5; 32]), receipts: Digest([6; 32]) }
}

fn batches(count: usize) -> Vec<Digest> {
    (0..count)
        .map(|number| Digest([(number / 256) as u8 + 1, (number % 256) as u8].repeat(16).try_into().unwrap()))
        .collect()
}

/// H1, E1, D3, P1, V7.
#[test]
fn a_block_is_well_formed_only_if_every_rule_of_its_header_holds() {
    let sound = Block {
        epoch: Epoch(3),
        height: Height(20),
        checkpoint: checkpoint(CHECKPOINT_INTERVAL),
        signals: Version(2),
        batches: batches(2),
        contradictions: vec![contradiction(2, 1, 0), contradiction(3, 1, 0)],
        ..genesis().block
    };
    let ending = Block {
        height: Height(CUTOFF.0 + 1),
        checkpoint: checkpoint(CUTOFF.0),
        boundary: Some(NEXT_EPOCH),
        ..sound.clone()
    };
    for (what, block) in [
        ("as any", sound.clone()),
        ("directly above its checkpoint", Block { height: Height(CHECKPOINT_INTERVAL + 1), ..sound.clone() }),
        ("full", Block { batches: batches(BATCHES_PER_BLOCK_MAX), ..sound.clone() }),
        (
            "as far above its checkpoint as may order",
            Block { height: Height(CHECKPOINT_INTERVAL + CHECKPOINT_LAG_MAX), ..sound.clone() },
        ),
        ("the last of its epoch", ending.clone()),
        ("signals more than the epoch's version", Block { signals: Version(9), ..sound.clone() }),
    ] {
        assert!(block.is_well_formed(CUTOFF, Protocol::V2), "{what}");
    }
    let twice = [batches(2), batches(1)].concat();
    for (what, block) in [
        ("at its own checkpoint", Block { height: Height(CHECKPOINT_INTERVAL), ..sound.clone() }),
        ("below its checkpoint", Block { height: Height(CHECKPOINT_INTERVAL - 1), ..sound.clone() }),
        (
            "a checkpoint between checkpoints",
            Block { checkpoint: checkpoint(CHECKPOINT_INTERVAL - 1), ..sound.clone() },
        ),
        (
            "orders too far above its checkpoint",
            Block { height: Height(CHECKPOINT_INTERVAL + CHECKPOINT_LAG_MAX + 1), ..sound.clone() },
        ),
        ("ends the epoch early", Block { boundary: Some(NEXT_EPOCH), ..sound.clone() }),
        ("does not end the epoch", Block { boundary: None, ..ending }),
        ("signals less than the epoch's version", Block { signals: Version(1), ..sound.clone() }),
        ("too many batches", Block { batches: batches(BATCHES_PER_BLOCK_MAX + 1), ..sound.clone() }),
        ("a batch twice", Block { batches: twice, ..sound.clone() }),
        ("a validator reported twice", Block { contradictions: vec![contradiction(3, 1, 0); 2], ..sound }),
    ] {
        assert!(!block.is_well_formed(CUTOFF, Protocol::V2), "{what}");
    }
}

/// H1, H4.
#[test]
fn a_block_follows_another_only_with_the_next_height_a_later_view_no_earlier_time_and_the_same_or_the_next_checkpoint()
{
    let parent = Block {
        height: Height(40),
        view: View(50),
        time_milliseconds: 7,
        checkpoint: checkpoint(16),
        ..genesis().block
    };
    let sound = Block { height: Height(41), view: View(51), ..parent.clone() };
    for (what, block) in [
        ("the same checkpoint and time", sound.clone()),
        ("a later view", Block { view: View(60), ..sound.clone() }),
        ("the first view of the next epoch", Block { epoch: parent.epoch.next(), view: View(1), ..sound.clone() }),
        ("the next checkpoint, later", Block { checkpoint: checkpoint(32), time_milliseconds: 8, ..sound.clone() }),
    ] {
        assert!(block.follows(&parent), "{what}");
    }
    for (what, block) in [
        ("the same height", Block { height: Height(40), ..sound.clone() }),
        ("a height left out", Block { height: Height(42), ..sound.clone() }),
        ("the same view", Block { view: View(50), ..sound.clone() }),
        ("an earlier view", Block { view: View(49), ..sound.clone() }),
        ("an earlier time", Block { time_milliseconds: 6, ..sound.clone() }),
        ("a checkpoint left out", Block { checkpoint: checkpoint(48), ..sound.clone() }),
        ("the checkpoint before", Block { checkpoint: checkpoint(0), ..sound.clone() }),
        (
            "another state at the same checkpoint",
            Block { checkpoint: Checkpoint { state: Digest([9; 32]), ..checkpoint(16) }, ..sound },
        ),
    ] {
        assert!(!block.follows(&parent), "{what}");
    }
}

/// V7.
#[test]
fn a_block_reports_again_only_who_the_ancestor_reported_in_that_epoch() {
    let reporting = |contradictions| Block { contradictions, ..genesis().block };
    let ancestor = reporting(vec![contradiction(2, 1, 0), contradiction(2, 1, 1)]);
    assert!(reporting(vec![contradiction(2, 7, 1)]).reports_again(&ancestor), "also for another view");
    assert!(reporting(vec![contradiction(2, 1, 3), contradiction(2, 1, 1)]).reports_again(&ancestor));
    assert!(!reporting(vec![contradiction(2, 1, 2), contradiction(3, 1, 1)]).reports_again(&ancestor));
    assert!(!reporting(Vec::new()).reports_again(&ancestor));
}

fn signed_by(signers: &[u16], vote: Vote) -> Certificate {
    let signatures = signers.iter().map(|&signer| (ValidatorIndex(signer), Signature([signer as u8; 64]))).collect();
    Certificate { vote, signatures }
}

/// R1, R4.
#[test]
fn a_certificate_is_well_formed_only_with_a_quorum_of_the_epoch_each_signer_once() {
    let validators = ValidatorSet::new(vec![Power(1); 4]).unwrap();
    let vote = Vote { epoch: Epoch(2), view: View(5), kind: VoteKind::Notarize, digest: Digest([1; 32]) };
    let fits = |certificate: Certificate| certificate.is_well_formed(Epoch(2), &validators);
    assert!(fits(signed_by(&[0, 2, 3], vote)));
    assert!(fits(signed_by(&[0, 1, 2, 3], vote)));
    for (what, certificate) in [
        ("another epoch", signed_by(&[0, 1, 2], Vote { epoch: Epoch(1), ..vote })),
        ("a proposal", signed_by(&[0, 1, 2], Vote { kind: VoteKind::Propose, ..vote })),
        ("no quorum", signed_by(&[0, 1], vote)),
        ("a signer twice", signed_by(&[0, 1, 2, 2], vote)),
        ("a quorum only of repetitions", signed_by(&[0, 1, 1], vote)),
        ("descending", signed_by(&[2, 1, 0], vote)),
        ("a stranger beside a quorum", signed_by(&[0, 1, 2, 4], vote)),
    ] {
        assert!(!fits(certificate), "{what}");
    }
}

/// What is checked of a certificate is every signature in it, each over the one vote.
#[test]
fn a_certificate_is_made_of_its_signers_votes() {
    let vote = Vote { epoch: Epoch(2), view: View(5), kind: VoteKind::Notarize, digest: Digest([1; 32]) };
    let votes: Vec<SignedVote> = signed_by(&[0, 2, 3], vote).votes().collect();
    let expected = [0, 2, 3].map(|signer| SignedVote {
        vote,
        signer: ValidatorIndex(signer),
        signature: Signature([signer as u8; 64]),
    });
    assert_eq!(votes, expected);
}

/// V4, R1, P1, E2.
#[test]
fn a_proposal_is_well_formed_only_if_its_certificate_justifies_its_parent() {
    let validators = ValidatorSet::new(vec![Power(1); 4]).unwrap();
    let fits = |proposal: &Proposal| proposal.is_well_formed(Epoch(0), CUTOFF, &validators, Protocol::V1);
    let parent = child(&genesis().block, Vec::new());
    let sound = Proposal {
        view: View(3),
        parent_view: View(1),
        block: by(3, child(&parent, Vec::new())),
        justification: Some(certificate(VoteKind::Notarize, 1, parent.digest())),
        signature: Signature([0; 64]),
    };
    let first = Proposal { parent_view: View(0), block: by(3, parent.clone()), justification: None, ..sound.clone() };
    let boundary = by(
        1,
        Block {
            height: Height(CUTOFF.0 + 1),
            checkpoint: checkpoint(CUTOFF.0),
            boundary: Some(NEXT_EPOCH),
            ..parent.clone()
        },
    );
    let repeated = Proposal {
        block: boundary.clone(),
        justification: Some(certificate(VoteKind::Notarize, 1, boundary.digest())),
        ..sound.clone()
    };
    for (what, proposal) in [
        ("on a notarized parent", sound.clone()),
        (
            "on a finalised parent",
            Proposal { justification: Some(certificate(VoteKind::Finalize, 1, parent.digest())), ..sound.clone() },
        ),
        ("the first of an epoch", first.clone()),
        ("the last of an epoch once more, by another leader", repeated.clone()),
    ] {
        assert!(fits(&proposal), "{what}");
    }
    let ordinary = Block { boundary: None, checkpoint: checkpoint(16), height: Height(20), ..boundary.clone() };
    let other_epoch = Block { epoch: Epoch(1), ..sound.block.clone() };
    for (what, proposal) in [
        ("no certificate", Proposal { justification: None, ..sound.clone() }),
        (
            "a certificate of another view",
            Proposal { justification: Some(certificate(VoteKind::Notarize, 2, parent.digest())), ..sound.clone() },
        ),
        (
            "a nullification",
            Proposal { justification: Some(certificate(VoteKind::Nullify, 1, parent.digest())), ..sound.clone() },
        ),
        (
            "a certificate of another block",
            Proposal { justification: Some(certificate(VoteKind::Notarize, 1, Digest([3; 32]))), ..sound.clone() },
        ),
        (
            "no quorum",
            Proposal {
                justification: Some(signed_by(&[0, 1], certificate(VoteKind::Notarize, 1, parent.digest()).vote)),
                ..sound.clone()
            },
        ),
        ("another proposer than the leader", Proposal { block: by(2, sound.block.clone()), ..sound.clone() }),
        ("another epoch", Proposal { block: other_epoch, ..sound.clone() }),
        ("no view above its parent's", Proposal { view: View(1), block: by(1, sound.block.clone()), ..sound.clone() }),
        (
            "a block against the rules",
            Proposal { block: Block { signals: Version(0), ..sound.block.clone() }, ..sound.clone() },
        ),
        ("a first block in a later place", Proposal { parent_view: View(1), ..first }),
        (
            "a block of the middle once more",
            Proposal {
                block: ordinary.clone(),
                justification: Some(certificate(VoteKind::Notarize, 1, ordinary.digest())),
                ..sound.clone()
            },
        ),
        (
            "a boundary once more, on the certificate of another block",
            Proposal { justification: Some(certificate(VoteKind::Notarize, 1, Digest([3; 32]))), ..repeated },
        ),
    ] {
        assert!(!fits(&proposal), "{what}");
    }
}

/// E2.
#[test]
fn only_a_boundary_under_its_own_certificate_is_a_repetition() {
    let block = child(&genesis().block, Vec::new());
    let ending = Block { boundary: Some(NEXT_EPOCH), ..block.clone() };
    let repeated = |block: &Block, certified: Option<Digest>| {
        let justification = certified.map(|digest| certificate(VoteKind::Notarize, 1, digest));
        let signature = Signature([0; 64]);
        Proposal { view: View(2), parent_view: View(1), block: block.clone(), justification, signature }.is_repeated()
    };
    assert!(repeated(&ending, Some(ending.digest())));
    assert!(!repeated(&ending, Some(block.digest())));
    assert!(!repeated(&ending, None));
    assert!(!repeated(&block, Some(block.digest())));
}

/// V1, V3, V6.
#[test]
fn a_contradiction_is_two_conflicting_votes_of_one_signer_in_one_order() {
    let signed = |view, kind, digest, signer| SignedVote {
        vote: Vote { epoch: Epoch(0), view: View(view), kind, digest: Digest([digest; 32]) },
        signer: ValidatorIndex(signer),
        signature: Signature([0; 64]),
    };
    let notarize = |digest| signed(1, VoteKind::Notarize, digest, 0);
    let (nullify, finalize) = (signed(1, VoteKind::Nullify, 0, 0), signed(1, VoteKind::Finalize, 1, 0));
    for (one, other) in [(notarize(1), notarize(2)), (notarize(2), notarize(1)), (finalize, nullify)] {
        let told = Contradiction::new(one, other);
        assert!(told.is_well_formed());
        assert!(told.first.vote < told.second.vote);
        assert!(!Contradiction { first: told.second, second: told.first }.is_well_formed(), "the other way round");
        assert_eq!(told, Contradiction::new(other, one));
    }
    for (what, first, second) in [
        ("the same vote", notarize(1), notarize(1)),
        ("two signers", notarize(1), signed(1, VoteKind::Notarize, 2, 1)),
        ("two views", notarize(1), signed(2, VoteKind::Notarize, 2, 0)),
        ("two epochs", notarize(1), SignedVote { vote: Vote { epoch: Epoch(1), ..notarize(2).vote }, ..notarize(2) }),
        ("two kinds that go together", notarize(1), finalize),
        ("a nullify that names a block", signed(1, VoteKind::Nullify, 1, 0), finalize),
        ("two nullifies", nullify, signed(1, VoteKind::Nullify, 1, 0)),
    ] {
        assert!(!Contradiction { first, second }.is_well_formed(), "{what}");
    }
}

#[test]
fn what_is_signed_is_domain_chain_epoch_view_kind_and_digest() {
    let vote = Vote { epoch: Epoch(0x0102), view: View(0x0304), kind: VoteKind::Finalize, digest: Digest([8; 32]) };
    let expected =
        [&b"bizra/v1/vote\0"[..], &[7; 32], &[0, 0, 0, 0, 0, 0, 1, 2], &[0, 0, 0, 0, 0, 0, 3, 4], &[4], &[8; 32]]
            .concat();
    assert_eq!(vote.signed_bytes(Digest([7; 32])), expected);
    let kinds = [1, 2, 3, 4].map(VoteKind::from_number);
    assert_eq!(kinds, [VoteKind::Propose, VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize].map(Some));
    assert_eq!([0, 5, u8::MAX].map(VoteKind::from_number), [None; 3]);
}

#[test]
fn digests_are_shown_in_hex_and_numbers_as_numbers() {
    assert_eq!(Digest([0xa1; 32]).to_string(), "a1".repeat(32));
    assert_eq!(format!("{:?} {:?}", Digest([0xa1; 32]), Signature([0x0b; 64])), "a1a1a1a1 0b0b0b0b");
    assert_eq!(format!("{} {} {}", View(7), ValidatorIndex(8), Version(9)), "7 8 9");
}
