//! `Network`: a validator network. It controls its genesis validators and holds what all nodes share.

use std::{collections::BTreeMap, time::Duration};

use bizra_proto::parameters::Parameters;
use k8s_openapi::{
    api::networking::v1::NetworkPolicyPeer,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Activity, NodeTemplate, Reconciliation};

/// Columns of `kubectl get`: name, type and path.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
    ("Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
    ("Validators", "integer", ".status.validators.ready"),
    ("Height", "integer", ".status.height"),
    ("Lag", "integer", ".status.lag"),
    ("Version", "string", ".status.version"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// What a validator network is meant to be.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "bizra.io",
    version = "v1alpha1",
    kind = "Network",
    plural = "networks",
    shortname = "bnet",
    category = "bizra",
    namespaced,
    status = "NetworkStatus",
    derive = "PartialEq",
    doc = "A network of Byzantine-fault-tolerant validators."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.chainId == oldSelf.chainId",
        "message": "the chain id of a network cannot change; create a new Network for a new chain, or set spec.chainId back"
    },
    {
        "rule": "self.genesis == oldSelf.genesis",
        "message": "the genesis cannot change once the network exists; set spec.genesis back, and move money by transactions"
    }
]))]
pub struct NetworkSpec {
    /// Name of the chain, signed into every transaction and vote.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub chain_id: String,

    /// Number of validators, each with the same power to begin with; 3f + 1 validators survive f faults. Once there is a chain, more join
    /// it and fewer leave it by transactions of their owners, one after the other, the highest ordinal first to go. `Validator`s that
    /// people make are not counted.
    #[serde(default = "default_validators")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "self >= 4",
            "message": "a network needs at least four validators, because four are the least that survive one fault; set spec.validators to 4 or more"
        },
        {
            "rule": "self <= 31",
            "message": "a network has at most 31 validators of its own; set spec.validators to 31 or less"
        }
    ]))]
    pub validators: i32,

    /// What the chain starts from, besides the validators.
    #[serde(default)]
    pub genesis: GenesisSpec,

    /// Settings of every validator's pod and volume.
    #[serde(flatten)]
    pub template: NodeTemplate,

    /// The Service for clients, `<network>-api`.
    #[serde(default)]
    pub service: ServiceSpec,

    /// Who may reach the nodes over the pod network.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,

    /// Lifetimes of the network's certificates and authorities.
    #[serde(default)]
    pub certificates: CertificatesSpec,

    /// What happens to volumes and genesis when the Network is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether the operator works on this network. Paused, it changes nothing of it and of the nodes it controls, and goes on
    /// to report.
    #[serde(default)]
    pub reconciliation: Reconciliation,

    /// Whether the network runs. Hibernated, all pods of its nodes are removed at once; volumes, keys and genesis stay.
    #[serde(default)]
    pub activity: Activity,

    /// How long a restarted node has to be in sync again before a rolling change is stopped. A revision that never was in
    /// sync anywhere is then rolled back on that node.
    #[serde(default = "default_update_deadline")]
    #[schemars(range(min = 10, max = 86_400))]
    pub update_deadline_seconds: i32,

    /// A revision, as `status.revision` shows it, that may be rolled out although no quorum remains while a node restarts:
    /// no block is finalised meanwhile. Needed if one validator holds a third of the power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub allow_quorum_loss_for: Option<String>,

    /// Jailings that somebody has looked into, by the `id` that `status.jailings` shows. Until all of them are named here the
    /// operator changes no validator of its own accord. Only one that the status knows can be added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 84), regex(pattern = r"^[0-9a-f]{64}@[1-9][0-9]*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub acknowledged_jailings: Vec<String>,
}

fn default_update_deadline() -> i32 {
    300
}

fn default_validators() -> i32 {
    4
}

/// What the chain starts from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GenesisSpec {
    /// Accounts with money at height 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"]))]
    pub accounts: Vec<GenesisAccountSpec>,
    /// Accounts with the stake of one validator each, besides those of the genesis validators: for validators that `spec.validators` adds
    /// later. The operator keeps their keys, as it keeps those of the genesis validators' owners.
    #[serde(default = "default_spare_validators")]
    #[schemars(range(min = 0, max = 96))]
    pub spare_validators: i32,
    /// Parameters of the ledger at height 0. But for the length of an epoch, owners of more than two thirds of the power can change
    /// them on the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<LedgerParametersSpec>,
}

fn default_spare_validators() -> i32 {
    16
}

impl Default for GenesisSpec {
    fn default() -> Self {
        Self { accounts: Vec::new(), spare_validators: default_spare_validators(), parameters: None }
    }
}

/// Parameters of the ledger.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerParametersSpec {
    /// Blocks from one change of the validator set to the next. An idle chain has a block each second.
    #[serde(default = "default_epoch_blocks")]
    #[schemars(range(min = 32, max = 1_048_576), extend("multipleOf" = 16))]
    pub epoch_blocks: i32,
    /// Epochs from the release of a stake to its payment, and how long evidence counts.
    #[serde(default = "default_unbonding_epochs")]
    #[schemars(range(min = 1, max = 1_024))]
    pub unbonding_epochs: i32,
    /// Base units of stake for one unit of voting power. Each genesis validator begins with the stake for one unit.
    #[serde(default = "default_stake_per_power")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_i64))]
    pub stake_per_power: i64,
    /// Thousandths of its stake that a validator loses which signs two conflicting votes.
    #[serde(default = "default_slash_per_mille")]
    #[schemars(range(min = 0, max = 1_000))]
    pub slash_per_mille: i32,
}

fn default_epoch_blocks() -> i32 {
    4_096
}

fn default_unbonding_epochs() -> i32 {
    64
}

fn default_stake_per_power() -> i64 {
    1_000
}

fn default_slash_per_mille() -> i32 {
    50
}

impl LedgerParametersSpec {
    /// As a genesis has them.
    pub fn of_genesis(&self) -> Parameters {
        let number = |number: i32| u32::try_from(number).unwrap_or(0);
        Parameters {
            epoch_blocks: number(self.epoch_blocks).into(),
            unbonding_epochs: number(self.unbonding_epochs),
            stake_per_power: u64::try_from(self.stake_per_power).unwrap_or(0),
            slash_per_mille: u16::try_from(self.slash_per_mille).unwrap_or(0),
            ..Parameters::default()
        }
    }
}

/// An account of height 0.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct GenesisAccountSpec {
    /// Ed25519 public key of the owner, 64 lower-case hex digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub address: String,
    /// Balance in base units: a decimal number of at most 18 digits, as a string.
    #[schemars(length(min = 1, max = 18), regex(pattern = r"^(0|[1-9][0-9]*)$"))]
    pub balance: String,
}

/// The Service for clients.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// How the Service is published.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Annotations of the Service, for load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// How a Service is published.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Who may reach the nodes over the pod network. Enforced by the cluster's network plugin, if it knows `NetworkPolicy`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicySpec {
    /// Whether there is a `NetworkPolicy` that lets through what is named here, and nothing else.
    #[serde(default)]
    pub mode: NetworkPolicyMode,

    /// Who may use the client ports, gRPC and HTTP: peers as in a `NetworkPolicy`. Left out, whoever reaches the Service if
    /// that is a `NodePort` or `LoadBalancer`, and otherwise the pods of this namespace. An empty list is nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub clients: Option<Vec<NetworkPolicyPeer>>,

    /// Who may read the metrics: peers as in a `NetworkPolicy`. Left out, pods of any namespace that are labelled
    /// `app.kubernetes.io/name: prometheus`. An empty list is nobody; the kubelet's probes always come through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub monitoring: Option<Vec<NetworkPolicyPeer>>,
}

/// Whether the nodes are closed off.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// What is not allowed is denied, in both directions.
    #[default]
    DefaultDeny,
    /// There is no policy of the operator's; one it made is removed.
    Disabled,
}

/// Lifetimes of the network's certificates and of the authorities that sign them. Both are replaced when two thirds are
/// over, without a restart; authorities with an overlap in which old and new are trusted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.authorityLifetimeSeconds >= 4 * self.nodeLifetimeSeconds",
    "message": "an authority must outlive the certificates it signs and its own replacement; set certificates.authorityLifetimeSeconds to at least four times certificates.nodeLifetimeSeconds"
}]))]
pub struct CertificatesSpec {
    /// How long a node's certificate is valid.
    #[serde(default = "default_node_lifetime")]
    #[schemars(range(min = 90, max = 31_536_000))]
    pub node_lifetime_seconds: i32,

    /// How long an authority is valid.
    #[serde(default = "default_authority_lifetime")]
    #[schemars(range(min = 360, max = 630_720_000))]
    pub authority_lifetime_seconds: i32,

    /// Raise it to have the authorities replaced now.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub rotation: i32,
}

/// Ninety days.
fn default_node_lifetime() -> i32 {
    7_776_000
}

/// Ten years.
fn default_authority_lifetime() -> i32 {
    315_360_000
}

impl Default for CertificatesSpec {
    fn default() -> Self {
        Self {
            node_lifetime_seconds: default_node_lifetime(),
            authority_lifetime_seconds: default_authority_lifetime(),
            rotation: 0,
        }
    }
}

impl CertificatesSpec {
    /// How long a node's certificate is valid.
    pub fn node_lifetime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.node_lifetime_seconds).unwrap_or(0))
    }

    /// How long an authority is valid.
    pub fn authority_lifetime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.authority_lifetime_seconds).unwrap_or(0))
    }
}

/// What happens to the data of a deleted Network.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Volumes and genesis stay; a Network of the same name and chain continues the chain.
    #[default]
    Retain,
    /// Volumes and genesis are deleted. The chain is lost.
    Delete,
}

/// What a validator network is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Generation of the spec this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Conditions, by type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// How many validators are wanted, exist, and work.
    #[serde(default)]
    pub validators: ValidatorCounts,
    /// Voting power, as the nodes report it.
    #[serde(default)]
    pub quorum: QuorumStatus,
    /// Highest finalised height any node reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Blocks by which the slowest reporting validator is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Version of the running nodes; several, if they differ, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// SHA-256 of the genesis file, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub genesis_hash: Option<String>,
    /// Revision of the nodes' template that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
    /// The latest revision that was in sync on a validator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub good_revision: Option<String>,
    /// The one node that may be down for a planned change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Permit>,
    /// The revision whose roll-out was stopped, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<FailedRevision>,
    /// Nodes that are not as they should be, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub offenders: Vec<Offender>,
    /// Validators that the chain has jailed. One stays until it is acknowledged and no node has its key any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub jailings: Vec<Jailing>,
}

/// A validator that signed two conflicting votes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Jailing {
    /// What `spec.acknowledgedJailings` calls it: the key and the height, which nobody knows before.
    #[schemars(length(max = 84))]
    pub id: String,
    /// Name of the `Validator`.
    #[schemars(length(max = 63))]
    pub validator: String,
    /// Name of the `BizraNode` it was of when it was found.
    #[schemars(length(max = 63))]
    pub node: String,
    /// The consensus key, lower-case hex. It never votes again.
    #[schemars(length(max = 64))]
    pub public_key: String,
    /// The block that jailed it.
    pub height: i64,
}

/// Leave to take one voting node down. There is at most one at a time.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// What the node is taken down for.
    #[serde(default)]
    pub purpose: PermitPurpose,
    /// Name of the `BizraNode`.
    #[schemars(length(max = 63))]
    pub node: String,
    /// Uid of the pod that may be evicted; empty if the node had none.
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// Revision of the template the node is to have.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// The pod may be evicted until then.
    pub expires_at: Time,
    /// The node has to be in sync again until then.
    pub deadline_at: Time,
}

/// What a permit is for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermitPurpose {
    /// To be made from another revision.
    #[default]
    Change,
    /// To be restarted, because it is stuck.
    Restart,
    /// To have its database set aside and fetched from peers.
    Resync,
    /// To lose keys that are gone or refuse, and get new ones.
    NewKeys,
}

/// A revision whose roll-out was stopped.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailedRevision {
    /// The revision.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// The node that did not come back with it.
    #[schemars(length(max = 63))]
    pub node: String,
    /// What that node was last seen to be.
    #[schemars(length(max = 512))]
    pub message: String,
    /// The revision the node was rolled back to; none if the failed one had been in sync elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rolled_back_to: Option<String>,
}

/// Numbers of validators.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidatorCounts {
    /// Wanted by the spec.
    #[serde(default)]
    pub desired: i32,
    /// In sync and able to vote, by their own word.
    #[serde(default)]
    pub ready: i32,
    /// Whose signature is in a recent certificate.
    #[serde(default)]
    pub voting: i32,
}

/// Voting power as decimal strings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QuorumStatus {
    /// Power of all validators.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub total_power: String,
    /// Power of the validators that are in sync and able to vote.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub ready_power: String,
    /// The least power that finalises a block.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub needed_power: String,
}

impl Default for QuorumStatus {
    fn default() -> Self {
        Self { total_power: "0".to_owned(), ready_power: "0".to_owned(), needed_power: "0".to_owned() }
    }
}

/// A node that is not as it should be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Name of the `BizraNode`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Reason of its `Ready` condition.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Message of its `Ready` condition, shortened.
    #[schemars(length(max = 256))]
    pub message: String,
}
