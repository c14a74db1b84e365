//! One RocksDB for the node. Every context owns its column families and is the only one to read or write them; the
//! driver's turn collects the writes of all contexts into one atomic, synced batch.

mod files;
mod logs;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::compaction_filter::Decision;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Env, MemtableFactory, Options, ReadOptions,
    SliceTransform, WriteBatch, WriteOptions,
};

pub(crate) use bizra_ledger::Fields;
pub use bizra_ledger::StorageError;
pub use files::{FilesReport, check_files};

/// Damage at the tail of the log is a torn, never acknowledged write; anywhere else it is corruption. RocksDB's default
/// would forget everything after a damaged record without a word.
const RECOVERY: DBRecoveryMode = DBRecoveryMode::TolerateCorruptedTailRecords;

/// Column families, by the context that owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// consensus: certificates and proposals above the last finalised block, highest votes seen.
    Consensus,
    /// block: finalised blocks by height, finalisations by height.
    Blocks,
    /// block: batches by digest.
    Batches,
    /// blockchain: accounts by address.
    Accounts,
    /// blockchain: state entries other than accounts.
    State,
    /// blockchain: former values of state entries, by entry and height.
    History,
    /// blockchain: receipts by transaction id.
    Transactions,
    /// blockchain: totals and the executed height.
    Ledger,
    /// event store: what blocks and bodies do not say of a block's events, by height.
    Events,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 9] = [
        Self::Consensus,
        Self::Blocks,
        Self::Batches,
        Self::Accounts,
        Self::State,
        Self::History,
        Self::Transactions,
        Self::Ledger,
        Self::Events,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Blocks => "blocks",
            Self::Batches => "batches",
            Self::Accounts => "accounts",
            Self::State => "state",
            Self::History => "history",
            Self::Transactions => "transactions",
            Self::Ledger => "ledger",
            Self::Events => "events",
        }
    }

    fn options(self, cache: &Cache, horizons: Arc<Horizons>) -> Options {
        let mut options = Options::default();
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(32 << 20);
        // A flush may have to wait for a processor (see `open`); writes, and so votes, do not wait for it.
        options.set_max_write_buffer_number(4);
        let mut table = rocksdb::BlockBasedOptions::default();
        table.set_block_cache(cache);
        // Otherwise every table that is open holds its own, outside of any bound, and memory grows with the database.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        match self {
            Self::Accounts | Self::Transactions => {
                // Keys are public keys and hashes, written in no order, and several a transaction: a hash table takes
                // them at a quarter of the cost of a skip list. The order is made when the buffer is flushed.
                options.set_prefix_extractor(SliceTransform::create_fixed_prefix(HASHED_BYTES));
                options.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: HASH_BUCKETS });
                // Every transaction is looked up twice before it exists; a filter answers most of that from memory.
                table.set_bloom_filter(10.0, false);
                if self == Self::Transactions {
                    options.set_compaction_filter("receipts", move |_, _, value| {
                        keep_above(horizons.transactions.load(Ordering::Relaxed), value.first_chunk())
                    });
                }
            }
            Self::History => options.set_compaction_filter("history", move |_, key, _| {
                keep_above(horizons.history.load(Ordering::Relaxed), key.last_chunk())
            }),
            Self::Batches => {
                // Large and, being mostly keys and signatures, hardly compressible. In files of their own they are
                // written once and not again by every compaction.
                options.set_enable_blob_files(true);
                options.set_min_blob_size(BLOB_BYTES_MIN);
                options.set_enable_blob_gc(true);
            }
            Self::Consensus | Self::Blocks | Self::State | Self::Ledger | Self::Events => {}
        }
        options.set_block_based_table_factory(&table);
        options
    }
}

/// What reads keep of tables, all families together. By default each would have a cache of its own, which fills over hours.
const CACHE_BYTES: usize = 64 << 20;

/// Bytes of all write buffers together. Without a bound, those of seldom written families fill over many minutes.
const WRITE_BUFFERS_BYTES: usize = 128 << 20;

/// Bytes of a flush or compaction that are handed to the disk at once.
const FLUSH_BYTES: u64 = 1 << 20;

/// First bytes of a key that are hashed in a write buffer; enough to tell keys apart.
const HASHED_BYTES: usize = 8;

/// Buckets of a hashed write buffer: 1 MiB of pointers for some 200,000 entries.
const HASH_BUCKETS: usize = 1 << 17;

/// Values from this size on live in blob files.
const BLOB_BYTES_MIN: u64 = 1 << 10;

/// The error in the ledger's words; RocksDB's own say where.
fn failed(error: rocksdb::Error) -> StorageError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StorageError::Corrupt(error.into_string()),
        _ => StorageError::Failed(error.into_string()),
    }
}

/// Keeps an entry above the horizon, and one without a height, which is for its reader to complain of.
fn keep_above(horizon: u64, height: Option<&[u8; 8]>) -> Decision {
    match height {
        Some(height) if u64::from_be_bytes(*height) <= horizon => Decision::Remove,
        _ => Decision::Keep,
    }
}

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// Heights at and below which compaction drops entries of a family, in the background: nobody deletes them one by one.
#[derive(Debug, Default)]
struct Horizons {
    history: AtomicU64,
    transactions: AtomicU64,
}

/// Handle to the node's database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    db: Arc<DB>,
    horizons: Arc<Horizons>,
}

/// Writes to be applied together.
pub struct Writes<'a> {
    database: &'a Database,
    batch: WriteBatch,
}

impl Database {
    /// Opens or creates the database in `directory`.
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        logs::check(directory)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        // Validators fill their write buffers in step, so they flush at the same moment: votes go first. Written to the disk
        // bit by bit, a flush does not hold up the log's syncs either.
        let mut environment = Env::new().map_err(failed)?;
        environment.lower_thread_pool_cpu_priority();
        environment.lower_high_priority_thread_pool_cpu_priority();
        options.set_env(&environment);
        options.set_bytes_per_sync(FLUSH_BYTES);
        options.set_recycle_log_file_num(4);
        options.set_max_total_wal_size(256 << 20);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_keep_log_file_num(4);
        options.set_wal_recovery_mode(RECOVERY);
        // There is one writer, the driver; hashed write buffers know no other way.
        options.set_allow_concurrent_memtable_write(false);
        let horizons = Arc::new(Horizons::default());
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family.options(&cache, Arc::clone(&horizons))));
        let db = DB::open_cf_descriptors(&options, directory, families).map_err(failed)?;
        Ok(Self { db: Arc::new(db), horizons })
    }

    /// Opens an existing database without changing anything in it.
    pub fn open_read_only(directory: &Path) -> Result<Self, StorageError> {
        logs::check(directory)?;
        let names = Family::ALL.map(Family::name);
        let mut options = Options::default();
        options.set_wal_recovery_mode(RECOVERY);
        let db = DB::open_cf_for_read_only(&options, directory, names, false).map_err(failed)?;
        Ok(Self { db: Arc::new(db), horizons: Arc::default() })
    }

    /// True if a process, this one included, has the database in `directory` open. RocksDB holds a lock on a file there.
    pub fn is_in_use(directory: &Path) -> Result<bool, StorageError> {
        let file = match std::fs::OpenOptions::new().read(true).write(true).open(directory.join("LOCK")) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StorageError::Failed(format!("cannot open the database's lock: {error}"))),
        };
        match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(true),
            Err(error) => Err(StorageError::Failed(format!("cannot test the database's lock: {error}"))),
        }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StorageError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StorageError::Corrupt(format!("column family {} is missing", family.name())))
    }

    /// Reads one value.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.db.get_cf(self.family(family)?, key).map_err(failed)
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
            .map(|value| Ok(value.map_err(failed)?.map(|v| v.to_vec())))
            .collect()
    }

    /// Iterates over keys at or after `from`, in key order.
    pub fn scan<'a>(
        &'a self,
        family: Family,
        from: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StorageError>> + 'a, StorageError> {
        let mode = rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward);
        // Without it a family with hashed write buffers would be walked by hash.
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let iterator = self.db.iterator_cf_opt(self.family(family)?, options, mode);
        Ok(iterator.map(|item| item.map_err(failed)))
    }

    /// The database as it is now, whatever is written while it is read. Held long, it keeps what is deleted meanwhile.
    pub fn view(&self) -> View<'_> {
        View { database: self, snapshot: self.db.snapshot() }
    }

    /// Reads every entry of every family, past the cache; returns how many there are. Finds damaged tables and blobs.
    pub fn read_all(&self) -> Result<u64, StorageError> {
        let mut entries = 0;
        for family in Family::ALL {
            let mut options = ReadOptions::default();
            options.set_total_order_seek(true);
            options.set_verify_checksums(true);
            options.fill_cache(false);
            for item in self.db.iterator_cf_opt(self.family(family)?, options, rocksdb::IteratorMode::Start) {
                item.map_err(failed)?;
                entries += 1;
            }
        }
        Ok(entries)
    }

    /// Lets compaction drop history whose key ends in, and receipts whose value begins with, a height at or below these.
    /// Nothing may be read there any more. The horizons start at 0 with every start.
    pub fn forget_through(&self, history: u64, transactions: u64) {
        self.horizons.history.fetch_max(history, Ordering::Relaxed);
        self.horizons.transactions.fetch_max(transactions, Ordering::Relaxed);
    }

    /// Compacts a family now, which applies [`Self::forget_through`] to all of it. Takes as long as rewriting it.
    pub fn compact(&self, family: Family) -> Result<(), StorageError> {
        self.db.compact_range_cf(self.family(family)?, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Starts an empty set of writes.
    pub fn writes(&self) -> Writes<'_> {
        Writes { database: self, batch: WriteBatch::default() }
    }
}

/// The database at one moment.
pub struct View<'a> {
    database: &'a Database,
    snapshot: rocksdb::Snapshot<'a>,
}

impl View<'_> {
    /// Reads one value.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.snapshot.get_cf(self.database.family(family)?, key).map_err(failed)
    }

    /// Iterates over keys at or after `from`, in key order.
    pub fn scan<'s>(
        &'s self,
        family: Family,
        from: &'s [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StorageError>> + 's, StorageError> {
        let mode = rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward);
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        // Read once, front to back: what queries keep in the cache stays there.
        options.fill_cache(false);
        let iterator = self.snapshot.iterator_cf_opt(self.database.family(family)?, options, mode);
        Ok(iterator.map(|item| item.map_err(failed)))
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

    /// Removes all keys from `from` up to but without `to`, at the cost of one.
    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StorageError> {
        self.batch.delete_range_cf(self.database.family(family)?, from, to);
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
        self.database.db.write_opt(self.batch, &options).map_err(failed)
    }
}
