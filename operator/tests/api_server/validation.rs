//! Bad input is refused by the API server itself, with a sentence that says what to do.

use bizra_operator::{
    api::{BizraNode, Network, NodePool, Validator, condition},
    controllers::conditions::find,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::params::ValidationDirective,
};
use serde_json::json;

use crate::{kubelet::Kubelet, scenario::Scenario};

fn said(result: Result<Network, kube::Error>) -> String {
    match result {
        Ok(network) => panic!("accepted: {:?}", network.spec),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_network_is_refused_with_a_sentence_that_says_what_to_do() {
    let scenario = Scenario::new("validation").await;
    for (spec, sentence) in [
        (
            json!({"chainId": "a-1", "validators": 3}),
            "four are the least that survive one fault; set spec.validators to 4 or more",
        ),
        (json!({"chainId": "a-1", "validators": 1}), "set spec.validators to 4 or more"),
        (json!({"chainId": "a-1", "validators": 32}), "set spec.validators to 31 or less"),
        (json!({"chainId": "A_1"}), "spec.chainId"),
        (
            json!({"chainId": "a-1", "image": {"repository": "x", "tag": "1", "digest": format!("sha256:{}", "0".repeat(64))}}),
            "not by both",
        ),
        (json!({"chainId": "a-1", "image": {"repository": "x"}}), "set image.tag or image.digest"),
        (json!({"chainId": "a-1", "genesis": {"accounts": [{"address": "x", "balance": "1"}]}}), "address"),
        (json!({"chainId": "a-1", "genesis": {"accounts": [{"address": "0".repeat(64), "balance": "-1"}]}}), "balance"),
        (
            json!({"chainId": "a-1", "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}}),
            "must be equal",
        ),
        (json!({"chainId": "a-1", "pod": {"labels": {"bizra.io/x": "y"}}}), "choose another prefix"),
    ] {
        let refused = said(scenario.try_create_network("bad", spec.clone()).await);
        assert!(refused.contains(sentence), "{spec}: {refused}");
    }
    let refused = said(scenario.try_create_network(&"a".repeat(41), json!({"chainId": "a-1"})).await);
    assert!(refused.contains("choose a shorter one"), "{refused}");
    let refused = said(scenario.try_create_network("1st", json!({"chainId": "a-1"})).await);
    assert!(refused.contains("starts with a letter"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_can_name_an_object_of_another_namespace() {
    let scenario = Scenario::new("validation-names").await;
    let network = || json!({"networkRef": {"name": "demo"}});
    let validator = || json!({"networkRef": {"name": "demo"}, "nodeRef": {"name": "fifth"}, "stake": "1000", "owner": {"secretName": "owner"}});
    for (resource, spec, place) in [
        (ApiResource::erase::<BizraNode>(&()), network(), "/networkRef/name"),
        (ApiResource::erase::<NodePool>(&()), network(), "/networkRef/name"),
        (ApiResource::erase::<Validator>(&()), validator(), "/networkRef/name"),
        (ApiResource::erase::<Validator>(&()), validator(), "/nodeRef/name"),
        (ApiResource::erase::<Validator>(&()), validator(), "/owner/secretName"),
    ] {
        let api = Api::<DynamicObject>::namespaced_with(scenario.admin.clone(), &scenario.namespace, &resource);
        for name in ["../../other/networks/demo", "a/../../b", "..", "demo?watch=true", "a%2fb"] {
            let mut object = DynamicObject::new("out", &resource).data(json!({"spec": spec}));
            *object.data["spec"].pointer_mut(place).unwrap() = json!(name);
            let refused = api.create(&PostParams::default(), &object).await.expect_err("accepted").to_string();
            assert!(refused.contains(&format!("spec{}", place.replace('/', "."))), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_refused_under_strict_validation() {
    let scenario = Scenario::new("validation-strict").await;
    let parameters = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("test") };
    let object = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Network", "metadata": {"name": "typo"},
        "spec": {"chainId": "a-1", "validator": 4},
    });
    let refused = said(scenario.api::<Network>().patch("typo", &parameters, &Patch::Apply(object)).await);
    assert!(refused.contains("spec.validator"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chain_is_made_of_cannot_change() {
    let scenario = Scenario::new("validation-update").await;
    let created = scenario.create_network("fixed", json!({"chainId": "a-1", "storage": {"size": "2Gi"}})).await;
    assert_eq!(created.spec.validators, 4, "the default comes from the schema");
    assert_eq!(created.status.map(|status| status.observed_generation), Some(-1));
    let change = |spec: serde_json::Value| {
        let api = scenario.api::<Network>();
        async move { api.patch("fixed", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await }
    };
    for (spec, sentence) in [
        (json!({"chainId": "b-1"}), "set spec.chainId back"),
        (json!({"genesis": {"spareValidators": 3}}), "set spec.genesis back"),
        (json!({"genesis": {"accounts": [{"address": "0".repeat(64), "balance": "1"}]}}), "set spec.genesis back"),
        (json!({"storage": {"size": "1Gi"}}), "a volume cannot shrink"),
        (json!({"storage": {"className": "fast"}}), "set storage.className back"),
    ] {
        let refused = said(change(spec.clone()).await);
        assert!(refused.contains(sentence), "{spec}: {refused}");
    }
    change(json!({"storage": {"size": "2048Mi"}})).await.unwrap();
    change(json!({"storage": {"size": "3Gi"}, "validators": 7})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_pool_is_refused_with_a_sentence_that_says_what_to_do() {
    let scenario = Scenario::new("validation-pool").await;
    let pools = scenario.api::<NodePool>();
    let create = |name: String, spec: serde_json::Value| {
        let pool = json!({
            "apiVersion": "bizra.io/v1alpha1", "kind": "NodePool", "metadata": {"name": &name}, "spec": spec,
        });
        let pools = pools.clone();
        async move { pools.patch(&name, &PatchParams::apply("test"), &Patch::Apply(pool)).await }
    };
    let spec = |field: &str, value: i32| json!({"networkRef": {"name": "demo"}, field: value});
    for (name, spec, sentence) in [
        ("bad".to_owned(), spec("replicas", -1), "set spec.replicas to 0 or more"),
        ("bad".to_owned(), spec("replicas", 101), "set spec.replicas to 100 or less, or create another NodePool"),
        ("bad".to_owned(), spec("maxUnavailable", 0), "set spec.maxUnavailable to 1 or more"),
        ("bad".to_owned(), json!({"networkRef": {"name": ""}}), "spec.networkRef.name"),
        ("a".repeat(60), spec("replicas", 1), "choose a shorter one"),
    ] {
        let refused = create(name, spec.clone()).await.expect_err("accepted").to_string();
        assert!(refused.contains(sentence), "{spec}: {refused}");
    }
    let created = create("readers".to_owned(), json!({"networkRef": {"name": "demo"}})).await.unwrap();
    let defaults = (created.spec.replicas, created.spec.max_unavailable, created.spec.host_grace_seconds);
    assert_eq!(defaults, (1, 1, 300), "they come from the schema");
    let moved = Patch::Merge(json!({"spec": {"networkRef": {"name": "other"}}}));
    let refused = pools.patch("readers", &PatchParams::default(), &moved).await.expect_err("accepted").to_string();
    assert!(refused.contains("set spec.networkRef.name back, or create a new NodePool"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_are_accepted_under_strict_validation() {
    let scenario = Scenario::new("samples").await;
    let folder = std::path::Path::new("../config/samples");
    let mut applied = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for text in std::fs::read_to_string(path).unwrap().split("\n---\n") {
            let object: serde_json::Value = serde_yaml_ng::from_str(text).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let resource = match object["kind"].as_str().unwrap() {
                "NodePool" => ApiResource::erase::<NodePool>(&()),
                "BizraNode" => ApiResource::erase::<BizraNode>(&()),
                "Validator" => ApiResource::erase::<Validator>(&()),
                "HorizontalPodAutoscaler" => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
                _ => ApiResource::erase::<Network>(&()),
            };
            let api = Api::<DynamicObject>::namespaced_with(scenario.admin.clone(), &scenario.namespace, &resource);
            // Two samples may have the same name.
            let parameters = PatchParams {
                dry_run: true,
                field_validation: Some(ValidationDirective::Strict),
                ..PatchParams::apply("test")
            };
            api.patch(&name, &parameters, &Patch::Apply(object)).await.unwrap();
            applied += 1;
        }
    }
    assert!(applied >= 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_objects_own_rules_refuse_is_told_and_keeps_nothing_else_from_being_done() {
    let scenario = Scenario::new("refused").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    let spec = json!({"chainId": "demo-1", "service": {"annotations": {"-no name": "x"}}});
    scenario.create_network("demo", spec).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let network = scenario.wait_for_condition("demo", condition::STALLED, "True", Some("WriteRefused")).await;
    let conditions = network.status.unwrap().conditions;
    let message = &find(&conditions, condition::STALLED).unwrap().message;
    assert!(message.contains("demo-api") && message.contains("metadata.annotations"), "{message}");
}
