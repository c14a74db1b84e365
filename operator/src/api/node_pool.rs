//! `NodePool`: a number of full nodes that are alike.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NetworkReference, NodeTemplate, Reconciliation, default_host_grace_seconds};

/// Columns of `kubectl get`: name, type and path.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
    ("Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
    ("Network", "string", ".spec.networkRef.name"),
    ("Wanted", "integer", ".spec.replicas"),
    ("InSync", "integer", ".status.readyReplicas"),
    ("Updated", "integer", ".status.updatedReplicas"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// What a set of full nodes is meant to be. They follow the chain and serve clients; they hold no vote.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "bizra.io",
    version = "v1alpha1",
    kind = "NodePool",
    plural = "nodepools",
    shortname = "bpool",
    category = "bizra",
    namespaced,
    status = "NodePoolStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "A set of full nodes of a validator network."
)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolSpec {
    /// The Network these nodes follow, in the same namespace.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.name == oldSelf.name",
        "message": "a pool cannot move to another network, because its volumes belong to one chain; set spec.networkRef.name back, or create a new NodePool"
    }]))]
    pub network_ref: NetworkReference,

    /// Number of nodes, named `<pool>-<ordinal>`. The highest ordinal goes first. Volumes of nodes that go stay, also when
    /// the pool is deleted, and are used again by the next node of that name.
    #[serde(default = "default_replicas")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "self >= 0",
            "message": "a pool cannot have less than no node; set spec.replicas to 0 or more"
        },
        {
            "rule": "self <= 100",
            "message": "a pool has at most 100 nodes; set spec.replicas to 100 or less, or create another NodePool"
        }
    ]))]
    pub replicas: i32,

    /// How many nodes may be out of sync while the pool is changed to another revision. One that runs a revision it was never
    /// in sync with counts, so a revision that does not work reaches no more nodes than this.
    #[serde(default = "default_max_unavailable")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "self >= 1",
            "message": "at least one node has to be out of sync while it is changed; set spec.maxUnavailable to 1 or more"
        },
        {
            "rule": "self <= 100",
            "message": "a pool has at most 100 nodes; set spec.maxUnavailable to 100 or less"
        }
    ]))]
    pub max_unavailable: i32,

    /// For how long a host must have been out of reach, by Kubernetes and by the node's silence, until its node is made anew on
    /// another one, with another name and an empty volume. The node on the host is deleted, and ends when the host is back; its
    /// volume stays. At most `maxUnavailable` nodes that have not come up yet are made so at a time.
    #[serde(default = "default_host_grace_seconds")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "self >= 10",
            "message": "a host may be out of reach for moments; set spec.hostGraceSeconds to 10 or more"
        },
        {
            "rule": "self <= 604800",
            "message": "set spec.hostGraceSeconds to 604800, a week, or less"
        }
    ]))]
    pub host_grace_seconds: i32,

    /// Whether the operator works on this pool. Paused, no node of it is made, changed or removed; it goes on to report, and
    /// each node is still looked after.
    #[serde(default)]
    pub reconciliation: Reconciliation,

    /// Settings of every node's pod and volume. An image left out is the Network's.
    #[serde(flatten)]
    pub template: NodeTemplate,
}

fn default_replicas() -> i32 {
    1
}

fn default_max_unavailable() -> i32 {
    1
}

/// What a set of full nodes is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// Generation of the spec this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Conditions, by type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Nodes there are.
    #[serde(default)]
    pub replicas: i32,
    /// Nodes in sync, by their own word.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Nodes whose pods were made from the present spec.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Selects the pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub selector: Option<String>,
    /// Revision of the template the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
}
