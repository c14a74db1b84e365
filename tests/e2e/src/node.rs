//! Questions to the nodes themselves, through the API server's proxy.

use std::time::Duration;

use serde_json::Value;

use crate::scene::{Scene, SceneError};

/// Most blocks a node tells at once.
const BLOCKS_AT_ONCE: u64 = 100;

/// A finalised block by a node's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub hash: String,
    /// Its time stamp, since 1970.
    pub time: Duration,
}

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

    /// The blocks from one height to another, both included, by a node's own word.
    pub async fn blocks(&self, pod: &str, from: u64, to: u64) -> Result<Vec<Block>, SceneError> {
        let mut blocks = Vec::new();
        let mut next = from;
        while next <= to {
            let limit = BLOCKS_AT_ONCE.min(to - next + 1);
            let answer = self.ask(pod, &format!("/v1/blocks?from={next}&limit={limit}")).await?;
            let read = |block: &Value| {
                Some(Block {
                    height: block["height"].as_u64()?,
                    hash: block["hash"].as_str()?.to_owned(),
                    time: Duration::from_millis(block["timeMilliseconds"].as_u64()?),
                })
            };
            let some: Option<Vec<Block>> = answer["blocks"].as_array().and_then(|some| some.iter().map(read).collect());
            let some = some.filter(|some| some.first().is_some_and(|block| block.height == next));
            let some = some.ok_or_else(|| SceneError::Unexpected(format!("{pod} answers {answer}")))?;
            next += some.len() as u64;
            blocks.extend(some);
        }
        Ok(blocks)
    }
}
