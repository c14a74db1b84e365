//! The kinds that are cached, and what of them.
//!
//! Plans read little of a pod, and it is the largest object of a node, so its containers are cut down to name and image, and
//! what is said of them to how they run and how they ended. A plan that needs more of a kind changes `prune` here first: objects
//! read live are pruned, too, so a test notices.

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Container, ContainerStatus, PersistentVolumeClaim, Pod, PodSpec, PodStatus, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

use super::quorum::Sighting;
use crate::{
    api::{BizraNode, Network, NodePool, Validator},
    kubernetes::{Cache, Cached, Debt, Target},
    resources::{labels, pod},
};

/// Everything a network is made of has this label.
const OF_A_NETWORK: &str = labels::NETWORK;
/// What `kubectl apply` keeps for itself; as large as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One cache of each kind.
#[derive(Default)]
pub struct Caches {
    /// Networks.
    pub networks: Cache<Network>,
    /// Pools.
    pub pools: Cache<NodePool>,
    /// Nodes.
    pub nodes: Cache<BizraNode>,
    /// Validators.
    pub validators: Cache<Validator>,
    /// Pods of networks.
    pub pods: Cache<Pod>,
    /// Volume claims of networks.
    pub claims: Cache<PersistentVolumeClaim>,
    /// `ConfigMap`s of networks.
    pub config_maps: Cache<ConfigMap>,
    /// Services of networks.
    pub services: Cache<Service>,
    /// Network policies of networks.
    pub policies: Cache<NetworkPolicy>,
    /// Disruption budgets of networks.
    pub budgets: Cache<PodDisruptionBudget>,
}

impl Caches {
    /// Notes an own write of an object of any kind. What is not cached owes nothing.
    pub fn owe(&self, target: &Target, debt: Debt) {
        let key = target.key();
        match target.kind() {
            "Network" => self.networks.owe(key, debt),
            "NodePool" => self.pools.owe(key, debt),
            "BizraNode" => self.nodes.owe(key, debt),
            "Validator" => self.validators.owe(key, debt),
            "Pod" => self.pods.owe(key, debt),
            "PersistentVolumeClaim" => self.claims.owe(key, debt),
            "ConfigMap" => self.config_maps.owe(key, debt),
            "Service" => self.services.owe(key, debt),
            "NetworkPolicy" => self.policies.owe(key, debt),
            "PodDisruptionBudget" => self.budgets.owe(key, debt),
            _ => {}
        }
    }
}

/// A kind with its cache.
pub trait Kept: Cached {
    /// The only way such an object is made is by creating it, which meets one that is there: so that none is in the cache is
    /// reason enough to try. Others are overwritten, and asked for before.
    const IS_CREATE_ONLY: bool;

    /// Its cache.
    fn cache(caches: &Caches) -> &Cache<Self>;
}

macro_rules! kept {
    ($kind:ty, $field:ident, $create_only:literal) => {
        impl Kept for $kind {
            const IS_CREATE_ONLY: bool = $create_only;

            fn cache(caches: &Caches) -> &Cache<Self> {
                &caches.$field
            }
        }
    };
}

kept!(Network, networks, false);
kept!(NodePool, pools, false);
kept!(BizraNode, nodes, false);
kept!(Validator, validators, true);
kept!(Pod, pods, true);
kept!(PersistentVolumeClaim, claims, true);
kept!(ConfigMap, config_maps, false);
kept!(Service, services, false);
kept!(NetworkPolicy, policies, false);
kept!(PodDisruptionBudget, budgets, false);

fn prune_metadata<K: kube::Resource<DynamicType = ()>>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// What a network has only one of is read by all its nodes.
fn is_of_a_node(metadata: &ObjectMeta) -> bool {
    pod::label(metadata, labels::NODE).is_some()
}

macro_rules! cached_by_label {
    ($kind:ty) => {
        impl Cached for $kind {
            type Brief = ();

            const SELECTOR: &'static str = OF_A_NETWORK;

            fn brief(&self) {}

            fn network(&self) -> Option<&str> {
                pod::label(&self.metadata, labels::NETWORK)
            }

            fn is_packed(&self) -> bool {
                is_of_a_node(&self.metadata)
            }

            fn prune(&mut self) {
                prune_metadata(self);
            }
        }
    };
}

cached_by_label!(PersistentVolumeClaim);
cached_by_label!(ConfigMap);
cached_by_label!(Service);
cached_by_label!(NetworkPolicy);
cached_by_label!(PodDisruptionBudget);

impl Cached for Network {
    type Brief = ();

    const SELECTOR: &'static str = "";

    fn brief(&self) {}

    fn network(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }

    fn prune(&mut self) {
        prune_metadata(self);
    }
}

macro_rules! cached_by_reference {
    ($kind:ty) => {
        impl Cached for $kind {
            type Brief = ();

            const SELECTOR: &'static str = "";

            fn brief(&self) {}

            fn network(&self) -> Option<&str> {
                Some(&self.spec.network_ref.name)
            }

            fn prune(&mut self) {
                prune_metadata(self);
            }
        }
    };
}

cached_by_reference!(NodePool);
cached_by_reference!(BizraNode);
cached_by_reference!(Validator);

impl Cached for Pod {
    type Brief = Sighting;

    const SELECTOR: &'static str = OF_A_NETWORK;

    fn brief(&self) -> Sighting {
        Sighting::of(self)
    }

    fn network(&self) -> Option<&str> {
        self.labels().get(labels::NETWORK).map(String::as_str)
    }

    fn is_packed(&self) -> bool {
        is_of_a_node(&self.metadata)
    }

    fn prune(&mut self) {
        prune_metadata(self);
        if let Some(status) = self.status.take() {
            let bare = |container: ContainerStatus| ContainerStatus {
                name: container.name,
                state: container.state,
                last_state: container.last_state,
                restart_count: container.restart_count,
                ..ContainerStatus::default()
            };
            let all_bare = |containers: Vec<ContainerStatus>| containers.into_iter().map(bare).collect();
            self.status = Some(PodStatus {
                phase: status.phase,
                reason: status.reason,
                pod_ip: status.pod_ip,
                conditions: status.conditions,
                init_container_statuses: status.init_container_statuses.map(all_bare),
                container_statuses: status.container_statuses.map(all_bare),
                ..PodStatus::default()
            });
        }
        let Some(spec) = self.spec.take() else { return };
        let bare =
            |container: Container| Container { name: container.name, image: container.image, ..Container::default() };
        let init_containers = spec.init_containers.map(|containers| containers.into_iter().map(bare).collect());
        self.spec = Some(PodSpec {
            containers: spec.containers.into_iter().map(bare).collect(),
            init_containers,
            node_name: spec.node_name,
            termination_grace_period_seconds: spec.termination_grace_period_seconds,
            ..PodSpec::default()
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, sync::Arc};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::{
        controllers::{
            fixtures,
            key_report::{self, KeyReading},
        },
        kubernetes::{Answer, key_of},
        resources::config_map,
    };

    fn is_read_as_it_was_told<K: Kept + PartialEq>(mut object: K) {
        object.meta_mut().resource_version = Some("7".to_owned());
        object.meta_mut().creation_timestamp = Some(Time(fixtures::now()));
        object.prune();
        assert!(object.is_packed());
        let cache = Cache::default();
        cache.put(object.clone());
        assert_eq!(cache.look(&key_of(&object)), Answer::Known(Arc::new(object)));
    }

    #[test]
    fn what_is_packed_is_read_as_it_was_told() {
        is_read_as_it_was_told(fixtures::pod_of(0, Some(&fixtures::report(1, "demo-1", None))));
        is_read_as_it_was_told(fixtures::deleting(fixtures::pod_of(0, None)));
        let mut claim = fixtures::claim_of(0);
        claim.status =
            Some(serde_json::from_value(json!({"phase": "Bound", "capacity": {"storage": "10Gi"}})).unwrap());
        is_read_as_it_was_told(claim);
        let config = config_map::config(&fixtures::node(0), "demo-v0", "default", "a = 1\n".to_owned());
        // Empty is not absent.
        is_read_as_it_was_told(ConfigMap { data: Some(BTreeMap::new()), ..config.clone() });
        is_read_as_it_was_told(config);
    }

    #[test]
    fn a_pruned_pod_tells_its_keys_and_its_ends() {
        let report = fixtures::report(1, "demo-1", None);
        let mut pod = fixtures::pod_of(0, Some(&report));
        let status = pod.status.as_mut().unwrap();
        let node = json!({
            "name": "node", "ready": true, "started": true, "restartCount": 3, "image": "i", "imageID": "i@sha256:0",
            "containerID": "containerd://0", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "last words"}},
            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/bizra"}],
        });
        status.container_statuses = Some(vec![serde_json::from_value(node).unwrap()]);
        pod.prune();
        assert_eq!(key_report::read(&pod, "volume-0", "demo-1"), KeyReading::Reported(Box::new(report)));
        let node = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        let end = node.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((node.restart_count, end.message.as_deref()), (3, Some("last words")));
        assert_eq!((node.container_id.as_ref(), node.volume_mounts.as_ref()), (None, None));
    }
}
