//! Signed transactions from outside the cluster, through a Service.

use std::process::Command;

use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, ListParams};

use crate::scene::{Scene, SceneError};

impl Scene {
    /// URL of a port of the network's client Service, which must be of type `NodePort`.
    pub async fn service_url(&self, network: &str, port: &str) -> Result<String, SceneError> {
        let unexpected = |what: &str| SceneError::Unexpected(what.to_owned());
        let service = self.api::<Service>().get(&format!("{network}-api")).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.into_iter().find(|candidate| candidate.name.as_deref() == Some(port));
        let port =
            port.and_then(|port| port.node_port).ok_or_else(|| unexpected("the Service has no such node port"))?;
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let address = nodes
            .into_iter()
            .filter_map(|node| node.status?.addresses)
            .flatten()
            .find(|address| address.type_ == "InternalIP")
            .ok_or_else(|| unexpected("no node has an address"))?;
        Ok(format!("http://{}:{port}", address.address))
    }

    /// Submits transfers with the project's own command line and waits until each is applied.
    pub async fn transact(&self, network: &str, count: u32, rate: u32) -> Result<String, SceneError> {
        let target = self.service_url(network, "grpc").await?;
        let binary = std::env::var("BIZRA_NODE_BINARY")
            .map_err(|_| SceneError::Unexpected("BIZRA_NODE_BINARY is not set; run `make test-e2e`".to_owned()))?;
        let sample = format!("{}/../../config/samples/demo-account.key", env!("CARGO_MANIFEST_DIR"));
        let run = tokio::task::spawn_blocking(move || {
            // Secret keys must not be readable by others; a clone cannot keep that, a temporary file does.
            let sponsor = tempfile::NamedTempFile::new()?;
            std::fs::write(sponsor.path(), std::fs::read(sample)?)?;
            Command::new(binary)
                .args(["load", "--target", &target, "--count", &count.to_string(), "--rate", &rate.to_string()])
                .args(["--accounts", "100", "--require-all", "--output", "json", "--sponsor-key"])
                .arg(sponsor.path())
                .output()
        });
        let output = run.await.map_err(|error| SceneError::Unexpected(error.to_string()))?;
        let output = output.map_err(|error| SceneError::Unexpected(error.to_string()))?;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(out.into_owned())
        } else {
            Err(SceneError::Unexpected(format!("the load failed: {error}{out}")))
        }
    }
}
