//! `BizraNode`: one pod of the same name, its volume and configuration.

pub(super) mod act;
pub mod heal;
pub mod observe;
pub mod plan;
pub mod report;

use std::{sync::Arc, time::Duration};

use kube::{Resource as _, ResourceExt as _};

use super::{Action, Context, ReconcileError, Source};
use crate::{api::BizraNode, probe::Word};

/// How soon a node is looked at again that is not as it should be.
const SOON: Duration = Duration::from_secs(15);

/// How soon a node is looked at again that is about to be asked. The answer itself comes as a wake-up call.
const UNASKED: Duration = Duration::from_secs(5);

/// One reconciliation.
pub async fn reconcile(node: Arc<BizraNode>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = node.uid().unwrap_or_default();
    let mut looked = look(&context, Source::Cache, &node).await?;
    if looked.as_ref().is_some_and(|(node, _, plan)| plan.needs_live_reads(node)) {
        looked = look(&context, Source::Live, &node).await?;
    }
    let Some((node, observed, plan)) = looked else {
        let key = (node.namespace().unwrap_or_default(), node.name_any());
        context.probes.forget(&key);
        context.forget(&uid);
        return Ok(Action::await_change());
    };
    if node.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let outcome = act::act(&context, &node, &plan.steps).await;
    let again = if outcome.is_ok() { act::evict(&context, &node, &plan).await? } else { None };
    if observed.word == Word::Unasked && node.status.as_ref().is_some_and(|status| !status.conditions.is_empty()) {
        // Its status stands until it has been asked, else every start of the operator would shake every status.
        outcome?;
        return Ok(Action::requeue(UNASKED));
    }
    let ready = report::report(&context, &node, &observed, &plan, outcome.as_ref()).await?;
    outcome?;
    context.succeeded(&uid);
    if let Some(again) = again {
        return Ok(Action::requeue(again));
    }
    if context.take_more_to_report(&uid) {
        return Ok(Action::requeue(super::context::ON_THE_WAY));
    }
    let patience = Duration::try_from(context.settings.healing.stuck_after).unwrap_or(SOON);
    // Of a repair something is left to do after the node is ready: to forget it.
    let settled = ready && plan.healing.repair.is_none();
    let interval = context.settings.status_interval;
    let wait = if settled { interval } else { SOON.min(interval).min(patience) };
    Ok(Action::requeue(super::context::jittered(wait, &uid)))
}

/// The node, what there is of it and what is to be done; none if it is gone or another one.
async fn look(
    context: &Context,
    source: Source,
    node: &BizraNode,
) -> Result<Option<(BizraNode, observe::Observed, plan::Plan)>, ReconcileError> {
    let Some(node) = observe::node(context, source, node).await? else { return Ok(None) };
    let observed = observe::observe(context, source, &node).await?;
    let plan = plan::plan(&node, &observed, &context.settings.default_image)?;
    Ok(Some((node, observed, plan)))
}
