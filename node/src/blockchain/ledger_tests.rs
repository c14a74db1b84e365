#![allow(clippy::unwrap_used, clippy::panic)]

use bizra_proto::ceremony::GenesisAccount;
use bizra_simplex::types::{Epoch, Signature, ValidatorIndex};
use bytes::Bytes;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use super::*;
use crate::blockchain::{AtHeight, Failure, LedgerReader, verify_conservation};
use crate::transaction::{Address, PayloadBuilder, Transfer};

const CHAIN: &str = "demo-1";

fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

fn address(seed: u8) -> Address {
    Address(VerificationKeyBytes::from(&key(seed)).into())
}

fn genesis() -> Genesis {
    let account = |seed: u8| GenesisAccount { address: address(seed).to_string(), balance: "100".to_owned() };
    Genesis {
        version: 1,
        chain_id: CHAIN.to_owned(),
        time_milliseconds: 0,
        validators: Vec::new(),
        accounts: vec![account(1), account(2)],
        parameters: Parameters::default(),
    }
}

fn transfer(from: u8, to: u8, nonce: u64, amount: u64) -> Bytes {
    let chain = ChainId::new(CHAIN).unwrap();
    Transfer { chain, nonce, fee: 1, expiry_height: 50, recipient: address(to), amount, memo: b"m" }
        .sign(&key(from))
        .unwrap()
}

fn batch(transactions: &[Bytes]) -> Batch {
    let mut builder = PayloadBuilder::default();
    for transaction in transactions {
        builder.push(TraceId([9; 16]), transaction);
    }
    let payload = builder.finish().unwrap();
    Batch { epoch: Epoch(0), origin: ValidatorIndex(0), sequence: 0, payload, signature: Signature([0; 64]) }
}

fn block(height: u64, batches: &[Batch]) -> Block {
    let digests = (0..batches.len()).map(|index| Digest([index as u8; 32])).collect();
    Block { height: Height(height), batches: digests, ..Block::genesis(Digest([0; 32]), height) }
}

fn metrics() -> LedgerMetrics {
    LedgerMetrics::new(&prometheus::Registry::new()).unwrap()
}

struct World {
    database: Database,
    ledger: Ledger,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let ledger = Ledger::open(database.clone(), &genesis(), Digest::default(), metrics()).unwrap();
    World { database, ledger, _folder: folder }
}

impl World {
    fn run(&mut self, height: u64, batches: &[Batch]) -> BlockOutcome {
        let mut writes = self.database.writes();
        let outcome = self.ledger.execute(&block(height, batches), batches, &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        outcome
    }

    fn reader(&self) -> LedgerReader {
        LedgerReader::new(self.database.clone())
    }

    fn balance(&self, seed: u8) -> u64 {
        match self.reader().account(&address(seed), None).unwrap() {
            AtHeight::Found(account, _) => account.balance,
            other => panic!("{other:?}"),
        }
    }
}

fn failures(outcome: &BlockOutcome) -> Vec<Option<Failure>> {
    outcome.receipts.iter().map(|receipt| receipt.failure).collect()
}

#[test]
fn a_block_moves_money_once_and_conserves_it() {
    let mut world = world();
    let batches = [batch(&[transfer(1, 3, 0, 10), transfer(2, 3, 0, 20)]), batch(&[transfer(3, 1, 0, 5)])];
    let outcome = world.run(1, &batches);
    assert_eq!(failures(&outcome), [None, None, None]);
    assert_eq!(outcome.receipts.iter().map(|receipt| receipt.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((world.balance(1), world.balance(2), world.balance(3)), (94, 79, 24));
    let totals = world.reader().totals().unwrap();
    assert_eq!((totals.height, totals.fees, totals.transactions, totals.supply), (1, 3, 3, 200));
    assert_eq!(verify_conservation(&world.database).unwrap().accounts, 3);
    assert_eq!(world.reader().block_transactions(1).unwrap(), Some(3));
    assert_eq!(world.reader().block_transactions(2).unwrap(), None);
}

#[test]
fn a_record_leads_to_the_bytes_of_its_transaction() {
    let mut world = world();
    let wanted = transfer(2, 3, 0, 20);
    let batches = [batch(&[transfer(1, 3, 0, 10)]), batch(&[transfer(1, 3, 1, 10), wanted.clone()])];
    world.run(1, &batches);
    let record = world.reader().transaction(&TransactionId::of(&wanted)).unwrap().unwrap();
    let payload = &batches[usize::from(record.batch)].payload;
    let start = record.offset as usize;
    assert_eq!(payload.slice(start..start + usize::from(record.length)), wanted);
    assert_eq!(record.receipt.trace, TraceId([9; 16]));
}

#[test]
fn a_duplicate_is_skipped_and_keeps_its_first_receipt() {
    let mut world = world();
    let (early, first) = (transfer(1, 3, 1, 10), transfer(1, 3, 0, 10));
    let outcome = world.run(1, &[batch(&[early.clone(), first.clone(), first.clone()])]);
    assert_eq!(failures(&outcome), [Some(Failure::BadNonce), None]);
    assert_eq!(outcome.duplicates, [TransactionId::of(&first)]);
    // Its nonce would be right now, but its receipt stands.
    let outcome = world.run(2, &[batch(&[early.clone(), first])]);
    assert!(outcome.receipts.is_empty() && outcome.duplicates.len() == 2);
    let record = world.reader().transaction(&TransactionId::of(&early)).unwrap().unwrap();
    assert_eq!((record.receipt.height, record.receipt.failure), (1, Some(Failure::BadNonce)));
    assert_eq!(world.balance(3), 10);
}

#[test]
fn several_blocks_in_one_commit_have_the_outcome_of_one_commit_each() {
    let (early, first, second) = (transfer(1, 3, 1, 10), transfer(1, 3, 0, 10), transfer(1, 3, 2, 1));
    let blocks = [
        vec![batch(&[early.clone(), first.clone()])],
        vec![batch(&[early, first, second.clone()])],
        vec![batch(&[second, transfer(3, 1, 0, 5)])],
    ];
    let mut separate = world();
    let expected: Vec<_> = (1..).zip(&blocks).map(|(height, batches)| separate.run(height, batches)).collect();
    let together = world();
    let World { database, mut ledger, .. } = together;
    let mut writes = database.writes();
    let run =
        |(height, batches): (u64, &Vec<Batch>)| ledger.execute(&block(height, batches), batches, &mut writes).unwrap();
    let outcomes: Vec<_> = (1..).zip(&blocks).map(run).collect();
    assert_eq!(outcomes, expected);
    writes.commit_unsynced().unwrap();
    let totals = |database: &Database| verify_conservation(database).unwrap();
    assert_eq!(totals(&database), totals(&separate.database));
    assert!(ledger.execute(&block(4, &[]), &[], &mut database.writes()).is_ok());
}

#[test]
fn overspending_and_late_transactions_get_failed_receipts() {
    let mut world = world();
    let outcome = world.run(1, &[batch(&[transfer(1, 3, 0, 100), transfer(4, 1, 0, 1)])]);
    assert_eq!(failures(&outcome), [Some(Failure::InsufficientBalance); 2]);
    (2..=50).for_each(|height| drop(world.run(height, &[])));
    let outcome = world.run(51, &[batch(&[transfer(1, 3, 0, 1)])]);
    assert_eq!(failures(&outcome), [Some(Failure::Expired)]);
    assert_eq!(verify_conservation(&world.database).unwrap().balances, 200);
}

#[test]
fn a_crash_before_the_commit_leaves_the_block_to_be_executed_again_with_the_same_outcome() {
    let mut world = world();
    let batches = [batch(&[transfer(1, 3, 0, 10)])];
    let mut lost = world.database.writes();
    let before = world.ledger.execute(&block(1, &batches), &batches, &mut lost).unwrap();
    drop(lost);
    world.ledger = Ledger::open(world.database.clone(), &genesis(), Digest::default(), metrics()).unwrap();
    assert_eq!(world.ledger.executed(), Height(0));
    assert_eq!(world.run(1, &batches), before);
    world.ledger = Ledger::open(world.database.clone(), &genesis(), Digest::default(), metrics()).unwrap();
    assert_eq!(world.ledger.executed(), Height(1));
    assert_eq!(world.balance(3), 10);
}

#[test]
fn blocks_out_of_order_or_without_bodies_are_refused() {
    let mut world = world();
    let batches = [batch(&[transfer(1, 3, 0, 10)])];
    for (block, bodies) in [(block(2, &[]), &[][..]), (block(0, &[]), &[][..]), (block(1, &batches), &[][..])] {
        let mut writes = world.database.writes();
        assert!(world.ledger.execute(&block, bodies, &mut writes).is_err());
    }
}

#[test]
fn the_ledger_of_another_chain_is_refused() {
    let world = world();
    let other = Genesis { chain_id: "demo-2".to_owned(), ..genesis() };
    let result = Ledger::open(world.database.clone(), &other, Digest::default(), metrics());
    assert!(matches!(result, Err(LedgerError::AnotherChain { .. })));
}
