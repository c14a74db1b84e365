//! A network whose rules change while it runs, and a validator that contradicts itself in it: real nodes, real disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bizra_driver::PublicKey;
use bizra_node::block::BlockStore;
use bizra_node::configuration::{Configuration, LoadedGenesis};
use bizra_node::consensus::Ended;
use bizra_node::identity::SignerFolder;
use bizra_node::monitoring::StatusHandle;
use bizra_node::node::Node;
use bizra_node::storage::Database;
use bizra_proto::exit::{ExitReason, Termination};
use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Protocol, SignedVote, Vote, VoteKind};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");
const BASE_PORT: u16 = 33_100;
const PATIENCE: Duration = Duration::from_mins(2);

/// The files of a devnet of four that begins with version 1, and its running processes.
struct Devnet {
    folder: tempfile::TempDir,
    nodes: Vec<Option<Child>>,
}

impl Drop for Devnet {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Devnet {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(BINARY)
            .args(["devnet", "--validators", "4", "--duration", "1", "--accounts", "20", "--epoch-blocks", "32"])
            .args(["--protocol-version", "1", "--base-port", &BASE_PORT.to_string(), "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder, nodes: (0..4).map(|_| None).collect() }
    }

    fn path(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("v{node}"))
    }

    fn file(&self, node: usize) -> PathBuf {
        self.path(node).join("node.toml")
    }

    fn configuration(&self, node: usize) -> Configuration {
        Configuration::load(&self.file(node)).unwrap()
    }

    fn run(&mut self, node: usize) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path(node).join("test.log")).unwrap();
        let child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(self.path(node).join("node.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[node] = Some(child);
    }

    fn stop(&mut self, node: usize) {
        let child = self.nodes[node].take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "v{node} did not stop cleanly: {}", output.status);
    }

    /// Transfers at the first three validators until the load is dropped: blocks come as fast as they may.
    fn load(&self) -> Load {
        let mut command = Command::new(BINARY);
        command.args(["load", "--count", "6000", "--rate", "50", "--accounts", "20", "--drain", "1"]);
        for node in 0..3 {
            command.args(["--target", &format!("http://127.0.0.1:{}", BASE_PORT + 10 * node + 1)]);
        }
        Load(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node in this process, which can be told to be an old one.
struct InProcess {
    status: StatusHandle,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, Termination>>,
}

impl InProcess {
    async fn start(file: &Path, supported: Protocol) -> Self {
        let configuration = Configuration::load(file).unwrap();
        let node = Node::start_supporting(configuration, file, supported).await.unwrap();
        let status = node.status().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(node.run_until(async {
            // Told to stop, or never.
            if stopped.await.is_err() {
                std::future::pending().await
            }
        }));
        Self { status, stop, ended }
    }

    /// Waits until it ends by itself.
    async fn termination(self) -> Termination {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it goes on").unwrap();
        drop(self.stop);
        ended.unwrap_err()
    }
}

/// A document of the REST interface.
fn get(node: usize, path: &str) -> Option<serde_json::Value> {
    serde_json::from_str(&fetch(BASE_PORT + 10 * node as u16 + 2, path)?).ok()
}

fn metrics(node: usize) -> Option<String> {
    fetch(BASE_PORT + 10 * node as u16 + 4, "/metrics")
}

fn fetch(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Asks again until the answer is as wanted. Blocking, but the nodes of this process have threads of their own.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} in vain");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn latest_set(node: usize) -> Option<(u64, u64)> {
    let set = get(node, "/v1/validator-sets/latest")?;
    Some((set["epoch"].as_u64()?, set["protocolVersion"].as_u64()?))
}

/// P1 to P3, V7: three of four validators know version 2 and activate it; the fourth stops, is upgraded, and goes on. Then
/// it contradicts itself, and the chain is told by the node that saw it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_activate_without_the_last_node_and_report_a_contradiction() {
    let mut devnet = Devnet::make();
    (0..3).for_each(|node| devnet.run(node));
    let old = InProcess::start(&devnet.file(3), Protocol::V1).await;
    wait_for("waiting for a chain", || get(0, "/v1/chain"));
    assert_eq!(latest_set(0), Some((0, 1)));
    let load = devnet.load();

    // It says beforehand that it will need an upgrade.
    let warned = old.status.wait_for(|status| status.newer_protocol_power == 3);
    let warned = tokio::time::timeout(PATIENCE, warned).await.expect("the others signal");
    assert_eq!((warned.protocol_version, warned.supported_protocol_version, warned.total_power), (1, 1, 4));
    let termination = old.termination().await;
    assert_eq!(termination.reason, ExitReason::UpgradeRequired, "{termination:?}");
    assert!(termination.message.contains("version 2") && termination.message.contains("upgrade"), "{termination:?}");
    let (epoch, version) = latest_set(0).unwrap();
    assert!(epoch >= 1 && version == 2);
    wait_for("waiting for the metric", || metrics(0)?.contains("\nbizra_consensus_protocol_version 2\n").then_some(()));
    // Started again it says the same, at once.
    let again = InProcess::start(&devnet.file(3), Protocol::V1).await;
    assert_eq!(again.termination().await.reason, ExitReason::UpgradeRequired);
    // The others have gone on without it, and with its new binary it follows them.
    let epoch = wait_for("waiting for the next epoch", || latest_set(1).filter(|(later, _)| *later > epoch)).0;
    devnet.run(3);
    wait_for("waiting for the upgraded node", || latest_set(3).filter(|set| *set >= (epoch, 2)));

    // Two votes of v3 in one view, known to v0 alone. The chain idles meanwhile: blocks tell of the last epochs only.
    drop(load);
    devnet.stop(0);
    let configuration = devnet.configuration(0);
    let genesis = LoadedGenesis::load(&configuration.genesis_file).unwrap();
    let liar = SignerFolder::open(&devnet.path(3), &devnet.configuration(3).volume_id).unwrap();
    let key = liar.consensus_key().unwrap();
    let public_key = key.public_key();
    let genesis_block = Block::genesis(genesis.hash, genesis.genesis.time_milliseconds);
    let database = Database::open(&configuration.data_dir.join("database")).unwrap();
    let blocks = BlockStore::open(database.clone(), genesis_block).unwrap();
    let (anchor, _) = blocks.anchor().unwrap();
    let of_epoch = Epoch(anchor.block.epoch.0 + u64::from(anchor.block.boundary.is_some()));
    let signer = ValidatorIndex(3);
    let [first, second] = [1, 2].map(|digest| {
        let digest = Digest([digest; 32]);
        let vote = Vote { epoch: of_epoch, view: View(1_000_000), kind: VoteKind::Notarize, digest };
        SignedVote { vote, signer, signature: Signature(key.sign(&vote.signed_bytes(genesis.hash)).into()) }
    });
    let mut writes = database.writes();
    blocks.put_evidence(&mut writes, PublicKey(public_key), &first, &second).unwrap();
    writes.commit_synced().unwrap();
    drop((blocks, database));
    devnet.run(0);

    let owner = genesis.genesis.validators[3].owner.clone().unwrap();
    for node in 0..4 {
        wait_for("waiting for the jailing", || {
            let validator = get(node, &format!("/v1/validators/{owner}"))?;
            (validator["status"] == "Jailed").then_some(())
        });
    }
    // It is out of the next set, which goes on without it.
    let _load = devnet.load();
    let members = wait_for("waiting for a set without it", || {
        let set = get(1, "/v1/validator-sets/latest")?;
        let members = set["members"].as_array()?.clone();
        (members.len() == 3).then_some(members)
    });
    assert!(members.iter().all(|member| member["consensusKey"] != hex::encode(public_key)));
    (0..4).for_each(|node| devnet.stop(node));
}
