//! Questions to the nodes themselves, through the API server's proxy.

use serde_json::Value;

use crate::scene::{Scene, SceneError};

impl Scene {
    /// Asks a pod's REST interface.
    pub async fn ask(&self, pod: &str, path: &str) -> Result<Value, SceneError> {
        let port = bizra_proto::port::HTTP;
        let uri = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.namespace);
        let request =
            http::Request::get(uri).body(Vec::new()).map_err(|error| SceneError::Unexpected(error.to_string()))?;
        Ok(self.client.request(request).await?)
    }

    /// Finalised height by a node's own word.
    pub async fn height(&self, pod: &str) -> Result<u64, SceneError> {
        let chain = self.ask(pod, "/v1/chain").await?;
        chain["finalizedHeight"].as_u64().ok_or_else(|| SceneError::Unexpected(format!("{pod} answers {chain}")))
    }

    /// Hash of the block at a height by a node's own word.
    pub async fn block_hash(&self, pod: &str, height: u64) -> Result<String, SceneError> {
        let block = self.ask(pod, &format!("/v1/blocks/{height}")).await?;
        let hash = block["hash"].as_str().map(str::to_owned);
        hash.ok_or_else(|| SceneError::Unexpected(format!("{pod} answers {block}")))
    }

    /// Waits until a node has finalised this height.
    pub async fn wait_height(&self, pod: &str, height: u64, seconds: u64) -> Result<(), SceneError> {
        self.wait(&format!("{pod} has finalised height {height}"), seconds, || async {
            let at = self.height(pod).await?;
            Ok(if at >= height { Ok(()) } else { Err(format!("height {at}")) })
        })
        .await
    }
}
