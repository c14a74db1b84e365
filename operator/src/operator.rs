//! Puts the parts together: controllers, poller, and what they share.

use std::{future::Future, sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::mpsc;

use crate::{
    controllers::{self, Context, RunError, Settings},
    kubernetes::{Announcer, counted},
    metrics::Metrics,
    probe::{PollSettings, Probes, poll_forever},
};

/// An answer of a node counts for this many rounds of questions.
const ROUNDS_AN_ANSWER_COUNTS: u32 = 4;
/// Changes that may wait for the controllers.
const CHANGES_MAX: usize = 1024;

/// Runs controllers and poller until `stop` resolves. Leadership is the caller's business.
pub async fn operate(
    client: Client,
    identity: &str,
    settings: Settings,
    polling: PollSettings,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let client = counted(client, metrics.api_calls.clone());
    let freshness = (polling.interval + polling.timeout).saturating_mul(ROUNDS_AN_ANSWER_COUNTS);
    let probes = Arc::new(Probes::new(freshness.max(Duration::from_secs(1))));
    let (sender, receiver) = mpsc::channel(CHANGES_MAX);
    let poller = poll_forever(Arc::clone(&probes), polling, metrics.probes.clone(), sender);
    let announcer = Announcer::new(client.clone(), identity);
    let context = Arc::new(Context::new(client, settings, announcer, probes, metrics));
    tokio::select! {
        result = controllers::run(context, receiver, stop) => result,
        () = poller => Err(RunError::Ended("poller")),
    }
}
