//! What there is of a network.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use super::{authorities::Kept, ceremony::wanted_names, owners, validator_names};
use crate::{
    api::{BizraNode, Network, Validator},
    controllers::{
        Context, ReconcileError, caches,
        quorum::{self, Sighting},
        reading::{self, Source},
        validator::replacement,
    },
    kubernetes::named,
    probe::Word,
    resources::{config_map, labels, names},
};

/// All a plan is made from.
#[derive(Clone)]
pub struct Observed {
    /// Time of the observation.
    pub now: Timestamp,
    /// Namespace of this operator: the only one that may reach the nodes' admin ports.
    pub operator_namespace: String,
    /// Every `BizraNode` that names this network, and every other one of a wanted name.
    pub nodes: Vec<BizraNode>,
    /// Validators of the network, and every other one of a wanted name.
    pub validators: Vec<Validator>,
    /// Pods of the network that a plan reads, from one list: the ceremony reads them all at once.
    pub pods: Vec<Pod>,
    /// The others, by name: of [bystanders](quorum::is_bystander) whose certificate is there. A network may have a hundred, and is
    /// looked at whenever something happens to one.
    pub bystanders: BTreeMap<String, Sighting>,
    /// What the nodes in these pods said last, by node name.
    pub words: BTreeMap<String, Word>,
    /// Volume claims of the network.
    pub claims: Vec<PersistentVolumeClaim>,
    /// The genesis.
    pub genesis: Option<ConfigMap>,
    /// The Secret with the seed of the owners, if it was asked for: while there is no genesis, and when the Network ends.
    pub owners: Option<Secret>,
    /// The certificates.
    pub certificates: Option<ConfigMap>,
    /// The headless Service.
    pub nodes_service: Option<Service>,
    /// The Service for clients.
    pub api_service: Option<Service>,
    /// The disruption budget.
    pub budget: Option<PodDisruptionBudget>,
    /// The policy that closes off the nodes.
    pub policy: Option<NetworkPolicy>,
    /// The certificate authorities: one, or two while one replaces the other.
    pub authorities: Vec<Kept>,
    /// The Secret that should hold an authority and does not, and what it lacks.
    pub unreadable_authority: Option<String>,
}

impl Observed {
    /// How many pods there are.
    pub fn pods_left(&self) -> usize {
        self.pods.len() + self.bystanders.len()
    }
}

/// Names of the nodes whose pods are read, whatever they do: those that validate or are to, and the one that is being changed.
fn central(network: &Network, genesis: Option<&ConfigMap>, validators: &[Validator]) -> BTreeSet<String> {
    let permit = network.status.as_ref().and_then(|status| status.permit.as_ref());
    let of_validators = validators.iter().flat_map(replacement::nodes).map(str::to_owned);
    validator_names(network, genesis)
        .into_iter()
        .chain(wanted_names(network))
        .chain(permit.map(|permit| permit.node.clone()))
        .chain(of_validators)
        .collect()
}

/// The network as it is now; none if it is gone or another one.
pub async fn network(context: &Context, source: Source, network: &Network) -> Result<Option<Network>, ReconcileError> {
    let namespace = network.namespace().unwrap_or_default();
    let live: Option<Network> = reading::one(context, source, &namespace, &network.name_any(), "the Network").await?;
    Ok(live.filter(|live| live.uid() == network.uid()))
}

/// Reads everything.
pub async fn observe(context: &Context, source: Source, network: &Network) -> Result<Observed, ReconcileError> {
    let namespace = network.namespace().unwrap_or_default();
    let name = network.name_any();

    let mut nodes: Vec<BizraNode> = reading::of_network(context, source, &namespace, &name, "the BizraNodes").await?;
    let mut validators: Vec<Validator> =
        reading::of_network(context, source, &namespace, &name, "the Validators").await?;
    for wanted in wanted_names(network) {
        if nodes.iter().all(|node| node.name_any() != wanted) {
            nodes.extend(reading::one(context, source, &namespace, &wanted, "the BizraNodes").await?);
        }
        if validators.iter().all(|validator| validator.name_any() != wanted) {
            validators.extend(reading::one(context, source, &namespace, &wanted, "the Validators").await?);
        }
    }

    // Claims first: a pod of the list then names a claim that was there before it was read.
    let claims = reading::of_network(context, source, &namespace, &name, "the volume claims").await?;
    let word = |name: &str, uid: &str| context.probes.latest(&(namespace.clone(), name.to_owned()), uid);
    let (mut bystanders, mut words) = (BTreeMap::new(), BTreeMap::new());
    if source == Source::Cache {
        // These two only say whose pod may be left unread. What the plan takes of them is read after the pods.
        let told = |name: String| context.caches.config_maps.last_told(&(namespace.clone(), name));
        let (genesis, certificates) = (told(names::genesis(&name)), told(names::certificates(&name)));
        let central = central(network, genesis.as_deref(), &validators);
        let has_certificate = |node: &str| {
            let data = certificates.as_ref().and_then(|certificates| certificates.data.as_ref());
            data.is_some_and(|data| data.contains_key(&config_map::certificate_key(node)))
        };
        bystanders = reading::sightings(context, &namespace, &name).await?;
        bystanders.retain(|name, seen| {
            let Some(node) = named(&nodes, name) else { return false };
            if central.contains(name) || !has_certificate(name) {
                return false;
            }
            let word = word(name, &seen.uid);
            let is_bystander = quorum::is_bystander(node, seen, &word);
            if is_bystander {
                words.insert(name.clone(), word);
            }
            is_bystander
        });
    }
    let is_read = |name: &str| !bystanders.contains_key(name);
    let pods: Vec<Pod> = reading::some_of_network(context, source, (&namespace, &name), "the pods", is_read).await?;
    words.extend(pods.iter().map(|pod| (pod.name_any(), word(&pod.name_any(), &pod.uid().unwrap_or_default()))));
    let selector = format!("{}={}", labels::NETWORK_UID, network.uid().unwrap_or_default());
    let own = &context.settings.operator_namespace;
    let secrets: Vec<Secret> = reading::list(&context.client, own, &selector, "the certificate authorities").await?;
    let (mut authorities, mut unreadable_authority) = (Vec::new(), None);
    for secret in secrets {
        let secret_name = secret.name_any();
        match Kept::read(secret) {
            Ok(kept) => authorities.extend(kept),
            Err(error) => unreadable_authority = Some(format!("Secret {own}/{secret_name} cannot be read: {error}")),
        }
    }
    let one = (context, source, namespace.as_str());
    let genesis = single(one, &names::genesis(&name), "the genesis").await?;
    let needs_owners = genesis.is_none() || network.metadata.deletion_timestamp.is_some();
    Ok(Observed {
        now: Timestamp::now(),
        operator_namespace: context.settings.operator_namespace.clone(),
        nodes,
        validators,
        pods,
        bystanders,
        words,
        claims,
        genesis,
        owners: if needs_owners { owners::read(context, network).await? } else { None },
        certificates: single(one, &names::certificates(&name), "the certificates").await?,
        nodes_service: single(one, &names::nodes_service(&name), "the Services").await?,
        api_service: single(one, &names::api_service(&name), "the Services").await?,
        budget: single(one, &names::disruption_budget(&name), "the disruption budget").await?,
        policy: single(one, &names::network_policy(&name), "the network policy").await?,
        authorities,
        unreadable_authority,
    })
}

async fn single<K: caches::Kept>(
    (context, source, namespace): (&Context, Source, &str),
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError> {
    reading::one(context, source, namespace, name, what).await
}
