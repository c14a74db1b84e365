//! Pools of full nodes: made, scaled as `kubectl scale` and as a real autoscaler do it, changed, removed.

use std::collections::BTreeMap;

use bizra_operator::{
    api::{BizraNode, Network, NodePool, condition},
    controllers::conditions::{find, is_true},
};
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

async fn create_pool(scenario: &Scenario, name: &str, spec: Value) {
    let mut whole = json!({"networkRef": {"name": "demo"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pool = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "NodePool", "metadata": {"name": name}, "spec": whole,
    });
    let pool: NodePool = serde_json::from_value(pool).unwrap();
    scenario.api::<NodePool>().create(&PostParams::default(), &pool).await.unwrap();
}

/// Waits until the pool has this condition for its present spec.
async fn wait_for_pool(scenario: &Scenario, name: &str, type_: &str, status: &str, reason: &str) -> NodePool {
    eventually(&format!("{name}: {type_}={status} {reason}"), || async {
        let pool = scenario.api::<NodePool>().get(name).await.unwrap();
        let told = pool.status.clone().unwrap_or_default();
        let current = Some(told.observed_generation) == pool.metadata.generation;
        match find(&told.conditions, type_) {
            Some(found) if current && found.status == status && found.reason == reason => Ok(pool),
            _ => Err(format!("{told:#?}")),
        }
    })
    .await
}

async fn wait_until_ready(scenario: &Scenario, name: &str, replicas: i32) -> NodePool {
    eventually(&format!("{name} is ready with {replicas} nodes"), || async {
        let pool = scenario.api::<NodePool>().get(name).await.unwrap();
        let told = pool.status.clone().unwrap_or_default();
        let counts = (pool.spec.replicas, told.replicas, told.ready_replicas, told.updated_replicas);
        let current = Some(told.observed_generation) == pool.metadata.generation;
        let ready = is_true(&told.conditions, condition::READY) && current;
        if ready && counts == (replicas, replicas, replicas, replicas) {
            Ok(pool)
        } else {
            Err(format!("{counts:?} {:#?}", told.conditions))
        }
    })
    .await
}

/// What `kubectl scale nodepool NAME --replicas N` sends.
async fn scale(scenario: &Scenario, name: &str, replicas: i32) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    scenario.api::<NodePool>().patch_scale(name, &PatchParams::default(), &patch).await.map(drop)
}

/// Names of the pool's nodes, and the uids of their volume claims by name.
async fn nodes_and_claims(scenario: &Scenario, pool: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let prefix = format!("{pool}-");
    let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
    let nodes = nodes.iter().map(ResourceExt::name_any).filter(|name| name.starts_with(&prefix)).collect();
    let claims = scenario.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    let claims = claims.into_iter().filter(|claim| claim.name_any().starts_with(&prefix));
    (nodes, claims.map(|claim| (claim.name_any(), claim.uid().unwrap())).collect())
}

/// Waits until a validator's configuration lists exactly these nodes among those that follow.
async fn wait_until_listed(scenario: &Scenario, expected: &[&str]) {
    eventually("a validator lists the nodes that follow", || async {
        let config = scenario.api::<ConfigMap>().get("demo-v0-config").await.unwrap();
        let file: toml::Table = toml::from_str(&config.data.unwrap()["node.toml"]).unwrap();
        let peers = file["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap());
        let mut listed: Vec<&str> = peers.filter(|name| !name.starts_with("demo-v")).collect();
        listed.sort_unstable();
        if listed == expected { Ok(()) } else { Err(listed.join(", ")) }
    })
    .await;
}

async fn pods(scenario: &Scenario, selector: &str) -> Vec<Pod> {
    scenario.api::<Pod>().list(&ListParams::default().labels(selector)).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_scaled_through_its_subresource_and_volumes_stay() {
    let scenario = Scenario::new("pool").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    create_pool(&scenario, "readers", json!({"replicas": 2})).await;
    wait_until_ready(&scenario, "readers", 2).await;
    let node = scenario.wait_for_node("readers-1", condition::READY, "True", "InSync").await;
    assert_eq!(node.status.unwrap().power.as_deref(), Some("0"), "a full node holds no vote");
    let network = scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(network.status.unwrap().validators.desired, 4);

    let validators = || async {
        let pods = pods(&scenario, "app.kubernetes.io/component=validator").await;
        pods.iter().map(ResourceExt::uid).collect::<Vec<_>>()
    };
    let validators_before = validators().await;
    scale(&scenario, "readers", 3).await.unwrap();
    wait_until_ready(&scenario, "readers", 3).await;
    wait_until_listed(&scenario, &["readers-0", "readers-1", "readers-2"]).await;
    let seen = scenario.api::<NodePool>().get_scale("readers").await.unwrap().status.unwrap();
    assert_eq!(seen.replicas, 3);
    assert_eq!(pods(&scenario, &seen.selector.unwrap()).await.len(), 3, "the selector of autoscalers finds the pods");
    let (_, claims) = nodes_and_claims(&scenario, "readers").await;
    assert_eq!(claims.len(), 3);

    scale(&scenario, "readers", 1).await.unwrap();
    wait_until_ready(&scenario, "readers", 1).await;
    wait_until_listed(&scenario, &["readers-0"]).await;
    let (nodes, left) = nodes_and_claims(&scenario, "readers").await;
    assert_eq!(nodes, ["readers-0"], "the highest ordinals have gone");
    assert_eq!(left, claims, "every volume stays");
    eventually("their pods are gone", || async {
        let names: Vec<String> =
            pods(&scenario, "bizra.io/pool=readers").await.iter().map(ResourceExt::name_any).collect();
        if names == ["readers-0"] { Ok(()) } else { Err(names.join(", ")) }
    })
    .await;

    scale(&scenario, "readers", 2).await.unwrap();
    wait_until_ready(&scenario, "readers", 2).await;
    assert_eq!(nodes_and_claims(&scenario, "readers").await.1, claims, "a node that comes back has its volume back");
    let refused = scale(&scenario, "readers", 101).await.unwrap_err().to_string();
    assert!(refused.contains("a pool has at most 100 nodes; set spec.replicas to 100 or less"), "{refused}");

    scenario.api::<NodePool>().delete("readers", &DeleteParams::background()).await.unwrap();
    eventually("the nodes of the pool are gone, and their pods", || async {
        let (nodes, _) = nodes_and_claims(&scenario, "readers").await;
        let pods = pods(&scenario, "bizra.io/pool=readers").await;
        if nodes.is_empty() && pods.is_empty() { Ok(()) } else { Err(format!("{nodes:?}, {} pods", pods.len())) }
    })
    .await;
    wait_until_listed(&scenario, &[]).await;
    assert_eq!(validators().await, validators_before, "no validator is made anew for who follows");
    assert_eq!(nodes_and_claims(&scenario, "readers").await.1, claims);
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_scales_a_pool() {
    let scenario = Scenario::new("pool-autoscaled").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    create_pool(&scenario, "readers", json!({"replicas": 1})).await;
    wait_until_ready(&scenario, "readers", 1).await;
    // Without metrics it keeps to its bounds, and finds and writes the scale as ever.
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "readers"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "bizra.io/v1alpha1", "kind": "NodePool", "name": "readers"},
            "minReplicas": 3, "maxReplicas": 5,
        },
    });
    let scalers: Api<HorizontalPodAutoscaler> = scenario.api();
    scalers.create(&PostParams::default(), &serde_json::from_value(scaler).unwrap()).await.unwrap();
    wait_until_ready(&scenario, "readers", 3).await;
    let bounds = json!({"spec": {"minReplicas": 1, "maxReplicas": 2}});
    scalers.patch("readers", &PatchParams::default(), &Patch::Merge(bounds)).await.unwrap();
    wait_until_ready(&scenario, "readers", 2).await;
    let told = scalers.get("readers").await.unwrap().status.unwrap();
    assert!(
        told.conditions.unwrap_or_default().iter().any(|told| told.type_ == "AbleToScale" && told.status == "True")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_reaches_one_full_node_at_a_time_and_a_broken_one_only_one() {
    let scenario = Scenario::new("pool-roll").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1", "updateDeadlineSeconds": 10})).await;
    create_pool(&scenario, "readers", json!({"replicas": 3})).await;
    wait_until_ready(&scenario, "readers", 3).await;
    let validators = || async {
        let pods = pods(&scenario, "bizra.io/network=demo,app.kubernetes.io/component=validator").await;
        pods.iter().map(|pod| pod.uid().unwrap()).collect::<Vec<_>>()
    };
    let before = validators().await;
    let images = || async {
        let pods = pods(&scenario, "bizra.io/pool=readers").await;
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        pods.iter().map(|pod| (pod.name_any(), image(pod))).collect::<BTreeMap<_, _>>()
    };
    let set_tag = |tag: &'static str| {
        let patch = json!({"spec": {"image": {"repository": "localhost/bizra", "tag": tag}}});
        let pools = scenario.api::<NodePool>();
        async move { pools.patch("readers", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap() }
    };

    set_tag("next").await;
    eventually("every full node runs the new image", || async {
        let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
        let is_down = |node: &&BizraNode| {
            let told = node.status.clone().unwrap_or_default();
            node.name_any().starts_with("readers-") && !is_true(&told.conditions, condition::READY)
        };
        let down: Vec<String> = nodes.iter().filter(is_down).map(ResourceExt::name_any).collect();
        assert!(down.len() <= 1, "{down:?} are down at once");
        let images = images().await;
        let done = images.len() == 3 && images.values().all(|image| image == "localhost/bizra:next");
        if done { Ok(()) } else { Err(format!("{images:?}")) }
    })
    .await;
    wait_until_ready(&scenario, "readers", 3).await;

    set_tag("broken").await;
    let stopped = wait_for_pool(&scenario, "readers", condition::STALLED, "True", "RollStopped").await;
    let told = stopped.status.unwrap();
    assert!(find(&told.conditions, condition::STALLED).unwrap().message.contains("readers-2"), "{told:?}");
    assert_eq!((told.replicas, told.ready_replicas), (3, 2), "the others still run");
    let broken = images().await.into_iter().filter(|(_, image)| image.ends_with(":broken"));
    assert_eq!(broken.map(|(name, _)| name).collect::<Vec<_>>(), ["readers-2"]);

    set_tag("next").await;
    wait_until_ready(&scenario, "readers", 3).await;
    assert_eq!(validators().await, before, "no validator was touched");
    let network = scenario.api::<Network>().get("demo").await.unwrap().status.unwrap();
    assert_eq!(network.permit, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_cannot_be_made_keeps_no_other_from_being_made() {
    let scenario = Scenario::new("pool-malformed").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    create_pool(&scenario, "astray", json!({"networkRef": {"name": "no-such-network"}})).await;
    // No pod can be made from this; the schema does not know.
    create_pool(&scenario, "refused", json!({"tolerations": [{"key": "not a key"}]})).await;
    let held: BizraNode = serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "BizraNode", "metadata": {"name": "held-0"},
        "spec": {"networkRef": {"name": "demo"}},
    }))
    .unwrap();
    scenario.api::<BizraNode>().create(&PostParams::default(), &held).await.unwrap();
    create_pool(&scenario, "held", json!({"replicas": 2})).await;
    create_pool(&scenario, "sound", json!({"replicas": 2})).await;

    wait_until_ready(&scenario, "sound", 2).await;
    wait_for_pool(&scenario, "astray", condition::STALLED, "True", "NetworkMissing").await;
    wait_for_pool(&scenario, "refused", condition::READY, "False", "NodesNotReady").await;
    wait_for_pool(&scenario, "held", condition::STALLED, "True", "NameTaken").await;
    scenario.wait_for_node("held-1", condition::READY, "True", "InSync").await;
    let untouched = scenario.api::<BizraNode>().get("held-0").await.unwrap();
    assert_eq!(untouched.metadata.owner_references, None, "what is somebody else's stays so");
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
}
