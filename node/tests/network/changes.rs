//! What changes while the network runs: certificates and peers.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bizra_node::configuration::Configuration;
use bizra_node::identity::{Authority, ConsensusKey, TlsKey};
use bizra_node::network::{NetworkEvent, PeerId, TlsMaterial};
use bytes::Bytes;

use crate::raw::{self, CONSENSUS_LANE, frame};
use crate::world::{Node, Setup, World, free_address, honest};

const INTERVAL: Duration = Duration::from_millis(20);
/// Many intervals.
const A_WHILE: Duration = Duration::from_millis(400);

/// True if a caller with a certificate of `signer`, trusting only `trusted`, is welcome as `beta`.
async fn welcome(address: SocketAddr, signer: &Authority, trusted: &Authority) -> bool {
    let (issued, versions) = (signer.issue("gamma").unwrap(), &[&rustls::version::TLS13]);
    let config = raw::client_config(trusted.certificate_pem(), &issued.certificate_pem, &issued.key_pem, versions);
    let Ok(mut caller) = raw::connect(address, "alpha", config).await else { return false };
    let first = honest(&caller, CONSENSUS_LANE, &ConsensusKey::generate().unwrap(), "gamma", "alpha");
    caller.send(vec![first]).await.is_ok()
}

#[tokio::test]
async fn certificates_change_under_living_streams_and_new_connections_use_the_new_ones() {
    let world = World::new();
    let (a, b) = (free_address(), free_address());
    let keys = ["alpha", "beta"].map(|name| (name, TlsKey::generate().unwrap().pem().to_owned()));
    let key = |pem: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), pem).unwrap();
        TlsKey::load(file.path()).unwrap()
    };
    let requests = keys.each_ref().map(|(name, pem)| (*name, key(pem).certificate_request(name).unwrap()));
    let issue = |signer: &Authority, trusted: &str| {
        for (name, request) in &requests {
            world.issue(name, request, signer, trusted);
        }
    };
    issue(&world.nodes, world.nodes.certificate_pem());
    let tls = |index: usize| {
        let (name, pem) = &keys[index];
        TlsMaterial::load_every(world.files(name), key(pem), name, INTERVAL).unwrap()
    };
    let peers = [("beta", b), ("gamma", free_address())];
    let mut alpha = Setup::with_tls("alpha", a, tls(0)).start(&peers).await;
    let mut beta = Setup::with_tls("beta", b, tls(1)).start(&[("alpha", a)]).await;
    alpha.connected(0).await;
    let new = Authority::generate("nodes").unwrap();
    assert!(welcome(a, &world.nodes, &world.nodes).await);
    assert!(!welcome(a, &new, &world.nodes).await);

    // Both authorities while certificates are being replaced, then only the new one.
    let both = format!("{}{}", world.nodes.certificate_pem(), new.certificate_pem());
    for (step, trusted) in [both.as_str(), new.certificate_pem()].into_iter().enumerate() {
        issue(&new, trusted);
        for number in 0..20_u8 {
            alpha.network.handle().send(PeerId(0), Bytes::from(vec![number]));
            assert_eq!(beta.next_frame().await, [number].as_slice());
            tokio::time::sleep(A_WHILE / 20).await;
        }
        assert!(welcome(a, &new, &new).await, "the new certificate is shown, and its authority trusted");
        assert_eq!(welcome(a, &world.nodes, &new).await, step == 0, "the old authority is trusted until it is gone");
    }
    alpha.quiet(INTERVAL, |event| matches!(event, NetworkEvent::Disconnected(PeerId(0)))).await;
    beta.quiet(INTERVAL, |event| matches!(event, NetworkEvent::Disconnected(_))).await;
}

/// A configuration file with these peers.
fn write(file: &PathBuf, peers: &[(&str, SocketAddr)]) {
    let peers = peers.iter().map(|(name, at)| format!("[[peers]]\nname = \"{name}\"\naddress = \"{at}\"\n"));
    let head = "node_name = \"alpha\"\ndata_dir = \"d\"\nvolume_id = \"u\"\ngenesis_file = \"g\"\n[tls]\n\
                certificate_file = \"c\"\nca_file = \"a\"\noperator_ca_file = \"o\"\n";
    // As a ConfigMap mount does it: whole or not at all.
    let aside = file.with_extension("new");
    fs::write(&aside, [head.to_owned()].into_iter().chain(peers).collect::<String>()).unwrap();
    fs::rename(&aside, file).unwrap();
}

#[tokio::test]
async fn peers_come_and_go_with_the_configuration_file() {
    let world = World::new();
    let (a, b, c) = (free_address(), free_address(), free_address());
    let file = world.folder.path().join("node.toml");
    write(&file, &[("beta", b)]);
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", b)]).await;
    alpha.network.follow(file.clone(), Configuration::load(&file).unwrap(), INTERVAL);
    let mut beta = Node::start(&world, "beta", b, &[("alpha", a)]).await;
    let mut gamma = Node::start(&world, "gamma", c, &[("alpha", a)]).await;
    alpha.connected(0).await;
    gamma.quiet(A_WHILE, |_| true).await;

    write(&file, &[("gamma", c), ("beta", b)]);
    alpha.connected(1).await;
    gamma.connected(0).await;
    alpha.network.handle().broadcast(Bytes::from_static(b"to all"));
    assert_eq!(beta.next_frame().await, b"to all".as_slice());
    assert_eq!(gamma.next_frame().await, b"to all".as_slice());
    gamma.network.handle().broadcast(Bytes::from_static(b"from gamma"));
    let inbound = alpha.next_inbound().await;
    assert_eq!((inbound.from, inbound.frame.as_ref()), (PeerId(1), b"from gamma".as_slice()));
    let names = |node: &Node| node.network.handle().peers().into_iter().map(|peer| peer.name).collect::<Vec<_>>();
    assert_eq!(names(&alpha), ["beta", "gamma"]);

    // Refused entries: the old list stays.
    write(&file, &[("beta", b), ("alpha", a)]);
    alpha.quiet(A_WHILE, |_| true).await;
    assert_eq!(names(&alpha), ["beta", "gamma"]);

    write(&file, &[("gamma", c)]);
    let (mut removed, mut disconnected) = (false, false);
    while !(removed && disconnected) {
        match alpha.next().await {
            NetworkEvent::Removed(PeerId(0)) => removed = true,
            NetworkEvent::Disconnected(PeerId(0)) => disconnected = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names(&alpha), ["gamma"]);
    while !beta.network.handle().connected().is_empty() {
        tokio::time::sleep(INTERVAL).await;
    }
    let mut caller = world.caller("beta", a, "alpha").await;
    let first = honest(&caller, CONSENSUS_LANE, &beta.key, "beta", "alpha");
    let refusal = caller.send(vec![first, frame("vote")]).await.unwrap_err();
    assert!(refusal.message().contains("not a configured peer"), "{refusal}");
    alpha.network.handle().broadcast(Bytes::from_static(b"still"));
    assert_eq!(gamma.next_frame().await, b"still".as_slice());
}

#[tokio::test]
async fn a_peer_is_dialled_at_its_new_address_and_stays_who_it_is() {
    let world = World::new();
    let (a, old, new) = (free_address(), free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", old)]).await;
    let beta = Node::start(&world, "beta", old, &[("alpha", a)]).await;
    alpha.connected(0).await;
    let mut moved = Setup { key: beta.key.clone(), ..Setup::new(&world, "beta", new) }.start(&[("alpha", a)]).await;
    alpha.network.set_peers(crate::world::configured(&[("beta", new)]));
    alpha.connected(0).await;
    beta.network.shutdown().await;
    alpha.network.handle().broadcast(Bytes::from_static(b"moved"));
    assert_eq!(moved.next_frame().await, b"moved".as_slice());
    assert_eq!(alpha.network.handle().peers()[0].id, PeerId(0));
}
