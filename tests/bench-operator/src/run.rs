//! One operator with one number of nodes, on a cluster of its own: ramp, rest, growing chains, restart.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject as Bound},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    audit::{self, Audit, OPERATOR_USER, PEER_USER, Requests},
    ceiling,
    cluster::{Additions, Cluster, OPERATOR_TOKEN},
    fleet::{self, Progress},
    kubelet::Kubelet,
    nodes::Nodes,
    process::{Metrics, Operator},
};

const PEER_TOKEN: &str = "peer";
/// Time between the last node's readiness and the watch at rest, as when the peers were measured.
const SETTLE: Duration = Duration::from_secs(20);
/// One of so many pods is deleted while no operator runs.
const DELETED_SHARE: usize = 100;

/// Which operator.
pub(crate) enum Subject {
    /// This project's.
    Operator(PathBuf),
    /// The Go operator of the same shape.
    Peer(PathBuf),
}

/// How many nodes, and how long each part takes, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) of_network: usize,
    pub(crate) rest: u64,
    pub(crate) moving: u64,
    pub(crate) ceiling: u64,
}

/// A stretch of time, and what the operator did in it.
pub(crate) struct Stretch {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) requests: Requests,
    pub(crate) reconciles: f64,
    /// Questions the nodes answered.
    pub(crate) answers: u64,
    /// Resident at its end, MiB.
    pub(crate) resident: f64,
}

impl Stretch {
    pub(crate) fn writes(&self) -> u64 {
        self.requests.writes()
    }
}

/// What was measured.
pub(crate) struct Outcome {
    pub(crate) is_ours: bool,
    pub(crate) nodes: usize,
    /// Writes a second the API server took at most, before and after.
    pub(crate) ceiling: (f64, f64),
    /// Resident before there was anything to do, MiB.
    pub(crate) resident_idle: f64,
    /// Most ever resident before the restart, MiB.
    pub(crate) resident_most: f64,
    /// Seconds until every node was ready.
    pub(crate) ready_seconds: f64,
    /// From the first object to the end of settling.
    pub(crate) ramp: Stretch,
    /// 99 of 100 reconciliations of a node, and of a network, took at most this long, seconds.
    pub(crate) node_p99: f64,
    pub(crate) network_p99: f64,
    pub(crate) rest: Stretch,
    pub(crate) moving: Option<Stretch>,
    /// Seconds from the start of the next operator until it had looked at every node, and until deleted pods ran again.
    pub(crate) looked_seconds: f64,
    pub(crate) recovered_seconds: f64,
}

/// Measures; none if it was interrupted. What it starts is gone when it returns.
pub(crate) fn measure(subject: &Subject, size: Size, log: &Path) -> Option<Outcome> {
    let additions = Additions { tokens: vec![(PEER_TOKEN, PEER_USER)], api_server: Some(audit::arguments) };
    let cluster = Cluster::start(&additions);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = Bench::new(&cluster, subject, size, log).run() => Some(outcome),
            () = interruption() => None,
        }
    });
    drop(runtime);
    cluster.stop();
    outcome
}

async fn interruption() {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

struct Bench<'a> {
    cluster: &'a Cluster,
    subject: &'a Subject,
    size: Size,
    admin: Client,
    nodes: Arc<Nodes>,
    kubelet: Arc<Kubelet>,
    audit: Audit,
    kubeconfig: PathBuf,
    log: &'a Path,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster, subject: &'a Subject, size: Size, log: &'a Path) -> Self {
        let (token, user) = match subject {
            Subject::Operator(_) => (OPERATOR_TOKEN, OPERATOR_USER),
            Subject::Peer(_) => (PEER_TOKEN, PEER_USER),
        };
        let kubeconfig = cluster.folder().join("kubeconfig.operator");
        std::fs::write(&kubeconfig, cluster.kubeconfig(token)).unwrap();
        let (admin, nodes) = (cluster.admin(), Nodes::new());
        let kubelet = Kubelet::start(admin.clone(), Arc::clone(&nodes));
        let audit = Audit::of(user, cluster.folder());
        Self { cluster, subject, size, admin, nodes, kubelet, audit, kubeconfig, log }
    }

    fn is_ours(&self) -> bool {
        matches!(self.subject, Subject::Operator(_))
    }

    async fn run(mut self) -> Outcome {
        let Size { nodes, of_network, rest, moving, ceiling, .. } = self.size;
        let word = if self.is_ours() { "ours" } else { "Go peer" };
        eprintln!("{word}, {nodes} nodes: the ceiling");
        let window = Duration::from_secs(ceiling);
        let ceiling_before = ceiling::measure(|| self.cluster.admin(), "before", window).await;
        if !self.is_ours() {
            self.install_peer().await;
        }
        let mut operator = self.start();
        tokio::time::sleep(Duration::from_secs(5)).await;
        operator.check();
        let resident_idle = operator.resident();

        eprintln!("{word}, {nodes} nodes: the ramp");
        let before = self.mark(&operator);
        let started = Instant::now();
        let progress = if self.is_ours() {
            let progress = Progress::of_nodes(&self.admin, nodes);
            let (admin, played) = (self.admin.clone(), Arc::clone(&self.nodes));
            tokio::spawn(async move { fleet::create_networks(&admin, &played, nodes, of_network).await });
            progress
        } else {
            let progress = Progress::of_members(&self.admin, nodes);
            fleet::create_fleets(&self.admin, nodes, of_network).await;
            progress
        };
        progress.all_ready(|| operator.check()).await;
        let ready_seconds = started.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let ramp = self.stretch(&operator, &before);
        let metrics = operator.metrics();
        let p99 = |kind: &str, controller: &str| {
            let (name, label) = if self.is_ours() {
                ("bizra_operator_reconcile_seconds", format!("kind=\"{kind}\""))
            } else {
                ("controller_runtime_reconcile_time_seconds", format!("controller=\"{controller}\""))
            };
            metrics.quantile(name, &[&label], 0.99)
        };
        let (node_p99, network_p99) = (p99("BizraNode", "member"), p99("Network", "fleet"));

        eprintln!("{word}, {nodes} nodes: at rest");
        let before = self.mark(&operator);
        tokio::time::sleep(Duration::from_secs(rest)).await;
        let rest = self.stretch(&operator, &before);
        let moving = if moving > 0 && self.is_ours() {
            eprintln!("{word}, {nodes} nodes: chains grow");
            self.nodes.moving.store(true, Ordering::Relaxed);
            let before = self.mark(&operator);
            tokio::time::sleep(Duration::from_secs(moving)).await;
            let moving = self.stretch(&operator, &before);
            self.nodes.moving.store(false, Ordering::Relaxed);
            Some(moving)
        } else {
            None
        };
        operator.check();
        let resident_most = operator.resident_most();

        eprintln!("{word}, {nodes} nodes: a new operator");
        // Killed, not asked to stop: its lease has to run out.
        drop(operator);
        let infix = if self.is_ours() { "-f" } else { "p" };
        let deleted = fleet::delete_pods(&self.admin, (nodes / DELETED_SHARE).max(1), infix).await;
        let (looked_seconds, recovered_seconds) = self.restart(&progress, deleted).await;
        let ceiling_after = ceiling::measure(|| self.cluster.admin(), "after", window).await;
        Outcome {
            is_ours: self.is_ours(),
            nodes,
            ceiling: (ceiling_before, ceiling_after),
            resident_idle,
            resident_most,
            ready_seconds,
            ramp,
            node_p99,
            network_p99,
            rest,
            moving,
            looked_seconds,
            recovered_seconds,
        }
    }

    fn start(&self) -> Operator {
        match self.subject {
            Subject::Operator(program) => Operator::start(program, &self.kubeconfig, self.log),
            Subject::Peer(program) => Operator::start_peer(program, &self.kubeconfig, self.log),
        }
    }

    /// Starts the next operator; seconds until it had looked at every node, and until the deleted pods ran again.
    async fn restart(&self, progress: &Progress, deleted: usize) -> (f64, f64) {
        let wanted = self.kubelet.have_run() + deleted;
        let mut operator = self.start();
        let mut looked = None;
        let mut recovered = None;
        while looked.is_none() || recovered.is_none() {
            operator.check();
            let seconds = operator.age().as_secs_f64();
            assert!(seconds < 900.0, "the next operator did not recover within 15 minutes");
            if looked.is_none() && reconciliations(&operator.metrics()).0 >= self.size.nodes as f64 {
                looked = Some(seconds);
            }
            if recovered.is_none() && self.kubelet.have_run() >= wanted {
                recovered = Some(seconds);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        progress.all_ready(|| operator.check()).await;
        (looked.unwrap_or_default(), recovered.unwrap_or_default())
    }

    /// The beginning of a stretch.
    fn mark(&mut self, operator: &Operator) -> Mark {
        self.audit.since();
        let (of_nodes, of_others) = reconciliations(&operator.metrics());
        Mark {
            at: Instant::now(),
            cpu_seconds: operator.cpu_seconds(),
            reconciles: of_nodes + of_others,
            answers: self.nodes.answered.load(Ordering::Relaxed),
        }
    }

    fn stretch(&mut self, operator: &Operator, since: &Mark) -> Stretch {
        let (of_nodes, of_others) = reconciliations(&operator.metrics());
        Stretch {
            seconds: since.at.elapsed().as_secs_f64(),
            cpu_seconds: operator.cpu_seconds() - since.cpu_seconds,
            requests: self.audit.since(),
            reconciles: of_nodes + of_others - since.reconciles,
            answers: self.nodes.answered.load(Ordering::Relaxed) - since.answers,
            resident: operator.resident(),
        }
    }

    /// Its kinds, and rights to do what it wants.
    async fn install_peer(&self) {
        let text = include_str!("../peer/crds.yaml");
        for document in text.split("---\n") {
            let definition: CustomResourceDefinition = serde_yaml_ng::from_str(document).unwrap();
            Api::all(self.admin.clone()).create(&PostParams::default(), &definition).await.unwrap();
        }
        let binding = ClusterRoleBinding {
            metadata: ObjectMeta { name: Some("peer".to_owned()), ..ObjectMeta::default() },
            role_ref: RoleRef {
                api_group: Some("rbac.authorization.k8s.io".to_owned()),
                kind: "ClusterRole".to_owned(),
                name: "cluster-admin".to_owned(),
            },
            subjects: Some(vec![Bound { kind: "User".to_owned(), name: PEER_USER.to_owned(), ..Bound::default() }]),
        };
        Api::all(self.admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
        // The kinds are served a moment later.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

struct Mark {
    at: Instant,
    cpu_seconds: f64,
    reconciles: f64,
    answers: u64,
}

/// Reconciliations of nodes, and of their owners.
fn reconciliations(metrics: &Metrics) -> (f64, f64) {
    let ours = |kind: &str| metrics.sum("bizra_operator_reconciliations_total", &[&format!("kind=\"{kind}\"")]);
    let peers = |name: &str| metrics.sum("controller_runtime_reconcile_total", &[&format!("controller=\"{name}\"")]);
    (ours("BizraNode") + peers("member"), ours("Network") + peers("fleet"))
}
