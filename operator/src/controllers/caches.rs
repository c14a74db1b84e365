//! The kinds that are cached, and what of them.
//!
//! Plans read little of a pod's spec, and most of its size is there, so the containers are cut down to name and image. A plan
//! that needs more of a kind changes `prune` here first: objects read live are pruned, too, so a test notices.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Container, PersistentVolumeClaim, Pod, PodSpec, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt as _;

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

macro_rules! cached_by_label {
    ($kind:ty) => {
        impl Cached for $kind {
            const SELECTOR: &'static str = OF_A_NETWORK;

            fn network(&self) -> Option<&str> {
                pod::label(&self.metadata, labels::NETWORK)
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
    const SELECTOR: &'static str = "";

    fn network(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }

    fn prune(&mut self) {
        prune_metadata(self);
    }
}

impl Cached for NodePool {
    const SELECTOR: &'static str = "";

    fn network(&self) -> Option<&str> {
        Some(&self.spec.network_ref.name)
    }

    fn prune(&mut self) {
        prune_metadata(self);
    }
}

impl Cached for BizraNode {
    const SELECTOR: &'static str = "";

    fn network(&self) -> Option<&str> {
        Some(&self.spec.network_ref.name)
    }

    fn prune(&mut self) {
        prune_metadata(self);
    }
}

impl Cached for Validator {
    const SELECTOR: &'static str = "";

    fn network(&self) -> Option<&str> {
        Some(&self.spec.network_ref.name)
    }

    fn prune(&mut self) {
        prune_metadata(self);
    }
}

impl Cached for Pod {
    const SELECTOR: &'static str = OF_A_NETWORK;

    fn network(&self) -> Option<&str> {
        self.labels().get(labels::NETWORK).map(String::as_str)
    }

    fn prune(&mut self) {
        prune_metadata(self);
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
