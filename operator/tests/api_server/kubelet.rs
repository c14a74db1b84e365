//! Plays the nodes: reports keys as the init container does, waits for genesis and certificate, then answers on the
//! admin port. Volumes live as long as the claim's uid, as on a real cluster.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bizra_operator::certificates::{CertificateFacts, inspect};
use bizra_proto::{
    ceremony::{Genesis, KeyReport, genesis_hash, prove_possession},
    v1::{
        GetStatusRequest, GetStatusResponse, NodeStatus, SigningState, SyncState,
        admin_server::{Admin, AdminServer},
    },
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

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
    /// What the running nodes were started with, by uid of the pod.
    started: Mutex<BTreeMap<String, Started>>,
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
            started: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&kubelet).run());
        (kubelet, Stopper(task))
    }

    async fn run(self: Arc<Self>) {
        let mut servers: BTreeMap<String, Stopper> = BTreeMap::new();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        loop {
            if let Ok(list) = pods.list(&ListParams::default()).await {
                let uids: Vec<String> = list.items.iter().filter_map(ResourceExt::uid).collect();
                servers.retain(|uid, _| uids.contains(uid));
                for pod in list.items {
                    // Conflicts and vanished pods are met again in the next round.
                    let _ = self.step(&pods, &pod, &mut servers).await;
                    let _ = self.reload(&pod, &mut servers).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn step(
        &self,
        pods: &Api<Pod>,
        pod: &Pod,
        servers: &mut BTreeMap<String, Stopper>,
    ) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let claim = claims.get(&format!("{name}-data")).await?;
        let volume_id = claim.uid().unwrap();
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let reported = pod
            .status
            .as_ref()
            .and_then(|status| status.init_container_statuses.as_ref())
            .is_some_and(|statuses| !statuses.is_empty());
        if !reported {
            let arguments = pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0].args.clone().unwrap();
            let report = self.report(&volume_id, &arguments[4]);
            return patch(pods, &name, status("Pending", &report, &json!({"running": {}}), None)).await;
        }
        if phase != "Pending" {
            return Ok(());
        }
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        if image.ends_with(":broken") {
            let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
            return patch(pods, &name, status("Pending", "", &done(), Some((&waiting, None)))).await;
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let network = pod.labels()["bizra.io/network"].clone();
        let file = |map: Option<ConfigMap>, key: &str| map.and_then(|map| map.data?.get(key).cloned());
        let genesis = file(maps.get_opt(&format!("{network}-genesis")).await?, "genesis.json");
        let certificates = maps.get_opt(&format!("{network}-certificates")).await?;
        let certificates =
            certificates.and_then(|map| map.data).filter(|data| data.contains_key(&format!("{name}.crt")));
        let (Some(genesis), Some(certificates)) = (genesis, certificates) else { return Ok(()) };

        let hash = hex::encode(genesis_hash(genesis.as_bytes()));
        let (public_key, tls_key) = {
            let mut volumes = self.volumes.lock().unwrap();
            let volume = volumes.get_mut(&volume_id).unwrap();
            assert!(volume.pinned.as_ref().is_none_or(|pinned| *pinned == hash), "{name} was given another genesis");
            volume.pinned = Some(hash.clone());
            (public_key(&volume.key), volume.tls_key.serialize_pem())
        };
        let failure = self.failures.lock().unwrap().get(&name).cloned();
        if let Some((code, message)) = failure {
            let last = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
            let mut status = status("Pending", "", &done(), Some((&last, None)));
            status["containerStatuses"][0]["lastState"] =
                json!({"terminated": {"exitCode": code, "message": message, "reason": "Error"}});
            return patch(pods, &name, status).await;
        }
        let address = next_address();
        let said = NodeStatus {
            node_name: name.clone(),
            version: "0.1.0".to_owned(),
            chain_id: Genesis::parse(genesis.as_bytes()).unwrap().chain_id,
            genesis_hash: hash,
            public_key,
            sync_state: SyncState::InSync.into(),
            signing_state: SigningState::Allowed.into(),
            power: 1,
            total_power: 4,
            ..NodeStatus::default()
        };
        let started = Started { said, tls_key, address, certificates, stop: Arc::default() };
        let uid = pod.uid().unwrap();
        self.started.lock().unwrap().insert(uid.clone(), started.clone());
        servers.insert(uid, serve(started));
        let running = json!({"running": {}});
        patch(pods, &name, status("Running", "", &done(), Some((&running, Some(address))))).await
    }

    /// Answers with the certificates of now when they have changed, as nodes do without a restart.
    async fn reload(&self, pod: &Pod, servers: &mut BTreeMap<String, Stopper>) -> Result<(), kube::Error> {
        let uid = pod.uid().unwrap();
        let Some(mut started) = self.started.lock().unwrap().get(&uid).cloned() else { return Ok(()) };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let network = pod.labels()["bizra.io/network"].clone();
        let certificates = maps.get(&format!("{network}-certificates")).await?.data.unwrap_or_default();
        if certificates != started.certificates && certificates.contains_key(&format!("{}.crt", pod.name_any())) {
            started.certificates = certificates;
            std::mem::take(&mut started.stop).notify_one();
            self.started.lock().unwrap().insert(uid.clone(), started.clone());
            if let Some(Stopper(former)) = servers.get_mut(&uid) {
                // It has to be gone before its address is free.
                let _ = tokio::time::timeout(Duration::from_secs(5), former).await;
            }
            servers.insert(uid, serve(started));
        }
        Ok(())
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

/// Answers with these certificates.
fn serve(started: Started) -> Stopper {
    let Started { mut said, tls_key, address, certificates, stop } = started;
    let parts = |key: &str| -> Vec<CertificateFacts> {
        certificates[key].split_inclusive("-----END CERTIFICATE-----\n").filter_map(inspect).collect()
    };
    let certificate = &certificates[&format!("{}.crt", said.node_name)];
    let (facts, nodes) = (inspect(certificate).unwrap(), parts("ca.crt"));
    let signer = nodes.iter().find(|one| one.key_identifier == facts.authority_key_identifier);
    let signer = signer.expect("a certificate that its reader can verify");
    said.certificate_authority.clone_from(&signer.fingerprint);
    said.trusted_authorities =
        nodes.iter().chain(&parts("operator-ca.crt")).map(|one| one.fingerprint.clone()).collect();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, tls_key))
        .client_ca_root(Certificate::from_pem(&certificates["operator-ca.crt"]));
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(AdminServer::new(FakeNode { said }))
        .serve_with_shutdown((address, bizra_proto::port::ADMIN).into(), async move { stop.notified().await });
    Stopper(tokio::spawn(async move { drop(server.await) }))
}

fn public_key(key: &SigningKey) -> String {
    hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(key)))
}

/// A key of its own for every volume.
fn seed(volume_id: &str) -> [u8; 32] {
    genesis_hash(volume_id.as_bytes())
}

/// Each pod has an address of its own on the loopback interface.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Ipv4Addr::new(127, 7, (std::process::id() % 200) as u8, NEXT.fetch_add(1, Ordering::SeqCst))
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

/// A node that is always in sync and whose height grows by itself.
struct FakeNode {
    said: NodeStatus,
}

#[tonic::async_trait]
impl Admin for FakeNode {
    async fn get_status(
        &self,
        _: tonic::Request<GetStatusRequest>,
    ) -> Result<tonic::Response<GetStatusResponse>, tonic::Status> {
        let height = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 / 100 % 1_000_000;
        let said = NodeStatus {
            finalized_height: height,
            network_height: height,
            last_voted_height: height,
            ..self.said.clone()
        };
        Ok(tonic::Response::new(GetStatusResponse { status: Some(said) }))
    }
}

/// Ends a task when dropped.
pub(crate) struct Stopper(pub JoinHandle<()>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
