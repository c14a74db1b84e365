//! What to do next for a validator. Pure and total.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    observe::Observed,
    replacement::{self, Places},
    saga::{self, Meaning, Next, Operation, Wish},
};
use crate::{
    api::{PendingTransaction, Refusal, SagaRecord, SagaStep, Validator, ValidatorDeletionPolicy},
    controllers::{
        conditions::Reason,
        jailings,
        ownership::{Ownership, ownership},
        signed,
    },
    kubernetes::{Write, named, needs_apply},
    ledger::OwnerView,
    probe::Word,
};

/// Keeps the object until its stake is back.
pub const FINALIZER: &str = "bizra.io/stake";

/// Most transactions a status remembers.
const HISTORY_MAX: usize = 16;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The finalizer is set: a stake is about to be reserved.
    Hold,
    /// The finalizer goes, and the object with it.
    LetGo,
    /// A transaction is signed, and written into the status before anybody sees it.
    Prepare(Operation),
    /// The transaction of the status is handed to the nodes, perhaps again.
    Submit(PendingTransaction),
    /// A node is made, changed or removed, and people are told.
    Write(Box<Write>, Option<Reason>),
}

/// What to do, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub step: Option<Step>,
    /// It is as it should be.
    pub is_done: bool,
    /// What somebody has to change.
    pub stalled: Option<Reason>,
    /// What will pass.
    pub waiting: Option<Reason>,
    /// What became of the transaction of the status.
    pub settled: Option<SagaRecord>,
    /// The refusal that holds.
    pub refusal: Option<Refusal>,
    /// Who validates, and who is to.
    pub places: Places,
}

impl Plan {
    /// True if it can only be carried out, or judged, with the owner's key.
    pub fn needs_key(&self, validator: &Validator) -> bool {
        matches!(self.step, Some(Step::Hold | Step::Prepare(_))) || !replacement::is_replaceable(validator)
    }
}

/// Makes the plan.
pub fn plan(validator: &Validator, observed: &Observed) -> Plan {
    let mut plan = Plan { places: replacement::decide(validator, observed), ..Plan::default() };
    decide(validator, observed, &mut plan);
    if validator.metadata.deletion_timestamp.is_none() {
        place(validator, observed, &mut plan);
    }
    plan
}

/// A node that takes another's place comes before any transaction: it has the longest way. One that is not needed any more goes
/// when all is done.
fn place(validator: &Validator, observed: &Observed, plan: &mut Plan) {
    if let Some(told) = plan.places.told.clone().filter(|_| plan.stalled.is_none()) {
        let next = plan.waiting.take().map(|waiting| format!("; {}", waiting.message)).unwrap_or_default();
        plan.waiting = Some(Reason { word: told.word, message: told.message + &next });
        plan.is_done = false;
    }
    if let Some(wanted) = &plan.places.wanted {
        let name = wanted.name_any();
        let live = named(&observed.around.nodes, &name);
        if live.is_some_and(|live| ownership(&live.metadata, validator) != Ownership::Ours) {
            let message = format!("BizraNode {name} belongs to somebody else; delete or rename it");
            plan.stalled = Some(Reason::new("NameTaken", message));
            return;
        }
        // One that is being deleted is made anew when it is gone.
        if live.is_none_or(|live| live.metadata.deletion_timestamp.is_none()) {
            match needs_apply(live, wanted) {
                Ok(None) => {}
                Ok(Some(write)) => {
                    let message = format!("created BizraNode {name}, which takes the place of a lost one");
                    let event = live.is_none().then(|| Reason::new("ReplacementCreated", message));
                    plan.step = Some(Step::Write(Box::new(write), event));
                }
                Err(error) => plan.stalled = Some(Reason::new("BuildFailed", error.to_string())),
            }
        }
    }
    if let Some(superfluous) = plan.places.superfluous.as_ref().filter(|_| plan.is_done && plan.step.is_none()) {
        let name = superfluous.name_any();
        let message = format!("deleted BizraNode {name}, which validates no more; its volume claim stays");
        let write = Box::new(Write::delete(&**superfluous));
        plan.step = Some(Step::Write(write, Some(Reason::new("NodeRemoved", message))));
    }
}

fn is_held(validator: &Validator) -> bool {
    validator.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

fn decide(validator: &Validator, observed: &Observed, plan: &mut Plan) {
    let is_leaving = validator.metadata.deletion_timestamp.is_some();
    let network = observed.network.as_ref().filter(|network| network.metadata.deletion_timestamp.is_none());
    let status = validator.status.clone().unwrap_or_default();
    plan.refusal = status.refusal.filter(|refusal| Some(refusal.generation) == validator.metadata.generation);
    if is_leaving {
        if !is_held(validator) {
            return;
        }
        // There is no chain to leave any more, nobody asked to leave it, or another one looks after the account.
        let is_abandoned = validator.spec.deletion_policy == ValidatorDeletionPolicy::Abandon;
        if network.is_none() || is_abandoned || observed.elder.is_some() {
            plan.step = Some(Step::LetGo);
            return;
        }
    }
    if network.is_none() {
        let name = &validator.spec.network_ref.name;
        let message = format!("there is no Network {name} in this namespace, or it is being deleted");
        plan.stalled = Some(Reason::new("NetworkMissing", message));
        return;
    }
    if let Some(elder) = &observed.elder {
        let message =
            format!("Validator {elder} is of the same account; delete one of the two, or give this one another owner");
        plan.stalled = Some(Reason::new("OwnerInUse", message));
        return;
    }
    let (Some(address), Some(view)) = (observed.address(validator), &observed.view) else {
        plan.stalled = observed.owner.as_ref().and_then(|owner| owner.as_ref().err().cloned());
        return;
    };
    let view = match view {
        Ok(view) => view,
        Err(error) => {
            plan.waiting = Some(Reason::new("ChainSilent", format!("{error}; nothing is done until they do")));
            return;
        }
    };
    // Whoever answers now may be behind those who answered before, and know nothing yet of a step that was taken.
    let known = status.history.iter().filter_map(|record| record.height).max().unwrap_or(0);
    if signed(view.height) < known {
        let message = format!("the nodes that answer are at height {}, and what was done came to {known}", view.height);
        plan.waiting = Some(Reason::new("ChainSilent", message));
        return;
    }
    if let Some(pending) = &status.transaction {
        settle(validator, observed, view, pending, plan);
        if plan.settled.is_none() {
            let message = format!("{:?} is under way: transaction {}", pending.step, pending.id);
            plan.waiting = Some(Reason::new(&format!("{:?}", pending.step), message));
            plan.step = Some(Step::Submit(pending.clone()));
            return;
        }
    }
    let wish = wish(validator, observed, is_leaving, plan.refusal.as_ref());
    let fee = validator.spec.fee.parse().unwrap_or(u64::MAX);
    match saga::next(view, &address.0, &wish, fee) {
        Next::Step(operation) => {
            // Who is jailed may leave; whoever is not stays what it is until somebody has looked.
            let is_jailed = status.jailed_at.is_some() || view.validator.status == saga::JAILED;
            let standstill = network.filter(|_| !is_jailed).and_then(jailings::standstill_of);
            if let Some(reason) = key_trouble(observed, address) {
                plan.stalled = Some(reason);
            } else if let Some(reason) = standstill {
                plan.waiting = Some(reason);
            } else if !is_held(validator) && !is_leaving {
                plan.step = Some(Step::Hold);
                plan.waiting = Some(Reason::new("Starting", "the stake is about to be reserved"));
            } else {
                let step = operation.step();
                plan.waiting = Some(Reason::new(&format!("{step:?}"), format!("{step:?} comes next")));
                plan.step = Some(Step::Prepare(operation));
            }
        }
        Next::Wait(reason) => plan.waiting = Some(reason),
        Next::Stop(reason) => plan.stalled = Some(reason),
        Next::Done if is_leaving => plan.step = Some(Step::LetGo),
        // Whose stake was there before this object is let go as one that reserved it.
        Next::Done if !is_held(validator) && view.validator.reserved_stake > 0 => {
            plan.step = Some(Step::Hold);
            plan.waiting = Some(Reason::new("Starting", "the stake is about to be held"));
        }
        Next::Done => plan.is_done = plan.refusal.is_none(),
    }
    if let Some(refusal) = plan.refusal.as_ref().filter(|_| !is_leaving) {
        let undone = if is_compensated(refusal.step) {
            if plan.step.is_none() && plan.waiting.is_none() {
                "; everything before it is undone"
            } else {
                "; what came before it is being undone"
            }
        } else {
            ""
        };
        let message =
            format!("the chain refused {:?}: {}{undone}. Change the spec to try again", refusal.step, refusal.reason);
        plan.stalled = Some(Reason::new(&refusal.reason, message));
    }
}

/// A refusal of these ends the whole: who cannot become a validator gets its stake back. Of the others the validator stays what it was.
fn is_compensated(step: SagaStep) -> bool {
    matches!(step, SagaStep::RegisterValidator | SagaStep::ActivateValidator)
}

fn wish<'a>(validator: &'a Validator, observed: &Observed, is_leaving: bool, refusal: Option<&Refusal>) -> Wish<'a> {
    if is_leaving || refusal.is_some_and(|refusal| is_compensated(refusal.step)) {
        return Wish::Out;
    }
    let key = match &observed.word {
        Word::Status(said) => bizra_proto::ceremony::decode_hex(&said.public_key),
        Word::Unasked | Word::Unknown(_) => None,
    };
    Wish::Member { node: &validator.spec.node_ref.name, key, stake: validator.spec.stake.parse().unwrap_or(0) }
}

/// Why nothing can be signed.
pub(super) fn key_trouble(observed: &Observed, address: bizra_transaction::Address) -> Option<Reason> {
    match observed.owner.as_ref()? {
        Err(reason) => Some(reason.clone()),
        Ok(key) if key.address() != address => {
            let message = format!(
                "the owner's Secret holds the key of account {}, and this validator is of {address}; put that key back, or delete this Validator with deletionPolicy: Abandon",
                key.address()
            );
            Some(Reason::new("OwnerChanged", message))
        }
        Ok(_) => None,
    }
}

/// What became of the transaction under way, by the finalised state.
fn settle(validator: &Validator, observed: &Observed, view: &OwnerView, pending: &PendingTransaction, plan: &mut Plan) {
    let record = |height: Option<u64>, failure: Option<&str>| SagaRecord {
        step: pending.step,
        transaction_id: pending.id.clone(),
        height: height.map(signed),
        time: Time(observed.now),
        failure: failure.map(str::to_owned),
    };
    if let Some(receipt) = &view.receipt {
        let failure = Some(receipt.failure.as_str()).filter(|failure| !failure.is_empty());
        plan.settled = Some(record(Some(receipt.height), failure));
        if let Some(failure) = failure
            && saga::meaning(pending.step, failure) == Meaning::Definite
            && Some(pending.generation) == validator.metadata.generation
        {
            let (step, generation) = (pending.step, pending.generation);
            plan.refusal = Some(Refusal { step, reason: failure.to_owned(), generation });
        }
    } else if signed(view.height) >= pending.expiry_height {
        plan.settled = Some(record(None, Some("Expired")));
    } else if signed(view.nonce) > pending.nonce {
        plan.settled = Some(record(None, Some("BadNonce")));
    }
}

/// The history with one more entry.
pub fn remember(mut history: Vec<SagaRecord>, settled: Option<SagaRecord>) -> Vec<SagaRecord> {
    history.extend(settled);
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
    history
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
