//! R4 and what precedes every belief: of all that anybody may send, what is checked, what is kept, what counts.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::types::{Digest, Epoch, Height, Power, ValidatorIndex, View};
use bizra_simplex::{
    Block, Certificate, Config, Effect, Event, FUTURE_VIEWS_MAX, Message, PENDING_MAX, Proposal, Record, SignedVote,
    TREE_BLOCKS_MAX, ValidatorSet, Vote, VoteKind,
};
use cluster::lone::{Lone, block, nullification, proposal, said, signed, signs, vote};
use cluster::{certificate, config, genesis};

fn first() -> Block {
    block(&genesis().block, 1)
}

fn notarize(view: u64, signer: u16) -> SignedVote {
    signed(vote(VoteKind::Notarize, view, Digest([1; 32])), signer)
}

/// A node whose last finalised block is that of view 1.
fn after_view_1() -> Lone {
    let mut lone = Lone::new(0);
    lone.finalize(&[first()], 1);
    assert_eq!(lone.state.anchor().height(), Height(1));
    lone
}

#[test]
fn of_votes_only_those_that_could_count_are_checked() {
    let asked = |signed| after_view_1().asks(signed).is_some();
    let sound = notarize(2, 1);
    let nullify = vote(VoteKind::Nullify, 2, Digest::default());
    assert!(asked(sound));
    assert!(asked(signed(nullify, 1)));
    assert!(asked(notarize(2 + FUTURE_VIEWS_MAX, 1)));
    for (what, vote) in [
        ("a stranger's", notarize(2, 4)),
        ("another epoch's", SignedVote { vote: Vote { epoch: Epoch(1), ..sound.vote }, ..sound }),
        ("a proposal without its block", signed(vote(VoteKind::Propose, 2, Digest([1; 32])), 2)),
        ("a nullify that names a block", signed(Vote { digest: Digest([1; 32]), ..nullify }, 1)),
        ("of a finalised view", notarize(1, 1)),
        ("of a view too far ahead", notarize(3 + FUTURE_VIEWS_MAX, 1)),
    ] {
        assert!(!asked(vote), "{what}");
    }
}

/// V6, R4: one vote of a kind, validator and view, and one accusation.
#[test]
fn a_vote_is_checked_once_and_its_contradiction_once() {
    let mut lone = Lone::new(0);
    lone.hear(notarize(1, 1));
    assert!(lone.asks(notarize(1, 1)).is_none());
    let other = |digest| signed(vote(VoteKind::Notarize, 1, Digest([digest; 32])), 1);
    let evidence = Effect::Evidence(notarize(1, 1), other(2));
    assert!(lone.hear(other(2)).contains(&evidence));
    assert!(lone.asks(other(3)).is_none(), "whoever is accused costs nothing any more");
    assert!(lone.asks(notarize(1, 2)).is_some(), "the others do");
}

/// A contradiction of two kinds: heard in either order.
#[test]
fn nullify_and_finalize_of_one_view_are_evidence() {
    let nullify = signed(vote(VoteKind::Nullify, 1, Digest::default()), 1);
    let finalize = signed(vote(VoteKind::Finalize, 1, Digest([1; 32])), 1);
    for (earlier, later) in [(nullify, finalize), (finalize, nullify)] {
        let mut lone = Lone::new(0);
        lone.hear(earlier);
        assert!(lone.hear(later).contains(&Effect::Evidence(earlier, later)));
    }
}

#[test]
fn every_signature_is_checked_before_anything_follows_from_it() {
    let mut lone = Lone::new(0);
    let vote = notarize(1, 1);
    assert_eq!(lone.asks(vote).unwrap().1, [vote]);

    let notarization = certificate(VoteKind::Notarize, 1, first().digest());
    let votes: Vec<SignedVote> = notarization.votes().collect();
    assert_eq!(votes.len(), 3);
    assert_eq!(lone.asks(notarization.clone()).unwrap().1, votes);

    let second = proposal(&block(&first(), 2), 1);
    let leader = second.signed_vote(ValidatorIndex(2));
    assert_eq!(lone.asks(second).unwrap().1, [&[leader][..], &votes].concat());

    let finalization = certificate(VoteKind::Finalize, 1, first().digest());
    let votes: Vec<SignedVote> = finalization.votes().collect();
    let effects = lone.step(Event::Range(vec![first()], finalization));
    assert!(matches!(&effects[0], Effect::Verify(_, checks) if *checks == votes));
}

#[test]
fn what_has_an_invalid_signature_changes_nothing() {
    let messages = [
        Message::Vote(notarize(1, 1)),
        Message::Certificate(certificate(VoteKind::Notarize, 1, first().digest())),
        Message::Proposal(proposal(&first(), 0)),
    ];
    for message in messages {
        let mut lone = Lone::signing(0);
        let effects = lone.step(Event::Received(message));
        let [Effect::Verify(token, _)] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(lone.step(Event::Verified(token, false)), []);
        assert_eq!(lone.step(Event::Verified(token, true)), [], "it was answered already");
        assert_eq!(lone.state.highest_view_kept(), View(0));
        assert_eq!(lone.state.view(), View(1));
    }
}

/// A certificate that was checked is not checked again with every proposal; any other is.
#[test]
fn a_justification_is_checked_unless_exactly_that_certificate_is_held() {
    let checks = |lone: &mut Lone, proposal: Proposal| lone.asks(proposal).unwrap().1.len();
    let second = proposal(&block(&first(), 2), 1);
    let mut lone = Lone::new(0);
    lone.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    assert_eq!(checks(&mut lone, second.clone()), 1);
    // Of the last finalised block.
    assert_eq!(checks(&mut after_view_1(), second), 1);
    // Of that view or that block, but not both.
    let mut lone = after_view_1();
    assert_eq!(checks(&mut lone, proposal(&block(&genesis().block, 3), 1)), 4);
    let mut lone = Lone::new(0);
    lone.hear(certificate(VoteKind::Notarize, 1, Digest([9; 32])));
    assert_eq!(checks(&mut lone, proposal(&block(&first(), 2), 1)), 4);
    // From long ago, and nobody has it.
    let mut lone = Lone::new(0);
    for view in 2..6 {
        lone.hear(nullification(view));
    }
    assert_eq!(checks(&mut lone, proposal(&block(&first(), 6), 1)), 4);
}

#[test]
fn of_proposals_only_the_first_of_a_view_is_checked_and_a_second_one_as_evidence() {
    let mut lone = Lone::new(0);
    lone.hear(proposal(&first(), 0));
    assert!(lone.asks(proposal(&first(), 0)).is_none());
    let rival = Block { time_milliseconds: 1, ..first() };
    let effects = lone.hear(proposal(&rival, 0));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Evidence(..))));
    let third = Block { time_milliseconds: 2, ..first() };
    assert!(lone.asks(proposal(&third, 0)).is_none(), "its leader is accused already");
}

#[test]
fn of_proposals_only_well_formed_ones_within_the_window_are_checked() {
    let asked = |proposal| after_view_1().asks(proposal).is_some();
    let on_first = |view| block(&first(), view);
    assert!(asked(proposal(&on_first(2), 1)));
    assert!(asked(proposal(&on_first(2 + FUTURE_VIEWS_MAX), 1)));
    assert!(!asked(proposal(&on_first(3 + FUTURE_VIEWS_MAX), 1)), "too far ahead");
    assert!(!asked(proposal(&first(), 0)), "of a finalised view");
    assert!(!asked(proposal(&Block { epoch: Epoch(1), ..on_first(2) }, 1)), "of another epoch");
}

#[test]
fn of_certificates_only_the_first_well_formed_one_of_its_kind_above_the_last_finalised_view_is_checked() {
    let asked = |certificate: Certificate| after_view_1().asks(certificate).is_some();
    assert!(asked(nullification(2)));
    // A certificate is worth as much as its quorum, however far ahead.
    assert!(asked(nullification(1 << 40)));
    assert!(!asked(nullification(1)), "of a finalised view");
    assert!(!asked(certificate(VoteKind::Propose, 2, Digest([1; 32]))), "no kind of certificate");

    let mut lone = after_view_1();
    lone.hear(nullification(2));
    assert!(lone.asks(nullification(2)).is_none(), "held already");
    assert!(lone.asks(certificate(VoteKind::Notarize, 2, Digest([1; 32]))).is_some(), "of another kind");
}

/// E2.
#[test]
fn an_epoch_that_is_over_takes_no_certificate_any_more() {
    let ending = Block { boundary: Some(cluster::NEXT_EPOCH), ..first() };
    let mut lone = Lone::new(0);
    let late = lone.asks(nullification(3)).unwrap().0;
    lone.finalize(&[ending], 1);
    assert!(lone.state.is_over());
    assert!(lone.asks(nullification(2)).is_none());
    assert_eq!(said(&lone.step(Event::Verified(late, true))), Vec::<&Message>::new());
    assert_eq!(lone.state.highest_view_kept(), View(0));
}

/// No quorum with an honest member certifies such a view, but an answer is owed to whoever says that one has.
#[test]
fn a_certificate_of_the_last_view_there_is_is_answered() {
    for kind in [VoteKind::Nullify, VoteKind::Notarize, VoteKind::Finalize] {
        let digest = if kind == VoteKind::Nullify { Digest::default() } else { first().digest() };
        let mut lone = Lone::signing(0);
        lone.hear(certificate(kind, u64::MAX, digest));
        assert_eq!(lone.state.view(), View(u64::MAX), "{kind:?}");
        lone.tick(1_000_000);
    }
}

#[test]
fn a_finalization_of_what_is_final_already_is_answered() {
    let mut lone = after_view_1();
    lone.hear(certificate(VoteKind::Finalize, 5, first().digest()));
    assert_eq!((lone.state.anchor().height(), lone.state.view()), (Height(1), View(6)));
}

/// What was on its way to be checked when its view became final.
#[test]
fn what_is_verified_too_late_changes_nothing() {
    let mut lone = Lone::new(0);
    let tokens = [
        lone.asks(notarize(1, 1)).unwrap().0,
        lone.asks(nullification(1)).unwrap().0,
        lone.asks(proposal(&first(), 0)).unwrap().0,
    ];
    lone.finalize(&[first()], 1);
    for token in tokens {
        let effects = lone.step(Event::Verified(token, true));
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Persist(_) | Effect::Broadcast(_))),
            "{effects:?}"
        );
        assert_eq!(lone.state.highest_view_kept(), View(0));
        assert_eq!(lone.state.view(), View(2));
    }
}

/// R1.
#[test]
fn a_certificate_is_persisted_and_then_forwarded_once() {
    let mut lone = Lone::new(0);
    let nullification = nullification(1);
    let effects = lone.hear(nullification.clone());
    let persisted =
        effects.iter().position(|effect| *effect == Effect::Persist(Record::Certificate(nullification.clone())));
    let sent =
        effects.iter().position(|effect| *effect == Effect::Broadcast(Message::Certificate(nullification.clone())));
    assert!(persisted.unwrap() < sent.unwrap());
    assert_eq!(lone.state.view(), View(2));

    // The same by votes: the third makes the certificate, the fourth changes nothing.
    let mut lone = Lone::new(0);
    let nullify = vote(VoteKind::Nullify, 1, Digest::default());
    let forwarded: Vec<usize> = (0..4).map(|signer| said(&lone.hear(signed(nullify, signer))).len()).collect();
    assert_eq!(forwarded, [0, 0, 1, 0]);
}

#[test]
fn votes_for_different_blocks_make_no_certificate_together() {
    let mut lone = Lone::new(0);
    for signer in 0..4 {
        lone.hear(signed(vote(VoteKind::Notarize, 1, Digest([signer as u8 % 2; 32])), signer));
    }
    assert_eq!(lone.state.view(), View(1));
    assert_eq!(lone.state.certificates(View(1)).count(), 0);
}

/// A proposal is one vote, and its leader may hold a quorum alone.
#[test]
fn proposals_make_no_certificate() {
    let validators = ValidatorSet::new([1, 7, 1, 1].map(Power).to_vec()).unwrap();
    let leader = ValidatorIndex(1);
    let view = (1..20).find(|view| validators.leader(View(*view)) == leader).unwrap();
    let mut lone = Lone::with(Config { validators, ..config(0) }, Vec::new());
    let block = Block { proposer: leader, ..block(&genesis().block, view) };
    let effects = lone.hear(proposal(&block, 0));
    assert!(effects.contains(&Effect::Persist(Record::Block(block))));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Persist(Record::Certificate(_)))), "{effects:?}");
}

#[test]
fn a_flood_queues_no_more_checks_than_the_bound() {
    let mut lone = Lone::new(0);
    let votes = (1..=FUTURE_VIEWS_MAX).flat_map(|view| (0..=u8::MAX).map(move |digest| (view, digest)));
    let mut tokens = std::collections::BTreeSet::new();
    for (view, digest) in votes {
        let heard = signed(vote(VoteKind::Notarize, view, Digest([digest; 32])), 1);
        if let Some((token, _)) = lone.asks(heard) {
            assert!(tokens.insert(token), "an answer names one message");
        }
    }
    assert_eq!(tokens.len(), PENDING_MAX);
    lone.step(Event::Verified(*tokens.first().unwrap(), false));
    assert!(lone.asks(notarize(1, 2)).is_some(), "room for one");
    assert!(lone.asks(notarize(1, 3)).is_none());
}

#[test]
fn blocks_above_the_last_finalised_one_are_bounded() {
    let keeps = |blocks: usize| {
        let records = (0..blocks).map(|number| {
            let number = (number as u64).to_be_bytes().repeat(4).try_into().unwrap();
            Record::Block(Block { batches: vec![Digest(number)], ..first() })
        });
        let mut lone = Lone::with(config(0), records.collect());
        lone.hear(proposal(&first(), 0)).contains(&Effect::Persist(Record::Block(first())))
    };
    assert!(keeps(TREE_BLOCKS_MAX - 1));
    assert!(!keeps(TREE_BLOCKS_MAX));
}

#[test]
fn of_blocks_only_wanted_ones_are_taken_and_persisted_once() {
    let mut lone = Lone::new(0);
    assert_eq!(lone.step(Event::Fetched(first())), []);
    assert_eq!(lone.state.block(first().digest()), None);
    lone.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    let persisted = Effect::Persist(Record::Block(first()));
    assert!(lone.step(Event::Fetched(first())).contains(&persisted));
    assert_eq!(lone.state.block(first().digest()), Some(&first()));
    assert!(!lone.step(Event::Fetched(first())).contains(&persisted));
}

/// R2.
#[test]
fn a_range_is_checked_only_if_it_links_the_last_finalised_block_to_a_finalization_of_its_end() {
    let second = block(&first(), 2);
    let third = block(&second, 3);
    let finalized = |view, of: &Block| certificate(VoteKind::Finalize, view, of.digest());
    let asked = |blocks: &[&Block], certificate: Certificate| {
        let blocks = blocks.iter().copied().cloned().collect();
        let effects = after_view_1().step(Event::Range(blocks, certificate));
        effects.iter().any(|effect| matches!(effect, Effect::Verify(..)))
    };
    assert!(asked(&[&second], finalized(2, &second)));
    assert!(asked(&[&second, &third], finalized(3, &third)));
    assert!(
        asked(&[&genesis().block, &first(), &second], finalized(2, &second)),
        "what is final already does not hurt"
    );
    let elsewhere = Block { parent: Digest([7; 32]), ..second.clone() };
    let too_high = Block { height: Height(3), ..second.clone() };
    let other_epoch = Block { epoch: Epoch(1), ..second.clone() };
    let two = |mut certificate: Certificate| {
        certificate.signatures.pop();
        certificate
    };
    for (what, blocks, certificate) in [
        ("nothing new", vec![&first()], finalized(2, &first())),
        ("nothing at all", vec![], certificate(VoteKind::Finalize, 2, first().digest())),
        ("a wrong parent", vec![&elsewhere], finalized(2, &elsewhere)),
        ("a wrong height", vec![&too_high], finalized(2, &too_high)),
        ("another epoch", vec![&other_epoch], finalized(2, &other_epoch)),
        ("a gap", vec![&third], finalized(3, &third)),
        ("only notarized", vec![&second], certificate(VoteKind::Notarize, 2, second.digest())),
        ("another end", vec![&second], finalized(2, &third)),
        ("a view that is final", vec![&second], finalized(1, &second)),
        ("no quorum", vec![&second], two(finalized(2, &second))),
    ] {
        assert!(!asked(&blocks, certificate), "{what}");
    }
}

/// S5, S2: votes of another epoch are not this core's to say.
#[test]
fn only_votes_of_its_own_epoch_are_said() {
    let mut lone = Lone::signing(0);
    let nullify = vote(VoteKind::Nullify, 1, Digest::default());
    let other = Vote { epoch: Epoch(1), ..nullify };
    assert_eq!(said(&lone.step(Event::Signed(signed(other, 0)))), Vec::<&Message>::new());
    assert_eq!(said(&lone.step(Event::Signed(signed(nullify, 0)))), [&Message::Vote(signed(nullify, 0))]);
}

/// S5.
#[test]
fn nothing_is_signed_before_signing_is_allowed_and_never_by_a_full_node() {
    let mut waiting = Lone::new(0);
    let mut full = Lone::with(Config { me: None, ..config(0) }, Vec::new());
    full.step(Event::SigningAllowed);
    for lone in [&mut waiting, &mut full] {
        let mut effects = lone.hear(proposal(&first(), 0));
        for now in [1_000, 5_000, 20_000] {
            effects.extend(lone.tick(now));
        }
        effects.extend(lone.hear(certificate(VoteKind::Notarize, 1, first().digest())));
        assert_eq!(signs(&effects), []);
    }
    let effects = waiting.feed(Event::SigningAllowed);
    assert_eq!(signs(&effects), [vote(VoteKind::Finalize, 1, first().digest())]);
}
