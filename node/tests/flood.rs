//! A validator turned hostile: the right certificate, the right key, and everything it may say said as fast as it can. The
//! three honest ones go on, and their clients hardly notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
#[path = "network/raw.rs"]
mod raw;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, PublicKey};
use bizra_node::identity::connection::{Role, Statement};
use bizra_node::identity::{ConsensusKey, SignerFolder};
use bizra_proto::v1::Frame;
use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Certificate, Message, SignedVote, Vote, VoteKind};
use bytes::Bytes;
use common::devnet::Devnet;
use raw::{CONSENSUS_LANE, DATA_LANE, Raw, frame};

const HONEST: usize = 3;
/// How much slower the honest ones may be under a flood: the flooder's own work is on the same processors.
const SLOWER_AT_MOST: f64 = 3.0;
/// Below this, a latency says more about the machine than about the flood.
const NOISE_MILLISECONDS: f64 = 150.0;

/// Median and 99th percentile of the time to finality, milliseconds.
fn load(devnet: &Devnet) -> (f64, f64) {
    let arguments = ["--duration", "5", "--rate", "300", "--accounts", "50", "--require-all", "--output", "json"];
    let output = devnet.load(HONEST, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let latency = &report["latencyMilliseconds"];
    (latency["p50"].as_f64().unwrap(), latency["p99"].as_f64().unwrap())
}

/// Sum over the honest nodes of the lines of a metric that hold this text.
fn metric(devnet: &Devnet, text: &str) -> f64 {
    let of_node = |node: usize| {
        let metrics = devnet.metrics(node).unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(text));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    (0..HONEST).map(of_node).sum()
}

/// The fourth validator, as its owner would run it for mischief.
struct Hostile {
    honest: [SocketAddr; HONEST],
    key: ConsensusKey,
    genesis_hash: Digest,
    tls: Arc<rustls::ClientConfig>,
}

impl Hostile {
    fn load(devnet: &Devnet) -> Self {
        let configuration = devnet.configuration(3);
        let signer = SignerFolder::open_unchecked(&configuration.data_dir).unwrap();
        let pem = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (authority, own) = (pem(&configuration.tls.ca_file), pem(&configuration.tls.certificate_file));
        let tls = signer.tls_key().unwrap();
        Self {
            honest: std::array::from_fn(|node| SocketAddr::from(([127, 0, 0, 1], devnet.peer_port(node)))),
            key: signer.consensus_key().unwrap(),
            genesis_hash: devnet.genesis().hash,
            tls: raw::client_config(&authority, &own, tls.pem(), &[&rustls::version::TLS13]),
        }
    }

    fn hello(&self, raw: &Raw, lane: u8, to: &str) -> Frame {
        let proof = self.key.prove(&Statement {
            genesis_hash: self.genesis_hash,
            role: Role::Dialer,
            exporter: &raw.exporter,
            signer: "v3",
            other: to,
        });
        raw::hello(lane, self.genesis_hash, &proof, "v3")
    }

    /// Floods a lane of every honest node, and comes back whenever it is thrown out, until the guard is dropped.
    fn flood(self: &Arc<Self>, lane: u8, frames: &Arc<Vec<Frame>>) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for (node, address) in self.honest.into_iter().enumerate() {
            let (hostile, frames) = (Arc::clone(self), Arc::clone(frames));
            tasks.spawn(async move {
                let name = format!("v{node}");
                loop {
                    if let Ok(mut raw) = raw::connect(address, &name, Arc::clone(&hostile.tls)).await {
                        let hello = hostile.hello(&raw, lane, &name);
                        let frames = Arc::clone(&frames);
                        let endless = (0..).map(move |index: usize| frames[index % frames.len()].clone());
                        let _ = raw.client.send(tokio_stream::iter(std::iter::once(hello).chain(endless))).await;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        tasks
    }

    fn batch(&self, sequence: u64) -> Frame {
        let mut batch = Batch {
            epoch: Epoch(0),
            origin: ValidatorIndex(3),
            sequence,
            payload: Bytes::from(vec![7; 400_000]),
            signature: Signature([0; 64]),
        };
        batch.signature = Signature(self.key.sign(&batch.digest(self.genesis_hash).0).to_bytes());
        frame(PeerMessage::Batch(batch).encode())
    }
}

/// What costs much to answer, and nothing but decent messages.
fn questions(batches: u8) -> Vec<Frame> {
    let mut messages = Vec::new();
    for number in 0..batches {
        messages.push(PeerMessage::FetchRange(Height(1 + u64::from(number % 2))));
        messages.push(PeerMessage::FetchBatch(Digest([number; 32])));
        messages.push(PeerMessage::FetchView(View(u64::from(number))));
        messages.push(PeerMessage::FetchBlock(Digest([number; 32])));
        messages.push(PeerMessage::FetchHeld(vec![Digest([number; 32]); 64]));
        messages.push(PeerMessage::FetchHighestVote(PublicKey([number; 32])));
        messages.push(PeerMessage::Status(Height(u64::MAX)));
    }
    messages.iter().map(|message| frame(message.encode())).collect()
}

/// Certificates and votes that look right and are signed by nobody, and frames that are nothing.
fn forgeries() -> Vec<Frame> {
    let mut frames = vec![frame("garbage")];
    for view in 1..2_000 {
        let vote = Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Notarize, digest: Digest([1; 32]) };
        let signatures = (0..4).map(|signer| (ValidatorIndex(signer), Signature([5; 64]))).collect();
        let messages = [
            Message::Certificate(Certificate { vote, signatures }),
            Message::Vote(SignedVote { vote, signer: ValidatorIndex(1), signature: Signature([6; 64]) }),
        ];
        frames.extend(messages.map(|message| frame(PeerMessage::Consensus(message).encode())));
    }
    frames
}

#[test]
fn three_honest_validators_go_on_while_the_fourth_floods_them() {
    let mut devnet = Devnet::make(4, &["--accounts", "50"]);
    (0..HONEST).for_each(|node| devnet.run(node));
    let start = devnet.wait_height(0, 2);
    let hostile = Arc::new(Hostile::load(&devnet));
    load(&devnet);
    let quiet = load(&devnet);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _guard = runtime.enter();
    let asking = hostile.flood(CONSENSUS_LANE, &Arc::new(questions(200)));
    let asked = load(&devnet);
    for name in ["bizra_network_questions_refused_total", "bizra_network_frames_delayed_total"] {
        assert!(metric(&devnet, name) > 0.0, "{name}");
    }
    assert!(metric(&devnet, "bizra_network_peers_shut_out_total") < 1.0, "so far it was only too curious");
    drop(asking);

    let forging = hostile.flood(CONSENSUS_LANE, &Arc::new(forgeries()));
    let batches = hostile.flood(DATA_LANE, &Arc::new((0..64).map(|number| hostile.batch(number)).collect()));
    let flooded = load(&devnet);
    assert!(metric(&devnet, "bizra_network_peers_shut_out_total") >= 3.0, "by each of the three");
    drop((forging, batches));
    drop(runtime);

    let end = devnet.wait_height(0, start + 20);
    println!("p50 and p99 in ms: quiet {quiet:?}, asked {asked:?}, flooded {flooded:?}; height {start} to {end}");
    for (name, (p50, p99)) in [("questions", asked), ("forgeries", flooded)] {
        for (what, quiet, now) in [("p50", quiet.0, p50), ("p99", quiet.1, p99)] {
            let limit = (SLOWER_AT_MOST * quiet).max(NOISE_MILLISECONDS);
            assert!(now <= limit, "{name}: {what} went from {quiet:.0} to {now:.0} ms");
        }
    }
}
