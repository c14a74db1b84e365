//! The custom resources, one kind a file. Nothing here knows how to reconcile.

mod bizra_node;
mod modes;
mod network;
mod node_pool;
mod node_template;
mod schema;
mod validator;

pub use bizra_node::{
    BizraNode, BizraNodeSpec, BizraNodeStatus, NetworkReference, Repair, RepairAction, RepairCause, VolumeStatus,
};
pub use modes::{Activity, Reconciliation, Signing};
pub use network::{
    CertificatesSpec, DeletionPolicy, FailedRevision, GenesisAccountSpec, GenesisSpec, Jailing, LedgerParametersSpec,
    Network, NetworkPolicyMode, NetworkPolicySpec, NetworkSpec, NetworkStatus, Offender, Permit, PermitPurpose,
    QuorumStatus, ServiceSpec, ServiceType, ValidatorCounts,
};
pub use node_pool::{NodePool, NodePoolSpec, NodePoolStatus};
pub use node_template::{
    AutoGrowSpec, HostSpread, ImageSpec, NodeTemplate, PodMetadataSpec, PullPolicy, SecretReference, StorageSpec,
};
pub use schema::{definitions, validate, validate_update};
pub use validator::{
    NodeReference, OwnerSpec, PendingTransaction, Refusal, SagaRecord, SagaStep, UnbondingStake, Validator,
    ValidatorDeletionPolicy, ValidatorSpec, ValidatorStatus,
};

/// How long a host is waited for.
pub(crate) fn default_host_grace_seconds() -> i32 {
    300
}

/// API group of every kind.
pub const GROUP: &str = "bizra.io";

/// Version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Types of the conditions in a status. `Reconciling` and `Stalled` are true only when abnormal (kstatus).
pub mod condition {
    /// The object is what its spec says, as far as the nodes themselves say so.
    pub const READY: &str = "Ready";
    /// The operator is still working towards the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// The operator cannot go on without a change by somebody.
    pub const STALLED: &str = "Stalled";
    /// More than two thirds of the voting power are in sync and able to vote.
    pub const QUORUM_SAFE: &str = "QuorumSafe";
    /// At the head of the chain.
    pub const SYNCED: &str = "Synced";
    /// The pod runs what the spec asks for.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// One authority is trusted, and every certificate is of its signing.
    pub const CERTIFICATES_CURRENT: &str = "CertificatesCurrent";
    /// The node's key is not among the genesis validators although it is meant to be one: it runs as a full node.
    pub const KEY_NOT_IN_GENESIS: &str = "KeyNotInGenesis";
    /// Something is wrong with the node that does not pass by itself at once; the reason says what, the message what is
    /// done about it. Only there while that is so.
    pub const DEGRADED: &str = "Degraded";
    /// The operator changes nothing, because it was told so. Only there while that is so.
    pub const PAUSED: &str = "Paused";
    /// The node signs nothing, by its own word. Only there while it is told not to.
    pub const FENCED: &str = "Fenced";
    /// The network has no pods, because it was told so. Only there while that is so.
    pub const HIBERNATED: &str = "Hibernated";
    /// As much stake is reserved as the spec asks for.
    pub const STAKE_RESERVED: &str = "StakeReserved";
    /// The validator has its place in the registry of the chain.
    pub const REGISTERED: &str = "Registered";
    /// The validator is in the set computed last, with power.
    pub const ACTIVE: &str = "Active";
    /// The registered key is that of the node, and the node may sign with it.
    pub const KEY_HEALTHY: &str = "KeyHealthy";
    /// The validator signed two conflicting votes, and its key never votes again.
    pub const JAILED: &str = "Jailed";
    /// If the key of the validator's node is lost, the operator can put another one in its place.
    pub const KEY_REPLACEABLE: &str = "KeyReplaceable";
    /// Another node votes in this one's place, because its host was lost. Only there while that is so.
    pub const REPLACED: &str = "Replaced";
    /// A validator is jailed and nobody has acknowledged it: no other is changed. Only there while that is so.
    pub const JAILED_VALIDATOR: &str = "JailedValidator";
    /// One host or one zone runs validators with a third of the power: without it no block is finalised. Only there while
    /// that is so.
    pub const POWER_CONCENTRATED: &str = "PowerConcentrated";
}
