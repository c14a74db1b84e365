//! A validator loses its claim, what is on its volume, or its host, which later returns with the old pod alive. Each time it
//! votes again with a new key, clients are served, and nobody ever sees two conflicting signatures: each act ends with that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bizra_e2e::{
    hosts::Hosts,
    owned::{Owned, with_owner},
    scene::SceneError,
    stage::{Stage, VALIDATORS},
    witness::Process,
};
use bizra_operator::{
    api::{BizraNode, SagaStep, condition},
    controllers::conditions::is_true,
    resources::names,
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{ResourceExt as _, api::DeleteParams};

type Outcome = Result<(), SceneError>;

/// Time for a new volume, a database from peers, and two epochs.
const PATIENCE_SECONDS: u64 = 180;

/// The key that the chain has for the validator.
async fn key(owned: &Owned, stage: &Stage) -> Result<Option<String>, SceneError> {
    Ok(owned.status(&stage.scene).await?.public_key)
}

/// How often its key was rotated.
async fn rotations(owned: &Owned, stage: &Stage) -> Result<usize, SceneError> {
    let history = owned.status(&stage.scene).await?.history;
    let is_rotation =
        |done: &&bizra_operator::api::SagaRecord| done.step == SagaStep::RotateConsensusKey && done.failure.is_none();
    Ok(history.iter().filter(is_rotation).count())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_validator_without_its_claim_or_without_what_was_on_its_volume_votes_again_with_a_new_key() -> Outcome {
    let mut stage = Stage::start("volume-lost", with_owner).await?;
    let owned = Owned::join(&mut stage, "fifth").await?;
    let claims = stage.scene.api::<PersistentVolumeClaim>();
    let claim = names::claim("fifth");

    let (first, volume) = (key(&owned, &stage).await?, claims.get(&claim).await?.uid());
    let before = stage.before("fifth");
    stage.begin();
    owned.delete_claim(&stage.scene).await?;
    let away = stage.recovers(&before, Process::New, PATIENCE_SECONDS).await?;
    owned.wait_validates(&stage.scene, PATIENCE_SECONDS).await?;
    println!("claim deleted: voted again after {away:?}");
    stage.end("claim deleted").await?;
    let second = key(&owned, &stage).await?;
    assert_ne!(second, first);
    assert_ne!(claims.get(&claim).await?.uid(), volume);
    assert_eq!(rotations(&owned, &stage).await?, 1);

    let volume = claims.get(&claim).await?.uid();
    let before = stage.before("fifth");
    stage.begin();
    owned.wipe_volume(&stage.scene).await?;
    let away = stage.recovers(&before, Process::New, PATIENCE_SECONDS).await?;
    owned.wait_validates(&stage.scene, PATIENCE_SECONDS).await?;
    println!("volume wiped: voted again after {away:?}");
    stage.end("volume wiped").await?;
    assert_ne!(key(&owned, &stage).await?, second);
    assert_eq!(claims.get(&claim).await?.uid(), volume, "nothing is deleted that was not asked for");
    assert_eq!(rotations(&owned, &stage).await?, 2);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_validator_whose_host_is_cut_off_is_replaced_and_its_old_pod_signs_nothing_that_counts() -> Outcome {
    let hosts = Hosts::embedded()?;
    let mut stage = Stage::start("host-replaced", with_owner).await?;
    let owned = Owned::join(&mut stage, "fifth").await?;
    let first = key(&owned, &stage).await?;
    let (host, uid) = (stage.scene.host_of("fifth").await?, stage.scene.pod_uid("fifth").await?);

    stage.begin();
    let cut = hosts.cut_link(&host).await?;
    let successor = owned.wait_replacement(&stage.scene, "fifth", PATIENCE_SECONDS).await?;
    assert_eq!(successor, "fifth-r1");
    let watched = successor.clone();
    stage.witness.watch(&stage.scene, &watched);
    let before = stage.before(&successor);
    stage.recovers(&before, Process::New, PATIENCE_SECONDS).await?;
    owned.wait_validates(&stage.scene, PATIENCE_SECONDS).await?;
    assert_eq!(owned.node(&stage.scene).await?, successor);
    assert_ne!(key(&owned, &stage).await?, first);
    assert_ne!(stage.scene.host_of(&successor).await?, host);
    stage.end("host cut off").await?;

    // The old pod is there all the time, with the old key; it ends when its kubelet hears of it.
    assert_eq!(stage.scene.pod_uid("fifth").await?, uid, "it may still run");
    stage.begin();
    cut.heal().await?;
    owned.wait_gone(&stage.scene, "fifth", 120).await?;
    let old = stage.scene.api::<BizraNode>().get("fifth").await?.status.unwrap_or_default();
    assert!(is_true(&old.conditions, condition::REPLACED), "{old:?}");
    assert!(stage.scene.api::<PersistentVolumeClaim>().get_opt(&names::claim("fifth")).await?.is_some(), "it stays");
    let head = stage.witness.head();
    stage.scene.wait_height(&successor, head + 20, 60).await?;
    stage.end("the host is back with the old pod").await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn without_a_validator_object_a_claim_that_was_deleted_is_only_told_of_and_the_node_goes_on() -> Outcome {
    let mut stage = Stage::start("unowned", |_| {}).await?;
    let validator = VALIDATORS[1];
    if stage.scene.api::<bizra_operator::api::Validator>().get_opt(validator).await?.is_some() {
        // Its Network has made one, so it would be replaced.
        return stage.finish().await;
    }
    let uid = stage.scene.pod_uid(validator).await?;
    stage.begin();
    let claim = names::claim(validator);
    stage.scene.api::<PersistentVolumeClaim>().delete(&claim, &DeleteParams::default()).await?;
    stage
        .scene
        .wait("it is told", 30, || async {
            let status = stage.scene.api::<BizraNode>().get(validator).await?.status.unwrap_or_default();
            let told = status.conditions.iter().any(|condition| condition.reason == "VolumeTerminating");
            Ok(if told { Ok(()) } else { Err(format!("{:?}", status.conditions)) })
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.scene.pod_uid(validator).await?, uid);
    let before = stage.before(validator);
    stage.witness.votes_again(&before, Process::Any, 10).await?;
    stage.end("claim of an unowned validator deleted").await?;
    stage.scene.remove().await
}
