#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::blockchain::verify_conservation;
use crate::chain_testing::TestChain;
use crate::retention;
use crate::storage::{Family, check_files};

/// Everything but the files: what `verify` does with a database that can be read.
fn verify(chain: &TestChain, depth: Depth) -> Result<ReplayReport, String> {
    let folder = tempfile::tempdir().unwrap();
    let target = Database::open(folder.path()).unwrap();
    let report = replay(&chain.database, (&chain.genesis, &PinnedRestarts::default()), &target, depth, |_, _| {});
    let report = report.map_err(|error| error.to_string())?;
    verify_conservation(&chain.database).map_err(|error| error.to_string())?;
    Ok(report)
}

fn chain(height: u64) -> TestChain {
    let mut chain = TestChain::new();
    chain.run_to(height);
    chain.add_unfinalized();
    chain
}

#[test]
fn a_sound_database_is_alike_from_the_genesis() {
    let chain = chain(220);
    for depth in [Depth::Execution, Depth::Everything] {
        let report = verify(&chain, depth).unwrap();
        assert_eq!((report.base, report.height, report.blocks, report.checkpoints), (0, 220, 220, 13));
        assert!(report.transactions > 600 && report.events > 3 * report.transactions && report.entries > 1_000);
    }
    let report = verify(&chain, Depth::Everything).unwrap();
    assert_eq!((report.chain.blocks, report.indexes.consensus), (220, 4));
    assert!(report.chain.certificates < 220 && report.chain.certificates > 180);
}

/// T2: a quorum that finalises what another than the leader has made is not believed.
#[test]
fn a_block_of_another_than_the_leader_of_its_view_is_found() {
    let mut chain = TestChain::new();
    chain.usurped = Some(50);
    chain.run_to(60);
    let found = verify(&chain, Depth::Everything).unwrap_err();
    assert!(found.contains("50") && found.contains("does not lead in its view"), "{found}");
}

#[test]
fn a_pruned_database_is_alike_from_the_lowest_state_that_can_be_rebuilt() {
    let chain = chain(460);
    while retention::step(1, &chain.database, &chain.blocks).unwrap() {}
    chain.database.compact(Family::History).unwrap();
    let report = verify(&chain, Depth::Everything).unwrap();
    // At least 256 blocks are kept, and the state is rebuilt 100 blocks and up to 15 above.
    assert_eq!((report.oldest, report.base, report.blocks), (204, 304, 156));
    assert_eq!(report.chain.blocks, 257);

    // Below the base too, a changed event record is found, and a changed receipt.
    for height in [231_u64, 400] {
        let record = event_store::stored_record(&chain.database, height).unwrap().unwrap();
        let mut other = record.clone();
        other[5] = 1;
        let key = height.to_be_bytes();
        write(&chain, |writes| writes.put(Family::Events, &key, &other));
        assert!(verify(&chain, Depth::Everything).is_err());
        write(&chain, |writes| writes.put(Family::Events, &key, &record));
    }
    verify(&chain, Depth::Everything).unwrap();
}

fn write(chain: &TestChain, change: impl FnOnce(&mut crate::storage::Writes<'_>) -> Result<(), StorageError>) {
    let mut writes = chain.database.writes();
    change(&mut writes).unwrap();
    writes.commit_unsynced().unwrap();
}

#[test]
fn every_change_of_any_kind_of_entry_is_found() {
    let chain = chain(90);
    let mut kinds: BTreeMap<(Family, u8, usize), Vec<crate::storage::Entry>> = BTreeMap::new();
    for family in Family::ALL {
        for item in chain.database.scan(family, &[]).unwrap() {
            let (key, value) = item.unwrap();
            let letter =
                if matches!(family, Family::Accounts | Family::Transactions | Family::Events) { 0 } else { key[0] };
            kinds.entry((family, letter, key.len())).or_default().push((key, value));
        }
    }
    // All nine families, and every kind of key they have.
    assert_eq!(kinds.keys().map(|(family, ..)| *family).collect::<BTreeSet<_>>().len(), Family::ALL.len());
    assert!(kinds.len() >= 26, "{:?}", kinds.keys());
    let mut missed = Vec::new();
    let mut changes = 0;
    for ((family, letter, _), entries) in &kinds {
        let (key, value) = &entries[entries.len() / 2];
        let mut try_change = |what: &str, key: &[u8], now: Option<&[u8]>| {
            let before = chain.database.get(*family, key).unwrap();
            if before.as_deref() == now {
                return;
            }
            let put = |value: Option<&[u8]>| match value {
                Some(value) => write(&chain, |writes| writes.put(*family, key, value)),
                None => write(&chain, |writes| writes.delete(*family, key)),
            };
            put(now);
            changes += 1;
            if verify(&chain, Depth::Everything).is_ok() {
                missed.push(format!("{what} of {family:?} {:?} {}", char::from(*letter), hex::encode(key)));
            }
            put(before.as_deref());
        };
        for position in BTreeSet::from([0, value.len() / 2, value.len().saturating_sub(1)]) {
            if position < value.len() {
                let mut flipped = value.to_vec();
                flipped[position] ^= 1 << (position % 8);
                try_change(&format!("byte {position}"), key, Some(&flipped));
            }
        }
        let mut other = key.to_vec();
        *other.last_mut().unwrap() ^= 0x40;
        try_change("another key", &other, Some(value));
        // Above the last finalised block nothing has to be there.
        if *family != Family::Consensus {
            try_change("absence", key, None);
        }
    }
    assert!(missed.is_empty(), "of {changes} changes were not found: {missed:#?}");
    verify(&chain, Depth::Everything).unwrap();
}

/// A digest of all that can be read, or why it cannot.
fn content(directory: &Path) -> Result<[u8; 32], StorageError> {
    check_files(directory)?;
    let database = Database::open_read_only(directory)?;
    let mut hash = Sha256::new();
    for family in Family::ALL {
        for item in database.scan(family, &[])? {
            let (key, value) = item?;
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        }
    }
    Ok(hash.finalize().into())
}

fn kind_of(path: &Path) -> &'static str {
    let name = path.file_name().unwrap().to_string_lossy();
    let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
    match () {
        () if is("sst") => "table",
        () if is("blob") => "blob",
        () if is("log") => "write-ahead log",
        () if name.starts_with("MANIFEST") => "manifest",
        () if name == "CURRENT" => "CURRENT",
        () if name.starts_with("OPTIONS") => "options",
        () if name == "IDENTITY" => "identity",
        () => "log of messages",
    }
}

#[test]
fn every_flipped_byte_of_every_kind_of_file_is_found_or_changes_nothing() {
    let mut chain = TestChain::new();
    // Each start turns the log into tables and blobs; the last blocks stay in the log.
    for height in [120, 240] {
        chain.run_to(height);
        chain = chain.reopen(false);
    }
    chain.run_to(260);
    chain.add_unfinalized();
    let TestChain { folder, database, blocks, ledger, .. } = chain;
    drop((database, blocks, ledger));
    let sound = content(folder.path()).unwrap();
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Every start of RocksDB begins a new log of messages, which nobody reads.
    for path in files.into_iter().filter(|path| kind_of(path) != "log of messages") {
        let bytes = fs::read(&path).unwrap();
        let kind = kind_of(&path);
        // Spread over the file, with both ends, and every bit.
        let last = bytes.len().saturating_sub(1);
        let positions: BTreeSet<usize> = (0..16)
            .map(|step| last * step / 15)
            .chain([1, last.saturating_sub(9)])
            .filter(|at| *at < bytes.len())
            .collect();
        for at in positions {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            let (found, harmless) = counts.entry(kind).or_default();
            match content(folder.path()) {
                Err(_) => *found += 1,
                Ok(read) => {
                    assert!(read == sound, "byte {at} of {} changes what is read, and nobody says so", path.display());
                    *harmless += 1;
                }
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    eprintln!("flips found, and flips that change nothing, by kind of file: {counts:?}");
    for kind in ["table", "blob", "write-ahead log", "manifest", "CURRENT", "options"] {
        assert!(counts.contains_key(kind), "{kind}");
    }
    for kind in ["write-ahead log", "manifest", "CURRENT"] {
        assert_eq!(counts[kind].1, 0, "{kind}");
    }
    assert!(counts["table"].0 > counts["table"].1 && counts["blob"].0 > counts["blob"].1);
    assert!(content(folder.path()).unwrap() == sound);
}
