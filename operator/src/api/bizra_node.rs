//! `BizraNode`: one node of a network; one pod, one volume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeTemplate, Reconciliation, Signing, schema::OBJECT_NAME};

/// Columns of `kubectl get`: name, type and path.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
    ("Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
    ("Height", "integer", ".status.height"),
    ("Lag", "integer", ".status.lag"),
    ("Peers", "integer", ".status.peers"),
    ("Version", "string", ".status.version"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// What a node is meant to be. Whether it validates is not said here: the chain knows.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "bizra.io",
    version = "v1alpha1",
    kind = "BizraNode",
    plural = "bizranodes",
    shortname = "bnode",
    category = "bizra",
    namespaced,
    status = "BizraNodeStatus",
    derive = "PartialEq",
    doc = "One node of a validator network: a pod with its volume."
)]
#[serde(rename_all = "camelCase")]
pub struct BizraNodeSpec {
    /// The Network this node belongs to, in the same namespace.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.name == oldSelf.name",
        "message": "a node cannot move to another network, because its volume belongs to one chain; set spec.networkRef.name back, or create a new BizraNode"
    }]))]
    pub network_ref: NetworkReference,

    /// Whether the operator works on this node. Paused, it changes nothing of it and goes on to report.
    #[serde(default, skip_serializing_if = "Reconciliation::is_active")]
    #[schemars(extend("default" = "Active"))]
    pub reconciliation: Reconciliation,

    /// Whether the node may sign. A fenced node is up and in sync, and signs nothing: taken up within seconds, without a
    /// restart of its pod and without a permit.
    #[serde(default, skip_serializing_if = "Signing::is_allowed")]
    #[schemars(extend("default" = "Allowed"))]
    pub signing: Signing,

    /// Settings of the pod and volume.
    #[serde(flatten)]
    pub template: NodeTemplate,
}

/// A Network in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct NetworkReference {
    /// Its name.
    #[schemars(length(min = 1, max = 40), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// What a node is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BizraNodeStatus {
    /// Generation of the spec this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Conditions, by type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Highest block this node has finalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Blocks by which it is behind the highest height it knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Height of the latest finalised block whose certificate carries this node's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_voted_height: Option<i64>,
    /// Number of connected peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<i32>,
    /// Version of the running binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Voting power, a decimal number; "0" for a full node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub power: Option<String>,
    /// Consensus public key, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub public_key: Option<String>,
    /// Genesis the node has pinned, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub genesis_hash: Option<String>,
    /// The node's TLS signing request, PEM; kept so that certificates can be renewed while the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub certificate_request: Option<String>,
    /// Revision the pod should have; what it has is its annotation `bizra.io/revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
    /// Uid of the volume claim in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub volume_id: Option<String>,
    /// How full the volume is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStatus>,
    /// The latest repair; gone when the node has been well for a while. Remove it to have repairs counted anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
}

/// How full a volume is, by its node's word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Bytes of its file system.
    pub total_bytes: i64,
    /// Bytes that can still be written.
    pub free_bytes: i64,
}

/// A pod that is to be replaced, or was, to repair its node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// What was wrong.
    pub cause: RepairCause,
    /// What is done.
    pub action: RepairAction,
    /// Uid of the pod that is replaced.
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// When it was decided.
    pub ordered_at: Time,
    /// Number of this repair since the node was well.
    pub attempt: i32,
}

/// Why a node is repaired.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairCause {
    /// It stopped, and said that its database is damaged.
    DatabaseCorrupt,
    /// It runs and makes no progress, by its kubelet's word.
    Stuck,
    /// Its volume is gone, or goes when its pod ends, and its keys with it.
    VolumeLost,
    /// It stopped, and said that its keys or its signing record are gone or refuse.
    KeyRefused,
}

/// How a node is repaired.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairAction {
    /// A new pod.
    Restart,
    /// A new pod whose database is set aside and fetched from peers. Keys and signing record stay.
    Resync,
    /// A new pod on a new volume, with new keys and the database from peers.
    NewVolume,
    /// A new pod with new keys on the same volume. Those that refuse are set aside.
    NewKeys,
}
