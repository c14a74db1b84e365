#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::json;

use super::*;
use crate::controllers::{
    bizra_node::plan::plan,
    conditions::find,
    fixtures::{claim_of, container, default_image, node, node_observed, pod_of, report as key_report},
};

fn observed_with(main: Option<serde_json::Value>, word: Word) -> Observed {
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let mut pod = pod_of(0, Some(&key_report(1, "demo-1", None)));
    if let Some(main) = main {
        let mut status = serde_json::to_value(pod.status.take()).unwrap();
        status["initContainerStatuses"][1] = container("genesis", &json!({"terminated": {"exitCode": 0}}));
        status["containerStatuses"] = json!([main]);
        status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        pod.status = Some(serde_json::from_value(status).unwrap());
    }
    observed.pod = Some(pod);
    observed.word = word;
    observed
}

fn ready_of(observed: &Observed) -> String {
    let node = node(0);
    let status = status(&node, observed, &plan(&node, observed, &default_image()).unwrap(), None);
    let ready = find(&status.conditions, condition::READY).unwrap();
    format!("{}/{}/{}", ready.status, ready.reason, ready.message)
}

fn running() -> serde_json::Value {
    container("node", &json!({"running": {}}))
}

fn says(sync: SyncState, signing: SigningState) -> Word {
    Word::Status(Box::new(NodeStatus {
        sync_state: sync.into(),
        signing_state: signing.into(),
        ..NodeStatus::default()
    }))
}

#[test]
fn a_node_is_ready_only_by_its_own_word() {
    let silent = Word::Unknown("no answer".to_owned());
    assert!(ready_of(&observed_with(None, silent.clone())).starts_with("False/WaitingForGenesis"));
    assert!(ready_of(&observed_with(Some(running()), silent)).starts_with("Unknown/Unreachable"));
    for (sync, signing, expected) in [
        (SyncState::InSync, SigningState::Allowed, "True/InSync"),
        (SyncState::InSync, SigningState::NotAValidator, "True/InSync"),
        (SyncState::InSync, SigningState::Locked, "False/SigningLocked"),
        (SyncState::InSync, SigningState::Refused, "False/SignedElsewhere"),
        (SyncState::CatchingUp, SigningState::Allowed, "False/CatchingUp"),
        (SyncState::Starting, SigningState::Unspecified, "False/Starting"),
    ] {
        let told = ready_of(&observed_with(Some(running()), says(sync, signing)));
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn the_last_words_of_a_stopped_node_are_told() {
    let silent = || Word::Unknown("no answer".to_owned());
    let message = r#"{"reason":"WrongGenesis","message":"this volume has pinned another genesis"}"#;
    let mut crashed = container("node", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    crashed["lastState"] = json!({"terminated": {"exitCode": 11, "message": message}});
    let told = ready_of(&observed_with(Some(crashed.clone()), silent()));
    assert_eq!(told, "False/WrongGenesis/this volume has pinned another genesis");
    crashed["lastState"] = json!({"terminated": {"exitCode": 15, "message": "no JSON"}});
    assert_eq!(ready_of(&observed_with(Some(crashed.clone()), silent())), "False/StorageFailed/no JSON");
    crashed["lastState"] = json!({"terminated": {"exitCode": 139, "message": ""}});
    assert!(ready_of(&observed_with(Some(crashed), silent())).starts_with("False/ContainerFailed"));
    let unpulled = container("node", &json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
    assert!(ready_of(&observed_with(Some(unpulled), silent())).starts_with("False/ErrImagePull"));
}

fn told(node: &BizraNode, observed: &Observed, type_: &str) -> String {
    let plan = plan(node, observed, &default_image()).unwrap();
    let status = status(node, observed, &plan, None);
    find(&status.conditions, type_).map_or("none".to_owned(), |told| format!("{}/{}", told.status, told.reason))
}

#[test]
fn a_fence_is_told_only_by_the_node_itself_and_is_not_forgotten_when_it_does_not_answer() {
    let mut fenced = node(0);
    let mut word = says(SyncState::InSync, SigningState::Fenced);
    if let Word::Status(said) = &mut word {
        said.power = 1;
    }
    let mut observed = observed_with(Some(running()), word.clone());
    assert_eq!(told(&fenced, &observed, condition::READY), "False/FenceLifting");
    assert_eq!(told(&fenced, &observed, condition::FENCED), "none");
    fenced.spec.signing = crate::api::Signing::Fenced;
    observed.config = Some(crate::controllers::fixtures::written(
        &plan(&fenced, &observed, &default_image()).unwrap().steps[0].write,
    ));
    observed.word = says(SyncState::InSync, SigningState::Allowed);
    assert_eq!(told(&fenced, &observed, condition::FENCED), "False/FencePending");
    observed.word = Word::Unknown("no answer".to_owned());
    assert_eq!(told(&fenced, &observed, condition::FENCED), "False/FencePending");
    observed.word = word;
    assert_eq!(told(&fenced, &observed, condition::FENCED), "True/Fenced");
    assert_eq!(told(&fenced, &observed, condition::READY), "False/Fenced");
    let settled = plan(&fenced, &observed, &default_image()).unwrap();
    fenced.status = Some(status(&fenced, &observed, &settled, None));
    observed.word = Word::Unknown("no answer".to_owned());
    assert_eq!(told(&fenced, &observed, condition::FENCED), "True/Fenced");
    observed.pod = None;
    fenced.status = None;
    assert_eq!(told(&fenced, &observed, condition::FENCED), "True/Fenced");
}

#[test]
fn who_does_what_was_ordered_is_not_on_the_way_to_anything() {
    let mut node = node(0);
    node.spec.reconciliation = crate::api::Reconciliation::Paused;
    let mut observed = observed_with(Some(running()), says(SyncState::CatchingUp, SigningState::Allowed));
    assert_eq!(told(&node, &observed, condition::PAUSED), "True/Paused");
    assert_eq!(told(&node, &observed, condition::RECONCILING), "False/Paused");
    assert_eq!(told(&node, &observed, condition::READY), "False/CatchingUp");
    node.spec.reconciliation = crate::api::Reconciliation::Active;
    observed.network.as_mut().unwrap().spec.activity = crate::api::Activity::Hibernated;
    assert_eq!(told(&node, &observed, condition::RECONCILING), "True/Hibernating");
    observed.pod = None;
    assert_eq!(told(&node, &observed, condition::RECONCILING), "False/Hibernated");
}

#[test]
fn heights_alone_do_not_change_the_part_that_is_written_at_once() {
    let node = node(0);
    let status_at = |height: u64| {
        let mut word = says(SyncState::InSync, SigningState::Allowed);
        if let Word::Status(said) = &mut word {
            said.finalized_height = height;
        }
        let observed = observed_with(Some(running()), word);
        let mut node = node.clone();
        node.status = Some(status(&node, &observed, &plan(&node, &observed, &default_image()).unwrap(), None));
        node.status.unwrap()
    };
    let (first, second) = (status_at(1), status_at(2));
    assert_eq!((first.height, second.height), (Some(1), Some(2)));
    let strip = |status: &BizraNodeStatus| BizraNodeStatus {
        certificate_request: None,
        public_key: None,
        ..without_numbers(status)
    };
    assert_eq!(strip(&first), strip(&second));
}

fn failed(code: u16, cause: &str) -> WriteError {
    let details = json!({"causes": [{"reason": cause, "message": "", "field": ""}]});
    let answer = json!({"code": code, "message": "Pod is invalid: spec.tolerations[2].effect", "details": details});
    let source = kube::Error::Api(Box::new(serde_json::from_value(answer).unwrap()));
    WriteError::Api { what: "create Pod default/demo-v0".to_owned(), source }
}

#[test]
fn a_pod_that_the_api_server_refuses_is_not_being_made_and_somebody_has_to_act() {
    let mut observed = observed_with(None, Word::Unasked);
    observed.pod = None;
    let told = |failure: &WriteError, type_: &str| {
        let node = node(0);
        let plan = plan(&node, &observed, &default_image()).unwrap();
        let status = status(&node, &observed, &plan, Some(failure));
        let found = find(&status.conditions, type_).unwrap().clone();
        (format!("{}/{}", found.status, found.reason), found.message)
    };
    let refused = failed(422, "FieldValueInvalid");
    for (type_, expected) in [(condition::READY, "False/WriteRefused"), (condition::STALLED, "True/WriteRefused")] {
        let (said, message) = told(&refused, type_);
        assert_eq!(said, expected);
        assert!(message.contains("spec.tolerations[2].effect"), "{message}");
    }
    assert_eq!(told(&refused, condition::RECONCILING).0, "False/Stalled");
    for passing in [failed(500, ""), failed(403, "NamespaceTerminating")] {
        assert_eq!(told(&passing, condition::READY).0, "False/PodMissing");
        assert_eq!(told(&passing, condition::RECONCILING).0, "True/WriteFailed");
        assert_eq!(told(&passing, condition::STALLED).0, "False/NotStalled");
    }
}

#[test]
fn a_node_with_a_jailed_key_is_fenced_whatever_its_spec_says() {
    let mut jailed = node(0);
    let key = "05".repeat(32);
    let mut observed = observed_with(Some(running()), says(SyncState::InSync, SigningState::Allowed));
    let jailing = serde_json::json!({"id": format!("{key}@77"), "validator": "owner", "node": "demo-v0", "publicKey": key, "height": 77});
    let network = observed.network.as_mut().unwrap();
    network.status.get_or_insert_default().jailings = vec![serde_json::from_value(jailing).unwrap()];
    assert_eq!(told(&jailed, &observed, condition::FENCED), "none", "it has another key");
    jailed.status.get_or_insert_default().public_key = Some(key);
    let written = plan(&jailed, &observed, &default_image()).unwrap().steps[0].write.clone();
    let config: k8s_openapi::api::core::v1::ConfigMap = crate::controllers::fixtures::written(&written);
    assert!(config_map::is_fenced(&config.data.as_ref().unwrap()[config_map::FILE]));
    observed.config = Some(config);
    assert_eq!(told(&jailed, &observed, condition::FENCED), "False/FencePending");
    let mut word = says(SyncState::InSync, SigningState::Fenced);
    if let Word::Status(said) = &mut word {
        said.power = 1;
    }
    observed.word = word;
    for (type_, expected) in
        [(condition::FENCED, "True/Jailed"), (condition::READY, "False/Jailed"), (condition::DEGRADED, "True/Jailed")]
    {
        assert_eq!(told(&jailed, &observed, type_), expected);
    }
}
