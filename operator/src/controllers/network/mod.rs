//! `Network`: what all nodes share, the genesis validators, the ceremony that makes a chain of them, certificates.

mod act;
pub mod ceremony;
pub mod observe;
pub mod plan;
pub mod report;
pub mod roll;
mod sweep;

use std::{sync::Arc, time::Duration};

pub use ceremony::{genesis_of, validator_names};
use kube::{ResourceExt as _, runtime::controller::Action};
pub use sweep::sweep_authorities;

use super::{Context, ReconcileError};
use crate::api::Network;

/// How soon a network is looked at again while a permit is out.
const WITH_PERMIT: Duration = Duration::from_secs(2);

/// How soon a network is looked at again that is not as it should be.
const SOON: Duration = Duration::from_secs(15);

/// One reconciliation.
pub async fn reconcile(network: Arc<Network>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = network.uid().unwrap_or_default();
    let Some(network) = observe::network(&context, &network).await? else {
        context.probes.distrust(&uid);
        context.forget(&uid);
        return Ok(Action::await_change());
    };
    let observed = observe::observe(&context, &network).await?;
    if let Some(authority) = &observed.authority {
        context.probes.trust(&uid, authority.clone());
    }
    let plan = plan::plan(&network, &observed, &context.settings.default_image)?;
    let outcome = act::act(&context, &network, &observed, &plan.steps).await;
    if network.metadata.deletion_timestamp.is_some() {
        outcome?;
        return Ok(Action::await_change());
    }
    let ready = report::report(&context, &network, &observed, &plan, outcome.as_ref()).await?;
    outcome?;
    context.succeeded(&uid);
    let wait = if plan.roll.as_ref().is_some_and(|roll| roll.permit.is_some()) {
        WITH_PERMIT
    } else if ready {
        context.settings.status_interval
    } else {
        SOON.min(context.settings.status_interval)
    };
    Ok(Action::requeue(super::context::jittered(wait, &uid)))
}
