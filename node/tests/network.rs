//! Two networks on loopback: frames over mutual TLS, and everything that must be refused at the door.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bizra_node::configuration::PeerConfiguration;
use bizra_node::identity::{Authority, CertificateFiles, TlsKey};
use bizra_node::monitoring::StatusHandle;
use bizra_node::network::admin::AdminEndpoint;
use bizra_node::network::{
    FRAME_MAX_BYTES, Inbound, Network, NetworkConfig, NetworkError, NetworkEvent, PeerId, TlsMaterial,
};
use bizra_proto::v1::admin_client::AdminClient;
use bizra_proto::v1::peer_client::PeerClient;
use bizra_proto::v1::{Frame, GetStatusRequest, NodeStatus};
use bizra_simplex::types::Digest;
use bytes::Bytes;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const GENESIS: Digest = Digest([7; 32]);
const PATIENCE: Duration = Duration::from_secs(10);

/// Authorities and a folder for the certificates they sign.
struct World {
    folder: TempDir,
    nodes: Authority,
    operators: Authority,
}

impl World {
    fn new() -> Self {
        let nodes = Authority::generate("nodes").unwrap();
        let operators = Authority::generate("operators").unwrap();
        Self { folder: tempfile::tempdir().unwrap(), nodes, operators }
    }

    fn tls(&self, name: &str) -> TlsMaterial {
        let key = TlsKey::generate().unwrap();
        let request = key.certificate_request(name).unwrap();
        let file = |suffix: &str| self.folder.path().join(format!("{name}{suffix}"));
        let files = CertificateFiles {
            certificate_file: file(".crt"),
            ca_file: file("-ca.crt"),
            operator_ca_file: file("-operator-ca.crt"),
        };
        fs::write(&files.certificate_file, self.nodes.sign_request(&request, &[name.to_owned()]).unwrap()).unwrap();
        fs::write(&files.ca_file, self.nodes.certificate_pem()).unwrap();
        fs::write(&files.operator_ca_file, self.operators.certificate_pem()).unwrap();
        TlsMaterial::load(files, key, name).unwrap()
    }
}

struct Node {
    network: Network,
    events: mpsc::Receiver<NetworkEvent>,
}

impl Node {
    async fn start(
        world: &World,
        name: &str,
        genesis_hash: Digest,
        listen: SocketAddr,
        peer: (&str, SocketAddr),
    ) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = NetworkConfig {
            node_name: name.to_owned(),
            genesis_hash,
            listen,
            peers: vec![PeerConfiguration { name: peer.0.to_owned(), address: peer.1.to_string() }],
        };
        let network = Network::start(config, world.tls(name), &Registry::new(), sender).await.unwrap();
        Self { network, events }
    }

    async fn pair(world: &World) -> (Self, Self) {
        let (a, b) = (free_address(), free_address());
        let alpha = Self::start(world, "alpha", GENESIS, a, ("beta", b)).await;
        let beta = Self::start(world, "beta", GENESIS, b, ("alpha", a)).await;
        (alpha, beta)
    }

    async fn next(&mut self) -> NetworkEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a running network")
    }

    async fn next_frame(&mut self) -> Bytes {
        loop {
            if let NetworkEvent::Frame(Inbound { from, frame, .. }) = self.next().await {
                assert_eq!(from, PeerId(0));
                return frame;
            }
        }
    }

    async fn connected(&mut self) {
        while !matches!(self.next().await, NetworkEvent::Connected(PeerId(0))) {}
    }
}

/// Free a moment ago, which is good enough on a machine of ours.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn dial(address: SocketAddr, server: &str, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls.domain_name(server)).unwrap().connect().await
}

/// A client whose certificate comes from `signer` and that trusts the world's nodes.
fn client(world: &World, signer: &Authority, name: &str) -> ClientTlsConfig {
    let issued = signer.issue(name).unwrap();
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(world.nodes.certificate_pem()))
        .identity(Identity::from_pem(&issued.certificate_pem, issued.key_pem.as_bytes()))
}

fn hello(version: u8, genesis: Digest, name: &str) -> Frame {
    Frame { payload: [&[version, 0][..], &genesis.0, name.as_bytes()].concat().into() }
}

async fn send(channel: Channel, frames: Vec<Frame>) -> Result<(), tonic::Status> {
    let mut client = PeerClient::new(channel);
    let sent = client.send(tokio_stream::iter(frames));
    tokio::time::timeout(PATIENCE, sent).await.expect("an answer in time").map(drop)
}

#[tokio::test]
async fn frames_of_both_lanes_arrive_whole_and_in_order() {
    let world = World::new();
    let (mut alpha, mut beta) = Node::pair(&world).await;
    alpha.connected().await;
    beta.connected().await;
    assert_eq!(alpha.network.handle().connected(), [PeerId(0)]);

    let handle = alpha.network.handle();
    std::thread::spawn(move || {
        for number in 0..100_u32 {
            handle.broadcast(Bytes::copy_from_slice(&number.to_be_bytes()));
        }
    });
    for number in 0..100_u32 {
        assert_eq!(beta.next_frame().await, number.to_be_bytes().as_slice());
    }
    let batch = Bytes::from(vec![5; FRAME_MAX_BYTES]);
    beta.network.handle().send(PeerId(0), batch.clone());
    assert_eq!(alpha.next_frame().await, batch);
    alpha.network.shutdown().await;
    beta.network.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", GENESIS, a, ("beta", b)).await;
    let beta = Node::start(&world, "beta", GENESIS, b, ("alpha", a)).await;
    alpha.connected().await;
    beta.network.shutdown().await;
    while !matches!(alpha.next().await, NetworkEvent::Disconnected(PeerId(0))) {}
    assert!(alpha.network.handle().connected().is_empty());
    let mut beta = Node::start(&world, "beta", GENESIS, b, ("alpha", a)).await;
    alpha.connected().await;
    alpha.network.handle().broadcast(Bytes::from_static(b"again"));
    assert_eq!(beta.next_frame().await, b"again".as_slice());
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_with_both_hashes() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", GENESIS, a, ("beta", b)).await;
    let other = Node::start(&world, "beta", Digest([8; 32]), b, ("alpha", a)).await;
    let quiet = tokio::time::timeout(Duration::from_secs(2), alpha.events.recv()).await;
    assert!(quiet.is_err(), "neither connected nor a frame: {quiet:?}");
    drop(other);

    let channel = dial(a, "alpha", client(&world, &world.nodes, "beta")).await.unwrap();
    let refusal = send(channel, vec![hello(1, Digest([8; 32]), "beta")]).await.unwrap_err();
    assert!(refusal.message().contains(&GENESIS.to_string()), "{refusal}");
    assert!(refusal.message().contains(&Digest([8; 32]).to_string()), "{refusal}");
}

#[tokio::test]
async fn a_stream_must_introduce_itself_as_the_peer_its_certificate_names() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let _alpha = Node::start(&world, "alpha", GENESIS, a, ("beta", b)).await;
    let channel = dial(a, "alpha", client(&world, &world.nodes, "gamma")).await.unwrap();
    for (first, reason) in [
        (hello(1, GENESIS, "gamma"), "not a configured peer"),
        (hello(1, GENESIS, "beta"), "does not name"),
        (hello(2, GENESIS, "beta"), "version 2"),
        (Frame { payload: Bytes::from_static(&[1, 0, 3]) }, "not a Hello"),
    ] {
        let refusal = send(channel.clone(), vec![first]).await.unwrap_err();
        assert!(refusal.message().contains(reason), "{refusal}");
    }
    assert!(send(channel, Vec::new()).await.unwrap_err().message().contains("without a Hello"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_through_the_handshake() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let _alpha = Node::start(&world, "alpha", GENESIS, a, ("beta", b)).await;
    for stranger in [&Authority::generate("nodes").unwrap(), &world.operators] {
        // With TLS 1.3 the client learns of its refusal only with the first answer.
        let sent = match dial(a, "alpha", client(&world, stranger, "beta")).await {
            Ok(channel) => send(channel, vec![hello(1, GENESIS, "beta")]).await.is_ok(),
            Err(_) => false,
        };
        assert!(!sent);
    }
}

#[tokio::test]
async fn an_oversized_frame_ends_its_stream_and_nothing_else() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", GENESIS, a, ("beta", b)).await;
    let oversized = Frame { payload: Bytes::from(vec![0; FRAME_MAX_BYTES + 100]) };
    let channel = dial(a, "alpha", client(&world, &world.nodes, "beta")).await.unwrap();
    let refusal = send(channel.clone(), vec![hello(1, GENESIS, "beta"), oversized]).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::OutOfRange, "{refusal}");
    let frame = Frame { payload: Bytes::from_static(b"small") };
    send(channel, vec![hello(1, GENESIS, "beta"), frame]).await.unwrap();
    assert_eq!(alpha.next_frame().await, b"small".as_slice());
}

#[tokio::test]
async fn a_peer_whose_frames_are_not_consumed_is_pressed_back() {
    let world = World::new();
    let (mut alpha, mut beta) = Node::pair(&world).await;
    let batch = Bytes::from(vec![5; 1024 * 1024]);
    alpha.connected().await;
    for _ in 0..60 {
        alpha.network.handle().broadcast(batch.clone());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // 64 places in the channel, yet no more than the budget of 16 MiB comes through before something is consumed.
    let mut waiting = Vec::new();
    while waiting.len() < 16 {
        waiting.extend(if let NetworkEvent::Frame(inbound) = beta.next().await { Some(inbound) } else { None });
    }
    let more = tokio::time::timeout(Duration::from_millis(500), beta.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    drop(waiting);
    beta.next_frame().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let world = World::new();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let (sender, _events) = mpsc::channel(1);
    let config = NetworkConfig { node_name: "alpha".to_owned(), genesis_hash: GENESIS, listen, peers: Vec::new() };
    let error = Network::start(config, world.tls("alpha"), &Registry::new(), sender).await.err().unwrap();
    assert!(matches!(error, NetworkError::Bind { purpose: "peer", .. }));
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[tokio::test]
async fn the_admin_port_answers_operators_and_not_nodes() {
    let world = World::new();
    let status = StatusHandle::new(NodeStatus { node_name: "alpha".to_owned(), ..NodeStatus::default() });
    let folder = world.folder.path().to_owned();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = AdminEndpoint::start(listen, world.tls("alpha"), status, folder).await.unwrap();

    let channel = dial(endpoint.local_address(), "alpha", client(&world, &world.operators, "operator")).await.unwrap();
    let answer = AdminClient::new(channel).get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!(answer.node_name, "alpha");
    assert!(answer.certificate_not_after_seconds > 0 && answer.volume_total_bytes >= answer.volume_free_bytes);
    assert!(answer.volume_free_bytes > 0);

    let refused = match dial(endpoint.local_address(), "alpha", client(&world, &world.nodes, "beta")).await {
        Ok(channel) => AdminClient::new(channel).get_status(GetStatusRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    endpoint.shutdown().await;
}
