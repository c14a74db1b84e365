#![allow(clippy::unwrap_used, clippy::panic)]
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::*;
use crate::controllers::fixtures::{
    claim_of, container, default_image, deleting, genesis_map, network, node, node_observed, pod_of, report, written,
};

fn plan_of(observed: &Observed) -> Plan {
    plan(&node(0), observed, &default_image()).unwrap()
}

fn targets(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.write.describe()).collect()
}

fn obstacle(plan: &Plan) -> &str {
    match &plan.obstacle {
        Some(Obstacle::Stalled(reason) | Obstacle::Waiting(reason)) => &reason.word,
        None => "",
    }
}

/// A node whose claim, configuration and pod are as planned.
fn settled() -> Observed {
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let plan = plan_of(&observed);
    observed.config = Some(written(&plan.steps[0].write));
    let mut pod: Pod = written(&plan.steps[1].write);
    pod.metadata.uid = Some("pod-0".to_owned());
    pod.metadata.resource_version = Some("1".to_owned());
    observed.pod = Some(pod);
    observed
}

#[test]
fn the_claim_comes_first_and_the_pod_knows_its_uid() {
    let mut observed = node_observed();
    assert_eq!(targets(&plan_of(&observed)), ["create PersistentVolumeClaim default/demo-v0-data"]);
    observed.claim = Some(claim_of(0));
    let plan = plan_of(&observed);
    assert_eq!(targets(&plan), ["apply ConfigMap default/demo-v0-config", "create Pod default/demo-v0"]);
    let pod: Pod = written(&plan.steps[1].write);
    let arguments = pod.spec.unwrap().init_containers.unwrap()[0].args.clone().unwrap();
    assert_eq!(arguments.last().map(String::as_str), Some("volume-0"));
}

#[test]
fn nothing_is_planned_at_rest() {
    let plan = plan_of(&settled());
    assert_eq!((targets(&plan), plan.up_to_date, plan.obstacle), (Vec::new(), Some(true), None));
}

#[test]
fn after_a_crash_between_configuration_and_pod_only_the_pod_is_planned() {
    let mut observed = settled();
    observed.pod = None;
    assert_eq!(targets(&plan_of(&observed)), ["create Pod default/demo-v0"]);
}

fn changed_node() -> BizraNode {
    let mut changed = node(0);
    changed.spec.template.image.tag = Some("next".to_owned());
    changed
}

fn leave(observed: &Observed) -> Leave {
    let plan = plan(&changed_node(), observed, &default_image()).unwrap();
    assert_eq!((targets(&plan), plan.up_to_date), (Vec::new(), Some(false)));
    let (write, leave) = plan.eviction.unwrap();
    // Without a permit nobody looks again, so the pod must be as it was found.
    let version = (leave == Leave::NotNeeded).then(|| "1".to_owned());
    assert!(
        matches!(write, Write::Evict { uid, resource_version, .. } if uid == "pod-0" && resource_version == version)
    );
    leave
}

#[test]
fn a_changed_spec_restarts_a_running_pod_only_with_a_permit_for_exactly_that() {
    let mut observed = settled();
    // A pod whose container does not run is in nobody's way.
    assert_eq!(leave(&observed), Leave::NotNeeded);
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(running_status()).unwrap());
    assert_eq!(leave(&observed), Leave::Missing);

    let seconds = |seconds: i64| {
        let time = k8s_openapi::jiff::Timestamp::from_second(observed.now.as_second() + seconds).unwrap();
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)
    };
    let permit = Permit {
        purpose: PermitPurpose::Change,
        node: "demo-v0".to_owned(),
        pod_uid: "pod-0".to_owned(),
        revision: revision::of_template(&changed_node().spec.template).unwrap(),
        expires_at: seconds(60),
        deadline_at: seconds(360),
    };
    let with = |permit: Permit| {
        let mut observed = observed.clone();
        let status = crate::api::NetworkStatus { permit: Some(permit), ..Default::default() };
        observed.network.as_mut().unwrap().status = Some(status);
        leave(&observed)
    };
    assert_eq!(with(permit.clone()), Leave::Granted(permit.clone()));
    for other in [
        Permit { node: "demo-v1".to_owned(), ..permit.clone() },
        Permit { pod_uid: "pod-1".to_owned(), ..permit.clone() },
        Permit { revision: "another".to_owned(), ..permit.clone() },
        Permit { expires_at: seconds(0), ..permit.clone() },
    ] {
        assert_eq!(with(other.clone()), Leave::Missing, "{other:?}");
    }
}

fn running_status() -> serde_json::Value {
    json!({"phase": "Running", "containerStatuses": [container("node", &json!({"running": {}}))]})
}

#[test]
fn a_new_default_image_does_not_restart_a_node_that_names_none() {
    let mut unnamed = node(0);
    unnamed.spec.template.image = ImageSpec::default();
    let plan = plan(&unnamed, &settled(), &node_builder::parse_image("localhost/bizra:next")).unwrap();
    assert_eq!((targets(&plan), plan.up_to_date), (Vec::new(), Some(true)));
}

#[test]
fn a_node_that_names_no_image_any_more_goes_back_to_the_default_its_pod_notes() {
    let mut unnamed = node(0);
    unnamed.spec.template.image = ImageSpec::default();
    let mut observed = settled();
    let pod = observed.pod.take();
    let made: Pod = written(&plan(&unnamed, &observed, &default_image()).unwrap().steps[0].write);
    assert_eq!(made.annotations()[labels::DEFAULT_IMAGE], "localhost/bizra:dev");
    observed.pod = pod;
    let annotations = observed.pod.as_mut().unwrap().annotations_mut();
    annotations.insert(labels::DEFAULT_IMAGE.to_owned(), "localhost/bizra:former".to_owned());
    assert_eq!(plan(&unnamed, &observed, &default_image()).unwrap().up_to_date, Some(false));
}

#[test]
fn an_ended_pod_is_replaced_but_an_ending_one_is_waited_for() {
    let mut observed = settled();
    let phase = |phase: &str| serde_json::from_value(json!({"phase": phase})).unwrap();
    observed.pod.as_mut().unwrap().status = Some(phase("Failed"));
    let plan = plan_of(&observed);
    assert_eq!(targets(&plan), ["delete Pod default/demo-v0"]);
    let Write::Delete { uid, .. } = &plan.steps[0].write else { panic!("no delete") };
    assert_eq!(uid, "pod-0");
    observed.pod = observed.pod.map(deleting);
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
}

#[test]
fn new_documents_touch_the_pod() {
    let mut observed = settled();
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    observed.genesis = Some(genesis_map(&reports));
    // Once for genesis and certificate: it waits for both.
    let planned = targets(&plan_of(&observed));
    assert_eq!(planned, ["patch PersistentVolumeClaim default/demo-v0-data"]);
    let certificate = [(config_map::certificate_key("demo-v0"), "certificate".to_owned())];
    observed.certificates = Some(ConfigMap { data: Some(certificate.into()), ..ConfigMap::default() });
    let planned = targets(&plan_of(&observed));
    assert_eq!(planned, ["patch PersistentVolumeClaim default/demo-v0-data", "patch Pod default/demo-v0"]);
}

#[test]
fn what_is_made_after_the_genesis_needs_no_second_write_for_it() {
    let mut observed = node_observed();
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    observed.genesis = Some(genesis_map(&reports));
    let certificate = [(config_map::certificate_key("demo-v0"), "certificate".to_owned())];
    observed.certificates = Some(ConfigMap { data: Some(certificate.into()), ..ConfigMap::default() });
    let mut claim: PersistentVolumeClaim = written(&plan_of(&observed).steps[0].write);
    claim.metadata.uid = Some("volume-0".to_owned());
    observed.claim = Some(claim);
    let plan = plan_of(&observed);
    observed.config = Some(written(&plan.steps[0].write));
    observed.pod = Some(written(&plan.steps[1].write));
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
}

#[test]
fn what_cannot_be_taken_back_is_looked_at_live() {
    let needs =
        |node: &BizraNode, observed: &Observed| plan(node, observed, &default_image()).unwrap().needs_live_reads(node);
    let mut observed = node_observed();
    assert!(needs(&node(0), &observed), "a volume");
    observed.claim = Some(claim_of(0));
    assert!(!needs(&node(0), &observed), "a configuration and a pod");
    let mut repaired = node(0);
    let repair = json!({
        "cause": "DatabaseCorrupt", "action": "Resync", "podUid": "pod-0", "orderedAt": "2026-01-01T00:00:00Z", "attempt": 1,
    });
    let repair = Some(serde_json::from_value(repair).unwrap());
    repaired.status = Some(BizraNodeStatus { repair, ..Default::default() });
    assert!(needs(&repaired, &observed), "a pod that may set its database aside");

    let mut observed = settled();
    assert!(!needs(&node(0), &observed));
    assert!(needs(&changed_node(), &observed), "an eviction that needs no permit");
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(running_status()).unwrap());
    assert!(!needs(&changed_node(), &observed), "an eviction that has no permit");
    let bound = json!({"phase": "Bound", "capacity": {"storage": "10Gi"}});
    observed.claim.as_mut().unwrap().status = Some(serde_json::from_value(bound).unwrap());
    let mut growing = node(0);
    growing.spec.template.storage.size = "20Gi".to_owned();
    assert!(needs(&growing, &observed), "a volume that grows");
}

#[test]
fn a_volume_of_another_chain_is_refused() {
    let mut observed = node_observed();
    observed.network = Some(network("demo-2"));
    observed.claim = Some(claim_of(0));
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "DataFromAnotherChain"));

    let mut observed = node_observed();
    observed.genesis = Some(genesis_map(&(1..=4).map(|seed| report(seed, "demo-1", None)).collect::<Vec<_>>()));
    let mut claim = claim_of(0);
    claim.metadata.annotations.get_or_insert_default().insert(labels::GENESIS_HASH.to_owned(), "a".repeat(64));
    observed.claim = Some(claim);
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "DataFromAnotherChain"));
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let mut observed = node_observed();
    let mut claim = claim_of(0);
    claim.metadata.labels = None;
    observed.claim = Some(claim);
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "NameTaken"));

    let mut observed = settled();
    observed.pod.as_mut().unwrap().metadata.owner_references = None;
    assert_eq!(obstacle(&plan_of(&observed)), "NameTaken");
    let mut observed = settled();
    observed.pod.as_mut().unwrap().metadata.owner_references.as_mut().unwrap()[0].uid = "node-before".to_owned();
    assert_eq!(obstacle(&plan_of(&observed)), "FormerTerminating");
}

#[test]
fn without_its_network_a_node_goes_on_unchanged_but_makes_no_volume() {
    let mut observed = settled();
    observed.network = None;
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), ""));
    observed.pod = None;
    assert_eq!(targets(&plan_of(&observed)), ["create Pod default/demo-v0"]);
    observed.claim = None;
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "NetworkMissing"));
}

#[test]
fn a_network_that_ends_gets_nothing_new() {
    let mut observed = node_observed();
    observed.network = Some(deleting(network("demo-1")));
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "NetworkTerminating"));
}

#[test]
fn a_bound_volume_grows_and_never_shrinks() {
    let mut grown = node(0);
    let mut observed = settled();
    observed.claim.as_mut().unwrap().status = Some(serde_json::from_value(json!({"phase": "Bound"})).unwrap());
    grown.spec.template.storage.size = "20Gi".to_owned();
    let planned = targets(&plan(&grown, &observed, &default_image()).unwrap());
    assert_eq!(planned, ["patch PersistentVolumeClaim default/demo-v0-data"]);
    grown.spec.template.storage.size = "1Gi".to_owned();
    assert_eq!(targets(&plan(&grown, &observed, &default_image()).unwrap()), Vec::<String>::new());
}

#[test]
fn a_fresh_key_in_an_existing_chain_is_not_in_the_genesis() {
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let mut observed = settled();
    observed.genesis = Some(genesis_map(&reports));
    observed.pod = Some(pod_of(0, Some(&reports[0])));
    assert!(!plan_of(&observed).key_not_in_genesis);
    observed.pod = Some(pod_of(0, Some(&report(9, "demo-1", None))));
    assert!(plan_of(&observed).key_not_in_genesis);
}

#[test]
fn a_paused_node_is_judged_and_nothing_of_it_is_changed() {
    let mut observed = settled();
    let mut paused = changed_node();
    paused.spec.reconciliation = Reconciliation::Paused;
    let plan_ = plan(&paused, &observed, &default_image()).unwrap();
    assert_eq!((targets(&plan_), plan_.up_to_date, &plan_.eviction), (Vec::new(), Some(false), &None));
    let Some(Standstill::Paused(reason)) = plan_.standstill else { panic!("not paused") };
    assert!(reason.message.ends_with("changes that wait: 1"), "{}", reason.message);
    // By its Network, too, if that controls it; not else.
    observed.pod = None;
    observed.network.as_mut().unwrap().spec.reconciliation = Reconciliation::Paused;
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
    let mut foreign = node(0);
    foreign.metadata.owner_references = None;
    let made = targets(&plan(&foreign, &observed, &default_image()).unwrap());
    assert!(made.contains(&"create Pod default/demo-v0".to_owned()), "{made:?}");
}

#[test]
fn a_hibernated_network_has_no_pods_and_keeps_its_volumes() {
    let mut observed = settled();
    observed.network.as_mut().unwrap().spec.activity = Activity::Hibernated;
    assert_eq!(targets(&plan_of(&observed)), ["delete Pod default/demo-v0"]);
    observed.pod = observed.pod.map(deleting);
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
    observed.pod = None;
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), ""));
    assert!(matches!(plan_.standstill, Some(Standstill::Hibernated(reason)) if reason.word == "Hibernated"));
    observed.network.as_mut().unwrap().spec.activity = Activity::Running;
    assert_eq!(targets(&plan_of(&observed)), ["create Pod default/demo-v0"]);
}

#[test]
fn a_fence_is_written_into_the_configuration_and_restarts_nothing() {
    let mut observed = settled();
    let mut fenced = node(0);
    fenced.spec.signing = Signing::Fenced;
    let plan_ = plan(&fenced, &observed, &default_image()).unwrap();
    assert_eq!(targets(&plan_), ["apply ConfigMap default/demo-v0-config"]);
    assert_eq!((plan_.up_to_date, &plan_.eviction), (Some(true), &None));
    observed.config = Some(written(&plan_.steps[0].write));
    // The kubelet is told to look, once there is something to see.
    let plan_ = plan(&fenced, &observed, &default_image()).unwrap();
    assert_eq!((targets(&plan_), plan_.up_to_date), (vec!["patch Pod default/demo-v0".to_owned()], Some(true)));
    let let_go = plan_of(&observed);
    assert_eq!(
        (targets(&let_go)[0].as_str(), let_go.up_to_date),
        ("apply ConfigMap default/demo-v0-config", Some(true))
    );
}

#[test]
fn a_validator_lists_who_follows_and_restarts_for_nobody() {
    let mut observed = settled();
    observed.followers = vec!["reader-0".to_owned()];
    let plan_ = plan_of(&observed);
    assert_eq!(targets(&plan_), ["apply ConfigMap default/demo-v0-config"]);
    assert_eq!((plan_.up_to_date, &plan_.eviction), (Some(true), &None));
    observed.config = Some(written(&plan_.steps[0].write));
    // Nor without the Network.
    let without = Observed { network: None, ..observed.clone() };
    assert_eq!((targets(&plan_of(&without)), plan_of(&without).up_to_date), (Vec::new(), Some(true)));
    // The kubelet is told to look, unless the pod waits for more that it is told of.
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
    let certificate = [(config_map::certificate_key("demo-v0"), "certificate".to_owned())];
    observed.certificates = Some(ConfigMap { data: Some(certificate.into()), ..ConfigMap::default() });
    let touched = |observed: &Observed| {
        let plan = plan_of(observed);
        let Some(Write::Merge { patch, .. }) = plan.steps.first().map(|step| &step.write) else { panic!("{plan:?}") };
        patch.pointer("/metadata/annotations").unwrap()[labels::DOCUMENTS].clone()
    };
    let with_one = touched(&observed);
    observed.followers.clear();
    observed.config = Some(written(&plan_of(&observed).steps[0].write));
    assert_ne!(touched(&observed), with_one);
}

#[test]
fn a_node_that_follows_lists_validators_and_waits_for_a_place_among_their_peers() {
    let mut follower = node(0);
    follower.metadata.owner_references = None;
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let mut followers: Vec<String> = (1..PEERS_MAX - 4).map(|number| format!("reader-{number}")).collect();
    followers.push("demo-v0".to_owned());
    observed.followers.clone_from(&followers);
    let plan_ = plan(&follower, &observed, &default_image()).unwrap();
    let config: ConfigMap = written(&plan_.steps[0].write);
    assert_eq!(config_map::followers(&config.data.unwrap()[config_map::FILE]), "");
    observed.followers.insert(0, "reader-0".to_owned());
    let plan_ = plan(&follower, &observed, &default_image()).unwrap();
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), "NetworkFull"));
    // Validators list no more than a node takes.
    observed.followers.insert(0, "reader-000".to_owned());
    let config: ConfigMap = written(&plan_of(&observed).steps[0].write);
    assert_eq!(config.data.unwrap()[config_map::FILE].matches("[[peers]]").count(), PEERS_MAX - 1);
}

#[test]
fn a_full_volume_is_grown_although_its_node_has_stopped_and_only_as_far_as_allowed() {
    let mut growing = node(0);
    growing.spec.template.storage =
        serde_json::from_value(json!({"size": "10Gi", "autoGrow": {"limit": "11Gi"}})).unwrap();
    let mut observed = settled();
    let bound = json!({"phase": "Bound", "capacity": {"storage": "10Gi"}});
    observed.claim.as_mut().unwrap().status = Some(serde_json::from_value(bound).unwrap());
    let mut stopped = container("node", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    stopped["lastState"] = json!({"terminated": {"exitCode": 18, "message": ""}});
    let status = json!({"phase": "Running", "containerStatuses": [stopped]});
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(status).unwrap());
    let plan_ = plan(&growing, &observed, &default_image()).unwrap();
    let Write::Merge { patch, .. } = &plan_.steps[0].write else { panic!("{:?}", plan_.steps) };
    // Twelve would be a fifth more.
    assert_eq!(patch.pointer("/spec/resources/requests/storage"), Some(&json!("11264Mi")));
    assert!(patch["metadata"]["annotations"][labels::GROWN_AT].is_string());
    assert_eq!(plan_.healing.trouble.unwrap().word, "VolumeFull");
    growing.spec.template.storage.auto_grow = None;
    let plan_ = plan(&growing, &observed, &default_image()).unwrap();
    assert_eq!(targets(&plan_), Vec::<String>::new());
    let told = plan_.healing.trouble.unwrap();
    assert!(told.word == "VolumeFull" && told.message.contains("storage.autoGrow"), "{told:?}");
}

#[test]
fn the_budget_finds_the_pod_of_a_node_that_came_to_vote_and_loses_it_when_it_stopped() {
    let full = |power: Option<&str>| {
        let mut node = node(0);
        node.metadata.owner_references = None;
        node.status = Some(BizraNodeStatus { power: power.map(str::to_owned), ..BizraNodeStatus::default() });
        node
    };
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let first = plan(&full(None), &observed, &default_image()).unwrap();
    observed.config = Some(written(&first.steps[0].write));
    let mut pod: Pod = written(&first.steps[1].write);
    pod.metadata.uid = Some("pod-0".to_owned());
    observed.pod = Some(pod);
    let labelled = |observed: &Observed, power: Option<&str>| {
        let steps = plan(&full(power), observed, &default_image()).unwrap().steps;
        let patches = steps.into_iter().filter_map(|step| match step.write {
            Write::Merge { patch, .. } => Some(patch["metadata"]["labels"][labels::COMPONENT].as_str()?.to_owned()),
            _ => None,
        });
        patches.collect::<Vec<_>>()
    };
    assert_eq!(labelled(&observed, None), Vec::<String>::new());
    assert_eq!(labelled(&observed, Some("0")), Vec::<String>::new());
    assert_eq!(labelled(&observed, Some("1")), ["validator"]);
    let labels = observed.pod.as_mut().unwrap().metadata.labels.as_mut().unwrap();
    labels.insert(labels::COMPONENT.to_owned(), "validator".to_owned());
    assert_eq!(labelled(&observed, Some("1")), Vec::<String>::new());
    assert_eq!(labelled(&observed, Some("0")), [Component::FullNode.label()]);
}

#[test]
fn whoever_votes_lists_all_who_vote_and_a_node_that_only_follows_does_not() {
    let mut joined = node(0);
    joined.metadata.owner_references = None;
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    observed.followers = names(&["demo-v0", "fifth", "reader-0"]);
    let listed = |observed: &Observed| {
        let plan_ = plan(&joined, observed, &default_image()).unwrap();
        let config: ConfigMap = written(&plan_.steps[0].write);
        let file = config.data.unwrap().remove(config_map::FILE).unwrap();
        ["fifth", "reader-0"].map(|name| config_map::followers(&file).contains(&format!("name = \"{name}\"")))
    };
    assert_eq!(listed(&observed), [false, false]);
    observed.voters = names(&["fifth"]);
    assert_eq!(listed(&observed), [false, false], "it has no vote itself");
    observed.voters = names(&["demo-v0", "fifth"]);
    assert_eq!(listed(&observed), [true, false]);
}

/// The Network has, or has not, a quorum in sync, and has given the node's pod the permit to lose its keys, or none.
fn network_says(observed: &mut Observed, is_safe: bool, permitted: bool) {
    let time = |seconds: i64| {
        let time = k8s_openapi::jiff::Timestamp::from_second(observed.now.as_second() + seconds).unwrap();
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)
    };
    let permit = Permit {
        purpose: PermitPurpose::NewKeys,
        node: "demo-v0".to_owned(),
        pod_uid: "pod-0".to_owned(),
        revision: String::new(),
        expires_at: time(60),
        deadline_at: time(360),
    };
    let safe = json!({
        "type": "QuorumSafe", "status": if is_safe { "True" } else { "False" }, "reason": "", "message": "",
        "lastTransitionTime": observed.now.to_string(),
    });
    let status = crate::api::NetworkStatus {
        conditions: vec![serde_json::from_value(safe).unwrap()],
        permit: permitted.then_some(permit),
        ..Default::default()
    };
    observed.network.as_mut().unwrap().status = Some(status);
}

/// Plans, and keeps the repair that is ordered.
fn plan_and_keep(node: &mut BizraNode, observed: &Observed) -> Plan {
    let plan = plan(node, observed, &default_image()).unwrap();
    node.status.get_or_insert_default().repair.clone_from(&plan.healing.repair);
    plan
}

fn leave_of(plan: &Plan) -> Option<&Leave> {
    plan.eviction.as_ref().map(|(_, leave)| leave)
}

#[test]
fn a_validator_whose_claim_was_deleted_gets_another_volume_only_with_a_keeper_and_a_permit() {
    let mut observed = settled();
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(running_status()).unwrap());
    observed.claim = observed.claim.map(deleting);
    network_says(&mut observed, true, false);
    let without = plan_of(&observed);
    assert_eq!((targets(&without), obstacle(&without)), (Vec::new(), "VolumeTerminating"));
    assert_eq!((leave_of(&without), &without.healing.repair), (None, &None), "nobody could rotate the key");

    observed.keeper = Some("demo-v0".to_owned());
    let mut validator = node(0);
    let ordered = plan_and_keep(&mut validator, &observed);
    let repair = ordered.healing.repair.clone().unwrap();
    assert_eq!((repair.cause, repair.action), (RepairCause::VolumeLost, RepairAction::NewVolume));
    assert_eq!((leave_of(&ordered), ordered.needs_live_reads(&node(0))), (None, true), "not before it is read back");
    assert_eq!(leave_of(&plan_and_keep(&mut validator, &observed)), Some(&Leave::Missing));
    network_says(&mut observed, true, true);
    let granted = plan_and_keep(&mut validator, &observed);
    assert!(matches!(leave_of(&granted), Some(Leave::Granted(permit)) if permit.purpose == PermitPurpose::NewKeys));
    assert_eq!((targets(&granted), granted.repairs.as_ref()), (Vec::new(), Some(&repair)), "evicted, never deleted");

    // Its kubelet ends the pod; only then the claim goes, and the next one comes.
    observed.pod = observed.pod.map(deleting);
    let ending = plan_and_keep(&mut validator, &observed);
    assert_eq!((targets(&ending), leave_of(&ending)), (Vec::new(), None));
    observed.pod = None;
    assert_eq!(targets(&plan_and_keep(&mut validator, &observed)), Vec::<String>::new());
    observed.claim = None;
    let made = plan_and_keep(&mut validator, &observed);
    assert_eq!(targets(&made), ["create PersistentVolumeClaim default/demo-v0-data"]);
    observed.claim = Some(claim_of(0));
    let pod: Pod = written(&plan_and_keep(&mut validator, &observed).steps[0].write);
    assert_eq!(pod.annotations()[labels::REPAIR], "pod-0");
    let init = pod.spec.unwrap().init_containers.unwrap();
    assert!(init.iter().all(|container| !container.args.as_ref().unwrap().contains(&"--replace-refused".to_owned())));
}

#[test]
fn a_lost_claim_of_a_validator_is_deleted_only_when_its_pod_is_gone_and_a_quorum_does_without() {
    let mut observed = settled();
    observed.keeper = Some("demo-v0".to_owned());
    observed.claim.as_mut().unwrap().status = Some(serde_json::from_value(json!({"phase": "Lost"})).unwrap());
    network_says(&mut observed, true, false);
    let mut validator = node(0);
    plan_and_keep(&mut validator, &observed);
    let waiting = plan_and_keep(&mut validator, &observed);
    assert_eq!((targets(&waiting), obstacle(&waiting)), (Vec::new(), "VolumeLost"));
    network_says(&mut observed, false, false);
    assert_eq!(obstacle(&plan_and_keep(&mut validator, &observed)), "QuorumLost", "two at once: the keys are lost");
    observed.pod = None;
    let lost = plan_and_keep(&mut validator, &observed);
    assert_eq!((targets(&lost), obstacle(&lost)), (Vec::new(), "QuorumLost"));
    network_says(&mut observed, true, false);
    let plan_ = plan_and_keep(&mut validator, &observed);
    assert_eq!(targets(&plan_), ["delete PersistentVolumeClaim default/demo-v0-data"]);
}

#[test]
fn keys_that_refuse_are_replaced_on_their_volume_by_the_nodes_own_word_and_never_on_its_silence() {
    let mut observed = settled();
    observed.keeper = Some("demo-v0".to_owned());
    network_says(&mut observed, true, true);
    let mut validator = node(0);
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(running_status()).unwrap());
    assert_eq!(plan_and_keep(&mut validator, &observed).healing.repair, None, "it runs and does not answer");

    let message = r#"{"reason":"SigningRecordRefused","message":"the record is missing"}"#;
    let mut stopped = container("node", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    stopped["lastState"] = json!({"terminated": {"exitCode": 14, "message": message}});
    let status = json!({"phase": "Running", "containerStatuses": [stopped]});
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(status).unwrap());
    let unkept = Observed { keeper: None, ..observed.clone() };
    assert_eq!(plan_of(&unkept).healing.repair, None, "nobody could rotate the key");
    let repair = plan_and_keep(&mut validator, &observed).healing.repair.unwrap();
    assert_eq!((repair.cause, repair.action), (RepairCause::KeyRefused, RepairAction::NewKeys));
    let unsafe_ = {
        let mut observed = observed.clone();
        network_says(&mut observed, false, false);
        observed
    };
    assert_eq!(obstacle(&plan(&validator, &unsafe_, &default_image()).unwrap()), "QuorumLost");
    let granted = plan_and_keep(&mut validator, &observed);
    assert!(matches!(leave_of(&granted), Some(Leave::Granted(_))), "{granted:?}");
    assert_eq!(targets(&granted), Vec::<String>::new(), "the claim stays");

    observed.pod = None;
    let pod: Pod = written(&plan_and_keep(&mut validator, &observed).steps[0].write);
    let init = pod.spec.unwrap().init_containers.unwrap();
    let arguments = init[0].args.as_ref().unwrap();
    assert_eq!(arguments[arguments.len() - 2..], ["--replace-refused", "pod-0"]);
}

#[test]
fn a_node_in_whose_place_another_validates_has_no_pod_and_keeps_its_volume() {
    let mut observed = settled();
    observed.replaced_by = Some("demo-v0-r1".to_owned());
    assert_eq!(targets(&plan_of(&observed)), ["delete Pod default/demo-v0"]);
    observed.pod = observed.pod.map(deleting);
    assert_eq!(targets(&plan_of(&observed)), Vec::<String>::new());
    observed.pod = None;
    let plan_ = plan_of(&observed);
    assert_eq!((targets(&plan_), obstacle(&plan_)), (Vec::new(), ""));
    assert!(matches!(plan_.standstill, Some(Standstill::Replaced(_))));
    let status = super::super::report::status(&node(0), &observed, &plan_, None);
    assert!(is_true(&status.conditions, condition::REPLACED));
    let mut replaced = node(0);
    replaced.status = Some(BizraNodeStatus { power: Some("1".to_owned()), ..status });
    assert!(quorum::is_replaced(&replaced));
}

#[test]
fn a_key_that_was_rotated_in_is_as_good_as_one_of_the_genesis() {
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let mut observed = settled();
    observed.genesis = Some(genesis_map(&reports));
    observed.pod = Some(pod_of(0, Some(&report(9, "demo-1", None))));
    let with_power = |power| bizra_proto::v1::NodeStatus { power, total_power: 4, ..Default::default() };
    observed.word = Word::Status(Box::new(with_power(0)));
    assert!(plan_of(&observed).key_not_in_genesis);
    observed.word = Word::Status(Box::new(with_power(1)));
    assert!(!plan_of(&observed).key_not_in_genesis);
}
