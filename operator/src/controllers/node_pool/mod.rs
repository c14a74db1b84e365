//! `NodePool`: full nodes that are alike. They hold no vote, so nothing of them needs a permit; how many may be out of sync
//! at once while they are changed is the pool's own bound. Whoever has become a validator is not removed with a pool that shrinks.

mod act;
pub mod observe;
pub mod plan;
pub mod report;
pub mod roster;

use std::{sync::Arc, time::Duration};

use kube::ResourceExt as _;

use super::{Action, Context, ReconcileError, Source};
use crate::{
    api::NodePool,
    planted::{self, Bug},
};

/// How soon a pool is looked at again that is not as it should be.
const SOON: Duration = Duration::from_secs(15);

/// One reconciliation.
pub async fn reconcile(pool: Arc<NodePool>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = pool.uid().unwrap_or_default();
    let mut looked = look(&context, Source::Cache, &pool).await?;
    if looked.as_ref().is_some_and(|(_, _, plan)| plan.needs_live_reads()) {
        looked = look(&context, Source::Live, &pool).await?;
    }
    let Some((pool, observed, mut plan)) = looked else {
        context.forget(&uid);
        return Ok(Action::await_change());
    };
    if pool.metadata.deletion_timestamp.is_some() {
        // The garbage collector takes the nodes; their volumes have no owner and stay.
        return Ok(Action::await_change());
    }
    if planted::is(Bug::StatusFirst) {
        let told = pool.status.as_ref().map(|status| status.observed_generation);
        if told == pool.metadata.generation {
            plan.steps.clear();
        } else {
            report::report(&context, &pool, &observed, &plan, Ok(&())).await?;
        }
    }
    let outcome = act::act(&context, &pool, &plan.steps).await;
    let ready = report::report(&context, &pool, &observed, &plan, outcome.as_ref()).await?;
    outcome?;
    context.succeeded(&uid);
    let wait = if ready { context.settings.status_interval } else { SOON.min(context.settings.status_interval) };
    Ok(Action::requeue(super::context::jittered(wait, &uid)))
}

/// The pool, what there is of it and what is to be done; none if it is gone or another one.
async fn look(
    context: &Context,
    source: Source,
    pool: &NodePool,
) -> Result<Option<(NodePool, observe::Observed, plan::Plan)>, ReconcileError> {
    let Some(pool) = observe::pool(context, source, pool).await? else { return Ok(None) };
    let observed = observe::observe(context, source, &pool).await?;
    let plan = plan::plan(&pool, &observed, &context.settings.default_image)?;
    Ok(Some((pool, observed, plan)))
}
