//! `Validator`: an account and its stake become a validator of the chain, and come back. The saga is read off the finalised state
//! (see [`saga`]); a transaction is written into the status before it is submitted.

mod act;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod crash_tests;
pub mod observe;
pub mod plan;
pub mod replacement;
pub mod report;
pub mod saga;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod small_ledger;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use self::report::Reported;
use super::{Action, Context, ReconcileError, Source, conditions::find};
use crate::api::{Validator, condition};

/// How soon a validator is looked at again whose transaction is under way.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How soon one is looked at again that is not as it should be, for another reason; the longer it has been so, the later, but
/// not later than one that is.
const SOON: Duration = Duration::from_secs(5);

/// One that has been as it is for this many times as long as until the next look is not looked at more often: what happens to its
/// node is told anyway.
const PATIENCE: u32 = 8;

/// How soon one is looked at again that is: the chain changes without a word to the operator.
const LATER: Duration = Duration::from_secs(30);

/// True if there is a status that can stand for a moment longer.
fn was_seen(validator: &Validator) -> bool {
    let status = validator.status.as_ref();
    validator.metadata.deletion_timestamp.is_none() && status.is_some_and(|status| status.observed_generation >= 0)
}

/// For how long it has not been as it should be.
fn waited(validator: &Validator, now: Timestamp) -> Duration {
    let told = validator.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let since = find(told, condition::READY).filter(|ready| ready.status != "True");
    let waited = since.map(|since| now.duration_since(since.last_transition_time.0));
    waited.and_then(|waited| waited.try_into().ok()).unwrap_or_default()
}

/// One reconciliation.
pub async fn reconcile(validator: Arc<Validator>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = validator.uid().unwrap_or_default();
    // What cannot be taken back is a transaction, and that goes through the status, whose version is checked.
    let Some(validator) = observe::validator(&context, Source::Cache, &validator).await? else {
        context.forget(&uid);
        return Ok(Action::await_change());
    };
    let mut observed = observe::observe(&context, Source::Cache, &validator).await?;
    let is_served = observed.network.as_ref().is_some_and(|network| network.metadata.deletion_timestamp.is_none());
    if observed.is_early && matches!(observed.view, Some(Err(_))) && is_served && was_seen(&validator) {
        // That the chain is silent would be no news but of this operator's start.
        return Ok(Action::requeue(super::context::jittered(UNDER_WAY, &uid)));
    }
    let mut plan = plan::plan(&validator, &observed);
    if matches!(plan.step, Some(plan::Step::Write(..))) {
        // A node with a volume is about to be made, or one to go.
        observed = observe::observe(&context, Source::Live, &validator).await?;
        plan = plan::plan(&validator, &observed);
    }
    if plan.needs_key(&validator) && observed.owner.is_none() {
        observed.owner = Some(observe::owner(&context, &validator, observed.network.as_ref()).await?);
        plan = plan::plan(&validator, &observed);
    }
    let outcome = act::act(&context, &validator, &observed, plan.step.as_ref()).await;
    if plan.step == Some(plan::Step::LetGo) && outcome.is_ok() {
        return Ok(Action::await_change());
    }
    let reported = report::report(&context, &validator, &observed, &plan, outcome.as_ref()).await?;
    outcome?;
    context.succeeded(&uid);
    let unbonds = matches!(&observed.view, Some(Ok(view)) if !view.validator.unbonding.is_empty());
    let wait = match (reported, &plan.step) {
        (Reported::Prepared, _) => Duration::ZERO,
        (_, Some(_)) => UNDER_WAY,
        (Reported::Ready, None) if !unbonds => LATER,
        (Reported::Ready, None) => SOON,
        (Reported::NotReady, None) => (waited(&validator, observed.now) / PATIENCE).clamp(SOON, LATER),
    };
    Ok(Action::requeue(super::context::jittered(wait, &uid)))
}
