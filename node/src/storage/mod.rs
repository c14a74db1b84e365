//! One RocksDB for the node. Every context owns its column families and is the only one to read or write them; the
//! driver's turn collects the writes of all contexts into one atomic, synced batch.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Options, WriteBatch, WriteOptions};

/// Column families, by the context that owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// consensus: certificates and proposals above the last finalised block, highest votes seen.
    Consensus,
    /// block: finalised blocks by height, finalisations by height.
    Blocks,
    /// block: batches by digest.
    Batches,
    /// blockchain: accounts by address.
    Accounts,
    /// blockchain: receipts and encoded transactions by transaction id.
    Transactions,
    /// blockchain: totals and the executed height.
    Ledger,
}

impl Family {
    const ALL: [Self; 6] =
        [Self::Consensus, Self::Blocks, Self::Batches, Self::Accounts, Self::Transactions, Self::Ledger];

    fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Blocks => "blocks",
            Self::Batches => "batches",
            Self::Accounts => "accounts",
            Self::Transactions => "transactions",
            Self::Ledger => "ledger",
        }
    }
}

/// Storage failed. RocksDB's own words say where.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is damaged, or a stored value does not decode.
    #[error("the database is corrupt: {0}; it can be rebuilt from peers")]
    Corrupt(String),
    /// The disk or the file system refused.
    #[error("the database could not be read or written: {0}")]
    Failed(String),
}

impl From<rocksdb::Error> for StorageError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::Corrupt(error.into_string()),
            _ => Self::Failed(error.into_string()),
        }
    }
}

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// Handle to the node's database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    db: Arc<DB>,
}

/// Writes to be applied together.
pub struct Writes<'a> {
    database: &'a Database,
    batch: WriteBatch,
}

impl Database {
    /// Opens or creates the database in `directory`.
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        options.set_recycle_log_file_num(4);
        options.set_max_total_wal_size(256 << 20);
        options.set_keep_log_file_num(4);
        // Damage at the tail of the log is a torn, never acknowledged write; anywhere else it is corruption.
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        let families = Family::ALL.map(|family| {
            let mut options = Options::default();
            options.set_compression_type(rocksdb::DBCompressionType::Lz4);
            options.set_write_buffer_size(32 << 20);
            if family == Family::Transactions {
                // Every transaction is looked up twice before it exists; a filter answers most of that from memory.
                let mut table = rocksdb::BlockBasedOptions::default();
                table.set_bloom_filter(10.0, false);
                options.set_block_based_table_factory(&table);
            }
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let db = DB::open_cf_descriptors(&options, directory, families)?;
        Ok(Self { db: Arc::new(db) })
    }

    /// Opens an existing database without changing anything in it.
    pub fn open_read_only(directory: &Path) -> Result<Self, StorageError> {
        let names = Family::ALL.map(Family::name);
        let db = DB::open_cf_for_read_only(&Options::default(), directory, names, false)?;
        Ok(Self { db: Arc::new(db) })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StorageError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StorageError::Corrupt(format!("column family {} is missing", family.name())))
    }

    /// Reads one value.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.db.get_cf(self.family(family)?, key)?)
    }

    /// Reads many values of one family; the answers are in the order of the keys.
    pub fn get_many<'k>(
        &self,
        family: Family,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        let handle = self.family(family)?;
        self.db
            .batched_multi_get_cf(handle, keys, false)
            .into_iter()
            .map(|value| Ok(value?.map(|v| v.to_vec())))
            .collect()
    }

    /// Iterates over keys at or after `from`, in key order.
    pub fn scan<'a>(
        &'a self,
        family: Family,
        from: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StorageError>> + 'a, StorageError> {
        let mode = rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward);
        Ok(self.db.iterator_cf(self.family(family)?, mode).map(|item| item.map_err(StorageError::from)))
    }

    /// Starts an empty set of writes.
    pub fn writes(&self) -> Writes<'_> {
        Writes { database: self, batch: WriteBatch::default() }
    }
}

impl Writes<'_> {
    /// Sets a value.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.batch.put_cf(self.database.family(family)?, key, value);
        Ok(())
    }

    /// Removes a value, if it is there.
    pub fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), StorageError> {
        self.batch.delete_cf(self.database.family(family)?, key);
        Ok(())
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Applies all writes atomically and returns when they are durable.
    pub fn commit_synced(self) -> Result<(), StorageError> {
        self.commit(true)
    }

    /// Applies all writes atomically; a later synced commit makes them durable too.
    pub fn commit_unsynced(self) -> Result<(), StorageError> {
        self.commit(false)
    }

    fn commit(self, sync: bool) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.database.db.write_opt(self.batch, &options)?)
    }
}
