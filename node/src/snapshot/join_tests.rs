#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::AtomicBool;

use bizra_driver::light::ChainRules;
use bizra_driver::{PublicKey, validators_hash};
use bizra_proto::ceremony::{Genesis, GenesisAccount, GenesisValidator};
use bizra_proto::parameters::Parameters;
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Power, ValidatorIndex, View};
use bizra_simplex::{Boundary, Reputation, Version, Vote, VoteKind};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use super::super::store::SnapshotStore;
use super::*;
use crate::blockchain::{Ledger, LedgerMetrics, LedgerReader};
use crate::gateway::BlockReader as _;
use crate::transaction::Address;

const HASH: Digest = Digest([5; 32]);
const EPOCH_BLOCKS: u64 = 32;

fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

fn public(seed: u8) -> [u8; 32] {
    VerificationKeyBytes::from(&key(seed)).into()
}

fn genesis() -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("v{seed}"),
        public_key: hex::encode(public(seed)),
        proof_of_possession: String::new(),
        power: "1".to_owned(),
        owner: Some(Address([seed; 32]).to_string()),
        stake: None,
    };
    // Enough accounts for several chunks.
    let account = |number: u32| {
        let mut address = [9; 32];
        address[..4].copy_from_slice(&number.to_be_bytes());
        GenesisAccount { address: Address(address).to_string(), balance: "7".to_owned() }
    };
    Genesis {
        version: 1,
        chain_id: "demo-1".to_owned(),
        time_milliseconds: 0,
        validators: (1..=4).map(validator).collect(),
        accounts: (0..70_000).map(account).collect(),
        parameters: Parameters { epoch_blocks: EPOCH_BLOCKS, ..Parameters::default() },
    }
}

fn members() -> Vec<Member> {
    (1..=4).map(|seed| Member { key: PublicKey(public(seed)), power: Power(1), reputation: Reputation::FULL }).collect()
}

fn finalization(block: &Block) -> Certificate {
    let vote =
        Vote { epoch: block.epoch, view: View(block.height.0), kind: VoteKind::Finalize, digest: block.digest() };
    let message = vote.signed_bytes(HASH);
    let signature = |seed: u8| {
        (ValidatorIndex(u16::from(seed) - 1), bizra_simplex::types::Signature(key(seed).sign(&message).into()))
    };
    Certificate { vote, signatures: (1..=3).map(signature).collect() }
}

/// A node with a chain of two epochs and a half, and its snapshots.
struct Holder {
    blocks: BlockStore,
    database: Database,
    store: SnapshotStore,
    _folder: tempfile::TempDir,
}

fn open_ledger(database: &Database) -> Ledger {
    let metrics = LedgerMetrics::new(&prometheus::Registry::new()).unwrap();
    Ledger::open(database.clone(), &genesis(), HASH, metrics).unwrap()
}

impl Holder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("database")).unwrap();
        let genesis_block = Block::genesis(HASH, 0);
        let blocks = BlockStore::open(database.clone(), genesis_block.clone()).unwrap();
        let mut ledger = open_ledger(&database);
        let store = SnapshotStore::open(&folder.path().join("snapshots")).unwrap();
        let (mut parent, mut epoch) = (genesis_block, Epoch(0));
        for height in 1..=80 {
            let newest = (height - 1) / CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL;
            let checkpoint = ledger.checkpoint(newest).unwrap().unwrap();
            let ends = newest == EPOCH_BLOCKS * epoch.next().0;
            let root =
                || epoch.0.checked_sub(1).map_or(Digest::default(), |_| store.root(EPOCH_BLOCKS * epoch.0).unwrap());
            let boundary = ends.then(|| Boundary {
                validators: validators_hash(epoch.next(), &members()),
                snapshot: root(),
                version: Version(1),
            });
            let parent_digest = parent.digest();
            let block = Block {
                epoch,
                height: Height(height),
                view: View(height),
                checkpoint,
                boundary,
                ..Block::genesis(parent_digest, height)
            };
            let mut writes = database.writes();
            blocks.finalize(&mut writes, std::slice::from_ref(&block), &finalization(&block)).unwrap();
            ledger.execute(&block, &[], &mut writes).unwrap();
            if ends {
                let (block, finalization, next) = (block.clone(), finalization(&block), members());
                blocks.put_link(&mut writes, &Link { block, finalization, next }).unwrap();
            }
            writes.commit_unsynced().unwrap();
            blocks.finalized_to(&block);
            if height.is_multiple_of(EPOCH_BLOCKS) {
                store.make(&database, height, &AtomicBool::new(false)).unwrap();
            }
            if ends {
                epoch = epoch.next();
            }
            parent = block;
        }
        Self { blocks, database, store, _folder: folder }
    }

    fn answer(&self, request: &PeerMessage) -> PeerMessage {
        match request {
            PeerMessage::FetchBoundaries(first) => {
                let links = self.blocks.links(*first, 64).unwrap();
                let links = links.into_iter().map(|link| Link::decode(link).unwrap()).collect();
                PeerMessage::Boundaries(Height(0), *first, links)
            }
            PeerMessage::FetchManifest(cutoff) => {
                PeerMessage::Manifest(*cutoff, self.store.manifest(cutoff.0).unwrap().hashes.clone())
            }
            PeerMessage::FetchChunk(cutoff, index) => {
                PeerMessage::Chunk(*cutoff, *index, self.store.chunk(cutoff.0, *index).unwrap_or_default().into())
            }
            PeerMessage::FetchRange(from) => {
                // Up to the end of the epoch, as nodes serve ranges.
                let mut blocks: Vec<Block> =
                    (0..3).map(|above| self.blocks.get(Height(from.0 + above)).unwrap().unwrap().block).collect();
                let end = blocks.iter().position(|block| block.boundary.is_some());
                blocks.truncate(end.map_or(blocks.len(), |end| end + 1));
                let block = blocks.last().unwrap().clone();
                PeerMessage::Range(blocks, finalization(&block))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn joiner(data_dir: &std::path::Path, empty: bool) -> Joiner {
    let rules = ChainRules { genesis_hash: HASH, epoch_blocks: Some(EPOCH_BLOCKS), version: Version(1) };
    let genesis = Block::genesis(HASH, 0);
    let restarts = Restarts::default();
    let chain = Chain { rules, genesis, members: members(), epoch_blocks: EPOCH_BLOCKS, restarts };
    let policy = Policy { behind_blocks: 20, replaceable: empty, empty };
    Joiner::new(chain, DatabaseFolders::new(data_dir), policy).unwrap()
}

fn around() -> Surroundings {
    Surroundings { executed: Height(0), network: Height(80), connected: (0..3).map(PeerId).collect() }
}

/// Runs until nothing is asked any more; `reply` answers for the peers.
fn run(joiner: &mut Joiner, mut reply: impl FnMut(PeerId, &PeerMessage) -> Option<PeerMessage>) {
    for round in 0..2_000_u64 {
        let now = Millis(round * 100);
        joiner.tick(now, &around()).unwrap();
        for (peer, request) in joiner.take_sends() {
            if let Some(answer) = reply(peer, &request) {
                joiner.receive(now, peer, answer, &around()).unwrap();
            }
        }
        if joiner.is_done() {
            return;
        }
    }
}

fn check_joined(data_dir: &std::path::Path, holder: &Holder) {
    let folders = DatabaseFolders::new(data_dir);
    folders.settle(&Block::genesis(HASH, 0)).unwrap();
    assert!(!folders.joining().exists());
    let database = Database::open(&folders.database()).unwrap();
    let blocks = BlockStore::open(database.clone(), Block::genesis(HASH, 0)).unwrap();
    let mut ledger = open_ledger(&database);
    assert_eq!((ledger.executed(), blocks.finalized().0), (Height(32), Height(33)));
    assert_eq!(blocks.anchor().unwrap().0.block, holder.blocks.get(Height(33)).unwrap().unwrap().block);
    for height in 33..=80 {
        let block = holder.blocks.get(Height(height)).unwrap().unwrap().block;
        let mut writes = database.writes();
        ledger.execute(&block, &[], &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
    }
    let reader = LedgerReader::new(holder.database.clone());
    assert_eq!(ledger.checkpoint(80).unwrap(), reader.checkpoint(80).unwrap());
    assert_eq!(blocks.links(Epoch(0), 64).unwrap().len(), 2, "it can show others the way");
}

#[test]
fn an_empty_node_walks_fetches_and_begins_at_the_newest_proven_snapshot() {
    let holder = Holder::new();
    assert!(holder.store.manifest(32).unwrap().hashes.len() >= 4, "several chunks");
    let folder = tempfile::tempdir().unwrap();
    let mut joiner = joiner(folder.path(), true);
    let mut asked = BTreeSet::new();
    run(&mut joiner, |peer, request| {
        if matches!(request, PeerMessage::FetchChunk(..)) {
            asked.insert(peer);
        }
        Some(holder.answer(request))
    });
    assert!(joiner.is_done());
    assert!(asked.len() > 1, "chunks come from several peers");
    check_joined(folder.path(), &holder);
}

#[test]
fn a_crash_costs_only_the_chunks_under_way() {
    let holder = Holder::new();
    let folder = tempfile::tempdir().unwrap();
    let mut first = joiner(folder.path(), true);
    let mut given = 0;
    run(&mut first, |_, request| {
        let is_chunk = matches!(request, PeerMessage::FetchChunk(..));
        given += u32::from(is_chunk);
        (!is_chunk || given <= 2).then(|| holder.answer(request))
    });
    // Given up for lack of progress would have removed what was there.
    drop(first);
    let mut first = joiner(folder.path(), true);
    let mut stored = 0;
    for round in 0..40_u64 {
        let now = Millis(round);
        first.tick(now, &around()).unwrap();
        for (peer, request) in first.take_sends() {
            let is_chunk = matches!(request, PeerMessage::FetchChunk(..));
            if !is_chunk || stored < 2 {
                stored += u32::from(is_chunk);
                first.receive(now, peer, holder.answer(&request), &around()).unwrap();
            }
        }
    }
    assert_eq!(first.progress().unwrap().chunks, 2);
    drop(first);

    let mut second = joiner(folder.path(), true);
    let mut fetched = BTreeSet::new();
    run(&mut second, |_, request| {
        if let PeerMessage::FetchChunk(_, index) = request {
            assert!(fetched.insert(*index), "asked twice");
        }
        Some(holder.answer(request))
    });
    assert!(second.is_done());
    assert_eq!(fetched.len(), holder.store.manifest(32).unwrap().hashes.len() - 2);
    check_joined(folder.path(), &holder);
}

#[test]
fn a_liar_costs_one_answer_and_is_left_alone() {
    let holder = Holder::new();
    let folder = tempfile::tempdir().unwrap();
    let mut joiner = joiner(folder.path(), true);
    let mut lies = 0;
    run(&mut joiner, |peer, request| {
        let mut answer = holder.answer(request);
        if peer == PeerId(1) {
            match &mut answer {
                PeerMessage::Chunk(_, _, chunk) => {
                    let mut bytes = chunk.to_vec();
                    bytes[100] ^= 1;
                    *chunk = bytes.into();
                    lies += 1;
                }
                PeerMessage::Manifest(_, hashes) => {
                    hashes.swap(0, 1);
                    lies += 1;
                }
                PeerMessage::Boundaries(_, _, links) => {
                    if let Some(link) = links.first_mut() {
                        link.next[0].power = Power(99);
                        lies += 1;
                    }
                }
                PeerMessage::Range(blocks, _) => {
                    blocks.pop();
                    lies += 1;
                }
                _ => {}
            }
        }
        Some(answer)
    });
    assert!(joiner.is_done());
    assert!((1..=2).contains(&lies), "{lies} lies were asked for: with two chunks under way, two at most");
    check_joined(folder.path(), &holder);
}

#[test]
fn an_archive_with_blocks_and_a_node_in_sync_take_no_snapshot() {
    let holder = Holder::new();
    let folder = tempfile::tempdir().unwrap();
    let mut archive = joiner(folder.path(), false);
    run(&mut archive, |_, request| Some(holder.answer(request)));
    assert!(!archive.is_done() && archive.progress().is_none());
    // Empty, but the chain is too short to be worth it, and peers keep all of it.
    let mut young = joiner(folder.path(), true);
    young.policy.behind_blocks = 100;
    run(&mut young, |_, request| Some(holder.answer(request)));
    assert!(!young.is_done() && young.progress().is_none());
    assert!(!DatabaseFolders::new(folder.path()).joining().exists());
}

#[test]
fn a_crash_between_any_two_renames_leaves_a_whole_database() {
    let genesis = Block::genesis(HASH, 0);
    let make = |path: &std::path::Path, mark: &[u8]| {
        let database = Database::open(path).unwrap();
        let mut writes = database.writes();
        writes.put(Family::Ledger, b"mark", mark).unwrap();
        writes.commit_synced().unwrap();
    };
    let mark = |folders: &DatabaseFolders| {
        Database::open(&folders.database()).unwrap().get(Family::Ledger, b"mark").unwrap().unwrap()
    };
    for stage in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let folders = DatabaseFolders::new(folder.path());
        let path = |name: &str| folder.path().join(name);
        match stage {
            // The snapshot is whole but has not its name yet: the old one stays.
            0 => {
                make(&path("database"), b"old");
                make(&path("database.joining"), b"new");
            }
            1 => {
                make(&path("database"), b"old");
                make(&path("database.joined"), b"new");
            }
            2 => {
                make(&path("database.replaced"), b"old");
                make(&path("database.joined"), b"new");
            }
            _ => {
                make(&path("database.replaced"), b"old");
                make(&path("database"), b"new");
            }
        }
        folders.settle(&genesis).unwrap();
        assert_eq!(mark(&folders), if stage == 0 { b"old" } else { b"new" }, "stage {stage}");
        assert!(!path("database.replaced").exists() && !path("database.joined").exists());
    }
}
