//! A validator that lost its database joins again at a snapshot from its peers, which have forgotten the beginning of the
//! chain: real processes, real disks, killed in the middle of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");
const BASE_PORT: u16 = 32_300;
const PATIENCE: Duration = Duration::from_mins(2);

struct Network {
    folder: tempfile::TempDir,
    nodes: Vec<Option<Child>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn get(port: u16, path: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

impl Network {
    /// Short epochs, enough accounts for a snapshot of several chunks, peers that prune and serve slowly.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(BINARY)
            .args(["devnet", "--validators", "4", "--duration", "1", "--accounts", "70000", "--epoch-blocks", "32"])
            .args(["--base-port", &BASE_PORT.to_string()])
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut network = Self { folder, nodes: (0..4).map(|_| None).collect() };
        for node in 0..4 {
            let config = network.path(node).join("node.toml");
            let mut text = std::fs::read_to_string(&config).unwrap();
            for (default, wanted) in [
                ("archive = true", "archive = false"),
                ("blocks = 100000", "blocks = 256"),
                ("snapshot_behind_blocks = 8192", "snapshot_behind_blocks = 64"),
                ("serve_bytes_per_second = 16777216", "serve_bytes_per_second = 262144"),
            ] {
                assert!(text.contains(default), "{text}");
                text = text.replace(default, wanted);
            }
            std::fs::write(config, text).unwrap();
            network.run(node);
        }
        network
    }

    fn path(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("v{node}"))
    }

    fn run(&mut self, node: usize) {
        let path = self.path(node).join("test.log");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        let child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(self.path(node).join("node.toml"))
            .env("BIZRA_LOG", "info,bizra_node::snapshot=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[node] = Some(child);
    }

    fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.path(node).join("test.log")).unwrap_or_default()
    }

    fn height(node: usize) -> Option<u64> {
        get(BASE_PORT + 10 * node as u16 + 2, "/v1/chain")?["finalizedHeight"].as_u64()
    }

    fn wait_height(node: usize, height: u64) -> u64 {
        wait(&format!("height {height} of v{node}"), || Self::height(node).filter(|at| *at >= height))
    }

    fn has_block(node: usize, height: u64) -> bool {
        get(BASE_PORT + 10 * node as u16 + 2, &format!("/v1/blocks/{height}"))
            .is_some_and(|block| block["height"].as_u64() == Some(height))
    }

    fn load(count: u32) {
        let output = Command::new(BINARY)
            .args(["load", "--count", &count.to_string(), "--rate", "100", "--accounts", "50", "--require-all"])
            .args(["--target", &format!("http://127.0.0.1:{}", BASE_PORT + 1)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_validator_without_a_database_joins_at_a_snapshot_resumes_after_a_kill_and_votes_again() {
    let mut network = Network::start();
    Network::wait_height(0, 2);
    Network::load(4_000);
    // Everybody has forgotten the first blocks.
    let start = Network::wait_height(0, 330);
    wait("pruning", || (0..3).all(|node| !Network::has_block(node, 2)).then_some(()));

    network.kill(3);
    let signer = |file: &str| std::fs::read(network.path(3).join("signer").join(file)).unwrap();
    let record = signer("record");
    let reset = Command::new(BINARY).args(["reset-database", "--data-dir"]).arg(network.path(3)).output().unwrap();
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    assert!(signer("record") == record, "the signing record is as it was");
    assert!(!network.path(3).join("database").exists() && network.path(3).join("database.old-1").exists());

    let running = Command::new(BINARY).args(["reset-database", "--data-dir"]).arg(network.path(0)).output().unwrap();
    assert!(!running.status.success(), "a running node's database is not reset");

    // Killed when a chunk is there, it goes on with that snapshot, unless an epoch has ended meanwhile.
    let mut from = network.log(3).len();
    network.run(3);
    let mut resumed = false;
    for _ in 0..4 {
        wait("a chunk", || network.log(3)[from..].contains("chunk stored").then_some(()));
        network.kill(3);
        assert!(network.path(3).join("database.joining").exists() && !network.path(3).join("database.joined").exists());
        from = network.log(3).len();
        network.run(3);
        let begun = wait("the snapshot", || {
            let log = network.log(3).split_off(from);
            log.lines().find(|line| line.contains("joining the chain at a snapshot")).map(str::to_owned)
        });
        resumed = begun.contains("\"resumed\":true");
        if resumed {
            break;
        }
    }
    assert!(resumed, "{}", network.log(3));
    Network::wait_height(3, start);
    assert!(network.log(3).contains("the database begins at a snapshot"), "{}", network.log(3));
    assert!(!Network::has_block(3, start - 150), "it begins in the middle");

    // Without v0 every block needs the vote of v3.
    network.kill(0);
    let now = Network::wait_height(1, start);
    Network::wait_height(1, now + 5);
    Network::wait_height(3, now + 5);
}
