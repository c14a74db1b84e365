//! What there is, and the node's own latest word.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;

use super::heal::HealingLimits;
use crate::{
    api::{BizraNode, Network, Validator},
    controllers::{
        Context, ReconcileError,
        network::validator_names,
        quorum,
        reading::{self, Source},
        validator::replacement,
    },
    probe::{ProbeTarget, Word},
    resources::names,
};

/// All a plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Time of the observation.
    pub now: Timestamp,
    /// The node's Network, if it is there.
    pub network: Option<Network>,
    /// The volume claim of the node's name.
    pub claim: Option<PersistentVolumeClaim>,
    /// The configuration.
    pub config: Option<ConfigMap>,
    /// The genesis of the network.
    pub genesis: Option<ConfigMap>,
    /// The certificates of the network.
    pub certificates: Option<ConfigMap>,
    /// Names of the network's nodes that are not in its genesis: those that validate or are to, then the others, oldest first.
    pub followers: Vec<String>,
    /// Names of those among them that validate, or are to.
    pub voters: Vec<String>,
    /// The Validator that can put another key in the place of this node's on the chain.
    pub keeper: Option<String>,
    /// The node that validates in this one's place.
    pub replaced_by: Option<String>,
    /// The pod of the node's name.
    pub pod: Option<Pod>,
    /// What the node in that pod says.
    pub word: Word,
    /// For how long it has come no further, as far as this operator has looked on.
    pub idle: SignedDuration,
    /// The height it was last known to have, if it has fallen silent since.
    pub last_height: Option<u64>,
    /// How long to wait before something is done about it.
    pub limits: HealingLimits,
}

/// The node as it is now; none if it is gone or another one.
pub async fn node(context: &Context, source: Source, node: &BizraNode) -> Result<Option<BizraNode>, ReconcileError> {
    let namespace = node.namespace().unwrap_or_default();
    let live: Option<BizraNode> = reading::one(context, source, &namespace, &node.name_any(), "the BizraNode").await?;
    Ok(live.filter(|live| live.uid() == node.uid()))
}

/// Reads everything.
pub async fn observe(context: &Context, source: Source, node: &BizraNode) -> Result<Observed, ReconcileError> {
    let namespace = node.namespace().unwrap_or_default();
    let name = node.name_any();
    let network_name = &node.spec.network_ref.name;

    let network: Option<Network> = reading::one(context, source, &namespace, network_name, "the Network").await?;
    let claim: Option<PersistentVolumeClaim> =
        reading::one(context, source, &namespace, &names::claim(&name), "the volume claim").await?;
    // Without a volume all that is planned is to make one; configuration and pod only show how things stand.
    let config = names::config(&name);
    let (of_pod, config) = if claim.is_some() {
        (source, reading::one(context, source, &namespace, &config, "the configuration").await?)
    } else {
        let config = reading::made_by_others(context, Source::Cache, &namespace, &config, "the configuration");
        (Source::Cache, config.await?)
    };
    let genesis = names::genesis(network_name);
    let genesis = reading::made_by_others(context, source, &namespace, &genesis, "the genesis").await?;
    // Nothing that cannot be taken back depends on them, and those of a hundred nodes are a hundred kilobytes.
    let certificates = names::certificates(network_name);
    let certificates =
        reading::made_by_others(context, Source::Cache, &namespace, &certificates, "the certificates").await?;
    let pod: Option<Pod> = reading::one(context, of_pod, &namespace, &name, "the pod").await?;
    // A list that is a moment old harms nobody, and whoever is missing in it brings this node back.
    let nodes = context.caches.nodes.of_network(&namespace, network_name);
    let validators: Vec<Validator> =
        reading::of_network(context, source, &namespace, network_name, "the Validators").await?;
    let listed = network.as_ref().map(|network| validator_names(network, genesis.as_ref()));
    let (voters, followers) = listed.map(|listed| followers(nodes, &listed, &validators)).unwrap_or_default();
    let keeper = validators.iter().find(|validator| replacement::may_rotate(validator, &name));
    let keeper = keeper.map(kube::ResourceExt::name_any);
    let replaced_by = validators.iter().find_map(|validator| replacement::successor(validator, node));

    let key = (namespace, name);
    let (mut idle, last_height) = (SignedDuration::ZERO, context.probes.last_height(&key));
    let word = if let Some(target) = pod.as_ref().and_then(|pod| probe_target(pod, network.as_ref())) {
        let pod_uid = target.pod_uid.clone();
        context.probes.ask(key.clone(), target);
        idle = SignedDuration::try_from(context.probes.idle(&key, &pod_uid)).unwrap_or(SignedDuration::MAX);
        context.probes.latest(&key, &pod_uid)
    } else {
        context.probes.forget(&key);
        Word::Unknown("its container is not running".to_owned())
    };
    let (now, limits) = (Timestamp::now(), context.settings.healing);
    Ok(Observed {
        now,
        network,
        claim,
        config,
        genesis,
        certificates,
        followers,
        voters,
        keeper,
        replaced_by,
        pod,
        word,
        idle,
        last_height,
        limits,
    })
}

/// Those that validate or are to, and all, except for whom everybody lists. Oldest first, so that a new node never takes the place of
/// another.
fn followers(
    mut nodes: Vec<Arc<BizraNode>>,
    listed: &[String],
    validators: &[Validator],
) -> (Vec<String>, Vec<String>) {
    nodes.retain(|node| node.metadata.deletion_timestamp.is_none() && !listed.contains(&node.name_any()));
    nodes.sort_by_cached_key(|node| (node.creation_timestamp(), node.name_any()));
    let names = nodes.iter().map(|node| node.name_any());
    let is_voter = |name: &String| {
        validators.iter().any(|validator| replacement::nodes(validator).any(|node| node == name.as_str()))
    };
    let (voters, others): (Vec<String>, Vec<String>) = names.partition(is_voter);
    (voters.clone(), voters.into_iter().chain(others).collect())
}

/// Where to ask, once the node's container runs.
fn probe_target(pod: &Pod, network: Option<&Network>) -> Option<ProbeTarget> {
    let status = pod.status.as_ref()?;
    if !quorum::container_runs(pod) {
        return None;
    }
    Some(ProbeTarget {
        pod_uid: pod.uid()?,
        address: status.pod_ip.as_ref()?.parse().ok()?,
        network_uid: network?.uid()?,
    })
}
