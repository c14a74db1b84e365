#![allow(clippy::unwrap_used, clippy::panic)]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::NetworkReference,
    controllers::fixtures::{come_in_sync, default_image, deleting, node, pool, pool_observed, written},
    probe::Word,
};

fn plan_of(pool: &NodePool, observed: &Observed) -> Plan {
    plan(pool, observed, &default_image()).unwrap()
}

fn targets(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.write.describe().replace(" BizraNode default/", " ")).collect()
}

/// Does to the world what the first `count` steps would do to the API server.
fn carry_out(observed: &mut Observed, plan: &Plan, count: usize) {
    for step in plan.steps.iter().take(count) {
        match &step.write {
            Write::Apply(_) => {
                let mut node: BizraNode = written(&step.write);
                let place = observed.nodes.iter().position(|live| live.metadata.name == node.metadata.name);
                let live = place.map(|place| observed.nodes.remove(place));
                node.metadata.uid = node.metadata.name.clone();
                let generation = live.as_ref().and_then(|live| live.metadata.generation).unwrap_or(0);
                node.metadata.generation = Some(generation + 1);
                node.status = live.and_then(|live| live.status);
                observed.nodes.push(node);
            }
            Write::Delete { target, .. } => observed.nodes.retain(|node| node.name_any() != target.name()),
            other => panic!("{other:?}"),
        }
    }
}

fn out_of_sync(observed: &Observed) -> Vec<String> {
    let is_out = |node: &&BizraNode| {
        let status = node.status.clone().unwrap_or_default();
        Some(status.observed_generation) != node.metadata.generation || !is_true(&status.conditions, condition::READY)
    };
    observed.nodes.iter().filter(is_out).map(kube::ResourceExt::name_any).collect()
}

fn node_of<'a>(observed: &'a mut Observed, name: &str) -> &'a mut BizraNode {
    observed.nodes.iter_mut().find(|node| node.name_any() == name).unwrap()
}

/// The node's pod does not run, by its kubelet's word.
fn stop(observed: &mut Observed, name: &str) {
    observed.pods.retain(|pod| pod.name_any() != name);
    let node = node_of(observed, name);
    node.status.as_mut().unwrap().observed_generation = node.metadata.generation.unwrap();
    for condition in &mut node.status.as_mut().unwrap().conditions {
        condition.status = "False".to_owned();
        condition.reason = "ErrImagePull".to_owned();
    }
}

fn word(reason: Option<&Reason>) -> &str {
    reason.map_or("", |reason| reason.word.as_str())
}

fn said(power: u64) -> Word {
    let said = bizra_proto::v1::NodeStatus { power, total_power: 4, ..bizra_proto::v1::NodeStatus::default() };
    Word::Status(Box::new(said))
}

#[test]
fn a_new_pool_gets_its_nodes_and_after_a_crash_at_any_point_exactly_the_rest() {
    let pool = pool(&json!({"replicas": 3}));
    let all = ["apply readers-0", "apply readers-1", "apply readers-2"];
    let first = plan_of(&pool, &pool_observed(&pool, 0..0));
    assert_eq!(targets(&first), all);
    for done in 0..=3 {
        let mut observed = pool_observed(&pool, 0..0);
        carry_out(&mut observed, &first, done);
        assert_eq!(targets(&plan_of(&pool, &observed)), all[done..], "after {done} writes");
    }
    assert_eq!(plan_of(&pool, &pool_observed(&pool, 0..3)).waiting, None);
}

#[test]
fn a_pool_that_shrinks_loses_its_highest_ordinals_and_no_volume() {
    let three = pool(&json!({"replicas": 1}));
    let plan = plan_of(&three, &pool_observed(&three, 0..12));
    assert_eq!(targets(&plan)[..3], ["delete readers-11", "delete readers-10", "delete readers-9"]);
    assert_eq!(plan.steps.len(), 11);
    assert!(plan.steps.iter().all(|step| step.event.as_ref().unwrap().message.contains("-data stays")));
    let none = pool(&json!({"replicas": 0}));
    assert_eq!(targets(&plan_of(&none, &pool_observed(&none, 0..1))), ["delete readers-0"]);
}

#[test]
fn whoever_may_vote_is_not_removed() {
    let pool = pool(&json!({"replicas": 1}));
    let with_power = |power: Option<&str>| {
        let mut observed = pool_observed(&pool, 0..3);
        node_of(&mut observed, "readers-2").status.as_mut().unwrap().power = power.map(str::to_owned);
        observed
    };
    let mut validator = with_power(Some("1"));
    let plan = plan_of(&pool, &validator);
    assert_eq!((targets(&plan), word(plan.stalled.as_ref())), (vec![], "NodeVotes"), "and none below it");
    // One that is down for the moment is a validator all the same.
    stop(&mut validator, "readers-2");
    assert_eq!(word(plan_of(&pool, &validator).stalled.as_ref()), "NodeVotes");
    // It has left the set since.
    let mut former = with_power(Some("1"));
    former.words.insert("readers-2".to_owned(), said(0));
    assert_eq!(plan_of(&pool, &former).steps.len(), 2);
    // It has become one since.
    let mut newly = with_power(Some("0"));
    newly.words.insert("readers-2".to_owned(), said(1));
    assert_eq!(word(plan_of(&pool, &newly).stalled.as_ref()), "NodeVotes");

    let mut silent = with_power(None);
    let plan = plan_of(&pool, &silent);
    assert_eq!((targets(&plan), word(plan.waiting.as_ref())), (vec![], "MayBeVoting"));
    // Without a process there is no vote, and there never was one.
    stop(&mut silent, "readers-2");
    assert_eq!(plan_of(&pool, &silent).steps.len(), 2);
}

#[test]
fn a_change_takes_no_more_nodes_out_of_sync_than_the_pool_allows() {
    for (bound, rounds) in [(1, 5), (2, 3), (100, 1)] {
        let mut observed = pool_observed(&pool(&json!({"replicas": 5})), 0..5);
        let pool = pool(&json!({"replicas": 5, "maxUnavailable": bound, "image": {"tag": "next"}}));
        let mut taken = 0;
        loop {
            let plan = plan_of(&pool, &observed);
            if plan.steps.is_empty() {
                break;
            }
            taken += 1;
            assert_eq!(word(plan.waiting.as_ref()), "RollingUpdate");
            carry_out(&mut observed, &plan, usize::MAX);
            let out = out_of_sync(&observed);
            assert!(out.len() <= usize::try_from(bound).unwrap(), "{out:?}");
            if taken == 1 && bound == 1 {
                assert_eq!(out, ["readers-4"], "the highest ordinal first");
            }
            assert_eq!(targets(&plan_of(&pool, &observed)), Vec::<String>::new(), "while {out:?} are out");
            for name in &out {
                come_in_sync(&mut observed, name);
            }
        }
        assert_eq!(taken, rounds, "at most {bound}");
        assert!(observed.nodes.iter().all(|node| node.spec.template.image.tag.as_deref() == Some("next")));
        assert_eq!(plan_of(&pool, &observed).waiting, None);
    }
}

#[test]
fn a_node_that_is_out_of_sync_anyway_counts_against_the_bound() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 3})), 0..3);
    for condition in &mut node_of(&mut observed, "readers-0").status.as_mut().unwrap().conditions {
        condition.status = "Unknown".to_owned();
    }
    let pool = pool(&json!({"replicas": 3, "image": {"tag": "next"}}));
    assert_eq!(targets(&plan_of(&pool, &observed)), ["apply readers-0"], "only the one that may be broken");
}

#[test]
fn a_revision_that_does_not_work_reaches_one_node_and_a_corrected_one_replaces_it_at_once() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 3})), 0..3);
    let broken = pool(&json!({"replicas": 3, "image": {"tag": "broken"}}));
    let plan = plan_of(&broken, &observed);
    carry_out(&mut observed, &plan, usize::MAX);
    observed.now = crate::controllers::fixtures::now() + SignedDuration::from_secs(100_000);
    let plan = plan_of(&broken, &observed);
    assert_eq!(
        (targets(&plan), plan.stalled),
        (vec![], None),
        "its controller has not looked yet: it was fine for long"
    );
    stop(&mut observed, "readers-2");
    for (seconds, stalled) in [(299, ""), (301, "RollStopped"), (100_000, "RollStopped")] {
        observed.now = crate::controllers::fixtures::now() + SignedDuration::from_secs(seconds);
        let plan = plan_of(&broken, &observed);
        assert_eq!((targets(&plan), word(plan.stalled.as_ref())), (vec![], stalled), "after {seconds} s");
    }
    let stopped = plan_of(&broken, &observed).stalled.unwrap();
    assert!(stopped.message.contains("readers-2") && stopped.message.contains("ErrImagePull"), "{}", stopped.message);

    // Corrected: the node that does not run anyway goes first, and nobody else until it is back.
    let corrected = pool(&json!({"replicas": 3, "image": {"tag": "next"}}));
    let plan = plan_of(&corrected, &observed);
    assert_eq!((targets(&plan), plan.stalled.as_ref()), (vec!["apply readers-2".to_owned()], None));
}

#[test]
fn nodes_that_never_ran_are_corrected_all_at_once() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 4, "image": {"tag": "typo"}})), 0..4);
    for ordinal in 0..4 {
        stop(&mut observed, &format!("readers-{ordinal}"));
    }
    let corrected = pool(&json!({"replicas": 4, "image": {"tag": "next"}}));
    assert_eq!(plan_of(&corrected, &observed).steps.len(), 4);
    // Running and silent is another matter.
    let mut silent = pool_observed(&pool(&json!({"replicas": 4})), 0..4);
    for node in &mut silent.nodes {
        node.status.as_mut().unwrap().conditions[0].status = "Unknown".to_owned();
    }
    assert_eq!(targets(&plan_of(&corrected, &silent)), ["apply readers-3"]);
}

#[test]
fn a_volume_grows_without_waiting_for_a_turn() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 3})), 0..3);
    let pool = pool(&json!({"replicas": 3, "image": {"tag": "next"}, "storage": {"size": "20Gi"}}));
    let plan = plan_of(&pool, &observed);
    carry_out(&mut observed, &plan, usize::MAX);
    let given: Vec<(String, String)> = (0..3)
        .map(|ordinal| node_of(&mut observed, &format!("readers-{ordinal}")).spec.template.clone())
        .map(|template| (template.image.tag.unwrap(), template.storage.size))
        .collect();
    let expected = [("dev", "20Gi"), ("dev", "20Gi"), ("next", "20Gi")];
    assert_eq!(given, expected.map(|(tag, size)| (tag.to_owned(), size.to_owned())));
}

#[test]
fn an_image_left_out_is_the_networks_and_a_new_operator_changes_none() {
    let pool = pool(&json!({"replicas": 1}));
    let mut observed = pool_observed(&pool, 0..0);
    observed.network.as_mut().unwrap().spec.template.image = node_builder::parse_image("localhost/bizra:7");
    let made: BizraNode = written(&plan_of(&pool, &observed).steps[0].write);
    assert_eq!(node_builder::image_reference(&made.spec.template.image), "localhost/bizra:7");

    let newer = node_builder::parse_image("localhost/bizra:newer");
    let observed = pool_observed(&pool, 0..1);
    assert_eq!(plan(&pool, &observed, &newer).unwrap().steps, Vec::new());
    // The Network's validators were made by an earlier operator, and the pool is new.
    let mut observed = pool_observed(&pool, 0..0);
    observed.nodes.push(node(0));
    let made: BizraNode = written(&plan(&pool, &observed, &newer).unwrap().steps[0].write);
    assert_eq!(node_builder::image_reference(&made.spec.template.image), "localhost/bizra:dev");
}

#[test]
fn a_name_that_is_taken_stalls_the_pool_and_keeps_nothing_else_from_being_done() {
    let pool = pool(&json!({"replicas": 3}));
    let mut observed = pool_observed(&pool, 0..0);
    let mut taken = node(0);
    taken.metadata.name = Some("readers-1".to_owned());
    taken.metadata.owner_references = None;
    taken.spec.network_ref = NetworkReference { name: "other".to_owned() };
    observed.nodes.push(taken);
    let plan = plan_of(&pool, &observed);
    assert_eq!(word(plan.stalled.as_ref()), "NameTaken");
    assert_eq!(targets(&plan), ["apply readers-0", "apply readers-2"]);
}

#[test]
fn an_edited_node_is_set_right_and_orders_for_one_node_are_left_alone() {
    let pool = pool(&json!({"replicas": 2}));
    let mut observed = pool_observed(&pool, 0..2);
    node_of(&mut observed, "readers-1").spec.signing = crate::api::Signing::Fenced;
    assert_eq!(targets(&plan_of(&pool, &observed)), Vec::<String>::new());
    node_of(&mut observed, "readers-1").spec.template.image.tag = Some("mine".to_owned());
    assert_eq!(targets(&plan_of(&pool, &observed)), ["apply readers-1"]);
}

#[test]
fn nothing_is_done_for_a_pool_that_is_deleted_paused_or_without_a_network() {
    let observed = pool_observed(&pool(&json!({"replicas": 1})), 0..1);
    let wanted = |spec: Value| pool(&spec);
    assert_eq!(plan_of(&deleting(wanted(json!({"replicas": 3}))), &observed), Plan::default());

    let paused = plan_of(&wanted(json!({"replicas": 3, "reconciliation": "Paused"})), &observed);
    assert_eq!((targets(&paused), word(paused.paused.as_ref())), (vec![], "Paused"));
    assert!(paused.paused.unwrap().message.ends_with("changes that wait: 2"));

    let missing = plan_of(&wanted(json!({"replicas": 3})), &Observed { network: None, ..observed.clone() });
    assert_eq!((targets(&missing), word(missing.stalled.as_ref())), (vec![], "NetworkMissing"));
    let ending = Observed { network: observed.network.clone().map(deleting), ..observed };
    let ending = plan_of(&wanted(json!({"replicas": 3})), &ending);
    assert_eq!((targets(&ending), word(ending.waiting.as_ref())), (vec![], "NetworkTerminating"));
}

#[test]
fn while_the_network_hibernates_no_other_template_is_given() {
    let mut observed = pool_observed(&pool(&json!({"replicas": 2})), 0..2);
    observed.network.as_mut().unwrap().spec.activity = Activity::Hibernated;
    for ordinal in 0..2 {
        stop(&mut observed, &format!("readers-{ordinal}"));
    }
    let plan = plan_of(&pool(&json!({"replicas": 2, "image": {"tag": "next"}})), &observed);
    assert_eq!((targets(&plan), word(plan.hibernated.as_ref())), (vec![], "Hibernated"));
    assert!(plan.waiting.unwrap().message.contains("when the network runs again"));
}

#[test]
fn a_node_nothing_was_heard_of_is_overdue_from_its_creation() {
    let wanted = pool(&json!({"replicas": 2, "image": {"tag": "next"}}));
    let mut observed = pool_observed(&pool(&json!({"replicas": 2})), 0..2);
    let plan = plan_of(&wanted, &observed);
    carry_out(&mut observed, &plan, usize::MAX);
    let node = node_of(&mut observed, "readers-1");
    node.status = None;
    node.metadata.creation_timestamp = Some(Time(crate::controllers::fixtures::now()));
    observed.now = crate::controllers::fixtures::now() + SignedDuration::from_secs(301);
    assert_eq!(word(plan_of(&wanted, &observed).stalled.as_ref()), "RollStopped");
}
