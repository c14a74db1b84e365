//! A validator with an owner: its Secret, its `Validator`, and what becomes of its node's keys.

use bizra_operator::{
    api::{BizraNode, HostSpread, Validator, ValidatorStatus, condition},
    controllers::conditions::{find, is_true},
    resources::names,
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Secret},
    rbac::v1::RoleBinding,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    process::Process,
    scene::{Scene, SceneError},
    stage::{NETWORK, Stage},
    volume::Volume,
};

/// The owner's key.
const OWNER: [u8; 32] = [78; 32];
/// What the owner has at the beginning.
const BALANCE: u64 = 5_000;
/// Its stake.
const STAKE: &str = "1000";
/// The least that the schema allows.
const GRACE_SECONDS: i32 = 10;
/// Time for a validator to join.
const JOIN_SECONDS: u64 = 180;

/// Short epochs, and money for an owner. Where there is a fifth validator on five hosts, one that takes its place shares a host.
pub fn with_owner(network: &mut Value) {
    network["spec"]["hostSpread"] = json!("Preferred");
    network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 32, "unbondingEpochs": 2});
    let address = hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&SigningKey::from(OWNER))));
    if let Some(accounts) = network["spec"]["genesis"]["accounts"].as_array_mut() {
        accounts.push(json!({"address": address, "balance": BALANCE.to_string()}));
    }
}

/// A `Validator` of this name, whose node may lose its keys.
#[derive(Clone, Debug)]
pub struct Owned {
    name: String,
}

impl Owned {
    /// One that is there already.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Makes a fifth validator of this name, with a node of the same name, and waits until it validates.
    pub async fn join(stage: &mut Stage, name: &str) -> Result<Self, SceneError> {
        let scene = &stage.scene;
        let mut node = BizraNode::new(name, scene.api::<BizraNode>().get("demo-v0").await?.spec);
        node.spec.template.host_spread = HostSpread::Preferred;
        scene.api::<BizraNode>().create(&PostParams::default(), &node).await?;
        let secret = json!({"metadata": {"name": "owner"}, "stringData": {"owner.key": hex::encode(OWNER)}});
        scene.api::<Secret>().create(&PostParams::default(), &read(secret)?).await?;
        let binding = json!({
            "metadata": {"name": "owners"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bizra-owners"},
            "subjects": [{"kind": "ServiceAccount", "name": "bizra", "namespace": "bizra-system"}],
        });
        scene.api::<RoleBinding>().create(&PostParams::default(), &read(binding)?).await?;
        scene.wait_node_ready(name, JOIN_SECONDS).await?;
        let validator = json!({
            "apiVersion": "bizra.io/v1alpha1", "kind": "Validator", "metadata": {"name": name},
            "spec": {
                "networkRef": {"name": NETWORK}, "nodeRef": {"name": name}, "owner": {"secretName": "owner"},
                "stake": STAKE, "hostGraceSeconds": GRACE_SECONDS,
            },
        });
        scene.api::<Validator>().create(&PostParams::default(), &read(validator)?).await?;
        stage.witness.watch(&stage.scene, name);
        let owned = Self::named(name);
        owned.wait_validates(&stage.scene, JOIN_SECONDS).await?;
        Ok(owned)
    }

    /// Its status.
    pub async fn status(&self, scene: &Scene) -> Result<ValidatorStatus, SceneError> {
        Ok(scene.api::<Validator>().get(&self.name).await?.status.unwrap_or_default())
    }

    /// The node that validates.
    pub async fn node(&self, scene: &Scene) -> Result<String, SceneError> {
        let validator = scene.api::<Validator>().get(&self.name).await?;
        Ok(bizra_operator::controllers::validator::replacement::present(&validator).to_owned())
    }

    /// Waits until it validates with its node's key, and could do without that key.
    pub async fn wait_validates(&self, scene: &Scene, seconds: u64) -> Result<(), SceneError> {
        scene
            .wait(&format!("{} validates", self.name), seconds, || async {
                let status = self.status(scene).await?;
                let has = |type_| is_true(&status.conditions, type_);
                let is_so = has(condition::READY) && has(condition::KEY_REPLACEABLE) && has(condition::KEY_HEALTHY);
                Ok(if is_so && status.replacement.is_none() { Ok(()) } else { Err(format!("{status:?}")) })
            })
            .await
    }

    /// Deletes the claim of its node, as users do. It goes when the pod ends.
    pub async fn delete_claim(&self, scene: &Scene) -> Result<(), SceneError> {
        let claim = names::claim(&self.node(scene).await?);
        scene.api::<PersistentVolumeClaim>().delete(&claim, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Removes everything from the volume of its node, and kills the process, which would not notice.
    pub async fn wipe_volume(&self, scene: &Scene) -> Result<(), SceneError> {
        let uid = scene.pod_uid(&self.node(scene).await?).await?;
        let process = Process::of_pod(&uid, "bizra-node")?;
        Volume::of(&process).wipe()?;
        process.kill()
    }

    /// Waits until the operator has decided on another node, and says its name.
    pub async fn wait_replacement(&self, scene: &Scene, former: &str, seconds: u64) -> Result<String, SceneError> {
        scene
            .wait("another node takes its place", seconds, || async {
                let status = self.status(scene).await?;
                let named = status.replacement.or(status.node);
                Ok(if named.is_some_and(|name| name != former) { Ok(()) } else { Err(former.to_owned()) })
            })
            .await?;
        let status = self.status(scene).await?;
        let named = status.replacement.or(status.node);
        named.ok_or_else(|| SceneError::Unexpected(format!("{} forgot its replacement", self.name)))
    }

    /// Waits until the pod of a former node has ended.
    pub async fn wait_gone(&self, scene: &Scene, former: &str, seconds: u64) -> Result<(), SceneError> {
        scene
            .wait(&format!("the pod of {former} has ended"), seconds, || async {
                let pod = scene.api::<Pod>().get_opt(former).await?;
                Ok(pod.map_or(Ok(()), |pod| Err(format!("{:?} {:?}", pod.uid(), pod.status))))
            })
            .await
    }

    /// True if this reason is told of it.
    pub async fn tells(&self, scene: &Scene, type_: &str, reason: &str) -> Result<bool, SceneError> {
        let status = self.status(scene).await?;
        Ok(find(&status.conditions, type_).is_some_and(|told| told.reason == reason))
    }
}

fn read<K: serde::de::DeserializeOwned>(object: Value) -> Result<K, SceneError> {
    serde_json::from_value(object).map_err(|error| SceneError::Unexpected(error.to_string()))
}
