//! A validator's node whose host is gone: another one takes its place, with another name and a new key. Pure.
//!
//! The name of the old pod is not free and its volume may be in use, as long as nobody knows what runs on the host. So nothing of
//! the old node is touched. A new one is made beside it, the chain goes over to the new key, and only when no set has the old
//! one any more does the old node give way. What still runs with the old key signs nothing that counts.
//!
//! `status.node` is who validates, `status.replacement` who is about to.

use bizra_proto::ceremony::decode_hex;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::SignedDuration,
};
use kube::ResourceExt as _;

use super::{observe::Observed, plan::key_trouble, saga};
use crate::{
    api::{Activity, BizraNode, BizraNodeSpec, Reconciliation, Signing, Validator, ValidatorStatus, condition},
    controllers::{
        conditions::{Reason, is_true},
        hosts,
        ownership::{Ownership, ownership},
    },
    kubernetes::named,
    ledger::OwnerView,
    probe::Word,
    resources::{controlled_by, labels, names, pod},
};

/// Most replacements of one node whose names are tried.
const REPLACEMENTS_MAX: u32 = 1_000;

/// Nodes of the network, as far as they matter to a validator.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// The node of the spec, and whatever bears the name of a replacement of it or is controlled by the Validator.
    pub nodes: Vec<BizraNode>,
    /// Pods of such names.
    pub pods: Vec<Pod>,
    /// Volume claims of such names.
    pub claims: Vec<PersistentVolumeClaim>,
}

/// True of the names of the validator's node and of replacements of it.
pub fn matters(validator: &Validator, node: &str) -> bool {
    let of_spec = &validator.spec.node_ref.name;
    node == of_spec || names::is_replacement(of_spec, node)
}

impl Nodes {
    /// What matters to this validator.
    pub fn of(
        validator: &Validator,
        mut nodes: Vec<BizraNode>,
        mut pods: Vec<Pod>,
        mut claims: Vec<PersistentVolumeClaim>,
    ) -> Self {
        let matters = |name: &str| matters(validator, name);
        nodes.retain(|node| matters(&node.name_any()) || ownership(&node.metadata, validator) == Ownership::Ours);
        pods.retain(|pod| matters(&pod.name_any()));
        let label = |claim: &PersistentVolumeClaim| pod::label(&claim.metadata, labels::NODE).map(str::to_owned);
        claims.retain(|claim| label(claim).is_some_and(|node| matters(&node)));
        Self { nodes, pods, claims }
    }
}

/// Who validates, and who is to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    /// What `status.node` is to say.
    pub node: Option<String>,
    /// What `status.replacement` is to say.
    pub replacement: Option<String>,
    /// The replacement, as it is to be.
    pub wanted: Option<Box<BizraNode>>,
    /// A node that was needed once.
    pub superfluous: Option<Box<BizraNode>>,
    /// Why there is a replacement under way.
    pub told: Option<Reason>,
}

/// A name of the status, if it still belongs to the node of the spec.
fn kept<'a>(validator: &Validator, name: Option<&'a String>) -> Option<&'a str> {
    let of_spec = &validator.spec.node_ref.name;
    name.map(String::as_str).filter(|name| names::is_replacement(of_spec, name))
}

fn status_of(validator: &Validator) -> Option<&ValidatorStatus> {
    validator.status.as_ref()
}

/// The node that validates.
pub fn present(validator: &Validator) -> &str {
    let kept = status_of(validator).and_then(|status| kept(validator, status.node.as_ref()));
    kept.unwrap_or(&validator.spec.node_ref.name)
}

/// The node whose key is to be the validator's.
pub fn meant(validator: &Validator) -> &str {
    let replacement = status_of(validator).and_then(|status| kept(validator, status.replacement.as_ref()));
    replacement.unwrap_or_else(|| present(validator))
}

/// Every node that votes for the validator, or is to.
pub fn nodes(validator: &Validator) -> impl Iterator<Item = &str> {
    [validator.spec.node_ref.name.as_str(), present(validator), meant(validator)].into_iter()
}

/// True if the owner's key could sign a rotation when it was looked at last.
pub fn is_replaceable(validator: &Validator) -> bool {
    status_of(validator).is_some_and(|status| is_true(&status.conditions, condition::KEY_REPLACEABLE))
}

/// True if the validator can do without this node's key: its owner puts another in its place.
pub fn may_rotate(validator: &Validator, node: &str) -> bool {
    is_replaceable(validator)
        && validator.metadata.deletion_timestamp.is_none()
        && (meant(validator) == node || present(validator) == node)
}

/// Who validates in this node's place, if it was one of this validator's.
pub fn successor(validator: &Validator, node: &BizraNode) -> Option<String> {
    let name = node.name_any();
    let was = validator.spec.node_ref.name == name || ownership(&node.metadata, validator) == Ownership::Ours;
    let is = present(validator) == name || meant(validator) == name;
    let validates = present(validator);
    (was && !is && validates != validator.spec.node_ref.name).then(|| validates.to_owned())
}

/// True if no set that may still run has another key of the owner's than this.
fn is_effective(view: &OwnerView, owner: &[u8; 32], key: &[u8; 32]) -> bool {
    let has = |members: &[bizra_proto::v1::ValidatorSetMember]| {
        members.iter().find(|member| member.owner == owner).map(|member| member.consensus_key == key)
    };
    has(&view.set.members) == Some(true) && has(&view.before.members) != Some(false)
}

/// Why a key that is lost could not be replaced; none if it could.
pub fn obstacle(validator: &Validator, observed: &Observed) -> Option<Reason> {
    match &observed.owner {
        Some(Err(reason)) => return Some(reason.clone()),
        // It was there when it was asked for last.
        None if is_replaceable(validator) => {}
        None => return Some(Reason::new("OwnerUnread", "the owner's key has not been looked at")),
        Some(Ok(_)) => {}
    }
    let (Some(address), Some(Ok(view))) = (observed.address(validator), &observed.view) else {
        return Some(Reason::new("ChainSilent", "what the chain knows of the owner could not be read"));
    };
    if let Some(reason) = key_trouble(observed, address) {
        return Some(reason);
    }
    let chain = &view.validator;
    let fee = validator.spec.fee.parse().unwrap_or(u64::MAX);
    let (word, message) = if observed.elder.is_some() {
        ("OwnerInUse", "another Validator looks after the account".to_owned())
    } else if chain.status == saga::JAILED {
        ("Jailed", "the validator is jailed".to_owned())
    } else if !chain.registered {
        ("NotRegistered", "the account owns no validator".to_owned())
    } else if view.balance < fee {
        ("InsufficientBalance", format!("a rotation costs {fee}, and the owner's account has {}", view.balance))
    } else {
        return None;
    };
    Some(Reason::new(word, message))
}

/// Who is to validate.
pub fn decide(validator: &Validator, observed: &Observed) -> Places {
    let owner = observed.address(validator).map(|address| address.0);
    let status = validator.status.clone().unwrap_or_default();
    let mut places = Places {
        node: kept(validator, status.node.as_ref()).map(str::to_owned),
        replacement: kept(validator, status.replacement.as_ref()).map(str::to_owned),
        ..Places::default()
    };
    let view = observed.view.as_ref().and_then(|view| view.as_ref().ok());
    if let (Some(replacement), Some(owner), Some(view), Word::Status(said)) =
        (&places.replacement, &owner, view, &observed.word)
        && decode_hex(&said.public_key).is_some_and(|key: [u8; 32]| is_effective(view, owner, &key))
    {
        places.node = Some(replacement.clone());
        places.replacement = None;
    }
    let source = meant(validator);
    if let Some(lost) = lost(validator, observed, source)
        && validator.metadata.deletion_timestamp.is_none()
        && obstacle(validator, observed).is_none()
        && others_go_on(observed)
        && let Some(name) = free_name(validator, observed)
    {
        places.replacement = Some(name);
        places.told = Some(lost);
    }
    if let Some(replacement) = &places.replacement {
        let message = format!("BizraNode {replacement} takes the place of {}, whose host is lost", present(validator));
        places.told.get_or_insert_with(|| Reason::new("ReplacingNode", message));
    }
    let needed = places.replacement.as_ref().or(places.node.as_ref());
    places.wanted = needed.and_then(|name| build(validator, observed, name)).map(Box::new);
    let is_needed = |node: &&BizraNode| {
        let name = node.name_any();
        [&places.node, &places.replacement].into_iter().flatten().any(|needed| *needed == name)
    };
    let mut ours = observed.around.nodes.iter().filter(|node| {
        ownership(&node.metadata, validator) == Ownership::Ours && node.metadata.deletion_timestamp.is_none()
    });
    places.superfluous = ours.find(|node| !is_needed(node)).cloned().map(Box::new);
    places
}

/// A rotation is finalised only by a quorum without the node; and whoever has ordered a standstill has a reason.
fn others_go_on(observed: &Observed) -> bool {
    let Some(network) = &observed.network else { return false };
    let told = network.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let at_work = network.spec.reconciliation == Reconciliation::Active && network.spec.activity == Activity::Running;
    at_work && is_true(told, condition::QUORUM_SAFE)
}

/// Why a node counts as lost: Kubernetes has not heard of its host for the grace, and the node does not answer either.
fn lost(validator: &Validator, observed: &Observed, node: &str) -> Option<Reason> {
    let pod = named(&observed.around.pods, node)?;
    let since = hosts::unreachable_since(pod).filter(|_| matches!(observed.word, Word::Unknown(_)))?;
    let grace = SignedDuration::from_secs(i64::from(validator.spec.host_grace_seconds));
    if observed.now.duration_since(since) < grace {
        return None;
    }
    let host = hosts::host(pod);
    let message =
        format!("host {host} of BizraNode {node} has not been heard of since {since}; another node takes its place");
    Some(Reason::new("ReplacingNode", message))
}

/// The first name that nothing bears, unless it is of a node that was made for this and not noted: a claim of that name would
/// hold a former key, which the chain does not take again.
fn free_name(validator: &Validator, observed: &Observed) -> Option<String> {
    let around = &observed.around;
    let lost = meant(validator);
    (1..=REPLACEMENTS_MAX).map(|number| names::replacement(&validator.spec.node_ref.name, number)).find(|name| {
        if name == lost || name == present(validator) {
            return false;
        }
        if let Some(node) = named(&around.nodes, name) {
            let is_ours = ownership(&node.metadata, validator) == Ownership::Ours;
            let is_reachable =
                around.pods.iter().all(|pod| pod.name_any() != *name || hosts::unreachable_since(pod).is_none());
            is_ours && is_reachable && node.metadata.deletion_timestamp.is_none()
        } else {
            let claim = names::claim(name);
            around.pods.iter().all(|pod| pod.name_any() != *name)
                && around.claims.iter().all(|one| one.name_any() != claim)
        }
    })
}

/// As the node of the spec, under another name. What that one is given later, it gets, too.
fn build(validator: &Validator, observed: &Observed, name: &str) -> Option<BizraNode> {
    let of_spec = &validator.spec.node_ref.name;
    let source = named(&observed.around.nodes, of_spec)?;
    let network = &validator.spec.network_ref;
    let mut all_labels = labels::of_node(&network.name, name);
    all_labels.insert(labels::COMPONENT.to_owned(), labels::Component::Validator.label().to_owned());
    let mut annotations = std::collections::BTreeMap::from([(labels::REPLACES.to_owned(), of_spec.clone())]);
    if let Some(image) = source.annotations().get(labels::DEFAULT_IMAGE) {
        annotations.insert(labels::DEFAULT_IMAGE.to_owned(), image.clone());
    }
    Some(BizraNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: validator.namespace(),
            labels: Some(all_labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(validator)]),
            ..ObjectMeta::default()
        },
        spec: BizraNodeSpec {
            network_ref: network.clone(),
            // Left out of what is applied: whoever orders otherwise for this node keeps the say.
            reconciliation: Reconciliation::default(),
            signing: Signing::default(),
            template: source.spec.template.clone(),
        },
        status: None,
    })
}

#[cfg(test)]
#[path = "replacement_tests.rs"]
mod tests;
