#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Height};
use proptest::prelude::*;

use super::*;
use crate::block::BlockStore;
use crate::blockchain::{BlockOutcome, Effect, Failure, Moment, Receipt, prune_ledger};
use crate::chain_testing::{TestChain, address, contradiction, genesis_block, open_ledger, public};
use crate::golden::assert_golden;
use crate::storage::Database;
use crate::transaction::{Address, TraceId, TransactionId};

fn log(chain: &TestChain) -> (EventWriter, EventLog) {
    open(chain.database.clone(), Arc::new(chain.blocks.clone())).unwrap()
}

fn all(chain: &TestChain) -> Vec<Event> {
    let (_writer, log) = log(chain);
    (1..=chain.height()).flat_map(|height| log.events_of(height).unwrap()).collect()
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.data.kind()).collect()
}

#[test]
fn the_events_of_a_block_come_in_the_order_of_its_life() {
    use EventKind as K;
    let mut chain = TestChain::new();
    chain.run_to(6);
    let (_writer, log) = log(&chain);
    let fifth = log.events_of(5).unwrap();
    // Three transfers and a failure, then two operations of one owner each.
    let submitted = vec![K::TransactionSubmitted; 6];
    let agreed = vec![K::BlockCreated, K::BlockValidated, K::ConsensusReached];
    let transfers = [K::TransactionApplied, K::Transferred].repeat(3);
    let rest = vec![
        K::TransactionFailed,
        K::TransactionApplied,
        K::ValidatorDeactivated,
        K::TransactionApplied,
        K::StakeReleased,
        K::BlockFinalized,
    ];
    assert_eq!(kinds(&fifth), [submitted, agreed, transfers, rest].concat());
    for (index, event) in (0..).zip(&fifth) {
        assert_eq!(event.position, Position { height: 5, index });
    }
    // The correlation id of a transaction is that of its submit, in all its events.
    assert_eq!((fifth[1].trace, fifth[12].trace), (TraceId([2; 16]), TraceId([2; 16])));
    assert_eq!(fifth[1].transaction, fifth[12].transaction);
    let EventData::TransactionFailed { sender, failure } = fifth[15].data else { panic!() };
    assert_eq!((sender, failure), (address(1), Failure::BadNonce));
    let EventData::BlockFinalized { transactions, failed, .. } = fifth[20].data else { panic!() };
    assert_eq!((transactions, failed), (6, 1));

    // In block 6 a transfer of block 5 is ordered again: it has no event.
    let sixth = log.events_of(6).unwrap();
    let ids: BTreeSet<_> = fifth.iter().filter_map(|event| event.transaction).collect();
    assert!(sixth.iter().filter_map(|event| event.transaction).all(|id| !ids.contains(&id)));
    assert_eq!(BlockRecord::decode(&stored_record(&chain.database, 6).unwrap().unwrap()).unwrap().runs.len(), 3);
}

#[test]
fn events_are_the_same_after_restarts_lost_turns_and_catching_up_in_other_steps() {
    let mut one = TestChain::new();
    one.run_to(220);
    let events = all(&one);
    let seen: BTreeSet<_> = events.iter().map(|event| event.data.kind().name()).collect();
    let every: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(seen, every, "the chain makes every kind of event");

    let mut other = TestChain::new();
    for height in [9, 33, 64, 65, 100, 171, 220] {
        other.run_to(height);
        other = other.reopen(height % 2 == 0);
    }
    assert!(all(&other) == events);

    // A node that catches up commits many blocks at once.
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let mut ledger = open_ledger(&database);
    let mut writes = database.writes();
    for height in 1..=220 {
        let block = one.blocks.get(Height(height)).unwrap().unwrap().block;
        let batches: Vec<_> = block.batches.iter().map(|digest| one.blocks.batch(*digest).unwrap().unwrap()).collect();
        let outcome = ledger.execute(&block, &batches, &mut writes).unwrap();
        append(&mut writes, &outcome).unwrap();
        if height % 50 == 0 || height == 220 {
            std::mem::replace(&mut writes, database.writes()).commit_unsynced().unwrap();
        }
    }
    drop(writes);
    for height in 1..=220 {
        let record = stored_record(&database, height).unwrap().unwrap();
        assert_eq!(Some(&record), stored_record(&one.database, height).unwrap().as_ref());
        assert!(record.len() < 200, "{} bytes for block {height}", record.len());
    }
}

#[test]
fn a_validator_that_a_block_reports_is_jailed_before_the_blocks_transactions() {
    let mut chain = TestChain::new();
    chain.reports.insert(3, contradiction(0, 3));
    chain.run_to(3);
    let (_writer, log) = log(&chain);
    let third = log.events_of(3).unwrap();
    let reached = third.iter().position(|event| event.data.kind() == EventKind::ConsensusReached).unwrap();
    let expected = EventData::ValidatorJailed { owner: address(4), consensus_key: public(104), slashed: 0 };
    assert_eq!(third[reached + 1].data, expected);
    assert_eq!(third[reached + 1].transaction, None);
    assert_eq!(third[reached + 2].data.kind(), EventKind::TransactionApplied);
}

#[test]
fn the_record_of_a_large_block_is_small_and_cheap() {
    let id = TransactionId([1; 32]);
    let receipt = |index| Receipt { id, height: 1, index, failure: None, trace: TraceId::default() };
    let outcome = BlockOutcome {
        height: Height(1),
        hash: Digest::default(),
        parent: Digest::default(),
        time_milliseconds: 0,
        batches: Vec::new(),
        receipts: Arc::new((0..100_000).map(receipt).collect()),
        duplicates: vec![id],
        duplicate_positions: vec![500],
        effects: Vec::new(),
        reports: Vec::new(),
    };
    let start = std::time::Instant::now();
    let bytes = BlockRecord::of(&outcome).encode();
    eprintln!("{} ns a transaction", start.elapsed().as_nanos() as f64 / 100_000.0);
    assert_eq!(bytes.len(), 22);
}

#[test]
fn version_1_of_the_stored_record_never_changes() {
    let runs = vec![
        (Verdict::Applied, 70_000),
        (Verdict::Failed(Failure::BadNonce), 1),
        (Verdict::Duplicate, 2),
        (Verdict::Applied, 3),
    ];
    let effects = vec![
        (
            Moment::BeforeTransactions,
            Effect::ReportRefused { owner: Address([4; 32]), consensus_key: [5; 32], failure: Failure::JailingStopped },
        ),
        (Moment::With(0), Effect::StakePaidOut { amount: 7 }),
        (Moment::With(70_003), Effect::ValidatorJailed { owner: Address([1; 32]), consensus_key: [6; 32], slashed: 9 }),
        (Moment::AfterTransactions, Effect::ParametersUpdated(Parameters::default())),
        (
            Moment::AfterTransactions,
            Effect::ValidatorSetChosen {
                epoch: 3,
                hash: Digest([2; 32]),
                members: 5,
                power: 450,
                waiting: vec![Address([3; 32])],
            },
        ),
    ];
    let record = BlockRecord { runs, effects };
    let bytes = record.encode();
    assert_eq!(BlockRecord::decode(&bytes), Some(record));
    assert!((0..bytes.len()).all(|length| BlockRecord::decode(&bytes[..length]).is_none()));
    assert_golden("event_store/golden/record.txt", &(hex::encode(bytes) + "\n"));
}

async fn collect(log: &EventLog, request: SubscriptionRequest) -> Result<Vec<Event>, EventError> {
    let mut subscription = log.subscribe(request).await?;
    let mut events = Vec::new();
    while let Some(part) = subscription.next().await {
        events.extend(part?);
    }
    Ok(events)
}

fn from(height: u64, index: u32) -> SubscriptionRequest {
    SubscriptionRequest { from: Some(Position { height, index }), ..SubscriptionRequest::default() }
}

#[tokio::test]
async fn a_subscription_from_any_position_has_every_later_event_once_and_in_order() {
    let mut chain = TestChain::new();
    chain.run_to(40);
    let (_writer, log) = log(&chain);
    let events = all(&chain);
    assert!(collect(&log, from(0, 0)).await.unwrap() == events);
    for start in (0..events.len()).step_by(17) {
        let Position { height, index } = events[start].position;
        assert!(collect(&log, from(height, index)).await.unwrap() == events[start..]);
        let after = SubscriptionRequest { after: true, ..from(height, index) };
        assert!(collect(&log, after).await.unwrap() == events[start + 1..]);
    }
    let filter = EventFilter::from_names(["Transferred", "BlockFinalized"]).unwrap();
    let wanted = collect(&log, SubscriptionRequest { filter, ..from(1, 0) }).await.unwrap();
    assert!(wanted.iter().eq(events.iter().filter(|event| filter.wants(event.data.kind()))));
    assert!(!wanted.is_empty() && wanted.len() < events.len());
}

#[tokio::test]
async fn positions_that_cannot_be_read_are_refused_with_a_reason() {
    let mut chain = TestChain::new();
    chain.run_to(40);
    let (_writer, log) = log(&chain);
    let error = async |request| log.subscribe(request).await.err().unwrap();
    assert!(matches!(error(from(42, 0)).await, EventError::Future { height: 42, executed: 40 }));
    assert!(matches!(error(from(41, 1)).await, EventError::Future { height: 41, executed: 40 }));
    assert!(matches!(error(from(5, 22)).await, EventError::NoSuchIndex { height: 5, index: 22, count: 21 }));
    assert!(matches!(error(from(5, u32::MAX)).await, EventError::NoSuchIndex { .. }));
    assert!(log.subscribe(from(5, 21)).await.is_ok(), "behind the last event of a block");
    assert!(log.subscribe(from(41, 0)).await.is_ok(), "what comes next");
    // Who reads of a transaction's end before the writer tells of its block may ask for that block's events at once.
    chain.run_to(42);
    assert!(collect(&log, from(42, 0)).await.unwrap()[0].position == Position { height: 42, index: 0 });

    let mut writes = chain.database.writes();
    (1..20).for_each(|height| chain.blocks.prune(&mut writes, Height(height)).unwrap());
    prune_ledger(&mut writes, 0, 20).unwrap();
    prune_events(&mut writes, 0, 20).unwrap();
    writes.commit_unsynced().unwrap();
    assert!(matches!(error(from(19, 0)).await, EventError::Pruned { oldest: 20 }));
    assert!(matches!(error(from(0, 0)).await, EventError::Pruned { oldest: 20 }));
    assert_eq!(collect(&log, from(20, 0)).await.unwrap()[0].position, Position { height: 20, index: 0 });

    for text in ["", ":", "1", "1:", ":1", "-1:0", "+1:0", "1:0:0", "1:4294967296", "18446744073709551616:0", "a:b"] {
        assert!(text.parse::<Position>().is_err(), "{text}");
    }
    assert_eq!("7:3".parse(), Ok(Position { height: 7, index: 3 }));
    assert!(EventFilter::from_names(["Nothing"]).unwrap_err().contains("BlockFinalized"));
    assert!(EventFilter::from_names(std::iter::repeat_n("Transferred", 1_000)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_while_blocks_come_sees_no_gap_and_a_slow_one_holds_up_nobody() {
    let mut chain = TestChain::new();
    chain.run_to(10);
    let (writer, log) = log(&chain);
    let follow = SubscriptionRequest { follow: true, ..from(1, 0) };
    let mut subscription = log.subscribe(follow).await.unwrap();
    // These never read.
    let mut slow = Vec::new();
    while let Ok(one) = log.subscribe(follow).await {
        slow.push(one);
    }
    assert!(slow.len() < 64);
    assert!(matches!(log.subscribe(follow).await.err(), Some(EventError::Busy)));
    let live = SubscriptionRequest { follow: true, ..SubscriptionRequest::default() };
    slow.pop();
    let mut live = loop {
        // Its place is free when its task has noticed.
        match log.subscribe(live).await {
            Ok(live) => break live,
            Err(_) => tokio::task::yield_now().await,
        }
    };

    let ordering = tokio::task::spawn_blocking(move || {
        for height in 11..=120 {
            chain.run_to(height);
            writer.applied(Height(chain.height()));
        }
        (chain, writer)
    });
    let last = |events: &[Event]| {
        events
            .last()
            .is_some_and(|event| event.position.height == 120 && event.data.kind() == EventKind::BlockFinalized)
    };
    let (mut seen, mut seen_live) = (Vec::new(), Vec::new());
    while !last(&seen) {
        seen.extend(subscription.next().await.unwrap().unwrap());
    }
    while !last(&seen_live) {
        seen_live.extend(live.next().await.unwrap().unwrap());
    }
    let (chain, writer) = ordering.await.unwrap();
    let events = all(&chain);
    assert!(seen == events);
    assert!(seen_live.iter().eq(events.iter().filter(|event| event.position.height > 10)));
    // The node stops: every subscription ends and says so.
    drop(writer);
    assert!(matches!(subscription.next().await, Some(Err(EventError::Stopping))));
    assert!(subscription.next().await.is_none());
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer_and_a_record_has_one_form(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0..3_u8,
    ) {
        match (shape, bytes.len() > 13) {
            (1, true) => bytes[..5].copy_from_slice(&[1, 0, 0, 0, 0]),
            (2, true) => bytes[..12].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 9, 0, 1]),
            _ => {}
        }
        if let Some(record) = BlockRecord::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }
}

#[test]
fn the_store_of_an_empty_chain_has_no_events() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    drop(open_ledger(&database));
    let blocks = BlockStore::open(database.clone(), genesis_block()).unwrap();
    let (_writer, log) = open(database, Arc::new(blocks)).unwrap();
    assert!(matches!(log.events_of(1), Err(EventError::Future { height: 1, executed: 0 })));
}
