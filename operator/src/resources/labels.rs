//! Labels and annotations, and what they mean.

use std::collections::BTreeMap;

/// Who made the object. Watches select on it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the name of the field manager.
pub const MANAGER: &str = "bizra-operator";
/// What the object is part of.
pub const NAME: &str = "app.kubernetes.io/name";
/// Value of [`NAME`] on everything that belongs to a node.
pub const NODE_NAME_VALUE: &str = "bizra-node";
/// What role a node was made for.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Name of the Network.
pub const NETWORK: &str = "bizra.io/network";
/// Namespace of the Network, where the object lives in another one.
pub const NETWORK_NAMESPACE: &str = "bizra.io/network-namespace";
/// Uid of the Network.
pub const NETWORK_UID: &str = "bizra.io/network-uid";
/// Name of the Secret itself, on a Secret with the seed of a network's owners: Secrets are listed by labels, not read by name.
pub const OWNERS: &str = "bizra.io/owners";
/// Annotation of an authority's Secret: the how manyth of its network it is. Without it, the first.
pub const AUTHORITY_GENERATION: &str = "bizra.io/authority-generation";
/// Annotation of an authority's Secret: `spec.certificates.rotation` when it was made. Without it, 0.
pub const ROTATION: &str = "bizra.io/rotation";
/// Name of the `BizraNode`.
pub const NODE: &str = "bizra.io/node";
/// Name of the `NodePool`.
pub const POOL: &str = "bizra.io/pool";
/// Chain a volume or genesis belongs to.
pub const CHAIN_ID: &str = "bizra.io/chain-id";
/// First half of the genesis hash (a label holds at most 63 characters); the annotation of this name has all of it.
pub const GENESIS_HASH: &str = "bizra.io/genesis-hash";
/// Annotation: uid of the claim a pod was made for.
pub const VOLUME_ID: &str = "bizra.io/volume-id";
/// Annotation: hash of what a pod was made from.
pub const REVISION: &str = "bizra.io/revision";
/// Annotation of a `BizraNode`: revision of the template its Network has given it.
pub const TEMPLATE_REVISION: &str = "bizra.io/template-revision";
/// Annotation of a `BizraNode` that is controlled, and of a pod: the image of those that name none, which is the one of the
/// operator that made it. It stays, so a new operator restarts nobody, and a spec that names no image any more goes back to it.
pub const DEFAULT_IMAGE: &str = "bizra.io/default-image";
/// Annotation: hash of the documents mounted into a pod; writing it makes the kubelet refresh the mounts at once.
pub const DOCUMENTS: &str = "bizra.io/documents";
/// Annotation of a pod: uid of the pod that it replaces as a repair.
pub const REPAIR: &str = "bizra.io/repair";
/// Annotation of a `BizraNode`: the one whose place it takes, because the host of that was lost.
pub const REPLACES: &str = "bizra.io/replaces";
/// Annotation of a volume claim: when the operator has grown it by itself.
pub const GROWN_AT: &str = "bizra.io/grown-at";
/// Annotation: hash of the last applied manifest.
pub const APPLIED: &str = "bizra.io/applied";
/// Finalizer of a Network whose data is to be deleted with it.
pub const DATA_FINALIZER: &str = "bizra.io/data";
/// Annotation that keeps Argo CD from pruning what outlives the Network.
pub const ARGOCD_SYNC_OPTIONS: &str = "argocd.argoproj.io/sync-options";

/// What a node was made for. What it is, the chain decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// One of the genesis validators a Network controls.
    Validator,
    /// Any other node.
    FullNode,
}

impl Component {
    /// The label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::FullNode => "full-node",
        }
    }
}

/// Labels of what belongs to a whole network.
pub fn of_network(network: &str) -> BTreeMap<String, String> {
    [(MANAGED_BY, MANAGER), (NAME, NODE_NAME_VALUE), (NETWORK, network)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Labels of what belongs to one node.
pub fn of_node(network: &str, node: &str) -> BTreeMap<String, String> {
    let mut labels = of_network(network);
    labels.insert(NODE.to_owned(), node.to_owned());
    labels
}

/// Labels that select the pods of a network.
pub fn selector(network: &str) -> BTreeMap<String, String> {
    [(NAME, NODE_NAME_VALUE), (NETWORK, network)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Selects the pods of a pool, as the API server reads it.
pub fn pool_selector(pool: &str) -> String {
    format!("{POOL}={pool}")
}

/// The part of a genesis hash that fits a label.
pub fn genesis_label(hash: &str) -> &str {
    hash.get(..32).unwrap_or(hash)
}

/// The annotation that keeps Argo CD from pruning.
pub fn retained() -> (String, String) {
    (ARGOCD_SYNC_OPTIONS.to_owned(), "Prune=false".to_owned())
}
