//! `Validator`: an owner account and a stake, tied to a node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    NetworkReference, default_host_grace_seconds,
    schema::{OBJECT_NAME, SECRET_KEY},
};

/// Columns of `kubectl get`: name, type and path. Those of priority 1 are shown with `-o wide`.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
    ("Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
    ("Node", "string", ".spec.nodeRef.name"),
    ("Stake", "string", ".status.stake"),
    ("Power", "string", ".status.power"),
    ("Epoch", "integer", ".status.effectiveEpoch"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// The same for `-o wide`.
pub(super) const WIDE_COLUMNS: &[(&str, &str, &str)] = &[
    ("Step", "string", ".status.step"),
    ("Balance", "string", ".status.balance"),
    ("Missed", "integer", ".status.turnsMissed"),
    ("Owner", "string", ".status.address"),
    ("Key", "string", ".status.publicKey"),
];

/// What a validator of the chain is meant to be.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "bizra.io",
    version = "v1alpha1",
    kind = "Validator",
    plural = "validators",
    shortname = "bval",
    category = "bizra",
    namespaced,
    status = "ValidatorStatus",
    derive = "PartialEq",
    doc = "A validator of a network: an owner account and its stake, tied to a node."
)]
#[serde(rename_all = "camelCase")]
pub struct ValidatorSpec {
    /// The Network it validates for, in the same namespace.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.name == oldSelf.name",
        "message": "a validator cannot move to another network, because its stake is on one chain; set spec.networkRef.name back, or create a new Validator"
    }]))]
    pub network_ref: NetworkReference,

    /// The `BizraNode` whose key votes. Another one is a move: the validator leaves the set with the one and joins it with the other.
    pub node_ref: NodeReference,

    /// The account that owns the validator. Left out, it is one whose key the operator makes and keeps: see `status.address`, which
    /// needs the money for the stake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerSpec>,

    /// Stake in base units: a decimal number of at most 18 digits, as a string. More is reserved from the owner's balance at once;
    /// less unbonds with the network's delay.
    #[schemars(length(min = 1, max = 18), regex(pattern = r"^[1-9][0-9]*$"))]
    pub stake: String,

    /// What the operator pays for each of the owner's transactions, in base units.
    #[serde(default = "default_fee")]
    #[schemars(length(min = 1, max = 18), regex(pattern = r"^(0|[1-9][0-9]*)$"))]
    pub fee: String,

    /// For how long the host of the validator's node must have been out of reach, by Kubernetes and by the node's silence, until
    /// another node takes its place, with another name and a new key. The node on the host ends when the host is back and
    /// the new key votes; its volume stays.
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

    /// What happens on the chain when this object is deleted.
    #[serde(default)]
    pub deletion_policy: ValidatorDeletionPolicy,
}

fn default_fee() -> String {
    "0".to_owned()
}

/// A `BizraNode` in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct NodeReference {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// Where the owner's key is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OwnerSpec {
    /// Name of a Secret in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub secret_name: String,
    /// Key in the Secret: 64 lower-case hex digits, as `bizra-node keygen` writes them.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub secret_key: String,
}

fn default_secret_key() -> String {
    "owner.key".to_owned()
}

/// What happens on the chain when a Validator is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValidatorDeletionPolicy {
    /// It leaves the set and the registry, and the object goes when its stake is back on the owner's account.
    #[default]
    Release,
    /// Nothing: the validator stays what it is, for its owner to look after.
    Abandon,
}

/// A step of the saga: one transaction of the owner's account.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SagaStep {
    /// Money becomes stake.
    ReserveStake,
    /// The validator gets its place in the registry.
    RegisterValidator,
    /// It is queued for the set, with the node's key.
    ActivateValidator,
    /// It is queued for the set with another key.
    RotateConsensusKey,
    /// It is queued for leaving the set.
    DeactivateValidator,
    /// It loses its place in the registry.
    DeregisterValidator,
    /// Stake starts to unbond.
    ReleaseStake,
    /// What has unbonded comes back to the balance.
    CollectStake,
}

/// What a validator is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ValidatorStatus {
    /// Generation of the spec this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Conditions, by type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The step whose transaction is under way; none while nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<SagaStep>,
    /// The owner's account: its Ed25519 public key, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address: Option<String>,
    /// The `BizraNode` that validates. It is another one than `spec.nodeRef` names after that one's host was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub node: Option<String>,
    /// The `BizraNode` that is to take its place: it does once its key is the only one of the validator's in the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub replacement: Option<String>,
    /// The registered consensus key, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub public_key: Option<String>,
    /// Voting power in the set computed last, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub power: Option<String>,
    /// The epoch of that set: the running one, or the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_epoch: Option<i64>,
    /// Reserved stake in base units, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub stake: Option<String>,
    /// Parts of the stake that unbond.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unbonding: Vec<UnbondingStake>,
    /// Balance of the owner's account in base units, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub balance: Option<String>,
    /// The block that jailed it, for two conflicting votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jailed_at: Option<i64>,
    /// Turns to lead since the last cut-off that came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_missed: Option<i64>,
    /// The transaction under way, signed. Written before it is submitted, so that whoever goes on submits the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<PendingTransaction>,
    /// What ended the saga of this generation: a step that the chain refused. What came before is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The last transactions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<SagaRecord>,
}

/// A part of a stake that unbonds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct UnbondingStake {
    /// Epoch from which it can be collected.
    pub epoch: i64,
    /// Base units, a decimal number.
    #[schemars(length(max = 20))]
    pub amount: String,
}

/// A signed transaction that is not known to be final.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingTransaction {
    /// What it does.
    pub step: SagaStep,
    /// Its id, lower-case hex.
    #[schemars(length(max = 64))]
    pub id: String,
    /// The owner's nonce in it.
    pub nonce: i64,
    /// The last block that may hold it.
    pub expiry_height: i64,
    /// Its bytes, lower-case hex.
    #[schemars(length(max = 2048))]
    pub bytes: String,
    /// Generation of the spec it serves.
    pub generation: i64,
}

/// A step that the chain refused.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The step.
    pub step: SagaStep,
    /// The chain's reason, such as `KeyInUse`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Generation of the spec it was for; another one is tried anew.
    pub generation: i64,
}

/// What became of a transaction.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SagaRecord {
    /// What it was to do.
    pub step: SagaStep,
    /// Its id, lower-case hex.
    #[schemars(length(max = 64))]
    pub transaction_id: String,
    /// The block that holds it; none if it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// When the operator learnt of it.
    pub time: Time,
    /// Why it had no effect; none if it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub failure: Option<String>,
}
