//! Plays the kubelets of all pods: reports keys as the init container does, waits for genesis and certificate as the next one
//! does, then lets the node run. Two status writes a pod; a real kubelet makes a few more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bizra_operator::resources::{config_map, genesis, labels, names};
use bizra_proto::{
    ceremony::{Genesis, genesis_hash},
    v1::{NodeStatus, SigningState, SyncState},
};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{nodes::Nodes, volumes::Volumes};

/// Label of the pods of the Go operator; they have no keys to report.
pub(crate) const PEER_LABEL: &str = "peer.bizra.io/member";
/// Status writes at the same time, of all kubelets together.
const WRITES_MAX: usize = 16;

/// All kubelets.
pub(crate) struct Kubelet {
    client: Client,
    nodes: Arc<Nodes>,
    volumes: Volumes,
    writes: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is mounted, by network.
    documents: HashMap<String, Documents>,
    /// Pods that have reported and wait for documents, by network.
    waiting: HashMap<String, Vec<Pod>>,
    /// Uids of pods that have reported, and of those that run.
    reported: HashSet<String>,
    running: HashSet<String>,
}

#[derive(Clone, Default)]
struct Documents {
    genesis: Option<Arc<String>>,
    certificates: Arc<BTreeMap<String, String>>,
}

/// All a node needs to run.
struct Ready {
    genesis: Arc<String>,
    certificate: String,
    operator_ca: String,
}

impl Documents {
    fn of(&self, node: &str) -> Option<Ready> {
        Some(Ready {
            genesis: self.genesis.clone()?,
            certificate: self.certificates.get(&config_map::certificate_key(node))?.clone(),
            operator_ca: self.certificates.get(config_map::OPERATOR_AUTHORITY)?.clone(),
        })
    }
}

/// Address of the nodes of a network; it is named `n<number>`.
pub(crate) fn address_of(network: &str) -> Ipv4Addr {
    let number: u16 = network.trim_start_matches('n').parse().unwrap_or(0);
    let process = u8::try_from(std::process::id() % 100).unwrap_or(0) + 100;
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, process, high, low)
}

impl Kubelet {
    /// Starts playing; it goes on until the runtime ends.
    pub(crate) fn start(client: Client, nodes: Arc<Nodes>) -> Arc<Self> {
        let kubelet = Arc::new(Self {
            client,
            nodes,
            volumes: Volumes::default(),
            writes: Semaphore::new(WRITES_MAX),
            state: Mutex::default(),
        });
        let documents = watcher::Config::default().labels(&format!("{},!{}", labels::NETWORK, labels::NODE));
        tokio::spawn(Arc::clone(&kubelet).watch_documents(documents));
        tokio::spawn(Arc::clone(&kubelet).watch_pods(watcher::Config::default().labels(labels::NODE)));
        tokio::spawn(Arc::clone(&kubelet).watch_pods(watcher::Config::default().labels(PEER_LABEL)));
        kubelet
    }

    /// How many pods have ever been let run.
    pub(crate) fn have_run(&self) -> usize {
        self.state.lock().unwrap().running.len()
    }

    async fn watch_documents(self: Arc<Self>, config: watcher::Config) {
        let events = watcher(Api::<ConfigMap>::all(self.client.clone()), config).default_backoff().applied_objects();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let Ok(map) = event else { continue };
            let Some(network) = map.labels().get(labels::NETWORK).cloned() else { continue };
            let (name, mut data) = (map.name_any(), map.data.unwrap_or_default());
            let waiting = {
                let mut state = self.state.lock().unwrap();
                let documents = state.documents.entry(network.clone()).or_default();
                if name == names::genesis(&network) {
                    documents.genesis = data.remove(genesis::FILE).map(Arc::new);
                } else if name == names::certificates(&network) {
                    documents.certificates = Arc::new(data);
                }
                state.waiting.remove(&network).unwrap_or_default()
            };
            for pod in waiting {
                self.step(pod);
            }
        }
    }

    async fn watch_pods(self: Arc<Self>, config: watcher::Config) {
        let events = watcher(Api::<Pod>::all(self.client.clone()), config).default_backoff().applied_objects();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            if let Ok(pod) = event {
                self.step(pod);
            }
        }
    }

    /// Does what comes next for a pod, unless that is on its way already.
    fn step(self: &Arc<Self>, pod: Pod) {
        let uid = pod.uid().unwrap();
        let mut state = self.state.lock().unwrap();
        if state.running.contains(&uid) {
            return;
        }
        let Some(network) = pod.labels().get(labels::NETWORK).cloned() else {
            state.running.insert(uid);
            drop(state);
            let kubelet = Arc::clone(self);
            tokio::spawn(async move { kubelet.patch(&pod, running(Ipv4Addr::LOCALHOST, None)).await });
            return;
        };
        let status = pod.status.as_ref();
        let init = status.and_then(|status| status.init_container_statuses.clone());
        if init.as_ref().is_none_or(Vec::is_empty) {
            if state.reported.insert(uid) {
                drop(state);
                let kubelet = Arc::clone(self);
                tokio::spawn(async move { kubelet.report(&pod).await });
            }
            return;
        }
        let documents = state.documents.get(&network).cloned().unwrap_or_default();
        let Some(ready) = documents.of(&pod.name_any()) else {
            state.waiting.entry(network).or_default().push(pod);
            return;
        };
        state.running.insert(uid);
        drop(state);
        let kubelet = Arc::clone(self);
        tokio::spawn(async move { kubelet.run(&pod, &network, &ready).await });
    }

    async fn report(&self, pod: &Pod) {
        let spec = pod.spec.as_ref().unwrap();
        let arguments = spec.init_containers.as_ref().unwrap()[0].args.as_ref().unwrap();
        let after = |flag: &str| {
            let place = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments[place + 1].clone()
        };
        let volume = self.volumes.of(&after("--volume-id"));
        let mut key = container("key", &done(), true);
        key["state"]["terminated"]["message"] = json!(volume.report(&after("--chain-id")));
        let genesis = container("genesis", &json!({"running": {}}), false);
        self.patch(pod, json!({"phase": "Pending", "initContainerStatuses": [key, genesis]})).await;
    }

    async fn run(&self, pod: &Pod, network: &str, ready: &Ready) {
        let volume = self.volumes.of(&pod.annotations()[labels::VOLUME_ID]);
        let genesis = Genesis::parse(ready.genesis.as_bytes()).unwrap();
        let name = pod.name_any();
        let votes = genesis.validators.iter().any(|validator| validator.name == name);
        let said = NodeStatus {
            node_name: name,
            version: "0.1.0".to_owned(),
            chain_id: genesis.chain_id.clone(),
            genesis_hash: hex::encode(genesis_hash(ready.genesis.as_bytes())),
            public_key: volume.public_key(),
            sync_state: SyncState::InSync.into(),
            signing_state: if votes { SigningState::Allowed } else { SigningState::NotAValidator }.into(),
            power: u64::from(votes),
            total_power: genesis.validators.len() as u64,
            ..NodeStatus::default()
        };
        self.nodes.run(said, &ready.certificate, &volume.tls_key, &ready.operator_ca);
        let init = pod.status.as_ref().and_then(|status| status.init_container_statuses.clone());
        let mut init = serde_json::to_value(init).unwrap();
        init[1]["state"] = done();
        self.patch(pod, running(address_of(network), Some(init))).await;
    }

    /// A pod that is gone by now needs no status.
    async fn patch(&self, pod: &Pod, status: Value) {
        let _permit = self.writes.acquire().await.unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap());
        let patch = Patch::Merge(json!({ "status": status }));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => panic!("the status of pod {} cannot be written: {error}", pod.name_any()),
        }
    }
}

fn done() -> Value {
    json!({"terminated": {"exitCode": 0}})
}

fn container(name: &str, state: &Value, ready: bool) -> Value {
    json!({
        "name": name, "state": state, "ready": ready, "restartCount": 0,
        "image": "localhost/bizra:dev", "imageID": "",
    })
}

/// Status of a pod whose node runs.
fn running(address: Ipv4Addr, init: Option<Value>) -> Value {
    let mut status = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "containerStatuses": [container("node", &json!({"running": {}}), true)],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    if let Some(init) = init {
        status["initContainerStatuses"] = init;
    }
    status
}
