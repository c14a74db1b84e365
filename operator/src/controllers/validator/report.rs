//! What to say of a validator: a function of spec, observation and outcome, written only if it changed.

use bizra_proto::v1::{NodeStatus, SigningState};
use kube::{Resource as _, ResourceExt as _};

use super::{
    act::Outcome,
    observe::Observed,
    plan::{Plan, remember},
    replacement, saga,
};
use crate::{
    api::{UnbondingStake, Validator, ValidatorStatus, condition},
    controllers::{
        Context, ReconcileError,
        conditions::{Conditions, Headway, Reason, Truth, announcements, is_true},
        signed,
    },
    kubernetes::Announcement,
    ledger::OwnerView,
    probe::Word,
};

/// How a status was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It holds a transaction that can be submitted now.
    Prepared,
    /// The validator is as it should be.
    Ready,
    /// It is not.
    NotReady,
}

/// Writes the status if it changed.
pub async fn report(
    context: &Context,
    validator: &Validator,
    observed: &Observed,
    plan: &Plan,
    outcome: Result<&Outcome, &ReconcileError>,
) -> Result<Reported, ReconcileError> {
    let uid = validator.uid().unwrap_or_default();
    let old = validator.status.clone().unwrap_or_default();
    let new = status(validator, observed, plan, outcome);
    let is_ready = is_true(&new.conditions, condition::READY);
    let reported = match (&outcome, is_ready) {
        (Ok(Outcome::Prepared(_)), _) => Reported::Prepared,
        (_, true) => Reported::Ready,
        (_, false) => Reported::NotReady,
    };
    let changed = without_numbers(&old) != without_numbers(&new);
    if !changed && (old == new || !context.numbers_are_due(&uid)) {
        return Ok(reported);
    }
    let mut written = validator.clone();
    let news = announcements(&old.conditions, &new.conditions);
    written.status = Some(new);
    // The version goes along: of two operators only one gets its transaction into the status, and submits it.
    match context.write_status(&written).await {
        Ok(()) => {
            context.reported(&uid);
            let settled = plan.settled.as_ref().map(|settled| {
                let id = &settled.transaction_id;
                let (word, note) = match (&settled.failure, settled.height) {
                    (None, height) => ("Applied", format!("transaction {id} at height {}", height.unwrap_or(0))),
                    (Some(failure), _) => ("Failed", format!("transaction {id}: {failure}")),
                };
                Announcement::normal(Reason::new(&format!("{:?}{word}", settled.step), note))
            });
            for announcement in settled.into_iter().chain(news) {
                context.announcer.announce(validator.object_ref(&()), announcement);
            }
            Ok(reported)
        }
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(Reported::NotReady),
        Err(error) => Err(ReconcileError::Report(error)),
    }
}

/// The part of a status that is written at once when it changes.
fn without_numbers(status: &ValidatorStatus) -> ValidatorStatus {
    ValidatorStatus { balance: None, turns_missed: None, effective_epoch: None, ..status.clone() }
}

/// The status.
pub fn status(
    validator: &Validator,
    observed: &Observed,
    plan: &Plan,
    outcome: Result<&Outcome, &ReconcileError>,
) -> ValidatorStatus {
    let old = validator.status.clone().unwrap_or_default();
    let generation = validator.metadata.generation.unwrap_or(0);
    let address = observed.address(validator);
    let view = observed.view.as_ref().and_then(|view| view.as_ref().ok());
    let not_yet = match outcome {
        Ok(Outcome::NotYet(reason)) => Some(reason),
        _ => None,
    };
    let in_the_way = plan.stalled.as_ref().or(not_yet).or(plan.waiting.as_ref());
    let done = Reason::new("Active", "it validates with the node's key and the stake of the spec");
    let reason = in_the_way.unwrap_or(&done);

    let mut conditions = Conditions::new(&old.conditions, generation, observed.now);
    let is_ready = plan.is_done && in_the_way.is_none();
    conditions.set(condition::READY, Truth::from(is_ready), reason);
    conditions.set_progress(&Headway {
        ready: is_ready,
        reason,
        is_done: plan.step.is_none(),
        behind: None,
        failure: outcome.err().map(ToString::to_string),
        stalled: plan.stalled.as_ref(),
        order: None,
    });
    let said = match &observed.word {
        Word::Status(said) => Some(said.as_ref()),
        Word::Unasked | Word::Unknown(_) => None,
    };
    match replacement::obstacle(validator, observed) {
        None => {
            let message = "a key that is lost is replaced by rotation";
            conditions.set(condition::KEY_REPLACEABLE, Truth::True, &Reason::new("OwnerCanRotate", message));
        }
        Some(reason) => {
            let truth = if reason.word == "ChainSilent" { Truth::Unknown } else { Truth::False };
            conditions.set(condition::KEY_REPLACEABLE, truth, &reason);
        }
    }
    set_of_chain(&mut conditions, validator, view, address.map(|address| address.0), said);

    let transaction = match (outcome, &plan.settled) {
        (Ok(Outcome::Prepared(prepared)), _) => Some(prepared.as_ref().clone()),
        (_, None) => old.transaction,
        (_, Some(_)) => None,
    };
    let of_view = |read: &dyn Fn(&OwnerView) -> String| view.map(read);
    let member = |view: &OwnerView| address.and_then(|address| view.member(&address.0)).map(|member| member.power);
    ValidatorStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        step: transaction.as_ref().map(|transaction| transaction.step),
        address: address.map(|address| address.to_string()),
        node: plan.places.node.clone(),
        replacement: plan.places.replacement.clone(),
        public_key: view
            .map(|view| hex::encode(&view.validator.consensus_key))
            .filter(|key| !key.is_empty())
            .or(old.public_key.filter(|_| view.is_none())),
        power: of_view(&|view| member(view).unwrap_or(0).to_string()).or(old.power),
        effective_epoch: view.map(|view| signed(view.set.epoch)).or(old.effective_epoch),
        stake: of_view(&|view| view.validator.reserved_stake.to_string()).or(old.stake),
        unbonding: view.map_or(old.unbonding, |view| {
            let parts = view.validator.unbonding.iter();
            parts.map(|part| UnbondingStake { epoch: signed(part.epoch), amount: part.amount.to_string() }).collect()
        }),
        balance: of_view(&|view| view.balance.to_string()).or(old.balance),
        // Kept while it leaves: the registry knows no more of it then.
        jailed_at: view
            .filter(|view| view.validator.status == saga::JAILED)
            .map(|view| signed(view.validator.queued_at))
            .or(old.jailed_at),
        turns_missed: view.map(|view| signed(view.validator.turns_missed)).or(old.turns_missed),
        transaction,
        refusal: plan.refusal.clone(),
        history: remember(old.history, plan.settled.clone()),
    }
}

/// What the chain says, condition by condition.
fn set_of_chain(
    conditions: &mut Conditions<'_>,
    validator: &Validator,
    view: Option<&OwnerView>,
    owner: Option<[u8; 32]>,
    said: Option<&NodeStatus>,
) {
    let Some((view, owner)) = view.zip(owner) else {
        let unknown = Reason::new("ChainSilent", "what the chain knows of the owner could not be read");
        for type_ in [
            condition::STAKE_RESERVED,
            condition::REGISTERED,
            condition::ACTIVE,
            condition::KEY_HEALTHY,
            condition::JAILED,
        ] {
            conditions.set(type_, Truth::Unknown, &unknown);
        }
        return;
    };
    let chain = &view.validator;
    let mut set = |type_: &str, holds: bool, word: &str, otherwise: &str, message: String| {
        conditions.set(type_, Truth::from(holds), &Reason::new(if holds { word } else { otherwise }, message));
    };
    let wanted = validator.spec.stake.parse().unwrap_or(u64::MAX);
    let stake = format!("{} of {wanted} base units are reserved", chain.reserved_stake);
    set(condition::STAKE_RESERVED, chain.reserved_stake >= wanted, "Reserved", "NotReserved", stake);
    let registered = if chain.registered {
        format!("registered with node {}, {}", chain.node_name, chain.status)
    } else {
        "the account owns no validator".to_owned()
    };
    set(condition::REGISTERED, chain.registered, "Registered", "NotRegistered", registered);
    let member = view.member(&owner).filter(|member| member.power > 0);
    let active = match member {
        Some(member) => format!("in the set of epoch {} with power {}", view.set.epoch, member.power),
        None => format!("not in the set of epoch {}", view.set.epoch),
    };
    set(condition::ACTIVE, member.is_some(), "InSet", "NotInSet", active);
    let is_jailed = chain.status == saga::JAILED;
    let jailed = if is_jailed { "it signed two conflicting votes" } else { "nothing is held against it" };
    set(condition::JAILED, is_jailed, "Equivocated", "NotJailed", jailed.to_owned());
    let node = replacement::meant(validator);
    let (truth, reason) = match said {
        None => (Truth::Unknown, Reason::new("NodeSilent", format!("BizraNode {node} does not say its key"))),
        Some(said) if said.signing_state() == SigningState::Refused => {
            let message = format!(
                "peers have seen a later signature of the key than BizraNode {node} remembers; it does not sign any more"
            );
            (Truth::False, Reason::new("SignedElsewhere", message))
        }
        Some(said) if said.public_key == hex::encode(&chain.consensus_key) => {
            (Truth::True, Reason::new("KeyOfNode", format!("the registered key is that of BizraNode {node}")))
        }
        Some(_) if chain.consensus_key.is_empty() => {
            (Truth::Unknown, Reason::new("NoKey", "no key is registered".to_owned()))
        }
        Some(_) => {
            (Truth::False, Reason::new("AnotherKey", format!("the registered key is not that of BizraNode {node}")))
        }
    };
    conditions.set(condition::KEY_HEALTHY, truth, &reason);
}
