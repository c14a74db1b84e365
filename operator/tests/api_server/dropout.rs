//! A node drops out between the grant of a permit and its use.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bizra_operator::api::{BizraNode, Network, condition};
use futures::future::BoxFuture;
use kube::{
    Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    client::Body,
};
use serde_json::json;
use tonic::codegen::{
    Service,
    http::{Method, Request, Response},
};

use crate::{
    cluster::cluster,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client that silences a node at the very moment when the first permit has been written, before the operator hears that it was.
/// It notes every eviction.
#[derive(Clone)]
struct Silencing {
    inner: Client,
    scenario: Arc<Scenario>,
    kubelet: Arc<Kubelet>,
    victim: &'static str,
    is_done: Arc<AtomicBool>,
    evictions: Arc<Mutex<Vec<String>>>,
}

impl Silencing {
    async fn silence_if_granted(&self) {
        let network: Network = self.scenario.api().get("demo").await.unwrap();
        if network.status.is_some_and(|status| status.permit.is_some()) && !self.is_done.swap(true, Ordering::SeqCst) {
            self.kubelet.silent.lock().unwrap().insert(self.victim.to_owned());
        }
    }
}

impl Service<Request<Body>> for Silencing {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        let path = request.uri().path().to_owned();
        let is_status = request.method() == Method::PUT && path.ends_with("/networks/demo/status");
        if path.ends_with("/eviction") {
            self.evictions.lock().unwrap().push(path);
        }
        Box::pin(async move {
            let answer = this.inner.send(request).await;
            if is_status {
                this.silence_if_granted().await;
            }
            answer.map_err(Into::into)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_is_not_used_once_another_node_has_stopped_answering() {
    let scenario = Arc::new(Scenario::new("dropout").await);
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let evictions = Arc::new(Mutex::new(Vec::new()));
    let service = Silencing {
        inner: cluster().operator(),
        scenario: Arc::clone(&scenario),
        kubelet: Arc::clone(&kubelet),
        victim: "demo-v2",
        is_done: Arc::default(),
        evictions: Arc::clone(&evictions),
    };
    let _operator = scenario.operator_with(Client::new(service, "default"));
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;

    let patch = json!({"spec": {"image": {"repository": "localhost/bizra", "tag": "next"}}});
    let networks = scenario.api::<Network>();
    networks.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    // The permit is acted on: its node has the new template, so that all it waits for is the last check.
    let permitted = eventually("the permitted node has the new template", || async {
        let permit = networks.get("demo").await.unwrap().status.unwrap_or_default().permit;
        let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
        let is_new = |node: &BizraNode| node.spec.template.image.tag.as_deref() == Some("next");
        match permit {
            Some(permit) if nodes.iter().any(|node| node.name_any() == permit.node && is_new(node)) => Ok(permit),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(kubelet.silent.lock().unwrap().contains("demo-v2"));
    scenario.wait_for_node("demo-v2", condition::READY, "Unknown", "Unreachable").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(*evictions.lock().unwrap(), Vec::<String>::new(), "three of four would not have been left");
    let held = networks.get("demo").await.unwrap().status.unwrap().permit;
    assert_eq!(held.as_ref(), Some(&permitted), "the permit was there to be used all the time");

    // The node answers again, and the change goes on.
    kubelet.silent.lock().unwrap().clear();
    let first = eventually("an eviction", || async {
        evictions.lock().unwrap().first().cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(first.ends_with(&format!("/pods/{}/eviction", permitted.node)), "{first}");
}
