//! Orders besides the desired state: paused, fenced, hibernated.

use std::{collections::BTreeMap, time::Duration};

use bizra_operator::{
    api::{BizraNode, Network, condition},
    controllers::conditions::find,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{PersistentVolumeClaim, Pod, Service},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

async fn order<K>(scenario: &Scenario, name: &str, spec: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({"spec": spec}));
    scenario.api::<K>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Name → uid of everything of a kind.
async fn uids<K>(scenario: &Scenario) -> BTreeMap<String, String>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = scenario.api::<K>().list(&ListParams::default()).await.unwrap().items;
    list.into_iter().map(|object| (object.name_any(), object.uid().unwrap())).collect()
}

async fn gone(scenario: &Scenario, name: &str, type_: &str) {
    eventually(&format!("{name}: no condition {type_}"), || async {
        let conditions = match scenario.api::<Network>().get_opt(name).await.unwrap() {
            Some(network) => network.status.unwrap_or_default().conditions,
            None => scenario.api::<BizraNode>().get(name).await.unwrap().status.unwrap_or_default().conditions,
        };
        if find(&conditions, type_).is_none() { Ok(()) } else { Err(format!("{conditions:#?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_network_is_reported_and_left_alone_until_it_is_resumed() {
    let scenario = Scenario::new("paused").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;

    order::<Network>(&scenario, "demo", json!({"reconciliation": "Paused"})).await;
    scenario.wait_for_condition("demo", condition::PAUSED, "True", Some("Paused")).await;
    scenario.wait_for_node("demo-v1", condition::PAUSED, "True", "Paused").await;
    scenario.api::<Pod>().delete("demo-v1", &DeleteParams::default()).await.unwrap();
    scenario.api::<Service>().delete("demo-api", &DeleteParams::default()).await.unwrap();
    order::<Network>(&scenario, "demo", json!({"image": {"repository": "localhost/bizra", "tag": "next"}})).await;
    // It goes on to say how things are.
    scenario.wait_for_node("demo-v1", condition::READY, "False", "PodMissing").await;
    scenario.wait_for_condition("demo", condition::READY, "False", Some("ValidatorsNotReady")).await;
    scenario.wait_for_condition("demo", condition::RECONCILING, "False", Some("Paused")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scenario.api::<Pod>().get_opt("demo-v1").await.unwrap(), None);
    assert_eq!(scenario.api::<Service>().get_opt("demo-api").await.unwrap(), None);
    let tags = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
    assert!(tags.iter().all(|node| node.spec.template.image.tag.as_deref() == Some("dev")));

    order::<Network>(&scenario, "demo", json!({"reconciliation": "Active"})).await;
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "True", Some("RevisionCurrent")).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert!(scenario.api::<Service>().get_opt("demo-api").await.unwrap().is_some());
    gone(&scenario, "demo", condition::PAUSED).await;
    gone(&scenario, "demo-v1", condition::PAUSED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_validator_keeps_its_pod_stays_fenced_in_a_new_one_and_holds_up_changes_of_others() {
    let scenario = Scenario::new("fenced").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let before = uids::<Pod>(&scenario).await;

    order::<BizraNode>(&scenario, "demo-v3", json!({"signing": "Fenced"})).await;
    scenario.wait_for_node("demo-v3", condition::FENCED, "True", "Fenced").await;
    scenario.wait_for_node("demo-v3", condition::READY, "False", "Fenced").await;
    scenario.wait_for_condition("demo", condition::READY, "False", Some("ValidatorsNotReady")).await;
    assert_eq!(uids::<Pod>(&scenario).await, before, "nothing was restarted");

    // One of four is fenced: nobody else may go, and the fenced one needs no permit.
    order::<Network>(&scenario, "demo", json!({"image": {"repository": "localhost/bizra", "tag": "next"}})).await;
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "False", Some("WaitingForQuorum")).await;
    eventually("only the fenced one is changed", || async {
        let now = uids::<Pod>(&scenario).await;
        let changed: Vec<&String> =
            now.iter().filter(|(name, uid)| before[*name] != **uid).map(|(name, _)| name).collect();
        assert!(changed.iter().all(|name| *name == "demo-v3"), "{changed:?}");
        if changed.len() == 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
    scenario.wait_for_node("demo-v3", condition::FENCED, "True", "Fenced").await;
    let node = scenario.api::<BizraNode>().get("demo-v3").await.unwrap();
    assert_eq!(node.spec.signing, bizra_operator::api::Signing::Fenced, "the Network does not take the order back");

    order::<BizraNode>(&scenario, "demo-v3", json!({"signing": "Allowed"})).await;
    scenario.wait_for_node("demo-v3", condition::READY, "True", "InSync").await;
    gone(&scenario, "demo-v3", condition::FENCED).await;
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "True", Some("RevisionCurrent")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hibernated_network_has_no_pods_and_goes_on_where_it_was() {
    let scenario = Scenario::new("hibernated").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let (genesis, claims) = (scenario.genesis("demo").await, uids::<PersistentVolumeClaim>(&scenario).await);
    let key = scenario.api::<BizraNode>().get("demo-v0").await.unwrap().status.unwrap().public_key;

    order::<Network>(&scenario, "demo", json!({"activity": "Hibernated"})).await;
    scenario.wait_for_condition("demo", condition::HIBERNATED, "True", Some("Hibernated")).await;
    scenario.wait_for_condition("demo", condition::READY, "False", Some("Hibernated")).await;
    scenario.wait_for_condition("demo", condition::RECONCILING, "False", Some("Hibernated")).await;
    scenario.wait_for_condition("demo", condition::QUORUM_SAFE, "Unknown", Some("Hibernated")).await;
    // A changed template waits, and no permit is given or failed for it.
    order::<Network>(&scenario, "demo", json!({"image": {"repository": "localhost/bizra", "tag": "next"}})).await;
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "False", Some("Hibernated")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(uids::<Pod>(&scenario).await, BTreeMap::new());
    assert_eq!(uids::<PersistentVolumeClaim>(&scenario).await, claims);
    assert_eq!(scenario.api::<Network>().get("demo").await.unwrap().status.unwrap().permit, None);

    order::<Network>(&scenario, "demo", json!({"activity": "Running"})).await;
    // What worked before comes back, and only then one after the other is changed.
    eventually("all are there again", || async {
        let pods = scenario.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        let images: Vec<String> = pods.iter().map(image).collect();
        let changed = images.iter().filter(|image| *image != "localhost/bizra:dev").count();
        assert!(changed <= 1, "{images:?}");
        if images.len() == 4 { Ok(()) } else { Err(format!("{images:?}")) }
    })
    .await;
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "True", Some("RevisionCurrent")).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    gone(&scenario, "demo", condition::HIBERNATED).await;
    assert_eq!(scenario.genesis("demo").await, genesis);
    assert_eq!(uids::<PersistentVolumeClaim>(&scenario).await, claims);
    assert_eq!(scenario.api::<BizraNode>().get("demo-v0").await.unwrap().status.unwrap().public_key, key);
}
