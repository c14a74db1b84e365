//! Authorities and certificates are replaced while every node runs on.

use std::collections::BTreeMap;

use bizra_operator::{
    api::{BizraNode, Network, condition},
    certificates::inspect,
    controllers::conditions::find,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::OPERATOR_NAMESPACE,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

async fn certificates(scenario: &Scenario) -> BTreeMap<String, String> {
    scenario.api::<ConfigMap>().get("demo-certificates").await.unwrap().data.unwrap()
}

async fn pods(scenario: &Scenario) -> Vec<Option<String>> {
    let mut uids: Vec<_> =
        scenario.api::<Pod>().list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::uid).collect();
    uids.sort();
    uids
}

/// Generations of the authorities that are kept.
async fn generations(scenario: &Scenario, network: &Network) -> Vec<String> {
    let secrets: Api<Secret> = Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    let selector = format!("bizra.io/network-uid={}", network.uid().unwrap());
    let list = secrets.list(&ListParams::default().labels(&selector)).await.unwrap();
    list.iter().map(|secret| secret.annotations()["bizra.io/authority-generation"].clone()).collect()
}

async fn set(scenario: &Scenario, spec: serde_json::Value) {
    let patch = Patch::Merge(json!({"spec": {"certificates": spec}}));
    scenario.api::<Network>().patch("demo", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_replaced_with_an_overlap_and_certificates_renewed_without_a_restart() {
    let scenario = Scenario::new("rotation").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    let network = scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    scenario.wait_for_condition("demo", condition::CERTIFICATES_CURRENT, "True", None).await;
    let (first, before) = (certificates(&scenario).await, pods(&scenario).await);
    assert_eq!(generations(&scenario, &network).await, ["1"]);

    // On request. The fake nodes refuse to be given a certificate that they cannot verify.
    set(&scenario, json!({"rotation": 1})).await;
    eventually("one authority is left, and it is the second", || async {
        let kept = generations(&scenario, &network).await;
        let now = certificates(&scenario).await;
        let one = now["ca.crt"].matches("BEGIN").count() == 1;
        if kept == ["2"] && one && now["ca.crt"] != first["ca.crt"] { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
    let second = certificates(&scenario).await;
    let authority = inspect(&second["ca.crt"]).unwrap();
    for ordinal in 0..4 {
        let leaf = inspect(&second[&format!("demo-v{ordinal}.crt")]).unwrap();
        assert_eq!(leaf.authority_key_identifier, authority.key_identifier);
    }
    scenario.wait_for_condition("demo", condition::CERTIFICATES_CURRENT, "True", None).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;

    // Certificates that live for 90 s: the long ones are replaced at once, and no later than two thirds on again.
    set(&scenario, json!({"nodeLifetimeSeconds": 90})).await;
    eventually("short-lived certificates", || async {
        let now = certificates(&scenario).await;
        let leaf = inspect(&now["demo-v0.crt"]).unwrap();
        if leaf.not_after - leaf.not_before == 99 { Ok(()) } else { Err(format!("{leaf:?}")) }
    })
    .await;
    let third = certificates(&scenario).await;
    let leaf = inspect(&third["demo-v0.crt"]).unwrap();
    let now = || u64::try_from(k8s_openapi::jiff::Timestamp::now().as_second()).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(leaf.renew_at().saturating_sub(now()))).await;
    eventually("certificates that were renewed before they ended", || async {
        let next = certificates(&scenario).await;
        if (0..4).all(|ordinal| next[&format!("demo-v{ordinal}.crt")] != third[&format!("demo-v{ordinal}.crt")]) {
            assert!(now() < leaf.renew_at() + 15, "too late");
            Ok(())
        } else {
            Err("the same")
        }
    })
    .await;
    assert_eq!(pods(&scenario).await, before, "no pod was made anew");
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap();
    assert_eq!(nodes.items.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_cannot_be_read_is_told_of_until_it_can() {
    let scenario = Scenario::new("unreadable").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    let network = scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let secrets: Api<Secret> = Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    let selector = format!("bizra.io/network-uid={}", network.uid().unwrap());
    let mut sound = secrets.list(&ListParams::default().labels(&selector)).await.unwrap().items.remove(0);
    let before = certificates(&scenario).await;
    let replace = async |secret: &Secret| {
        secrets.delete(&secret.name_any(), &DeleteParams::default()).await.unwrap();
        secrets.create(&PostParams::default(), secret).await.unwrap();
        // Nobody watches Secrets; a change of the spec wakes the operator.
        let note =
            json!({"spec": {"service": {"annotations": {"example.test/secret": secret.data.is_some().to_string()}}}});
        scenario.api::<Network>().patch("demo", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    };
    sound.metadata.resource_version = None;
    replace(&Secret { data: None, ..sound.clone() }).await;
    let told = scenario.wait_for_condition("demo", condition::STALLED, "True", Some("AuthorityUnreadable")).await;
    let message = find(&told.status.unwrap().conditions, condition::STALLED).unwrap().message.clone();
    assert!(message.contains(&sound.name_any()) && message.contains("ca.crt"), "{message}");
    assert_eq!(certificates(&scenario).await, before, "nothing is signed in its place");
    replace(&sound).await;
    scenario.wait_for_condition("demo", condition::STALLED, "False", None).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(certificates(&scenario).await, before);
}
