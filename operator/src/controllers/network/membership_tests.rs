#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1::{NodeStatus, SigningState, SyncState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    api::BizraNode,
    controllers::{
        fixtures::{
            claim_of, container, default_image, deleting, endowed, network, network_observed, node, now, pod_of, report,
        },
        network::plan::plan,
    },
    probe::Word,
    resources::names,
};

const PARAMETERS: bizra_proto::parameters::Parameters = bizra_proto::parameters::Parameters {
    epoch_blocks: 4_096,
    unbonding_epochs: 64,
    stake_per_power: 1_000,
    slash_per_mille: 50,
    protocol_version: 2,
};

fn network_of(validators: i32) -> Network {
    let mut network = network("demo-1");
    network.spec.validators = validators;
    network
}

fn name(ordinal: i32) -> String {
    names::validator("demo", ordinal)
}

/// A chain whose genesis names four, with nodes of these ordinals; the first `active` of them are active validators.
fn world(count: i32, active: i32) -> Observed {
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let mut observed = Observed { genesis: Some(endowed(&reports)), ..network_observed() };
    for ordinal in 0..count {
        observed.nodes.push(node(ordinal));
        observed.claims.push(claim_of(ordinal));
        observed.validators.push(validator(ordinal, ordinal < active));
        come_in_sync(&mut observed, ordinal, u64::from(ordinal < active), active);
    }
    observed
}

fn validator(ordinal: i32, is_active: bool) -> Validator {
    let mut validator = owners::validator(&network("demo-1"), &name(ordinal), &PARAMETERS);
    validator.metadata.uid = Some(format!("validator-{ordinal}"));
    validator.metadata.resource_version = Some("1".to_owned());
    let ready = json!({
        "type": "Ready", "status": if is_active { "True" } else { "False" }, "reason": "R", "message": "says why",
        "lastTransitionTime": Time(now()),
    });
    let power = i32::from(is_active).to_string();
    validator.status = Some(serde_json::from_value(json!({"conditions": [ready], "power": power})).unwrap());
    validator
}

fn come_in_sync(observed: &mut Observed, ordinal: i32, power: u64, total: i32) {
    let mut pod = pod_of(ordinal, None);
    pod.status = Some(
        serde_json::from_value(json!({"containerStatuses": [container("node", &json!({"running": {}}))]})).unwrap(),
    );
    observed.pods.push(pod);
    let mut said = NodeStatus { power, total_power: u64::try_from(total).unwrap(), ..NodeStatus::default() };
    said.set_sync_state(SyncState::InSync);
    said.set_signing_state(if power > 0 { SigningState::Allowed } else { SigningState::NotAValidator });
    observed.words.insert(name(ordinal), Word::Status(Box::new(said)));
}

fn of(validators: i32, observed: &Observed) -> Membership {
    plan(&network_of(validators), observed, &default_image()).unwrap().membership
}

fn word(membership: &Membership) -> Option<&str> {
    membership.waiting.as_ref().map(|reason| reason.word.as_str())
}

#[test]
fn the_genesis_validators_are_there_at_once() {
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let fresh = Observed { genesis: Some(endowed(&reports)), ..network_observed() };
    let membership = of(4, &fresh);
    let all: Vec<String> = (0..4).map(name).collect();
    assert_eq!((&membership.nodes, &membership.validators), (&all, &all));
    assert_eq!((word(&membership), &membership.leaves, &membership.goes), (None, &None, &None));
}

#[test]
fn more_join_one_after_the_other() {
    let joins = |observed: &Observed| {
        let membership = of(7, observed);
        assert_eq!(membership.leaves, None);
        (membership.nodes.len(), membership.validators.len(), word(&membership).map(str::to_owned))
    };
    let waits = Some("ScalingUp".to_owned());
    assert_eq!(joins(&world(4, 4)), (5, 5, waits.clone()));
    // The fifth is on its way, and then in.
    assert_eq!(joins(&world(5, 4)), (5, 5, waits.clone()));
    assert_eq!(joins(&world(5, 5)), (6, 6, waits));
    assert_eq!(joins(&world(7, 7)), (7, 7, None));
    // One of the others is not as it should be.
    let mut troubled = world(4, 4);
    troubled.validators[1] = validator(1, false);
    assert_eq!(joins(&troubled).0, 4);
}

#[test]
fn who_has_a_volume_is_started_at_once_because_it_may_be_needed_for_a_quorum() {
    let mut again = world(4, 0);
    again.claims.extend((4..7).map(claim_of));
    assert_eq!(of(7, &again).nodes.len(), 7);
    assert_eq!(of(8, &again).nodes.len(), 7);
}

#[test]
fn the_highest_leaves_first_and_its_node_goes_last() {
    let mut observed = world(7, 7);
    let first = of(4, &observed);
    assert_eq!((first.leaves.as_deref(), word(&first)), (Some("demo-v6"), Some("ScalingDown")));
    assert_eq!(first.nodes.len(), 7, "until it is gone it is looked after");

    observed.validators[6] = deleting(observed.validators[6].clone());
    let leaving = of(4, &observed);
    assert_eq!((leaving.leaves, leaving.goes, leaving.nodes.len()), (None, None, 7));

    // Its Validator is gone, and it votes all the same: somebody took the finalizer, or it was abandoned.
    observed.validators.pop();
    let abandoned = of(4, &observed);
    assert_eq!((abandoned.goes, abandoned.nodes.len()), (None, 7));
    come_in_sync(&mut observed, 6, 0, 6);
    let left = of(4, &observed);
    assert_eq!((left.goes.as_deref(), left.leaves.as_deref(), left.nodes.len()), (Some("demo-v6"), Some("demo-v5"), 6));
    // Nothing of the writes to come is forgotten.
    let writes = plan(&network_of(4), &observed, &default_image()).unwrap();
    assert!(writes.needs_live_reads(&network_of(4)));
}

#[test]
fn nobody_leaves_whom_the_others_need() {
    let mut observed = world(7, 7);
    for ordinal in [0, 1] {
        observed.words.insert(name(ordinal), Word::Unknown("silent".to_owned()));
    }
    let membership = of(6, &observed);
    assert_eq!((membership.leaves.as_ref(), word(&membership)), (None, Some("WaitingForQuorum")));
    // It is one of those that are not there.
    let mut observed = world(7, 7);
    for ordinal in [0, 6] {
        observed.words.insert(name(ordinal), Word::Unknown("silent".to_owned()));
    }
    assert_eq!(of(6, &observed).leaves.as_deref(), Some("demo-v6"));
}

#[test]
fn what_people_make_themselves_is_never_touched() {
    let mut observed = world(4, 4);
    let mut theirs: BizraNode = node(5);
    theirs.metadata.owner_references = None;
    let mut other = validator(5, true);
    other.metadata.owner_references = None;
    observed.nodes.push(theirs);
    observed.validators.push(other);
    let membership = of(4, &observed);
    assert_eq!((membership.nodes.len(), membership.leaves, membership.goes), (4, None, None));
    // But its name is taken.
    observed.validators[4].metadata.name = Some(name(4));
    let plan = plan(&network_of(5), &observed, &default_image()).unwrap();
    assert_eq!(plan.stalled.unwrap().word, "NameTaken");
}

#[test]
fn before_the_genesis_the_number_is_only_a_number() {
    let mut observed = Observed { nodes: (0..5).map(node).collect(), ..network_observed() };
    let membership = of(4, &observed);
    assert_eq!((membership.nodes.len(), membership.goes.as_deref()), (4, Some("demo-v4")));
    observed.nodes.pop();
    assert_eq!(of(4, &observed).goes, None);
}
