//! Two operators: the leader is paused in the middle of a change, another one takes over, and then the first wakes up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bizra_e2e::{
    operator,
    process::Process,
    scene::SceneError,
    stage::{NETWORK, Stage},
};
use bizra_operator::api::Network;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

type Outcome = Result<(), SceneError>;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make e2e` has it"]
async fn a_leader_that_was_paused_across_a_take_over_ends_itself_and_writes_nothing() -> Outcome {
    let mut stage = Stage::start("leader", |_| {}).await?;
    operator::scale(&stage.scene, 2).await?;
    let outcome = paused_leader(&mut stage).await;
    operator::scale(&stage.scene, 1).await?;
    outcome?;
    stage.finish().await
}

async fn paused_leader(stage: &mut Stage) -> Outcome {
    let client = stage.scene.client.clone();
    let old = operator::wait_leader(&stage.scene, |_| true, 30).await?;
    let restarts = operator::restarts(&client, &old).await?;
    let mut process = Process::of_pod(&operator::pod_uid(&client, &old).await?, "bizra-operator")?;
    stage.begin();

    // It has begun something: a permit is out.
    stage.change(json!({ "resources": { "requests": { "cpu": "60m" }, "limits": { "memory": "512Mi" } } })).await?;
    stage
        .scene
        .wait("a permit is granted", 30, || async {
            let status = stage.scene.api::<Network>().get(NETWORK).await?.status.unwrap_or_default();
            Ok(if status.permit.is_some() { Ok(()) } else { Err(format!("{:?}", status.conditions)) })
        })
        .await?;
    process.pause()?;
    operator::wait_leader(&stage.scene, |leader| leader != old, 40).await?;
    let resumed = Timestamp::now();
    process.resume()?;

    stage
        .scene
        .wait("the former leader has ended itself", 30, || async {
            let now = operator::restarts(&client, &old).await?;
            Ok(if now > restarts { Ok(()) } else { Err(format!("{now} restarts")) })
        })
        .await?;
    let words = operator::last_words(&client, &old).await?;
    let end = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    assert!(end.contains("lease"), "it did not end for the lease: {end}");
    let writes = operator::writes_since(&words, resumed);
    assert!(writes.is_empty(), "the resumed leader wrote: {writes:?}");

    // The new leader finishes what the old one has begun.
    stage
        .scene
        .wait("the change has gone round", 240, || async {
            let status = stage.scene.api::<Network>().get(NETWORK).await?.status.unwrap_or_default();
            let is = |type_: &str| status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
            let done = is("UpToDate") && is("Ready") && status.permit.is_none();
            Ok(if done { Ok(()) } else { Err(format!("{:?}", status.conditions)) })
        })
        .await?;
    stage.end("leader paused across a take-over, in a rolling change").await?;
    Ok(())
}
