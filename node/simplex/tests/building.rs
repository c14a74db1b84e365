//! The leader: upon what it builds, what becomes of the driver's material, what it signs (V1, E1, H1, H4, P1, V7).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::block::{CHECKPOINT_INTERVAL, CHECKPOINT_LAG_MAX};
use bizra_simplex::types::{Digest, Height, ValidatorIndex, View};
use bizra_simplex::{
    Block, Checkpoint, Config, Contradiction, Effect, Event, Message, Proposal, Protocol, Record, Verdict, VoteKind,
    Want,
};
use cluster::lone::{Lone, block, builds, built, fetches, nullification, proposal, said, signed, signs, vote};
use cluster::{NEXT_EPOCH, certificate, config, contradiction, genesis};

fn first() -> Block {
    Block { time_milliseconds: 50, ..block(&genesis().block, 1) }
}

/// The leader of view 2, with what to order, asked to build on `first`.
fn building_on_first(config: Config) -> Lone {
    let mut leader = Lone::with(config, Vec::new());
    leader.step(Event::SigningAllowed);
    leader.step(Event::Work(true));
    leader.hear(proposal(&first(), 0));
    leader.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    assert_eq!(builds(&leader.tick(100)), [(View(2), first().digest(), vec![first()])]);
    leader
}

/// What it proposes when it is given this.
fn proposes(leader: &mut Lone, event: Event) -> Option<Proposal> {
    let effects = leader.feed(event);
    said(&effects).into_iter().find_map(|message| match message {
        Message::Proposal(proposal) => Some(proposal.clone()),
        _ => None,
    })
}

fn with(view: u64, parent: Digest, change: impl FnOnce(&mut Material)) -> Event {
    let mut material = Material::default();
    change(&mut material);
    let Material { batches, time_milliseconds, checkpoint, boundary, contradictions } = material;
    Event::Built { view: View(view), parent, batches, time_milliseconds, checkpoint, boundary, contradictions }
}

#[derive(Default)]
struct Material {
    batches: Vec<Digest>,
    time_milliseconds: u64,
    checkpoint: Checkpoint,
    boundary: Option<bizra_simplex::Boundary>,
    contradictions: Vec<Contradiction>,
}

#[test]
fn a_proposal_carries_its_parents_certificate_and_fits_its_parent() {
    let mut leader = building_on_first(config(2));
    let material = with(2, first().digest(), |material| {
        material.batches = vec![Digest([7; 32])];
        material.time_milliseconds = 49;
        material.checkpoint.state = Digest([8; 32]);
        material.boundary = Some(NEXT_EPOCH);
        material.contradictions = vec![contradiction(0, 1, 3)];
    });
    let proposal = proposes(&mut leader, material).unwrap();
    let expected = Block {
        height: Height(2),
        parent: first().digest(),
        view: View(2),
        proposer: ValidatorIndex(2),
        signals: config(2).signals,
        // Not before its parent (H4), with its parent's checkpoint (H1), no boundary (E1), and no reports in version 1 (V7).
        time_milliseconds: 50,
        checkpoint: first().checkpoint,
        boundary: None,
        batches: vec![Digest([7; 32])],
        contradictions: Vec::new(),
        ..first()
    };
    assert_eq!(proposal.block, expected);
    assert_eq!((proposal.view, proposal.parent_view), (View(2), View(1)));
    assert_eq!(proposal.justification, Some(certificate(VoteKind::Notarize, 1, first().digest())));
    assert!(proposes(&mut leader, built(2, first().digest())).is_none(), "one a view (V1)");

    let reporting = Config { protocol: Protocol::V2, ..config(2) };
    let mut first_of_v2 = Lone::with(reporting, Vec::new());
    first_of_v2.step(Event::SigningAllowed);
    first_of_v2.hear(nullification(1));
    first_of_v2.tick(1_000);
    let told = vec![contradiction(0, 1, 3)];
    let material = with(2, genesis().digest, |material| {
        material.time_milliseconds = 60;
        material.contradictions.clone_from(&told);
    });
    let proposal = proposes(&mut first_of_v2, material).unwrap();
    assert_eq!((proposal.block.contradictions, proposal.block.time_milliseconds), (told, 60));
    assert_eq!((proposal.parent_view, proposal.justification), (View(0), None));
}

/// R1: also of the last finalised block, which is its finalization.
#[test]
fn on_the_last_finalised_block_the_finalization_is_the_justification() {
    let mut leader = Lone::signing(2);
    leader.finalize(&[first()], 1);
    leader.tick(1_000);
    let proposal = proposes(&mut leader, built(2, first().digest())).unwrap();
    assert_eq!(proposal.justification, Some(certificate(VoteKind::Finalize, 1, first().digest())));
}

#[test]
fn material_that_was_not_asked_for_or_comes_too_late_is_not_proposed() {
    let mut leader = Lone::signing(2);
    assert!(proposes(&mut leader, built(1, genesis().digest)).is_none(), "not the leader");
    leader.hear(nullification(1));
    assert!(proposes(&mut leader, built(2, genesis().digest)).is_none(), "not asked");

    let mut leader = building_on_first(config(2));
    leader.hear(nullification(2));
    assert!(proposes(&mut leader, built(2, first().digest())).is_none(), "the view is over");

    let mut leader = building_on_first(config(2));
    let twice = with(2, first().digest(), |material| material.batches = vec![Digest([7; 32]); 2]);
    assert!(proposes(&mut leader, twice).is_none(), "against the rules");
}

#[test]
fn when_a_better_parent_becomes_known_it_is_built_again() {
    let mut leader = Lone::signing(2);
    leader.hear(nullification(1));
    assert_eq!(builds(&leader.tick(1_000)), [(View(2), genesis().digest, Vec::new())]);
    leader.hear(proposal(&first(), 0));
    leader.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    let effects = leader.feed(built(2, genesis().digest));
    assert_eq!(builds(&effects), [(View(2), first().digest(), vec![first()])]);
    assert_eq!(said(&effects).iter().filter(|message| matches!(message, Message::Proposal(_))).count(), 0);
}

/// Rule 1: with a nullification for every view between.
#[test]
fn a_leader_builds_on_the_highest_certified_view_and_asks_for_what_lacks_between() {
    let mut leader = Lone::signing(0);
    leader.hear(proposal(&first(), 0));
    leader.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    // One vote is no certificate.
    leader.hear(signed(vote(VoteKind::Nullify, 2, Digest::default()), 1));
    leader.hear(nullification(3));
    assert_eq!(leader.state.view(), View(4));
    leader.step(Event::Work(true));
    let effects = leader.tick(25);
    assert_eq!((builds(&effects), fetches(&effects)), (Vec::new(), vec![Want::View(View(2))]));
    assert_eq!(fetches(&leader.tick(1_000)), [Want::View(View(2))], "and again");
    let effects = leader.hear(nullification(2));
    assert_eq!(builds(&effects), [(View(4), first().digest(), vec![first()])]);
}

/// V1, V3, V5: over a restart.
#[test]
fn a_view_that_was_proposed_in_or_nullified_is_not_built_in_again() {
    let proposed = vote(VoteKind::Propose, 1, first().digest());
    let nullified = vote(VoteKind::Nullify, 1, Digest::default());
    for (recorded, asks) in [(vec![], 1), (vec![proposed], 0), (vec![nullified], 0)] {
        let mut leader = Lone::restarted(config(1), Vec::new(), recorded);
        leader.feed(Event::SigningAllowed);
        assert_eq!(builds(&leader.tick(1_000)).len(), asks);
    }
}

/// H1: ordering waits for execution.
#[test]
fn a_leader_far_above_its_checkpoint_proposes_an_empty_block() {
    for (above, orders) in [(CHECKPOINT_LAG_MAX, 1), (CHECKPOINT_LAG_MAX + 1, 0)] {
        let me = (above % 4) as usize;
        let mut leader = Lone::with(Config { cutoff: Height(u64::MAX), ..config(me) }, Vec::new());
        leader.step(Event::SigningAllowed);
        let mut chain = vec![genesis().block];
        for view in 1..above {
            chain.push(block(chain.last().unwrap(), view));
        }
        leader.finalize(&chain[1..], above - 1);
        leader.tick(10_000);
        let parent = chain.last().unwrap().digest();
        let material = with(above, parent, |material| material.batches = vec![Digest([7; 32])]);
        assert_eq!(proposes(&mut leader, material).unwrap().block.batches.len(), orders);
    }
}

/// H1: the next checkpoint is named once it was executed, and an earlier one never again.
#[test]
fn a_leader_names_the_next_checkpoint_it_has_executed() {
    let named = |height| Checkpoint { height: Height(height), state: Digest([8; 32]), receipts: Digest([9; 32]) };
    let mut leader = Lone::with(Config { cutoff: Height(u64::MAX), ..config(1) }, Vec::new());
    leader.step(Event::SigningAllowed);
    let mut chain = vec![genesis().block];
    for view in 1..=CHECKPOINT_INTERVAL {
        chain.push(block(chain.last().unwrap(), view));
    }
    let parent = chain.last().unwrap();
    leader.finalize(&chain[1..], CHECKPOINT_INTERVAL);
    leader.tick(10_000);
    let view = CHECKPOINT_INTERVAL + 1;
    let material = with(view, parent.digest(), |material| material.checkpoint = named(CHECKPOINT_INTERVAL));
    assert_eq!(proposes(&mut leader, material).unwrap().block.checkpoint, named(CHECKPOINT_INTERVAL));
}

/// V4, D2: what is asked about a proposal, and when.
#[test]
fn only_the_present_views_block_is_examined_and_once() {
    let second = block(&genesis().block, 2);
    let checks = |effects: &[Effect]| -> Vec<Block> {
        let check = |effect: &Effect| if let Effect::Check { block, .. } = effect { Some(block.clone()) } else { None };
        effects.iter().filter_map(check).collect()
    };
    let mut lone = Lone::signing(0);
    assert_eq!(checks(&lone.hear(proposal(&second, 0))), [], "its view has not come");
    let effects = lone.hear(nullification(1));
    assert_eq!(checks(&effects), std::slice::from_ref(&second));
    assert_eq!(signs(&effects), [vote(VoteKind::Notarize, 2, second.digest())]);
    assert_eq!(checks(&lone.tick(1)), []);

    // Whoever waits for bodies does not ask again, and signs nothing without them.
    let mut lone = Lone::signing(0);
    let (token, _) = lone.asks(proposal(&first(), 0)).unwrap();
    let effects = lone.step(Event::Verified(token, true));
    assert_eq!((checks(&effects), signs(&effects)), (vec![first()], vec![]));
    let effects = lone.step(Event::Tick);
    assert_eq!((checks(&effects), signs(&effects)), (vec![], vec![]));
    // Nor does it finalize, though a quorum has notarized.
    assert_eq!(signs(&lone.hear(certificate(VoteKind::Notarize, 1, first().digest()))), []);
    let effects = lone.feed(Event::Checked(first().digest(), Verdict::Held));
    assert_eq!(signs(&effects), [vote(VoteKind::Finalize, 1, first().digest())]);
    assert_eq!(signs(&lone.tick(2)), [], "once");
}

#[test]
fn a_block_with_an_invalid_body_costs_its_leader_the_view() {
    let mut lone = Lone::signing(0);
    let (token, _) = lone.asks(proposal(&first(), 0)).unwrap();
    lone.step(Event::Verified(token, true));
    let effects = lone.feed(Event::Checked(first().digest(), Verdict::Invalid));
    assert_eq!(signs(&effects), [vote(VoteKind::Nullify, 1, Digest::default())]);
}

/// V4.
#[test]
fn a_proposal_is_notarized_only_on_a_certified_parent_with_every_view_between_nullified() {
    let third = block(&first(), 3);
    let notarize = vote(VoteKind::Notarize, 3, third.digest());
    let nullify = vote(VoteKind::Nullify, 3, Digest::default());
    let mut lone = Lone::signing(0);
    lone.hear(proposal(&first(), 0));
    lone.hear(certificate(VoteKind::Notarize, 2, Digest([5; 32])));
    let effects = lone.hear(proposal(&third, 1));
    // Its certificate shows that the parent may be finalized; it shows nothing of view 2.
    let finalize = vote(VoteKind::Finalize, 1, first().digest());
    assert_eq!((signs(&effects), fetches(&effects)), (vec![finalize], vec![Want::View(View(2))]));
    assert_eq!(signs(&lone.hear(nullification(2))), [notarize]);

    // On the last finalised one, it says, and its block is on another.
    let mut lone = Lone::signing(0);
    lone.hear(proposal(&first(), 0));
    lone.hear(nullification(1));
    lone.hear(nullification(2));
    assert_eq!(signs(&lone.hear(proposal(&third, 0))), [nullify]);

    // On a view that lies below the last finalised one, no nullification of which can exist.
    let mut lone = Lone::signing(0);
    let second = block(&first(), 2);
    lone.finalize(&[first(), second.clone()], 2);
    assert_eq!(signs(&lone.hear(proposal(&third, 1))), [nullify]);
    // On the last finalised one itself.
    let mut lone = Lone::signing(0);
    lone.finalize(&[first(), second.clone()], 2);
    let on_second = block(&second, 3);
    let justified = Proposal {
        justification: Some(certificate(VoteKind::Finalize, 2, second.digest())),
        ..proposal(&on_second, 2)
    };
    assert_eq!(signs(&lone.hear(justified)), [vote(VoteKind::Notarize, 3, on_second.digest())]);
}

/// V7: what an unfinalised ancestor reports is not reported again.
#[test]
fn a_report_that_an_ancestor_has_costs_the_leader_its_view() {
    let version_2 = |me| Config { protocol: Protocol::V2, ..config(me) };
    let telling = |told, block: Block| Block { contradictions: vec![told], signals: Protocol::V2.version(), ..block };
    let first = telling(contradiction(0, 1, 3), first());
    for (told, kind) in [(contradiction(0, 1, 2), VoteKind::Notarize), (contradiction(0, 1, 3), VoteKind::Nullify)] {
        let second = telling(told, block(&first, 2));
        let mut lone = Lone::with(version_2(0), Vec::new());
        lone.step(Event::SigningAllowed);
        lone.hear(proposal(&first, 0));
        lone.hear(certificate(VoteKind::Notarize, 1, first.digest()));
        let signed = signs(&lone.hear(proposal(&second, 1)));
        assert_eq!(signed.iter().map(|vote| vote.kind).collect::<Vec<_>>(), [kind]);
    }
}

/// E2: a validator of the next epoch begins on the boundary.
#[test]
fn an_epoch_that_begins_on_a_boundary_is_not_over() {
    let boundary = Block { boundary: Some(NEXT_EPOCH), ..first() };
    let next = Config { epoch: bizra_simplex::types::Epoch(1), ..config(1) };
    let anchor = bizra_simplex::Anchor::first(boundary);
    let state = bizra_simplex::State::recover(next, anchor, None, Vec::new(), bizra_simplex::Safety::default());
    let mut leader = Lone { state, now: 0 };
    assert!(!leader.state.is_over());
    leader.step(Event::Started);
    leader.step(Event::SigningAllowed);
    assert_eq!(builds(&leader.tick(1_000)).len(), 1);
}

/// R2: what peers may ask for, and what the driver is told of the best chain.
#[test]
fn what_is_known_above_the_last_finalised_block_is_served() {
    let mut lone = Lone::new(0);
    assert_eq!(lone.state.best_tip(), (genesis().digest, None, 0));
    assert_eq!(lone.state.best_chain(), []);
    assert_eq!((lone.state.block(genesis().digest), lone.state.anchor_certificate()), (Some(&genesis().block), None));
    lone.hear(proposal(&first(), 0));
    assert_eq!((lone.state.proposed(View(1)), lone.state.proposed(View(2))), (Some(&first()), None));
    assert_eq!(lone.state.best_chain(), [], "proposed, not notarized");
    let notarization = certificate(VoteKind::Notarize, 1, first().digest());
    lone.hear(notarization.clone());
    lone.hear(nullification(1));
    lone.hear(nullification(2));
    assert_eq!(lone.state.best_chain(), [first()]);
    assert_eq!(lone.state.best_tip(), (genesis().digest, Some(first().digest()), 1));
    assert_eq!(lone.state.highest_view_kept(), View(2));
    let held: Vec<_> = lone.state.certificates(View(1)).cloned().collect();
    assert_eq!(held, [notarization, nullification(1)]);
    lone.finalize(&[first()], 1);
    let finalization = certificate(VoteKind::Finalize, 1, first().digest());
    assert_eq!((lone.state.anchor_certificate(), lone.state.best_chain()), (Some(&finalization), Vec::new()));
    assert_eq!(lone.state.best_tip(), (first().digest(), None, 0));
}

/// R1, R3: what a restarted node knows is what it had persisted of this epoch above its last finalised block.
#[test]
fn a_restarted_node_goes_on_from_its_records() {
    let mut foreign = nullification(7);
    foreign.vote.epoch = bizra_simplex::types::Epoch(1);
    let certificates = [nullification(0), nullification(2), foreign].map(Record::Certificate);
    let records = certificates.into_iter().chain([Record::Block(first())]).collect();
    let lone = Lone::with(config(0), records);
    assert_eq!((lone.state.view(), lone.state.highest_view_kept()), (View(3), View(2)));
    assert_eq!(lone.state.certificates(View(0)).count(), 0);
    assert_eq!(lone.state.block(first().digest()), Some(&first()));
}
