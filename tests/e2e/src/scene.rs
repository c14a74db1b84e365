//! A namespace with one network in it, removed when the test is over.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bizra_operator::api::{BizraNode, Network};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A test could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// The API server refused.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    /// Something that should have come did not.
    #[error("waited {seconds} s in vain until {what}; last seen: {seen}")]
    Patience {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was there instead.
        seen: String,
    },
    /// A sample or an answer is not what it should be.
    #[error("{0}")]
    Unexpected(String),
}

/// A namespace of its own.
pub struct Scene {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl Scene {
    /// Makes a fresh namespace with restricted pod security, or empties the one that an interrupted test left.
    pub async fn start(name: &str) -> Result<Self, SceneError> {
        let client = Client::try_default().await?;
        let scene = Self { client, namespace: format!("e2e-{name}") };
        scene.remove().await?;
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(scene.namespace.clone()),
                labels: Some([("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(scene.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(scene)
    }

    /// Removes the namespace and waits until it is gone.
    pub async fn remove(&self) -> Result<(), SceneError> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.wait("the namespace is gone", 120, || async {
            Ok(match namespaces.get_opt(&self.namespace).await? {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.status)),
            })
        })
        .await
    }

    /// Objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a manifest strictly, as `kubectl apply --server-side` does.
    pub async fn apply(&self, network: &serde_json::Value) -> Result<Network, kube::Error> {
        let name = network.pointer("/metadata/name").and_then(|name| name.as_str()).unwrap_or("demo");
        let parameters = PatchParams { field_manager: Some("e2e".to_owned()), force: true, ..PatchParams::default() }
            .validation_strict();
        self.api::<Network>().patch(name, &parameters, &Patch::Apply(network)).await
    }

    /// Waits until `look` is content; it says what it sees instead.
    pub async fn wait<F, L>(&self, what: &str, seconds: u64, look: F) -> Result<(), SceneError>
    where
        F: Fn() -> L,
        L: Future<Output = Result<Result<(), String>, SceneError>>,
    {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let seen = match look().await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(seen)) => seen,
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(SceneError::Patience { what: what.to_owned(), seconds, seen });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the Network is Ready for its current generation.
    pub async fn wait_ready(&self, network: &str, seconds: u64) -> Result<(), SceneError> {
        self.wait(&format!("network {network} is ready"), seconds, || async {
            let network = self.api::<Network>().get(network).await?;
            let generation = network.metadata.generation;
            let status = network.status.unwrap_or_default();
            let current = Some(status.observed_generation) == generation;
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            Ok(if current && ready { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await
    }

    /// Waits for a condition of the Network with this status and reason.
    pub async fn wait_condition(
        &self,
        network: &str,
        type_: &str,
        reason: &str,
        seconds: u64,
    ) -> Result<String, SceneError> {
        let api = self.api::<Network>();
        let find = |network: &Network| {
            let conditions = network.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            conditions.into_iter().find(|c| c.type_ == type_ && c.status == "True" && c.reason == reason)
        };
        self.wait(&format!("network {network} has {type_}/{reason}"), seconds, || async {
            let network = api.get(network).await?;
            Ok(find(&network).map(|_| ()).ok_or_else(|| format!("{:?}", network.status)))
        })
        .await?;
        let network = api.get(network).await?;
        Ok(find(&network).map(|condition| condition.message).unwrap_or_default())
    }

    /// Names of all objects of a kind.
    pub async fn names<K>(&self) -> Result<Vec<String>, SceneError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await?;
        let mut names: Vec<String> = list.iter().map(kube::ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the Network and everything it controls is gone.
    pub async fn wait_deleted(&self, network: &str) -> Result<(), SceneError> {
        self.api::<Network>().delete(network, &DeleteParams::default()).await?;
        self.wait("nodes, pods and the network are gone", 90, || async {
            let networks = self.names::<Network>().await?;
            let nodes = self.names::<BizraNode>().await?;
            let pods = self.names::<Pod>().await?;
            let left = [networks, nodes, pods].concat();
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
        })
        .await
    }

    /// Claims and the genesis, which outlive a Network.
    pub async fn retained(&self) -> Result<(Vec<String>, Option<ConfigMap>), SceneError> {
        let claims = self.names::<PersistentVolumeClaim>().await?;
        let maps = self.api::<ConfigMap>().list(&ListParams::default()).await?;
        Ok((claims, maps.into_iter().find(|map| map.name_any().ends_with("-genesis"))))
    }
}

/// A file of this repository. Cargo says where that is when it runs tests; programs are run from its root.
pub fn from_root(path: &str) -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.map_or_else(|| PathBuf::from(path), |package| package.join("../..").join(path))
}

/// A sample of `config/samples/` as JSON.
pub fn sample(name: &str) -> Result<serde_json::Value, SceneError> {
    let path = from_root(&format!("config/samples/{name}.yaml"));
    let unexpected = |error: &dyn std::fmt::Display| SceneError::Unexpected(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| unexpected(&error))?;
    serde_yaml_ng::from_str(&text).map_err(|error| unexpected(&error))
}

/// The smallest sample with settings that make tests cheap.
pub fn small_network(chain_id: &str) -> Result<serde_json::Value, SceneError> {
    let mut network = sample("network-smallest")?;
    network["spec"]["chainId"] = json!(chain_id);
    network["spec"]["storage"] = json!({ "size": "1Gi" });
    network["spec"]["resources"] = json!({ "requests": { "cpu": "50m" }, "limits": { "memory": "512Mi" } });
    Ok(network)
}
