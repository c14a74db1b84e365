//! `Network`: what all nodes share, the genesis validators, the ceremony that makes a chain of them, certificates.

pub(super) mod act;
pub mod authorities;
pub mod ceremony;
pub mod membership;
pub mod observe;
pub mod owners;
pub mod placement;
pub mod plan;
pub mod report;
pub mod roll;
mod sweep;

use std::{sync::Arc, time::Duration};

pub use ceremony::{genesis_of, parse as parse_genesis, validator_names};
use kube::ResourceExt as _;
pub use sweep::sweep_authorities;

use super::{Action, Context, ReconcileError, Source};
use crate::api::Network;

/// How soon a network is looked at again while a permit is out or an authority is being replaced.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// How soon a network is looked at again that is not as it should be.
const SOON: Duration = Duration::from_secs(15);

/// One reconciliation.
pub async fn reconcile(network: Arc<Network>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = network.uid().unwrap_or_default();
    let mut looked = look(&context, Source::Cache, &network).await?;
    if looked.as_ref().is_some_and(|(network, _, plan)| plan.needs_live_reads(network)) {
        looked = look(&context, Source::Live, &network).await?;
    }
    let Some((network, observed, plan)) = looked else {
        context.probes.distrust(&uid);
        context.forget(&uid);
        return Ok(Action::await_change());
    };
    if let Some(trust) = plan.authorities.trust() {
        context.probes.trust(&uid, trust);
    }
    let outcome = act::act(&context, &network, &observed, &plan).await;
    if network.metadata.deletion_timestamp.is_some() {
        outcome?;
        return Ok(Action::await_change());
    }
    let ready = report::report(&context, &network, &observed, &plan, outcome.as_ref()).await?;
    outcome?;
    context.succeeded(&uid);
    let replaces = plan.authorities.trusted.len() > 1;
    let wait = if replaces || plan.roll.as_ref().is_some_and(|roll| roll.permit.is_some()) {
        UNDER_WAY
    } else if ready {
        context.settings.status_interval
    } else {
        SOON.min(context.settings.status_interval)
    };
    let wait = super::context::jittered(wait, &uid);
    let now = u64::try_from(observed.now.as_second()).unwrap_or(0);
    let due = plan.authorities.due_at.and_then(|due| due.checked_sub(now)).map(Duration::from_secs);
    Ok(Action::requeue(due.map_or(wait, |due| wait.min(due))))
}

/// The network, what there is of it and what is to be done; none if it is gone or another one.
async fn look(
    context: &Context,
    source: Source,
    network: &Network,
) -> Result<Option<(Network, observe::Observed, plan::Plan)>, ReconcileError> {
    let Some(network) = observe::network(context, source, network).await? else { return Ok(None) };
    let observed = observe::observe(context, source, &network).await?;
    let plan = plan::plan(&network, &observed, &context.settings.default_image)?;
    Ok(Some((network, observed, plan)))
}
