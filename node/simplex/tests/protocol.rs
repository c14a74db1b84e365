//! The rules of one epoch, on the core alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::types::{Digest, Epoch, Height, Millis, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Certificate, Effect, Event, FUTURE_VIEWS_MAX, Message, Safety, SignedVote, State, Verdict, Vote, VoteKind,
};
use cluster::{Cluster, by, certificate, child, genesis};

#[test]
fn finality_takes_exactly_three_network_delays_from_the_proposal() {
    let mut cluster = Cluster::start();
    cluster.settle();
    cluster.now = 1_000;
    let leader = usize::from(cluster.nodes[0].state.config().validators.leader(View(1)).0);
    cluster.feed(leader, Event::Tick);
    for delay in 1..=3 {
        assert!(cluster.heights().iter().all(|height| *height == 0), "finalised before delay {delay}");
        cluster.one_network_delay();
    }
    assert!(cluster.heights().iter().all(|height| *height >= 1), "{:?}", cluster.heights());
}

#[test]
fn an_idle_chain_grows_with_the_heartbeat() {
    let mut cluster = Cluster::start();
    for _ in 0..10 {
        cluster.tick(1_000);
    }
    assert_eq!(cluster.heights(), [10; 4]);
    cluster.agree();
}

#[test]
fn with_work_a_block_is_proposed_every_min_view() {
    let mut cluster = Cluster::start();
    for node in 0..4 {
        cluster.feed(node, Event::Work(true));
    }
    for _ in 0..40 {
        cluster.tick(25);
    }
    assert_eq!(cluster.heights(), [40; 4]);
    cluster.agree();
}

#[test]
fn a_silent_validator_costs_its_own_views_only() {
    let mut cluster = Cluster::start();
    cluster.silent = vec![2];
    for _ in 0..400 {
        cluster.tick(100);
    }
    let heights = cluster.heights();
    assert_eq!(heights[2], 0);
    assert!(heights[0] >= 20 && heights[1] >= 20 && heights[3] >= 20, "{heights:?}");
    cluster.silent.clear();
    for _ in 0..40 {
        cluster.tick(100);
    }
    cluster.agree();
}

#[test]
fn without_a_quorum_nothing_is_finalised_and_nothing_is_lost() {
    let mut cluster = Cluster::start();
    cluster.tick(1_000);
    let before = cluster.heights();
    cluster.silent = vec![0, 1];
    for _ in 0..300 {
        cluster.tick(100);
    }
    assert_eq!(cluster.heights(), before);
    cluster.silent.clear();
    for _ in 0..300 {
        cluster.tick(100);
    }
    assert!(cluster.heights().iter().all(|height| *height > before[0] + 5), "{:?}", cluster.heights());
    cluster.agree();
}

#[test]
fn a_restart_of_every_node_in_the_same_view_goes_on() {
    let mut cluster = Cluster::start();
    cluster.tick(1_000);
    // Everybody has notarized view 2 and nobody has heard of it.
    cluster.now += 1_000;
    let leader = usize::from(cluster.nodes[0].state.config().validators.leader(View(2)).0);
    cluster.feed(leader, Event::Tick);
    cluster.one_network_delay();
    cluster.wire.clear();
    for node in 0..4 {
        cluster.restart(node);
    }
    cluster.settle();
    for _ in 0..50 {
        cluster.tick(100);
    }
    assert!(cluster.heights().iter().all(|height| *height >= 3), "{:?}", cluster.heights());
    cluster.agree();
}

#[test]
fn a_vote_is_never_followed_by_its_contradiction_over_a_restart() {
    let mut cluster = Cluster::start();
    cluster.tick(1_000);
    cluster.silent = vec![0, 1];
    for _ in 0..30 {
        cluster.tick(500);
        cluster.restart(2);
        cluster.restart(3);
    }
    cluster.silent.clear();
    for _ in 0..100 {
        cluster.tick(200);
    }
    cluster.agree();
    assert!(cluster.heights()[0] > 3);
}

#[test]
fn a_range_that_does_not_link_or_is_not_certified_is_ignored() {
    let mut cluster = Cluster::start();
    let stranger = Block { height: Height(1), parent: Digest([1; 32]), ..Block::genesis(Digest([9; 32]), 0) };
    let vote = Vote { epoch: Epoch(0), view: View(5), kind: VoteKind::Finalize, digest: stranger.digest() };
    let signatures = (0..3).map(|signer| (ValidatorIndex(signer), Signature([0; 64]))).collect();
    cluster.feed(0, Event::Range(vec![stranger], Certificate { vote, signatures }));
    assert_eq!(cluster.heights()[0], 0);

    let child = Block { height: Height(1), parent: genesis().digest, ..Block::genesis(Digest([9; 32]), 0) };
    let vote = Vote { digest: child.digest(), ..vote };
    let two = (0..2).map(|signer| (ValidatorIndex(signer), Signature([0; 64]))).collect();
    cluster.feed(0, Event::Range(vec![child.clone()], Certificate { vote, signatures: two }));
    assert_eq!(cluster.heights()[0], 0);

    let three = (0..3).map(|signer| (ValidatorIndex(signer), Signature([0; 64]))).collect();
    cluster.feed(0, Event::Range(vec![child], Certificate { vote, signatures: three }));
    assert_eq!(cluster.heights()[0], 1);
}

/// T1: ranges bring finalizations below the highest one seen; each must move the last finalised block.
#[test]
fn a_node_far_behind_catches_up_range_by_range_below_the_finalization_it_aims_for() {
    let mut cluster = Cluster::start();
    let mut chain = vec![genesis().block];
    for _ in 0..20 {
        let block = child(chain.last().unwrap(), Vec::new());
        chain.push(block);
    }
    let finalize = |height: usize| certificate(VoteKind::Finalize, height as u64, chain[height].digest());
    cluster.feed(0, Event::Received(Message::Certificate(finalize(20))));
    cluster.feed(0, Event::Fetched(chain[20].clone()));
    assert_eq!(cluster.heights()[0], 0);
    cluster.feed(0, Event::Range(chain[1..=8].to_vec(), finalize(8)));
    assert_eq!(cluster.heights()[0], 8);
    cluster.feed(0, Event::Range(chain[9..=16].to_vec(), finalize(16)));
    cluster.feed(0, Event::Range(chain[17..=20].to_vec(), finalize(20)));
    assert_eq!(cluster.heights()[0], 20);
}

/// D3: the comparison with ancestors belongs to the moment of the check, not to the later one of the vote.
#[test]
fn a_batch_is_not_ordered_again_because_the_ancestor_became_final_before_the_vote() {
    let mut cluster = Cluster::start();
    let batch = Digest([7; 32]);
    let first = child(&genesis().block, vec![batch]);
    let second = by(3, child(&first, vec![batch]));
    cluster.feed(0, Event::Received(Message::Certificate(certificate(VoteKind::Notarize, 1, first.digest()))));
    cluster.feed(0, Event::Fetched(first.clone()));
    // View 3 is entered without a nullification of view 2, which the proposal skips: it waits for one.
    cluster.feed(0, Event::Received(Message::Certificate(certificate(VoteKind::Notarize, 2, Digest([5; 32])))));
    let proposal = bizra_simplex::Proposal {
        view: View(3),
        parent_view: View(1),
        block: second.clone(),
        justification: Some(certificate(VoteKind::Notarize, 1, first.digest())),
        signature: Signature([0; 64]),
    };
    cluster.feed(0, Event::Received(Message::Proposal(proposal)));
    cluster.feed(0, Event::Received(Message::Certificate(certificate(VoteKind::Finalize, 1, first.digest()))));
    assert_eq!(cluster.heights()[0], 1);
    cluster.feed(0, Event::Received(Message::Certificate(certificate(VoteKind::Nullify, 2, Digest::default()))));
    let in_view_3: Vec<VoteKind> =
        cluster.nodes[0].signed.iter().filter(|vote| vote.view == View(3)).map(|vote| vote.kind).collect();
    assert_eq!(in_view_3, [VoteKind::Nullify]);
}

/// T4: the clock of a leader is not moved by proposals for views to come.
#[test]
fn a_proposal_for_a_later_view_does_not_hold_up_the_present_leader() {
    let mut cluster = Cluster::start();
    let validators = cluster.nodes[0].state.config().validators.clone();
    let leader = usize::from(validators.leader(View(1)).0);
    cluster.now = 900;
    let proposal = bizra_simplex::Proposal {
        view: View(3),
        parent_view: View(0),
        block: by(3, child(&genesis().block, Vec::new())),
        justification: None,
        signature: Signature([0; 64]),
    };
    cluster.feed(leader, Event::Received(Message::Proposal(proposal)));
    cluster.now = 1_000;
    cluster.feed(leader, Event::Tick);
    assert!(cluster.nodes[leader].signed.iter().any(|vote| vote.kind == VoteKind::Propose && vote.view == View(1)));
}

/// A validator that restarted with this vote in its record and nothing else, and hears the vote from a peer.
fn reminded_of(vote: Vote) -> (State, SignedVote) {
    let safety = Safety::restore(View(0), [vote]);
    let mut state = State::recover(cluster::config(0), genesis(), None, Vec::new(), safety);
    state.step(Millis(0), Event::Started);
    let signed = SignedVote { vote, signer: ValidatorIndex(0), signature: Signature([0; 64]) };
    hear(&mut state, Message::Vote(signed));
    (state, signed)
}

fn hear(state: &mut State, message: Message) {
    for effect in state.step(Millis(1), Event::Received(message)) {
        if let Effect::Verify(token, _) = effect {
            state.step(Millis(1), Event::Verified(token, true));
        }
    }
}

fn says(effects: &[Effect], signed: &SignedVote) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Broadcast(Message::Vote(said)) => said == signed,
        Effect::Sign(vote) => *vote == signed.vote,
        _ => false,
    })
}

#[test]
fn a_recorded_vote_that_a_peer_repeats_is_not_said_before_signing_is_allowed_and_bodies_are_held() {
    let block = child(&genesis().block, Vec::new());
    let vote = Vote { epoch: Epoch(0), view: View(1), kind: VoteKind::Finalize, digest: block.digest() };
    let (mut state, signed) = reminded_of(vote);
    let effects = state.step(Millis(5_000), Event::Tick);
    assert!(!says(&effects, &signed), "before a quorum has answered (S5): {effects:?}");
    let mut effects = state.step(Millis(5_001), Event::SigningAllowed);
    effects.extend(state.step(Millis(10_000), Event::Tick));
    assert!(!says(&effects, &signed), "without the block and its bodies (R3, D2): {effects:?}");
    state.step(Millis(10_001), Event::Fetched(block.clone()));
    let effects = state.step(Millis(10_002), Event::Checked(block.digest(), Verdict::Held));
    assert!(says(&effects, &signed), "{effects:?}");
}

#[test]
fn a_recorded_vote_in_a_view_nullified_since_is_not_said_again() {
    let digest = child(&genesis().block, Vec::new()).digest();
    let notarize = Vote { epoch: Epoch(0), view: View(1), kind: VoteKind::Notarize, digest };
    let nullify = Vote { kind: VoteKind::Nullify, digest: Digest::default(), ..notarize };
    let safety = Safety::restore(View(0), [notarize, nullify]);
    let mut state = State::recover(cluster::config(0), genesis(), None, Vec::new(), safety);
    state.step(Millis(0), Event::Started);
    let mut effects = state.step(Millis(0), Event::SigningAllowed);
    let signed = SignedVote { vote: notarize, signer: ValidatorIndex(0), signature: Signature([0; 64]) };
    hear(&mut state, Message::Vote(signed));
    effects.extend(state.step(Millis(5_000), Event::Tick));
    assert!(!says(&effects, &signed), "{effects:?}");
    assert!(says(&effects, &SignedVote { vote: nullify, ..signed }), "{effects:?}");
}

#[test]
fn votes_far_ahead_are_not_kept() {
    let mut state = State::recover(cluster::config(0), genesis(), None, Vec::new(), Safety::default());
    state.step(Millis(0), Event::Started);
    let vote = |view| Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Notarize, digest: Digest([1; 32]) };
    for view in [2, 1 + FUTURE_VIEWS_MAX, 2 + FUTURE_VIEWS_MAX, u64::MAX] {
        let signed = SignedVote { vote: vote(view), signer: ValidatorIndex(1), signature: Signature([0; 64]) };
        hear(&mut state, Message::Vote(signed));
    }
    assert_eq!(state.highest_view_kept(), View(1 + FUTURE_VIEWS_MAX));
}
