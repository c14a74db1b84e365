//! Authorities, keys and networks on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bizra_node::configuration::PeerConfiguration;
use bizra_node::identity::connection::{Exporter, Proof, Role, Statement};
use bizra_node::identity::{Authority, CertificateFiles, ConsensusKey, TlsKey};
use bizra_node::network::{Inbound, Network, NetworkConfig, NetworkEvent, PeerId, TlsMaterial};
use bizra_proto::v1::{Frame, SendResponse};
use bizra_simplex::types::Digest;
use bytes::Bytes;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::raw::{self, Raw};

pub(crate) const GENESIS: Digest = Digest([7; 32]);
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Authorities and a folder for the certificates they sign.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) nodes: Authority,
    pub(crate) operators: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let nodes = Authority::generate("nodes").unwrap();
        let operators = Authority::generate("operators").unwrap();
        Self { folder: tempfile::tempdir().unwrap(), nodes, operators }
    }

    pub(crate) fn files(&self, name: &str) -> CertificateFiles {
        let file = |suffix: &str| self.folder.path().join(format!("{name}{suffix}"));
        CertificateFiles {
            certificate_file: file(".crt"),
            ca_file: file("-ca.crt"),
            operator_ca_file: file("-operator-ca.crt"),
        }
    }

    /// Has `signer` sign, and `trusted` written as the authorities of nodes.
    pub(crate) fn issue(&self, name: &str, request: &str, signer: &Authority, trusted: &str) {
        let files = self.files(name);
        fs::write(&files.ca_file, trusted).unwrap();
        fs::write(&files.operator_ca_file, self.operators.certificate_pem()).unwrap();
        fs::write(&files.certificate_file, signer.sign_request(request, &[name.to_owned()]).unwrap()).unwrap();
    }

    pub(crate) fn tls(&self, name: &str) -> TlsMaterial {
        let key = TlsKey::generate().unwrap();
        let request = key.certificate_request(name).unwrap();
        self.issue(name, &request, &self.nodes, self.nodes.certificate_pem());
        TlsMaterial::load(self.files(name), key, name).unwrap()
    }

    /// A connection to a node with a certificate of that name.
    pub(crate) async fn caller(&self, name: &str, address: SocketAddr, server: &str) -> Raw {
        let issued = self.nodes.issue(name).unwrap();
        let versions = &[&rustls::version::TLS13];
        let config =
            raw::client_config(self.nodes.certificate_pem(), &issued.certificate_pem, &issued.key_pem, versions);
        raw::connect(address, server, config).await.unwrap()
    }
}

pub(crate) struct Node {
    pub(crate) network: Network,
    pub(crate) events: mpsc::Receiver<NetworkEvent>,
    pub(crate) registry: Registry,
    pub(crate) key: Arc<ConsensusKey>,
}

/// Everything that one node differs in from another.
pub(crate) struct Setup<'a> {
    pub(crate) name: &'a str,
    pub(crate) genesis_hash: Digest,
    pub(crate) key: Arc<ConsensusKey>,
    pub(crate) tls: TlsMaterial,
    pub(crate) listen: SocketAddr,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(world: &World, name: &'a str, listen: SocketAddr) -> Self {
        Self::with_tls(name, listen, world.tls(name))
    }

    pub(crate) fn with_tls(name: &'a str, listen: SocketAddr, tls: TlsMaterial) -> Self {
        let key = Arc::new(ConsensusKey::generate().unwrap());
        Self { name, genesis_hash: GENESIS, key, tls, listen }
    }

    pub(crate) async fn start(self, peers: &[(&str, SocketAddr)]) -> Node {
        let Self { name, genesis_hash, key, tls, listen } = self;
        let (sender, events) = mpsc::channel(64);
        let config = NetworkConfig {
            node_name: name.to_owned(),
            genesis_hash,
            consensus_key: Arc::clone(&key),
            listen,
            peers: configured(peers),
        };
        let registry = Registry::new();
        let network = Network::start(config, tls, &registry, sender).await.unwrap();
        Node { network, events, registry, key }
    }
}

pub(crate) fn configured(peers: &[(&str, SocketAddr)]) -> Vec<PeerConfiguration> {
    let peer = |(name, address): &(&str, SocketAddr)| PeerConfiguration {
        name: (*name).to_owned(),
        address: address.to_string(),
    };
    peers.iter().map(peer).collect()
}

impl Node {
    pub(crate) async fn start(world: &World, name: &str, listen: SocketAddr, peers: &[(&str, SocketAddr)]) -> Self {
        Setup::new(world, name, listen).start(peers).await
    }

    pub(crate) async fn pair(world: &World) -> (Self, Self) {
        let (a, b) = (free_address(), free_address());
        let alpha = Self::start(world, "alpha", a, &[("beta", b)]).await;
        let beta = Self::start(world, "beta", b, &[("alpha", a)]).await;
        (alpha, beta)
    }

    pub(crate) async fn next(&mut self) -> NetworkEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a running network")
    }

    pub(crate) async fn next_inbound(&mut self) -> Inbound {
        loop {
            if let NetworkEvent::Frame(inbound) = self.next().await {
                return inbound;
            }
        }
    }

    pub(crate) async fn next_frame(&mut self) -> Bytes {
        self.next_inbound().await.frame
    }

    pub(crate) async fn connected(&mut self, peer: u16) {
        while !matches!(self.next().await, NetworkEvent::Connected(id) if id == PeerId(peer)) {}
    }

    /// Nothing of this kind comes for a while.
    pub(crate) async fn quiet(&mut self, time: Duration, unwanted: impl Fn(&NetworkEvent) -> bool) {
        let deadline = Instant::now() + time;
        while let Ok(event) = tokio::time::timeout(deadline - Instant::now().min(deadline), self.events.recv()).await {
            let event = event.expect("a running network");
            assert!(!unwanted(&event), "{event:?}");
        }
    }

    /// Sum of a counter over the labels whose values include all these.
    #[expect(clippy::cast_sign_loss, reason = "counters begin at zero and grow")]
    pub(crate) fn count(&self, metric: &str, labels: &[&str]) -> u64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .filter(|family| family.name() == metric)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        let fits = |values: Vec<&str>| labels.iter().all(|label| values.contains(label));
        family
            .filter(|metric| fits(metric.get_label().iter().map(prometheus::proto::LabelPair::value).collect()))
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }

    /// Waits for a counter.
    pub(crate) async fn counted(&self, metric: &str, labels: &[&str], at_least: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(metric, labels) < at_least {
            assert!(Instant::now() < deadline, "{metric} {labels:?} is {}", self.count(metric, labels));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Free a moment ago, which is good enough on a machine of ours.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// What a caller signs for a connection to `server`.
pub(crate) fn statement<'a>(exporter: &'a Exporter, caller: &'a str, server: &'a str) -> Statement<'a> {
    Statement { genesis_hash: GENESIS, role: Role::Dialer, exporter, signer: caller, other: server }
}

/// An honest Hello of that name on this connection.
pub(crate) fn honest(raw: &Raw, lane: u8, key: &ConsensusKey, name: &str, server: &str) -> Frame {
    raw::hello(lane, GENESIS, &proof(raw, key, name, server), name)
}

pub(crate) fn proof(raw: &Raw, key: &ConsensusKey, name: &str, server: &str) -> Proof {
    key.prove(&statement(&raw.exporter, name, server))
}

impl Raw {
    /// Sends these frames as one stream, and waits for the answer.
    pub(crate) async fn send(&mut self, frames: Vec<Frame>) -> Result<SendResponse, tonic::Status> {
        let sent = self.client.send(tokio_stream::iter(frames));
        tokio::time::timeout(PATIENCE, sent).await.expect("an answer in time").map(tonic::Response::into_inner)
    }
}
