//! What a pod can reach over the pod network: it really tries, with the project's own client.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::scene::{Scene, SceneError};

/// What the client says if no connection came about. With one it says something else, whatever listens there.
const NO_CONNECTION: &str = "cannot reach a node";

impl Scene {
    /// Runs a pod of this namespace on a host, with these labels, that tries each of these addresses (`host:port`), and
    /// gives those to which a connection came about.
    pub async fn reaches(
        &self,
        name: &str,
        host: &str,
        labels: &serde_json::Value,
        image: &str,
        addresses: &[String],
    ) -> Result<Vec<String>, SceneError> {
        let containers: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| {
                json!({
                    "name": format!("try-{index}"), "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": ["bizra-node", "blocks", "--node", format!("http://{address}"), "--limit", "1"],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
                        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
                    },
                })
            })
            .collect();
        // Rules know a pod by its address, which is told only when its first container has been started. As nodes do, this one
        // begins with a container that has no business on the network.
        let mut first = containers.first().cloned().unwrap_or_default();
        first["name"] = json!("first");
        first["command"] = json!(["bizra-node", "--version"]);
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {
                "nodeName": host, "restartPolicy": "Never", "automountServiceAccountToken": false,
                "initContainers": [first], "containers": containers,
            },
        }))
        .map_err(|error| SceneError::Unexpected(error.to_string()))?;
        let pods: Api<Pod> = self.api();
        pods.create(&PostParams::default(), &pod).await?;
        self.wait(&format!("pod {name} has tried everything"), 60, || async {
            let phase = pods.get(name).await?.status.and_then(|status| status.phase).unwrap_or_default();
            Ok(if matches!(phase.as_str(), "Succeeded" | "Failed") { Ok(()) } else { Err(phase) })
        })
        .await?;
        let status = pods.get(name).await?.status.unwrap_or_default();
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(name, &now).await?;

        let mut reached = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let container = format!("try-{index}");
            let ended = status
                .container_statuses
                .iter()
                .flatten()
                .find(|status| status.name == container)
                .and_then(|status| status.state.as_ref()?.terminated.as_ref())
                .ok_or_else(|| SceneError::Unexpected(format!("{container} of {name} did not run: {status:?}")))?;
            let said = ended.message.as_deref().unwrap_or_default();
            // A client that could not even start has tried nothing.
            if ended.exit_code != 0 && !said.contains(NO_CONNECTION) && !said.contains("the node answered") {
                return Err(SceneError::Unexpected(format!("{container} of {name}: {said}")));
            }
            if !said.contains(NO_CONNECTION) {
                reached.push(address.clone());
            }
        }
        Ok(reached)
    }
}
