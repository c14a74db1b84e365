//! Everything that must be refused at the door, in both directions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bizra_node::identity::connection::{Proof, Role, Statement};
use bizra_node::identity::{Authority, ConsensusKey};
use bizra_node::network::{NetworkEvent, PeerId};
use bizra_proto::v1::peer_server::{Peer, PeerServer};
use bizra_proto::v1::{Frame, SendResponse};
use bizra_simplex::types::Digest;
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::raw::{self, CONSENSUS_LANE, DATA_LANE, frame, hello};
use crate::world::{GENESIS, Node, Setup, World, free_address, honest, proof, statement};

const REFUSED: &str = "bizra_network_streams_refused_total";

async fn alpha(world: &World) -> (Node, SocketAddr) {
    let (a, b) = (free_address(), free_address());
    (Node::start(world, "alpha", a, &[("beta", b)]).await, a)
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_with_both_hashes() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", b)]).await;
    let other = Digest([8; 32]);
    let beta = Setup { genesis_hash: other, ..Setup::new(&world, "beta", b) }.start(&[("alpha", a)]).await;
    alpha.quiet(Duration::from_secs(2), |_| true).await;
    drop(beta);

    let mut caller = world.caller("beta", a, "alpha").await;
    let key = ConsensusKey::generate().unwrap();
    let first = hello(CONSENSUS_LANE, other, &proof(&caller, &key, "beta", "alpha"), "beta");
    let refusal = caller.send(vec![first]).await.unwrap_err();
    assert!(refusal.message().contains(&GENESIS.to_string()), "{refusal}");
    assert!(refusal.message().contains(&other.to_string()), "{refusal}");
    assert!(alpha.count(REFUSED, &["wrong_chain"]) > 1);
}

#[tokio::test]
async fn a_stream_must_introduce_itself_as_the_peer_its_certificate_names() {
    let world = World::new();
    let (alpha, a) = alpha(&world).await;
    let mut caller = world.caller("gamma", a, "alpha").await;
    let key = ConsensusKey::generate().unwrap();
    let without_proof = frame([&[1, CONSENSUS_LANE][..], &GENESIS.0, b"beta"].concat());
    for (first, text, reason) in [
        (honest(&caller, CONSENSUS_LANE, &key, "gamma", "alpha"), "not a configured peer", "unknown_name"),
        (honest(&caller, CONSENSUS_LANE, &key, "beta", "alpha"), "does not name", "wrong_certificate"),
        (without_proof, "version 1", "version"),
        (frame(vec![2, 0, 3]), "not a Hello", "malformed_hello"),
    ] {
        let refusal = caller.send(vec![first, frame("vote")]).await.unwrap_err();
        assert!(refusal.message().contains(text), "{refusal}");
        assert_eq!(alpha.count(REFUSED, &[reason]), 1);
    }
    assert!(caller.send(Vec::new()).await.unwrap_err().message().contains("without a Hello"));
}

#[tokio::test]
async fn a_consensus_key_must_be_proven_for_this_very_connection() {
    let world = World::new();
    let (mut alpha, a) = alpha(&world).await;
    let mut caller = world.caller("beta", a, "alpha").await;
    let earlier = world.caller("beta", a, "alpha").await;
    let (key, other) = (ConsensusKey::generate().unwrap(), ConsensusKey::generate().unwrap());
    let honest_proof = proof(&caller, &key, "beta", "alpha");
    let exporter = caller.exporter;
    let statement = statement(&exporter, "beta", "alpha");
    let answered = caller.send(vec![honest(&caller, CONSENSUS_LANE, &key, "beta", "alpha")]).await.unwrap();
    let listener = Proof {
        public_key: answered.public_key.try_into().unwrap(),
        signature: answered.signature.try_into().unwrap(),
    };
    for (what, forged) in [
        ("no signature", Proof { signature: [0; 64], ..honest_proof }),
        ("another's key", Proof { public_key: other.public_key(), ..honest_proof }),
        ("a replay", proof(&earlier, &key, "beta", "alpha")),
        ("for another node", proof(&caller, &key, "beta", "gamma")),
        ("by another name", proof(&caller, &key, "gamma", "alpha")),
        ("of the other end", key.prove(&Statement { role: Role::Listener, ..statement })),
        ("of another chain", key.prove(&Statement { genesis_hash: Digest([8; 32]), ..statement })),
        ("the node's own, returned", listener),
    ] {
        let frames = vec![hello(CONSENSUS_LANE, GENESIS, &forged, "beta"), frame("vote")];
        let refusal = caller.send(frames).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated, "{what}: {refusal}");
        assert!(refusal.message().contains("does not prove"), "{what}: {refusal}");
    }
    assert_eq!(alpha.count(REFUSED, &["wrong_proof"]), 8);

    // The same connection with the right proof is welcome, and the answer proves the key of the listening end.
    let frames = vec![hello(CONSENSUS_LANE, GENESIS, &honest_proof, "beta"), frame("vote")];
    caller.send(frames).await.unwrap();
    assert_eq!(alpha.next_frame().await, b"vote".as_slice());
    let own = Statement { role: Role::Listener, signer: "alpha", other: "beta", ..statement };
    assert_eq!(listener.public_key, alpha.key.public_key());
    assert!(listener.shows(&own));
}

#[tokio::test]
async fn a_copy_of_the_own_key_is_refused_by_both_ends() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", b)]).await;
    let copy = Setup { key: Arc::clone(&alpha.key), ..Setup::new(&world, "beta", b) };
    let beta = copy.start(&[("alpha", a)]).await;
    alpha.quiet(Duration::from_secs(1), |_| true).await;
    for node in [&alpha, &beta] {
        assert!(node.network.handle().connected().is_empty());
        assert!(node.count(REFUSED, &["own_key"]) > 0);
    }
}

/// Answers every Hello with this proof, and tells what frames follow.
struct Impostor(SendResponse, mpsc::UnboundedSender<Bytes>);

#[tonic::async_trait]
impl Peer for Impostor {
    async fn send(&self, request: Request<Streaming<Frame>>) -> Result<Response<SendResponse>, Status> {
        let mut frames = request.into_inner();
        while let Some(frame) = frames.message().await? {
            self.1.send(frame.payload).unwrap();
        }
        Ok(Response::new(self.0.clone()))
    }
}

/// A server with the right certificate that proves nothing good.
fn impostor(world: &World, address: SocketAddr, answer: SendResponse) -> mpsc::UnboundedReceiver<Bytes> {
    let issued = world.nodes.issue("beta").unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&issued.certificate_pem, issued.key_pem.as_bytes()))
        .client_ca_root(Certificate::from_pem(world.nodes.certificate_pem()));
    let service = PeerServer::new(Impostor(answer, sender));
    tokio::spawn(Server::builder().tls_config(tls).unwrap().add_service(service).serve(address));
    received
}

#[tokio::test]
async fn nothing_is_sent_to_a_node_that_does_not_prove_its_key() {
    let world = World::new();
    let key = ConsensusKey::generate().unwrap();
    let unbound = key.prove(&Statement { role: Role::Listener, ..statement(&[3; 32], "beta", "alpha") });
    for answer in [
        SendResponse::default(),
        SendResponse { public_key: unbound.public_key.to_vec(), signature: unbound.signature.to_vec() },
    ] {
        let (a, b) = (free_address(), free_address());
        let mut received = impostor(&world, b, answer);
        let mut alpha = Node::start(&world, "alpha", a, &[("beta", b)]).await;
        alpha.network.handle().broadcast(Bytes::from_static(b"vote"));
        alpha.counted("bizra_network_peers_refused_total", &["wrong_proof"], 3).await;
        alpha.quiet(Duration::from_millis(100), |_| true).await;
        while let Ok(frame) = received.try_recv() {
            assert_eq!(frame[0], 2, "only a Hello, ever");
            assert_ne!(frame, b"vote".as_slice());
        }
        assert!(alpha.network.handle().connected().is_empty());
        alpha.network.shutdown().await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_through_the_handshake() {
    let world = World::new();
    let (alpha, a) = alpha(&world).await;
    let (nodes, versions) = (world.nodes.certificate_pem(), &[&rustls::version::TLS13]);
    for stranger in [&Authority::generate("nodes").unwrap(), &world.operators] {
        let issued = stranger.issue("beta").unwrap();
        let config = raw::client_config(nodes, &issued.certificate_pem, &issued.key_pem, versions);
        // With TLS 1.3 the client learns of its refusal only with the first answer.
        let sent = match raw::connect(a, "alpha", config).await {
            Ok(mut caller) => {
                let key = ConsensusKey::generate().unwrap();
                let first = honest(&caller, CONSENSUS_LANE, &key, "beta", "alpha");
                caller.send(vec![first]).await.is_ok()
            }
            Err(_) => false,
        };
        assert!(!sent);
    }
    alpha.counted("bizra_network_connections_refused_total", &[], 2).await;
}

#[tokio::test]
async fn tls_before_1_3_is_not_spoken() {
    let world = World::new();
    let (alpha, a) = alpha(&world).await;
    let issued = world.nodes.issue("beta").unwrap();
    let (authority, versions) = (world.nodes.certificate_pem(), &[&rustls::version::TLS12]);
    let config = raw::client_config(authority, &issued.certificate_pem, &issued.key_pem, versions);
    let error = raw::connect(a, "alpha", config).await.err().unwrap();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    alpha.counted("bizra_network_connections_refused_total", &[], 1).await;
}

#[tokio::test]
async fn an_oversized_frame_ends_its_stream_and_nothing_else() {
    let world = World::new();
    let (mut alpha, a) = alpha(&world).await;
    let key = ConsensusKey::generate().unwrap();
    let mut caller = world.caller("beta", a, "alpha").await;
    let first = honest(&caller, DATA_LANE, &key, "beta", "alpha");
    let oversized = frame(vec![0; bizra_node::network::FRAME_MAX_BYTES + 100]);
    let refusal = caller.send(vec![first.clone(), oversized]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal}");
    caller.send(vec![first, frame("small")]).await.unwrap();
    let inbound = alpha.next_inbound().await;
    assert_eq!((inbound.from, inbound.frame.as_ref()), (PeerId(0), b"small".as_slice()));
}

#[tokio::test]
async fn a_peer_of_many_malformed_frames_is_shut_out_for_a_while() {
    let world = World::new();
    let (mut alpha, a) = alpha(&world).await;
    let key = ConsensusKey::generate().unwrap();
    let mut caller = world.caller("beta", a, "alpha").await;
    let first = honest(&caller, CONSENSUS_LANE, &key, "beta", "alpha");
    // What consensus does with a frame that it cannot read.
    let handle = alpha.network.handle();
    let reader = tokio::spawn(async move {
        let mut frames = 0_u32;
        while let Some(event) = alpha.events.recv().await {
            if let NetworkEvent::Frame(inbound) = event {
                frames += 1;
                handle.malformed(inbound.from, &"not a message");
            }
            if frames == 16 {
                break;
            }
        }
        alpha
    });
    let garbage = (0..100_000).map(|_| frame("garbage"));
    let refusal = caller.send(std::iter::once(first.clone()).chain(garbage).collect()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    let alpha = reader.await.unwrap();
    let refusal = caller.send(vec![first]).await.unwrap_err();
    assert!(refusal.message().contains("shut out"), "{refusal}");
    assert_eq!(alpha.count("bizra_network_peers_shut_out_total", &[]), 1);
    assert_eq!(alpha.count(REFUSED, &["shut_out"]), 1);
}
