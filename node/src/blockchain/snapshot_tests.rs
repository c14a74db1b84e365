//! Snapshots of a real ledger, and ledgers that begin at one.

use super::*;
use crate::blockchain::{Section, SnapshotItem, put_item, read_snapshot, seal_snapshot};
use crate::storage::StorageError;

fn snapshot(database: &Database, cutoff: u64) -> Vec<SnapshotItem> {
    let mut items = Vec::new();
    let take = |item| {
        items.push(item);
        Ok::<_, StorageError>(())
    };
    read_snapshot(database, cutoff, take).unwrap();
    items
}

/// A long life whose entries change, come and go after the second cut-off too.
fn long_life() -> World {
    let mut world = world();
    busy(&mut world, false);
    let parameters = Parameters { unbonding_epochs: 3, ..*world.ledger.parameters() };
    assert_eq!(world.act(1, &Operation::UpdateParameters(parameters)), None);
    assert_eq!(world.act(5, &Operation::DeactivateValidator), None);
    assert_eq!(world.act(9, &Operation::ReserveStake { amount: 7 }), None);
    // The set of the genesis is forgotten meanwhile.
    world.run_to(170);
    world.pay(6, 7, 1);
    world
}

#[test]
fn a_snapshot_is_the_same_whenever_it_is_read() {
    let life = long_life();
    let mut again = world();
    let mut first = None;
    for (block, batches) in &life.executed {
        let mut writes = again.database.writes();
        again.ledger.execute(block, batches, &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        // At the cut-off; with changes in logs only; with changes in history and logs; long after.
        if [64, 71, 79, 80, 81, 96, 133, 171].contains(&block.height.0) {
            let now = snapshot(&again.database, 64);
            let first = first.get_or_insert_with(|| now.clone());
            assert!(*first == now, "another snapshot at height {}", block.height);
        }
    }
    let items = first.unwrap();
    assert!(items.is_sorted_by_key(|item| (item.section, item.key.clone())));
    let count = |section| items.iter().filter(|item| item.section == section).count();
    assert_eq!((count(Section::Checkpoint), count(Section::Totals), count(Section::Block)), (1, 1, 65));
    let transactions = life.executed.iter().take(64).filter(|(block, _)| !block.batches.is_empty()).count();
    assert_eq!(count(Section::Receipt), transactions, "a block has one transaction or none");
    assert!(snapshot(&life.database, 96) != items);
    assert!(read_snapshot(&life.database, 65, |_| Ok::<_, StorageError>(())).is_err(), "no cut-off");
}

#[test]
fn a_receipt_that_was_replaced_after_the_cutoff_is_in_the_snapshot_as_it_was() {
    let mut world = world();
    let id = world.pay(6, 7, 1);
    world.run_to(40);
    let before = snapshot(&world.database, 32);
    // As if the transaction had been executed again at height 36.
    let old = world.database.get(Family::Transactions, &id.0).unwrap().unwrap();
    let mut new = old.clone();
    new[..8].copy_from_slice(&36_u64.to_be_bytes());
    let mut writes = world.database.writes();
    writes.put(Family::Transactions, &id.0, &new).unwrap();
    writes.commit_unsynced().unwrap();
    assert!(snapshot(&world.database, 32) != before);
    let mut writes = world.database.writes();
    writes.put(Family::Ledger, &super::super::record::superseded_key(36, &id), &old).unwrap();
    writes.commit_unsynced().unwrap();
    assert!(snapshot(&world.database, 32) == before);
}

#[test]
fn a_ledger_from_a_snapshot_goes_on_as_one_that_executed_everything() {
    let life = long_life();
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let mut writes = database.writes();
    let items = snapshot(&life.database, 64);
    for item in &items {
        put_item(&mut writes, item).unwrap();
    }
    writes.commit_unsynced().unwrap();
    let checkpoint = seal_snapshot(&database, 64).unwrap();
    assert_eq!(Some(checkpoint), life.reader().checkpoint(64).unwrap());

    let mut joined = open_ledger(&database);
    assert_eq!(joined.executed(), Height(64));
    let repeated = life.executed[63].1.clone();
    for (position, (block, batches)) in life.executed.iter().enumerate().skip(64) {
        // A transaction that only the snapshot's receipts know is skipped, not judged again.
        if position == 64 {
            let block = Block { batches: vec![repeated[0].digest(GENESIS_HASH)], ..block.clone() };
            let outcome = open_ledger(&database).execute(&block, &repeated, &mut database.writes()).unwrap();
            assert_eq!((outcome.receipts.len(), outcome.duplicates.len()), (0, 1));
        }
        let mut writes = database.writes();
        joined.execute(block, batches, &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        let height = block.height.0;
        if height.is_multiple_of(16) {
            assert_eq!(joined.checkpoint(height).unwrap(), life.reader().checkpoint(height).unwrap(), "at {height}");
        }
    }
    verify_commitment(&database).unwrap();
    verify_conservation(&database).unwrap();
    let reader = LedgerReader::new(database.clone());
    assert_eq!(reader.oldest().unwrap(), 65);
    assert_eq!(snapshot(&database, 96), snapshot(&life.database, 96), "its own snapshots are everybody's");
    assert!(matches!(reader.account(&address(7), Some(64)).unwrap(), AtHeight::Pruned { oldest: 65 }));
    assert_eq!(reader.account(&address(7), Some(70)).unwrap(), life.reader().account(&address(7), Some(70)).unwrap());
}

#[test]
fn a_snapshot_with_another_value_is_not_sealed() {
    let life = long_life();
    let mut items = snapshot(&life.database, 64);
    let entry = items.iter_mut().find(|item| item.section == Section::Entry).unwrap();
    entry.value[7] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let mut writes = database.writes();
    for item in &items {
        put_item(&mut writes, item).unwrap();
    }
    writes.commit_unsynced().unwrap();
    assert!(seal_snapshot(&database, 64).is_err());
}
