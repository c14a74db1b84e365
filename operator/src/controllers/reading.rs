//! How controllers read. A plan is made from caches as long as what it does can be taken back; what cannot (a genesis, a permit,
//! an eviction, a deletion, a new volume) is planned again from live reads before it is done. Whatever the source, no read misses a
//! write of this process: where a cache does, the API server is asked.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod, serde::de::DeserializeOwned};
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams};

use super::{Context, ReconcileError, caches::Kept, quorum::Sighting};
use crate::{
    kubernetes::{Answer, Cached as _, find, key_of},
    resources::labels,
};

/// How long a read waits for a watch to tell of an own write before it asks the API server.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From what watches have told, where that is enough.
    Cache,
    /// From the API server.
    Live,
}

/// Reads one object.
pub(super) async fn one<K: Kept>(
    context: &Context,
    source: Source,
    namespace: &str,
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError> {
    read(context, source, namespace, name, what, K::IS_CREATE_ONLY).await
}

/// Reads one object that others make. Nothing is overwritten for its absence, so the watch will tell in time.
pub(super) async fn made_by_others<K: Kept>(
    context: &Context,
    source: Source,
    namespace: &str,
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError> {
    read(context, source, namespace, name, what, true).await
}

async fn read<K: Kept>(
    context: &Context,
    source: Source,
    namespace: &str,
    name: &str,
    what: &'static str,
    believes_absence: bool,
) -> Result<Option<K>, ReconcileError> {
    let cache = K::cache(&context.caches);
    let key = (namespace.to_owned(), name.to_owned());
    if source == Source::Cache {
        let mut answer = cache.look(&key);
        if matches!(answer, Answer::Behind) && cache.catch_up(&key, PATIENCE).await {
            answer = cache.look(&key);
        }
        let found = match answer {
            Answer::Known(object) => Some(Some(Arc::unwrap_or_clone(object))),
            Answer::Gone => Some(None),
            Answer::Absent if believes_absence => Some(None),
            Answer::Absent | Answer::Behind => None,
        };
        if let Some(found) = found {
            context.metrics.cache_reads.with_label_values(&["cached"]).inc();
            return Ok(found);
        }
    }
    context.metrics.cache_reads.with_label_values(&["live"]).inc();
    let before = cache.before();
    let mut live = get::<K>(&context.client, namespace, name, what).await?;
    if let Some(live) = &mut live {
        live.prune();
    }
    cache.learn(&key, live.as_ref(), before);
    Ok(live)
}

/// Reads all objects of a network.
pub(super) async fn of_network<K: Kept>(
    context: &Context,
    source: Source,
    namespace: &str,
    network: &str,
    what: &'static str,
) -> Result<Vec<K>, ReconcileError> {
    some_of_network(context, source, (namespace, network), what, |_| true).await
}

/// Reads the objects of a network whose names are asked for. In a network of a hundred nodes most are no concern of a validator's.
pub(super) async fn some_of_network<K: Kept>(
    context: &Context,
    source: Source,
    (namespace, network): (&str, &str),
    what: &'static str,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<K>, ReconcileError> {
    let cache = K::cache(&context.caches);
    if source == Source::Cache {
        context.metrics.cache_reads.with_label_values(&["cached"]).inc();
        let objects = cache.some_of_network(namespace, network, &is_meant).into_iter();
        let mut objects: Vec<K> = objects.map(Arc::unwrap_or_clone).collect();
        // What this process has written is read one by one, if the watch has not told of it in time.
        for key in cache.behind(namespace).into_iter().filter(|key| is_meant(&key.1)) {
            let told = objects.iter().position(|object| key_of(object) == key);
            let now = one::<K>(context, source, namespace, &key.1, what).await?;
            let now = now.filter(|object| object.network() == Some(network));
            match (told, now) {
                (Some(place), Some(now)) => objects[place] = now,
                (Some(place), None) => drop(objects.remove(place)),
                (None, Some(now)) => objects.push(now),
                (None, None) => {}
            }
        }
        objects.sort_by_key(kube::ResourceExt::name_any);
        return Ok(objects);
    }
    context.metrics.cache_reads.with_label_values(&["live"]).inc();
    let selector = if K::SELECTOR.is_empty() { String::new() } else { format!("{}={network}", labels::NETWORK) };
    let mut objects = list::<K>(&context.client, namespace, &selector, what).await?;
    objects.retain_mut(|object| {
        object.prune();
        object.network() == Some(network) && is_meant(&object.name_any())
    });
    Ok(objects)
}

/// What is seen of every pod of a network, by name, from what watches have told.
pub(super) async fn sightings(
    context: &Context,
    namespace: &str,
    network: &str,
) -> Result<BTreeMap<String, Sighting>, ReconcileError> {
    let cache = &context.caches.pods;
    let mut seen = cache.briefs_of_network(namespace, network);
    for (_, name) in cache.behind(namespace) {
        let now: Option<Pod> = one(context, Source::Cache, namespace, &name, "the pods").await?;
        match now.filter(|pod| pod.network() == Some(network)) {
            Some(now) => drop(seen.insert(name, now.brief())),
            None => drop(seen.remove(&name)),
        }
    }
    Ok(seen)
}

/// Reads one object live.
pub(super) async fn get<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    find(&api, name).await.map_err(|source| ReconcileError::Observe { what, source })
}

/// Reads all objects of a namespace live, in one consistent list.
pub(super) async fn list_all<K>(client: &Client, namespace: &str, what: &'static str) -> Result<Vec<K>, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    list(client, namespace, "", what).await
}

/// Reads all objects with these labels live, in one consistent list.
pub(super) async fn list<K>(
    client: &Client,
    namespace: &str,
    labels: &str,
    what: &'static str,
) -> Result<Vec<K>, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Api::<K>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().labels(labels))
        .await
        .map(|list| list.items)
        .map_err(|source| ReconcileError::Observe { what, source })
}
