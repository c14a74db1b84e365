//! One validator at a time loses its pod, its process, its link, its kubelet's API server, or its host's power. The chain goes
//! on, clients are served, and the validator votes again. A full node whose host is lost is made anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bizra_e2e::{
    hosts::Hosts,
    scene::{SceneError, sample, small_network},
    stage::{NETWORK, STILL_MAX, Stage},
    witness::Process,
};
use bizra_operator::api::{BizraNode, NodePool};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

type Outcome = Result<(), SceneError>;

/// True for `make e2e-long`: faults last as long as the issue asks for.
fn is_long() -> bool {
    std::env::var_os("BIZRA_E2E_LONG").is_some()
}

/// Waits until Kubernetes takes a host for lost, or for well.
async fn wait_host(stage: &Stage, host: &str, ready: &str, seconds: u64) -> Outcome {
    let hosts = Api::<Node>::all(stage.scene.client.clone());
    stage
        .scene
        .wait(&format!("{host} has Ready={ready}"), seconds, || async {
            let conditions = hosts.get(host).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            let seen = conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status);
            Ok(if seen.as_deref() == Some(ready) { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await
}

/// A pod must still be the same one, and nobody must have asked for its end.
async fn assert_kept(stage: &Stage, validator: &str, uid: &str) -> Outcome {
    let pod = stage.scene.pod(validator).await?;
    assert_eq!(pod.metadata.uid.as_deref(), Some(uid), "{validator} has another pod");
    assert!(pod.metadata.deletion_timestamp.is_none(), "{validator} is being deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_without_its_pod_process_or_link_comes_back_and_clients_notice_nothing() -> Outcome {
    let hosts = Hosts::embedded()?;
    let mut stage = Stage::start("faults", |_| {}).await?;

    // The pod is deleted, its process killed with it.
    let before = stage.before("demo-v0");
    let uid = stage.scene.pod_uid("demo-v0").await?;
    stage.begin();
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    stage.scene.api::<Pod>().delete("demo-v0", &now).await?;
    stage.recovers(&before, Process::New, 60).await?;
    assert_ne!(stage.scene.pod_uid("demo-v0").await?, uid);
    stage.end("pod deleted").await?;

    // The process crashes.
    let before = stage.before("demo-v1");
    let uid = stage.scene.pod_uid("demo-v1").await?;
    stage.begin();
    bizra_e2e::process::Process::of_pod(&uid, "bizra-node")?.kill()?;
    stage.recovers(&before, Process::New, 60).await?;
    assert_kept(&stage, "demo-v1", &uid).await?;
    stage.end("process killed").await?;

    // The link is cut until Kubernetes takes the host for lost, and somewhat longer.
    let host = stage.scene.host_of("demo-v2").await?;
    let uid = stage.scene.pod_uid("demo-v2").await?;
    stage.begin();
    let cut = hosts.cut_link(&host).await?;
    wait_host(&stage, &host, "Unknown", 60).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_kept(&stage, "demo-v2", &uid).await?;
    stage.end("link cut").await?;
    let before = stage.before("demo-v2");
    stage.begin();
    cut.heal().await?;
    stage.recovers(&before, Process::Any, 90).await?;
    assert_kept(&stage, "demo-v2", &uid).await?;
    stage.end("link healed").await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute, or five with BIZRA_E2E_LONG; `make e2e` has it"]
async fn a_validator_whose_kubelet_loses_the_api_server_goes_on_voting() -> Outcome {
    let hosts = Hosts::embedded()?;
    let mut stage = Stage::start("unwatched", |_| {}).await?;
    let validator = "demo-v1";
    let host = stage.scene.host_of(validator).await?;
    let uid = stage.scene.pod_uid(validator).await?;
    let process = stage.witness.sighting(validator).expect("it has been asked").process;
    stage.begin();
    let hidden = hosts.hide_api_server(&host).await?;
    wait_host(&stage, &host, "Unknown", 60).await?;
    tokio::time::sleep(Duration::from_secs(if is_long() { 300 } else { 60 })).await;
    assert_kept(&stage, validator, &uid).await?;
    let silent = stage.witness.vote_gap(validator).expect("it has been asked");
    stage.end("kubelet without API server").await?;
    assert!(silent <= STILL_MAX, "{validator} did not vote for {silent:?}");

    stage.begin();
    hidden.heal().await?;
    // Its connection may have to time out first.
    wait_host(&stage, &host, "True", 120).await?;
    stage.scene.wait_node_ready(validator, 60).await?;
    assert_kept(&stage, validator, &uid).await?;
    assert_eq!(stage.witness.sighting(validator).expect("it has been asked").process, process, "it was restarted");
    stage.end("kubelet has its API server again").await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make e2e` has it"]
async fn a_host_that_loses_its_power_brings_its_validator_back_on_the_same_volume() -> Outcome {
    let hosts = Hosts::embedded()?;
    let mut stage = Stage::start("power", |_| {}).await?;
    let validator = "demo-v3";
    let host = stage.scene.host_of(validator).await?;
    let uid = stage.scene.pod_uid(validator).await?;
    stage.begin();
    let off = hosts.power_off(&host).await?;
    wait_host(&stage, &host, "Unknown", 60).await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_kept(&stage, validator, &uid).await?;
    stage.end("host without power").await?;

    let before = stage.before(validator);
    stage.begin();
    off.heal().await?;
    stage.recovers(&before, Process::New, 120).await?;
    assert_kept(&stage, validator, &uid).await?;
    stage.end("host has power again").await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_full_node_of_a_lost_host_is_made_anew_on_another_one() -> Outcome {
    let hosts = Hosts::embedded()?;
    let mut stage = Stage::start("lost-host", |_| {}).await?;
    let mut pool = sample("nodepool-readers")?;
    pool["metadata"]["name"] = json!("readers");
    let network = small_network("")?["spec"].clone();
    for field in ["storage", "resources"] {
        pool["spec"][field] = network[field].clone();
    }
    pool["spec"]["networkRef"]["name"] = json!(NETWORK);
    pool["spec"]["replicas"] = json!(1);
    pool["spec"]["hostGraceSeconds"] = json!(20);
    let parameters = PatchParams::apply("e2e").validation_strict();
    stage.scene.api::<NodePool>().patch("readers", &parameters, &Patch::Apply(&pool)).await?;
    stage.scene.wait_node_ready("readers-0", 120).await?;
    let host = stage.scene.host_of("readers-0").await?;

    stage.begin();
    let off = hosts.power_off(&host).await?;
    stage.scene.wait_node_ready("readers-1", 240).await?;
    assert_ne!(stage.scene.host_of("readers-1").await?, host);
    assert!(stage.scene.pod("readers-0").await?.metadata.deletion_timestamp.is_some(), "it may still run");
    let readers = |names: Vec<String>| names.into_iter().filter(|name| name.starts_with("readers")).collect::<Vec<_>>();
    assert_eq!(readers(stage.scene.names::<BizraNode>().await?), ["readers-1"]);
    stage.end("host of a full node lost").await?;

    stage.begin();
    off.heal().await?;
    stage
        .scene
        .wait("the former pod has ended", 120, || async {
            let left = readers(stage.scene.names::<Pod>().await?);
            Ok(if left == ["readers-1"] { Ok(()) } else { Err(left.join(", ")) })
        })
        .await?;
    assert_eq!(readers(stage.scene.names::<PersistentVolumeClaim>().await?), ["readers-0-data", "readers-1-data"]);
    stage.end("host of a full node is back").await?;
    stage.finish().await
}
