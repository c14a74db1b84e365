//! Starts etcd, kube-apiserver and kube-controller-manager from `BIZRA_CLUSTER_BIN`, once for all tests.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bizra_operator::api::definitions;
use k8s_openapi::{
    api::{
        core::v1::Namespace,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use serde::de::DeserializeOwned;
use tonic::codegen::http::Request;

const ADMIN_TOKEN: &str = "admin";
pub(crate) const OPERATOR_TOKEN: &str = "operator";
pub(crate) const OPERATOR_NAMESPACE: &str = "bizra-system";

/// The running programs. They end when this process does: each is a child of a shell that waits for its standard input
/// to close.
pub(crate) struct Cluster {
    port: u16,
    folder: PathBuf,
    guards: Vec<Child>,
}

/// What a cluster has besides what the tests need.
#[derive(Default)]
pub(crate) struct Additions {
    /// Tokens and whose they are; they may do nothing unless somebody binds them a role.
    pub tokens: Vec<(&'static str, &'static str)>,
    /// Writes what it needs into the cluster's folder and returns more arguments for the API server.
    pub api_server: Option<fn(&Path) -> Vec<String>>,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// The cluster, started by the first test that asks.
pub(crate) fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| std::thread::spawn(|| Cluster::start(&Additions::default())).join().unwrap())
}

impl Cluster {
    /// A client that may do everything.
    pub(crate) fn admin(&self) -> Client {
        Client::try_from(self.config(ADMIN_TOKEN)).unwrap()
    }

    /// A client with exactly the operator's rights.
    pub(crate) fn operator(&self) -> Client {
        Client::try_from(self.operator_config()).unwrap()
    }

    /// How the operator connects.
    pub(crate) fn operator_config(&self) -> Config {
        self.config(OPERATOR_TOKEN)
    }

    /// Where the logs are; it goes when the cluster does.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Text of a kubeconfig for the holder of this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        kubeconfig(self.port, token)
    }

    /// Ends the programs and waits until they are gone.
    pub(crate) fn stop(self) {
        for mut guard in self.guards {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }

    /// A client with exactly the rights of this service account.
    pub(crate) fn acting_as(&self, user: &str) -> Client {
        let mut config = self.config(ADMIN_TOKEN);
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:serviceaccounts".to_owned()]);
        Client::try_from(config).unwrap()
    }

    fn config(&self, token: &str) -> Config {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        // The server's certificate is one it made for itself.
        config.default_retry = false;
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        config
    }

    /// Starts a cluster of its own. Must not be called from within an async runtime.
    pub(crate) fn start(additions: &Additions) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let binaries = PathBuf::from(std::env::var_os("BIZRA_CLUSTER_BIN").expect(
            "BIZRA_CLUSTER_BIN must name the folder with `etcd` and `kubeplane`; run `make test`, which builds them",
        ));
        let parent = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let number = STARTED.fetch_add(1, Ordering::SeqCst);
        let folder = parent.join(format!("api-server-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (etcd, etcd_peer, port) = (free_port(), free_port(), free_port());

        let service = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:bizra-operator");
        let mut tokens = format!(
            "{ADMIN_TOKEN},admin,admin,\"system:masters\"\n{OPERATOR_TOKEN},{service},{service},\"system:serviceaccounts\"\n"
        );
        let more = additions.tokens.iter();
        tokens.extend(more.map(|(token, user)| format!("{token},{user},{user},\"system:serviceaccounts\"\n")));
        std::fs::write(folder.join("tokens.csv"), tokens).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.join("service-account.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("service-account.pub"), key.public_key_pem()).unwrap();
        std::fs::write(folder.join("kubeconfig"), kubeconfig(port, ADMIN_TOKEN)).unwrap();

        let mut guards = vec![guarded(
            &folder,
            "etcd",
            &binaries.join("etcd"),
            &[
                &format!("--data-dir={}/etcd", folder.display()),
                &format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                &format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                &format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"),
                &format!("--initial-advertise-peer-urls=http://127.0.0.1:{etcd_peer}"),
                &format!("--initial-cluster=default=http://127.0.0.1:{etcd_peer}"),
                "--unsafe-no-fsync",
            ],
        )];
        let kubeplane = binaries.join("kubeplane");
        let mut arguments = vec![
            "kube-apiserver".to_owned(),
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", folder.display()),
            "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
            format!("--token-auth-file={}/tokens.csv", folder.display()),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}/service-account.pub", folder.display()),
            format!("--service-account-signing-key-file={}/service-account.key", folder.display()),
            // There is nobody who would make the default service accounts.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        arguments.extend(additions.api_server.map(|more| more(&folder)).unwrap_or_default());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        guards.push(guarded(&folder, "kube-apiserver", &kubeplane, &arguments));
        let mut cluster = Self { port, folder, guards };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(cluster.prepare());
        let folder = cluster.folder.clone();
        cluster.guards.push(guarded(
            &folder,
            "kube-controller-manager",
            &kubeplane,
            &[
                "kube-controller-manager",
                &format!("--kubeconfig={}/kubeconfig", folder.display()),
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                &format!("--secure-port={}", free_port()),
                &format!("--cert-dir={}", folder.display()),
                "--controllers=garbage-collector-controller,namespace-controller,persistentvolumeclaim-protection-controller,disruption-controller,horizontal-pod-autoscaler-controller",
                "--horizontal-pod-autoscaler-sync-period=1s",
            ],
        ));
        cluster
    }

    /// Waits for the API server and installs what `config/default` installs, except the Deployment.
    async fn prepare(&self) {
        let folder = &self.folder;
        let client = self.admin();
        let started = Instant::now();
        // The controller manager ends if the server is not healthy within ten seconds, and nobody starts it again.
        while !is_healthy(&client).await {
            assert!(
                started.elapsed() < Duration::from_mins(2),
                "the API server did not start; see the logs in {}",
                folder.display()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // The roles of the system come a moment after the server.
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(OPERATOR_NAMESPACE.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        while namespaces.create(&PostParams::default(), &namespace).await.is_err() {
            assert!(started.elapsed() < Duration::from_mins(2), "no namespace could be created");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let definitions_api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in definitions().unwrap() {
            let name = definition.metadata.name.clone().unwrap();
            let parameters = PatchParams::apply("test").force();
            let applied = definitions_api.patch(&name, &parameters, &Patch::Apply(&definition)).await;
            applied.expect("the API server accepts the generated definitions");
            loop {
                let live = definitions_api.get(&name).await.unwrap();
                let conditions = live.status.and_then(|status| status.conditions).unwrap_or_default();
                assert!(
                    !conditions.iter().any(|condition| condition.type_ == "NonStructuralSchema"),
                    "{name} is not structural: {conditions:?}"
                );
                if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // Tests run in the folder of their package, programs in the root.
        let here = std::env::current_dir().unwrap();
        let rules = here.ancestors().map(|folder| folder.join("config/default/rbac.yaml")).find(|file| file.exists());
        for document in std::fs::read_to_string(rules.unwrap()).unwrap().split("---\n") {
            let value: serde_json::Value = serde_yaml_ng::from_str(document).unwrap();
            match value["kind"].as_str().unwrap() {
                "ClusterRole" => create::<ClusterRole>(&Api::all(client.clone()), &value).await,
                "ClusterRoleBinding" => create::<ClusterRoleBinding>(&Api::all(client.clone()), &value).await,
                "Role" => create::<Role>(&Api::namespaced(client.clone(), OPERATOR_NAMESPACE), &value).await,
                "RoleBinding" => {
                    create::<RoleBinding>(&Api::namespaced(client.clone(), OPERATOR_NAMESPACE), &value).await;
                }
                other => panic!("config/default/rbac.yaml has a {other}"),
            }
        }
    }
}

async fn is_healthy(client: &Client) -> bool {
    let request = Request::get("/healthz").body(Vec::new()).unwrap();
    client.request_text(request).await.is_ok()
}

async fn create<K>(api: &Api<K>, value: &serde_json::Value)
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(value.clone()).unwrap()).await.unwrap();
}

fn kubeconfig(port: u16, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\ncontexts: [{{name: test, context: {{cluster: test, user: test}}}}]\nclusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\nusers: [{{name: test, user: {{token: {token}}}}}]\n"
    )
}

/// Starts a program that ends with this process, however that ends: the shell's standard input closes then. A key that interrupts
/// them all must not end the shell before that.
fn guarded(folder: &Path, name: &str, program: &Path, arguments: &[&str]) -> Child {
    assert!(program.exists(), "{} is missing; run `make test`, which builds it", program.display());
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    Command::new("sh")
        .arg("-c")
        .arg("trap '' INT TERM HUP; log=$1; folder=$2; shift 2; \"$@\" </dev/null & cat >/dev/null; kill -9 $!; wait $!; rm -rf \"$folder\"")
        .arg("sh")
        .arg(name)
        .arg(folder)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
