//! What to do next for a pool. Pure and total.
//!
//! A node gets a new template only when it is its turn. Of the nodes that work, no more than `maxUnavailable` are on their
//! way to it at a time, so a revision that does not work reaches no more of them, and stays there until the spec changes. A
//! node that does not run anyway, by its kubelet's word, loses nothing and is changed at once.

use std::{cmp::Reverse, collections::BTreeSet};

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;

use super::{
    observe::Observed,
    roster::{self, Leaving},
};
use crate::{
    api::{Activity, BizraNode, ImageSpec, Network, NodePool, NodeTemplate, Reconciliation, condition},
    controllers::{
        ReconcileError,
        conditions::{Reason, find, is_true},
        hosts,
        ownership::{Ownership, ownership},
        quorum,
    },
    kubernetes::{Write, named, needs_apply},
    resources::{labels, names, node as node_builder, pod, revision},
};

/// A write, and what to tell people when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The write.
    pub write: Write,
    /// Reason and note of an event.
    pub event: Option<Reason>,
}

/// What to do, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What somebody has to change.
    pub stalled: Option<Reason>,
    /// What will pass.
    pub waiting: Option<Reason>,
    /// Why nothing is changed, if somebody has ordered that.
    pub paused: Option<Reason>,
    /// Why there are no pods, or soon will be none, if somebody has ordered that of the Network.
    pub hibernated: Option<Reason>,
    /// Revision of the template the spec asks for, if the Network is there.
    pub revision: Option<String>,
}

impl Plan {
    /// True if something would be made, changed or removed, or if people would be told to act.
    pub fn needs_live_reads(&self) -> bool {
        !self.steps.is_empty() || self.stalled.is_some()
    }
}

/// Makes the plan.
pub fn plan(pool: &NodePool, observed: &Observed, default_image: &ImageSpec) -> Result<Plan, ReconcileError> {
    let mut planner = Planner {
        pool,
        observed,
        name: pool.name_any(),
        namespace: pool.namespace().unwrap_or_default(),
        plan: Plan::default(),
    };
    if pool.metadata.deletion_timestamp.is_none() {
        planner.run(default_image)?;
        planner.pause();
    }
    Ok(planner.plan)
}

/// A node the pool controls.
struct Member<'a> {
    name: String,
    ordinal: Option<i32>,
    node: &'a BizraNode,
    pod: Option<&'a Pod>,
    /// Revision of the template it was given.
    assigned: String,
}

impl Member<'_> {
    /// In sync with what it was given, by its own word.
    fn is_in_place(&self) -> bool {
        self.node.status.as_ref().is_some_and(|status| {
            Some(status.observed_generation) == self.node.metadata.generation
                && is_true(&status.conditions, condition::READY)
                && is_true(&status.conditions, condition::UP_TO_DATE)
        })
    }

    fn runs(&self) -> bool {
        self.pod.is_some_and(quorum::container_runs)
    }

    /// Why it is not in sync, in a word that does not change with every look.
    fn trouble(&self) -> String {
        let told = self.node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match find(told, condition::READY) {
            Some(ready) if ready.status == "True" => "the change is under way".to_owned(),
            Some(ready) => ready.reason.clone(),
            None => "nothing is known of it yet".to_owned(),
        }
    }

    /// For how long it has not been in sync with what it was given. That begins when its controller has seen it: what was
    /// said of an earlier template may be as old as it likes.
    fn late_for(&self, now: Timestamp) -> SignedDuration {
        let told = self.node.status.as_ref().filter(|status| !status.conditions.is_empty());
        let since = match told {
            None => self.node.metadata.creation_timestamp.as_ref().map(|made| made.0),
            Some(status) if Some(status.observed_generation) != self.node.metadata.generation => None,
            Some(status) => {
                let types = [condition::READY, condition::UP_TO_DATE];
                let turned = types.into_iter().filter_map(|type_| find(&status.conditions, type_));
                turned.map(|condition| condition.last_transition_time.0).max()
            }
        };
        since.map_or(SignedDuration::ZERO, |since| now.duration_since(since))
    }
}

struct Planner<'a> {
    pool: &'a NodePool,
    observed: &'a Observed,
    name: String,
    namespace: String,
    plan: Plan,
}

impl<'a> Planner<'a> {
    /// The first is told.
    fn stall(&mut self, word: &str, message: String) {
        self.plan.stalled.get_or_insert_with(|| Reason::new(word, message));
    }

    fn wait(&mut self, word: &str, message: String) {
        self.plan.waiting.get_or_insert_with(|| Reason::new(word, message));
    }

    fn run(&mut self, default_image: &ImageSpec) -> Result<(), ReconcileError> {
        let Some(network) = &self.observed.network else {
            let network = &self.pool.spec.network_ref.name;
            self.stall("NetworkMissing", format!("there is no Network {network} in this namespace; create it"));
            return Ok(());
        };
        if network.metadata.deletion_timestamp.is_some() {
            self.wait("NetworkTerminating", "the Network is being deleted".to_owned());
            return Ok(());
        }
        if network.spec.activity == Activity::Hibernated {
            let network = network.name_any();
            self.plan.hibernated = Some(match self.observed.pods.len() {
                0 => {
                    Reason::new("Hibernated", format!("Network {network} hibernates: there are no pods, volumes stay"))
                }
                _ => Reason::new("Hibernating", format!("Network {network} hibernates: the pods are ending")),
            });
        }
        let default_image = self.default_image(network, default_image);
        let wanted = self.template(network, &default_image);
        let target = revision::of_template(&wanted)?;
        self.plan.revision = Some(target.clone());
        let members = self.members()?;
        let turns = self.turns(network, &members, &target);
        let names = roster::names(self.pool, self.observed);
        for name in &names {
            let held_back = members.iter().find(|member| {
                member.name == *name && member.assigned != target && !turns.contains(member.name.as_str())
            });
            let template = held_back.map_or_else(|| wanted.clone(), |member| held_back_template(member.node, &wanted));
            self.node(name, template, &default_image)?;
        }
        self.remove(&members, &names);
        Ok(())
    }

    /// Everything was judged as ever, to be reported; nothing of it is done.
    fn pause(&mut self) {
        if self.pool.spec.reconciliation == Reconciliation::Paused {
            let message = format!(
                "spec.reconciliation is Paused: no node of this pool is made, changed or removed; changes that wait: {}",
                self.plan.steps.len()
            );
            self.plan.paused = Some(Reason::new("Paused", message));
            self.plan.steps.clear();
        }
    }

    /// The image that nodes were made with stays the default of those that name none: a new operator restarts nobody.
    fn default_image(&self, network: &Network, default: &ImageSpec) -> ImageSpec {
        let nodes = self.observed.nodes.iter();
        let of_network = nodes.clone().filter(|node| ownership(&node.metadata, network) == Ownership::Ours);
        let of_pool = nodes.filter(|node| ownership(&node.metadata, self.pool) == Ownership::Ours);
        let settled = node_builder::settled_image(of_network).or_else(|| node_builder::settled_image(of_pool));
        settled.unwrap_or_else(|| default.clone())
    }

    /// The template the spec asks for, with a complete image: what the pool leaves out is the Network's.
    fn template(&self, network: &Network, default_image: &ImageSpec) -> NodeTemplate {
        let of_network = node_builder::complete_image(&network.spec.template.image, default_image);
        let template = &self.pool.spec.template;
        NodeTemplate { image: node_builder::complete_image(&template.image, &of_network), ..template.clone() }
    }

    fn members(&self) -> Result<Vec<Member<'a>>, serde_json::Error> {
        let observed = self.observed;
        let ours = observed.nodes.iter().filter(|node| ownership(&node.metadata, self.pool) == Ownership::Ours);
        ours.filter(|node| node.metadata.deletion_timestamp.is_none())
            .map(|node| {
                let name = node.name_any();
                let assigned = match pod::annotation(&node.metadata, labels::TEMPLATE_REVISION) {
                    Some(assigned) => assigned.to_owned(),
                    None => revision::of_template(&node.spec.template)?,
                };
                let ordinal = names::ordinal(&self.name, &name);
                let pod = roster::pod_of(observed, &name);
                Ok(Member { name, ordinal, node, pod, assigned })
            })
            .collect()
    }

    /// Names of the nodes that get the new template now.
    fn turns<'m>(&mut self, network: &Network, members: &'m [Member<'_>], target: &str) -> BTreeSet<&'m str> {
        let mut turns = BTreeSet::new();
        let (current, mut outdated): (Vec<&Member<'_>>, Vec<&Member<'_>>) =
            members.iter().partition(|member| member.assigned == target);
        if outdated.is_empty() {
            return turns;
        }
        if self.plan.hibernated.is_some() {
            // Nothing runs that could show whether the new template works.
            self.wait("Hibernated", format!("revision {target} is rolled out when the network runs again"));
            return turns;
        }
        let late: Vec<&Member<'_>> = current.into_iter().filter(|member| !member.is_in_place()).collect();
        let patience = SignedDuration::from_secs(i64::from(network.spec.update_deadline_seconds));
        if let Some(overdue) = late.iter().find(|member| member.late_for(self.observed.now) > patience) {
            let message = format!(
                "{} did not come in sync with revision {target} ({}); no further node is changed; repair it, or change the spec",
                overdue.name,
                overdue.trouble()
            );
            self.stall("RollStopped", message);
            return turns;
        }
        let bound = usize::try_from(self.pool.spec.max_unavailable).unwrap_or(1).max(1);
        let mut away = members.iter().filter(|member| !member.is_in_place()).count();
        let mut on_trial = late.len();
        // Those that do not work first, then the highest ordinal.
        outdated.sort_by_key(|member| (member.is_in_place(), Reverse(member.ordinal)));
        for member in outdated {
            match (member.is_in_place(), member.runs()) {
                (false, false) => {}
                (false, true) if on_trial < bound => on_trial += 1,
                (true, _) if away < bound && on_trial < bound => {
                    away += 1;
                    on_trial += 1;
                }
                _ => continue,
            }
            turns.insert(member.name.as_str());
        }
        let message = if let Some(member) = late.first() {
            format!("waiting for {} to be in sync with revision {target}: {}", member.name, member.trouble())
        } else {
            let names = turns.iter().copied().collect::<Vec<_>>().join(", ");
            format!("changing to revision {target}: {names}")
        };
        self.wait("RollingUpdate", message);
        turns
    }

    /// Makes or changes the node of this name.
    fn node(&mut self, name: &str, template: NodeTemplate, default_image: &ImageSpec) -> Result<(), ReconcileError> {
        let live = named(&self.observed.nodes, name);
        match live.map(|live| ownership(&live.metadata, self.pool)) {
            None | Some(Ownership::Ours) => {}
            Some(Ownership::Former) => {
                let message = format!("BizraNode {name} of the former NodePool is being removed");
                self.wait("FormerTerminating", message);
                return Ok(());
            }
            Some(Ownership::Foreign) => {
                let message =
                    format!("BizraNode {name} belongs to somebody else; delete it, or name the pool otherwise");
                self.stall("NameTaken", message);
                return Ok(());
            }
        }
        if live.is_some_and(|live| live.metadata.deletion_timestamp.is_some()) {
            self.wait("NodeTerminating", format!("BizraNode {name} is being deleted, and made anew after that"));
            return Ok(());
        }
        let desired = node_builder::member(self.pool, &self.name, &self.namespace, name, template, default_image)?;
        if let Some(write) = needs_apply(live, &desired)? {
            let event = live.is_none().then(|| Reason::new("NodeCreated", format!("created BizraNode {name}")));
            self.plan.steps.push(Step { write, event });
        }
        Ok(())
    }

    /// Removes what is too much, the highest ordinal first. Whoever may vote is not removed: being a validator is the chain's
    /// affair, and a pool that shrinks must not cost the chain power.
    fn remove(&mut self, members: &[Member<'_>], wanted: &[String]) {
        let mut extra: Vec<&Member<'_>> = members.iter().filter(|member| !wanted.contains(&member.name)).collect();
        extra.sort_by_key(|member| Reverse(member.ordinal));
        for member in extra {
            let name = &member.name;
            match roster::leaving(member.node, self.observed) {
                Leaving::Free => {
                    let claim = names::claim(name);
                    let event = if let Some(since) = roster::lost_since(self.pool, member.node, self.observed) {
                        let host = member.pod.map(hosts::host).unwrap_or_default();
                        let message = format!(
                            "deleted BizraNode {name}, whose host {host} has not been heard of since {since}; another takes its place, and its volume claim {claim} stays"
                        );
                        Reason::new("NodeReplaced", message)
                    } else {
                        Reason::new("NodeRemoved", format!("deleted BizraNode {name}; its volume claim {claim} stays"))
                    };
                    self.plan.steps.push(Step { write: Write::delete(member.node), event: Some(event) });
                }
                Leaving::Unknown => {
                    let message = format!("{name} is to go, but runs and has not said yet that it has no vote");
                    return self.wait("MayBeVoting", message);
                }
                Leaving::Votes => {
                    let message = format!(
                        "{name} is to go, but it is a validator of the chain; take it out of the validator set first, or set spec.replicas back"
                    );
                    return self.stall("NodeVotes", message);
                }
            }
        }
    }
}

/// What a node has until its turn; its volume grows without one.
fn held_back_template(node: &BizraNode, wanted: &NodeTemplate) -> NodeTemplate {
    NodeTemplate { storage: wanted.storage.clone(), ..node.spec.template.clone() }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
