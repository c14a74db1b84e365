//! Whom a change concerns.

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt as _};
use std::{sync::Arc, time::Duration};

use super::{
    Context,
    bizra_node::report::without_numbers,
    caches::Kept,
    queue::{Key, Queue},
    validator::replacement,
};
use crate::{
    api::{BizraNode, Network, NodePool, Validator},
    kubernetes::{Change, key_of},
    planted::{self, Bug},
    resources::{config_map, labels, names, pod},
};

/// Changes of one node come in twos and threes; they are looked at together.
const NODE_DELAY: Duration = Duration::from_millis(50);
/// Changes of a network's many parts are looked at together.
const NETWORK_DELAY: Duration = Duration::from_millis(200);
/// Nodes that follow a network mostly come many at a time; validators list them together. Each has a pod to start meanwhile.
const FOLLOWERS_DELAY: Duration = Duration::from_secs(2);

/// What waits to be reconciled.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) networks: Queue,
    pub(super) pools: Queue,
    pub(super) nodes: Queue,
    pub(super) validators: Queue,
}

impl Queues {
    /// Wakes a node at once.
    pub(super) fn wake_node_now(&self, key: Key) {
        self.nodes.wake(key, Duration::ZERO);
    }

    fn node(&self, metadata: &ObjectMeta, name: &str) {
        self.nodes.wake((metadata.namespace.clone().unwrap_or_default(), name.to_owned()), NODE_DELAY);
    }

    fn network(&self, metadata: &ObjectMeta, name: Option<&str>) {
        if let Some(name) = name {
            self.networks.wake((metadata.namespace.clone().unwrap_or_default(), name.to_owned()), NETWORK_DELAY);
        }
    }

    fn pool(&self, metadata: &ObjectMeta, name: &str) {
        self.pools.wake((metadata.namespace.clone().unwrap_or_default(), name.to_owned()), NETWORK_DELAY);
    }

    fn pools_of(&self, context: &Context, metadata: &ObjectMeta, network: &str) {
        for pool in context.caches.pools.of_network(metadata.namespace.as_deref().unwrap_or_default(), network) {
            self.pool(metadata, &pool.name_any());
        }
    }

    fn validators_of(&self, context: &Context, metadata: &ObjectMeta, network: &str, node: Option<&str>) {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        for validator in context.caches.validators.of_network(namespace, network) {
            let concerns = |name: &str| replacement::nodes(&validator).any(|node| node == name);
            if node.is_none_or(concerns) {
                self.validators.wake(key_of(validator.as_ref()), NETWORK_DELAY);
            }
        }
    }

    fn nodes_of(&self, context: &Context, metadata: &ObjectMeta, network: &str) {
        self.nodes_where(context, metadata, network, NODE_DELAY, |_| true);
    }

    fn nodes_where(
        &self,
        context: &Context,
        metadata: &ObjectMeta,
        network: &str,
        delay: Duration,
        is_meant: impl Fn(&BizraNode) -> bool,
    ) {
        for node in context.caches.nodes.of_network(metadata.namespace.as_deref().unwrap_or_default(), network) {
            if is_meant(&node) {
                self.nodes.wake(key_of(node.as_ref()), delay);
            }
        }
    }
}

/// A kind whose changes wake somebody.
pub(super) trait Wakes: Kept {
    /// Wakes whom the change concerns, and forgets what is gone.
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues);
}

impl Wakes for Network {
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues) {
        let Some(network) = change.new.as_ref().or(change.old.as_ref()) else { return };
        if change.new.is_none() {
            let uid = network.uid().unwrap_or_default();
            context.probes.distrust(&uid);
            context.forget(&uid);
        } else {
            // Its own report, too: a permit is acted on by the reconciliation after the one that granted it.
            queues.network(&network.metadata, network.metadata.name.as_deref());
        }
        let orders = |network: &Self| {
            let status = network.status.as_ref();
            (status.and_then(|status| status.permit.clone()), status.map(|status| status.jailings.clone()))
        };
        let is_same = |old: &Self, new: &Self| {
            is_same(&old.metadata, &new.metadata) && old.spec == new.spec && orders(old) == orders(new)
        };
        if !compares(change, is_same) {
            queues.nodes_of(context, &network.metadata, &network.name_any());
            queues.pools_of(context, &network.metadata, &network.name_any());
            queues.validators_of(context, &network.metadata, &network.name_any(), None);
        }
    }
}

impl Wakes for NodePool {
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues) {
        let Some(pool) = change.new.as_ref().or(change.old.as_ref()) else { return };
        if change.new.is_none() {
            context.forget(&pool.uid().unwrap_or_default());
        } else if !change.is_own_report {
            queues.pool(&pool.metadata, &pool.name_any());
        }
    }
}

impl Wakes for BizraNode {
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues) {
        let Some(node) = change.new.as_ref().or(change.old.as_ref()) else { return };
        if change.new.is_none() {
            context.probes.forget(&key_of(node.as_ref()));
            context.forget(&node.uid().unwrap_or_default());
        } else if !change.is_own_report || orders_repair(change) {
            queues.node(&node.metadata, &node.name_any());
        }
        let is_validator = |node: &Self| owner_of::<Network>(&node.metadata).is_some();
        let is_there = |node: &Option<Arc<Self>>| {
            let node = node.as_ref()?;
            node.metadata.deletion_timestamp.is_none().then(|| node.uid())
        };
        if is_there(&change.old) != is_there(&change.new) {
            // Validators list the nodes that follow, and whoever votes lists whoever else does.
            let network = &node.spec.network_ref.name;
            let namespace = node.metadata.namespace.as_deref().unwrap_or_default();
            let validators = context.caches.validators.of_network(namespace, network);
            let votes = |node: &Self| {
                let name = node.name_any();
                validators.iter().any(|validator| replacement::nodes(validator).any(|node| node == name))
            };
            let lists = |node: &Self| is_validator(node) || votes(node);
            queues.nodes_where(context, &node.metadata, network, FOLLOWERS_DELAY, lists);
        }
        let told = |node: &Self| node.status.as_ref().map(without_numbers);
        let is_same = |old: &Self, new: &Self| {
            is_same(&old.metadata, &new.metadata) && old.spec == new.spec && told(old) == told(new)
        };
        if !compares(change, is_same) {
            let network = &node.spec.network_ref.name;
            queues.network(&node.metadata, Some(network));
            queues.validators_of(context, &node.metadata, network, Some(&node.name_any()));
            for pool in change.old.iter().chain(&change.new).filter_map(|node| owner_of::<NodePool>(&node.metadata)) {
                queues.pool(&node.metadata, pool);
            }
        }
    }
}

impl Wakes for Validator {
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues) {
        let Some(validator) = change.new.as_ref().or(change.old.as_ref()) else { return };
        if change.new.is_none() {
            context.forget(&validator.uid().unwrap_or_default());
        } else if !change.is_own_report {
            queues.validators.wake(key_of(validator.as_ref()), NODE_DELAY);
        }
        // A Network has its own validators join and leave one after the other.
        let told = |validator: &Self| {
            let status = validator.status.as_ref();
            (status.map(|status| status.conditions.clone()), status.and_then(|status| status.power.clone()))
        };
        let is_same = |old: &Self, new: &Self| is_same(&old.metadata, &new.metadata) && told(old) == told(new);
        if owner_of::<Network>(&validator.metadata).is_some() && !compares(change, is_same) {
            queues.network(&validator.metadata, Some(&validator.spec.network_ref.name));
        }
        // Who votes, and whose keys may be given up, is read off here. A node's controller looks at it by itself as often as
        // at anything else, so numbers and transactions wake nobody.
        let told = |validator: &Option<Arc<Self>>| {
            let validator = validator.as_ref()?;
            let nodes: Vec<String> = replacement::nodes(validator).map(str::to_owned).collect();
            let rotates = nodes.iter().map(|node| replacement::may_rotate(validator, node)).collect::<Vec<_>>();
            Some((nodes, rotates))
        };
        if told(&change.old) != told(&change.new) {
            queues.nodes_of(context, &validator.metadata, &validator.spec.network_ref.name);
        }
        let jailed = |validator: &Option<Arc<Self>>| validator.as_ref()?.status.as_ref()?.jailed_at;
        if jailed(&change.old) != jailed(&change.new) {
            queues.network(&validator.metadata, Some(&validator.spec.network_ref.name));
        }
    }
}

impl Wakes for Pod {
    fn wake(change: &Change<Self>, _: &Context, queues: &Queues) {
        let is_same = |old: &Self, new: &Self| {
            is_same(&old.metadata, &new.metadata) && old.spec == new.spec && old.status == new.status
        };
        if planted::is(Bug::LossUnnoticed) && change.old.is_some() {
            return;
        }
        if !compares(change, is_same) {
            of_node(change, queues);
            of_network(change, queues);
        }
    }
}

impl Wakes for PersistentVolumeClaim {
    fn wake(change: &Change<Self>, _: &Context, queues: &Queues) {
        of_node(change, queues);
        of_network(change, queues);
    }
}

impl Wakes for ConfigMap {
    fn wake(change: &Change<Self>, context: &Context, queues: &Queues) {
        // A node's own configuration is no business of the network.
        if of_node(change, queues) {
            return;
        }
        of_network(change, queues);
        let Some(map) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let Some(network) = pod::label(&map.metadata, labels::NETWORK) else { return };
        match (&change.old, &change.new) {
            // Certificates come one after the other; each concerns its own node.
            (Some(old), Some(new)) if map.name_any() == names::certificates(network) => {
                let part = |map: &Self, key: &str| map.data.as_ref().and_then(|data| data.get(key)).cloned();
                let differs = |key: &str| part(old, key) != part(new, key);
                if differs(config_map::AUTHORITY) || differs(config_map::OPERATOR_AUTHORITY) {
                    queues.nodes_of(context, &map.metadata, network);
                    return;
                }
                let namespace = map.metadata.namespace.as_deref().unwrap_or_default();
                for node in context.caches.nodes.of_network(namespace, network) {
                    if differs(&config_map::certificate_key(&node.name_any())) {
                        queues.node(&map.metadata, &node.name_any());
                    }
                }
            }
            _ => queues.nodes_of(context, &map.metadata, network),
        }
    }
}

impl Wakes for Service {
    fn wake(change: &Change<Self>, _: &Context, queues: &Queues) {
        of_network(change, queues);
    }
}

impl Wakes for NetworkPolicy {
    fn wake(change: &Change<Self>, _: &Context, queues: &Queues) {
        of_network(change, queues);
    }
}

impl Wakes for PodDisruptionBudget {
    fn wake(change: &Change<Self>, _: &Context, queues: &Queues) {
        // Its status changes with every pod.
        let is_same = |old: &Self, new: &Self| is_same(&old.metadata, &new.metadata) && old.spec == new.spec;
        if !compares(change, is_same) {
            of_network(change, queues);
        }
    }
}

/// A repair is ordered in a status and carried out when it is read back: this report is news to its own node.
fn orders_repair(change: &Change<BizraNode>) -> bool {
    let repair = |node: &Option<Arc<BizraNode>>| node.as_ref()?.status.as_ref()?.repair.clone();
    repair(&change.old) != repair(&change.new)
}

/// True if there is an object before and after, and they are the same by this comparison.
fn compares<K>(change: &Change<K>, is_same: impl Fn(&K, &K) -> bool) -> bool {
    matches!((&change.old, &change.new), (Some(old), Some(new)) if is_same(old, new))
}

fn is_same(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid == new.uid
        && old.labels == new.labels
        && old.annotations == new.annotations
        && old.deletion_timestamp == new.deletion_timestamp
        && old.finalizers == new.finalizers
        && old.owner_references == new.owner_references
}

/// Wakes the nodes an object names before and after; false if it names none.
fn of_node<K: Kept>(change: &Change<K>, queues: &Queues) -> bool {
    let mut is_of_node = false;
    for object in change.old.iter().chain(&change.new) {
        if let Some(node) = node_of(object.meta()) {
            queues.node(object.meta(), &node);
            is_of_node = true;
        }
    }
    is_of_node
}

fn of_network<K: Kept>(change: &Change<K>, queues: &Queues) {
    for object in change.old.iter().chain(&change.new) {
        queues.network(object.meta(), pod::label(object.meta(), labels::NETWORK));
    }
}

/// By label; if somebody has taken that, by owner.
fn node_of(metadata: &ObjectMeta) -> Option<String> {
    pod::label(metadata, labels::NODE).or_else(|| owner_of::<BizraNode>(metadata)).map(str::to_owned)
}

/// Name of the owner of this kind.
fn owner_of<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta) -> Option<&str> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == K::kind(&())).map(|owner| owner.name.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::controllers::fixtures;

    #[test]
    fn a_report_that_orders_a_repair_is_news_to_its_own_node_and_another_is_not() {
        let reported = |height: i64, repair: bool| {
            let mut node = fixtures::node(0);
            let mut status = json!({"observedGeneration": 1, "height": height});
            if repair {
                status["repair"] = json!({
                    "cause": "Stuck", "action": "Restart", "podUid": "pod-0", "orderedAt": "2026-01-01T00:00:00Z",
                    "attempt": 1,
                });
            }
            node.status = Some(serde_json::from_value(status).unwrap());
            Some(Arc::new(node))
        };
        let change = |old, new| Change { old, new, is_own_report: true };
        assert!(orders_repair(&change(reported(1, false), reported(1, true))));
        assert!(orders_repair(&change(reported(1, true), reported(2, false))));
        assert!(!orders_repair(&change(reported(1, true), reported(2, true))));
        assert!(!orders_repair(&change(reported(1, false), reported(2, false))));
    }
}
