//! What is wrong with a node, and what is done about it.

use std::time::Duration;

use bizra_operator::{
    api::{BizraNode, Network, RepairAction, RepairCause, condition},
    controllers::conditions::find,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
    api::{policy::v1::PodDisruptionBudget, storage::v1::StorageClass},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    kubelet::{Kubelet, Trouble},
    scenario::{Scenario, eventually},
};

async fn pod_uid(scenario: &Scenario, name: &str) -> Option<String> {
    scenario.api::<Pod>().get_opt(name).await.unwrap()?.uid()
}

async fn is_well(scenario: &Scenario, name: &str) {
    scenario.wait_for_node(name, condition::READY, "True", "InSync").await;
    eventually(&format!("{name} is not degraded"), || async {
        let node = scenario.api::<BizraNode>().get(name).await.unwrap();
        let told = node.status.unwrap_or_default().conditions;
        if find(&told, condition::DEGRADED).is_none() { Ok(()) } else { Err(format!("{told:#?}")) }
    })
    .await;
}

async fn full_node(scenario: &Scenario, name: &str) {
    let node: BizraNode = serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "BizraNode", "metadata": {"name": name},
        "spec": {"networkRef": {"name": "demo"}},
    }))
    .unwrap();
    scenario.api::<BizraNode>().create(&PostParams::default(), &node).await.unwrap();
    scenario.wait_for_node(name, condition::READY, "True", "InSync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_rebuilt_only_while_a_quorum_without_it_is_in_sync() {
    let scenario = Scenario::new("corrupt").await;
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    full_node(&scenario, "watcher").await;
    let claim = scenario.api::<PersistentVolumeClaim>().get("demo-v1-data").await.unwrap().uid();

    // Two of four at once: what one of them has may be the last copy.
    for name in ["demo-v1", "demo-v2"] {
        kubelet.troubles.lock().unwrap().insert(name.to_owned(), Trouble::Corrupt);
    }
    for name in ["demo-v1", "demo-v2"] {
        scenario.wait_for_node(name, condition::DEGRADED, "True", "DatabaseCorrupt").await;
        scenario.wait_for_node(name, condition::READY, "False", "DatabaseCorrupt").await;
    }
    let before = (pod_uid(&scenario, "demo-v1").await.unwrap(), pod_uid(&scenario, "demo-v2").await.unwrap());

    // A full node holds nothing that others need.
    let watcher = pod_uid(&scenario, "watcher").await.unwrap();
    kubelet.troubles.lock().unwrap().insert("watcher".to_owned(), Trouble::Corrupt);
    eventually("the full node is rebuilt", || async {
        if kubelet.resets.lock().unwrap().is_empty() { Err("not yet") } else { Ok(()) }
    })
    .await;
    is_well(&scenario, "watcher").await;
    let order = |pod: &str| -> Vec<String> {
        ["reset-database", "--data-dir", "/var/lib/bizra", "--order", pod, "--if-corrupt"].map(str::to_owned).into()
    };
    assert_eq!(*kubelet.resets.lock().unwrap(), [("watcher".to_owned(), order(&watcher))]);

    tokio::time::sleep(Duration::from_secs(3)).await;
    let now = (pod_uid(&scenario, "demo-v1").await.unwrap(), pod_uid(&scenario, "demo-v2").await.unwrap());
    assert_eq!(now, before, "neither was given up");
    assert_eq!(scenario.api::<Network>().get("demo").await.unwrap().status.unwrap().permit, None);

    // One comes back by itself: now the other may be rebuilt.
    kubelet.troubles.lock().unwrap().remove("demo-v2");
    is_well(&scenario, "demo-v1").await;
    is_well(&scenario, "demo-v2").await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(kubelet.resets.lock().unwrap()[1..], [("demo-v1".to_owned(), order(&before.0))]);
    assert_eq!(pod_uid(&scenario, "demo-v2").await.unwrap(), before.1);
    let node = scenario.api::<BizraNode>().get("demo-v1").await.unwrap();
    let repair = node.status.unwrap().repair.unwrap();
    assert_eq!((repair.cause, repair.attempt), (RepairCause::DatabaseCorrupt, 1));
    let again = scenario.api::<PersistentVolumeClaim>().get("demo-v1-data").await.unwrap().uid();
    assert_eq!(again, claim, "the volume with its keys stays");

    // A later pod of the same node has no order.
    eventually("the permit is returned", || async {
        let network = scenario.api::<Network>().get("demo").await.unwrap();
        if network.status.unwrap().permit.is_none() { Ok(()) } else { Err("not yet") }
    })
    .await;
    scenario.api::<Pod>().delete("demo-v1", &DeleteParams::default()).await.unwrap();
    eventually("a new pod is in sync", || async {
        let pod = scenario.api::<Pod>().get_opt("demo-v1").await.unwrap().ok_or("no pod")?;
        let init = pod.spec.unwrap().init_containers.unwrap();
        assert!(init.iter().all(|container| container.name != "reset"));
        Ok::<(), &str>(())
    })
    .await;
    is_well(&scenario, "demo-v1").await;
    assert_eq!(kubelet.resets.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_validator_is_restarted_and_then_fetches_its_database_anew() {
    let scenario = Scenario::new("stuck").await;
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.impatient_operator(3);
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    kubelet.troubles.lock().unwrap().insert("demo-v1".to_owned(), Trouble::Stuck);
    let mut seen: Vec<(i32, RepairAction)> = Vec::new();
    let mut before = pod_uid(&scenario, "demo-v1").await.unwrap();
    let mut replaced = 0;
    for _ in 0..1_200 {
        let node = scenario.api::<BizraNode>().get("demo-v1").await.unwrap();
        if let Some(repair) = node.status.unwrap_or_default().repair
            && seen.last().is_none_or(|(attempt, _)| *attempt != repair.attempt)
        {
            assert_eq!(repair.cause, RepairCause::Stuck);
            seen.push((repair.attempt, repair.action));
        }
        if let Some(uid) = pod_uid(&scenario, "demo-v1").await.filter(|uid| *uid != before) {
            replaced += 1;
            before = uid;
        }
        if !kubelet.resets.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, [(1, RepairAction::Restart), (2, RepairAction::Restart), (3, RepairAction::Resync)]);
    assert!(replaced <= 3);
    is_well(&scenario, "demo-v1").await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let (_, arguments) = kubelet.resets.lock().unwrap()[0].clone();
    assert!(!arguments.contains(&"--if-corrupt".to_owned()));
    // Well for long enough, it begins anew.
    eventually("the repair is forgotten", || async {
        let node = scenario.api::<BizraNode>().get("demo-v1").await.unwrap();
        node.status.unwrap().repair.map_or(Ok(()), |repair| Err(format!("{repair:?}")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_told_with_the_last_words_and_is_the_kubelets() {
    let scenario = Scenario::new("crash-loop").await;
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    kubelet.failures.lock().unwrap().insert("demo-v1".to_owned(), (101, "thread 'main' panicked".to_owned()));
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    let node = scenario.wait_for_node("demo-v1", condition::DEGRADED, "True", "CrashLoop").await;
    let told = node.status.unwrap().conditions;
    assert!(find(&told, condition::DEGRADED).unwrap().message.contains("thread 'main' panicked"));
    let uid = pod_uid(&scenario, "demo-v1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pod_uid(&scenario, "demo-v1").await, uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_gone_are_replaced_of_a_full_node_and_not_of_a_validator_that_nobody_could_rotate() {
    let scenario = Scenario::new("keyless").await;
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    full_node(&scenario, "watcher").await;
    let key = || async { scenario.api::<BizraNode>().get("watcher").await.unwrap().status.unwrap().public_key };
    let claim = || async { scenario.api::<PersistentVolumeClaim>().get("watcher-data").await.unwrap().uid() };
    let before = (key().await, claim().await, pod_uid(&scenario, "watcher").await.unwrap());
    let validator = pod_uid(&scenario, "demo-v1").await;
    for name in ["watcher", "demo-v1"] {
        kubelet.troubles.lock().unwrap().insert(name.to_owned(), Trouble::Keyless);
    }
    eventually("the full node has other keys", || async {
        if kubelet.resets.lock().unwrap().is_empty() { Err("not yet") } else { Ok(()) }
    })
    .await;
    is_well(&scenario, "watcher").await;
    let (name, arguments) = kubelet.resets.lock().unwrap()[0].clone();
    assert_eq!(
        (name.as_str(), arguments.last()),
        ("watcher", Some(&before.2)),
        "the order is the pod that was replaced"
    );
    assert_ne!(key().await, before.0);
    assert_eq!(claim().await, before.1, "on the same volume");
    scenario.wait_for_node("demo-v1", condition::READY, "False", "SigningRecordRefused").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pod_uid(&scenario, "demo-v1").await, validator);
    assert_eq!(kubelet.resets.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_whose_volume_is_deleted_gets_a_new_one_and_a_validator_goes_on() {
    let scenario = Scenario::new("lost-volume").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    full_node(&scenario, "watcher").await;
    let claims = scenario.api::<PersistentVolumeClaim>();
    // Kubernetes keeps a claim while a scheduled pod uses it; the pods here are never scheduled.
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    for name in ["watcher-data", "demo-v2-data"] {
        claims.patch(name, &PatchParams::default(), &hold(json!(["test.bizra.io/hold"]))).await.unwrap();
    }
    let claim = claims.get("watcher-data").await.unwrap().uid();
    claims.delete("watcher-data", &DeleteParams::default()).await.unwrap();
    eventually("the full node's pod lets go of its volume", || async {
        if scenario.api::<Pod>().get_opt("watcher").await.unwrap().is_none() { Ok(()) } else { Err("not yet") }
    })
    .await;
    claims.patch("watcher-data", &PatchParams::default(), &hold(json!([]))).await.unwrap();
    eventually("the full node has another volume", || async {
        match claims.get_opt("watcher-data").await.unwrap() {
            Some(now) if now.uid() != claim => Ok(()),
            now => Err(format!("{:?}", now.map(|now| now.metadata))),
        }
    })
    .await;
    is_well(&scenario, "watcher").await;

    let (claim, pod) = (claims.get("demo-v2-data").await.unwrap().uid(), pod_uid(&scenario, "demo-v2").await);
    claims.delete("demo-v2-data", &DeleteParams::default()).await.unwrap();
    scenario.wait_for_node("demo-v2", condition::READY, "False", "VolumeTerminating").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(claims.get("demo-v2-data").await.unwrap().uid(), claim);
    assert_eq!(pod_uid(&scenario, "demo-v2").await, pod, "its pod, and so its volume, is not touched");
}

async fn comes_back<K>(scenario: &Scenario, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = scenario.api::<K>();
    let before = api.get(name).await.unwrap().uid();
    api.delete(name, &DeleteParams::background()).await.unwrap();
    eventually(&format!("{} {name} is made anew", K::kind(&())), || async {
        match api.get_opt(name).await.unwrap() {
            Some(now) if now.uid() != before => Ok(()),
            _ => Err("not yet"),
        }
    })
    .await;
}

async fn is_put_back<K>(scenario: &Scenario, name: &str, change: Value, pointer: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let api = scenario.api::<K>();
    let value = |object: &K| serde_json::to_value(object).unwrap().pointer(pointer).cloned();
    let before = value(&api.get(name).await.unwrap());
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    assert_ne!(value(&patched), before);
    eventually(&format!("{} {name} is as before", K::kind(&())), || async {
        let now = value(&api.get(name).await.unwrap());
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_changed_by_hand_comes_back() {
    let scenario = Scenario::new("drift").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let claim = scenario.api::<PersistentVolumeClaim>().get("demo-v1-data").await.unwrap().uid();

    is_put_back::<Service>(
        &scenario,
        "demo-api",
        json!({"spec": {"selector": {"bizra.io/network": "b"}}}),
        "/spec/selector",
    )
    .await;
    let budget = json!({"spec": {"minAvailable": 0}});
    is_put_back::<PodDisruptionBudget>(&scenario, "demo-validators", budget, "/spec/minAvailable").await;
    let file = json!({"data": {"node.toml": "empty"}});
    is_put_back::<ConfigMap>(&scenario, "demo-v1-config", file, "/data").await;
    let certificate = json!({"data": {"ca.crt": "none"}});
    is_put_back::<ConfigMap>(&scenario, "demo-certificates", certificate, "/data/ca.crt").await;

    comes_back::<Service>(&scenario, "demo-api").await;
    comes_back::<Service>(&scenario, "demo-nodes").await;
    comes_back::<PodDisruptionBudget>(&scenario, "demo-validators").await;
    comes_back::<ConfigMap>(&scenario, "demo-v1-config").await;
    comes_back::<ConfigMap>(&scenario, "demo-certificates").await;
    comes_back::<Pod>(&scenario, "demo-v1").await;
    comes_back::<BizraNode>(&scenario, "demo-v1").await;
    is_well(&scenario, "demo-v1").await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(scenario.api::<PersistentVolumeClaim>().get("demo-v1-data").await.unwrap().uid(), claim);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_fills_up_is_grown_by_steps_to_its_limit_and_one_that_cannot_grow_stops_nothing() {
    let scenario = Scenario::new("growth").await;
    let class = |name: &str, expands: bool| -> StorageClass {
        serde_json::from_value(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "test.bizra.io/none", "allowVolumeExpansion": expands,
        }))
        .unwrap()
    };
    let classes: kube::Api<StorageClass> = kube::Api::all(scenario.admin.clone());
    for (name, expands) in [("growth-yes", true), ("growth-no", false)] {
        classes.create(&PostParams::default(), &class(name, expands)).await.unwrap();
    }
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    let auto = json!({"thresholdPercent": 80, "stepPercent": 50, "limit": "1700Mi", "coolDownSeconds": 10});
    let storage = |class: &str| json!({"className": class, "size": "1Gi", "autoGrow": auto});
    scenario.create_network("demo", json!({"chainId": "demo-1", "storage": storage("growth-yes")})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let fixed: BizraNode = serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "BizraNode", "metadata": {"name": "watcher"},
        "spec": {"networkRef": {"name": "demo"}, "storage": storage("growth-no")},
    }))
    .unwrap();
    scenario.api::<BizraNode>().create(&PostParams::default(), &fixed).await.unwrap();
    scenario.wait_for_node("watcher", condition::READY, "True", "InSync").await;

    let before = pod_uid(&scenario, "demo-v1").await;
    for name in ["demo-v1", "watcher"] {
        kubelet.usage.lock().unwrap().insert(name.to_owned(), 85);
        // Wakes the controller; it would look by itself a minute later.
        let note = json!({"metadata": {"annotations": {"test": "look"}}});
        let nodes = scenario.api::<BizraNode>();
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    }
    let claims = scenario.api::<PersistentVolumeClaim>();
    let requested = || async {
        let claim = claims.get("demo-v1-data").await.unwrap();
        claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
    };
    let mut sizes = vec!["1Gi".to_owned()];
    for _ in 0..900 {
        let now = requested().await;
        if sizes.last() != Some(&now) {
            sizes.push(now);
        }
        if sizes.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sizes, ["1Gi", "1536Mi", "1700Mi"]);
    assert_eq!(pod_uid(&scenario, "demo-v1").await, before, "the pod is not touched");
    let unchanged = claims.get("demo-v0-data").await.unwrap().spec.unwrap().resources.unwrap().requests.unwrap();
    assert_eq!(unchanged["storage"].0, "1Gi");
    // The other one's storage class allows no growth: it is refused, and everything else goes on.
    let refused = claims.get("watcher-data").await.unwrap().spec.unwrap().resources.unwrap().requests.unwrap();
    assert_eq!(refused["storage"].0, "1Gi");
    scenario.api::<Pod>().delete("watcher", &DeleteParams::default()).await.unwrap();
    scenario.wait_for_node("watcher", condition::READY, "True", "InSync").await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
}
