//! What the operator is asked for, and how far it is.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bizra_operator::{
    api::{BizraNode, Network, condition},
    controllers::conditions::is_true,
};
use futures::{StreamExt as _, pin_mut, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{kubelet, nodes, nodes::Nodes};

/// Connections over which objects are created at the same time, as when the peers were measured.
const CREATORS: usize = 4;
/// Longest a run may take to be ready, for each node.
const PATIENCE_PER_NODE: Duration = Duration::from_millis(500);

/// Kinds of the Go operator.
pub(crate) fn peer_kind(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("peer.bizra.io", "v1", kind))
}

/// Which of the wanted objects are ready, kept up to date by a watch.
pub(crate) struct Progress {
    ready: Arc<Mutex<HashMap<String, bool>>>,
    wanted: usize,
}

impl Progress {
    /// Watches `BizraNode`s.
    pub(crate) fn of_nodes(client: &Client, wanted: usize) -> Self {
        Self::watch(Api::<BizraNode>::all(client.clone()), wanted, |node| {
            node.status.as_ref().is_some_and(|status| is_true(&status.conditions, condition::READY))
        })
    }

    /// Watches the children of the Go operator.
    pub(crate) fn of_members(client: &Client, wanted: usize) -> Self {
        let api = Api::<DynamicObject>::all_with(client.clone(), &peer_kind("Member"));
        Self::watch(api, wanted, |member| member.data.pointer("/status/ready") == Some(&Value::Bool(true)))
    }

    fn watch<K>(api: Api<K>, wanted: usize, is_ready: fn(&K) -> bool) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let ready = Arc::new(Mutex::new(HashMap::new()));
        let told = Arc::clone(&ready);
        tokio::spawn(async move {
            let events = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
            pin_mut!(events);
            while let Some(event) = events.next().await {
                if let Ok(object) = event {
                    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
                    told.lock().unwrap().insert(name, is_ready(&object));
                }
            }
        });
        Self { ready, wanted }
    }

    fn ready(&self) -> usize {
        self.ready.lock().unwrap().values().filter(|ready| **ready).count()
    }

    /// Waits until all wanted objects are ready; `check` is called meanwhile.
    pub(crate) async fn all_ready(&self, mut check: impl FnMut()) -> Duration {
        let started = Instant::now();
        let patience = Duration::from_mins(2) + PATIENCE_PER_NODE * u32::try_from(self.wanted).unwrap();
        let mut told = Instant::now();
        loop {
            let ready = self.ready();
            if ready >= self.wanted {
                return started.elapsed();
            }
            assert!(
                started.elapsed() < patience,
                "{ready} of {} ready after {} s",
                self.wanted,
                started.elapsed().as_secs()
            );
            check();
            if told.elapsed() > Duration::from_secs(30) {
                eprintln!("  {ready} of {} ready after {:.0} s", self.wanted, started.elapsed().as_secs_f64());
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Creates networks of `of_network` nodes each, `total` nodes altogether: four validators, made by the operator, and
/// followers, made here as a user would. Their admin ports answer as soon as they run.
pub(crate) async fn create_networks(client: &Client, nodes: &Arc<Nodes>, total: usize, of_network: usize) {
    let networks: Vec<(String, usize)> = (0..total.div_ceil(of_network))
        .map(|number| (format!("n{number}"), of_network.min(total - number * of_network)))
        .collect();
    for (network, _) in &networks {
        nodes::serve(Arc::clone(nodes), kubelet::address_of(network)).await;
        create_namespace(client, network).await;
    }
    let network = |name: &str| -> Network {
        let object = json!({
            "apiVersion": "bizra.io/v1alpha1", "kind": "Network", "metadata": {"name": name},
            "spec": {"chainId": format!("{name}-chain")},
        });
        serde_json::from_value(object).unwrap()
    };
    let follower = |network: &str, number: usize| -> BizraNode {
        let object = json!({
            "apiVersion": "bizra.io/v1alpha1", "kind": "BizraNode",
            "metadata": {"name": format!("{network}-f{number}")}, "spec": {"networkRef": {"name": network}},
        });
        serde_json::from_value(object).unwrap()
    };
    for (name, _) in &networks {
        create(client, name, &network(name)).await;
    }
    let followers = networks.iter().flat_map(|(name, size)| (0..size - 4).map(move |number| (name.as_str(), number)));
    stream::iter(followers)
        .for_each_concurrent(CREATORS, |(name, number)| async move {
            create(client, name, &follower(name, number)).await;
        })
        .await;
}

/// Creates owners of the Go operator with `of_network` children each.
pub(crate) async fn create_fleets(client: &Client, total: usize, of_network: usize) {
    let kind = peer_kind("Fleet");
    for number in 0..total.div_ceil(of_network) {
        let name = format!("p{number}");
        create_namespace(client, &name).await;
        let replicas = of_network.min(total - number * of_network);
        let fleet = DynamicObject::new(&name, &kind).data(json!({"spec": {"replicas": replicas}}));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name, &kind);
        api.create(&PostParams::default(), &fleet).await.unwrap();
    }
}

/// Deletes this many running pods at once, spread over all; returns how many there were.
pub(crate) async fn delete_pods(client: &Client, count: usize, infix: &str) -> usize {
    let pods = Api::<Pod>::all(client.clone()).list_metadata(&kube::api::ListParams::default()).await.unwrap().items;
    // Followers, or members of the Go operator: what is measured is the restart, not a lost quorum.
    let pods: Vec<_> = pods.into_iter().filter(|pod| pod.name_any().contains(infix)).collect();
    let step = (pods.len() / count.max(1)).max(1);
    let chosen: Vec<_> = pods.iter().step_by(step).take(count).collect();
    for pod in &chosen {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        api.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    }
    chosen.len()
}

async fn create_namespace(client: &Client, name: &str) {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

async fn create<K>(client: &Client, namespace: &str, object: &K)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + Debug,
{
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), object).await.unwrap();
}
