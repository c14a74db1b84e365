//! A network nobody edits, beside the one that is. What is taken from it has to come back, whatever the other is like.

use std::time::{Duration, Instant};

use bizra_operator::{api::BizraNode, resources::labels};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{run::PATIENCE, scenario::Scenario};

const SERVICE: &str = "canary-api";
const NODE: &str = "canary-v0";

pub(crate) struct Canary {
    services: Api<Service>,
    nodes: Api<BizraNode>,
}

impl Canary {
    /// It hibernates, so it costs no pods; that its Service is there is seen from a watch, and that its nodes are as they should
    /// be by live reads of all nodes of the namespace.
    pub(crate) async fn create(scenario: &Scenario) -> Result<Self, String> {
        let spec = json!({"chainId": "canary-1", "activity": "Hibernated"});
        scenario.try_create_network("canary", spec).await.map_err(|error| format!("no canary: {error}"))?;
        let canary = Self { services: scenario.api(), nodes: scenario.api() };
        canary.wait_until_whole("").await?;
        Ok(canary)
    }

    /// Takes a Service and a label away and waits until both are back.
    pub(crate) async fn disturb(&self) -> Result<Duration, String> {
        let started = Instant::now();
        let failed = |error: kube::Error| format!("the canary cannot be disturbed: {error}");
        let former = self.services.get(SERVICE).await.map_err(failed)?.uid().unwrap_or_default();
        self.services.delete(SERVICE, &DeleteParams::default()).await.map_err(failed)?;
        let patch = Patch::Merge(json!({"metadata": {"labels": {labels::COMPONENT: null}}}));
        self.nodes.patch(NODE, &PatchParams::default(), &patch).await.map_err(failed)?;
        self.wait_until_whole(&former).await?;
        Ok(started.elapsed())
    }

    async fn wait_until_whole(&self, former: &str) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let service = self.services.get_opt(SERVICE).await.ok().flatten();
            let node = self.nodes.get_opt(NODE).await.ok().flatten();
            let has_service = service.and_then(|service| service.uid()).is_some_and(|uid| uid != former);
            let has_label = node.is_some_and(|node| node.labels().contains_key(labels::COMPONENT));
            if has_service && has_label {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(format!(
                    "the untouched network was not looked after for {seconds} s (Service: {has_service}, label of its node: {has_label})"
                ));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
