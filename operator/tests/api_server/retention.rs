//! What outlives a deletion, and who may use it again.

use bizra_operator::{
    api::{BizraNode, Network, condition},
    resources::labels,
};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use serde_json::json;

use crate::{
    cluster::OPERATOR_NAMESPACE,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

async fn gone<K>(scenario: &Scenario, what: &str)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    eventually(what, || async {
        let left = scenario.api::<K>().list(&ListParams::default()).await.unwrap().items;
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.iter().map(|object| object.meta().name.clone().unwrap()).collect::<Vec<_>>().join(", "))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_applied_again_continues_its_chain_and_another_chain_is_refused() {
    let scenario = Scenario::new("retention").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    let spec = json!({"chainId": "demo-1"});
    scenario.create_network("demo", spec.clone()).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let genesis = scenario.genesis("demo").await;
    let networks = scenario.api::<Network>();

    networks.delete("demo", &DeleteParams::background()).await.unwrap();
    gone::<Network>(&scenario, "the Network is gone").await;
    gone::<BizraNode>(&scenario, "the BizraNodes are gone").await;
    gone::<Pod>(&scenario, "the pods are gone").await;
    gone::<Service>(&scenario, "the Services are gone").await;
    assert_eq!(scenario.genesis("demo").await, genesis, "the genesis is retained");
    let claims = scenario.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(claims.len(), 4, "the volumes are retained");

    // Another chain, or the same one from other money, does not get the data.
    scenario.create_network("demo", json!({"chainId": "demo-2"})).await;
    let refused = scenario.wait_for_condition("demo", condition::STALLED, "True", Some("DataFromAnotherChain")).await;
    assert_eq!(refused.status.unwrap().validators.ready, 0);
    networks.delete("demo", &DeleteParams::background()).await.unwrap();
    gone::<Network>(&scenario, "the second Network is gone").await;
    let account = json!({"address": "ab".repeat(32), "balance": "1"});
    scenario.create_network("demo", json!({"chainId": "demo-1", "genesis": {"accounts": [account]}})).await;
    scenario.wait_for_condition("demo", condition::STALLED, "True", Some("DataFromAnotherChain")).await;
    networks.delete("demo", &DeleteParams::background()).await.unwrap();
    gone::<Network>(&scenario, "the third Network is gone").await;
    gone::<Pod>(&scenario, "no pods").await;

    scenario.create_network("demo", spec.clone()).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(scenario.genesis("demo").await, genesis);
    let again = scenario.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    let uids = |claims: &[PersistentVolumeClaim]| claims.iter().map(ResourceExt::uid).collect::<Vec<_>>();
    assert_eq!(uids(&again), uids(&claims));

    // A genesis that is lost is not made anew.
    networks.delete("demo", &DeleteParams::background()).await.unwrap();
    gone::<Pod>(&scenario, "the pods are gone again").await;
    scenario.api::<ConfigMap>().delete("demo-genesis", &DeleteParams::default()).await.unwrap();
    scenario.create_network("demo", spec).await;
    scenario.wait_for_condition("demo", condition::STALLED, "True", Some("GenesisLost")).await;
    assert!(scenario.api::<ConfigMap>().get_opt("demo-genesis").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_delete_leaves_nothing() {
    let scenario = Scenario::new("policy-delete").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1", "deletionPolicy": "Delete"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    scenario.api::<Network>().delete("demo", &DeleteParams::background()).await.unwrap();
    gone::<Network>(&scenario, "the Network is gone").await;
    gone::<Pod>(&scenario, "the pods are gone").await;
    gone::<PersistentVolumeClaim>(&scenario, "the volumes are gone").await;
    gone::<ConfigMap>(&scenario, "the genesis is gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_whose_network_is_gone_is_swept_and_one_of_a_namespace_that_is_not_watched_is_not() {
    let scenario = Scenario::new("sweep").await;
    let secrets: Api<Secret> = Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    let authority = |namespace: &str| {
        let all_labels = [
            (labels::MANAGED_BY, labels::MANAGER),
            (labels::NETWORK, "gone"),
            (labels::NETWORK_NAMESPACE, namespace),
            (labels::NETWORK_UID, "00000000-0000-0000-0000-000000000000"),
        ];
        let all_labels = all_labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let name = Some(format!("authority-{namespace}"));
        let metadata = ObjectMeta { name, labels: Some(all_labels), ..ObjectMeta::default() };
        Secret { metadata, ..Secret::default() }
    };
    let (foreign, own) = (authority("elsewhere"), authority(&scenario.namespace));
    // The foreign one would be swept first.
    assert!(foreign.name_any() < own.name_any());
    for secret in [&foreign, &own] {
        secrets.create(&PostParams::default(), secret).await.unwrap();
    }
    let _operator = scenario.operator();
    eventually("the authority is gone", || async {
        let left = secrets.get_opt(&own.name_any()).await.unwrap();
        if left.is_none() { Ok(()) } else { Err("it is there") }
    })
    .await;
    assert!(secrets.get_opt(&foreign.name_any()).await.unwrap().is_some(), "another operator's");
    secrets.delete(&foreign.name_any(), &DeleteParams::default()).await.unwrap();
}
