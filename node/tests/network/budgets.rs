//! What a slow, silent or flooding peer costs: itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bizra_node::identity::ConsensusKey;
use bizra_node::network::{NetworkEvent, PeerId};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use crate::raw::{CONSENSUS_LANE, frame};
use crate::world::{Node, World, free_address, honest};

#[tokio::test]
async fn a_slow_reader_loses_old_batches_and_holds_up_nobody() {
    let world = World::new();
    let (a, b, c) = (free_address(), free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("slow", b), ("quick", c)]).await;
    let _slow = Node::start(&world, "slow", b, &[("alpha", a)]).await;
    let mut quick = Node::start(&world, "quick", c, &[("alpha", a)]).await;
    while alpha.network.handle().connected().len() < 2 {
        alpha.next().await;
    }
    for number in 0..200_u8 {
        alpha.network.handle().broadcast(Bytes::from(vec![number; 512 * 1024]));
        alpha.network.handle().broadcast(Bytes::from(vec![number]));
        let mut received = [quick.next_frame().await, quick.next_frame().await];
        received.sort_by_key(Bytes::len);
        assert_eq!(received[0], [number].as_slice());
        assert!(received[1].len() == 512 * 1024 && received[1][0] == number);
    }
    // 100 MiB were for the slow one; its queue and what it may leave unconsumed hold some 40.
    let dropped = alpha.count("bizra_network_frames_dropped_total", &["data"]);
    assert!((50..=180).contains(&dropped), "{dropped}");
    assert_eq!(alpha.count("bizra_network_frames_dropped_total", &["consensus"]), 0);
}

#[tokio::test]
async fn a_flooding_peer_is_slowed_to_its_budget_and_slows_nobody_else() {
    let world = World::new();
    let (a, b, c) = (free_address(), free_address(), free_address());
    let mut alpha = Node::start(&world, "alpha", a, &[("flood", b), ("honest", c)]).await;
    let honest_peer = Node::start(&world, "honest", c, &[("alpha", a)]).await;
    while honest_peer.network.handle().connected().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = ConsensusKey::generate().unwrap();
    let mut caller = world.caller("flood", a, "alpha").await;
    let first = honest(&caller, CONSENSUS_LANE, &key, "flood", "alpha");
    let flood = tokio::spawn(async move {
        let endless = tokio_stream::iter(std::iter::once(first).chain(std::iter::repeat_with(|| frame("x"))));
        caller.client.send(endless).await
    });

    let start = Instant::now();
    let (mut flooded, mut sent, mut delays) = (0_u64, None, Vec::new());
    while start.elapsed() < Duration::from_secs(3) {
        if sent.is_none() {
            honest_peer.network.handle().broadcast(Bytes::from_static(b"vote"));
            sent = Some(Instant::now());
        }
        let NetworkEvent::Frame(inbound) = alpha.next().await else { continue };
        if inbound.from == PeerId(0) {
            flooded += 1;
        } else if let Some(sent) = sent.take() {
            delays.push(sent.elapsed());
        }
    }
    // 2,048 at once and as many a second, of frames that come by the hundred thousand.
    assert!((2_048..=9_000).contains(&flooded), "{flooded}");
    assert!(alpha.count("bizra_network_frames_delayed_total", &["consensus"]) > 0);
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    assert!(
        delays.len() > 20 && median < Duration::from_millis(50),
        "{} answers, half within {median:?}",
        delays.len()
    );
    flood.abort();
}

/// Passes bytes on until told to fall silent; connections stay open.
async fn proxy(listen: SocketAddr, target: SocketAddr, silent: Arc<AtomicBool>) {
    let listener = TcpListener::bind(listen).await.unwrap();
    loop {
        let (inside, _) = listener.accept().await.unwrap();
        let outside = TcpStream::connect(target).await.unwrap();
        let silent = Arc::clone(&silent);
        tokio::spawn(async move {
            let mut buffers = ([0; 4096], [0; 4096]);
            loop {
                let (from, to, buffer) = tokio::select! {
                    _ = inside.readable() => (&inside, &outside, &mut buffers.0),
                    _ = outside.readable() => (&outside, &inside, &mut buffers.1),
                };
                let Ok(count) = from.try_read(buffer) else { continue };
                if count == 0 {
                    return;
                }
                if silent.load(Ordering::Relaxed) {
                    continue;
                }
                let mut written = 0;
                while written < count {
                    to.writable().await.unwrap();
                    written += to.try_write(&buffer[written..count]).unwrap_or(0);
                }
            }
        });
    }
}

#[tokio::test]
async fn a_silent_peer_is_found_by_pings_while_nothing_is_sent() {
    let world = World::new();
    let (a, b, between) = (free_address(), free_address(), free_address());
    let silent = Arc::new(AtomicBool::new(false));
    tokio::spawn(proxy(between, b, Arc::clone(&silent)));
    let mut alpha = Node::start(&world, "alpha", a, &[("beta", between)]).await;
    let _beta = Node::start(&world, "beta", b, &[("alpha", a)]).await;
    alpha.connected(0).await;
    silent.store(true, Ordering::Relaxed);
    let start = Instant::now();
    // Five seconds to the ping, five for its answer.
    let lost = async { while !matches!(alpha.events.recv().await, Some(NetworkEvent::Disconnected(PeerId(0)))) {} };
    tokio::time::timeout(Duration::from_secs(20), lost).await.expect("a silent peer is noticed");
    assert!(start.elapsed() > Duration::from_secs(4), "not for another reason: {:?}", start.elapsed());
}
