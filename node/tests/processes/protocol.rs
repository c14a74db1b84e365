//! A network whose rules change while it runs, and a validator that contradicts itself in it: real nodes, real disks.

use crate::common::devnet::Devnet;
use crate::common::patience::{PATIENCE, wait};
use crate::common::process::Process;
use bizra_driver::PublicKey;
use bizra_node::block::BlockStore;
use bizra_node::consensus::Ended;
use bizra_node::identity::SignerFolder;
use bizra_node::monitoring::StatusHandle;
use bizra_node::node::Node;
use bizra_node::storage::Database;
use bizra_proto::exit::{ExitReason, Termination};
use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Protocol, SignedVote, Vote, VoteKind};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Transfers at the first three validators until the load is dropped: blocks come as fast as they may.
fn start_load(devnet: &Devnet) -> Process {
    let arguments = ["--count", "6000", "--rate", "50", "--accounts", "20", "--drain", "1"];
    Process::quiet(&mut devnet.load(3, &arguments))
}

/// A node in this process, which can be told to be an old one.
struct InProcess {
    status: StatusHandle,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, Termination>>,
}

impl InProcess {
    async fn start(devnet: &Devnet, supported: Protocol) -> Self {
        let file = devnet.configuration_file(3);
        let node = Node::start_supporting(devnet.configuration(3), file.as_ref(), supported).await.unwrap();
        let status = node.status().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(node.run_until(async {
            // Told to stop, or never.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Self { status, stop, ended }
    }

    /// Waits until it ends by itself.
    async fn termination(self) -> Termination {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it goes on").unwrap();
        drop(self.stop);
        ended.unwrap_err()
    }
}

fn latest_set(devnet: &Devnet, node: usize) -> Option<(u64, u64)> {
    let set = devnet.json(node, "/v1/validator-sets/latest")?;
    Some((set["epoch"].as_u64()?, set["protocolVersion"].as_u64()?))
}

/// P1 to P3, V7: three of four validators know version 2 and activate it; the fourth stops, is upgraded, and goes on. Then
/// it contradicts itself, and the chain is told by the node that saw it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_activate_without_the_last_node_and_report_a_contradiction() {
    let mut devnet = Devnet::make(4, &["--accounts", "20", "--epoch-blocks", "32", "--protocol-version", "1"]);
    (0..3).for_each(|node| devnet.run(node));
    let old = InProcess::start(&devnet, Protocol::V1).await;
    wait("a chain", || devnet.json(0, "/v1/chain"));
    assert_eq!(latest_set(&devnet, 0), Some((0, 1)));
    let load = start_load(&devnet);

    // It says beforehand that it will need an upgrade.
    let warned = old.status.wait_for(|status| status.newer_protocol_power == 3);
    let warned = tokio::time::timeout(PATIENCE, warned).await.expect("the others signal");
    assert_eq!((warned.protocol_version, warned.supported_protocol_version, warned.total_power), (1, 1, 4));
    let termination = old.termination().await;
    assert_eq!(termination.reason, ExitReason::UpgradeRequired, "{termination:?}");
    assert!(termination.message.contains("version 2") && termination.message.contains("upgrade"), "{termination:?}");
    let (epoch, version) = latest_set(&devnet, 0).unwrap();
    assert!(epoch >= 1 && version == 2);
    wait("the metric", || devnet.metrics(0)?.contains("\nbizra_consensus_protocol_version 2\n").then_some(()));
    // Started again it says the same, at once.
    let again = InProcess::start(&devnet, Protocol::V1).await;
    assert_eq!(again.termination().await.reason, ExitReason::UpgradeRequired);
    // The others have gone on without it, and with its new binary it follows them.
    let epoch = wait("the next epoch", || latest_set(&devnet, 1).filter(|(later, _)| *later > epoch)).0;
    // T2: its turns come to nothing meanwhile, and all the others say so alike.
    for node in 0..3 {
        wait("fewer turns for who is away", || {
            let set = devnet.json(node, "/v1/validator-sets/latest")?;
            let of = |index: usize| {
                let member = &set["members"][index];
                Some((member["reputation"].as_u64()?, member["turnsMissed"].as_u64()?))
            };
            let (reputation, missed) = of(3)?;
            (reputation < 1024 && missed > 0 && of(0)?.0 > reputation).then_some(())
        });
    }
    devnet.run(3);
    wait("the upgraded node", || latest_set(&devnet, 3).filter(|set| *set >= (epoch, 2)));

    // Two votes of v3 in one view, known to v0 alone. The chain idles meanwhile: blocks tell of the last epochs only.
    drop(load);
    devnet.stop(0);
    let configuration = devnet.configuration(0);
    let genesis = devnet.genesis();
    let liar = SignerFolder::open(devnet.path("v3").as_ref(), &devnet.configuration(3).volume_id).unwrap();
    let key = liar.consensus_key().unwrap();
    let public_key = key.public_key();
    let genesis_block = Block::genesis(genesis.hash, genesis.genesis.time_milliseconds);
    let database = Database::open(&configuration.data_dir.join("database")).unwrap();
    let blocks = BlockStore::open(database.clone(), genesis_block).unwrap();
    let (anchor, _) = blocks.anchor().unwrap();
    let of_epoch = Epoch(anchor.block.epoch.0 + u64::from(anchor.block.boundary.is_some()));
    let signer = ValidatorIndex(3);
    let [first, second] = [1, 2].map(|digest| {
        let digest = Digest([digest; 32]);
        let vote = Vote { epoch: of_epoch, view: View(1_000_000), kind: VoteKind::Notarize, digest };
        SignedVote { vote, signer, signature: Signature(key.sign(&vote.signed_bytes(genesis.hash)).into()) }
    });
    let mut writes = database.writes();
    blocks.put_evidence(&mut writes, PublicKey(public_key), &first, &second).unwrap();
    writes.commit_synced().unwrap();
    drop((blocks, database));
    devnet.run(0);

    let owner = genesis.genesis.validators[3].owner.clone().unwrap();
    for node in 0..4 {
        wait("the jailing", || {
            let validator = devnet.json(node, &format!("/v1/validators/{owner}"))?;
            (validator["status"] == "Jailed").then_some(())
        });
    }
    // It is out of the next set, which goes on without it.
    let _load = start_load(&devnet);
    let members = wait("a set without it", || {
        let set = devnet.json(1, "/v1/validator-sets/latest")?;
        let members = set["members"].as_array()?.clone();
        (members.len() == 3).then_some(members)
    });
    assert!(members.iter().all(|member| member["consensusKey"] != hex::encode(public_key)));
    (0..4).for_each(|node| devnet.stop(node));
}
