//! A whole network of processes: load, a killed validator, and every database checked afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");
const BASE_PORT: u16 = 32_100;

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

impl Network {
    /// Makes the files of a devnet, then runs its nodes one by one.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(BINARY)
            .args(["devnet", "--validators", "4", "--duration", "1", "--accounts", "50", "--base-port"])
            .arg(BASE_PORT.to_string())
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut network = Self { folder, nodes: (0..4).map(|_| None).collect() };
        (0..4).for_each(|node| network.run(node));
        network
    }

    fn run(&mut self, node: usize) {
        let folder = self.folder.path().join(format!("v{node}"));
        let log = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("test.log")).unwrap();
        let child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(folder.join("node.toml"))
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

    fn height(node: usize) -> Option<u64> {
        let answer = get(BASE_PORT + 10 * node as u16 + 2, "/v1/chain")?;
        let chain: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        chain["finalizedHeight"].as_u64()
    }

    fn wait_height(node: usize, height: u64) -> u64 {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            match Self::height(node) {
                Some(at) if at >= height => return at,
                seen if Instant::now() > deadline => panic!("v{node} waits for height {height} at {seen:?}"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn load(count: u32) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["load", "--count", &count.to_string(), "--rate", "400", "--accounts", "50", "--require-all"]);
        // Not v3: it is the one that is killed.
        for node in 0..3 {
            command.args(["--target", &format!("http://127.0.0.1:{}", BASE_PORT + 10 * node + 1)]);
        }
        command
    }

    fn stop_all(&mut self) {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            let pid = node.id().to_string();
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
            let output = node.wait_with_output().unwrap();
            assert!(output.status.success(), "a node did not stop cleanly: {}", output.status);
        }
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// All events of a node's blocks up to a height, as server-sent events.
fn events(node: usize, height: u64) -> String {
    let answer = get(BASE_PORT + 10 * node as u16 + 2, "/v1/events?from=1:0&follow=false").unwrap();
    let (_, stream) = answer.split_once("\r\n\r\n").unwrap();
    let (before, _) = stream.split_once(&format!("id: {}:0\n", height + 1)).expect("the node has more blocks");
    before.to_owned()
}

/// What the command line prints of the same.
fn printed_events(node: usize, height: u64) -> Vec<serde_json::Value> {
    let output = Command::new(BINARY)
        .args(["events", "--from", "1:0", "--output", "json", "--node"])
        .arg(format!("http://127.0.0.1:{}", BASE_PORT + 10 * node as u16 + 1))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    events.filter(|event: &serde_json::Value| event["height"].as_u64().unwrap() <= height).collect()
}

/// Runs `verify` or `replay` on a stopped node.
fn check(command: &str, folder: &Path, node: usize) -> serde_json::Value {
    let output = Command::new(BINARY)
        .args([command, "--output", "json", "--data-dir"])
        .arg(folder.join(format!("v{node}")))
        .arg("--genesis")
        .arg(folder.join("genesis.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "v{node}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_validator_killed_under_load_catches_up_and_every_database_verifies() {
    let mut network = Network::start();
    let start = Network::wait_height(0, 2);
    let load = Network::load(4_000).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    network.kill(3);
    // Without it the chain goes on.
    let without = Network::wait_height(0, start + 20);
    std::thread::sleep(Duration::from_secs(2));
    network.run(3);
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end = Network::wait_height(0, without + 3);
    Network::wait_height(3, end);

    // All killed in the same moment: what was finalised stays, and the network goes on.
    (0..4).for_each(|node| network.kill(node));
    (0..4).for_each(|node| network.run(node));
    let again = Network::wait_height(1, end + 3);
    (0..4).for_each(|node| {
        Network::wait_height(node, again);
    });
    // One log, whoever was killed and caught up, and over every interface.
    let logs: Vec<String> = (0..4).map(|node| events(node, end)).collect();
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "two nodes tell of different events");
    let data: Vec<serde_json::Value> = logs[0]
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(data.iter().filter(|event| event["type"] == "Transferred").count() >= 4_000);
    assert!(data == printed_events(3, end), "gRPC and HTTP tell of different events");
    network.stop_all();
    for node in 0..4 {
        let report = check("verify", network.folder.path(), node);
        assert!(report["blocks"].as_u64().unwrap() >= again, "{report}");
        assert!(report["events"].as_u64().unwrap() >= data.len() as u64, "{report}");
    }
    let report = check("replay", network.folder.path(), 3);
    assert!(report["checkpoints"].as_u64().unwrap() >= again / 16, "{report}");
}
