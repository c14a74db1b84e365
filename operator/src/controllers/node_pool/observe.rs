//! What there is of a pool, and what its nodes say of themselves.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;

use super::roster;
use crate::{
    api::{BizraNode, Network, NodePool},
    controllers::{
        Context, ReconcileError, Source,
        ownership::{Ownership, ownership},
        reading,
    },
    probe::Word,
    resources::{labels, pod},
};

/// All a plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Time of the observation.
    pub now: Timestamp,
    /// The pool's Network, if it is there.
    pub network: Option<Network>,
    /// Every `BizraNode` the pool controls, every other one of a wanted name, and those the Network controls: their image is
    /// the default.
    pub nodes: Vec<BizraNode>,
    /// Pods of the pool.
    pub pods: Vec<Pod>,
    /// What the nodes in these pods said last, by node name.
    pub words: BTreeMap<String, Word>,
}

/// The pool as it is now; none if it is gone or another one.
pub async fn pool(context: &Context, source: Source, pool: &NodePool) -> Result<Option<NodePool>, ReconcileError> {
    let namespace = pool.namespace().unwrap_or_default();
    let live: Option<NodePool> = reading::one(context, source, &namespace, &pool.name_any(), "the NodePool").await?;
    Ok(live.filter(|live| live.uid() == pool.uid()))
}

/// Reads everything.
pub async fn observe(context: &Context, source: Source, pool: &NodePool) -> Result<Observed, ReconcileError> {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let of = &pool.spec.network_ref.name;
    let network: Option<Network> = reading::one(context, source, &namespace, of, "the Network").await?;
    let nodes: Vec<BizraNode> = reading::of_network(context, source, &namespace, of, "the BizraNodes").await?;
    let mut pods: Vec<Pod> = reading::of_network(context, source, &namespace, of, "the pods").await?;
    pods.retain(|pod| pod::label(&pod.metadata, labels::POOL) == Some(&name));
    let words = pods
        .iter()
        .map(|pod| {
            let key = (namespace.clone(), pod.name_any());
            (pod.name_any(), context.probes.latest(&key, &pod.uid().unwrap_or_default()))
        })
        .collect();
    let mut observed = Observed { now: Timestamp::now(), network, nodes, pods, words };
    let wanted = roster::names(pool, &observed);
    let matters = |node: &BizraNode, network: Option<&Network>| {
        let is_of_network = || network.is_some_and(|network| ownership(&node.metadata, network) == Ownership::Ours);
        ownership(&node.metadata, pool) == Ownership::Ours || wanted.contains(&node.name_any()) || is_of_network()
    };
    observed.nodes.retain(|node| matters(node, observed.network.as_ref()));
    for name in &wanted {
        if observed.nodes.iter().all(|node| node.name_any() != *name) {
            observed.nodes.extend(reading::one(context, source, &namespace, name, "the BizraNodes").await?);
        }
    }
    Ok(observed)
}
