//! Who a node is, is what it proves, not what it is called; and peers come with the configuration file, without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bizra_node::configuration::Configuration;
use bizra_node::identity::{Authority, SignerFolder};

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");
const BASE_PORT: u16 = 34_100;
/// The fourth validator runs under another name than the genesis gives it, as one that joined later has none there.
const RENAMED: &str = "newcomer";

struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn run(file: &Path) -> Child {
    let log = fs::File::create(file.with_extension("log")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--config"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// What v0 has finalised; none before it answers.
fn height() -> Option<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", BASE_PORT + 2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /v1/chain HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let chain: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    chain["finalizedHeight"].as_u64()
}

fn wait_for(what: &str, condition: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match height() {
            Some(height) if condition(height) => return height,
            seen => assert!(Instant::now() < deadline, "{what}: height {seen:?}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Writes a configuration whole or not at all, as the mount of a `ConfigMap` does.
fn write(file: &Path, configuration: &Configuration) {
    let aside = file.with_extension("new");
    fs::write(&aside, toml::to_string(configuration).unwrap()).unwrap();
    fs::rename(&aside, file).unwrap();
}

#[test]
fn a_validator_under_another_name_is_known_by_its_key_once_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(BINARY)
        .args(["devnet", "--validators", "4", "--duration", "1", "--base-port", &BASE_PORT.to_string(), "--dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let file = |node: usize| -> PathBuf { folder.path().join(format!("v{node}/node.toml")) };
    let mut configurations: Vec<Configuration> = (0..4).map(|node| Configuration::load(&file(node)).unwrap()).collect();
    let authority = Authority::generate("nodes").unwrap();
    fs::write(&configurations[0].tls.ca_file, authority.certificate_pem()).unwrap();
    configurations[3].node_name = RENAMED.to_owned();
    for configuration in &configurations {
        let key = SignerFolder::open_unchecked(&configuration.data_dir).unwrap().tls_key().unwrap();
        let name = &configuration.node_name;
        let certificate =
            authority.sign_request(&key.certificate_request(name).unwrap(), std::slice::from_ref(name)).unwrap();
        fs::write(&configuration.tls.certificate_file, certificate).unwrap();
    }
    // v2 never runs, so the others need each other: none may sign before two of them have answered it (S5).
    let mut complete = configurations;
    for peer in complete.iter_mut().flat_map(|configuration| &mut configuration.peers) {
        if peer.name == "v3" {
            RENAMED.clone_into(&mut peer.name);
        }
    }
    for (node, configuration) in complete.iter().enumerate() {
        let mut without = configuration.clone();
        without.peers.retain(|peer| peer.name != RENAMED);
        write(&file(node), if node == 3 { configuration } else { &without });
    }
    let _nodes = Nodes([0, 1, 3].map(|node| run(&file(node))).into());
    let alone = wait_for("v0 starts", |_| true);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(height(), Some(alone), "two of four validators are no quorum, and the third is unknown");

    (0..2).for_each(|node| write(&file(node), &complete[node]));
    wait_for("the third validator is configured", |height| height >= alone + 20);
}
