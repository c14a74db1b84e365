//! What arrives, and how.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bizra_node::identity::ConsensusKey;
use bizra_node::monitoring::StatusHandle;
use bizra_node::network::admin::AdminEndpoint;
use bizra_node::network::{FRAME_MAX_BYTES, Network, NetworkConfig, NetworkError, NetworkEvent, PeerId};
use bizra_node::transaction::{Address, KeyProof};
use bizra_proto::v1::admin_client::AdminClient;
use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::{GetChainRequest, GetStatusRequest, NodeStatus, ProveKeyRequest, SigningState, SyncState};
use bizra_simplex::types::{Digest, Signature};
use bytes::Bytes;
use prometheus::Registry;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::world::{GENESIS, Node, World, free_address};

#[tokio::test]
async fn frames_of_every_lane_arrive_whole_and_in_order() {
    let world = World::new();
    let (mut alpha, mut beta) = Node::pair(&world).await;
    alpha.connected(0).await;
    beta.connected(0).await;
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
    for number in 0..10_u8 {
        beta.network.handle().senders().answer(PeerId(0), Bytes::from(vec![number; 1 + 50_000 * usize::from(number)]));
    }
    for number in 0..10_u8 {
        assert_eq!(alpha.next_frame().await, vec![number; 1 + 50_000 * usize::from(number)]);
    }
    for (lane, frames) in [("consensus", 100), ("data", 0), ("sync", 0)] {
        assert_eq!(alpha.count("bizra_network_frames_total", &["sent", lane]), frames, "{lane}");
    }
    for (lane, frames) in [("consensus", 0), ("data", 1), ("sync", 10)] {
        assert_eq!(beta.count("bizra_network_frames_total", &["sent", lane]), frames, "{lane}");
    }
    alpha.network.shutdown().await;
    beta.network.shutdown().await;
}

#[tokio::test]
async fn both_ends_learn_each_others_key_before_any_frame() {
    let world = World::new();
    let (mut alpha, mut beta) = Node::pair(&world).await;
    alpha.network.handle().broadcast(Bytes::from_static(b"vote"));
    let NetworkEvent::Proven(PeerId(0), key) = beta.next().await else { panic!("the key comes first") };
    assert_eq!(key, alpha.key.public_key());
    let NetworkEvent::Proven(PeerId(0), key) = alpha.next().await else { panic!("the key comes first") };
    assert_eq!(key, beta.key.public_key());
    assert_eq!(beta.next_frame().await, b"vote".as_slice());
    let peers = alpha.network.handle().peers();
    assert_eq!((peers[0].name.as_str(), peers[0].public_key), ("beta", Some(beta.key.public_key())));
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again_with_its_new_key() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", b)]).await;
    let beta = Node::start(&world, "beta", b, &[("alpha", a)]).await;
    alpha.connected(0).await;
    beta.network.shutdown().await;
    while !matches!(alpha.next().await, NetworkEvent::Disconnected(PeerId(0))) {}
    assert!(alpha.network.handle().connected().is_empty());
    // A new volume, and so a new consensus key.
    let mut beta = Node::start(&world, "beta", b, &[("alpha", a)]).await;
    let rotated = loop {
        if let NetworkEvent::Proven(PeerId(0), key) = alpha.next().await {
            break key;
        }
    };
    assert_eq!(rotated, beta.key.public_key());
    while alpha.network.handle().connected().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    alpha.network.handle().broadcast(Bytes::from_static(b"again"));
    assert_eq!(beta.next_frame().await, b"again".as_slice());
}

#[tokio::test]
async fn a_peer_whose_frames_are_not_consumed_is_pressed_back() {
    let world = World::new();
    let (mut alpha, mut beta) = Node::pair(&world).await;
    let batch = Bytes::from(vec![5; 1024 * 1024]);
    alpha.connected(0).await;
    for _ in 0..60 {
        alpha.network.handle().broadcast(batch.clone());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // 64 places in the channel, yet no more than the budget of 16 MiB comes through before something is consumed.
    let mut waiting = Vec::new();
    while waiting.len() < 16 {
        waiting.push(beta.next_inbound().await);
    }
    beta.quiet(Duration::from_millis(500), |event| matches!(event, NetworkEvent::Frame(_))).await;
    drop(waiting);
    beta.next_frame().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let world = World::new();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let (sender, _events) = mpsc::channel(1);
    let config = NetworkConfig {
        node_name: "alpha".to_owned(),
        genesis_hash: GENESIS,
        consensus_key: Arc::new(ConsensusKey::generate().unwrap()),
        listen,
        peers: Vec::new(),
    };
    let error = Network::start(config, world.tls("alpha"), &Registry::new(), sender).await.err().unwrap();
    assert!(matches!(error, NetworkError::Bind { purpose: "peer", .. }));
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

async fn operator(
    address: SocketAddr,
    server: &str,
    world: &World,
    signer: &bizra_node::identity::Authority,
    name: &str,
) -> Result<Channel, tonic::transport::Error> {
    let issued = signer.issue(name).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(world.nodes.certificate_pem()))
        .identity(Identity::from_pem(&issued.certificate_pem, issued.key_pem.as_bytes()))
        .domain_name(server);
    Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect().await
}

#[tokio::test]
async fn the_admin_port_answers_operators_and_not_nodes() {
    let world = World::new();
    let status = StatusHandle::new(NodeStatus { node_name: "alpha".to_owned(), ..NodeStatus::default() });
    let folder = world.folder.path().to_owned();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let key = Arc::new(ConsensusKey::generate().unwrap());
    let endpoint = AdminEndpoint::start(listen, world.tls("alpha"), status.clone(), Arc::clone(&key), folder).await;
    let endpoint = endpoint.unwrap();
    let address = endpoint.local_address();

    let channel = operator(address, "alpha", &world, &world.operators, "operator").await.unwrap();
    let answer =
        AdminClient::new(channel.clone()).get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!(answer.node_name, "alpha");
    assert!(answer.trusted_authorities.contains(&answer.certificate_authority), "{answer:?}");
    assert!(answer.certificate_not_after_seconds > 0 && answer.volume_total_bytes >= answer.volume_free_bytes);
    assert!(answer.volume_free_bytes > 0);

    let mut admin = AdminClient::new(channel.clone());
    let owner = Address([7; 32]);
    let prove = |owner: &[u8]| ProveKeyRequest { owner: owner.to_vec() };
    assert_eq!(admin.prove_key(prove(&owner.0[1..])).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(admin.prove_key(prove(&owner.0)).await.unwrap_err().code(), Code::FailedPrecondition);
    let in_sync = |signing: SigningState| {
        status.update(|status| {
            status.set_sync_state(SyncState::InSync);
            status.set_signing_state(signing);
            (status.finalized_height, status.finalized_hash) = (9, hex::encode([5; 32]));
        });
    };
    in_sync(SigningState::Fenced);
    assert_eq!(admin.prove_key(prove(&owner.0)).await.unwrap_err().code(), Code::FailedPrecondition);
    in_sync(SigningState::NotAValidator);
    let proof = admin.prove_key(prove(&owner.0)).await.unwrap().into_inner();
    let proof = KeyProof {
        public_key: proof.public_key.try_into().unwrap(),
        height: proof.height,
        block: Digest(proof.block.try_into().unwrap()),
        signature: Signature(proof.signature.try_into().unwrap()),
    };
    assert_eq!((proof.public_key, proof.height, proof.block), (key.public_key(), 9, Digest([5; 32])));
    assert!(proof.is_valid(owner));
    // The ledger is not open yet.
    let asked = LedgerClient::new(channel).get_chain(GetChainRequest {}).await;
    assert_eq!(asked.unwrap_err().code(), Code::Unavailable);

    let refused = match operator(address, "alpha", &world, &world.nodes, "beta").await {
        Ok(channel) => AdminClient::new(channel).get_status(GetStatusRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    endpoint.shutdown().await;
}
