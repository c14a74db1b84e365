#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{NetworkStatus, condition},
    controllers::{
        fixtures::{claim_of, deleting, node, now, pod_of},
        validator::{
            plan::{Plan, Step, plan, tests as plans},
            saga::Operation,
        },
    },
    kubernetes::Write,
};

const OLD: [u8; 32] = [5; 32];
const NEW: [u8; 32] = [6; 32];

/// The validator of `demo-v0`, as a status says it.
fn validator(status: &Value) -> Validator {
    let mut validator = plans::held(plans::validator(&json!({"nodeRef": {"name": "demo-v0"}})));
    validator.status = Some(serde_json::from_value(status.clone()).unwrap());
    validator
}

fn condition_of(type_: &str, truth: bool) -> Value {
    let status = if truth { "True" } else { "False" };
    json!({"type": type_, "status": status, "reason": "", "message": "", "lastTransitionTime": now().to_string()})
}

fn member(key: [u8; 32]) -> v1::ValidatorSetMember {
    let owner = plans::owner(7).address().0.to_vec();
    v1::ValidatorSetMember { owner, consensus_key: key.to_vec(), power: 1, ..Default::default() }
}

/// The node of the spec votes with its key, until its host is lost; a quorum goes on without it.
fn observed() -> Observed {
    let mut observed = plans::observed(400);
    let view = plans::view(&mut observed);
    let chain = &mut view.validator;
    (chain.registered, chain.reserved_stake, chain.consensus_key) = (true, 600, OLD.to_vec());
    (chain.node_name, chain.status) = ("demo-v0".to_owned(), "Active".to_owned());
    view.set.members = vec![member(OLD)];
    view.before.members = vec![member(OLD)];
    let conditions = vec![serde_json::from_value(condition_of(condition::QUORUM_SAFE, true)).unwrap()];
    observed.network.as_mut().unwrap().status = Some(NetworkStatus { conditions, ..NetworkStatus::default() });
    let mut pod = pod_of(0, None);
    let told = |type_: &str, status: &str| json!({"type": type_, "status": status, "lastTransitionTime": now()});
    let status = json!({"conditions": [told("ContainersReady", "True"), told("Ready", "False")]});
    pod.status = Some(serde_json::from_value(status).unwrap());
    observed.around = Nodes { nodes: vec![node(0)], pods: vec![pod], claims: vec![claim_of(0)] };
    observed.word = Word::Unknown("timed out".to_owned());
    observed
}

fn later(mut observed: Observed, seconds: i64) -> Observed {
    observed.now = now() + SignedDuration::from_secs(seconds);
    observed
}

fn says(key: [u8; 32]) -> Word {
    Word::Status(Box::new(v1::NodeStatus { public_key: hex::encode(key), ..Default::default() }))
}

fn step(plan: &Plan) -> String {
    match &plan.step {
        Some(Step::Write(write, _)) => write.describe(),
        other => format!("{other:?}"),
    }
}

/// The node that the plan makes, as the API server would have it.
fn made(plan: &Plan) -> BizraNode {
    let Some(Step::Write(write, _)) = &plan.step else { panic!("{plan:?}") };
    let Write::Apply(manifest) = write.as_ref() else { panic!("{write:?}") };
    let mut node: BizraNode = serde_json::from_value(manifest.body.clone()).unwrap();
    (node.metadata.uid, node.metadata.resource_version) = (Some("r".to_owned()), Some("1".to_owned()));
    node
}

#[test]
fn a_lost_host_is_told_by_two_for_the_grace_and_the_chain_must_be_able_to_take_another_key() {
    let fresh = validator(&json!({}));
    assert_eq!(plan(&fresh, &later(observed(), 299)).places, Places::default());
    let lost = plan(&fresh, &later(observed(), 300));
    assert_eq!(lost.places.replacement.as_deref(), Some("demo-v0-r1"));
    assert_eq!(step(&lost), "apply BizraNode default/demo-v0-r1");
    let node = made(&lost);
    assert_eq!(ownership(&node.metadata, &fresh), Ownership::Ours);
    assert_eq!(
        (&node.spec.template, node.annotations()[labels::REPLACES].as_str()),
        (&observed().around.nodes[0].spec.template, "demo-v0")
    );

    let replaced = |change: &dyn Fn(&mut Observed)| {
        let mut observed = later(observed(), 300);
        change(&mut observed);
        plan(&fresh, &observed).places.replacement
    };
    assert_eq!(replaced(&|observed| observed.word = says(OLD)), None, "only its kubelet is away");
    assert_eq!(replaced(&|observed| observed.word = Word::Unasked), None);
    assert_eq!(
        replaced(&|observed| observed.owner = Some(Err(Reason::new("SecretMissing", "")))),
        None,
        "nobody can rotate"
    );
    assert_eq!(replaced(&|observed| plans::view(observed).validator.status = "Jailed".to_owned()), None);
    assert_eq!(replaced(&|observed| observed.network.as_mut().unwrap().status = None), None, "no quorum is known");
    let pause = |observed: &mut Observed| {
        observed.network.as_mut().unwrap().spec.reconciliation = Reconciliation::Paused;
    };
    assert_eq!(replaced(&pause), None);
    let leaving = deleting(validator(&json!({})));
    assert_eq!(plan(&leaving, &later(observed(), 300)).places.replacement, None);
}

#[test]
fn a_name_with_a_former_key_on_its_volume_is_not_used_again() {
    let fresh = validator(&json!({}));
    let mut observed = later(observed(), 300);
    let mut claim = claim_of(1);
    claim.metadata.name = Some(names::claim("demo-v0-r1"));
    observed.around.claims.push(claim);
    assert_eq!(plan(&fresh, &observed).places.replacement.as_deref(), Some("demo-v0-r2"));
    // One that was made for this by an operator that could not note it is the one.
    let mut noted = later(self::observed(), 300);
    noted.around.nodes.push(made(&plan(&fresh, &noted)));
    let again = plan(&fresh, &noted);
    assert_eq!((again.places.replacement.as_deref(), step(&again).contains("apply")), (Some("demo-v0-r1"), false));
}

#[test]
fn the_old_node_gives_way_when_no_set_has_its_key_any_more_and_not_before() {
    let under_way = validator(&json!({"replacement": "demo-v0-r1"}));
    let mut observed = later(observed(), 400);
    let node_of = made(&plan(&under_way, &observed));
    observed.around.nodes.push(node_of.clone());
    let old = observed.around.nodes[0].clone();
    // It is not in sync yet: nothing is done to either.
    assert_eq!(step(&plan(&under_way, &observed)), "None");

    observed.word = says(NEW);
    let rotating = plan(&under_way, &observed);
    assert_eq!(rotating.step, Some(Step::Prepare(Operation::Rotate)), "under the registered name");
    assert_eq!(successor(&under_way, &old), None);
    plans::view(&mut observed).validator.consensus_key = NEW.to_vec();
    assert_eq!(plan(&under_way, &observed).places.node, None);
    plans::view(&mut observed).set.members = vec![member(NEW)];
    let queued = plan(&under_way, &observed);
    assert_eq!((queued.places.node.as_ref(), queued.is_done), (None, false), "the set before may still vote");
    plans::view(&mut observed).before.members = vec![member(NEW)];
    let done = plan(&under_way, &observed);
    assert_eq!(
        (done.places.node.as_deref(), done.places.replacement.as_deref(), done.is_done),
        (Some("demo-v0-r1"), None, true)
    );

    let replaced = validator(&json!({"node": "demo-v0-r1"}));
    assert_eq!(successor(&replaced, &old).as_deref(), Some("demo-v0-r1"));
    assert_eq!(successor(&replaced, &node_of), None);
    assert_eq!(successor(&replaced, &node(1)), None, "another validator's");
    assert_eq!(nodes(&replaced).collect::<Vec<_>>(), ["demo-v0", "demo-v0-r1", "demo-v0-r1"]);
    assert_eq!(plan(&replaced, &observed).step, None, "nothing at rest");
}

#[test]
fn a_replacement_that_is_lost_itself_is_replaced_and_goes_when_the_next_one_validates() {
    let replaced = validator(&json!({"node": "demo-v0-r1"}));
    let mut observed = later(observed(), 400);
    let first = made(&plan(&replaced, &observed));
    observed.around.nodes.push(first.clone());
    let mut pod = observed.around.pods[0].clone();
    pod.metadata.name = Some("demo-v0-r1".to_owned());
    observed.around.pods.push(pod);
    let lost = plan(&replaced, &observed);
    assert_eq!(
        (lost.places.node.as_deref(), lost.places.replacement.as_deref()),
        (Some("demo-v0-r1"), Some("demo-v0-r2"))
    );
    observed.around.nodes.push(made(&lost));
    observed.word = says(NEW);
    let view = plans::view(&mut observed);
    view.validator.consensus_key = NEW.to_vec();
    (view.set.members, view.before.members) = (vec![member(NEW)], vec![member(NEW)]);
    let next = validator(&json!({"node": "demo-v0-r1", "replacement": "demo-v0-r2"}));
    assert_eq!(step(&plan(&next, &observed)), "delete BizraNode default/demo-v0-r1");
    let then = validator(&json!({"node": "demo-v0-r2"}));
    assert_eq!(successor(&then, &first).as_deref(), Some("demo-v0-r2"));
    assert_eq!(successor(&then, &node(0)).as_deref(), Some("demo-v0-r2"));
}

#[test]
fn another_node_in_the_spec_forgets_the_replacements_of_the_former_one() {
    let mut moved = validator(&json!({"node": "demo-v0-r1", "replacement": "demo-v0-r2"}));
    moved.spec.node_ref.name = "demo-v1".to_owned();
    assert_eq!((present(&moved), meant(&moved)), ("demo-v1", "demo-v1"));
    assert_eq!(successor(&moved, &node(1)), None);
}

#[test]
fn keys_are_given_up_only_of_nodes_whose_validator_says_that_it_can_rotate() {
    let able = |truth: bool| validator(&json!({"conditions": [condition_of(condition::KEY_REPLACEABLE, truth)]}));
    assert!(may_rotate(&able(true), "demo-v0"));
    assert!(!may_rotate(&able(true), "demo-v1"));
    assert!(!may_rotate(&able(false), "demo-v0"));
    assert!(!may_rotate(&validator(&json!({})), "demo-v0"));
    assert!(!may_rotate(&deleting(able(true)), "demo-v0"));
}
