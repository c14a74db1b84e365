//! A network under test: validators, load, watcher, and somebody who asks each validator how far it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bizra_bench::http;
use tokio::runtime::Runtime;

use crate::campaign::Campaign;
use crate::layout::{CHAIN_ID, Layout};
use crate::node::Node;
use crate::record::Moment;
use crate::traffic::{self, Traffic};
use crate::watcher::Watcher;
use crate::{FaultError, VALIDATORS};

/// How often every validator is asked for its height.
const ASK: Duration = Duration::from_millis(50);

/// A network that is not up by then never will be.
const START: Duration = Duration::from_mins(1);

/// Senders of the load.
const ACCOUNTS: u32 = 64;

/// A block that a validator said is final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenBlock {
    pub(crate) height: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) node: usize,
    pub(crate) at: Instant,
}

/// What validators said of their heights.
#[derive(Default)]
pub(crate) struct Observed {
    blocks: Vec<SeenBlock>,
    by_height: BTreeMap<u64, [u8; 32]>,
    contradictions: Vec<String>,
}

/// Everything that runs.
pub(crate) struct Scene {
    pub(crate) layout: Layout,
    pub(crate) nodes: Vec<Node>,
    pub(crate) watcher: Watcher,
    pub(crate) traffic: Traffic,
    observed: Arc<Mutex<Observed>>,
    stopping: Arc<AtomicBool>,
    // Last: what runs on it ends before it does.
    _runtime: Runtime,
}

impl Scene {
    /// Makes a network in `root` with these data folders, starts it under load, and waits until everybody votes.
    pub(crate) fn start(root: &Path, data: &[PathBuf], rate: u32, campaign: &mut Campaign) -> Result<Self, FaultError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| FaultError::Io("a runtime".to_owned(), error))?;
        let layout = Layout::make(root, data, campaign.options.base_port, traffic::accounts(ACCOUNTS))?;
        let watcher = Watcher::start(&layout, runtime.handle())?;
        let new = |files| Node::new(campaign.options.node.clone(), files);
        let mut nodes: Vec<Node> = layout.nodes.iter().cloned().map(new).collect();
        for node in &mut nodes {
            node.start(&mut campaign.leftovers)?;
        }
        let ports: Vec<u16> = layout.nodes.iter().map(|files| files.configuration.listen.grpc.port()).collect();
        let traffic = Traffic::start(CHAIN_ID, &ports, ACCOUNTS as usize, rate, true, runtime.handle())?;
        let observed = Arc::<Mutex<Observed>>::default();
        let stopping = Arc::new(AtomicBool::new(false));
        for (index, node) in nodes.iter().enumerate() {
            let port = node.files.configuration.listen.http.port();
            let (observed, stopping) = (Arc::clone(&observed), Arc::clone(&stopping));
            std::thread::spawn(move || observe(index, port, &observed, &stopping));
        }
        let mut scene = Self { layout, nodes, watcher, traffic, observed, stopping, _runtime: runtime };
        let deadline = Instant::now() + START;
        while !(0..VALIDATORS).all(|node| scene.watcher.voted_above(node, (0, 3)).is_some()) {
            campaign.pause(Duration::from_millis(50))?;
            if Instant::now() > deadline || !scene.nodes.iter_mut().all(Node::is_running) {
                let log = std::fs::read_to_string(&scene.layout.nodes[0].log_file).unwrap_or_default();
                return Err(FaultError::Setup(format!("the validators did not begin to vote\n{log}")));
            }
        }
        Ok(scene)
    }

    fn observed(&self) -> std::sync::MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest block a validator had said is final up to an instant.
    pub(crate) fn last_said(&self, node: usize, until: Instant) -> Option<SeenBlock> {
        let observed = self.observed();
        let said = observed.blocks.iter().rev().filter(|block| block.node == node && block.at <= until);
        // Newest first; a validator never goes back while it runs, and the last run is what counts.
        said.take(1).copied().next()
    }

    /// Every block that anybody said is final, by height.
    pub(crate) fn said(&self) -> BTreeMap<u64, [u8; 32]> {
        self.observed().by_height.clone()
    }

    pub(crate) fn contradictions(&self) -> Vec<String> {
        self.observed().contradictions.clone()
    }

    /// Waits until a validator votes above what had been seen when it was restarted; the time it took.
    pub(crate) fn wait_until_voting(
        &mut self,
        node: usize,
        restarted: Instant,
        fence: Moment,
        limit: Duration,
        campaign: &Campaign,
    ) -> Result<Result<Duration, String>, FaultError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.watcher.voted_above(node, fence) {
                return Ok(Ok(at.saturating_duration_since(restarted)));
            }
            let node = &mut self.nodes[node];
            if !node.is_running() {
                let why = node.termination().map_or_else(|| "without a word".to_owned(), |why| format!("{why:?}"));
                return Ok(Err(format!("{} ended after its restart: {why}", node.name())));
            }
            if Instant::now() > deadline {
                return Ok(Err(format!("{} did not vote again within {} s", node.name(), limit.as_secs())));
            }
            campaign.pause(Duration::from_millis(5))?;
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn observe(node: usize, port: u16, observed: &Mutex<Observed>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        if let Some((height, hash)) = chain(port) {
            let mut observed = observed.lock().unwrap_or_else(PoisonError::into_inner);
            let known = *observed.by_height.entry(height).or_insert(hash);
            if known != hash {
                let (known, hash) = (hex::encode(known), hex::encode(hash));
                observed.contradictions.push(format!("height {height} is {known} and, says v{node}, {hash}"));
            }
            observed.blocks.push(SeenBlock { height, hash, node, at: Instant::now() });
        }
        std::thread::sleep(ASK);
    }
}

fn chain(port: u16) -> Option<(u64, [u8; 32])> {
    let (status, body) = http::get(port, "/v1/chain")?;
    let chain: serde_json::Value = (status == 200).then(|| serde_json::from_str(&body).ok())??;
    let hash = hex::decode(chain["finalizedHash"].as_str()?).ok()?;
    Some((chain["finalizedHeight"].as_u64()?, hash.try_into().ok()?))
}
