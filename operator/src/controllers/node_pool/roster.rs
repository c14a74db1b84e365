//! Which nodes a pool is to have. Pure.
//!
//! As many as it is to have, those with the lowest ordinals first. A node whose host is lost is not among them as soon as
//! another can take its place: its volume, and its process if that still runs, stay with the host. It is lost only if two say so for
//! `hostGraceSeconds`: Kubernetes has not heard of the host, and the node does not answer the operator.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;

use super::observe::Observed;
use crate::{
    api::{BizraNode, NodePool},
    controllers::{
        hosts,
        ownership::{Ownership, ownership},
        quorum,
    },
    kubernetes::named,
    probe::Word,
    resources::names,
};

/// Whether a node may be removed with its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It has no vote.
    Free,
    /// It runs and has never said what it is.
    Unknown,
    /// It is a validator.
    Votes,
}

/// By what it says now, or else by what it said last: a validator that is down for the moment is one all the same.
pub fn leaving(node: &BizraNode, observed: &Observed) -> Leaving {
    let kept = || node.status.as_ref().and_then(|status| status.power.clone());
    let power = match observed.words.get(&node.name_any()) {
        Some(Word::Status(said)) if said.total_power > 0 => Some(said.power.to_string()),
        _ => kept(),
    };
    match power.as_deref() {
        Some("0") => Leaving::Free,
        Some(_) => Leaving::Votes,
        None if pod_of(observed, &node.name_any()).is_some_and(quorum::container_runs) => Leaving::Unknown,
        None => Leaving::Free,
    }
}

/// The pod of this name.
pub fn pod_of<'a>(observed: &'a Observed, name: &str) -> Option<&'a Pod> {
    named(&observed.pods, name)
}

/// Since when the host of a node has been lost; none if it is not, or if the node may have a vote, which no other node takes over.
pub fn lost_since(pool: &NodePool, node: &BizraNode, observed: &Observed) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(i64::from(pool.spec.host_grace_seconds));
    let since = hosts::unreachable_since(pod_of(observed, &node.name_any())?)?;
    let is_silent = matches!(observed.words.get(&node.name_any()), Some(Word::Unknown(_)));
    let is_lost = is_silent && observed.now.duration_since(since) >= grace && leaving(node, observed) == Leaving::Free;
    is_lost.then_some(since)
}

/// Names of the nodes the pool is to have, by ordinal.
pub fn names(pool: &NodePool, observed: &Observed) -> Vec<String> {
    let name = pool.name_any();
    let mut there: Vec<(bool, i32, &BizraNode)> = observed
        .nodes
        .iter()
        .filter(|node| ownership(&node.metadata, pool) == Ownership::Ours && node.metadata.deletion_timestamp.is_none())
        .filter_map(|node| {
            let ordinal = names::ordinal(&name, &node.name_any())?;
            Some((lost_since(pool, node, observed).is_some(), ordinal, node))
        })
        .collect();
    there.sort_by_key(|(is_lost, ordinal, _)| (*is_lost, *ordinal));
    there.truncate(usize::try_from(pool.spec.replicas).unwrap_or(0));

    // Nodes that nobody has heard of yet: while they do not come up, or hosts go one after the other, no more are made.
    let is_new = |node: &BizraNode| node.status.as_ref().is_none_or(|status| status.power.is_none());
    let coming = there.iter().filter(|(is_lost, _, node)| !is_lost && is_new(node)).count();
    let mut may_replace = usize::try_from(pool.spec.max_unavailable).unwrap_or(1).saturating_sub(coming);
    there.retain(|(is_lost, ..)| {
        let goes = *is_lost && may_replace > 0;
        may_replace -= usize::from(goes);
        !goes
    });

    let mut ordinals: BTreeSet<i32> = there.iter().map(|(_, ordinal, _)| *ordinal).collect();
    // A name is free again when the pod of that name is gone from its host.
    let is_free = |ordinal: &i32| {
        let pod = pod_of(observed, &names::pool_node(&name, *ordinal));
        pod.is_none_or(|pod| hosts::unreachable_since(pod).is_none())
    };
    for ordinal in (0..).filter(is_free) {
        if ordinals.len() >= usize::try_from(pool.spec.replicas).unwrap_or(0) {
            break;
        }
        ordinals.insert(ordinal);
    }
    ordinals.into_iter().map(|ordinal| names::pool_node(&name, ordinal)).collect()
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
