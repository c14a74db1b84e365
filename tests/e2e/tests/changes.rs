//! Planned changes of a network that is in use: one validator at a time, and clients notice nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bizra_e2e::{
    hosts::Hosts,
    scene::{Scene, SceneError},
    stage::{NETWORK, Stage, VALIDATORS},
};
use bizra_operator::api::Network;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

type Outcome = Result<(), SceneError>;

/// Name and tag of the image that the operator was installed with.
fn image() -> (String, String) {
    let image = std::env::var("BIZRA_IMAGE").unwrap_or_else(|_| "localhost/bizra:dev".to_owned());
    let (name, tag) = image.rsplit_once(':').expect("BIZRA_IMAGE has a tag");
    (name.to_owned(), tag.to_owned())
}

/// Makes a tag of the product's image from another image that is on every host.
async fn tag(scene: &Scene, from: &str, tag: &str) -> Outcome {
    let hosts = Api::<Node>::all(scene.client.clone()).list(&ListParams::default()).await?;
    let hosts: Vec<String> = hosts.iter().map(kube::ResourceExt::name_any).collect();
    Hosts::embedded()?.name_image(&hosts, from, &format!("{}:{tag}", image().0)).await
}

/// Uid, image and restarts of every validator's pod.
async fn pods(scene: &Scene) -> Result<BTreeMap<String, (String, String, i32)>, SceneError> {
    let mut pods = BTreeMap::new();
    for pod in scene.api::<Pod>().list(&ListParams::default()).await? {
        let uid = pod.uid().unwrap_or_default();
        let spec = pod.spec.as_ref().unwrap();
        let image = spec.containers[0].image.clone().unwrap_or_default();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
        pods.insert(pod.name_any(), (uid, image, statuses.iter().map(|status| status.restart_count).sum()));
    }
    Ok(pods)
}

/// Waits until every validator is as the spec asks, and everything is well.
async fn wait_rolled(stage: &Stage, seconds: u64) -> Outcome {
    stage
        .scene
        .wait("the change has gone round", seconds, || async {
            let network = stage.scene.api::<Network>().get(NETWORK).await?;
            let generation = network.metadata.generation;
            let status = network.status.unwrap_or_default();
            let is = |type_: &str| status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
            let done = Some(status.observed_generation) == generation
                && is("UpToDate")
                && is("Ready")
                && status.permit.is_none()
                && status.good_revision == status.revision;
            Ok(if done { Ok(()) } else { Err(format!("{:?} {:?}", status.conditions, status.permit)) })
        })
        .await
}

async fn change_image(stage: &mut Stage, to: &str) -> Outcome {
    let (repository, _) = image();
    let before = pods(&stage.scene).await?;
    stage.begin();
    stage.change(json!({ "image": { "repository": repository, "tag": to } })).await?;
    wait_rolled(stage, 240).await?;
    stage.end(&format!("rolling change to {to}")).await?;
    let after = pods(&stage.scene).await?;
    for validator in VALIDATORS {
        assert_eq!(after[validator].1, format!("{repository}:{to}"));
        assert_ne!(after[validator].0, before[validator].0, "{validator} was not made anew");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_goes_round_and_back_and_a_broken_one_stops_at_one_validator() -> Outcome {
    let mut stage = Stage::start("upgrade", |network| network["spec"]["updateDeadlineSeconds"] = json!(10)).await?;
    let (repository, present) = image();
    tag(&stage.scene, &format!("{repository}:{present}"), "next").await?;
    change_image(&mut stage, "next").await?;

    // An image that is there but in which there is no node.
    tag(&stage.scene, "localhost/pause:latest", "broken").await?;
    let before = pods(&stage.scene).await?;
    stage.begin();
    stage.change(json!({ "image": { "repository": repository, "tag": "broken" } })).await?;
    stage.scene.wait_condition(NETWORK, "Stalled", "RolledBack", 150).await?;
    let status = stage.scene.api::<Network>().get(NETWORK).await?.status.unwrap_or_default();
    let failed = status.failed_revision.expect("a roll-back says of what");
    assert!(failed.message.contains("bizra-node"), "it does not say why: {}", failed.message);
    stage.scene.wait_node_ready(&failed.node, 90).await?;
    let after = pods(&stage.scene).await?;
    assert_eq!(after[&failed.node].1, format!("{repository}:next"));
    for validator in VALIDATORS.into_iter().filter(|validator| *validator != failed.node) {
        assert_eq!(after[validator], before[validator], "{validator} was touched");
    }
    stage.end("broken image, rolled back").await?;

    // A spec that works goes on by itself.
    change_image(&mut stage, &present).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one more rolling change; `make e2e` has it"]
async fn changed_resources_and_pod_labels_go_round() -> Outcome {
    let mut stage = Stage::start("resources", |_| {}).await?;
    let before = pods(&stage.scene).await?;
    stage.begin();
    stage
        .change(json!({
            "resources": { "requests": { "cpu": "60m" }, "limits": { "memory": "640Mi" } },
            "pod": { "labels": { "team": "ledger" } },
        }))
        .await?;
    wait_rolled(&stage, 240).await?;
    stage.end("rolling change of resources and labels").await?;
    for validator in VALIDATORS {
        let pod = stage.scene.pod(validator).await?;
        assert_ne!(pod.uid().unwrap_or_default(), before[validator].0);
        assert_eq!(pod.labels().get("team").map(String::as_str), Some("ledger"));
        let resources = pod.spec.unwrap().containers[0].resources.clone().unwrap();
        assert_eq!(resources.requests.unwrap()["memory"].0, "640Mi");
    }
    stage.finish().await
}

/// Makes a host schedulable again, at the latest when it is dropped.
struct Cordon(String);

impl Drop for Cordon {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl").args(["uncordon", &self.0]).output();
    }
}

/// Drains a host as an administrator does; gives what kubectl said if it did not succeed.
async fn drain(host: &str, seconds: u32) -> (Cordon, Result<(), String>) {
    let line = ["drain", host, "--ignore-daemonsets", "--delete-emptydir-data", &format!("--timeout={seconds}s")]
        .map(str::to_owned);
    let cordon = Cordon(host.to_owned());
    let run = tokio::process::Command::new("kubectl").args(line).output().await.expect("kubectl runs");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (cordon, if run.status.success() { Ok(()) } else { Err(said) })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make e2e` has it"]
async fn a_drain_takes_one_validator_and_a_second_one_waits_for_the_budget() -> Outcome {
    let mut stage = Stage::start("drain", |_| {}).await?;
    let (first, second) = ("demo-v1", "demo-v2");
    let hosts = (stage.scene.host_of(first).await?, stage.scene.host_of(second).await?);
    let uids = (stage.scene.pod_uid(first).await?, stage.scene.pod_uid(second).await?);
    stage.begin();
    let (drained, outcome) = drain(&hosts.0, 60).await;
    assert_eq!(outcome, Ok(()));
    stage
        .scene
        .wait("the evicted validator waits for its host", 60, || async {
            let pod = stage.scene.pod(first).await?;
            let waits =
                pod.uid().unwrap_or_default() != uids.0 && pod.spec.is_some_and(|spec| spec.node_name.is_none());
            Ok(if waits { Ok(()) } else { Err("it runs elsewhere, or is not back".to_owned()) })
        })
        .await?;

    // The budget keeps the second voter where it is.
    let (also_drained, outcome) = drain(&hosts.1, 10).await;
    let said = outcome.expect_err("two of four validators were taken down");
    assert!(said.contains("disruption budget"), "{said}");
    assert_eq!(stage.scene.pod_uid(second).await?, uids.1);
    stage.end("drain of a host, with another one attempted").await?;

    let before = stage.before(first);
    stage.begin();
    drop(also_drained);
    drop(drained);
    stage.recovers(&before, bizra_e2e::witness::Process::New, 90).await?;
    stage.end("drained host is back").await?;
    stage.finish().await
}
