//! A devnet whose nodes run in processes of their own, to be killed and started one by one.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process::Command;

use bizra_node::configuration::{Configuration, LoadedGenesis};

use super::http;
use super::patience::wait;
use super::process::{Process, command, run};

/// Ports below those that the system gives out by itself, a hundred for each devnet.
const HUNDREDS: Range<u16> = 280..327;
const PEERS: u16 = 0;
const GRPC: u16 = 1;
const HTTP: u16 = 2;
const MONITORING: u16 = 4;

pub(crate) struct Devnet {
    folder: tempfile::TempDir,
    base_port: u16,
    /// Holds the last of the hundred ports, so that no other test takes them.
    _ports: TcpListener,
    nodes: Vec<Option<Process>>,
}

impl Devnet {
    /// A devnet that has run for a second, and stands.
    pub(crate) fn make(validators: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let hold = |hundred: u16| {
            let (base, ports) = (100 * hundred, bind(100 * hundred + 99)?);
            bind(base).map(|_| (base, ports))
        };
        let (base_port, ports) = HUNDREDS.into_iter().find_map(hold).expect("a hundred free ports");
        let (count, port) = (validators.to_string(), base_port.to_string());
        let general = ["devnet", "--validators", &count, "--duration", "1", "--base-port", &port, "--dir"];
        run(&[&general[..], &[folder.path().to_str().unwrap()], arguments].concat()).unwrap();
        Self { folder, base_port, _ports: ports, nodes: (0..validators).map(|_| None).collect() }
    }

    /// Its files: `genesis.json`, and a folder `v0` for the first node.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn configuration_file(&self, node: usize) -> String {
        self.path(&format!("v{node}/node.toml"))
    }

    pub(crate) fn configuration(&self, node: usize) -> Configuration {
        Configuration::load(self.configuration_file(node).as_ref()).unwrap()
    }

    pub(crate) fn genesis(&self) -> LoadedGenesis {
        LoadedGenesis::load(self.path("genesis.json").as_ref()).unwrap()
    }

    /// What runs a node.
    pub(crate) fn node(&self, node: usize) -> Command {
        command(&["run", "--config", &self.configuration_file(node)])
    }

    pub(crate) fn run(&mut self, node: usize) {
        let mut command = self.node(node);
        command.env("BIZRA_LOG", "info,bizra_node::snapshot=debug");
        // Has a meaning only for a binary with the feature of this name.
        if cfg!(feature = "planted") {
            command.env("BIZRA_PLANTED", "1");
        }
        self.nodes[node] = Some(Process::logged(&mut command, &self.log_file(node)));
    }

    pub(crate) fn kill(&mut self, node: usize) {
        drop(self.nodes[node].take().unwrap());
    }

    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].take().unwrap().stop();
    }

    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node].as_ref().unwrap().id()
    }

    fn log_file(&self, node: usize) -> String {
        self.path(&format!("v{node}/test.log"))
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    fn port(&self, node: usize, service: u16) -> u16 {
        self.base_port + 10 * u16::try_from(node).unwrap() + service
    }

    /// Where its peers find a node.
    pub(crate) fn peer_port(&self, node: usize) -> u16 {
        self.port(node, PEERS)
    }

    /// Of its gRPC interface.
    pub(crate) fn url(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(node, GRPC))
    }

    /// Status and body of its REST interface.
    pub(crate) fn get(&self, node: usize, path: &str) -> Option<(u16, String)> {
        http::get(self.port(node, HTTP), path)
    }

    /// A document of its REST interface.
    pub(crate) fn json(&self, node: usize, path: &str) -> Option<serde_json::Value> {
        serde_json::from_str(&self.get(node, path)?.1).ok()
    }

    pub(crate) fn metrics(&self, node: usize) -> Option<String> {
        Some(http::get(self.port(node, MONITORING), "/metrics")?.1)
    }

    /// What a node has finalised; none before it answers.
    pub(crate) fn height(&self, node: usize) -> Option<u64> {
        self.json(node, "/v1/chain")?["finalizedHeight"].as_u64()
    }

    pub(crate) fn wait_height(&self, node: usize, height: u64) -> u64 {
        wait(&format!("v{node} at height {height}"), || self.height(node).filter(|at| *at >= height))
    }

    /// Transfers at the first nodes.
    pub(crate) fn load(&self, nodes: usize, arguments: &[&str]) -> Command {
        let mut command = command(&["load"]);
        command.args(arguments);
        (0..nodes).for_each(|node| {
            command.args(["--target", &self.url(node)]);
        });
        command
    }
}
