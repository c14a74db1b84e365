//! One write to the API server. Each is safe to repeat and to lose: names are fixed, creates meet `AlreadyExists`,
//! deletes and patches carry the uid and version of what was observed.

use std::fmt::Debug;

use k8s_openapi::{api::core::v1::Pod, serde::de::DeserializeOwned};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::Status,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    cache::{Debt, ObjectKey},
    compare::covers,
};
use crate::{
    planted::{self, Bug},
    resources::{labels, short_hash},
};

/// Where an object is.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    resource: ApiResource,
    namespace: String,
    name: String,
}

impl Target {
    /// The place of `object`.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }

    /// Kind and name, for people.
    pub fn describe(&self) -> String {
        format!("{} {}/{}", self.resource.kind, self.namespace, self.name)
    }

    /// Kind of the object.
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        (self.namespace.clone(), self.name.clone())
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &self.resource)
    }
}

/// An object to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Where it goes.
    pub target: Target,
    /// The whole object.
    pub body: Value,
}

impl Manifest {
    /// Turns a typed object into a manifest.
    pub fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Self, serde_json::Error> {
        let target = Target::of(object);
        let mut body = serde_json::to_value(object)?;
        body["apiVersion"] = json!(target.resource.api_version);
        body["kind"] = json!(target.resource.kind);
        Ok(Self { target, body })
    }

    /// Annotates the manifest with its own hash, so that a field taken out of it is noticed too.
    #[must_use]
    pub fn stamped(mut self) -> Self {
        let hash = short_hash(self.body.to_string().as_bytes());
        self.body["metadata"]["annotations"][labels::APPLIED] = json!(hash);
        self
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Server-side apply with force: the object is ours.
    Apply(Manifest),
    /// Create; an object that is there already stays as it is.
    Create(Manifest),
    /// JSON merge patch of an object that must still have this uid and, if given, this version.
    Merge {
        /// What to patch.
        target: Target,
        /// The patch, without preconditions.
        patch: Value,
        /// Uid the object must have.
        uid: String,
        /// Version the object must have.
        resource_version: Option<String>,
    },
    /// Delete, in the background, of the object with this uid and version.
    Delete {
        /// What to delete.
        target: Target,
        /// Uid the object must have.
        uid: String,
        /// Version the object must have.
        resource_version: Option<String>,
    },
    /// Evicts the pod with this uid and, if given, this version, within its disruption budget.
    Evict {
        /// The pod.
        target: Target,
        /// Uid it must have.
        uid: String,
        /// Version it must have.
        resource_version: Option<String>,
    },
}

impl Write {
    /// What the write does to what, for logs.
    pub fn describe(&self) -> String {
        match self {
            Self::Apply(manifest) => format!("apply {}", manifest.target.describe()),
            Self::Create(manifest) => format!("create {}", manifest.target.describe()),
            Self::Merge { target, .. } => format!("patch {}", target.describe()),
            Self::Delete { target, .. } => format!("delete {}", target.describe()),
            Self::Evict { target, .. } => format!("evict {}", target.describe()),
        }
    }

    /// The verb, for metrics.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Create(_) => "create",
            Self::Merge { .. } => "patch",
            Self::Delete { .. } => "delete",
            Self::Evict { .. } => "evict",
        }
    }

    /// What is written.
    pub fn target(&self) -> &Target {
        match self {
            Self::Apply(manifest) | Self::Create(manifest) => &manifest.target,
            Self::Merge { target, .. } | Self::Delete { target, .. } | Self::Evict { target, .. } => target,
        }
    }

    /// True if it makes a volume larger.
    pub fn grows_a_volume(&self) -> bool {
        let Self::Merge { target, patch, .. } = self else { return false };
        target.kind() == "PersistentVolumeClaim" && patch.pointer("/spec/resources/requests/storage").is_some()
    }

    /// True if it takes something away.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Evict { .. })
    }

    /// Deletes `object` as it was observed.
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Delete {
            target: Target::of(object),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version(),
        }
    }

    /// Evicts `pod`. Its kubelet writes its status all the time; only the uid matters.
    pub fn evict(pod: &Pod) -> Self {
        Self::Evict { target: Target::of(pod), uid: pod.uid().unwrap_or_default(), resource_version: None }
    }

    /// Evicts `pod` only as it was observed.
    pub fn evict_unchanged(pod: &Pod) -> Self {
        let (uid, resource_version) = (pod.uid().unwrap_or_default(), pod.resource_version());
        Self::Evict { target: Target::of(pod), uid, resource_version }
    }

    /// Patches a pod whatever its version: its kubelet writes its status all the time, and only the uid matters.
    pub fn merge_pod(pod: &Pod, patch: Value) -> Self {
        Self::Merge { target: Target::of(pod), patch, uid: pod.uid().unwrap_or_default(), resource_version: None }
    }

    /// Patches `object` as it was observed.
    pub fn merge<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::Merge {
            target: Target::of(object),
            patch,
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version(),
        }
    }
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The object was written.
    Written,
    /// Somebody was faster, or the object is gone or another one now: observe again.
    Superseded,
    /// The disruption budget does not allow the eviction now, or the storage class not the growth of a volume; in the API
    /// server's words.
    Refused(String),
}

/// How a write ended, and what a cache has to have seen before it is planned from again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// How it ended.
    pub outcome: WriteOutcome,
    /// What the cache of its kind owes.
    pub debt: Debt,
}

/// A write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused it or could not be reached.
    #[error("failed to {what}: {source}")]
    Api {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
}

impl WriteError {
    /// True if the same write will be refused again, until somebody changes it or a rule of the API server. A namespace that
    /// ends refuses everything, and nobody has to act.
    pub fn is_refusal(&self) -> bool {
        let Self::Api { source: kube::Error::Api(status), .. } = self else { return false };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        matches!(status.code, 400 | 403 | 422) && !causes.any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// Executes one write. After a failure nobody knows what the object is like: the caches owe [`Debt::Unknown`].
pub async fn execute(client: &Client, write: &Write) -> Result<Done, WriteError> {
    let written = |object: DynamicObject| match object.metadata.resource_version {
        Some(version) => Debt::Version { version, is_report: false },
        None => Debt::Unknown,
    };
    let result = match write {
        Write::Apply(manifest) => {
            let parameters = PatchParams::apply(labels::MANAGER).force();
            let api = manifest.target.api(client);
            api.patch(&manifest.target.name, &parameters, &Patch::Apply(&manifest.body)).await.map(written)
        }
        Write::Create(manifest) => {
            let object: DynamicObject = serde_json::from_value(manifest.body.clone())
                .map_err(|error| WriteError::Api { what: write.describe(), source: kube::Error::SerdeError(error) })?;
            let parameters = PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
            manifest.target.api(client).create(&parameters, &object).await.map(written)
        }
        Write::Merge { target, patch, uid, resource_version } => {
            let mut patch = patch.clone();
            patch["metadata"]["uid"] = json!(uid);
            if let Some(version) = resource_version {
                patch["metadata"]["resourceVersion"] = json!(version);
            }
            let parameters = PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
            target.api(client).patch(&target.name, &parameters, &Patch::Merge(&patch)).await.map(written)
        }
        Write::Delete { target, uid, resource_version } => {
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: (!planted::is(Bug::DeletionUnbound))
                    .then(|| Preconditions { uid: Some(uid.clone()), resource_version: resource_version.clone() }),
                ..DeleteParams::default()
            };
            target.api(client).delete(&target.name, &parameters).await.map(|_| Debt::End { uid: uid.clone() })
        }
        Write::Evict { target, uid, resource_version } => {
            let mut preconditions = if planted::is(Bug::EvictionUnbound) { json!({}) } else { json!({"uid": uid}) };
            if let Some(version) = resource_version {
                preconditions["resourceVersion"] = json!(version);
            }
            // Not `Api::evict`: what it calls `delete_options` the API server does not know, and the preconditions are lost.
            let eviction = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": target.name, "namespace": target.namespace},
                "deleteOptions": {"preconditions": preconditions},
            });
            let pods: Api<Pod> = Api::namespaced(client.clone(), &target.namespace);
            let parameters = PostParams::default();
            let evicted = pods.create_subresource::<Value, Value>("eviction", &target.name, &parameters, &eviction);
            evicted.await.map(|_| Debt::End { uid: uid.clone() })
        }
    };
    // Whoever was faster: what the object is like now has to be read.
    let superseded = Ok(Done { outcome: WriteOutcome::Superseded, debt: Debt::Unknown });
    match result {
        Ok(debt) => Ok(Done { outcome: WriteOutcome::Written, debt }),
        // 429 may also be an overloaded API server, and 500 is the answer if two budgets cover the pod; either way the eviction
        // is tried again later.
        Err(kube::Error::Api(status)) if matches!(status.code, 429 | 500) && matches!(write, Write::Evict { .. }) => {
            Ok(Done { outcome: WriteOutcome::Refused(words_of(&status)), debt: Debt::Unknown })
        }
        // Nothing else that is patched on a claim can be forbidden; its storage class allows no growth.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) && write.grows_a_volume() => {
            Ok(Done { outcome: WriteOutcome::Refused(words_of(&status)), debt: Debt::Unknown })
        }
        // 409 is a conflict or `AlreadyExists`. A missing object is what a delete wanted, and a patch has to look again.
        Err(kube::Error::Api(status)) if status.code == 409 => superseded,
        Err(kube::Error::Api(status)) if status.code == 404 && is_on_existing(write) => superseded,
        Err(source) => Err(WriteError::Api { what: write.describe(), source }),
    }
}

/// Why the API server refused something. The causes say which budget it was.
fn words_of(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let words: Vec<&str> =
        std::iter::once(status.message.as_str()).chain(causes).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

fn is_on_existing(write: &Write) -> bool {
    matches!(write, Write::Merge { .. } | Write::Delete { .. } | Write::Evict { .. })
}

/// True if the API server says that the object is not there, and nothing less certain.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The apply that makes `live` what `desired` says, or none if it is that already.
pub fn needs_apply<K>(live: Option<&K>, desired: &K) -> Result<Option<Write>, serde_json::Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Debug,
{
    let manifest = Manifest::of(desired)?.stamped();
    if let Some(live) = live
        && covers(&Manifest::of(live)?.body, &manifest.body)
    {
        return Ok(None);
    }
    Ok(Some(Write::Apply(manifest)))
}
