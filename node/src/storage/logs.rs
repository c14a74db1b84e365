//! Looks at the headers in RocksDB's logs, the write-ahead log and the manifest, before RocksDB reads them.
//!
//! Its reader (11.8) trusts the type of a record before it checks the record's sum. A type that only recycled logs have is
//! fatal in a log that is not recycled: in its first record it makes the reader take everything for the rest of an older
//! log and forget it without a word; in a later one the reader comes back to the same record for ever, and the node would
//! neither start nor say why. One flipped bit does it. No log here is recycled ([`super::RECOVERY`] excludes it), so such a
//! type is damage. Everything else is for RocksDB to judge.
//!
//! A log is blocks of 32 KiB; in each, records of CRC (4), length (2, little-endian), type (1) and payload.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::StorageError;

const BLOCK_BYTES: u64 = 32 * 1024;
const HEADER_BYTES: u64 = 7;

/// Types of records in recycled logs: full, first, middle, last, timestamp size, predecessor.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Refuses a folder with such a record. Reads headers only.
pub(super) fn check(directory: &Path) -> Result<(), StorageError> {
    let failed = |error: io::Error| StorageError::Failed(format!("{}: {error}", directory.display()));
    let entries = match std::fs::read_dir(directory) {
        // A new database.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("MANIFEST-").or_else(|| name.strip_suffix(".log"));
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            && let Some(offset) = recycled_record(&path).map_err(failed)?
        {
            return Err(StorageError::Corrupt(format!("the record of {name} at byte {offset} has an impossible type")));
        }
    }
    Ok(())
}

/// Where the first record of a recycled log is.
fn recycled_record(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut offset = 0;
    while offset + HEADER_BYTES <= bytes {
        let rest = BLOCK_BYTES - offset % BLOCK_BYTES;
        if rest < HEADER_BYTES {
            offset += rest;
            continue;
        }
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, offset)?;
        let [_, _, _, _, low, high, kind] = header;
        if RECYCLED.contains(&kind) {
            return Ok(Some(offset));
        }
        let record = HEADER_BYTES + u64::from(u16::from_le_bytes([low, high]));
        // As RocksDB: after an empty record of type 0, and one that does not fit, the next block is looked at.
        offset += if record > rest || record == HEADER_BYTES && kind == 0 { rest } else { record };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use super::super::{Database, Family};
    use super::*;

    fn database() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        for number in 0..50_u8 {
            let mut writes = database.writes();
            writes.put(Family::Blocks, &[number], &[number; 3_000]).unwrap();
            writes.commit_synced().unwrap();
        }
        folder
    }

    fn log(folder: &Path, is_log: impl Fn(&str) -> bool) -> PathBuf {
        let mut paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.find(|path| is_log(path.file_name().unwrap().to_str().unwrap())).unwrap()
    }

    #[test]
    fn a_type_of_recycled_logs_is_refused_instead_of_read_for_ever_or_taken_for_the_end() {
        for is_log in [|name: &str| name.starts_with("MANIFEST-"), |name: &str| name.rsplit('.').next() == Some("log")]
        {
            let folder = database();
            let path = log(folder.path(), is_log);
            let sound = std::fs::read(&path).unwrap();
            let second = 7 + usize::from(u16::from_le_bytes([sound[4], sound[5]]));
            for record in [0, second] {
                let mut damaged = sound.clone();
                // Type 1, a full record, becomes 5, a full record of a recycled log.
                damaged[record + 6] ^= 4;
                std::fs::write(&path, damaged).unwrap();
                for result in [Database::open(folder.path()), Database::open_read_only(folder.path())] {
                    let error = result.err().unwrap();
                    assert!(matches!(error, StorageError::Corrupt(_)), "{error}");
                }
            }
            std::fs::write(&path, sound).unwrap();
            Database::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn a_log_torn_anywhere_in_its_last_record_is_none_of_its_business() {
        let folder = database();
        let path = log(folder.path(), |name| name.rsplit('.').next() == Some("log"));
        let sound = std::fs::read(&path).unwrap();
        for cut in 1..20 {
            std::fs::write(&path, &sound[..sound.len() - cut]).unwrap();
            check(folder.path()).unwrap();
        }
        std::fs::write(&path, [&sound[..], &[0; 100]].concat()).unwrap();
        check(folder.path()).unwrap();
    }
}
