//! What the operator heals by itself, and what it does on orders: damaged databases, crash loops, hung processes, full and lost
//! volumes, children that somebody deletes; paused, fenced, hibernated. The chain goes on, and clients are served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bizra_e2e::{
    process::Process as Running,
    scene::{Scene, SceneError},
    stage::{NETWORK, Stage, VALIDATORS},
    volume::Volume,
    witness::Process,
};
use bizra_operator::{
    api::{BizraNode, HostSpread, condition},
    controllers::conditions::is_true,
    resources::names,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

type Outcome = Result<(), SceneError>;

/// Time for a repair that needs a permit and fetches a database.
const REPAIR_SECONDS: u64 = 120;

async fn process_of(stage: &Stage, validator: &str) -> Result<Running, SceneError> {
    Running::of_pod(&stage.scene.pod_uid(validator).await?, "bizra-node")
}

/// Waits until one of a node's conditions has this reason.
async fn wait_reason(scene: &Scene, node: &str, reason: &str, seconds: u64) -> Outcome {
    scene
        .wait(&format!("{node} says {reason}"), seconds, || async {
            let told = scene.api::<BizraNode>().get(node).await?.status.unwrap_or_default().conditions;
            let is_told = told.iter().any(|condition| condition.reason == reason);
            Ok(if is_told { Ok(()) } else { Err(format!("{told:?}")) })
        })
        .await
}

async fn change_node(stage: &Stage, node: &str, spec: Value) -> Outcome {
    let patch = Patch::Merge(json!({ "spec": spec }));
    stage.scene.api::<BizraNode>().patch(node, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_validator_with_a_damaged_database_a_crash_loop_or_a_hung_process_is_healed() -> Outcome {
    let mut stage = Stage::start("healing", |_| {}).await?;

    let before = stage.before("demo-v1");
    let uid = stage.scene.pod_uid("demo-v1").await?;
    stage.begin();
    let process = process_of(&stage, "demo-v1").await?;
    Volume::of(&process).damage_database()?;
    process.kill()?;
    let away = stage.recovers(&before, Process::New, REPAIR_SECONDS).await?;
    assert_ne!(stage.scene.pod_uid("demo-v1").await?, uid, "the repair replaces the pod");
    stage.end("database damaged").await?;
    assert!(away <= Duration::from_mins(1), "it voted again after {away:?}");

    // The kubelet waits longer each time.
    let before = stage.before("demo-v2");
    let uid = stage.scene.pod_uid("demo-v2").await?;
    stage.begin();
    for _ in 0..3 {
        stage
            .scene
            .wait("there is a process to kill", 60, || async {
                Ok(process_of(&stage, "demo-v2").await.and_then(Running::kill).map_err(|error| error.to_string()))
            })
            .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    wait_reason(&stage.scene, "demo-v2", "CrashLoop", 30).await?;
    stage.recovers(&before, Process::New, REPAIR_SECONDS).await?;
    assert_eq!(stage.scene.pod_uid("demo-v2").await?, uid, "a new pod would not help");
    stage.end("process killed three times").await?;

    let before = stage.before("demo-v3");
    stage.begin();
    let mut process = process_of(&stage, "demo-v3").await?;
    process.pause()?;
    stage.recovers(&before, Process::New, 180).await?;
    drop(process);
    stage.end("process hung").await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_full_volume_is_grown_and_a_lost_one_of_a_full_node_replaced() -> Outcome {
    let mut stage = Stage::start("volumes", |network| {
        network["spec"]["storage"]["autoGrow"] = json!({"limit": "2Gi"});
    })
    .await?;
    let capacity = |claim: PersistentVolumeClaim| Some(claim.status?.capacity?.remove("storage")?.0);
    let claims = stage.scene.api::<PersistentVolumeClaim>();

    let validator = "demo-v0";
    let small = capacity(claims.get(&names::claim(validator)).await?);
    stage.begin();
    Volume::of(&process_of(&stage, validator).await?).fill()?;
    stage
        .scene
        .wait("the volume has grown", REPAIR_SECONDS, || async {
            let now = capacity(claims.get(&names::claim(validator)).await?);
            Ok(if now == small { Err(format!("{now:?}")) } else { Ok(()) })
        })
        .await?;
    let before = stage.before(validator);
    stage.recovers(&before, Process::Any, REPAIR_SECONDS).await?;
    stage.end("volume full").await?;
    assert_eq!(capacity(claims.get(&names::claim("demo-v1")).await?), small, "the others had room");
    Volume::of(&process_of(&stage, validator).await?).drain()?;

    // As a validator, but controlled by nobody.
    let mut reader = BizraNode::new("reader", stage.scene.api::<BizraNode>().get(validator).await?.spec);
    reader.spec.template.host_spread = HostSpread::Preferred;
    stage.scene.api::<BizraNode>().create(&PostParams::default(), &reader).await?;
    stage.scene.wait_node_ready("reader", REPAIR_SECONDS).await?;
    let lost = claims.get(&names::claim("reader")).await?.uid();
    stage.begin();
    claims.delete(&names::claim("reader"), &DeleteParams::default()).await?;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    stage.scene.api::<Pod>().delete("reader", &now).await?;
    stage
        .scene
        .wait("there is another volume", REPAIR_SECONDS, || async {
            let claim = claims.get_opt(&names::claim("reader")).await?;
            let is_new = claim.is_some_and(|claim| claim.uid() != lost && claim.metadata.deletion_timestamp.is_none());
            Ok(if is_new { Ok(()) } else { Err("not yet".to_owned()) })
        })
        .await?;
    let head = stage.witness.head();
    stage.scene.wait_height("reader", head, REPAIR_SECONDS).await?;
    stage.scene.wait_node_ready("reader", REPAIR_SECONDS).await?;
    stage.end("volume of a full node lost").await?;
    stage.finish().await
}

/// Deletes an object and waits until it has been made anew.
async fn comes_back<K>(scene: &Scene, name: &str) -> Outcome
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = scene.api::<K>();
    let before = api.get(name).await?.uid();
    api.delete(name, &DeleteParams::default()).await?;
    scene
        .wait(&format!("{name} is back"), 60, || async {
            let after = api.get_opt(name).await?.and_then(|object| object.uid());
            Ok(if after.is_some() && after != before { Ok(()) } else { Err(format!("{after:?}")) })
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn children_come_back_and_orders_are_obeyed() -> Outcome {
    let mut stage = Stage::start("orders", |_| {}).await?;
    let pods = scene_uids(&stage.scene).await?;

    stage.begin();
    comes_back::<Service>(&stage.scene, &names::nodes_service(NETWORK)).await?;
    comes_back::<ConfigMap>(&stage.scene, &names::certificates(NETWORK)).await?;
    comes_back::<ConfigMap>(&stage.scene, &names::config("demo-v1")).await?;
    comes_back::<PodDisruptionBudget>(&stage.scene, &names::disruption_budget(NETWORK)).await?;
    comes_back::<NetworkPolicy>(&stage.scene, &names::network_policy(NETWORK)).await?;
    let budgets = stage.scene.api::<PodDisruptionBudget>();
    let name = names::disruption_budget(NETWORK);
    let drift = Patch::Merge(json!({"spec": {"minAvailable": 1}}));
    budgets.patch(&name, &PatchParams::default(), &drift).await?;
    stage
        .scene
        .wait("the budget is as it was", 60, || async {
            let least = budgets.get(&name).await?.spec.and_then(|spec| spec.min_available);
            let is_right = least == Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(3));
            Ok(if is_right { Ok(()) } else { Err(format!("{least:?}")) })
        })
        .await?;
    assert_eq!(scene_uids(&stage.scene).await?, pods, "no pod was touched");
    stage.end("children deleted and changed").await?;

    let validator = "demo-v3";
    stage.begin();
    change_node(&stage, validator, json!({"signing": "Fenced"})).await?;
    stage
        .scene
        .wait("the node says that it is fenced", 60, || async {
            let told = stage.scene.api::<BizraNode>().get(validator).await?.status.unwrap_or_default().conditions;
            Ok(if is_true(&told, condition::FENCED) { Ok(()) } else { Err(format!("{told:?}")) })
        })
        .await?;
    let voted = stage.witness.sighting(validator).expect("it has been asked").voted;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = stage.witness.sighting(validator).expect("it has been asked");
    assert!(seen.voted == voted && seen.height > voted, "fenced: it follows and does not sign: {seen:?}");
    let before = stage.before(validator);
    change_node(&stage, validator, json!({"signing": "Allowed"})).await?;
    stage.recovers(&before, Process::Any, 60).await?;
    assert_eq!(scene_uids(&stage.scene).await?, pods, "a fence restarts nobody");
    stage.end("fenced").await?;

    stage.begin();
    stage.change(json!({"reconciliation": "Paused"})).await?;
    stage.scene.wait_condition(NETWORK, condition::PAUSED, "Paused", 30).await?;
    let before = stage.before("demo-v1");
    stage.scene.api::<Pod>().delete("demo-v1", &DeleteParams::default()).await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(stage.scene.api::<Pod>().get_opt("demo-v1").await?.is_none(), "paused, and a pod was made");
    stage.change(json!({"reconciliation": "Active"})).await?;
    stage.recovers(&before, Process::New, 60).await?;
    stage.end("paused").await?;

    // No block is made; the chain goes on where it was.
    let height = stage.witness.head();
    let claims = stage.scene.names::<PersistentVolumeClaim>().await?;
    stage.change(json!({"activity": "Hibernated"})).await?;
    stage
        .scene
        .wait("there is no pod", 90, || async {
            let left = stage.scene.names::<Pod>().await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
        })
        .await?;
    stage.change(json!({"activity": "Running"})).await?;
    stage.scene.wait_ready(NETWORK, 120).await?;
    assert_eq!(stage.scene.names::<PersistentVolumeClaim>().await?, claims);
    for validator in VALIDATORS {
        stage.scene.wait_height(validator, height + 1, 60).await?;
    }
    stage.finish().await
}

/// Uids of all pods.
async fn scene_uids(scene: &Scene) -> Result<Vec<Option<String>>, SceneError> {
    let mut uids = Vec::new();
    for pod in scene.names::<Pod>().await? {
        uids.push(scene.pod(&pod).await?.uid());
    }
    Ok(uids)
}
