//! What to say of a pool: a pure function of spec, observation and outcome, written last and only if it changed.

use kube::{Resource as _, ResourceExt as _};

use super::{observe::Observed, plan::Plan, roster};
use crate::{
    api::{BizraNode, NodePool, NodePoolStatus, condition},
    controllers::{
        Context, ReconcileError,
        conditions::{Conditions, Headway, Reason, Truth, announcements, find, is_true, refused},
        ownership::{Ownership, ownership},
    },
    kubernetes::WriteError,
    resources::{labels, pod},
};

/// Writes the status if it changed; true if the pool is ready.
pub async fn report(
    context: &Context,
    pool: &NodePool,
    observed: &Observed,
    plan: &Plan,
    outcome: Result<&(), &WriteError>,
) -> Result<bool, ReconcileError> {
    let old = pool.status.clone().unwrap_or_default();
    let new = status(pool, observed, plan, outcome.err());
    let ready = is_true(&new.conditions, condition::READY);
    if old == new {
        return Ok(ready);
    }
    let mut written = pool.clone();
    let news = announcements(&old.conditions, &new.conditions);
    written.status = Some(new);
    match context.write_status(&written).await {
        Ok(()) => {
            for announcement in news {
                context.announcer.announce(pool.object_ref(&()), announcement);
            }
            Ok(ready)
        }
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(false),
        Err(error) => Err(ReconcileError::Report(error)),
    }
}

/// The nodes as the report counts them.
struct Tally<'a> {
    /// All that the pool controls.
    nodes: Vec<&'a BizraNode>,
    /// Names the spec asks for.
    wanted: Vec<String>,
    /// Revision the spec asks for.
    revision: Option<&'a str>,
}

impl Tally<'_> {
    fn says(node: &BizraNode, type_: &str) -> bool {
        node.status.as_ref().is_some_and(|status| {
            Some(status.observed_generation) == node.metadata.generation && is_true(&status.conditions, type_)
        })
    }

    fn ready(&self) -> usize {
        self.nodes.iter().filter(|node| Self::says(node, condition::READY)).count()
    }

    fn updated(&self) -> usize {
        let is_assigned = |node: &BizraNode| {
            self.revision.is_some() && pod::annotation(&node.metadata, labels::TEMPLATE_REVISION) == self.revision
        };
        self.nodes.iter().filter(|node| is_assigned(node) && Self::says(node, condition::UP_TO_DATE)).count()
    }

    /// The first wanted node that is not in sync, and the word for why.
    fn missing(&self) -> Option<(&str, String)> {
        self.wanted.iter().find_map(|name| {
            let node = self.nodes.iter().find(|node| node.name_any() == *name);
            if node.is_some_and(|node| Self::says(node, condition::READY)) {
                return None;
            }
            let told = node.and_then(|node| node.status.as_ref()).map(|status| status.conditions.as_slice());
            let ready = find(told.unwrap_or_default(), condition::READY).filter(|ready| ready.status != "True");
            Some((name.as_str(), ready.map_or_else(|| "Missing".to_owned(), |ready| ready.reason.clone())))
        })
    }
}

/// The status.
pub fn status(pool: &NodePool, observed: &Observed, plan: &Plan, failure: Option<&WriteError>) -> NodePoolStatus {
    let old = pool.status.clone().unwrap_or_default();
    let generation = pool.metadata.generation.unwrap_or(0);
    let ours = observed.nodes.iter().filter(|node| ownership(&node.metadata, pool) == Ownership::Ours);
    let tally =
        Tally { nodes: ours.collect(), wanted: roster::names(pool, observed), revision: plan.revision.as_deref() };
    let (is_ready, reason) = readiness(plan, &tally);
    let mut conditions = Conditions::new(&old.conditions, generation, observed.now);
    conditions.set(condition::READY, Truth::from(is_ready), &reason);
    let asleep = plan.hibernated.as_ref().filter(|reason| reason.word == "Hibernated" && plan.steps.is_empty());
    let (up_to_date, why) = up_to_date(plan, &tally);
    let refused = failure.filter(|error| error.is_refusal()).map(refused);
    conditions.set_progress(&Headway {
        ready: is_ready,
        reason: &reason,
        is_done: plan.steps.is_empty(),
        behind: (up_to_date == Truth::False).then_some(&why),
        failure: failure.filter(|_| refused.is_none()).map(ToString::to_string),
        stalled: plan.stalled.as_ref().or(refused.as_ref()),
        order: plan.paused.as_ref().or(asleep),
    });
    if let Some(paused) = &plan.paused {
        conditions.set(condition::PAUSED, Truth::True, paused);
    }
    if let Some(hibernated) = &plan.hibernated {
        conditions.set(condition::HIBERNATED, Truth::from(observed.pods.is_empty()), hibernated);
    }
    conditions.set(condition::UP_TO_DATE, up_to_date, &why);

    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    NodePoolStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        replicas: count(tally.nodes.len()),
        ready_replicas: count(tally.ready()),
        updated_replicas: count(tally.updated()),
        selector: Some(labels::pool_selector(&pool.name_any())),
        revision: plan.revision.clone().or(old.revision),
    }
}

fn readiness(plan: &Plan, tally: &Tally<'_>) -> (bool, Reason) {
    if let Some(reason) = plan.stalled.as_ref().or(plan.waiting.as_ref()).or(plan.hibernated.as_ref()) {
        return (false, reason.clone());
    }
    let (there, wanted) = (tally.nodes.len(), tally.wanted.len());
    if there > wanted {
        return (false, Reason::new("Shrinking", format!("{there} nodes are there, {wanted} are wanted")));
    }
    match tally.missing() {
        None => (true, Reason::new("AllNodesReady", format!("all {wanted} nodes are in sync"))),
        Some((name, why)) => {
            let message = format!("{} of {wanted} nodes are in sync; {name}: {why}", tally.ready());
            (false, Reason::new("NodesNotReady", message))
        }
    }
}

fn up_to_date(plan: &Plan, tally: &Tally<'_>) -> (Truth, Reason) {
    let (there, updated) = (tally.nodes.len(), tally.updated());
    if plan.revision.is_none() {
        (Truth::Unknown, Reason::new("NotDecided", "see the condition Ready"))
    } else if updated == there {
        (Truth::True, Reason::new("RevisionCurrent", "every node was made from the present spec"))
    } else {
        let message = format!("{updated} of {there} nodes were made from the present spec");
        (Truth::False, Reason::new("RevisionPending", message))
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
