//! Planned changes: one node at a time, with a permit, and back if it does not work.

use std::collections::BTreeMap;

use bizra_operator::{
    api::{BizraNode, Network, condition},
    kubernetes::{Write, WriteOutcome, execute},
};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::cluster,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

/// Name → uid and image of every pod.
async fn pods(scenario: &Scenario) -> BTreeMap<String, (String, String)> {
    let list = scenario.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    list.into_iter()
        .map(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            (pod.name_any(), (pod.uid().unwrap(), image))
        })
        .collect()
}

async fn set_tag(scenario: &Scenario, tag: &str) {
    let patch = json!({"spec": {"image": {"repository": "localhost/bizra", "tag": tag}}});
    let networks = scenario.api::<Network>();
    networks.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_hits_the_pod_it_was_meant_for_and_no_later_one_of_its_name() {
    let scenario = Scenario::new("evict").await;
    let pods = scenario.api::<Pod>();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", "image": "localhost/a:1"}]},
    });
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let mut former = pod.clone();
    former.metadata.uid = Some("0a77b7c6-0000-4000-8000-000000000000".to_owned());
    let client = cluster().operator();
    assert_eq!(execute(&client, &Write::evict(&former)).await.unwrap().outcome, WriteOutcome::Superseded);
    let mut earlier = pod.clone();
    earlier.metadata.resource_version = Some("1".to_owned());
    assert_eq!(execute(&client, &Write::evict_unchanged(&earlier)).await.unwrap().outcome, WriteOutcome::Superseded);
    assert_eq!(pods.get("a").await.unwrap().uid(), pod.uid());
    assert_eq!(execute(&client, &Write::evict(&pod)).await.unwrap().outcome, WriteOutcome::Written);
    assert!(pods.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_eviction_is_told_and_tried_again_soon() {
    let scenario = Scenario::new("eviction-refused").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    // Somebody's policy covers all pods of the namespace, and the API server evicts none that two budgets cover.
    let budgets = scenario.api::<PodDisruptionBudget>();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "of-a-policy"},
        "spec": {"minAvailable": 1, "selector": {}},
    });
    budgets.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();
    let before = pods(&scenario).await;
    set_tag(&scenario, "next").await;
    eventually("the refusal is told", || async {
        let events = scenario.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let refused = events.into_iter().find(|event| event.reason.as_deref() == Some("EvictionRefused"));
        refused.filter(|event| event.note.as_ref().unwrap().contains("more than one PodDisruptionBudget")).ok_or("none")
    })
    .await;
    assert_eq!(pods(&scenario).await, before);
    budgets.delete("of-a-policy", &DeleteParams::default()).await.unwrap();
    scenario.wait_for_condition("demo", condition::UP_TO_DATE, "True", Some("RevisionCurrent")).await;
    assert!(pods(&scenario).await.values().all(|(_, image)| image == "localhost/bizra:next"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_reaches_one_node_at_a_time_and_a_broken_one_reaches_only_one_and_is_taken_back() {
    let scenario = Scenario::new("roll").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1", "updateDeadlineSeconds": 10})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let before = pods(&scenario).await;

    set_tag(&scenario, "next").await;
    eventually("all nodes run the new image", || async {
        let network = scenario.api::<Network>().get("demo").await.unwrap();
        let now = pods(&scenario).await;
        let status = network.status.unwrap_or_default();
        // Whatever is down or other than before and not in sync again is the one with the permit.
        let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
        let down: Vec<String> = nodes
            .iter()
            .filter(|node| {
                let told = &node.status.as_ref().unwrap().conditions;
                !bizra_operator::controllers::conditions::is_true(told, condition::READY)
            })
            .map(ResourceExt::name_any)
            .collect();
        assert!(down.len() <= 1, "{down:?} are down at once");
        let done = now.len() == 4 && now.values().all(|(_, image)| image == "localhost/bizra:next");
        if done && status.permit.is_none() { Ok(()) } else { Err(format!("{now:?} {:?}", status.permit)) }
    })
    .await;
    let network = scenario.wait_for_condition("demo", condition::UP_TO_DATE, "True", Some("RevisionCurrent")).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let status = network.status.unwrap();
    assert_eq!(status.good_revision, status.revision);
    let good = status.good_revision.unwrap();
    let after = pods(&scenario).await;
    assert!(before.iter().all(|(name, (uid, _))| after[name].0 != *uid), "every pod was made anew");

    // An image that cannot be pulled.
    set_tag(&scenario, "broken").await;
    let stopped = {
        let stopped = scenario.wait_for_failure("demo").await;
        scenario.wait_for_condition("demo", condition::STALLED, "True", Some("RolledBack")).await;
        stopped
    };
    let failed = stopped.status.unwrap().failed_revision.unwrap();
    assert!(failed.message.contains("ErrImagePull"), "{}", failed.message);
    assert_eq!(failed.rolled_back_to.as_ref(), Some(&good));
    eventually("the node runs the former image again", || async {
        let now = pods(&scenario).await;
        let back = now.len() == 4 && now.values().all(|(_, image)| image == "localhost/bizra:next");
        if back { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    scenario.wait_for_node(&failed.node, condition::READY, "True", "InSync").await;
    let now = pods(&scenario).await;
    let touched: Vec<&String> =
        now.iter().filter(|(name, (uid, _))| after[*name].0 != *uid).map(|(name, _)| name).collect();
    assert_eq!(touched, [&failed.node], "no second node was touched");

    // A spec that works goes on by itself.
    set_tag(&scenario, "next").await;
    scenario.wait_for_condition("demo", condition::STALLED, "False", None).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
}
