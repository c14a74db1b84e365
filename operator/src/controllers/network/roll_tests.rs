#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1::{NodeStatus, SigningState, SyncState};
use serde_json::json;

use super::*;
use crate::{
    controllers::{
        fixtures::{container, default_image, genesis_map, network, network_observed, node, now, pod_of, report},
        jailings,
        quorum::Freshness,
    },
    probe::Word,
    resources::node as node_builder,
};

/// A network in small: what the API server holds, moved on by hand.
struct World {
    network: Network,
    observed: Observed,
}

impl World {
    /// Four validators in sync, made from the present spec.
    fn new() -> Self {
        let mut observed = network_observed();
        let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
        observed.genesis = Some(genesis_map(&reports));
        let mut world = Self { network: network("demo-1"), observed };
        for (index, ordinal) in (0..4).enumerate() {
            world.observed.nodes.push(node(ordinal));
            let mut pod = pod_of(ordinal, None);
            let running =
                json!({"phase": "Running", "containerStatuses": [container("node", &json!({"running": {}}))]});
            pod.status = Some(serde_json::from_value(running).unwrap());
            world.observed.pods.push(pod);
            world.settle(index);
        }
        world.decide();
        world
    }

    /// The node's status says that its pod is what it should be, and the node that it is in sync.
    fn settle(&mut self, ordinal: usize) {
        let revision = pod::annotation(&self.observed.pods[ordinal].metadata, labels::REVISION).unwrap().to_owned();
        self.report(ordinal, &revision);
        let word = Word::Status(Box::new(NodeStatus {
            sync_state: SyncState::InSync.into(),
            signing_state: SigningState::Allowed.into(),
            power: 1,
            total_power: 4,
            ..NodeStatus::default()
        }));
        self.observed.words.insert(format!("demo-v{ordinal}"), word);
    }

    fn report(&mut self, ordinal: usize, revision: &str) {
        let generation = self.observed.nodes[ordinal].metadata.generation;
        let status = json!({"observedGeneration": generation, "revision": revision, "conditions": []});
        self.observed.nodes[ordinal].status = Some(serde_json::from_value(status).unwrap());
    }

    fn silence(&mut self, ordinal: usize) {
        self.observed.words.insert(format!("demo-v{ordinal}"), Word::Unknown("no answer".to_owned()));
    }

    fn image(&mut self, tag: &str) {
        self.network.spec.template.image.tag = Some(tag.to_owned());
    }

    /// Decides once, keeps the decision in the status and gives the `BizraNode`s their templates.
    fn decide(&mut self) -> Roll {
        let genesis: bizra_proto::ceremony::Genesis = {
            let data = self.observed.genesis.as_ref().unwrap().data.as_ref().unwrap();
            bizra_proto::ceremony::Genesis::parse(data.values().next().unwrap().as_bytes()).unwrap()
        };
        let nodes: Vec<&BizraNode> = self.observed.nodes.iter().collect();
        let words = &self.observed.words;
        let census = Census::take(Some(&genesis), &nodes, &self.observed.pods, words, Freshness::Polled);
        let template = node_builder::template(&self.network, &default_image());
        let jailings = jailings::known(&self.network, &self.observed);
        let standstill = jailings::standstill(&self.network, &jailings);
        let names = super::super::ceremony::wanted_names(&self.network);
        let roll = decide(&self.network, &self.observed, Some(&census), &names, standstill.as_ref(), template).unwrap();
        self.network.status.get_or_insert_default().jailings = jailings;
        for index in 0..self.observed.nodes.len() {
            let name = self.observed.nodes[index].name_any();
            let template = roll.template(&name).clone();
            let assigned = revision::of_template(&template).unwrap();
            let live = &mut self.observed.nodes[index];
            live.metadata.annotations.get_or_insert_default().insert(labels::TEMPLATE_REVISION.to_owned(), assigned);
            if live.spec.template != template {
                live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
                live.spec.template = template;
            }
        }
        let status = self.network.status.get_or_insert_default();
        status.permit.clone_from(&roll.permit);
        status.failed_revision.clone_from(&roll.failed);
        status.good_revision.clone_from(&roll.good);
        roll
    }

    fn tags(&self) -> Vec<String> {
        self.observed.nodes.iter().map(|node| node.spec.template.image.tag.clone().unwrap()).collect()
    }

    /// The pod of this node is made anew from its `BizraNode`.
    fn restart(&mut self, ordinal: usize, uid: &str) {
        let pod = &mut self.observed.pods[ordinal];
        pod.metadata.uid = Some(uid.to_owned());
        let tag = self.observed.nodes[ordinal].spec.template.image.tag.clone().unwrap();
        pod.metadata.annotations.get_or_insert_default().insert(labels::REVISION.to_owned(), tag.clone());
        self.report(ordinal, &tag);
    }

    fn later(&mut self, seconds: i64) {
        self.observed.now = Timestamp::from_second(self.observed.now.as_second() + seconds).unwrap();
    }
}

#[test]
fn a_change_is_acted_on_only_after_its_permit_is_in_the_status_and_goes_on_when_the_node_is_back() {
    let mut world = World::new();
    world.image("next");
    let roll = world.decide();
    assert_eq!(roll.permit.as_ref().map(|permit| permit.node.as_str()), Some("demo-v0"));
    assert_eq!(world.tags(), ["dev", "dev", "dev", "dev"], "granted is not yet acted on");
    world.decide();
    assert_eq!(world.tags(), ["next", "dev", "dev", "dev"]);
    world.restart(0, "pod-0b");
    world.silence(0);
    for _ in 0..3 {
        assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v0"));
        assert_eq!(world.tags(), ["next", "dev", "dev", "dev"]);
    }
    world.settle(0);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v1"));
}

#[test]
fn nobody_is_changed_while_another_one_is_out_of_sync() {
    let mut world = World::new();
    world.image("next");
    world.silence(2);
    world.silence(3);
    let roll = world.decide();
    assert!(matches!(roll.progress, Progress::Waiting(ref reason) if reason.word == "WaitingForQuorum"), "{roll:?}");
    assert_eq!((roll.permit, world.tags()), (None, vec!["dev".to_owned(); 4]));
    // The one that is out itself may be changed: the others hold the quorum.
    world.settle(2);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v3"));
}

#[test]
fn a_revision_that_never_was_in_sync_is_taken_back_and_reaches_no_second_node() {
    let mut world = World::new();
    let good = world.network.status.as_ref().unwrap().good_revision.clone();
    world.image("broken");
    world.decide();
    world.decide();
    world.restart(0, "pod-0b");
    world.silence(0);
    world.later(PERMIT_SECONDS + 299);
    assert!(world.decide().permit.is_some());
    world.later(1);
    let roll = world.decide();
    let failed = roll.failed.clone().unwrap();
    assert_eq!((failed.node.as_str(), &failed.rolled_back_to), ("demo-v0", &good));
    assert!(matches!(roll.progress, Progress::Stalled(ref reason) if reason.word == "RolledBack"));
    world.decide();
    assert_eq!(world.tags(), ["dev", "dev", "dev", "dev"]);
    world.restart(0, "pod-0c");
    world.settle(0);
    for _ in 0..3 {
        let roll = world.decide();
        assert_eq!((roll.permit, roll.failed.is_some()), (None, true), "it stays stopped");
    }
    world.image("fixed");
    let roll = world.decide();
    assert_eq!((roll.failed, roll.permit.map(|permit| permit.node).as_deref()), (None, Some("demo-v0")));
}

#[test]
fn a_revision_that_works_elsewhere_is_stopped_but_not_taken_back() {
    let mut world = World::new();
    world.image("next");
    world.decide();
    world.decide();
    world.restart(0, "pod-0b");
    world.decide();
    world.decide();
    world.restart(1, "pod-1b");
    world.silence(1);
    world.later(PERMIT_SECONDS + 300);
    let failed = world.decide().failed.unwrap();
    assert_eq!((failed.node.as_str(), failed.rolled_back_to), ("demo-v1", None));
    world.decide();
    assert_eq!(world.tags(), ["next", "next", "dev", "dev"]);
    // It has only been slow: the roll goes on.
    world.settle(1);
    let roll = world.decide();
    assert_eq!((roll.failed, roll.permit.map(|permit| permit.node).as_deref()), (None, Some("demo-v2")));
}

#[test]
fn a_permit_that_is_not_used_in_time_is_taken_back_and_is_no_failure() {
    let mut world = World::new();
    world.image("next");
    let first = world.decide().permit.unwrap();
    world.later(PERMIT_SECONDS);
    let again = world.decide();
    assert_eq!(again.failed, None);
    assert_ne!(again.permit.map(|permit| permit.expires_at), Some(first.expires_at));
}

#[test]
fn a_pod_that_was_lost_and_made_anew_from_what_was_before_gets_a_permit_of_its_own() {
    let mut world = World::new();
    world.image("next");
    world.decide();
    // Its controller has not seen the new template yet.
    world.observed.pods[0].metadata.uid = Some("pod-0b".to_owned());
    world.decide();
    world.report(0, "next");
    assert_eq!(world.decide().permit.map(|permit| permit.pod_uid).as_deref(), Some("pod-0b"));
    assert_eq!(world.tags(), ["next", "dev", "dev", "dev"]);
}

#[test]
fn a_revision_on_trial_is_taken_back_in_time_even_if_its_permit_was_lost() {
    let mut world = World::new();
    world.image("broken");
    world.decide();
    world.decide();
    world.restart(0, "pod-0b");
    world.observed.pods[0].status = None;
    world.network.status.as_mut().unwrap().permit = None;
    assert_eq!(world.decide().permit.map(|permit| permit.pod_uid).as_deref(), Some("pod-0b"));
    world.later(PERMIT_SECONDS + 299);
    assert!(world.decide().permit.is_some(), "there is nothing left to evict, so it is not returned unused");
    world.later(1);
    assert!(world.decide().failed.unwrap().rolled_back_to.is_some());
}

#[test]
fn a_former_pod_that_was_ready_proves_nothing_of_the_one_that_is_to_start() {
    let mut world = World::new();
    let good = world.network.status.as_ref().unwrap().good_revision.clone();
    world.image("broken");
    world.decide();
    world.decide();
    world.restart(0, "pod-0b");
    world.observed.pods[0].status = None;
    let ready =
        json!({"type": "Ready", "status": "True", "reason": "InSync", "message": "", "lastTransitionTime": now()});
    world.observed.nodes[0].status.as_mut().unwrap().conditions = vec![serde_json::from_value(ready).unwrap()];
    let roll = world.decide();
    assert_eq!((roll.permit.map(|permit| permit.node).as_deref(), roll.good), (Some("demo-v0"), good));
}

#[test]
fn a_quorum_is_given_up_only_for_the_revision_that_is_named() {
    let mut world = World::new();
    // Without the first, no quorum ever remains; without another one it does.
    for ordinal in 0..4 {
        let Some(Word::Status(said)) = world.observed.words.get_mut(&format!("demo-v{ordinal}")) else { panic!() };
        (said.power, said.total_power) = (if ordinal == 0 { 2 } else { 1 }, 5);
    }
    world.image("next");
    world.network.spec.allow_quorum_loss_for = Some("another".to_owned());
    let roll = world.decide();
    assert_eq!(roll.permit.map(|permit| permit.node).as_deref(), Some("demo-v1"));
    world.network.status.as_mut().unwrap().permit = None;
    world.observed.nodes.truncate(1);
    let roll = world.decide();
    assert_eq!(roll.permit, None);
    world.network.spec.allow_quorum_loss_for = Some(roll.target);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v0"));
}

#[test]
fn to_give_up_the_quorum_for_one_is_not_to_go_on_while_others_are_out_of_sync() {
    let mut world = World::new();
    world.image("next");
    world.silence(2);
    world.silence(3);
    let target = world.decide().target;
    world.network.spec.allow_quorum_loss_for = Some(target);
    assert_eq!(world.decide().permit, None);
}

#[test]
fn if_nobody_votes_everybody_is_changed_at_once() {
    let mut world = World::new();
    for pod in &mut world.observed.pods {
        pod.status = None;
    }
    world.image("fixed");
    world.decide();
    assert_eq!(world.tags(), ["fixed", "fixed", "fixed", "fixed"]);
    assert_eq!(now(), world.observed.now);
}

#[test]
fn a_hibernated_network_keeps_its_templates_and_gives_no_permit() {
    let mut world = World::new();
    world.network.spec.activity = Activity::Hibernated;
    world.observed.pods.clear();
    world.observed.words.clear();
    world.image("next");
    for _ in 0..2 {
        let roll = world.decide();
        assert_eq!((roll.permit, roll.failed), (None, None));
        assert!(matches!(roll.progress, Progress::Waiting(reason) if reason.word == "Hibernated"));
        world.later(PERMIT_SECONDS + 1_000);
    }
    assert_eq!(world.tags(), ["dev", "dev", "dev", "dev"]);
}

#[test]
fn whoever_is_started_after_a_hibernation_votes_before_anybody_is_changed() {
    let mut world = World::new();
    let (pods, words) = (std::mem::take(&mut world.observed.pods), std::mem::take(&mut world.observed.words));
    for node in &mut world.observed.nodes {
        let told = Condition {
            last_transition_time: Time(now()),
            message: String::new(),
            observed_generation: None,
            reason: "Hibernated".to_owned(),
            status: "False".to_owned(),
            type_: condition::READY.to_owned(),
        };
        node.status.as_mut().unwrap().conditions = vec![told];
    }
    world.image("next");
    let waits =
        |roll: &Roll| matches!(&roll.progress, Progress::Waiting(reason) if reason.word == "ValidatorsStarting");
    let roll = world.decide();
    assert!(waits(&roll) && roll.permit.is_none(), "{roll:?}");
    // One after the other is made anew, and none runs yet.
    for mut pod in pods.clone() {
        pod.status = None;
        pod.metadata.creation_timestamp = Some(Time(now()));
        world.observed.pods.push(pod);
        let roll = world.decide();
        assert!(waits(&roll) && roll.permit.is_none(), "{roll:?}");
        assert_eq!(world.tags(), ["dev", "dev", "dev", "dev"]);
    }
    let starting = world.observed.pods.clone();
    // If they do not come, the change may be what helps.
    world.later(START_SECONDS);
    world.decide();
    world.decide();
    assert_eq!(world.tags(), ["next", "next", "next", "next"]);

    let mut world = World::new();
    world.image("next");
    world.observed.words.clear();
    world.observed.pods = starting;
    world.decide();
    (world.observed.pods, world.observed.words) = (pods, words);
    let roll = world.decide();
    assert_eq!(roll.permit.as_ref().map(|permit| permit.node.as_str()), Some("demo-v0"));
    world.decide();
    assert_eq!(world.tags(), ["next", "dev", "dev", "dev"]);
}

/// The node's controller has decided to repair it; its container does not run if its database is damaged.
fn await_repair(world: &mut World, ordinal: usize, action: &str) {
    let cause = if action == "Resync" { "DatabaseCorrupt" } else { "Stuck" };
    let uid = world.observed.pods[ordinal].metadata.uid.clone();
    let status = world.observed.nodes[ordinal].status.as_mut().unwrap();
    status.height = Some(7);
    let repair =
        json!({"cause": cause, "action": action, "podUid": uid, "orderedAt": "2026-01-01T00:00:00Z", "attempt": 1});
    status.repair = Some(serde_json::from_value(repair).unwrap());
    if action == "Resync" {
        world.observed.pods[ordinal].status = None;
    }
    world.silence(ordinal);
}

fn heights(world: &mut World, height: u64) {
    for word in world.observed.words.values_mut() {
        if let Word::Status(said) = word {
            said.finalized_height = height;
        }
    }
}

#[test]
fn a_database_is_given_up_only_while_the_others_have_what_it_had_and_one_at_a_time() {
    let mut world = World::new();
    await_repair(&mut world, 1, "Resync");
    heights(&mut world, 6);
    assert_eq!(world.decide().permit, None, "nobody else is known to have its last block");
    heights(&mut world, 7);
    world.silence(3);
    assert_eq!(world.decide().permit, None, "no quorum is in sync without it");
    world.settle(3);
    heights(&mut world, 7);
    let permit = world.decide().permit.unwrap();
    assert_eq!(
        (permit.node.as_str(), permit.purpose, permit.pod_uid.as_str()),
        ("demo-v1", PermitPurpose::Resync, "pod-1")
    );

    // It is out until the node is in sync again, and meanwhile nothing else is.
    let replaced = permit.pod_uid.clone();
    world.observed.pods[1].metadata.uid = Some("pod-1b".to_owned());
    world.observed.pods[1].metadata.annotations.get_or_insert_default().insert(labels::REPAIR.to_owned(), replaced);
    await_repair(&mut world, 2, "Resync");
    for _ in 0..3 {
        assert_eq!(world.decide().permit.as_ref(), Some(&permit));
        world.later(PERMIT_SECONDS);
    }
    // Nor after its time, if it is not: one at a time.
    world.later(10_000);
    assert_eq!(world.decide().permit, None);
    world.observed.pods[1].status = world.observed.pods[0].status.clone();
    world.settle(1);
    heights(&mut world, 7);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v2"));
}

#[test]
fn keys_are_given_up_one_node_at_a_time_and_only_while_a_quorum_does_without() {
    for action in ["NewVolume", "NewKeys"] {
        let mut world = World::new();
        await_repair(&mut world, 1, action);
        heights(&mut world, 7);
        world.silence(3);
        // All volumes were restored from a backup, say, and every node refuses: nothing is given up.
        assert_eq!(world.decide().permit, None, "{action}");
        world.settle(3);
        heights(&mut world, 7);
        let permit = world.decide().permit.unwrap();
        let told = (permit.node.as_str(), permit.purpose, permit.pod_uid.as_str());
        assert_eq!(told, ("demo-v1", PermitPurpose::NewKeys, "pod-1"), "{action}");
    }
}

#[test]
fn a_node_in_whose_place_another_validates_is_given_the_new_template_without_a_permit_and_holds_up_nobody() {
    let mut world = World::new();
    let replaced = json!({"type": "Replaced", "status": "True", "reason": "HostLost", "message": "", "lastTransitionTime": now().to_string()});
    world.observed.nodes[0].status.as_mut().unwrap().conditions.push(serde_json::from_value(replaced).unwrap());
    world.image("next");
    let permit = world.decide().permit.unwrap();
    assert_eq!(permit.node, "demo-v1");
}

#[test]
fn a_repair_is_given_its_permit_before_a_change_and_returns_it_when_the_node_is_back() {
    let mut world = World::new();
    world.image("next");
    await_repair(&mut world, 2, "Restart");
    let permit = world.decide().permit.unwrap();
    assert_eq!((permit.node.as_str(), permit.purpose), ("demo-v2", PermitPurpose::Restart));
    assert_eq!(world.decide().permit.as_ref(), Some(&permit));
    world.observed.pods[2].metadata.uid = Some("pod-2b".to_owned());
    world.settle(2);
    let next = world.decide().permit.unwrap();
    assert_eq!((next.node.as_str(), next.purpose), ("demo-v0", PermitPurpose::Change));
}

#[test]
fn a_repair_that_is_not_wanted_any_more_returns_its_permit() {
    let mut world = World::new();
    await_repair(&mut world, 2, "Restart");
    assert!(world.decide().permit.is_some());
    world.settle(2);
    assert_eq!(world.decide().permit, None);
}

#[test]
fn a_fenced_node_that_is_changed_is_back_when_it_is_in_sync_and_fenced_again() {
    let mut world = World::new();
    world.observed.nodes[3].spec.signing = crate::api::Signing::Fenced;
    let fence = |world: &mut World, reason: &str| {
        let Some(Word::Status(said)) = world.observed.words.get_mut("demo-v3") else { panic!() };
        said.set_signing_state(SigningState::Fenced);
        let ready = json!({"type": "Ready", "status": "False", "reason": reason, "message": "", "lastTransitionTime": now().to_string()});
        world.observed.nodes[3].status.as_mut().unwrap().conditions = vec![serde_json::from_value(ready).unwrap()];
    };
    fence(&mut world, "Fenced");
    world.image("next");
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v3"));
    world.decide();
    assert_eq!(world.tags(), ["dev", "dev", "dev", "next"]);
    world.restart(3, "pod-3b");
    fence(&mut world, "CatchingUp");
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v3"));
    fence(&mut world, "Fenced");
    let roll = world.decide();
    assert_eq!((roll.permit, roll.failed), (None, None), "nobody else may go while one of four is fenced");
    assert!(matches!(roll.progress, Progress::Waiting(reason) if reason.word == "WaitingForQuorum"));
}

#[test]
fn a_permit_for_a_node_without_a_pod_is_not_for_one_that_was_made_from_the_former_template_meanwhile() {
    let mut world = World::new();
    let pod = world.observed.pods.remove(1);
    world.silence(1);
    world.image("next");
    let permit = world.decide().permit.unwrap();
    assert_eq!((permit.node.as_str(), permit.pod_uid.as_str()), ("demo-v1", ""));
    world.decide();
    world.observed.pods.insert(1, pod);
    world.settle(1);
    world.report(1, "next");
    let next = world.decide().permit.unwrap();
    assert_ne!(next.pod_uid, "", "each names the pod that may go, {next:?}");
    assert_ne!(next, permit);
}

#[test]
fn a_repair_that_did_not_help_makes_way_for_the_next_one() {
    let mut world = World::new();
    await_repair(&mut world, 2, "Restart");
    assert_eq!(world.decide().permit.unwrap().pod_uid, "pod-2");
    world.observed.pods[2].metadata.uid = Some("pod-2b".to_owned());
    assert_eq!(world.decide().permit.unwrap().pod_uid, "pod-2");
    await_repair(&mut world, 2, "Restart");
    assert_eq!(world.decide().permit.unwrap().pod_uid, "pod-2b");
}

/// The chain has jailed the validator of this node.
fn jail(world: &mut World, ordinal: usize) -> String {
    let key = format!("{ordinal:064x}");
    let validator = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Validator", "metadata": {"name": "owner", "namespace": "default"},
        "spec": {
            "networkRef": {"name": "demo"}, "nodeRef": {"name": format!("demo-v{ordinal}")},
            "owner": {"secretName": "owner"}, "stake": "1000",
        },
        "status": {"publicKey": key, "jailedAt": 77},
    });
    world.observed.validators.push(serde_json::from_value(validator).unwrap());
    format!("{key}@77")
}

#[test]
fn after_a_jailing_nobody_is_changed_until_somebody_has_acknowledged_it() {
    let mut world = World::new();
    world.image("next");
    assert!(world.decide().permit.is_some());
    let id = jail(&mut world, 3);
    let roll = world.decide();
    assert_eq!(roll.permit, None, "a permit that was not used is taken back");
    assert!(matches!(roll.progress, Progress::Waiting(ref reason) if reason.word == "JailedValidator"), "{roll:?}");
    world.later(3_600);
    world.observed.validators.clear();
    assert_eq!(world.decide().permit, None, "its Validator is gone, and nobody has looked");
    assert_eq!(world.tags(), ["dev", "dev", "dev", "dev"]);
    // What is broken is repaired all the same.
    await_repair(&mut world, 2, "Restart");
    assert_eq!(world.decide().permit.map(|permit| permit.purpose), Some(PermitPurpose::Restart));
    world.settle(2);
    assert_eq!(world.decide().permit, None);

    world.network.spec.acknowledged_jailings.push(id);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v0"));
}

#[test]
fn who_is_being_changed_when_a_validator_is_jailed_comes_back_and_nobody_comes_after_it() {
    let mut world = World::new();
    world.image("next");
    world.decide();
    world.decide();
    world.restart(0, "pod-0b");
    world.silence(0);
    jail(&mut world, 3);
    assert_eq!(world.decide().permit.map(|permit| permit.node).as_deref(), Some("demo-v0"), "it is down already");
    world.settle(0);
    let roll = world.decide();
    assert_eq!((roll.permit, world.tags()), (None, ["next", "dev", "dev", "dev"].map(str::to_owned).to_vec()));
}

/// A fifth node, made by somebody: how it stands, and what is decided with its pod, which is of an older revision, and without.
fn with_and_without_its_pod(said: &Word, power: Option<&str>, runs: bool, is_repaired: bool) -> (bool, bool) {
    let decided = |reads_pod: bool| {
        let mut world = World::new();
        let mut fifth = node(4);
        fifth.metadata.owner_references = None;
        let repair = json!({
            "cause": "Stuck", "action": "Restart", "podUid": "pod-4", "orderedAt": "2026-01-01T00:00:00Z", "attempt": 1,
        });
        let status = json!({
            "observedGeneration": 1, "revision": "newer", "conditions": [], "power": power,
            "repair": is_repaired.then_some(repair),
        });
        fifth.status = Some(serde_json::from_value(status).unwrap());
        let mut pod = pod_of(4, None);
        pod.metadata.uid = Some("pod-4".to_owned());
        if runs {
            pod.status.clone_from(&world.observed.pods[0].status);
        }
        let seen = quorum::Sighting::of(&pod);
        let is_bystander = quorum::is_bystander(&fifth, &seen, said);
        if reads_pod {
            world.observed.pods.push(pod);
        }
        world.observed.nodes.push(fifth);
        world.observed.words.insert("demo-v4".to_owned(), said.clone());
        world.image("v2");
        let roll = world.decide();
        (is_bystander, format!("{:?} {:?} {:?} {:?}", roll.permit, roll.failed, roll.good, roll.progress))
    };
    let (with, without) = (decided(true), decided(false));
    (with.0, with.1 == without.1)
}

#[test]
fn whether_the_pod_of_a_bystander_is_read_decides_nothing() {
    let says = |signing_state: SigningState, power, total_power| {
        Word::Status(Box::new(NodeStatus {
            sync_state: SyncState::InSync.into(),
            signing_state: signing_state.into(),
            power,
            total_power,
            ..NodeStatus::default()
        }))
    };
    let words = [
        Word::Unasked,
        Word::Unknown("no answer".to_owned()),
        says(SigningState::NotAValidator, 0, 4),
        says(SigningState::NotAValidator, 0, 0),
        says(SigningState::Refused, 0, 4),
        says(SigningState::Allowed, 1, 5),
    ];
    let (mut bystanders, mut others_that_count) = (0, 0);
    for said in &words {
        for power in [None, Some("0"), Some("1")] {
            for runs in [false, true] {
                for is_repaired in [false, true] {
                    let (is_bystander, is_same) = with_and_without_its_pod(said, power, runs, is_repaired);
                    bystanders += usize::from(is_bystander);
                    others_that_count += usize::from(!is_bystander && !is_same);
                    assert!(!is_bystander || is_same, "{said:?} {power:?}, runs: {runs}, repaired: {is_repaired}");
                }
            }
        }
    }
    assert!(bystanders > 0 && others_that_count > 0, "{bystanders} {others_that_count}");
}
