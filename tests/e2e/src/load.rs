//! Signed transactions from outside the cluster, through a Service.

use std::process::Command;

use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, ListParams};

use crate::scene::{Scene, SceneError, from_root};

impl Scene {
    /// URL of a port of the network's client Service at one of the hosts.
    pub async fn service_url(&self, network: &str, port: &str) -> Result<String, SceneError> {
        let urls = self.service_urls(network, port).await?;
        urls.into_iter().next().ok_or_else(|| SceneError::Unexpected("no host has an address".to_owned()))
    }

    /// URLs of a port of the network's client Service, one for each host. The Service must be of type `NodePort`.
    pub async fn service_urls(&self, network: &str, port: &str) -> Result<Vec<String>, SceneError> {
        let service = self.api::<Service>().get(&format!("{network}-api")).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.into_iter().find(|candidate| candidate.name.as_deref() == Some(port));
        let port = port
            .and_then(|port| port.node_port)
            .ok_or_else(|| SceneError::Unexpected("the Service has no such node port".to_owned()))?;
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let addresses = nodes.into_iter().filter_map(|node| node.status?.addresses).flatten();
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        Ok(internal.map(|address| format!("http://{}:{port}", address.address)).collect())
    }

    /// Submits transfers with the project's own command line and waits until each is applied.
    pub async fn transact(&self, network: &str, count: u32, rate: u32) -> Result<String, SceneError> {
        let target = self.service_url(network, "grpc").await?;
        let binary = std::env::var("BIZRA_NODE_BINARY")
            .map_err(|_| SceneError::Unexpected("BIZRA_NODE_BINARY is not set; run `make test-e2e`".to_owned()))?;
        let sample = from_root("config/samples/demo-account.key");
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
