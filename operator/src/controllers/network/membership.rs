//! Which validators of its own a network is to have now, on the way to the number its spec asks for. Pure.
//!
//! Those of the genesis are there from the beginning. Any other joins, and any one leaves, by the saga of its `Validator`, and one after
//! the other: the next only when every validator is as it should be. A node goes when its `Validator` is gone and it has no power left.

use kube::ResourceExt as _;

use super::{
    ceremony::{Ceremony, wanted_names},
    observe::Observed,
    owners,
};
use crate::{
    api::{Network, Validator, condition},
    controllers::{
        conditions::{Reason, find, is_true},
        ownership::{Ownership, ownership},
        quorum::{Census, Verdict},
        validator::replacement,
    },
    resources::names,
};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// Names of the `BizraNode`s there are to be, by ordinal.
    pub nodes: Vec<String>,
    /// Names of the `Validator`s there are to be, by ordinal.
    pub validators: Vec<String>,
    /// The `Validator` that is to leave the chain now.
    pub leaves: Option<String>,
    /// The `BizraNode` that is not needed any more.
    pub goes: Option<String>,
    /// Why a change takes its time.
    pub waiting: Option<Reason>,
}

/// Decides. `census` is of the same observation; there is one if there is a chain.
pub fn decide(network: &Network, observed: &Observed, ceremony: &Ceremony, census: Option<&Census>) -> Membership {
    let wanted = wanted_names(network);
    let view = View { network, observed, census };
    match (ceremony, census) {
        (Ceremony::Done { genesis, .. }, Some(census)) if owners::are_known(genesis) => {
            let in_genesis = |name: &str| genesis.validators.iter().any(|validator| validator.name == name);
            view.of_chain(wanted, &in_genesis, census)
        }
        // Nothing has been agreed on yet.
        (Ceremony::Waiting(_) | Ceremony::Compose(_), _) => {
            let goes = view.surplus(&wanted).last().cloned();
            Membership { nodes: wanted, goes, ..Membership::default() }
        }
        _ => Membership { nodes: wanted, ..Membership::default() },
    }
}

struct View<'a> {
    network: &'a Network,
    observed: &'a Observed,
    census: Option<&'a Census>,
}

impl View<'_> {
    fn validator(&self, name: &str) -> Option<&Validator> {
        let is_ours = |validator: &&Validator| ownership(&validator.metadata, self.network) == Ownership::Ours;
        self.observed.validators.iter().filter(is_ours).find(|validator| validator.name_any() == name)
    }

    fn has_node(&self, name: &str) -> bool {
        let is_ours = |metadata| ownership(metadata, self.network) == Ownership::Ours;
        self.observed.nodes.iter().any(|node| node.name_any() == name && is_ours(&node.metadata))
    }

    fn has_volume(&self, name: &str) -> bool {
        self.observed.claims.iter().any(|claim| claim.name_any() == names::claim(name))
    }

    /// Names of what is there and not wanted, by ordinal.
    fn surplus(&self, wanted: &[String]) -> Vec<String> {
        let network = self.network.name_any();
        let nodes = self.observed.nodes.iter().map(kube::ResourceExt::name_any);
        let validators = self.observed.validators.iter().map(kube::ResourceExt::name_any);
        let mut surplus: Vec<(i32, String)> = nodes
            .chain(validators)
            .filter(|name| self.has_node(name) || self.validator(name).is_some())
            .filter(|name| !wanted.contains(name))
            .filter_map(|name| Some((names::validator_ordinal(&network, &name)?, name)))
            .collect();
        surplus.sort();
        surplus.dedup();
        surplus.into_iter().map(|(_, name)| name).collect()
    }

    /// Power of the validator with this name, whichever node has it.
    fn power(&self, name: &str) -> u128 {
        let powers = self.census.into_iter().flat_map(Census::powers);
        powers.filter(|(node, _)| *node == name || names::is_replacement(name, node)).map(|(_, power)| power).sum()
    }

    /// What keeps this validator from being done with, if something does.
    fn trouble(&self, name: &str) -> Option<Reason> {
        let Some(validator) = self.validator(name) else {
            return Some(Reason::new("ValidatorPending", format!("Validator {name} is being made")));
        };
        let told = validator.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let is_leaving = validator.metadata.deletion_timestamp.is_some();
        if is_true(told, condition::READY) && !is_leaving {
            return None;
        }
        let said = find(told, condition::READY).map_or("nothing yet", |ready| ready.message.as_str());
        let (word, what) = if is_leaving { ("ScalingDown", "leaves") } else { ("ScalingUp", "is not active yet") };
        Some(Reason::new(word, format!("Validator {name} {what}: {said}")))
    }

    fn of_chain(&self, wanted: Vec<String>, in_genesis: &dyn Fn(&str) -> bool, census: &Census) -> Membership {
        let surplus = self.surplus(&wanted);
        // Whose volume is there may be a validator already, of a Network that was deleted and is made again: without it there may be no
        // quorum, and it cannot wait for one.
        let is_due = |name: &String| {
            in_genesis(name) || self.has_node(name) || self.validator(name).is_some() || self.has_volume(name)
        };
        let (mut nodes, later): (Vec<String>, Vec<String>) = wanted.into_iter().partition(is_due);
        let mut validators = nodes.clone();
        let mut membership = Membership::default();

        let mut others = nodes.iter().chain(&surplus).filter(|name| self.validator(name).is_some());
        let leaving = others
            .clone()
            .find(|name| self.validator(name).is_some_and(|validator| validator.metadata.deletion_timestamp.is_some()));
        let next_to_leave = surplus.iter().rev().find(|name| self.validator(name).is_some());
        let joins = |name: &&String| self.has_node(name) && self.power(name) == 0 && self.trouble(name).is_some();
        let joining = nodes.iter().find(joins);
        let under_way = leaving.or(joining);
        if let Some(name) = under_way {
            membership.waiting = self.trouble(name);
        } else if let Some(name) = next_to_leave {
            // Who is not in yet is nobody the others need.
            let node = self.validator(name).map_or(name.as_str(), replacement::present);
            let verdict = if self.power(name) == 0 { Verdict::Safe } else { census.may_leave(node) };
            match verdict {
                Verdict::Safe => {
                    membership.leaves = Some(name.clone());
                    membership.waiting = Some(Reason::new("ScalingDown", format!("Validator {name} is to leave")));
                }
                Verdict::NotNow(reason) | Verdict::Never(reason) => membership.waiting = Some(reason),
            }
        } else if let Some(next) = later.first() {
            let trouble = others.find_map(|name| self.trouble(name));
            if trouble.is_none() {
                nodes.push(next.clone());
                validators.push(next.clone());
            }
            let joins = || Reason::new("ScalingUp", format!("Validator {next} is to join"));
            membership.waiting = Some(trouble.unwrap_or_else(joins));
        }

        // Until it is gone, the node of a validator that leaves is looked after like any other.
        for name in surplus.into_iter().rev() {
            if self.validator(&name).is_some() {
                nodes.push(name);
            } else if self.power(&name) > 0 {
                let message = format!("{name} is not wanted any more and has no Validator, but votes; it stays");
                membership.waiting.get_or_insert(Reason::new("StillVotes", message));
                nodes.push(name);
            } else if membership.goes.is_none() {
                membership.goes = Some(name);
            }
        }
        Membership { nodes, validators, ..membership }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
