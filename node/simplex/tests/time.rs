//! T3, T4, R3: when a leader proposes, when a follower gives up, and what is said again meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::types::{Digest, Height, Millis, View};
use bizra_simplex::{Block, Config, Effect, Event, Message, Record, Safety, State, VoteKind, WALK_BLOCKS_MAX, Want};
use cluster::lone::{Lone, block, builds, built, fetches, nullification, proposal, said, signed, signs, timer, vote};
use cluster::{certificate, config, genesis};

fn first() -> Block {
    block(&genesis().block, 1)
}

fn nullify(view: u64) -> bizra_simplex::Vote {
    vote(VoteKind::Nullify, view, Digest::default())
}

fn notarization(view: u64) -> bizra_simplex::Certificate {
    certificate(VoteKind::Notarize, view, Digest([view as u8; 32]))
}

/// T4.
#[test]
fn a_leader_proposes_a_min_view_after_the_last_proposal_with_work_and_a_heartbeat_without() {
    for (work, due) in [(true, 25), (false, 1_000)] {
        let mut leader = Lone::signing(1);
        let armed = timer(&leader.step(Event::Work(work))).unwrap_or(1_000);
        assert_eq!(armed, due);
        assert_eq!(builds(&leader.tick(due - 1)), []);
        assert_eq!(builds(&leader.tick(due)), [(View(1), genesis().digest, Vec::new())]);
        assert_eq!(builds(&leader.tick(due + 1)), [], "asked once");
    }
    // The work of others does not hurry it once it is ordered.
    let mut leader = Lone::signing(1);
    leader.step(Event::Work(true));
    leader.step(Event::Work(false));
    assert_eq!(builds(&leader.tick(999)), []);
    // The present leader alone.
    for other in [0, 2, 3] {
        assert_eq!(builds(&Lone::signing(other).tick(1_000)), []);
    }
}

/// T4.
#[test]
fn a_leader_counts_from_the_proposal_before_not_from_when_it_entered_the_view() {
    let mut leader = Lone::signing(2);
    leader.step(Event::Work(true));
    leader.now = 100;
    leader.hear(proposal(&first(), 0));
    leader.now = 110;
    let effects = leader.hear(certificate(VoteKind::Notarize, 1, first().digest()));
    assert_eq!((builds(&effects).len(), timer(&effects)), (0, Some(125)));
    assert_eq!(builds(&leader.tick(124)), []);
    assert_eq!(builds(&leader.tick(125)), [(View(2), first().digest(), vec![first()])]);
}

/// T4: a follower counts from when there is something to do, a heartbeat after entering the view at the latest.
#[test]
fn a_follower_gives_up_a_timeout_after_it_first_had_work_in_the_view() {
    for (work_since, due) in [(None, 2_000), (Some(0), 1_000), (Some(300), 1_300), (Some(1_500), 2_000)] {
        let mut follower = Lone::signing(0);
        if let Some(since) = work_since {
            follower.now = since;
            follower.feed(Event::Work(true));
            follower.now = since + 1;
            follower.feed(Event::Work(true));
        }
        assert_eq!(signs(&follower.tick(due - 1)), [], "{work_since:?}");
        assert_eq!(signs(&follower.tick(due)), [nullify(1)], "{work_since:?}");
        assert_eq!(signs(&follower.tick(due + 1)), [], "once");
    }
    // Work from before the view counts from the view on.
    let mut follower = Lone::signing(0);
    follower.feed(Event::Work(true));
    follower.now = 500;
    follower.hear(notarization(1));
    assert_eq!(signs(&follower.tick(1_499)), []);
    assert_eq!(signs(&follower.tick(1_500)), [nullify(2)]);
}

/// T3: how long view `view` is waited for, entered at 10 s.
fn patience(lone: &mut Lone, view: u64) -> u64 {
    assert_eq!(lone.state.view(), View(view));
    let idle = 10_000 + lone.state.config().timing.heartbeat_milliseconds;
    let waits = |timeout: &u64| {
        let mut lone = Lone { state: lone.state.clone(), now: 0 };
        signs(&lone.tick(idle + timeout)).contains(&nullify(view))
    };
    let timeout = [250, 1_000, 2_000, 4_000, 8_000].into_iter().find(waits).unwrap();
    assert!(!waits(&(timeout - 1)));
    timeout
}

#[test]
fn views_that_fail_are_waited_for_longer_until_a_block_is_final() {
    let mut lone = Lone::signing(0);
    lone.now = 10_000;
    lone.hear(nullification(1));
    assert_eq!(patience(&mut lone, 2), 2_000);
    lone.hear(nullification(2));
    assert_eq!(patience(&mut lone, 3), 4_000);
    lone.hear(notarization(3));
    assert_eq!(patience(&mut lone, 4), 4_000, "nothing is final yet");
    lone.finalize(&[block(&genesis().block, 4)], 4);
    // Leader 1 lost its last view, leader 3 did not.
    assert_eq!(patience(&mut lone, 5), 250);
    lone.hear(notarization(5));
    lone.hear(notarization(6));
    assert_eq!(patience(&mut lone, 7), 1_000);
    lone.hear(notarization(7));
    lone.hear(notarization(8));
    assert_eq!(patience(&mut lone, 9), 1_000, "leader 1 has come up with a block since");
}

#[test]
fn a_view_this_node_gave_up_counts_as_failed_though_it_was_notarized() {
    let mut lone = Lone::signing(0);
    assert_eq!(signs(&lone.tick(2_000)), [nullify(1)]);
    lone.now = 10_000;
    lone.hear(notarization(1));
    assert_eq!(patience(&mut lone, 2), 2_000);
    lone.hear(notarization(2));
    assert_eq!(patience(&mut lone, 3), 2_000, "that one it had not given up");
}

/// T1: whoever is behind judges every view that it leaps over.
#[test]
fn a_node_enters_the_view_after_the_highest_certificate() {
    let mut lone = Lone::signing(0);
    lone.now = 10_000;
    lone.hear(notarization(2));
    assert_eq!(lone.state.view(), View(3));
    lone.hear(nullification(1));
    assert_eq!(lone.state.view(), View(3), "never back");
    lone.hear(nullification(7));
    assert_eq!(patience(&mut lone, 8), 2_000);
}

/// R3: at start, and then every resend interval.
#[test]
fn own_votes_the_highest_certificate_and_the_last_finalization_are_said_again() {
    let mut lone = Lone::signing(0);
    lone.finalize(&[first()], 1);
    lone.hear(nullification(2));
    let finalization = certificate(VoteKind::Finalize, 1, first().digest());
    let (second, leader) = (block(&first(), 3), 3);
    assert_eq!(second.proposer.0, leader);
    let notarize = vote(VoteKind::Notarize, 3, second.digest());
    assert_eq!(signs(&lone.hear(proposal(&second, 1))), [notarize]);
    let expected = [
        Message::Vote(signed(notarize, 0)),
        Message::Certificate(nullification(2)),
        Message::Certificate(finalization.clone()),
    ];
    assert!(said(&lone.tick(999)).is_empty());
    assert_eq!(said(&lone.tick(1_000)), expected.iter().collect::<Vec<_>>());
    assert!(said(&lone.tick(1_999)).is_empty());
    assert_eq!(said(&lone.tick(2_000)), expected.iter().collect::<Vec<_>>());
    // What is final needs no votes any more.
    lone.finalize(std::slice::from_ref(&second), 3);
    let finalization = Message::Certificate(certificate(VoteKind::Finalize, 3, second.digest()));
    assert_eq!(said(&lone.tick(3_000)), [&finalization]);
}

#[test]
fn a_leader_says_its_proposal_again() {
    let mut leader = Lone::signing(1);
    leader.tick(1_000);
    let effects = leader.feed(built(1, genesis().digest));
    let [proposed, notarized] = signs(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((proposed.kind, notarized.kind), (VoteKind::Propose, VoteKind::Notarize));
    let sent: Vec<Message> = said(&effects).into_iter().cloned().collect();
    assert!(matches!(&sent[0], Message::Proposal(proposal) if proposal.vote() == proposed));
    let again = leader.tick(2_000);
    assert!(sent.iter().all(|message| said(&again).contains(&message)), "{again:?}");
}

/// V5: what bears its name and differs from what it recorded, somebody else made with its key.
#[test]
fn a_leader_never_passes_on_another_proposal_than_its_recorded_one() {
    let propose = vote(VoteKind::Propose, 1, first().digest());
    let mut leader = Lone::restarted(config(1), vec![Record::Block(first())], vec![propose]);
    assert_eq!(signs(&leader.feed(Event::SigningAllowed)), [propose]);
    let rival = Block { time_milliseconds: 1, ..first() };
    leader.hear(proposal(&rival, 0));
    assert!(!said(&leader.tick(1_000)).iter().any(|message| matches!(message, Message::Proposal(_))));
}

#[test]
fn time_begins_with_the_start() {
    let mut leader = State::recover(config(1), genesis(), None, Vec::new(), Safety::default());
    let mut effects = leader.step(Millis(50_000), Event::Started);
    effects.extend(leader.step(Millis(50_000), Event::SigningAllowed));
    assert_eq!((signs(&effects), builds(&effects)), (Vec::new(), Vec::new()));
    assert_eq!(builds(&leader.step(Millis(51_000), Event::Tick)).len(), 1);
}

/// V1, R3: a view that was nullified since, and one that is final.
#[test]
fn what_nobody_needs_any_more_is_neither_examined_nor_said_again() {
    let notarize = vote(VoteKind::Notarize, 1, first().digest());
    let mut lone = Lone::restarted(config(0), vec![Record::Block(first())], vec![notarize, nullify(1)]);
    lone.hear(nullification(1));
    let effects = lone.feed(Event::SigningAllowed);
    assert_eq!((signs(&effects), fetches(&effects)), (vec![nullify(1)], Vec::new()));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Check { .. })), "{effects:?}");
    // Its block was looked at before it was nullified.
    let mut lone = Lone::restarted(config(0), Vec::new(), vec![notarize, nullify(1)]);
    lone.feed(Event::SigningAllowed);
    assert_eq!(signs(&lone.hear(proposal(&first(), 0))), []);

    let propose = vote(VoteKind::Propose, 1, first().digest());
    let mut leader = Lone::restarted(config(1), Vec::new(), vec![propose]);
    assert_eq!(signs(&leader.feed(Event::SigningAllowed)), []);
    assert_eq!(signs(&leader.finalize(&[first()], 1)), []);
}

#[test]
fn a_full_node_says_nothing_again_and_asks_again() {
    let mut full = Lone::with(Config { me: None, ..config(0) }, Vec::new());
    full.hear(certificate(VoteKind::Finalize, 1, first().digest()));
    let effects = full.tick(1_000);
    assert!(said(&effects).is_empty());
    assert_eq!(fetches(&effects), [Want::Block(first().digest())]);
}

/// R4: the resend is bounded however long nothing becomes final.
#[test]
fn votes_of_the_latest_sixteen_views_are_said_again() {
    let mut lone = Lone::signing(0);
    for view in 1..=20 {
        let now = view * 10_000;
        assert_eq!(signs(&lone.tick(now)), [nullify(view)]);
        if view < 20 {
            lone.hear(nullification(view));
        }
    }
    let effects = lone.tick(300_000);
    let mut views: Vec<u64> = said(&effects)
        .into_iter()
        .filter_map(|message| if let Message::Vote(signed) = message { Some(signed.vote.view.0) } else { None })
        .collect();
    views.sort_unstable();
    assert_eq!(views, (5..=20).collect::<Vec<_>>());
}

/// R1, R4.
#[test]
fn what_lacks_is_asked_for_every_resend_until_it_is_there() {
    let mut lone = Lone::signing(0);
    lone.hear(notarization(2));
    // The block of view 2 descends from something, and the proposal skips view 2 without saying why.
    let third = block(&first(), 3);
    let effects = lone.hear(proposal(&third, 1));
    let gap = Want::View(View(2));
    assert!(fetches(&effects).contains(&gap), "{effects:?}");
    assert!(fetches(&effects).contains(&Want::Block(first().digest())));
    assert_eq!(fetches(&lone.tick(999)), []);
    let again = fetches(&lone.tick(1_000));
    assert!(again.contains(&Want::Block(first().digest())));
    lone.step(Event::Fetched(first()));
    assert!(!fetches(&lone.tick(2_000)).contains(&Want::Block(first().digest())));
    lone.hear(nullification(2));
    assert_eq!(fetches(&lone.tick(3_000)), [Want::Block(Digest([2; 32]))], "the gap is closed");
}

/// R4: a few missing blocks are fetched one by one, more as a range.
#[test]
fn a_distant_finalization_is_caught_up_with_in_ranges() {
    for (distance, ranges) in [(WALK_BLOCKS_MAX, false), (WALK_BLOCKS_MAX + 1, true)] {
        let mut chain = vec![genesis().block];
        for view in 1..=distance {
            chain.push(block(chain.last().unwrap(), view));
        }
        let last = chain.last().unwrap();
        let mut lone = Lone::signing(0);
        let effects = lone.hear(certificate(VoteKind::Finalize, distance, last.digest()));
        assert_eq!(fetches(&effects), [Want::Block(last.digest())]);
        let effects = lone.step(Event::Fetched(last.clone()));
        assert_eq!(effects.contains(&Effect::CatchUp(Height(distance))), ranges);
        assert_eq!(fetches(&effects).contains(&Want::Block(last.parent)), !ranges);
    }
}

/// The timer is what keeps all of this going; it is never set to what has passed, and not without need.
#[test]
fn the_next_moment_at_which_something_is_due_is_armed() {
    let mut follower = Lone::new(0);
    assert_eq!(timer(&follower.step(Event::Tick)), Some(1_000), "before it may sign, only the resend");
    assert_eq!(follower.step(Event::Work(false)), [], "nothing changed");

    let mut follower = Lone::signing(0);
    follower.now = 500;
    assert_eq!(timer(&follower.feed(Event::Work(true))), None, "the resend comes first");
    assert_eq!(timer(&follower.tick(1_000)), Some(1_500), "it gives up");
    let effects = follower.tick(1_500);
    assert_eq!((signs(&effects), timer(&effects)), (vec![nullify(1)], Some(2_000)));

    let mut leader = Lone::signing(1);
    leader.now = 990;
    assert_eq!(timer(&leader.step(Event::Tick)), Some(1_000));
    assert_eq!(timer(&leader.tick(1_000)), Some(2_000), "not what is due now: that waits for an event");

    let mut over = Lone::signing(0);
    over.finalize(&[Block { boundary: Some(cluster::NEXT_EPOCH), ..first() }], 1);
    assert_eq!(timer(&over.tick(1_999)), Some(2_999), "nothing but the resend");
}
