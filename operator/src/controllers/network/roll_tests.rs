#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1::{NodeStatus, SigningState, SyncState};
use serde_json::json;

use super::*;
use crate::{
    controllers::{
        fixtures::{container, default_image, genesis_map, network, network_observed, node, now, pod_of, report},
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
        let roll = decide(&self.network, &self.observed, Some(&census), template).unwrap();
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
fn a_quorum_is_given_up_only_for_the_revision_that_is_named() {
    let mut world = World::new();
    world.image("next");
    world.silence(2);
    world.silence(3);
    world.network.spec.allow_quorum_loss_for = Some("another".to_owned());
    let roll = world.decide();
    assert_eq!(roll.permit, None);
    world.network.spec.allow_quorum_loss_for = Some(roll.target);
    assert!(world.decide().permit.is_some());
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
