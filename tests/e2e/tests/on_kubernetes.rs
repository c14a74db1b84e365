//! A network's life on a real cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bizra_e2e::operator;
use bizra_e2e::scene::{Scene, SceneError, from_root, sample, small_network};
use bizra_e2e::stage::VALIDATORS;
use bizra_operator::api::{BizraNode, Network, NodePool};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

type Outcome = Result<(), SceneError>;

#[tokio::test]
async fn four_validators_agree_on_every_block_and_survive_a_killed_one() -> Outcome {
    let scene = Scene::start("life").await?;
    let mut network = sample("network-demo")?;
    network["spec"]["storage"] = json!({ "size": "1Gi" });
    scene.apply(&network).await?;
    scene.wait_ready("demo", 120).await?;

    // Transactions from outside the cluster are finalised.
    let report = scene.transact("demo", 2_000, 1_000).await?;
    assert!(report.contains("\"applied\": 2000"), "{report}");

    // A killed validator comes back under its own name, on its own volume, and votes; the chain never stops.
    let pods = scene.api::<Pod>();
    let before = pods.get("demo-v1").await?;
    let height = scene.height("demo-v0").await?;
    pods.delete("demo-v1", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
    scene.wait_height("demo-v0", height + 5, 30).await?;
    scene
        .wait("demo-v1 is back and votes", 90, || async {
            let after = pods.get("demo-v1").await?;
            let node = scene.api::<BizraNode>().get("demo-v1").await?.status.unwrap_or_default();
            let voted = node.last_voted_height.unwrap_or_default() > i64::try_from(height).unwrap_or(i64::MAX);
            let ready = node.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let new = after.uid() != before.uid();
            Ok(if new && ready && voted { Ok(()) } else { Err(format!("{node:?}")) })
        })
        .await?;

    // Every block, by every node's own word.
    let mut lowest = u64::MAX;
    for pod in VALIDATORS {
        lowest = lowest.min(scene.height(pod).await?);
    }
    assert!(lowest > height, "{lowest} is not above {height}");
    for height in 0..=lowest {
        let first = scene.block_hash(VALIDATORS[0], height).await?;
        for pod in &VALIDATORS[1..] {
            assert_eq!(scene.block_hash(pod, height).await?, first, "{pod} disagrees at height {height}");
        }
    }
    scene.remove().await
}

#[tokio::test]
async fn an_operator_killed_over_and_over_while_it_creates_a_network_still_makes_one() -> Outcome {
    let scene = Scene::start("killed").await?;
    scene.apply(&small_network("killed-1")?).await?;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        operator::kill(&scene.client).await?;
    }
    scene.wait_ready("demo", 150).await?;
    let (claims, genesis) = scene.retained().await?;
    assert_eq!(claims.len(), 4, "{claims:?}");
    assert!(genesis.is_some());
    assert_eq!(scene.names::<BizraNode>().await?, VALIDATORS);
    scene.remove().await
}

#[tokio::test]
async fn a_deleted_network_keeps_its_data_and_continues_when_applied_again() -> Outcome {
    let scene = Scene::start("retained").await?;
    let network = small_network("retained-1")?;
    scene.apply(&network).await?;
    scene.wait_ready("demo", 120).await?;
    scene.wait_height("demo-v0", 3, 30).await?;
    let height = scene.height("demo-v0").await?;
    let hash = scene.block_hash("demo-v0", 2).await?;
    let (claims, genesis) = scene.retained().await?;

    scene.wait_deleted("demo").await?;
    let (claims_after, genesis_after) = scene.retained().await?;
    assert_eq!(claims_after, claims);
    assert_eq!(genesis_after.as_ref().map(|map| &map.data), genesis.as_ref().map(|map| &map.data));
    let left: Vec<String> = scene.names::<ConfigMap>().await?;
    assert!(left.iter().all(|name| name == "kube-root-ca.crt" || name.ends_with("-genesis")), "{left:?}");

    scene.apply(&network).await?;
    scene.wait_ready("demo", 120).await?;
    scene.wait_height("demo-v0", height + 2, 30).await?;
    assert_eq!(scene.block_hash("demo-v0", 2).await?, hash);

    // The same volumes under another chain are refused and not touched.
    scene.wait_deleted("demo").await?;
    scene.apply(&small_network("another-1")?).await?;
    let message = scene.wait_condition("demo", "Stalled", "DataFromAnotherChain", 60).await?;
    assert!(message.contains("retained-1"), "{message}");
    let (claims_after, _) = scene.retained().await?;
    assert_eq!(claims_after, claims);
    scene.remove().await
}

/// Runs `kubectl scale`, and waits until that many nodes are in sync.
async fn scale_pool(scene: &Scene, replicas: i32) -> Outcome {
    let output = std::process::Command::new("kubectl")
        .args(["--namespace", &scene.namespace, "scale", "nodepool", "readers", &format!("--replicas={replicas}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_for_pool(scene, replicas).await
}

async fn wait_for_pool(scene: &Scene, replicas: i32) -> Outcome {
    scene
        .wait(&format!("the pool has {replicas} nodes in sync"), 120, || async {
            let pool = scene.api::<NodePool>().get("readers").await?;
            let status = pool.status.unwrap_or_default();
            let current = Some(status.observed_generation) == pool.metadata.generation;
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let counted = (status.replicas, status.ready_replicas) == (replicas, replicas);
            Ok(if current && ready && counted { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await
}

#[tokio::test]
async fn a_pool_of_full_nodes_is_scaled_by_kubectl_and_keeps_its_volumes() -> Outcome {
    let scene = Scene::start("pool").await?;
    let network = small_network("pool-1")?;
    scene.apply(&network).await?;
    let mut pool = sample("nodepool-readers")?;
    pool["metadata"]["name"] = json!("readers");
    pool["spec"]["networkRef"]["name"] = json!("demo");
    pool["spec"]["replicas"] = json!(1);
    pool["spec"]["storage"] = network["spec"]["storage"].clone();
    pool["spec"]["resources"] = network["spec"]["resources"].clone();
    let parameters = PatchParams::apply("e2e").force().validation_strict();
    scene.api::<NodePool>().patch("readers", &parameters, &Patch::Apply(&pool)).await?;
    scene.wait_ready("demo", 120).await?;
    wait_for_pool(&scene, 1).await?;

    scale_pool(&scene, 2).await?;
    let height = scene.height("demo-v0").await?;
    scene.wait_height("readers-1", height, 60).await?;
    let hash = scene.block_hash("demo-v0", height).await?;
    assert_eq!(scene.block_hash("readers-1", height).await?, hash, "a full node has the same chain");
    let claims = scene.names::<PersistentVolumeClaim>().await?;

    scale_pool(&scene, 0).await?;
    scene
        .wait("the pods of the pool are gone", 90, || async {
            let pods = scene.names::<Pod>().await?;
            Ok(if pods == VALIDATORS { Ok(()) } else { Err(pods.join(", ")) })
        })
        .await?;
    scale_pool(&scene, 1).await?;
    assert_eq!(scene.names::<PersistentVolumeClaim>().await?, claims, "no volume was deleted or made anew");
    scene.remove().await
}

#[tokio::test]
async fn an_invalid_network_is_refused_with_a_sentence_that_helps() -> Outcome {
    let scene = Scene::start("invalid").await?;
    let refusal = |result: Result<Network, kube::Error>| match result {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("not refused: {other:?}"),
    };
    let mut three = small_network("invalid-1")?;
    three["spec"]["validators"] = json!(3);
    let message = refusal(scene.apply(&three).await);
    assert!(message.contains("four are the least that survive one fault"), "{message}");

    let mut unknown = small_network("invalid-1")?;
    unknown["spec"]["colour"] = json!("red");
    let message = refusal(scene.apply(&unknown).await);
    assert!(message.contains("colour"), "{message}");

    let network = small_network("invalid-1")?;
    scene.apply(&network).await?;
    let mut smaller = network.clone();
    smaller["spec"]["storage"]["size"] = json!("500Mi");
    let message = refusal(scene.apply(&smaller).await);
    assert!(message.contains("shrink"), "{message}");
    let message = refusal(scene.apply(&small_network("invalid-2")?).await);
    assert!(message.contains("chain id of a network cannot change"), "{message}");
    scene.remove().await
}

#[tokio::test]
async fn every_sample_is_accepted_by_the_api_server() -> Outcome {
    let client = Client::try_default().await?;
    let networks = Api::<Network>::namespaced(client, "default");
    let dry_run =
        PatchParams { dry_run: true, force: true, field_manager: Some("e2e".to_owned()), ..PatchParams::default() }
            .validation_strict();
    for name in ["network-smallest", "network-demo", "network-production"] {
        let sample = sample(name)?;
        let name = sample["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        networks.patch(&name, &dry_run, &Patch::Apply(&sample)).await?;
    }
    Ok(())
}

#[test]
fn the_operator_installs_without_helm_too() {
    let folder = from_root("config/default");
    // The chart of this test run owns the CRDs; without it nothing would have to be forced.
    let output = std::process::Command::new("kubectl")
        .args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--output=name", "-k"])
        .arg(&folder)
        .output()
        .unwrap();
    let (listed, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    for object in [
        "networks.bizra.io",
        "bizranodes.bizra.io",
        "nodepools.bizra.io",
        "validators.bizra.io",
        "deployment.apps/bizra-operator",
    ] {
        assert!(listed.contains(object), "{object} is not among {listed}");
    }
}
