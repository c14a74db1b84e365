//! Runs the controllers: watches tell when to look, reconciliations look for themselves.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, future, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Config, Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Context, ReconcileError, bizra_node, network, node_pool};
use crate::{
    api::{BizraNode, Network, NodePool},
    probe::NodeKey,
    resources::{labels, pod},
};

/// Time between two sweeps for what no watch would tell of.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// Longest a reconciliation may take.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A controller's stream ended although nobody asked for it.
    #[error("the {0} controller ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until `stop` resolves. `changed` tells of nodes whose own word has changed.
pub async fn run(
    context: Arc<Context>,
    changed: mpsc::Receiver<NodeKey>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let stop = future::FutureExt::shared(future::FutureExt::boxed(stop));
    let namespaces: Vec<Option<String>> = if context.settings.namespaces.is_empty() {
        vec![None]
    } else {
        context.settings.namespaces.iter().cloned().map(Some).collect()
    };
    let mut controllers = Vec::new();
    let mut senders = Vec::new();
    for namespace in namespaces {
        let (sender, receiver) = mpsc::channel(1024);
        senders.push((namespace.clone(), sender));
        let context = Arc::clone(&context);
        let stop = stop.clone();
        controllers.push(tokio::spawn(async move {
            future::join3(
                run_networks(Arc::clone(&context), namespace.as_deref(), stop.clone()),
                run_pools(Arc::clone(&context), namespace.as_deref(), stop.clone()),
                run_nodes(context, namespace.as_deref(), receiver, stop),
            )
            .await;
        }));
    }
    let forward = forward(changed, senders);
    let sweep = sweep(&context);
    let all = future::join_all(controllers);
    tokio::select! {
        _ = all => {}
        () = forward => {}
        () = sweep => {}
    }
    // Only the wish to stop ends the controllers; their streams do not end by themselves.
    match future::FutureExt::now_or_never(stop) {
        Some(()) => Ok(()),
        None => Err(RunError::Ended("BizraNode or Network")),
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Only what this operator made is watched, and only its metadata is read.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER)).page_size(100)
}

fn configuration(context: &Context) -> Config {
    Config::default().debounce(Duration::from_millis(200)).concurrency(context.settings.concurrency)
}

async fn run_networks(
    context: Arc<Context>,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    // What has no owner says by label whose it is.
    let named = |object: &dyn Labelled| object.network_reference();
    Controller::new(api::<Network>(client, namespace), watcher::Config::default())
        .with_config(configuration(&context))
        .owns(api::<BizraNode>(client, namespace), watcher::Config::default())
        .owns(api::<Service>(client, namespace), ours())
        .owns(api::<PodDisruptionBudget>(client, namespace), ours())
        .owns(api::<NetworkPolicy>(client, namespace), ours())
        .watches(api::<PartialObjectMeta<ConfigMap>>(client, namespace), ours(), move |object| named(&object))
        .watches(api::<PartialObjectMeta<PersistentVolumeClaim>>(client, namespace), ours(), move |object| {
            named(&object)
        })
        .watches(api::<PartialObjectMeta<Pod>>(client, namespace), ours(), move |object| named(&object))
        .graceful_shutdown_on(stop)
        .run(|network, context| measured("Network", network, context, network::reconcile), failed, Arc::clone(&context))
        .for_each(|_| future::ready(()))
        .await;
}

async fn run_pools(
    context: Arc<Context>,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    let controller = Controller::new(api::<NodePool>(client, namespace), watcher::Config::default())
        .with_config(configuration(&context));
    let pools = controller.store();
    controller
        .owns(api::<BizraNode>(client, namespace), watcher::Config::default())
        .watches(api::<PartialObjectMeta<Network>>(client, namespace), watcher::Config::default(), move |network| {
            let (namespace, name) = (network.metadata.namespace.as_deref(), network.metadata.name.as_deref());
            let follows = |pool: &Arc<NodePool>| {
                pool.metadata.namespace.as_deref() == namespace && Some(pool.spec.network_ref.name.as_str()) == name
            };
            let following = pools.state().into_iter().filter(follows);
            following.map(|pool| ObjectRef::from_obj(pool.as_ref())).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop)
        .run(|pool, context| measured("NodePool", pool, context, node_pool::reconcile), failed, Arc::clone(&context))
        .for_each(|_| future::ready(()))
        .await;
}

/// Objects that say by label which network they belong to.
trait Labelled {
    fn network_reference(&self) -> Option<ObjectRef<Network>>;
}

impl<K> Labelled for PartialObjectMeta<K> {
    fn network_reference(&self) -> Option<ObjectRef<Network>> {
        let name = pod::label(&self.metadata, labels::NETWORK)?;
        Some(ObjectRef::new(name).within(self.metadata.namespace.as_deref()?))
    }
}

async fn run_nodes(
    context: Arc<Context>,
    namespace: Option<&str>,
    changed: mpsc::Receiver<NodeKey>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    let controller = Controller::new(api::<BizraNode>(client, namespace), watcher::Config::default())
        .with_config(configuration(&context));
    let nodes = controller.store();
    let of_network = nodes.clone();
    let changed = stream::unfold(changed, |mut changed| async move {
        let (namespace, name) = changed.recv().await?;
        Some((ObjectRef::new(&name).within(&namespace), changed))
    });
    controller
        .owns(api::<Pod>(client, namespace), ours())
        .watches(api::<PartialObjectMeta<PersistentVolumeClaim>>(client, namespace), ours(), |claim| {
            let node = pod::label(&claim.metadata, labels::NODE)?;
            Some(ObjectRef::new(node).within(claim.metadata.namespace.as_deref()?))
        })
        .watches(api::<PartialObjectMeta<ConfigMap>>(client, namespace), ours(), move |config_map| {
            let network = pod::label(&config_map.metadata, labels::NETWORK);
            match pod::label(&config_map.metadata, labels::NODE) {
                Some(node) => within(&config_map.metadata, node).into_iter().collect(),
                None => nodes_of(&of_network, config_map.metadata.namespace.as_deref(), network),
            }
        })
        .watches(api::<PartialObjectMeta<Network>>(client, namespace), watcher::Config::default(), move |network| {
            nodes_of(&nodes, network.metadata.namespace.as_deref(), network.metadata.name.as_deref())
        })
        .reconcile_on(changed)
        .graceful_shutdown_on(stop)
        .run(|node, context| measured("BizraNode", node, context, bizra_node::reconcile), failed, Arc::clone(&context))
        .for_each(|_| future::ready(()))
        .await;
}

fn within(metadata: &kube::api::ObjectMeta, node: &str) -> Option<ObjectRef<BizraNode>> {
    Some(ObjectRef::new(node).within(metadata.namespace.as_deref()?))
}

fn nodes_of(nodes: &Store<BizraNode>, namespace: Option<&str>, network: Option<&str>) -> Vec<ObjectRef<BizraNode>> {
    nodes
        .state()
        .into_iter()
        .filter(|node| {
            node.metadata.namespace.as_deref() == namespace && Some(node.spec.network_ref.name.as_str()) == network
        })
        .map(|node| ObjectRef::from_obj(node.as_ref()))
        .collect()
}

/// Counts and times a reconciliation.
async fn measured<K, F>(
    kind: &'static str,
    object: Arc<K>,
    context: Arc<Context>,
    reconcile: impl FnOnce(Arc<K>, Arc<Context>) -> F,
) -> Result<Action, ReconcileError>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action, ReconcileError>>,
{
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let timer = context.metrics.reconcile_seconds.with_label_values(&[kind]).start_timer();
    // Retries inside the client must not wedge an object for ever.
    let result = tokio::time::timeout(TIME_LIMIT, reconcile(object, Arc::clone(&context))).await;
    let result = result.unwrap_or(Err(ReconcileError::TimedOut(TIME_LIMIT)));
    timer.observe_duration();
    let outcome = if result.is_ok() { "ok" } else { "failed" };
    context.metrics.reconciliations.with_label_values(&[kind, outcome]).inc();
    if let Err(error) = &result {
        tracing::warn!(kind, object = %name, %error, "reconciliation failed");
    }
    result
}

// The signature is the one `Controller::run` asks for.
#[allow(clippy::needless_pass_by_value)]
fn failed<K>(object: Arc<K>, _: &ReconcileError, context: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    Action::requeue(context.wait_after_failure(&object.uid().unwrap_or_default()))
}

/// Hands changes to the controller of their namespace.
async fn forward(mut changed: mpsc::Receiver<NodeKey>, senders: Vec<(Option<String>, mpsc::Sender<NodeKey>)>) {
    while let Some(key) = changed.recv().await {
        let sender = senders.iter().find(|(namespace, _)| namespace.as_ref().is_none_or(|name| *name == key.0));
        if let Some((_, sender)) = sender {
            let _ = sender.try_send(key);
        }
    }
    // The poller is gone; the controllers go on without it.
    future::pending::<()>().await;
}

async fn sweep(context: &Context) {
    loop {
        if let Err(error) = network::sweep_authorities(context).await {
            tracing::warn!(%error, "sweep failed");
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// True if objects of this kind can be listed in all these namespaces (none means everywhere).
pub async fn is_installed<K>(client: &Client, namespaces: &[String]) -> bool
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let namespaces: Vec<Option<&str>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().map(|name| Some(name.as_str())).collect() };
    for namespace in namespaces {
        let listed = api::<K>(client, namespace).list(&kube::api::ListParams::default().limit(1)).await;
        if let Err(error) = listed {
            tracing::debug!(%error, kind = %K::kind(&()), "cannot list");
            return false;
        }
    }
    true
}
