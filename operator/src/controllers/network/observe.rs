//! What there is of a network.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use super::{authorities::Kept, owners};
use crate::{
    api::{BizraNode, Network, Validator},
    controllers::{
        Context, ReconcileError, caches,
        reading::{self, Source},
    },
    probe::Word,
    resources::{labels, names},
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
    /// Pods of the network, from one list: the ceremony reads them all at once.
    pub pods: Vec<Pod>,
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
    for wanted in (0..network.spec.validators).map(|ordinal| names::validator(&name, ordinal)) {
        if nodes.iter().all(|node| node.name_any() != wanted) {
            nodes.extend(reading::one(context, source, &namespace, &wanted, "the BizraNodes").await?);
        }
        if validators.iter().all(|validator| validator.name_any() != wanted) {
            validators.extend(reading::one(context, source, &namespace, &wanted, "the Validators").await?);
        }
    }

    // Claims first: a pod of the list then names a claim that was there before it was read.
    let claims = reading::of_network(context, source, &namespace, &name, "the volume claims").await?;
    let pods = reading::of_network(context, source, &namespace, &name, "the pods").await?;
    let words = pods
        .iter()
        .map(|pod: &Pod| {
            let key = (namespace.clone(), pod.name_any());
            let word = context.probes.latest(&key, &pod.uid().unwrap_or_default());
            (pod.name_any(), word)
        })
        .collect();
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
    let genesis = named(one, &names::genesis(&name), "the genesis").await?;
    let needs_owners = genesis.is_none() || network.metadata.deletion_timestamp.is_some();
    Ok(Observed {
        now: Timestamp::now(),
        operator_namespace: context.settings.operator_namespace.clone(),
        nodes,
        validators,
        pods,
        words,
        claims,
        genesis,
        owners: if needs_owners { owners::read(context, network).await? } else { None },
        certificates: named(one, &names::certificates(&name), "the certificates").await?,
        nodes_service: named(one, &names::nodes_service(&name), "the Services").await?,
        api_service: named(one, &names::api_service(&name), "the Services").await?,
        budget: named(one, &names::disruption_budget(&name), "the disruption budget").await?,
        policy: named(one, &names::network_policy(&name), "the network policy").await?,
        authorities,
        unreadable_authority,
    })
}

async fn named<K: caches::Kept>(
    (context, source, namespace): (&Context, Source, &str),
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError> {
    reading::one(context, source, namespace, name, what).await
}
