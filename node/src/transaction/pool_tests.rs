#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bizra_proto::ceremony::{Genesis, GenesisAccount};
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Height};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use super::*;
use crate::blockchain::{Ledger, LedgerMetrics, Receipt};
use crate::storage::Database;
use crate::transaction::{Address, Payload, PayloadVerifier, Transfer};

fn chain() -> ChainId {
    ChainId::new("demo-1").unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

fn address(seed: u8) -> Address {
    Address(VerificationKeyBytes::from(&key(seed)).into())
}

fn transfer(from: u8, nonce: u64, amount: u64, expiry_height: u64) -> Bytes {
    let recipient = address(9);
    Transfer { chain: chain(), nonce, fee: 0, expiry_height, recipient, amount, memo: &[] }.sign(&key(from)).unwrap()
}

struct World {
    pool: TransactionPool,
    batches: mpsc::Receiver<PackedBatch>,
    orders: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

/// A pool over a ledger in which account 1 has 100, with room for `room` batches towards consensus.
fn world(room: usize) -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let genesis = Genesis {
        version: 1,
        chain_id: "demo-1".to_owned(),
        time_milliseconds: 0,
        validators: Vec::new(),
        accounts: vec![GenesisAccount { address: address(1).to_string(), balance: "100".to_owned() }],
        parameters: Parameters::default(),
    };
    let registry = prometheus::Registry::new();
    drop(Ledger::open(database.clone(), &genesis, Digest::default(), LedgerMetrics::new(&registry).unwrap()).unwrap());
    let (sender, batches) = mpsc::channel(room);
    let metrics = TransactionMetrics::new(&registry).unwrap();
    let (orders, follows) = watch::channel(true);
    let pool = TransactionPool::start(chain(), LedgerReader::new(database), sender, follows, metrics).unwrap();
    World { pool, batches, orders, _folder: folder }
}

fn outcome(height: u64, ids: &[TransactionId]) -> BlockOutcome {
    let receipt =
        |(index, &id): (u32, &TransactionId)| Receipt { id, height, index, failure: None, trace: TraceId::default() };
    BlockOutcome {
        height: Height(height),
        hash: Digest([1; 32]),
        parent: Digest([0; 32]),
        time_milliseconds: 0,
        batches: Vec::new(),
        receipts: Arc::new((0..).zip(ids).map(receipt).collect()),
        duplicates: Vec::new(),
        duplicate_positions: Vec::new(),
        effects: Vec::new(),
        reports: Vec::new(),
    }
}

async fn reasons(pool: &TransactionPool, transactions: Vec<Bytes>) -> Vec<&'static str> {
    let answers = pool.submit(transactions, TraceId::default()).await;
    answers.iter().map(|answer| answer.result.as_ref().map_or_else(Rejection::reason, |()| "")).collect()
}

#[tokio::test]
async fn admitted_transactions_leave_in_order_in_a_valid_payload() {
    let mut world = world(4);
    let transactions = vec![transfer(1, 0, 5, 9), transfer(1, 1, 5, 9), transfer(1, 2, 5, 9)];
    let trace = TraceId([7; 16]);
    let answers = world.pool.submit(transactions.clone(), trace).await;
    let ids: Vec<_> = transactions.iter().map(|bytes| Some(TransactionId::of(bytes))).collect();
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ids);
    assert!(answers.iter().all(|answer| answer.result.is_ok()));
    let batch = world.batches.recv().await.unwrap();
    assert_eq!(PayloadVerifier::new(chain()).verify(std::slice::from_ref(&batch.payload)), [Ok(())]);
    let packed: Vec<_> = Payload::parse(&batch.payload).unwrap().entries().map(|entry| entry.transaction).collect();
    assert_eq!(packed, transactions);
    assert!(Payload::parse(&batch.payload).unwrap().entries().all(|entry| entry.trace == trace));
}

#[tokio::test]
async fn every_bad_transaction_gets_its_reason_and_the_good_one_passes() {
    let mut world = world(4);
    let good = transfer(1, 0, 5, 9);
    let mut forged = transfer(1, 1, 5, 9).to_vec();
    forged[129] ^= 1;
    let elsewhere = ChainId::new("demo-2").unwrap();
    let foreign =
        Transfer { chain: elsewhere, nonce: 0, fee: 0, expiry_height: 9, recipient: address(1), amount: 1, memo: &[] };
    let submitted = vec![
        Bytes::from_static(b"noise"),
        Bytes::from(vec![1; 4096]),
        foreign.sign(&key(1)).unwrap(),
        Bytes::from(forged),
        good.clone(),
        good.clone(),
        transfer(2, 0, 1, 9),
    ];
    let expected =
        ["UnknownVersion", "TooLarge", "WrongChain", "InvalidSignature", "", "AlreadyPending", "InsufficientBalance"];
    assert_eq!(reasons(&world.pool, submitted).await, expected);
    let batch = world.batches.recv().await.unwrap();
    assert_eq!(Payload::parse(&batch.payload).unwrap().count(), 1);
    assert_eq!(reasons(&world.pool, vec![good.clone()]).await, ["AlreadyPending"]);
    world.pool.on_finalized(&outcome(9, &[TransactionId::of(&good)]));
    assert_eq!(reasons(&world.pool, vec![transfer(1, 1, 1, 9), transfer(1, 1, 1, 10)]).await, ["Expired", ""]);
}

#[tokio::test]
async fn a_full_consensus_makes_the_node_busy_and_loses_nothing() {
    let mut world = world(1);
    // The first batch fills the channel, the second waits inside the pool, the third is turned away.
    assert_eq!(reasons(&world.pool, vec![transfer(1, 0, 1, 9)]).await, [""]);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 1, 1, 9)]).await, [""]);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 2, 1, 9)]).await, ["Busy"]);
    world.batches.recv().await.unwrap();
    world.batches.recv().await.unwrap();
    assert_eq!(reasons(&world.pool, vec![transfer(1, 2, 1, 9)]).await, [""]);
}

#[tokio::test]
async fn a_stream_hears_the_admission_and_then_the_receipt_and_ends() {
    let mut world = world(4);
    let (submitter, mut events) = world.pool.stream(TraceId::default());
    let transaction = transfer(1, 0, 5, 9);
    let id = TransactionId::of(&transaction);
    submitter.submit(vec![transaction]).await.unwrap();
    drop(submitter);
    world.batches.recv().await.unwrap();
    world.pool.on_finalized(&outcome(1, &[id, TransactionId([3; 32])]));
    let admission = Admission { id: Some(id), result: Ok(()) };
    assert_eq!(events.next().await, Some(Ok(StreamEvent::Admissions(vec![admission]))));
    let Some(Ok(StreamEvent::Receipts(receipts))) = events.next().await else {
        unreachable!("a receipt follows the admission")
    };
    assert_eq!((receipts.len(), receipts[0].id), (1, id));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn who_waits_for_a_transaction_submitted_elsewhere_hears_of_it() {
    let world = world(4);
    let id = TransactionId([5; 32]);
    let mut waiter = world.pool.wait_for(id).unwrap();
    world.pool.on_finalized(&outcome(3, &[id]));
    assert_eq!(waiter.receipt().await.map(|receipt| receipt.height), Some(3));
}

#[tokio::test]
async fn a_node_orders_while_its_key_is_in_the_set_and_says_so_when_it_is_not_or_the_node_stops() {
    let mut world = world(1);
    world.orders.send_replace(false);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 0, 1, 9)]).await, ["NotAValidator"]);
    let (submitter, mut events) = world.pool.stream(TraceId::default());
    submitter.submit(vec![transfer(1, 0, 1, 9)]).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(StreamEvent::Admissions(_)))));
    // It joins, and leaves again.
    world.orders.send_replace(true);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 0, 1, 9)]).await, [""]);
    assert!(world.batches.recv().await.is_some());
    world.orders.send_replace(false);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 1, 1, 9)]).await, ["NotAValidator"]);
    world.orders.send_replace(true);
    drop(world.batches);
    assert_eq!(reasons(&world.pool, vec![transfer(1, 0, 1, 9)]).await, ["Unavailable"]);
}

#[tokio::test]
async fn what_expires_while_pending_is_given_up() {
    let mut world = world(4);
    let (submitter, mut events) = world.pool.stream(TraceId::default());
    submitter.submit(vec![transfer(1, 0, 5, 2)]).await.unwrap();
    world.batches.recv().await.unwrap();
    events.next().await;
    world.pool.on_finalized(&outcome(2, &[]));
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap();
    let Some(Ok(StreamEvent::Admissions(admissions))) = event else { unreachable!("the stream is told") };
    assert_eq!(admissions[0].result, Err(Rejection::Expired { expiry_height: 2 }));
}

#[tokio::test]
async fn what_would_only_wait_longer_is_refused_until_the_chain_goes_on() {
    let mut world = world(1_024);
    let first: Vec<_> = (0..1_024).map(|nonce| transfer(1, nonce, 0, 99)).collect();
    assert!(reasons(&world.pool, first.clone()).await.iter().all(|reason| reason.is_empty()));
    let mut nonce = 1_024;
    let refused = loop {
        let more: Vec<_> = (nonce..nonce + 1_024).map(|nonce| transfer(1, nonce, 0, 99)).collect();
        let answers = reasons(&world.pool, more).await;
        if answers.iter().any(|reason| !reason.is_empty()) {
            break answers;
        }
        nonce += 1_024;
        assert!(nonce < 65_536, "nothing is ever refused");
    };
    assert!(refused.iter().all(|&reason| reason == "Busy"), "no request is taken in part");
    while world.batches.try_recv().is_ok() {}
    let ids: Vec<_> = first.iter().map(|bytes| TransactionId::of(bytes)).collect();
    world.pool.on_finalized(&outcome(1, &ids));
    assert_eq!(reasons(&world.pool, vec![transfer(1, nonce, 0, 99)]).await, [""]);
}
