//! What a Network says about all its nodes and a `BizraNode` about itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::OBJECT_NAME;

/// Settings of a node's pod and volume. Every field has a default.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeTemplate {
    /// Container image of the node. Left out, the image the operator was installed with.
    #[serde(default)]
    pub image: ImageSpec,

    /// Secrets with registry credentials, in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub image_pull_secrets: Vec<SecretReference>,

    /// The node's volume: keys, signing record and database.
    #[serde(default)]
    pub storage: StorageSpec,

    /// Compute resources. Memory request and limit are always the same; left out, 1Gi and 250m of CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "!has(self.requests) || !has(self.limits) || !('memory' in self.requests) || !('memory' in self.limits) || quantity(string(self.requests['memory'])).compareTo(quantity(string(self.limits['memory']))) == 0",
            "message": "the memory request and limit of a node must be equal, so that it is not evicted when its host runs short; set only one of them"
        },
        {
            "rule": "!has(self.claims) || size(self.claims) == 0",
            "message": "resource claims are not supported; remove resources.claims"
        }
    ]))]
    pub resources: Option<ResourceRequirements>,

    /// Labels a host must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints the pod tolerates, besides not-ready and unreachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Scheduling constraints, besides the spread over hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Whether two nodes of a network may share a host.
    #[serde(default)]
    pub host_spread: HostSpread,

    /// Priority class of the pod. Voting nodes should have one, so that they are not preempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub priority_class_name: Option<String>,

    /// Labels and annotations added to the pod.
    #[serde(default)]
    pub pod: PodMetadataSpec,
}

/// A container image.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(has(self.tag) && has(self.digest))",
        "message": "name the image by tag or by digest, not by both; remove image.tag to pin the digest"
    },
    {
        "rule": "!(has(self.repository) && !has(self.tag) && !has(self.digest))",
        "message": "an image needs a version; set image.tag or image.digest besides image.repository"
    }
]))]
pub struct ImageSpec {
    /// Registry and repository, without tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z0-9][-a-zA-Z0-9._/:]*$"))]
    pub repository: Option<String>,

    /// Tag; either this or `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_][-a-zA-Z0-9._]*$"))]
    pub tag: Option<String>,

    /// Digest, such as `sha256:…`; either this or `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135), regex(pattern = r"^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$"))]
    pub digest: Option<String>,

    /// When the kubelet pulls the image.
    #[serde(default)]
    pub pull_policy: PullPolicy,
}

/// When the kubelet pulls an image.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// A Secret in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// The node's volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        "message": "a volume cannot shrink; set storage.size to its present value or a larger one"
    },
    {
        "rule": "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
        "message": "the storage class of an existing volume cannot change; set storage.className back"
    },
    {
        "rule": "!has(self.autoGrow) || quantity(self.autoGrow.limit).compareTo(quantity(self.size)) >= 0",
        "message": "a volume cannot grow to less than its size; set storage.autoGrow.limit to storage.size or more"
    }
]))]
pub struct StorageSpec {
    /// Storage class; left out, the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub class_name: Option<String>,

    /// Size of the volume. It can grow if the storage class allows expansion, and never shrinks.
    #[serde(default = "default_size")]
    #[schemars(length(max = 20), regex(pattern = r"^[1-9][0-9]*(Mi|Gi|Ti|Pi|M|G|T|P)?$"))]
    pub size: String,

    /// Grow the volume by itself when it fills up, also when it is full already. Needs a storage class that allows expansion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_grow: Option<AutoGrowSpec>,
}

/// How a volume is grown when it fills up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AutoGrowSpec {
    /// Percent in use at which the volume is grown.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 10, max = 95))]
    pub threshold_percent: i32,

    /// By how many percent of its size it is grown.
    #[serde(default = "default_step")]
    #[schemars(range(min = 1, max = 100))]
    pub step_percent: i32,

    /// It is never grown beyond this.
    #[schemars(length(max = 20), regex(pattern = r"^[1-9][0-9]*(Mi|Gi|Ti|Pi|M|G|T|P)?$"))]
    pub limit: String,

    /// Seconds from one growth to the next. Many providers refuse a second one within six hours.
    #[serde(default = "default_growth_pause")]
    #[schemars(range(min = 10, max = 604_800))]
    pub cool_down_seconds: i32,
}

fn default_threshold() -> i32 {
    80
}

fn default_step() -> i32 {
    20
}

fn default_growth_pause() -> i32 {
    21_600
}

fn default_size() -> String {
    "10Gi".to_owned()
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { class_name: None, size: default_size(), auto_grow: None }
    }
}

/// Whether two nodes of a network may share a host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostSpread {
    /// Never: a pod without a free host stays Pending.
    #[default]
    Required,
    /// Only if there is no other host. One lost host may then cost more power than the network survives.
    Preferred,
}

/// Labels and annotations added to a pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMetadataSpec {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = [{
        "rule": "self.all(key, !key.startsWith('bizra.io/') && !key.startsWith('app.kubernetes.io/'))",
        "message": "labels under bizra.io/ and app.kubernetes.io/ are set by the operator; choose another prefix"
    }]))]
    pub labels: BTreeMap<String, String>,

    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = [{
        "rule": "self.all(key, !key.startsWith('bizra.io/'))",
        "message": "annotations under bizra.io/ are set by the operator; choose another prefix"
    }]))]
    pub annotations: BTreeMap<String, String>,
}
