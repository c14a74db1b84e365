//! Checks the files of a closed database from outside.
//!
//! RocksDB checks every block of a table and every blob that it reads. Of its logs, the write-ahead log and the manifest,
//! it takes damage at the end for a write that was torn by a crash, which was never acknowledged, and forgets it
//! without a word: right for a node that starts after a power cut, wrong for whoever wants to know whether a byte was
//! flipped. So the logs are checked here, record by record to the last byte, by their format: blocks of 32 KiB, in
//! each records of CRC-32C (4, masked), length (2), type (1) and the payload.

use std::path::Path;

use super::{Database, StorageError};

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
/// Longest name in CURRENT.
const MANIFEST_PREFIX: &str = "MANIFEST-";

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesReport {
    /// Records of the logs.
    pub records: u64,
    /// Entries of all families.
    pub entries: u64,
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// CRC-32C of parts, masked as RocksDB stores it.
fn masked_crc(parts: [&[u8]; 2]) -> u32 {
    let bytes = parts.into_iter().flatten();
    let crc = !bytes.fold(u32::MAX, |crc, byte| crc >> 8 ^ CRC_TABLE[(crc as u8 ^ byte) as usize]);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Counts the records of a log; the error is the offset of the first byte that belongs to no sound one.
fn check_log(bytes: &[u8]) -> Result<u64, usize> {
    let mut records = 0;
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let mut offset = 0;
        while offset < block.len() {
            let rest = &block[offset..];
            let damaged = number * BLOCK_BYTES + offset;
            let is_last = rest.len() + offset < BLOCK_BYTES;
            if rest.len() < HEADER_BYTES && !is_last && rest.iter().all(|&byte| byte == 0) {
                // What is left of a block is too short for a header.
                break;
            }
            let header = rest.first_chunk::<HEADER_BYTES>().ok_or(damaged)?;
            let [crc @ .., low, high, kind] = *header;
            let end = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
            // No log here is recycled (see `logs`): the sum covers the type and the payload.
            let payload = rest.get(HEADER_BYTES..end).ok_or(damaged)?;
            if masked_crc([&[kind], payload]) != u32::from_le_bytes(crc) {
                return Err(damaged);
            }
            records += 1;
            offset += end;
        }
    }
    Ok(records)
}

fn unreadable(path: &Path, error: &std::io::Error) -> StorageError {
    StorageError::Failed(format!("{} cannot be read: {error}", path.display()))
}

/// Checks the logs of a closed database, and reads every entry of every family, which checks tables and blobs. Finds any
/// flipped byte that could change what is read.
pub fn check_files(directory: &Path) -> Result<FilesReport, StorageError> {
    let mut report = FilesReport::default();
    let current = directory.join("CURRENT");
    let manifest = std::fs::read(&current).map_err(|error| unreadable(&current, &error))?;
    let manifest = std::str::from_utf8(&manifest).ok().and_then(|name| name.strip_suffix('\n'));
    let manifest = manifest.filter(|name| {
        name.strip_prefix(MANIFEST_PREFIX).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let manifest =
        manifest.ok_or_else(|| StorageError::Corrupt("the file CURRENT names no manifest".to_owned()))?.to_owned();
    if !directory.join(&manifest).exists() {
        return Err(StorageError::Corrupt(format!("the file CURRENT names {manifest}, which is missing")));
    }
    for entry in std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))? {
        let path = entry.map_err(|error| unreadable(directory, &error))?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log || path.file_name().is_some_and(|name| *name == *manifest) {
            let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
            report.records += check_log(&bytes).map_err(|offset| {
                StorageError::Corrupt(format!(
                    "{} has no sound record at byte {offset} of {}: damage, or, after a crash, a write that was never \
                     acknowledged and that the next start of the node forgets",
                    path.display(),
                    bytes.len()
                ))
            })?;
        }
    }
    report.entries = Database::open_read_only(directory)?.read_all()?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Family;
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rocksdb() {
        // The check value of CRC-32C, and the mask by hand.
        let crc: u32 = 0xe306_9283;
        assert_eq!(masked_crc([b"12345", b"6789"]), crc.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_flip_anywhere_in_a_log_and_a_cut_off_tail_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        for number in 0..300_u32 {
            let mut writes = database.writes();
            // Now and then longer than a block, so that there are fragments and padding of every length.
            let value = vec![number as u8; 1 + number as usize * 331 % 40_000];
            writes.put(Family::Blocks, &number.to_be_bytes(), &value).unwrap();
            writes.commit_synced().unwrap();
        }
        drop(database);
        let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let log = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).find(is_log).unwrap();
        let sound = std::fs::read(log).unwrap();
        let records = check_log(&sound).unwrap();
        assert!(records >= 300);
        let mut bytes = sound.clone();
        for at in (0..sound.len()).step_by(40_009) {
            bytes[at] ^= 1 << (at % 8);
            assert!(check_log(&bytes).is_err(), "byte {at}");
            bytes[at] = sound[at];
        }
        for cut in 1..50 {
            let whole = check_log(&sound[..sound.len() - cut]);
            assert!(whole.is_err() || whole.unwrap() < records);
        }
    }
}
