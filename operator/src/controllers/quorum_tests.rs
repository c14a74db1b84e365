#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::json;

use super::*;
use crate::controllers::fixtures::{container, genesis_map, node, pod_of, report};

fn says(power: u64, total: u64, height: u64) -> Word {
    Word::Status(Box::new(NodeStatus {
        sync_state: SyncState::InSync.into(),
        signing_state: SigningState::Allowed.into(),
        power,
        total_power: total,
        finalized_height: height,
        ..NodeStatus::default()
    }))
}

fn running(ordinal: i32) -> Pod {
    let mut pod = pod_of(ordinal, None);
    let status = json!({"phase": "Running", "containerStatuses": [container("node", &json!({"running": {}}))]});
    pod.status = Some(serde_json::from_value(status).unwrap());
    pod
}

/// The census of running nodes that say this.
fn census(said: Vec<Word>, freshness: Freshness) -> Census {
    census_with(None, said, freshness)
}

fn census_with(genesis: Option<&Genesis>, said: Vec<Word>, freshness: Freshness) -> Census {
    let nodes: Vec<BizraNode> = (0..).zip(&said).map(|(ordinal, _)| node(ordinal)).collect();
    let pods: Vec<Pod> = (0..).zip(&said).map(|(ordinal, _)| running(ordinal)).collect();
    let words = (0..).zip(said).map(|(ordinal, word): (i32, Word)| (format!("demo-v{ordinal}"), word)).collect();
    Census::take(genesis, &nodes.iter().collect::<Vec<_>>(), &pods, &words, freshness)
}

fn verdict(census: &Census) -> &'static str {
    match census.may_go("demo-v0") {
        Verdict::Safe => "Safe",
        Verdict::NotNow(reason) if reason.word == "PowersContradict" => "PowersContradict",
        Verdict::NotNow(_) => "NotNow",
        Verdict::Never(_) => "Never",
    }
}

#[test]
fn one_of_four_may_go_if_the_other_three_are_in_sync() {
    let all: Vec<Word> = (0..4).map(|_| says(1, 4, 9)).collect();
    assert_eq!(verdict(&census(all.clone(), Freshness::Polled)), "Safe");
    let silent = Word::Unknown("no answer".to_owned());
    let mut one_silent = all.clone();
    one_silent[2] = silent.clone();
    assert_eq!(verdict(&census(one_silent, Freshness::Polled)), "NotNow");
    // The candidate itself need not answer; but its silence alone does not make it one that does not vote.
    let mut candidate_silent = all;
    candidate_silent[0] = silent;
    let taken = census(candidate_silent, Freshness::Polled);
    assert_eq!((verdict(&taken), taken.standing("demo-v0")), ("Safe", Standing::Unknown));
}

#[test]
fn a_node_in_whose_place_another_validates_has_no_power_left_to_count() {
    let mut said: Vec<Word> = (0..5).map(|_| says(1, 4, 9)).collect();
    said[4] = Word::Unknown("its host is lost".to_owned());
    let mut nodes: Vec<BizraNode> = (0..5).map(node).collect();
    let replaced = json!({"type": "Replaced", "status": "True", "reason": "HostLost", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let taken = |conditions: serde_json::Value, nodes: &mut Vec<BizraNode>| {
        let status = json!({"power": "1", "conditions": conditions});
        nodes[4].status = Some(serde_json::from_value(status).unwrap());
        let pods: Vec<Pod> = (0..5).map(running).collect();
        let words = (0..).zip(said.clone()).map(|(ordinal, word): (i32, Word)| (format!("demo-v{ordinal}"), word));
        Census::take(None, &nodes.iter().collect::<Vec<_>>(), &pods, &words.collect(), Freshness::Polled)
    };
    assert_eq!(verdict(&taken(json!([]), &mut nodes)), "PowersContradict");
    assert_eq!(verdict(&taken(json!([replaced]), &mut nodes)), "Safe");
}

#[test]
fn exactly_two_thirds_are_not_enough_and_a_third_in_one_hand_never_goes() {
    assert_eq!(verdict(&census((0..3).map(|_| says(1, 3, 9)).collect(), Freshness::Polled)), "Never");
    let powers = [2, 1, 1, 1].map(|power| says(power, 5, 9)).to_vec();
    assert_eq!(verdict(&census(powers, Freshness::Polled)), "Never");
    // Validators elsewhere, which nobody here can ask, count as not in sync.
    assert_eq!(verdict(&census((0..4).map(|_| says(1, 5, 9)).collect(), Freshness::Polled)), "NotNow");
}

#[test]
fn a_lie_about_power_stops_a_change_and_allows_none() {
    // The power of those that do not answer is that of the genesis.
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let map = genesis_map(&reports);
    let genesis = Genesis::parse(map.data.unwrap()["genesis.json"].as_bytes()).unwrap();
    let boaster = [says(1, 4, 9), says(3, 4, 9), Word::Unasked, Word::Unasked].to_vec();
    assert_eq!(verdict(&census_with(Some(&genesis), boaster, Freshness::Polled)), "PowersContradict");
    let boaster = [says(1, 4, 9), says(9, 4, 9), says(1, 4, 9), says(1, 4, 9)].to_vec();
    assert_eq!(verdict(&census(boaster, Freshness::Polled)), "PowersContradict");
}

#[test]
fn who_is_far_behind_by_live_heights_is_not_in_sync_and_one_node_alone_cannot_make_others_late() {
    let late = [says(1, 4, 1000), says(1, 4, 1000), says(1, 4, 1000), says(1, 4, 5)].to_vec();
    assert_eq!(verdict(&census(late.clone(), Freshness::Live)), "NotNow");
    assert_eq!(verdict(&census(late, Freshness::Polled)), "Safe");
    let liar = [says(1, 4, 10), says(1, 4, 10), says(1, 4, 10), says(1, 4, u64::MAX)].to_vec();
    assert_eq!(verdict(&census(liar, Freshness::Live)), "Safe");
}

#[test]
fn a_node_that_does_not_run_by_its_kubelets_word_needs_nobody() {
    let silent = || Word::Unknown("no answer".to_owned());
    let nodes: Vec<BizraNode> = (0..4).map(node).collect();
    let pods = [pod_of(0, None), running(1), running(2), running(3)];
    let words = (0..4).map(|ordinal| (format!("demo-v{ordinal}"), silent())).collect();
    let census = Census::take(None, &nodes.iter().collect::<Vec<_>>(), &pods, &words, Freshness::Polled);
    assert_eq!((verdict(&census), census.standing("demo-v0")), ("Safe", Standing::NotVoting));
    assert_eq!(census.standing("demo-v1"), Standing::Unknown);
}

#[test]
fn what_is_accepted_is_the_loss_by_this_node_alone() {
    let reason = || Reason::new("", "");
    for (verdict, forbidden, accepted) in [
        (Verdict::Safe, true, true),
        (Verdict::Never(reason()), false, true),
        (Verdict::NotNow(reason()), false, false),
    ] {
        let permits = |named| verdict.permits(QuorumLoss::of(Some("a"), named));
        assert_eq!((permits("b"), permits("a")), (forbidden, accepted), "{verdict:?}");
    }
}

#[test]
fn a_fenced_node_counts_as_one_that_does_not_vote_once_it_is_told_and_says_so() {
    let mut said = says(1, 4, 9);
    if let Word::Status(said) = &mut said {
        said.set_signing_state(SigningState::Fenced);
    }
    let mut node = node(0);
    let standing = |node: &BizraNode, said: &Word| standing(node, Some(&running(0)), Some(said));
    assert_eq!(standing(&node, &said), Standing::Unknown, "the order to let it go may be under way");
    node.spec.signing = Signing::Fenced;
    assert_eq!(standing(&node, &said), Standing::NotVoting);
    assert_eq!(standing(&node, &says(1, 4, 9)), Standing::InSync, "the order to fence it may be under way");
}

#[test]
fn nobody_else_may_go_while_one_of_four_is_fenced() {
    let mut said: Vec<Word> = (0..4).map(|_| says(1, 4, 9)).collect();
    if let Word::Status(said) = &mut said[3] {
        said.set_signing_state(SigningState::Fenced);
    }
    assert_eq!(verdict(&census(said, Freshness::Polled)), "NotNow");
}
