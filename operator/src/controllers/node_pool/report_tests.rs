#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::json;

use super::*;
use crate::controllers::{
    fixtures::{default_image, pool, pool_observed},
    node_pool::plan::plan,
};

fn status_of(pool: &NodePool, observed: &Observed) -> NodePoolStatus {
    status(pool, observed, &plan(pool, observed, &default_image()).unwrap(), None)
}

fn condition(status: &NodePoolStatus, type_: &str) -> String {
    let found = find(&status.conditions, type_).unwrap();
    assert_eq!(found.observed_generation, Some(1));
    format!("{}/{}", found.status, found.reason)
}

#[test]
fn a_pool_is_ready_when_all_its_nodes_say_so() {
    let pool = pool(&json!({"replicas": 2}));
    let mut observed = pool_observed(&pool, 0..2);
    let status = status_of(&pool, &observed);
    assert_eq!(condition(&status, condition::READY), "True/AllNodesReady");
    assert_eq!(condition(&status, condition::RECONCILING), "False/AsSpecified");
    assert_eq!(condition(&status, condition::STALLED), "False/NotStalled");
    assert_eq!(condition(&status, condition::UP_TO_DATE), "True/RevisionCurrent");
    assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (2, 2, 2));
    assert_eq!(status.selector.as_deref(), Some("bizra.io/pool=readers"), "what autoscalers select pods by");
    assert_eq!(status.observed_generation, 1);

    // Unknown is not ready, and what was said of an earlier spec does not count.
    let told = &mut observed.nodes[1].status.as_mut().unwrap().conditions[0];
    (told.status, told.reason) = ("Unknown".to_owned(), "Unreachable".to_owned());
    let status = status_of(&pool, &observed);
    assert_eq!(condition(&status, condition::READY), "False/NodesNotReady");
    let message = &find(&status.conditions, condition::READY).unwrap().message;
    assert_eq!(message, "1 of 2 nodes are in sync; readers-1: Unreachable");
    observed.nodes[0].metadata.generation = Some(2);
    assert_eq!(status_of(&pool, &observed).ready_replicas, 0);
}

#[test]
fn replicas_are_what_is_there_and_not_what_is_wanted() {
    let small = pool(&json!({"replicas": 1}));
    let status = status_of(&small, &pool_observed(&small, 0..3));
    assert_eq!((status.replicas, status.ready_replicas), (3, 3));
    assert_eq!(condition(&status, condition::READY), "False/Shrinking");
    assert_eq!(condition(&status, condition::RECONCILING), "True/Shrinking");
    let large = pool(&json!({"replicas": 3}));
    let status = status_of(&large, &pool_observed(&large, 0..1));
    assert_eq!((status.replicas, condition(&status, condition::READY)), (1, "False/NodesNotReady".to_owned()));
    let none = pool(&json!({"replicas": 0}));
    assert_eq!(condition(&status_of(&none, &pool_observed(&none, 0..0)), condition::READY), "True/AllNodesReady");
}

#[test]
fn what_somebody_has_to_do_is_told_and_what_was_ordered_is_obeyed() {
    let wanted = pool(&json!({"replicas": 1}));
    let mut validator = pool_observed(&wanted, 0..2);
    validator.nodes[1].status.as_mut().unwrap().power = Some("1".to_owned());
    let status = status_of(&wanted, &validator);
    assert_eq!(condition(&status, condition::STALLED), "True/NodeVotes");
    assert_eq!(condition(&status, condition::READY), "False/NodeVotes");
    assert_eq!(condition(&status, condition::RECONCILING), "False/Stalled");

    let paused = pool(&json!({"replicas": 1, "reconciliation": "Paused"}));
    let status = status_of(&paused, &pool_observed(&paused, 0..1));
    assert_eq!(condition(&status, condition::PAUSED), "True/Paused");
    assert_eq!(condition(&status, condition::READY), "True/AllNodesReady");
    assert_eq!(condition(&status, condition::RECONCILING), "False/Paused");

    let mut asleep = pool_observed(&wanted, 0..1);
    asleep.network.as_mut().unwrap().spec.activity = crate::api::Activity::Hibernated;
    asleep.pods.clear();
    let status = status_of(&wanted, &asleep);
    assert_eq!(condition(&status, condition::HIBERNATED), "True/Hibernated");
    assert_eq!(condition(&status, condition::READY), "False/Hibernated");
    assert_eq!(condition(&status, condition::RECONCILING), "False/Hibernated");
}

#[test]
fn a_changed_spec_is_pending_until_the_last_node_has_it() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 2})), 0..2);
    let wanted = pool(&json!({"replicas": 2, "image": {"tag": "next"}}));
    let status = status_of(&wanted, &observed);
    assert_eq!(condition(&status, condition::UP_TO_DATE), "False/RevisionPending");
    assert_eq!((status.updated_replicas, condition(&status, condition::READY)), (0, "False/RollingUpdate".to_owned()));
    observed.network = None;
    let status = status_of(&wanted, &observed);
    assert_eq!(condition(&status, condition::UP_TO_DATE), "Unknown/NotDecided");
    assert_eq!(condition(&status, condition::STALLED), "True/NetworkMissing");
}
