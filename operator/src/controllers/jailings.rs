//! What a jailing stops. A validator that signed two conflicting votes was run by somebody twice, and that may have been this
//! operator's doing: its node is fenced, and of its own accord the operator changes nobody else until a person has looked.
//! Pure.
//!
//! A Validator's status tells of its jailing; the Network keeps it, so that it outlives the Validator. A jailed key never votes
//! again, so its fence is never lifted: it goes with the key.

use bizra_proto::v1::NodeStatus;
use kube::ResourceExt as _;

use super::{conditions::Reason, network::observe::Observed};
use crate::api::{BizraNode, Jailing, Network, Signing, Validator};

/// Most jailings a status keeps, by its schema.
const JAILINGS_MAX: usize = 64;

/// Reason of what stands still.
pub const WORD: &str = "JailedValidator";

/// The jailings that the Network's status is to hold: what it holds, unless nobody can need it any more, and what Validators
/// tell beyond that.
pub fn known(network: &Network, observed: &Observed) -> Vec<Jailing> {
    let has_key = |node: &BizraNode, key: &str| node.status.as_ref().and_then(|s| s.public_key.as_deref()) == Some(key);
    let told: Vec<Jailing> = observed.validators.iter().filter_map(of_validator).collect();
    let is_needed = |jailing: &Jailing| {
        !is_acknowledged(network, jailing)
            || told.contains(jailing)
            || observed.nodes.iter().any(|node| has_key(node, &jailing.public_key))
    };
    let mut known = network.status.as_ref().map(|status| status.jailings.clone()).unwrap_or_default();
    known.retain(is_needed);
    let new = told.iter().filter(|told| known.iter().all(|known| known.id != told.id));
    let new: Vec<Jailing> = new.cloned().collect();
    known.extend(new);
    known.truncate(JAILINGS_MAX);
    known
}

fn of_validator(validator: &Validator) -> Option<Jailing> {
    let status = validator.status.as_ref()?;
    let (public_key, height) = (status.public_key.clone()?, status.jailed_at?);
    let (validator, node) = (validator.name_any(), validator.spec.node_ref.name.clone());
    Some(Jailing { id: format!("{public_key}@{height}"), validator, node, public_key, height })
}

fn is_acknowledged(network: &Network, jailing: &Jailing) -> bool {
    network.spec.acknowledged_jailings.contains(&jailing.id)
}

/// Why nothing is changed of the operator's own accord, if one of these jailings waits for a person.
pub fn standstill(network: &Network, jailings: &[Jailing]) -> Option<Reason> {
    let waiting: Vec<&Jailing> = jailings.iter().filter(|jailing| !is_acknowledged(network, jailing)).collect();
    let Jailing { validator, node, .. } = waiting.first()?;
    let ids: Vec<&str> = waiting.iter().map(|jailing| jailing.id.as_str()).collect();
    let message = format!(
        "Validator {validator} signed two conflicting votes and is jailed; its node {node} is fenced, and nobody else is changed until a person has looked: find out how its key came to sign twice, then add to spec.acknowledgedJailings: {}",
        ids.join(", ")
    );
    Some(Reason::new(WORD, message))
}

/// The same by what the Network's status holds.
pub fn standstill_of(network: &Network) -> Option<Reason> {
    standstill(network, network.status.as_ref().map(|status| status.jailings.as_slice()).unwrap_or_default())
}

/// Why a node is to sign nothing: it was told so, or the chain has jailed its key. What is known of the key from before counts
/// as well: a node that may have it is fenced until it says that it has another.
pub fn fence(node: &BizraNode, network: Option<&Network>, said: Option<&NodeStatus>) -> Option<Reason> {
    if node.spec.signing == Signing::Fenced {
        return Some(Reason::new("Fenced", "the node signs nothing, because spec.signing is Fenced"));
    }
    let known = node.status.as_ref().and_then(|status| status.public_key.as_deref());
    let said = said.map(|said| said.public_key.as_str());
    let jailings = &network?.status.as_ref()?.jailings;
    let is_its = |jailing: &&Jailing| [known, said].contains(&Some(jailing.public_key.as_str()));
    let Jailing { height, validator, .. } = jailings.iter().find(is_its)?;
    let message = format!(
        "the node signs nothing, because the chain has jailed its key at height {height}, as that of Validator {validator}; the key never votes again"
    );
    Some(Reason::new("Jailed", message))
}

#[cfg(test)]
#[path = "jailings_tests.rs"]
mod tests;
