//! Live reads. Plans are made from what the API server says now, never from a cache that may be behind; watches only
//! tell when to look.

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, serde::de::DeserializeOwned};
use kube::{Api, Client, Resource, api::ListParams};

use super::ReconcileError;

/// Reads one object.
pub(super) async fn get<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Api::<K>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(|source| ReconcileError::Observe { what, source })
}

/// Reads all objects of a namespace, in one consistent list.
pub(super) async fn list_all<K>(client: &Client, namespace: &str, what: &'static str) -> Result<Vec<K>, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    list(client, namespace, "", what).await
}

/// Reads all objects with these labels, in one consistent list.
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
