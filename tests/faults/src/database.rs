//! A validator's database as it lies on disk, read without the node's own code: raw keys and values, and only those that
//! say which blocks, receipts and votes are there.
//!
//! Families and keys: `blocks` has `b` + height → format, view, block; `h` + block hash → format, height; `f` + height →
//! format, certificate; `z` → format, last height. `transactions` has id → height, and more.

use std::path::Path;

use rocksdb::{ColumnFamily, DB, IteratorMode, Options, ReadOptions};
use sha2::{Digest as _, Sha256};

use crate::FaultError;
use crate::record::PlainVote;

/// Bytes of the epoch, view, kind and digest at the front of a certificate.
const VOTE: usize = 49;

/// An open database.
pub(crate) struct RawDatabase {
    db: DB,
    families: Vec<String>,
}

/// Why a database cannot be read, in RocksDB's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

impl From<rocksdb::Error> for Unreadable {
    fn from(error: rocksdb::Error) -> Self {
        Self(error.into_string())
    }
}

impl From<Unreadable> for FaultError {
    fn from(error: Unreadable) -> Self {
        Self::Setup(format!("a database cannot be read: {error}"))
    }
}

/// What a database holds, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Over every family, key and value.
    pub(crate) hash: [u8; 32],
    pub(crate) entries: u64,
    pub(crate) last_height: u64,
}

impl RawDatabase {
    /// Opens it read-only, with the recovery a node uses.
    pub(crate) fn open(path: &Path) -> Result<Self, Unreadable> {
        let mut options = Options::default();
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        let families = DB::list_cf(&options, path)?;
        let db = DB::open_cf_for_read_only(&options, path, &families, false)?;
        Ok(Self { db, families })
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, Unreadable> {
        self.db.cf_handle(name).ok_or_else(|| Unreadable(format!("there is no family {name}")))
    }

    /// Height of the last finalised block; 0 of an empty database.
    pub(crate) fn last_height(&self) -> Result<u64, Unreadable> {
        Ok(self.db.get_cf(self.family("blocks")?, b"z")?.map_or(0, |value| number(value.get(1..9))))
    }

    /// Height of a finalised block.
    pub(crate) fn height_of(&self, hash: &[u8; 32]) -> Result<Option<u64>, Unreadable> {
        let value = self.db.get_cf(self.family("blocks")?, [&b"h"[..], hash].concat())?;
        Ok(value.map(|value| number(value.get(1..9))))
    }

    /// A finalised block's bytes, without the view of its certificate, which may differ between nodes.
    pub(crate) fn block(&self, height: u64) -> Result<Option<Vec<u8>>, Unreadable> {
        let value = self.db.get_cf(self.family("blocks")?, numbered(b'b', height))?;
        Ok(value.map(|value| value.get(9..).unwrap_or_default().to_vec()))
    }

    /// Height of a transaction's receipt.
    pub(crate) fn receipt(&self, id: &[u8; 32]) -> Result<Option<u64>, Unreadable> {
        Ok(self.db.get_cf(self.family("transactions")?, id)?.map(|value| number(value.get(..8))))
    }

    /// Who finalised the block of a height, if its certificate is there: signers, what they signed, and signatures.
    pub(crate) fn finalization(&self, height: u64) -> Result<Vec<(usize, PlainVote, [u8; 64])>, Unreadable> {
        let Some(value) = self.db.get_cf(self.family("blocks")?, numbered(b'f', height))? else {
            return Ok(Vec::new());
        };
        let malformed = || Unreadable(format!("the certificate of block {height} has another form"));
        let (vote, rest) = value.get(1..).and_then(|value| value.split_at_checked(VOTE)).ok_or_else(malformed)?;
        let digest = vote[17..].try_into().map_err(|_| malformed())?;
        let vote = (number(vote.get(..8)), number(vote.get(8..16)), vote[16], digest);
        let signatures = rest.get(2..).ok_or_else(malformed)?.chunks_exact(2 + 64);
        signatures
            .map(|entry| {
                let signature = entry[2..].try_into().map_err(|_| malformed())?;
                Ok((number(entry.get(..2)) as usize, vote, signature))
            })
            .collect()
    }

    /// Reads every entry of every family, with all checksums.
    pub(crate) fn content(&self) -> Result<Content, Unreadable> {
        let mut hasher = Sha256::new();
        let mut entries = 0;
        for name in &self.families {
            let mut options = ReadOptions::default();
            options.set_total_order_seek(true);
            options.set_verify_checksums(true);
            for entry in self.db.iterator_cf_opt(self.family(name)?, options, IteratorMode::Start) {
                let (key, value) = entry?;
                for part in [name.as_bytes(), &key, &value] {
                    hasher.update((part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                entries += 1;
            }
        }
        Ok(Content { hash: hasher.finalize().into(), entries, last_height: self.last_height()? })
    }
}

fn numbered(kind: u8, height: u64) -> Vec<u8> {
    [&[kind][..], &height.to_be_bytes()].concat()
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.unwrap_or_default().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
