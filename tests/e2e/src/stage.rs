//! A network under load and under watch. Whatever happens to it happens in acts; in none of them may the chain stand still.

use std::time::{Duration, Instant};

use bizra_operator::api::{BizraNode, Network};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    node::Block,
    scene::{Scene, SceneError, small_network},
    traffic::{self, Traffic},
    witness::{Before, Process, Witness},
};

/// Longest time without a new finalised block, whatever happens to one validator.
pub const STILL_MAX: Duration = Duration::from_secs(3);

/// Name of the network.
pub const NETWORK: &str = "demo";

/// Its validators: four survive one fault.
pub const VALIDATORS: [&str; 4] = ["demo-v0", "demo-v1", "demo-v2", "demo-v3"];

/// The measures of one act.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// How long it took.
    pub took: Duration,
    /// Longest time in which no validator's finalised height was seen to advance.
    pub still: Duration,
    /// Longest time between two blocks by their own time stamps.
    pub between_blocks: Duration,
}

/// A network with clients and a witness.
pub struct Stage {
    /// Its namespace.
    pub scene: Scene,
    /// Who watches.
    pub witness: Witness,
    traffic: Traffic,
    begun: Instant,
    /// Height at which the act began.
    height: u64,
}

impl Stage {
    /// Makes the network, changed by `adjust` from the smallest, and waits until clients are served.
    pub async fn start(name: &str, adjust: impl FnOnce(&mut Value)) -> Result<Self, SceneError> {
        let scene = Scene::start(name).await?;
        let mut network = small_network(&format!("{name}-1"))?;
        network["spec"]["genesis"] = json!({ "accounts": traffic::accounts() });
        network["spec"]["service"] = json!({ "type": "NodePort" });
        adjust(&mut network);
        scene.apply(&network).await?;
        scene.wait_ready(NETWORK, 120).await?;
        let traffic = Traffic::start(&scene.service_urls(NETWORK, "grpc").await?);
        let witness = Witness::start(&scene, &VALIDATORS);
        let stage = Self { scene, witness, traffic, begun: Instant::now(), height: 0 };
        let served = stage.scene.wait("clients are served, and every validator votes", 60, || async {
            let votes = |validator: &&str| stage.witness.sighting(validator).is_some_and(|seen| seen.voted > 0);
            let all = VALIDATORS.iter().all(votes) && stage.traffic.tally().applied > 100;
            Ok(if all { Ok(()) } else { Err(stage.traffic.last_failure()) })
        });
        served.await?;
        Ok(stage)
    }

    /// Begins an act.
    pub fn begin(&mut self) {
        self.witness.begin();
        self.traffic.begin();
        self.begun = Instant::now();
        self.height = self.witness.head();
    }

    /// Ends an act: says what was measured, and fails if the chain stood still or clients were not served.
    pub async fn end(&mut self, what: &str) -> Result<Act, SceneError> {
        let (still, tally) = (self.witness.stillness(), self.traffic.tally());
        let took = self.begun.elapsed();
        let blocks = self.blocks_of_act().await?;
        let between = |pair: &[Block]| match pair {
            [first, second] => second.time.saturating_sub(first.time),
            _ => Duration::ZERO,
        };
        let between_blocks = blocks.windows(2).map(between).max().unwrap_or_default();
        println!(
            "{what}: {:.1} s, {} blocks; longest without a block {:.2} s by wall clock (at height {}, witness blind {:.2} s), \
             {:.2} s by block times; {} transfers, longest wait of a client {:.2} s, {} answers failed",
            took.as_secs_f64(),
            blocks.len(),
            still.longest.as_secs_f64(),
            still.at_height,
            still.blind.as_secs_f64(),
            between_blocks.as_secs_f64(),
            tally.applied,
            tally.longest_wait.as_secs_f64(),
            tally.failures,
        );
        if still.longest > STILL_MAX || between_blocks > STILL_MAX {
            let limit = STILL_MAX.as_secs();
            return Err(SceneError::Unexpected(format!(
                "{what}: no block for {:?} by wall clock, {between_blocks:?} by block times; the limit is {limit} s",
                still.longest
            )));
        }
        let conflicts = self.witness.conflicts();
        if conflicts > 0 {
            return Err(SceneError::Unexpected(format!(
                "{what}: {conflicts} pairs of conflicting signatures were seen"
            )));
        }
        if tally.applied == 0 {
            let why = self.traffic.last_failure();
            return Err(SceneError::Unexpected(format!("{what}: no client was served ({why})")));
        }
        Ok(Act { took, still: still.longest, between_blocks })
    }

    /// The blocks since the act began, as a validator tells them that has them.
    async fn blocks_of_act(&self) -> Result<Vec<Block>, SceneError> {
        let mut refused = SceneError::Unexpected("there is no validator".to_owned());
        for validator in VALIDATORS {
            match self.scene.blocks(validator, self.height, self.witness.head()).await {
                Ok(blocks) => return Ok(blocks),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Ends the play: all validators agree on every block, have all that clients were told, and the namespace goes.
    pub async fn finish(self) -> Result<(), SceneError> {
        self.scene.wait_ready(NETWORK, 90).await?;
        self.traffic.stop();
        // The witness has to see the blocks of the last receipts.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let head = self.witness.head();
        let mut first: Option<Vec<Block>> = None;
        for validator in VALIDATORS {
            self.scene.wait_height(validator, head, 30).await?;
            self.traffic.check_receipts(&self.scene, validator).await?;
            let blocks = self.scene.blocks(validator, 0, head).await?;
            let first = first.get_or_insert_with(|| blocks.clone());
            if let Some((other, block)) = first.iter().zip(&blocks).find(|(first, block)| first != block) {
                let message = format!("{validator} has {block:?}, {} has {other:?}", VALIDATORS[0]);
                return Err(SceneError::Unexpected(message));
            }
            if first.len() != blocks.len() {
                return Err(SceneError::Unexpected(format!("{validator} has not all blocks up to {head}")));
            }
        }
        self.scene.remove().await
    }

    /// What to remember of a validator before a fault.
    pub fn before(&self, validator: &str) -> Before {
        self.witness.before(validator)
    }

    /// Waits until the validator votes again and its `BizraNode` says so.
    pub async fn recovers(&self, before: &Before, process: Process, seconds: u64) -> Result<Duration, SceneError> {
        let begun = Instant::now();
        self.witness.votes_again(before, process, seconds).await?;
        let took = begun.elapsed();
        self.scene.wait_node_ready(before.validator(), seconds).await?;
        Ok(took)
    }

    /// Changes the spec of the network.
    pub async fn change(&self, spec: Value) -> Result<(), SceneError> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.scene.api::<Network>().patch(NETWORK, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

impl Scene {
    /// The pod of a validator.
    pub async fn pod(&self, validator: &str) -> Result<Pod, SceneError> {
        Ok(self.api::<Pod>().get(validator).await?)
    }

    /// The host a validator runs on.
    pub async fn host_of(&self, validator: &str) -> Result<String, SceneError> {
        let pod = self.pod(validator).await?;
        let host = pod.spec.and_then(|spec| spec.node_name);
        host.ok_or_else(|| SceneError::Unexpected(format!("{validator} is on no host")))
    }

    /// Uid of a validator's pod.
    pub async fn pod_uid(&self, validator: &str) -> Result<String, SceneError> {
        Ok(self.pod(validator).await?.uid().unwrap_or_default())
    }

    /// Waits until a `BizraNode` is Ready.
    pub async fn wait_node_ready(&self, node: &str, seconds: u64) -> Result<(), SceneError> {
        self.wait(&format!("{node} is ready"), seconds, || async {
            let status = self.api::<BizraNode>().get(node).await?.status.unwrap_or_default();
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            Ok(if ready { Ok(()) } else { Err(format!("{:?}", status.conditions)) })
        })
        .await
    }
}
