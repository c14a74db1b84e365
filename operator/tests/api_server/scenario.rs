//! What the tests have in common: a namespace of their own, an operator, and waiting.

use std::{fmt::Debug, future::Future, time::Duration};

use bizra_operator::{
    api::{BizraNode, Network},
    controllers::{Settings, bizra_node::heal::HealingLimits, conditions},
    metrics::Metrics,
    operator::operate,
    probe::PollSettings,
    resources::node::parse_image,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Namespace},
    jiff::SignedDuration,
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{OPERATOR_NAMESPACE, cluster},
    kubelet::Stopper,
};

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace of a test's own.
pub(crate) struct Scenario {
    pub admin: Client,
    pub namespace: String,
}

impl Scenario {
    pub(crate) async fn new(namespace: &str) -> Self {
        let admin = tokio::task::spawn_blocking(|| cluster().admin()).await.unwrap();
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::<Namespace>::all(admin.clone()).create(&PostParams::default(), &object).await.unwrap();
        Self { admin, namespace: namespace.to_owned() }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Runs an operator for this namespace with the operator's own rights.
    pub(crate) fn operator(&self) -> Stopper {
        self.operator_with(cluster().operator())
    }

    pub(crate) fn operator_with(&self, client: Client) -> Stopper {
        self.start_operator(client, HealingLimits::default())
    }

    /// An operator that loses its patience with nodes sooner.
    pub(crate) fn impatient_operator(&self, seconds: i64) -> Stopper {
        let patience = SignedDuration::from_secs(seconds);
        self.start_operator(cluster().operator(), HealingLimits { stuck_after: patience, cool_down: patience })
    }

    fn start_operator(&self, client: Client, healing: HealingLimits) -> Stopper {
        let settings = Settings {
            operator_namespace: OPERATOR_NAMESPACE.to_owned(),
            default_image: parse_image("localhost/bizra:dev"),
            status_interval: Duration::from_mins(1),
            namespaces: vec![self.namespace.clone()],
            concurrency: 4,
            healing,
        };
        let polling =
            PollSettings { interval: Duration::from_millis(200), timeout: Duration::from_secs(2), concurrency: 8 };
        let metrics = Metrics::new().unwrap();
        Stopper(tokio::spawn(async move {
            let ended = operate(client, "test", settings, polling, metrics, std::future::pending()).await;
            panic!("the operator ended: {ended:?}");
        }))
    }

    pub(crate) async fn create_network(&self, name: &str, spec: Value) -> Network {
        self.try_create_network(name, spec).await.unwrap()
    }

    pub(crate) async fn try_create_network(&self, name: &str, spec: Value) -> Result<Network, kube::Error> {
        let network = network(name, &spec);
        self.api::<Network>().create(&PostParams::default(), &network).await
    }

    /// Waits until the network has this condition with this status and, if given, reason.
    pub(crate) async fn wait_for_condition(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: Option<&str>,
    ) -> Network {
        eventually(&format!("{name}: {type_}={status} {reason:?}"), || async {
            let network = self.api::<Network>().get_opt(name).await.unwrap().ok_or("no Network")?;
            let told = network.status.clone().unwrap_or_default().conditions;
            match conditions::find(&told, type_) {
                Some(found) if found.status == status && reason.is_none_or(|reason| found.reason == reason) => {
                    Ok(network)
                }
                _ => Err(format!("{told:#?}")),
            }
        })
        .await
    }

    /// Waits until a roll-out has been stopped; that takes longer than a permit is good for.
    pub(crate) async fn wait_for_failure(&self, name: &str) -> Network {
        for _ in 0..1_200 {
            let network = self.api::<Network>().get(name).await.unwrap();
            if network.status.as_ref().is_some_and(|status| status.failed_revision.is_some()) {
                return network;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no roll-out of {name} was stopped within two minutes");
    }

    pub(crate) async fn wait_for_node(&self, name: &str, type_: &str, status: &str, reason: &str) -> BizraNode {
        eventually(&format!("{name}: {type_}={status} {reason}"), || async {
            let node = self.api::<BizraNode>().get_opt(name).await.unwrap().ok_or("no BizraNode")?;
            let told = node.status.clone().unwrap_or_default().conditions;
            match conditions::find(&told, type_) {
                Some(found) if found.status == status && found.reason == reason => Ok(node),
                _ => Err(format!("{told:#?}")),
            }
        })
        .await
    }

    pub(crate) async fn genesis(&self, network: &str) -> String {
        let map = self.api::<ConfigMap>().get(&format!("{network}-genesis")).await.unwrap();
        map.data.unwrap()["genesis.json"].clone()
    }
}

fn network(name: &str, spec: &Value) -> Network {
    let object = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Network", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Tries until it succeeds; says what was seen last if it never does.
pub(crate) async fn eventually<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: Into<String> + Debug,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(result) => return result,
            Err(seen) => assert!(tokio::time::Instant::now() < deadline, "never: {what}; last seen: {}", seen.into()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
