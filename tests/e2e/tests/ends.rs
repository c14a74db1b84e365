//! What ends: pods that Kubernetes has given up, and networks whose data goes with them.
#![allow(clippy::unwrap_used)]

use bizra_e2e::scene::{Scene, SceneError, small_network};
use bizra_operator::api::{BizraNode, Network};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

type Outcome = Result<(), SceneError>;

#[tokio::test]
async fn a_pod_that_kubernetes_has_ended_is_made_anew_and_a_network_can_take_its_data_along() -> Outcome {
    let scene = Scene::start("ends").await?;
    let mut network = small_network("ends-1")?;
    network["spec"]["deletionPolicy"] = json!("Delete");
    scene.apply(&network).await?;
    scene.wait_ready("demo", 120).await?;

    // Kubernetes ends the pod for good, as it does with one that its host has no room for.
    let pods = scene.api::<Pod>();
    let before = pods.get("demo-v2").await?.uid();
    let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
    pods.patch("demo-v2", &PatchParams::default(), &deadline).await?;
    scene
        .wait("demo-v2 is back", 120, || async {
            let after = pods.get("demo-v2").await?.uid();
            let node = scene.api::<BizraNode>().get("demo-v2").await?.status.unwrap_or_default();
            let ready = node.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            Ok(if after != before && ready { Ok(()) } else { Err(format!("{:?}", node.conditions)) })
        })
        .await?;

    scene.api::<Network>().delete("demo", &DeleteParams::default()).await?;
    scene
        .wait("network, nodes, volumes and genesis are gone", 120, || async {
            let (claims, genesis) = scene.retained().await?;
            let networks = scene.names::<Network>().await?;
            let nodes = scene.names::<BizraNode>().await?;
            let left = [networks, nodes, claims, genesis.iter().map(kube::ResourceExt::name_any).collect()].concat();
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
        })
        .await?;
    scene.remove().await
}
