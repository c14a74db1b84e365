#![allow(clippy::unwrap_used, clippy::panic)]
use k8s_openapi::{
    api::{core::v1::ConfigMap, networking::v1::NetworkPolicyPeer},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::*;
use crate::{
    controllers::fixtures::{
        claim_of, default_image, deleting, genesis_map, kept, network, network_observed, node, now, owners, pod_of,
        report, written,
    },
    kubernetes::covers,
    resources::revision,
};

fn targets(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::Write(write, _) => write.describe(),
            Step::CreateAuthority { generation } => format!("authority {generation}"),
            Step::CreateOwners => "owners".to_owned(),
            Step::IssueCertificates { requests, .. } => format!("certificates of {}", requests.len()),
        })
        .collect()
}

fn plan_of(network: &Network, observed: &Observed) -> Plan {
    plan(network, observed, &default_image()).unwrap()
}

#[test]
fn a_new_network_gets_everything_but_a_genesis() {
    let plan = plan_of(&network("demo-1"), &network_observed());
    assert_eq!(
        targets(&plan),
        [
            "authority 1",
            "owners",
            "apply Service default/demo-nodes",
            "apply Service default/demo-api",
            "apply PodDisruptionBudget default/demo-validators",
            "apply NetworkPolicy default/demo-nodes",
            "apply BizraNode default/demo-v0",
            "apply BizraNode default/demo-v1",
            "apply BizraNode default/demo-v2",
            "apply BizraNode default/demo-v3",
        ]
    );
    assert_eq!(plan.stalled, None);
}

/// The world after the first `count` writes of a plan: what a successor of a crashed operator finds.
fn world_after(count: usize) -> Observed {
    let mut observed = network_observed();
    for step in plan_of(&network("demo-1"), &network_observed()).steps.iter().take(count) {
        match step {
            Step::CreateAuthority { generation } => observed.authorities.push(kept(*generation)),
            Step::CreateOwners => observed.owners = Some(owners()),
            Step::Write(write, _) => {
                let Write::Apply(manifest) = write.as_ref() else { panic!("{write:?}") };
                match (manifest.target.kind(), manifest.target.name()) {
                    ("Service", "demo-nodes") => observed.nodes_service = Some(written(write)),
                    ("Service", _) => observed.api_service = Some(written(write)),
                    ("PodDisruptionBudget", _) => observed.budget = Some(written(write)),
                    ("NetworkPolicy", _) => observed.policy = Some(written(write)),
                    ("BizraNode", _) => observed.nodes.push(written(write)),
                    other => panic!("{other:?}"),
                }
            }
            Step::IssueCertificates { .. } => panic!("too early"),
        }
    }
    observed
}

#[test]
fn after_a_crash_at_any_point_exactly_the_rest_is_planned() {
    let all = targets(&plan_of(&network("demo-1"), &network_observed()));
    for done in 0..=all.len() {
        let rest = targets(&plan_of(&network("demo-1"), &world_after(done)));
        assert_eq!(rest, all[done..], "after {done} writes");
    }
}

fn after_the_reports() -> Observed {
    let mut observed = world_after(10);
    observed.claims = (0..4).map(claim_of).collect();
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    observed.pods = (0..).zip(&reports).map(|(ordinal, report)| pod_of(ordinal, Some(report))).collect();
    observed
}

#[test]
fn the_genesis_is_created_and_then_certificates_are_issued_once() {
    let mut observed = after_the_reports();
    let plan = plan_of(&network("demo-1"), &observed);
    assert_eq!(targets(&plan), ["create ConfigMap default/demo-genesis", "certificates of 4"]);
    let Step::Write(create, _) = &plan.steps[0] else { panic!("no write") };
    let genesis: ConfigMap = written(create);
    assert_eq!(genesis.immutable, Some(true));
    assert_eq!(genesis.metadata.owner_references, None);

    // A crash between the two leaves the certificates to be done, and the genesis as it is.
    observed.genesis = Some(genesis);
    let validators = (0..4).map(|ordinal| format!("create Validator default/demo-v{ordinal}"));
    let rest: Vec<String> = validators.chain(["certificates of 4".to_owned()]).collect();
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), rest);
}

#[test]
fn certificates_are_renewed_and_reissued_under_a_new_authority() {
    let mut observed = after_the_reports();
    observed.genesis = Some(genesis_map(&(1..=4).map(|seed| report(seed, "demo-1", None)).collect::<Vec<_>>()));
    let Step::IssueCertificates { requests, .. } = plan_of(&network("demo-1"), &observed).steps.remove(0) else {
        panic!("no certificates")
    };
    let authority = observed.authorities[0].authority.clone();
    let lifetime = network("demo-1").spec.certificates.node_lifetime();
    let seconds = u64::try_from(now().as_second()).unwrap();
    let mut data = BTreeMap::from([
        ("ca.crt".to_owned(), authority.certificate.clone()),
        ("operator-ca.crt".to_owned(), authority.operator_certificate.clone()),
    ]);
    for (name, request) in &requests {
        let names = certificates::NodeNames { node: name, network: "demo", namespace: "default" };
        data.insert(format!("{name}.crt"), authority.sign(request, &names, lifetime, seconds).unwrap());
    }
    observed.certificates = Some(config_map::certificates(&network("demo-1"), "demo", "default", data));
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), Vec::<String>::new());

    observed.now = k8s_openapi::jiff::Timestamp::from_second(now().as_second() + 61 * 86_400).unwrap();
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), ["certificates of 4"]);
    observed.now = now();
    // The Secret was lost.
    observed.authorities = vec![kept(1)];
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), ["certificates of 4"]);
}

#[test]
fn a_name_that_is_taken_stalls_and_a_former_owner_is_waited_for() {
    let mut observed = world_after(10);
    observed.nodes[1].metadata.owner_references = None;
    let plan = plan_of(&network("demo-1"), &observed);
    assert_eq!(plan.stalled.map(|reason| reason.word).as_deref(), Some("NameTaken"));

    let mut observed = world_after(10);
    observed.nodes[1].metadata.owner_references.as_mut().unwrap()[0].uid = "network-0".to_owned();
    let plan = plan_of(&network("demo-1"), &observed);
    assert_eq!((plan.stalled, plan.waiting.map(|reason| reason.word)), (None, Some("FormerTerminating".to_owned())));
}

#[test]
fn data_of_another_chain_starts_nothing() {
    let mut observed = network_observed();
    observed.claims = vec![claim_of(0)];
    let plan = plan_of(&network("demo-2"), &observed);
    assert_eq!(targets(&plan), Vec::<String>::new());
    assert_eq!(plan.stalled.map(|reason| reason.word).as_deref(), Some("DataFromAnotherChain"));
}

#[test]
fn a_new_operator_image_does_not_change_running_nodes() {
    let plan = plan(&network("demo-1"), &world_after(10), &node_builder::parse_image("localhost/bizra:next")).unwrap();
    assert_eq!(targets(&plan), Vec::<String>::new());
}

#[test]
fn a_network_that_names_no_image_any_more_goes_back_to_the_one_it_was_made_with() {
    let mut observed = world_after(10);
    for node in &mut observed.nodes {
        node.spec.template.image.tag = Some("named".to_owned());
    }
    let newer = node_builder::parse_image("localhost/bizra:newer");
    let roll = plan(&network("demo-1"), &observed, &newer).unwrap().roll.unwrap();
    let made_with = node_builder::template(&network("demo-1"), &default_image());
    assert_eq!(roll.target, revision::of_template(&made_with).unwrap());
}

#[test]
fn only_the_policy_delete_deletes_data() {
    let mut observed = world_after(10);
    observed.claims = vec![claim_of(0)];
    observed.genesis = Some(genesis_map(&[]));
    let ends = deleting(network("demo-1"));
    assert_eq!(targets(&plan_of(&ends, &observed)), Vec::<String>::new());

    let mut ends = ends;
    ends.spec.deletion_policy = DeletionPolicy::Delete;
    ends.metadata.finalizers = Some(vec![labels::DATA_FINALIZER.to_owned()]);
    let planned = targets(&plan_of(&ends, &observed));
    assert_eq!(planned.first().map(String::as_str), Some("delete BizraNode default/demo-v0"));
    assert!(planned.contains(&"delete PersistentVolumeClaim default/demo-v0-data".to_owned()));
    assert!(planned.contains(&"delete ConfigMap default/demo-genesis".to_owned()));
    assert_eq!(planned.last().map(String::as_str), Some("patch Network default/demo"));
    // With the policy changed back, only the finalizer goes.
    ends.spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(targets(&plan_of(&ends, &observed)), ["patch Network default/demo"]);
}

#[test]
fn an_applied_node_is_the_desired_one() {
    let observed = world_after(10);
    let live = serde_json::to_value(&observed.nodes[0]).unwrap();
    let mut desired = serde_json::to_value(node(0)).unwrap();
    for grown in ["uid", "resourceVersion", "generation"] {
        desired["metadata"].as_object_mut().unwrap().remove(grown);
    }
    assert!(covers(&live, &desired));
}

#[test]
fn a_paused_network_is_judged_and_nothing_is_changed_but_a_deletion_is_carried_out() {
    let mut paused = network("demo-1");
    paused.spec.reconciliation = Reconciliation::Paused;
    let plan_ = plan_of(&paused, &network_observed());
    assert_eq!((targets(&plan_), &plan_.roll), (Vec::new(), &None));
    assert!(plan_.paused.unwrap().message.ends_with("changes that wait: 10"));
    paused.metadata.finalizers = Some(vec![labels::DATA_FINALIZER.to_owned()]);
    let plan_ = plan_of(&deleting(paused), &network_observed());
    assert_eq!(targets(&plan_), ["patch Network default/demo"]);
}

#[test]
fn a_policy_that_lets_more_through_is_written_again_and_one_that_is_not_wanted_goes() {
    let mut observed = world_after(10);
    let added = json!({"ports": [{"protocol": "TCP", "port": 7400}]});
    let spec = observed.policy.as_mut().and_then(|policy| policy.spec.as_mut()).unwrap();
    // Beside what the operator asks for, so that nothing it asks for is missing.
    spec.ingress.as_mut().unwrap()[0].from.as_mut().unwrap()[0].namespace_selector = Some(LabelSelector::default());
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), ["apply NetworkPolicy default/demo-nodes"]);
    let mut observed = world_after(10);
    let spec = observed.policy.as_mut().and_then(|policy| policy.spec.as_mut()).unwrap();
    spec.ingress.as_mut().unwrap().push(serde_json::from_value(added).unwrap());
    assert_eq!(targets(&plan_of(&network("demo-1"), &observed)), ["apply NetworkPolicy default/demo-nodes"]);

    let mut open = network("demo-1");
    open.spec.network_policy.mode = NetworkPolicyMode::Disabled;
    assert_eq!(targets(&plan_of(&open, &world_after(10))), ["delete NetworkPolicy default/demo-nodes"]);
    // One of that name that is somebody else's stays.
    let mut observed = world_after(10);
    observed.policy.as_mut().unwrap().metadata.owner_references = None;
    assert_eq!(targets(&plan_of(&open, &observed)), Vec::<String>::new());
}

#[test]
fn a_peer_that_cannot_be_let_in_stalls_the_network_and_keeps_nothing_else_from_being_done() {
    let mut network = network("demo-1");
    network.spec.network_policy.clients = Some(vec![NetworkPolicyPeer::default()]);
    let plan = plan_of(&network, &network_observed());
    assert_eq!(plan.stalled.as_ref().map(|reason| reason.word.as_str()), Some("InvalidNetworkPolicyPeer"));
    assert_eq!(targets(&plan).len(), 10);
}

#[test]
fn an_authority_that_cannot_be_read_is_told_of_and_nothing_is_made_in_its_place() {
    let mut observed = after_the_reports();
    observed.authorities.clear();
    observed.unreadable_authority = Some("Secret bizra-system/a cannot be read: it is empty".to_owned());
    let plan = plan_of(&network("demo-1"), &observed);
    assert_eq!(plan.stalled.as_ref().map(|reason| reason.word.as_str()), Some("AuthorityUnreadable"));
    assert_eq!(targets(&plan), Vec::<String>::new());
    assert!(plan.authorities.trust().is_none(), "what the operator believes stays as it is");
}

#[test]
fn whoever_came_to_vote_later_counts_in_the_budget() {
    let settled = world_after(10);
    let mut fifth = settled.nodes[0].clone();
    (fifth.metadata.name, fifth.metadata.owner_references) = (Some("fifth".to_owned()), None);
    for (power, least) in [("0", None), ("1", Some(4)), ("3", Some(5))] {
        let status = crate::api::BizraNodeStatus { power: Some(power.to_owned()), ..Default::default() };
        let mut observed = settled.clone();
        observed.nodes.push(BizraNode { status: Some(status), ..fifth.clone() });
        let budgets = plan_of(&network("demo-1"), &observed).steps.into_iter().filter_map(|step| match step {
            Step::Write(write, _) if write.target().kind() == "PodDisruptionBudget" => {
                let budget: k8s_openapi::api::policy::v1::PodDisruptionBudget = written(&write);
                Some(serde_json::to_value(budget.spec.unwrap().min_available).unwrap())
            }
            _ => None,
        });
        assert_eq!(
            budgets.collect::<Vec<_>>(),
            least.map(|least| json!(least)).into_iter().collect::<Vec<_>>(),
            "{power}"
        );
    }
}
