//! What to say of a network: a pure function of spec, observation and outcome, written last and only if it changed.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _};

use super::{
    authorities::Stage,
    ceremony::{self, Ceremony},
    observe::Observed,
    plan::Plan,
    roll::{self, Progress},
};
use crate::{
    api::{BizraNode, BizraNodeStatus, Network, NetworkStatus, Offender, QuorumStatus, ValidatorCounts, condition},
    controllers::{
        Context, ReconcileError,
        conditions::{Conditions, Headway, Reason, Truth, announcements, find, is_true, refused},
        jailings, quorum,
    },
    kubernetes::{Announcement, named, shorten},
    resources::{labels, pod},
};

/// Most offenders a status names.
const OFFENDERS_MAX: usize = 10;
/// A validator votes if its signature is in a certificate at most this many blocks old.
const VOTING_WINDOW_BLOCKS: i64 = 64;
/// A node may be this many blocks behind and still count as in sync.
const SYNCED_LAG_BLOCKS: i64 = 16;

/// Writes the status if it changed; true if the network is ready.
pub async fn report(
    context: &Context,
    network: &Network,
    observed: &Observed,
    plan: &Plan,
    outcome: Result<&(), &ReconcileError>,
) -> Result<bool, ReconcileError> {
    let uid = network.uid().unwrap_or_default();
    let old = network.status.clone().unwrap_or_default();
    let new = status(network, observed, plan, outcome.err());
    let ready = is_true(&new.conditions, condition::READY);
    let changed = without_numbers(&old) != without_numbers(&new);
    if !changed && (old == new || !context.numbers_are_due(&uid)) {
        return Ok(ready);
    }
    let mut written = network.clone();
    let news = announcements(&old.conditions, &new.conditions);
    written.status = Some(new);
    match context.write_status(&written).await {
        Ok(()) => {
            context.reported(&uid);
            let steps = roll::news(&old, written.status.as_ref().unwrap_or(&old)).into_iter().map(Announcement::normal);
            for announcement in news.into_iter().chain(steps) {
                context.announcer.announce(network.object_ref(&()), announcement);
            }
            Ok(ready)
        }
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(false),
        Err(error) => Err(ReconcileError::Report(error)),
    }
}

/// The part of a status that is written at once when it changes.
fn without_numbers(status: &NetworkStatus) -> NetworkStatus {
    NetworkStatus { height: None, lag: None, ..status.clone() }
}

/// A validator as the report sees it.
struct Validator<'a> {
    name: &'a str,
    power: u128,
    node: Option<&'a BizraNode>,
}

impl Validator<'_> {
    fn status(&self) -> Option<&BizraNodeStatus> {
        self.node.and_then(|node| node.status.as_ref())
    }

    /// Ready by its own word, and with its key in the genesis.
    fn is_ready(&self) -> bool {
        self.status().is_some_and(|status| {
            is_true(&status.conditions, condition::READY) && !is_true(&status.conditions, condition::KEY_NOT_IN_GENESIS)
        })
    }
}

/// The status.
pub fn status(network: &Network, observed: &Observed, plan: &Plan, failure: Option<&ReconcileError>) -> NetworkStatus {
    let old = network.status.clone().unwrap_or_default();
    let generation = network.metadata.generation.unwrap_or(0);
    let validators = validators(observed, plan);
    let all = |node: &BizraNode| node.spec.network_ref.name == network.name_any();
    let statuses: Vec<&BizraNodeStatus> =
        observed.nodes.iter().filter(|node| all(node)).filter_map(|node| node.status.as_ref()).collect();

    let height = statuses.iter().filter_map(|status| status.height).max();
    let lag = validators.iter().filter_map(|validator| validator.status()?.lag).max();
    let ready: Vec<&Validator<'_>> = validators.iter().filter(|validator| validator.is_ready()).collect();
    let voting = ready.iter().filter(|validator| votes(validator.status())).count();
    let total_power: u128 = validators.iter().map(|validator| validator.power).sum();
    let ready_power: u128 = ready.iter().map(|validator| validator.power).sum();
    let quorum = QuorumStatus {
        total_power: total_power.to_string(),
        ready_power: ready_power.to_string(),
        needed_power: (total_power * 2 / 3 + 1).to_string(),
    };
    let versions: BTreeSet<&str> = statuses.iter().filter_map(|status| status.version.as_deref()).collect();
    let versions = versions.into_iter().collect::<Vec<_>>().join(",");

    let mut conditions = Conditions::new(&old.conditions, generation, observed.now);
    let (is_ready, reason) = readiness(plan, &validators, ready.len());
    conditions.set(condition::READY, Truth::from(is_ready), &reason);
    let refused = failure.and_then(ReconcileError::refusal).map(refused);
    conditions.set_progress(&Headway {
        ready: is_ready,
        reason: &reason,
        is_done: plan.steps.is_empty(),
        behind: plan.roll.as_ref().and_then(|roll| match &roll.progress {
            Progress::Rolling(reason) | Progress::Waiting(reason) => Some(reason),
            Progress::Current | Progress::Stalled(_) => None,
        }),
        failure: failure.filter(|_| refused.is_none()).map(ToString::to_string),
        stalled: plan.stalled.as_ref().or(refused.as_ref()),
        order: order_obeyed(plan),
    });
    if let Some(paused) = &plan.paused {
        conditions.set(condition::PAUSED, Truth::True, paused);
    }
    if let Some(hibernated) = &plan.hibernated {
        conditions.set(condition::HIBERNATED, Truth::from(observed.pods_left() == 0), hibernated);
    }
    if let Some(concentration) = &plan.concentration {
        conditions.set(condition::POWER_CONCENTRATED, Truth::True, concentration);
    }
    if let Some(standstill) = jailings::standstill(network, &plan.jailings) {
        conditions.set(condition::JAILED_VALIDATOR, Truth::True, &standstill);
    }
    set_quorum(&mut conditions, plan, ready_power, total_power);
    set_synced(&mut conditions, lag);
    set_up_to_date(&mut conditions, plan);
    set_certificates(&mut conditions, observed, plan);

    let roll = plan.roll.as_ref();
    NetworkStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        validators: ValidatorCounts {
            desired: network.spec.validators,
            ready: i32::try_from(ready.len()).unwrap_or(i32::MAX),
            voting: i32::try_from(voting).unwrap_or(i32::MAX),
        },
        quorum,
        height: height.or(old.height),
        lag,
        version: (!versions.is_empty()).then(|| shorten(&versions, 256)),
        genesis_hash: match &plan.ceremony {
            Ceremony::Done { hash, .. } => Some(hash.clone()),
            _ => None,
        },
        revision: roll.map(|roll| roll.target.clone()).or(old.revision),
        good_revision: roll.map_or(old.good_revision, |roll| roll.good.clone()),
        permit: roll.map_or(old.permit, |roll| roll.permit.clone()),
        failed_revision: roll.map_or(old.failed_revision, |roll| roll.failed.clone()),
        offenders: offenders(&validators),
        jailings: plan.jailings.clone(),
    }
}

fn validators<'a>(observed: &'a Observed, plan: &'a Plan) -> Vec<Validator<'a>> {
    // Whoever took a validator's place stands for it.
    let node = |name: &str| {
        let own = named(&observed.nodes, name)?;
        let successor = || {
            let replaces = |node: &&BizraNode| pod::annotation(&node.metadata, labels::REPLACES) == Some(name);
            observed.nodes.iter().find(|node| replaces(node) && !quorum::is_replaced(node))
        };
        Some(own).filter(|own| !quorum::is_replaced(own)).or_else(successor)
    };
    let validator = |name: &'a String| {
        let node = node(name);
        Validator { name, power: ceremony::power(&plan.ceremony, name, node).into(), node }
    };
    plan.membership.nodes.iter().map(validator).collect()
}

/// By two numbers of the same moment. What others say may be a minute younger, and the chain many blocks further by then; how far
/// behind a node may be is asked elsewhere.
fn votes(status: Option<&BizraNodeStatus>) -> bool {
    let numbers = status.and_then(|status| Some((status.last_voted_height?, status.height?)));
    let Some((voted, height)) = numbers else { return false };
    voted > 0 && height.saturating_sub(voted) <= VOTING_WINDOW_BLOCKS
}

fn readiness(plan: &Plan, validators: &[Validator<'_>], ready: usize) -> (bool, Reason) {
    if let Some(reason) = plan.stalled.as_ref().or(plan.waiting.as_ref()).or(plan.hibernated.as_ref()) {
        return (false, reason.clone());
    }
    match &plan.ceremony {
        Ceremony::Stalled(reason) => (false, reason.clone()),
        Ceremony::Waiting(missing) => {
            if missing.is_empty() {
                return (false, Reason::new("WaitingForKeys", "the genesis waits for the keys of the owners"));
            }
            let shown = missing.iter().take(OFFENDERS_MAX).cloned().collect::<Vec<_>>().join(", ");
            (false, Reason::new("WaitingForKeys", format!("the genesis waits for the keys of {shown}")))
        }
        Ceremony::Compose(_) => (false, Reason::new("CreatingGenesis", "every validator has proven its key")),
        Ceremony::Done { .. } if ready == validators.len() => {
            (true, Reason::new("AllValidatorsReady", format!("all {ready} validators are in sync and able to vote")))
        }
        Ceremony::Done { .. } => (
            false,
            Reason::new(
                "ValidatorsNotReady",
                format!("{ready} of {} validators are in sync and able to vote", validators.len()),
            ),
        ),
    }
}

/// The order that keeps the network as it is, once nothing is left to do for it.
fn order_obeyed(plan: &Plan) -> Option<&Reason> {
    let asleep = plan.hibernated.as_ref().filter(|reason| reason.word == "Hibernated" && plan.steps.is_empty());
    plan.paused.as_ref().or(asleep)
}

fn set_quorum(conditions: &mut Conditions<'_>, plan: &Plan, ready: u128, total: u128) {
    let (truth, reason) = if !matches!(plan.ceremony, Ceremony::Done { .. }) {
        (Truth::Unknown, Reason::new("NoGenesis", "there is no chain yet"))
    } else if let Some(reason) = &plan.hibernated {
        (Truth::Unknown, reason.clone())
    } else if ready * 3 > total * 2 {
        (Truth::True, Reason::new("QuorumInSync", format!("power {ready} of {total} is in sync and able to vote")))
    } else {
        let message = format!(
            "power {ready} of {total} is in sync and able to vote, more than two thirds are needed to finalise blocks; see the offenders"
        );
        (Truth::False, Reason::new("NoQuorum", message))
    };
    conditions.set(condition::QUORUM_SAFE, truth, &reason);
}

/// The lag itself is in the status; here it would make a write of every block.
fn set_synced(conditions: &mut Conditions<'_>, lag: Option<i64>) {
    let (truth, reason) = match lag {
        None => (Truth::Unknown, Reason::new("Unreachable", "no validator has said how far it is")),
        Some(lag) if lag <= SYNCED_LAG_BLOCKS => {
            (Truth::True, Reason::new("InSync", "every reporting validator is at the head"))
        }
        Some(_) => (Truth::False, Reason::new("CatchingUp", "a validator is behind; see status.lag")),
    };
    conditions.set(condition::SYNCED, truth, &reason);
}

fn set_up_to_date(conditions: &mut Conditions<'_>, plan: &Plan) {
    let (truth, reason) = match plan.roll.as_ref().map(|roll| &roll.progress) {
        None => match &plan.paused {
            Some(paused) => (Truth::Unknown, paused.clone()),
            None => (Truth::Unknown, Reason::new("NotDecided", "see the condition Ready")),
        },
        Some(Progress::Current) => {
            (Truth::True, Reason::new("RevisionCurrent", "every node was made from the present spec"))
        }
        Some(Progress::Rolling(reason) | Progress::Waiting(reason) | Progress::Stalled(reason)) => {
            (Truth::False, reason.clone())
        }
    };
    conditions.set(condition::UP_TO_DATE, truth, &reason);
}

fn set_certificates(conditions: &mut Conditions<'_>, observed: &Observed, plan: &Plan) {
    let waiting = |what: &str, names: &[String]| {
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!(
            "a new authority replaces the old one; nodes not known yet to {what}: {names} (one whose version does not say has to be updated)"
        )
    };
    let (truth, reason) = match &plan.authorities.stage {
        _ if observed.unreadable_authority.is_some() => {
            (Truth::Unknown, Reason::new("AuthorityUnreadable", "see the condition Stalled"))
        }
        _ if observed.certificates.is_none() => {
            (Truth::Unknown, Reason::new("NotIssued", "there are no certificates yet"))
        }
        Stage::Introducing(names) => (Truth::False, Reason::new("AuthorityIntroduced", waiting("trust it", names))),
        Stage::HandingOver(names) => {
            (Truth::False, Reason::new("AuthorityHandsOver", waiting("have a certificate of its signing", names)))
        }
        Stage::Alone if plan.authorities.create.is_some() => {
            (Truth::False, Reason::new("AuthorityDue", "the authority is about to be replaced"))
        }
        Stage::Alone => {
            (Truth::True, Reason::new("OneAuthority", "one authority is trusted, and it signs for every node"))
        }
    };
    conditions.set(condition::CERTIFICATES_CURRENT, truth, &reason);
}

fn offenders(validators: &[Validator<'_>]) -> Vec<Offender> {
    validators
        .iter()
        .filter(|validator| !validator.is_ready())
        .take(OFFENDERS_MAX)
        .map(|validator| {
            let told = validator.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let telling = find(told, condition::KEY_NOT_IN_GENESIS).or_else(|| find(told, condition::READY));
            Offender {
                name: validator.name.to_owned(),
                reason: telling.map_or_else(|| "Missing".to_owned(), |condition| shorten(&condition.reason, 64)),
                message: telling
                    .map_or_else(|| "the node is being made".to_owned(), |condition| shorten(&condition.message, 256)),
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
