//! The operator as it is installed on the cluster.

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::scene::{Scene, SceneError};

/// Where the operator is.
pub const NAMESPACE: &str = "bizra-system";
/// Label of its pods, and name of its lease.
const NAME: &str = "bizra-operator";

/// The operator's pods.
pub fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Which pods are the operator's.
pub fn selector() -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"))
}

/// Kills all of them at once.
pub async fn kill(client: &Client) -> Result<(), SceneError> {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods(client).delete_collection(&now, &selector()).await?;
    Ok(())
}

/// Sets the number of replicas and waits until so many are ready, and no others are left.
pub async fn scale(scene: &Scene, replicas: usize) -> Result<(), SceneError> {
    let deployments: Api<Deployment> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    // Its name is that of the release.
    let found = deployments.list(&selector()).await?.items.into_iter().next();
    let found = found.ok_or_else(|| SceneError::Unexpected(format!("no operator is installed in {NAMESPACE}")))?;
    deployments.patch_scale(&found.name_any(), &PatchParams::default(), &patch).await?;
    scene
        .wait(&format!("{replicas} operators are ready"), 60, || async {
            let pods = pods(&scene.client).list(&selector()).await?.items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let all = pods.len() == replicas && ready == replicas;
            Ok(if all { Ok(()) } else { Err(format!("{} pods, {ready} ready", pods.len())) })
        })
        .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Name of the pod that leads; empty if none does.
pub async fn leader(client: &Client) -> Result<String, SceneError> {
    let lease = Api::<Lease>::namespaced(client.clone(), NAMESPACE).get(NAME).await?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
}

/// Waits until a pod leads that `wanted` is content with, and returns its name.
pub async fn wait_leader(scene: &Scene, wanted: impl Fn(&str) -> bool, seconds: u64) -> Result<String, SceneError> {
    scene
        .wait("another operator leads", seconds, || async {
            let leader = leader(&scene.client).await?;
            Ok(if !leader.is_empty() && wanted(&leader) { Ok(()) } else { Err(format!("{leader:?} leads")) })
        })
        .await?;
    leader(&scene.client).await
}

/// How often the operator's container in this pod was started again.
pub async fn restarts(client: &Client, pod: &str) -> Result<i32, SceneError> {
    let pod = pods(client).get(pod).await?;
    let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok(statuses.iter().map(|status| status.restart_count).sum())
}

/// Uid of one of the operator's pods.
pub async fn pod_uid(client: &Client, pod: &str) -> Result<String, SceneError> {
    Ok(pods(client).get(pod).await?.uid().unwrap_or_default())
}

/// What the container before the present one said.
pub async fn last_words(client: &Client, pod: &str) -> Result<String, SceneError> {
    Ok(pods(client).logs(pod, &LogParams { previous: true, ..LogParams::default() }).await?)
}

/// The writes an operator's log tells of, at or after a time.
pub fn writes_since(log: &str, since: Timestamp) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| {
            let at = line["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            line["fields"]["message"] == "write" && at.is_some_and(|at| at >= since)
        })
        .map(|line| line["fields"].to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_writes_after_a_time_are_found() {
        let line = |at: &str, message: &str| {
            json!({ "timestamp": at, "fields": { "message": message, "write": "apply Pod a/b" } }).to_string()
        };
        let log = [
            line("2026-11-25T10:00:00.100000Z", "write"),
            line("2026-11-25T10:00:02.000001Z", "leading"),
            "error: lost the lease".to_owned(),
            line("2026-11-25T10:00:02.000002Z", "write"),
        ]
        .join("\n");
        let since: Timestamp = "2026-11-25T10:00:01Z".parse().unwrap();
        assert_eq!(writes_since(&log, since).len(), 1);
    }
}
