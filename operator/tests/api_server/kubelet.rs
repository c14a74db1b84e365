//! Plays the nodes: reports keys as the init container does, waits for genesis and certificate, then answers on the
//! admin port. Volumes live as long as the claim's uid, as on a real cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bizra_operator::certificates::{CertificateFacts, inspect};
use bizra_proto::{
    ceremony::{Genesis, KeyReport, genesis_hash, prove_possession},
    v1::{
        GetStatusRequest, GetStatusResponse, NodeStatus, ProveKeyRequest, ProveKeyResponse, SigningState, SyncState,
        admin_server::{Admin, AdminServer},
    },
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, select_all},
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::Router};

/// What is on a volume.
struct Volume {
    key: SigningKey,
    tls_key: rcgen::KeyPair,
    pinned: Option<String>,
}

/// A kubelet for the pods of one namespace.
pub(crate) struct Kubelet {
    client: Client,
    namespace: String,
    volumes: Mutex<BTreeMap<String, Volume>>,
    /// What the `node` container of a pod of this name ends with, instead of running.
    pub failures: Mutex<BTreeMap<String, (i32, String)>>,
    /// Nodes that run and give no answer.
    pub silent: Mutex<BTreeSet<String>>,
    /// What is wrong with the database of a node of this name, until it is reset.
    pub troubles: Mutex<BTreeMap<String, Trouble>>,
    /// Names of nodes and arguments of the resets that were carried out.
    pub resets: Mutex<Vec<(String, Vec<String>)>>,
    /// Percent of the volume in use, by node name.
    pub usage: Mutex<BTreeMap<String, u64>>,
    /// Nodes whose configuration fences them.
    fenced: Mutex<BTreeSet<String>>,
    /// What the running nodes were started with, by uid of the pod.
    started: Mutex<BTreeMap<String, Started>>,
}

/// What is wrong with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The node ends with it.
    Corrupt,
    /// The node ends, because its keys are gone.
    Keyless,
    /// The node runs and stands still.
    Stuck,
}

/// What a kubelet reads at the beginning of a round.
struct Seen {
    maps: BTreeMap<String, BTreeMap<String, String>>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
}

impl Seen {
    /// Nodes whose configuration fences them.
    fn fenced(&self) -> BTreeSet<String> {
        let is_fenced = |data: &BTreeMap<String, String>| {
            data.get("node.toml").is_some_and(|file| file.contains("signing = \"fenced\""))
        };
        let fenced = self.maps.iter().filter(|(_, data)| is_fenced(data));
        fenced.map(|(name, _)| name.trim_end_matches("-config").to_owned()).collect()
    }

    /// The certificates of a network, once there is one of this node.
    fn certificates(&self, network: &str, node: &str) -> Option<&BTreeMap<String, String>> {
        let certificates = self.maps.get(&format!("{network}-certificates"))?;
        certificates.contains_key(&format!("{node}.crt")).then_some(certificates)
    }
}

/// What a running node was started with; it follows its certificates from there.
#[derive(Clone)]
struct Started {
    said: NodeStatus,
    tls_key: String,
    address: Ipv4Addr,
    certificates: BTreeMap<String, String>,
    /// Closes the open connections too: what they answer is of the time they were made.
    stop: Arc<Notify>,
}

impl Kubelet {
    pub(crate) fn start(client: Client, namespace: &str) -> (Arc<Self>, Stopper) {
        let kubelet = Arc::new(Self {
            client,
            namespace: namespace.to_owned(),
            volumes: Mutex::default(),
            failures: Mutex::default(),
            silent: Mutex::default(),
            troubles: Mutex::default(),
            resets: Mutex::default(),
            usage: Mutex::default(),
            fenced: Mutex::default(),
            started: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&kubelet).run());
        (kubelet, Stopper(task))
    }

    async fn run(self: Arc<Self>) {
        let mut servers: BTreeMap<String, Stopper> = BTreeMap::new();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut changes = select_all([
            changes(&pods),
            changes(&Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &self.namespace)),
            changes(&Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace)),
        ]);
        loop {
            // Pods first: what they rest on is there by then.
            let list = pods.list(&ListParams::default()).await;
            if let (Ok(list), Ok(seen)) = (list, self.look().await) {
                *self.fenced.lock().unwrap() = seen.fenced();
                let list = list.items;
                servers.retain(|uid, _| list.iter().any(|pod| pod.uid().as_ref() == Some(uid)));
                for pod in list {
                    // Conflicts and vanished pods are met again in the next round.
                    let _ = self.step(&pods, &pod, &seen, &mut servers).await;
                    self.reload(&pod, &seen, &mut servers).await;
                }
            }
            // What a test does to a node is no change of an object.
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.next()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            while changes.next().now_or_never().is_some() {}
        }
    }

    async fn look(&self) -> Result<Seen, kube::Error> {
        let (client, namespace) = (&self.client, self.namespace.as_str());
        let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let claims = claims.list(&ListParams::default()).await?;
        Ok(Seen {
            maps: maps.into_iter().map(|map| (map.name_any(), map.data.unwrap_or_default())).collect(),
            claims: claims.into_iter().map(|claim| (claim.name_any(), claim)).collect(),
        })
    }

    async fn step(
        self: &Arc<Self>,
        pods: &Api<Pod>,
        pod: &Pod,
        seen: &Seen,
        servers: &mut BTreeMap<String, Stopper>,
    ) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let Some(claim) = seen.claims.get(&format!("{name}-data")) else { return Ok(()) };
        let volume_id = claim.uid().unwrap();
        self.provision(&claims, claim).await?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let reported = pod
            .status
            .as_ref()
            .and_then(|status| status.init_container_statuses.as_ref())
            .is_some_and(|statuses| !statuses.is_empty());
        if !reported {
            let arguments = pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0].args.clone().unwrap();
            if arguments.contains(&"--replace-refused".to_owned()) {
                self.troubles.lock().unwrap().remove(&name);
                let key = SigningKey::from(seed(&format!("{volume_id} {}", arguments.last().unwrap())));
                let volume = Volume { key, tls_key: rcgen::KeyPair::generate().unwrap(), pinned: None };
                self.volumes.lock().unwrap().insert(volume_id.clone(), volume);
                self.resets.lock().unwrap().push((name.clone(), arguments.clone()));
            }
            let report = self.report(&volume_id, &arguments[4]);
            let mut status = status("Pending", &report, &json!({"running": {}}), None);
            let init = pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap();
            if let Some(reset) = init.iter().find(|container| container.name == "reset") {
                self.troubles.lock().unwrap().remove(&name);
                self.resets.lock().unwrap().push((name.clone(), reset.args.clone().unwrap()));
                status["initContainerStatuses"].as_array_mut().unwrap().push(container("reset", &done(), true));
            }
            return patch(pods, &name, status).await;
        }
        let trouble = self.troubles.lock().unwrap().get(&name).copied();
        if phase != "Pending" {
            match trouble {
                None => return Ok(()),
                Some(Trouble::Corrupt) => {
                    servers.remove(&pod.uid().unwrap());
                    return patch(pods, &name, crashed(13, CORRUPT)).await;
                }
                Some(Trouble::Keyless) => {
                    servers.remove(&pod.uid().unwrap());
                    return patch(pods, &name, crashed(14, KEYLESS)).await;
                }
                Some(Trouble::Stuck) => return self.find_unready(pods, pod).await,
            }
        }
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        if image.ends_with(":broken") {
            let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
            return patch(pods, &name, status("Pending", "", &done(), Some((&waiting, None)))).await;
        }
        let network = &pod.labels()["bizra.io/network"];
        let genesis = seen.maps.get(&format!("{network}-genesis")).and_then(|data| data.get("genesis.json"));
        let (Some(genesis), Some(certificates)) = (genesis, seen.certificates(network, &name)) else { return Ok(()) };
        let (genesis, certificates) = (genesis.clone(), certificates.clone());

        let hash = hex::encode(genesis_hash(genesis.as_bytes()));
        let (public_key, tls_key) = {
            let mut volumes = self.volumes.lock().unwrap();
            let volume = volumes.get_mut(&volume_id).unwrap();
            assert!(volume.pinned.as_ref().is_none_or(|pinned| *pinned == hash), "{name} was given another genesis");
            volume.pinned = Some(hash.clone());
            (public_key(&volume.key), volume.tls_key.serialize_pem())
        };
        let corrupt = (trouble == Some(Trouble::Corrupt)).then(|| (13, CORRUPT.to_owned()));
        let failure = self.failures.lock().unwrap().get(&name).cloned();
        if let Some((code, message)) = failure.or(corrupt) {
            return patch(pods, &name, crashed(code, &message)).await;
        }
        let address = next_address();
        let genesis = Genesis::parse(genesis.as_bytes()).unwrap();
        let is_validator = genesis.validators.iter().any(|validator| validator.name == name);
        let said = NodeStatus {
            node_name: name.clone(),
            version: "0.1.0".to_owned(),
            chain_id: genesis.chain_id,
            genesis_hash: hash,
            public_key,
            sync_state: SyncState::InSync.into(),
            signing_state: if is_validator { SigningState::Allowed } else { SigningState::NotAValidator }.into(),
            power: u64::from(is_validator),
            total_power: 4,
            ..NodeStatus::default()
        };
        let started = Started { said, tls_key, address, certificates, stop: Arc::default() };
        let Some(router) = self.prepare(&started) else { return Ok(()) };
        let uid = pod.uid().unwrap();
        self.started.lock().unwrap().insert(uid.clone(), started.clone());
        servers.insert(uid, serve(router, &started));
        let running = json!({"running": {}});
        patch(pods, &name, status("Running", "", &done(), Some((&running, Some(address))))).await
    }

    /// Answers with the certificates of now when they have changed, as nodes do without a restart.
    async fn reload(self: &Arc<Self>, pod: &Pod, seen: &Seen, servers: &mut BTreeMap<String, Stopper>) {
        let uid = pod.uid().unwrap();
        let Some(mut started) = self.started.lock().unwrap().get(&uid).cloned() else { return };
        let certificates = seen.certificates(&pod.labels()["bizra.io/network"], &pod.name_any());
        if let Some(certificates) = certificates.filter(|now| **now != started.certificates) {
            started.certificates.clone_from(certificates);
            let Some(router) = self.prepare(&started) else { return };
            std::mem::take(&mut started.stop).notify_one();
            self.started.lock().unwrap().insert(uid.clone(), started.clone());
            if let Some(Stopper(former)) = servers.get_mut(&uid) {
                // It has to be gone before its address is free.
                let _ = tokio::time::timeout(Duration::from_secs(5), former).await;
            }
            servers.insert(uid, serve(router, &started));
        }
    }

    /// What answers with these certificates; none if they are not for this node's key or cannot be verified, which a real
    /// node refuses until there are others.
    fn prepare(self: &Arc<Self>, started: &Started) -> Option<Router> {
        let Started { said, tls_key, certificates, .. } = started;
        let parts = |key: &str| -> Vec<CertificateFacts> {
            certificates[key].split_inclusive("-----END CERTIFICATE-----\n").filter_map(inspect).collect()
        };
        let certificate = &certificates[&format!("{}.crt", said.node_name)];
        let (facts, nodes) = (inspect(certificate)?, parts("ca.crt"));
        let signer = nodes.iter().find(|one| one.key_identifier == facts.authority_key_identifier)?;
        let said = NodeStatus {
            certificate_authority: signer.fingerprint.clone(),
            trusted_authorities: nodes
                .iter()
                .chain(&parts("operator-ca.crt"))
                .map(|one| one.fingerprint.clone())
                .collect(),
            ..said.clone()
        };
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, tls_key))
            .client_ca_root(Certificate::from_pem(&certificates["operator-ca.crt"]));
        let mut server = Server::builder().tls_config(tls).ok()?;
        Some(server.add_service(AdminServer::new(FakeNode { said, kubelet: Arc::clone(self) })))
    }

    /// Binds a claim and gives it what it asks for, as a storage driver does.
    async fn provision(
        &self,
        claims: &Api<PersistentVolumeClaim>,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), kube::Error> {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.clone());
        if claim.status.as_ref().and_then(|status| status.capacity.clone()) == requests {
            return Ok(());
        }
        let status = json!({"status": {"phase": "Bound", "capacity": requests}});
        claims.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
    }

    /// The readiness probe of a node that stands still.
    async fn find_unready(&self, pods: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        if conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "False") {
            return Ok(());
        }
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let unready = json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]});
        patch(pods, &pod.name_any(), unready).await
    }

    /// What the init container `key` writes to its termination log.
    fn report(&self, volume_id: &str, chain_id: &str) -> String {
        let mut volumes = self.volumes.lock().unwrap();
        let volume = volumes.entry(volume_id.to_owned()).or_insert_with(|| Volume {
            key: SigningKey::from(seed(volume_id)),
            tls_key: rcgen::KeyPair::generate().unwrap(),
            pinned: None,
        });
        let request = rcgen::CertificateParams::default().serialize_request(&volume.tls_key).unwrap();
        serde_json::to_string(&KeyReport {
            public_key: public_key(&volume.key),
            proof_of_possession: prove_possession(&volume.key, chain_id),
            certificate_request: request.pem().unwrap(),
            genesis_hash: volume.pinned.clone(),
        })
        .unwrap()
    }
}

fn serve(router: Router, started: &Started) -> Stopper {
    let (address, stop) = ((started.address, bizra_proto::port::ADMIN).into(), Arc::clone(&started.stop));
    let serving = router.serve_with_shutdown(address, async move { stop.notified().await });
    Stopper(tokio::spawn(async move { drop(serving.await) }))
}

fn public_key(key: &SigningKey) -> String {
    hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(key)))
}

/// A key of its own for every volume.
fn seed(volume_id: &str) -> [u8; 32] {
    genesis_hash(volume_id.as_bytes())
}

/// A node's last words about its database.
const CORRUPT: &str = r#"{"reason":"DatabaseCorrupt","message":"the database is damaged"}"#;
const KEYLESS: &str = r#"{"reason":"SigningRecordRefused","message":"there is no signer folder"}"#;

/// The status of a pod whose node ends again and again.
fn crashed(code: i32, message: &str) -> Value {
    let last = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
    let mut status = status("Pending", "", &done(), Some((&last, None)));
    let container = &mut status["containerStatuses"][0];
    container["restartCount"] = json!(5);
    container["lastState"] = json!({"terminated": {"exitCode": code, "message": message, "reason": "Error"}});
    status
}

/// Each pod has an address of its own on the loopback interface.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    Ipv4Addr::new(127, 7 + (std::process::id() % 200) as u8, high, low)
}

/// Tells that something of a kind has changed.
fn changes<K>(api: &Api<K>) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api.clone(), watcher::Config::default()).default_backoff().map(drop).boxed()
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

/// A pod status. Without a report, the one the pod has is kept.
fn status(phase: &str, report: &str, genesis: &Value, node: Option<(&Value, Option<Ipv4Addr>)>) -> Value {
    let mut key = done();
    key["terminated"]["message"] = json!(report);
    let mut status = json!({"phase": phase});
    if !report.is_empty() {
        status["initContainerStatuses"] = json!([container("key", &key, true), container("genesis", genesis, false)]);
    }
    if let Some((state, address)) = node {
        let running = address.is_some();
        status["containerStatuses"] = json!([container("node", state, running)]);
        status["genesisDone"] = json!(true);
        if let Some(address) = address {
            status["podIP"] = json!(address);
            status["podIPs"] = json!([{"ip": address}]);
            status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
    }
    status
}

async fn patch(pods: &Api<Pod>, name: &str, mut status: Value) -> Result<(), kube::Error> {
    if status.as_object_mut().unwrap().remove("genesisDone").is_some() {
        let live = pods.get(name).await?;
        let mut init = serde_json::to_value(live.status.unwrap().init_container_statuses).unwrap();
        init[1]["state"] = done();
        status["initContainerStatuses"] = init;
    }
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.map(drop)
}

/// A node that is in sync unless its database is in trouble, and whose height grows by itself.
struct FakeNode {
    said: NodeStatus,
    kubelet: Arc<Kubelet>,
}

#[tonic::async_trait]
impl Admin for FakeNode {
    async fn get_status(
        &self,
        _: tonic::Request<GetStatusRequest>,
    ) -> Result<tonic::Response<GetStatusResponse>, tonic::Status> {
        if self.kubelet.silent.lock().unwrap().contains(&self.said.node_name) {
            return Err(tonic::Status::unavailable("the test silenced this node"));
        }
        let height = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 / 100 % 1_000_000;
        let name = &self.said.node_name;
        let mut said = NodeStatus {
            finalized_height: height,
            network_height: height,
            last_voted_height: height,
            ..self.said.clone()
        };
        if let Some(percent) = self.kubelet.usage.lock().unwrap().get(name) {
            (said.volume_total_bytes, said.volume_free_bytes) = (1 << 30, (1 << 30) / 100 * (100 - percent));
        }
        if self.kubelet.fenced.lock().unwrap().contains(name) {
            said.set_signing_state(SigningState::Fenced);
        }
        if self.kubelet.troubles.lock().unwrap().get(name) == Some(&Trouble::Stuck) {
            said.set_sync_state(SyncState::CatchingUp);
            said.finalized_height = 1;
        }
        Ok(tonic::Response::new(GetStatusResponse { status: Some(said) }))
    }

    async fn prove_key(
        &self,
        _: tonic::Request<ProveKeyRequest>,
    ) -> Result<tonic::Response<ProveKeyResponse>, tonic::Status> {
        Err(tonic::Status::failed_precondition("the nodes of this test have no key in memory"))
    }
}

/// Ends a task when dropped.
pub(crate) struct Stopper(pub JoinHandle<()>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
