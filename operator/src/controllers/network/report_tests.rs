#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::ceremony::KeyReport;
use serde_json::json;

use super::*;
use crate::controllers::{
    fixtures::{default_image, genesis_map, network, network_observed, node, report as key_report},
    network::plan::plan,
};

fn said(type_: &str, status: &str, reason: &str) -> serde_json::Value {
    json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn node_saying(ordinal: i32, ready: &str, reason: &str, voted: i64) -> BizraNode {
    let mut node = node(ordinal);
    node.status = Some(
        serde_json::from_value(json!({
            "conditions": [said("Ready", ready, reason)],
            "height": 100, "lag": 0, "lastVotedHeight": voted, "version": "0.1.0", "power": "1",
        }))
        .unwrap(),
    );
    node
}

fn status_of(nodes: Vec<BizraNode>) -> NetworkStatus {
    let reports: Vec<KeyReport> = (1..=4).map(|seed| key_report(seed, "demo-1", None)).collect();
    let mut observed = network_observed();
    observed.genesis = Some(genesis_map(&reports));
    observed.nodes = nodes;
    let network = network("demo-1");
    let plan = plan(&network, &observed, &default_image()).unwrap();
    status(&network, &observed, &plan, None)
}

fn condition(status: &NetworkStatus, type_: &str) -> String {
    let found = find(&status.conditions, type_).unwrap();
    format!("{}/{}", found.status, found.reason)
}

#[test]
fn a_network_is_ready_when_all_its_validators_are() {
    let status = status_of((0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect());
    assert_eq!(condition(&status, condition::READY), "True/AllValidatorsReady");
    assert_eq!(condition(&status, condition::QUORUM_SAFE), "True/QuorumInSync");
    assert_eq!((status.validators.ready, status.validators.voting), (4, 4));
    assert_eq!(status.height, Some(100));
    assert_eq!(status.offenders, Vec::new());
}

#[test]
fn with_one_of_four_gone_the_quorum_is_safe_and_with_two_it_is_not() {
    let mut nodes: Vec<BizraNode> = (0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect();
    nodes[1] = node_saying(1, "Unknown", "Unreachable", 10);
    let status = status_of(nodes.clone());
    assert_eq!(condition(&status, condition::READY), "False/ValidatorsNotReady");
    assert_eq!(condition(&status, condition::QUORUM_SAFE), "True/QuorumInSync");
    assert_eq!((status.validators.ready, status.validators.voting), (3, 3));
    assert_eq!(status.offenders[0].reason, "Unreachable");
    nodes.remove(2);
    let status = status_of(nodes);
    assert_eq!(condition(&status, condition::QUORUM_SAFE), "False/NoQuorum");
    assert_eq!(status.offenders.len(), 2);
}

#[test]
fn who_votes_is_told_by_numbers_of_the_same_moment() {
    let mut nodes: Vec<BizraNode> = (0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect();
    // Its heights were written a minute later than those of the others.
    let later = nodes[0].status.as_mut().unwrap();
    (later.height, later.last_voted_height) = (Some(900), Some(899));
    // In sync, and its signature is in no certificate.
    nodes[1].status.as_mut().unwrap().last_voted_height = Some(10);
    let status = status_of(nodes);
    assert_eq!((status.validators.ready, status.validators.voting), (4, 3));
    assert_eq!(status.height, Some(900));
}

#[test]
fn a_validator_whose_key_is_not_in_the_genesis_does_not_count() {
    let mut nodes: Vec<BizraNode> = (0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect();
    let extra = said(condition::KEY_NOT_IN_GENESIS, "True", "KeyNotInGenesis");
    nodes[0].status.as_mut().unwrap().conditions.push(serde_json::from_value(extra).unwrap());
    let status = status_of(nodes);
    assert_eq!(status.validators.ready, 3);
    assert_eq!(status.offenders[0].reason, "KeyNotInGenesis");
}

#[test]
fn whoever_took_a_validators_place_stands_for_it() {
    let mut nodes: Vec<BizraNode> = (0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect();
    let mut successor = nodes[0].clone();
    successor.metadata.name = Some("demo-v0-r1".to_owned());
    successor.metadata.owner_references = None;
    successor.annotations_mut().insert(labels::REPLACES.to_owned(), "demo-v0".to_owned());
    nodes[0] = node_saying(0, "False", "Replaced", 9);
    let replaced = said(condition::REPLACED, "True", "HostLost");
    nodes[0].status.as_mut().unwrap().conditions.push(serde_json::from_value(replaced).unwrap());
    assert_eq!(status_of(nodes.clone()).validators.ready, 3);
    nodes.push(successor);
    let status = status_of(nodes);
    assert_eq!((status.validators.ready, status.validators.desired), (4, 4));
    assert_eq!(condition(&status, condition::READY), "True/AllValidatorsReady");
}

#[test]
fn a_network_without_genesis_says_what_it_waits_for() {
    let network = network("demo-1");
    let observed = network_observed();
    let plan = plan(&network, &observed, &default_image()).unwrap();
    let status = status(&network, &observed, &plan, None);
    assert_eq!(condition(&status, condition::READY), "False/WaitingForKeys");
    assert_eq!(condition(&status, condition::RECONCILING), "True/WaitingForKeys");
    assert_eq!(condition(&status, condition::STALLED), "False/NotStalled");
    assert_eq!(condition(&status, condition::QUORUM_SAFE), "Unknown/NoGenesis");
    assert_eq!(status.observed_generation, 1);
}

#[test]
fn a_jailing_is_told_with_what_to_do_until_it_is_acknowledged() {
    let reports: Vec<KeyReport> = (1..=4).map(|seed| key_report(seed, "demo-1", None)).collect();
    let mut observed = network_observed();
    observed.genesis = Some(genesis_map(&reports));
    observed.nodes = (0..4).map(|ordinal| node_saying(ordinal, "True", "InSync", 99)).collect();
    let key = "05".repeat(32);
    observed.nodes[3].status.as_mut().unwrap().public_key = Some(key.clone());
    let mut network = network("demo-1");
    let jailing =
        json!({"id": format!("{key}@77"), "validator": "owner", "node": "demo-v3", "publicKey": key, "height": 77});
    network.status.get_or_insert_default().jailings = vec![serde_json::from_value(jailing).unwrap()];
    let told = |network: &Network| {
        let plan = plan(network, &observed, &default_image()).unwrap();
        status(network, &observed, &plan, None)
    };
    let jailed = told(&network);
    for (type_, expected) in [
        (condition::JAILED_VALIDATOR, "True/JailedValidator"),
        (condition::STALLED, "True/JailedValidator"),
        (condition::READY, "False/JailedValidator"),
    ] {
        assert_eq!(condition(&jailed, type_), expected);
    }
    let message = &find(&jailed.conditions, condition::JAILED_VALIDATOR).unwrap().message;
    assert!(message.contains("spec.acknowledgedJailings") && message.contains(&format!("{key}@77")), "{message}");

    network.spec.acknowledged_jailings.push(format!("{key}@77"));
    let acknowledged = told(&network);
    assert!(find(&acknowledged.conditions, condition::JAILED_VALIDATOR).is_none());
    assert_eq!(condition(&acknowledged, condition::READY), "True/AllValidatorsReady");
    assert_eq!(acknowledged.jailings.len(), 1, "its key is still there");
}
