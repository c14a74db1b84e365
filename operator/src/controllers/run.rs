//! Runs the controllers: watches fill caches and wake objects, workers reconcile what is awake.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{self, BoxFuture, Shared};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    Action, Context, ReconcileError, bizra_node,
    caches::Kept,
    network, node_pool,
    queue::Queue,
    validator,
    wake::{Queues, Wakes},
};
use crate::{
    api::{BizraNode, Network, NodePool, Validator},
    kubernetes::follow,
    planted::{self, Bug},
    probe::NodeKey,
};

/// Time between two sweeps for what no watch would tell of.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// The same after one that failed.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);

/// Longest a reconciliation may take.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Time between two looks at how much waits and how much is cached, for the metrics.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// Resolves when the controllers are to stop.
type Stop = Shared<BoxFuture<'static, ()>>;

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A part ended although nobody asked for it.
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until `stop` resolves; reconciliations that have begun are finished then. `changed` tells of nodes whose own word has
/// changed.
pub async fn run(
    context: Arc<Context>,
    changed: mpsc::Receiver<NodeKey>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let stop = future::FutureExt::shared(future::FutureExt::boxed(stop));
    let queues = Arc::new(Queues::default());
    let mut watches = JoinSet::new();
    let listed = Arc::new(Semaphore::new(0));
    let namespaces: Vec<Option<String>> = if context.settings.namespaces.is_empty() {
        vec![None]
    } else {
        context.settings.namespaces.iter().cloned().map(Some).collect()
    };
    for namespace in namespaces {
        watch::<Network>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<NodePool>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<BizraNode>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<Validator>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<Pod>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<PersistentVolumeClaim>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<ConfigMap>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<Service>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<NetworkPolicy>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
        watch::<PodDisruptionBudget>(&mut watches, &context, &queues, namespace.as_ref(), &listed);
    }
    let lists = u32::try_from(watches.len()).unwrap_or(u32::MAX);
    let working = async {
        // Half a picture is no basis for any plan.
        tokio::select! {
            _ = listed.acquire_many(lists) => {}
            () = stop.clone() => return Ok(()),
        }
        work_until(&context, &queues, &stop).await
    };
    let background = async {
        tokio::join!(forward(changed, &queues), sweep(&context), gauge(&context, &queues));
    };
    tokio::select! {
        result = working => result,
        () = background => Err(RunError::Ended("background work")),
        _ = watches.join_next() => Err(RunError::Ended("watch")),
    }
}

/// Starts a watch.
fn watch<K: Wakes>(
    watches: &mut JoinSet<()>,
    context: &Arc<Context>,
    queues: &Arc<Queues>,
    namespace: Option<&String>,
    listed: &Arc<Semaphore>,
) {
    let (context, queues, listed) = (Arc::clone(context), Arc::clone(queues), Arc::clone(listed));
    let namespace = namespace.cloned();
    watches.spawn(async move {
        let cache = K::cache(&context.caches);
        let changed = |change| K::wake(&change, &context, &queues);
        follow(context.client.clone(), namespace, cache, changed, || listed.add_permits(1)).await;
    });
}

/// Starts the workers and waits for them.
async fn work_until(context: &Arc<Context>, queues: &Arc<Queues>, stop: &Stop) -> Result<(), RunError> {
    let mut workers = JoinSet::new();
    for _ in 0..context.settings.concurrency {
        let (of_networks, of_pools, of_nodes) = (Arc::clone(queues), Arc::clone(queues), Arc::clone(queues));
        let (of_validators, its_context, its_stop) = (Arc::clone(queues), Arc::clone(context), stop.clone());
        let (context, stop) = (Arc::clone(context), stop.clone());
        let (and_context, and_stop) = (Arc::clone(&context), stop.clone());
        let (pool_context, pool_stop) = (Arc::clone(&context), stop.clone());
        let networks = async move { work("Network", &of_networks.networks, &context, stop, network::reconcile).await };
        let nodes =
            async move { work("BizraNode", &of_nodes.nodes, &and_context, and_stop, bizra_node::reconcile).await };
        let pools =
            async move { work("NodePool", &of_pools.pools, &pool_context, pool_stop, node_pool::reconcile).await };
        let validators = async move {
            work("Validator", &of_validators.validators, &its_context, its_stop, validator::reconcile).await;
        };
        workers.spawn(Box::pin(validators));
        workers.spawn(Box::pin(networks));
        workers.spawn(Box::pin(pools));
        workers.spawn(Box::pin(nodes));
    }
    while let Some(ended) = workers.join_next().await {
        // Only the wish to stop ends a worker.
        if ended.is_err() || future::FutureExt::now_or_never(stop.clone()).is_none() {
            return Err(RunError::Ended("worker"));
        }
    }
    Ok(())
}

/// One worker: takes what is due, for ever.
async fn work<K, F>(
    kind: &'static str,
    queue: &Queue,
    context: &Arc<Context>,
    stop: Stop,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Kept,
    F: Future<Output = Result<Action, ReconcileError>>,
{
    let waiting = context.metrics.queue_seconds.with_label_values(&[kind]);
    loop {
        let (key, waited) = tokio::select! {
            next = queue.next() => next,
            () = stop.clone() => return,
        };
        waiting.observe(waited.as_secs_f64());
        let started = Instant::now();
        let again = match K::cache(&context.caches).last_told(&key) {
            Some(object) => Box::pin(measured(kind, object, context, &reconcile)).await,
            None => None,
        };
        queue.done(key, started.elapsed(), again);
    }
}

/// Counts and times a reconciliation; says when the object is to be looked at again.
async fn measured<K, F>(
    kind: &'static str,
    object: Arc<K>,
    context: &Arc<Context>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F,
) -> Option<Duration>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action, ReconcileError>>,
{
    let timer = context.metrics.reconcile_seconds.with_label_values(&[kind]).start_timer();
    // Whatever hangs must not wedge an object for ever.
    let result = tokio::time::timeout(TIME_LIMIT, reconcile(Arc::clone(&object), Arc::clone(context))).await;
    let result = result.unwrap_or(Err(ReconcileError::TimedOut(TIME_LIMIT)));
    timer.observe_duration();
    let outcome = if result.is_ok() { "ok" } else { "failed" };
    context.metrics.reconciliations.with_label_values(&[kind, outcome]).inc();
    match result {
        Ok(action) => action.again,
        Err(error) => {
            let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
            tracing::warn!(kind, object = %name, %error, "reconciliation failed");
            if planted::is(Bug::NoRetry) {
                return None;
            }
            Some(context.wait_after_failure(&object.uid().unwrap_or_default()))
        }
    }
}

/// Wakes nodes that say something new.
async fn forward(mut changed: mpsc::Receiver<NodeKey>, queues: &Queues) {
    while let Some(key) = changed.recv().await {
        if planted::is(Bug::LossUnnoticed) {
            continue;
        }
        queues.wake_node_now(key);
    }
    // The poller is gone; the controllers go on without it.
    future::pending::<()>().await;
}

async fn sweep(context: &Context) {
    loop {
        let swept = network::sweep_authorities(context).await;
        if let Err(error) = &swept {
            tracing::warn!(%error, "sweep failed");
        }
        tokio::time::sleep(if swept.is_ok() { SWEEP_INTERVAL } else { SWEEP_AGAIN }).await;
    }
}

async fn gauge(context: &Context, queues: &Queues) {
    let set = |gauges: &prometheus::IntGaugeVec, kind: &str, value: usize| {
        gauges.with_label_values(&[kind]).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    let (metrics, caches) = (&context.metrics, &context.caches);
    loop {
        set(&metrics.queue_depth, "Network", queues.networks.depth());
        set(&metrics.queue_depth, "NodePool", queues.pools.depth());
        set(&metrics.queue_depth, "BizraNode", queues.nodes.depth());
        set(&metrics.queue_depth, "Validator", queues.validators.depth());
        set(&metrics.cached_objects, "Network", caches.networks.len());
        set(&metrics.cached_objects, "NodePool", caches.pools.len());
        set(&metrics.cached_objects, "BizraNode", caches.nodes.len());
        set(&metrics.cached_objects, "Validator", caches.validators.len());
        set(&metrics.cached_objects, "Pod", caches.pods.len());
        set(&metrics.cached_objects, "PersistentVolumeClaim", caches.claims.len());
        set(&metrics.cached_objects, "ConfigMap", caches.config_maps.len());
        tokio::time::sleep(GAUGE_INTERVAL).await;
    }
}

/// True if objects of this kind can be listed in all these namespaces (none means everywhere).
pub async fn is_installed<K>(client: &Client, namespaces: &[String]) -> bool
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let everywhere = vec![Api::<K>::all(client.clone())];
    let apis = if namespaces.is_empty() {
        everywhere
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    };
    for api in apis {
        if let Err(error) = api.list(&kube::api::ListParams::default().limit(1)).await {
            tracing::debug!(%error, kind = %K::kind(&()), "cannot list");
            return false;
        }
    }
    true
}
