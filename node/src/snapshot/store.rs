//! Snapshots on disk, for peers: a folder for each cut-off, with one file of chunks and their manifest.
//!
//! A folder is written under a temporary name, synced, and renamed: under its own name it is whole. What an interrupted
//! start left behind is removed, and made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bizra_simplex::types::Digest;

use super::chunk::{CHUNK_BYTES_MAX, CHUNKS_MAX, Chunker, chunk_hash, snapshot_root};
use crate::blockchain::{SnapshotItem, read_snapshot};
use crate::storage::{Database, StorageError};

/// Snapshots kept. The newest is not named by a boundary yet; of the two before, the older may still be on its way to a
/// node that began to fetch it an epoch ago.
pub const SNAPSHOTS_KEPT: usize = 3;

const MAKING: &str = "making-";
const CHUNKS: &str = "chunks";
const MANIFEST: &str = "manifest";
const MANIFEST_VERSION: u8 = 1;
/// A manifest's entry: length and hash of a chunk.
const ENTRY_BYTES: usize = 36;

/// A snapshot could not be made, listed or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The node stops.
    #[error("the node stops before the snapshot is whole")]
    Stopped,
    /// The state is larger than a manifest can list.
    #[error("the state at {0} is larger than a snapshot may be: {CHUNKS_MAX} chunks of {CHUNK_BYTES_MAX} bytes")]
    TooLarge(u64),
}

impl From<SnapshotError> for StorageError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Storage(error) => error,
            other => Self::Failed(other.to_string()),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}

/// A whole snapshot's list of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Hash of each chunk, in order.
    pub hashes: Vec<Digest>,
    /// Where each chunk begins in the file, and the end of the last.
    offsets: Vec<u64>,
}

impl Manifest {
    fn root(&self) -> Digest {
        snapshot_root(&self.hashes)
    }

    fn encode(&self) -> Vec<u8> {
        let lengths = self.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u32);
        let entries =
            lengths.zip(&self.hashes).flat_map(|(length, hash)| [&length.to_be_bytes()[..], &hash.0].concat());
        [MANIFEST_VERSION].into_iter().chain(entries).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.strip_prefix(&[MANIFEST_VERSION])?.as_chunks::<ENTRY_BYTES>();
        let (mut hashes, mut offsets) = (Vec::with_capacity(entries.len()), vec![0]);
        for entry in entries {
            let (length, hash) = entry.split_first_chunk()?;
            offsets.push(offsets.last()? + u64::from(u32::from_be_bytes(*length)));
            hashes.push(Digest(hash.try_into().ok()?));
        }
        (rest.is_empty() && !hashes.is_empty() && hashes.len() <= CHUNKS_MAX).then_some(Self { hashes, offsets })
    }
}

#[derive(Debug)]
struct Kept {
    root: Digest,
    manifest: Arc<Manifest>,
}

/// The snapshots of one node. Cheap to clone; safe from any thread, made by one.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    folder: PathBuf,
    kept: Arc<Mutex<BTreeMap<u64, Kept>>>,
}

impl SnapshotStore {
    /// Opens or creates the folder, and removes what was left half made, or of no use, there.
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let store = Self { folder: folder.to_owned(), kept: Arc::default() };
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            let path = entry.map_err(failed("list", folder))?.path();
            let cutoff = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            let manifest = fs::read(path.join(MANIFEST)).ok().and_then(|bytes| Manifest::decode(&bytes));
            match cutoff.zip(manifest) {
                Some((cutoff, manifest)) => store.add(cutoff, manifest),
                None => fs::remove_dir_all(&path).map_err(failed("remove the unfinished snapshot", &path))?,
            }
        }
        store.forget_old()?;
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, cutoff: u64, manifest: Manifest) {
        self.lock().insert(cutoff, Kept { root: manifest.root(), manifest: Arc::new(manifest) });
    }

    fn forget_old(&self) -> Result<(), SnapshotError> {
        loop {
            let oldest = {
                let mut kept = self.lock();
                if kept.len() <= SNAPSHOTS_KEPT {
                    return Ok(());
                }
                kept.pop_first()
            };
            if let Some((cutoff, _)) = oldest {
                let path = self.path(cutoff);
                fs::remove_dir_all(&path).map_err(failed("remove the old snapshot", &path))?;
            }
        }
    }

    fn path(&self, cutoff: u64) -> PathBuf {
        self.folder.join(cutoff.to_string())
    }

    /// The Merkle root over the chunks of the snapshot at a cut-off height, if it is kept.
    pub fn root(&self, cutoff: u64) -> Option<Digest> {
        self.lock().get(&cutoff).map(|kept| kept.root)
    }

    /// The chunks of the snapshot at a cut-off height, if it is kept.
    pub fn manifest(&self, cutoff: u64) -> Option<Arc<Manifest>> {
        self.lock().get(&cutoff).map(|kept| Arc::clone(&kept.manifest))
    }

    /// Reads a chunk; `None` if there is none, or if it is not what it was when it was made.
    pub fn chunk(&self, cutoff: u64, index: u32) -> Option<Vec<u8>> {
        let manifest = self.manifest(cutoff)?;
        let index = index as usize;
        let (start, end) = (manifest.offsets.get(index)?, manifest.offsets.get(index + 1)?);
        let length = usize::try_from(end.checked_sub(*start)?).ok().filter(|length| *length <= CHUNK_BYTES_MAX)?;
        let mut chunk = vec![0; length];
        let read = File::open(self.path(cutoff).join(CHUNKS)).and_then(|file| file.read_exact_at(&mut chunk, *start));
        let whole = read.is_ok() && manifest.hashes.get(index) == Some(&chunk_hash(&chunk));
        if !whole {
            tracing::warn!(cutoff, index, "a chunk of a stored snapshot is damaged and not served");
        }
        whole.then_some(chunk)
    }

    /// Makes the snapshot at an executed cut-off height, unless it is kept already; returns its root. Reads the whole
    /// state: not for a thread that anything waits for. `stopped` ends it early.
    pub fn make(&self, database: &Database, cutoff: u64, stopped: &AtomicBool) -> Result<Digest, SnapshotError> {
        if let Some(root) = self.root(cutoff) {
            return Ok(root);
        }
        let making = self.folder.join(format!("{MAKING}{cutoff}"));
        if making.exists() {
            fs::remove_dir_all(&making).map_err(failed("remove", &making))?;
        }
        fs::create_dir(&making).map_err(failed("create", &making))?;
        let path = making.join(CHUNKS);
        let file = File::create(&path).map_err(failed("create", &path))?;
        let mut file = BufWriter::with_capacity(CHUNK_BYTES_MAX, file);
        let mut manifest = Manifest { hashes: Vec::new(), offsets: vec![0] };
        let mut write = |chunk: Vec<u8>| {
            let end = manifest.offsets.last().copied().unwrap_or_default() + chunk.len() as u64;
            manifest.hashes.push(chunk_hash(&chunk));
            manifest.offsets.push(end);
            if stopped.load(Ordering::Relaxed) {
                return Err(SnapshotError::Stopped);
            }
            if manifest.hashes.len() > CHUNKS_MAX {
                return Err(SnapshotError::TooLarge(cutoff));
            }
            file.write_all(&chunk).map_err(failed("write", &path))
        };
        let mut chunker = Chunker::default();
        read_snapshot(database, cutoff, |item: SnapshotItem| chunker.push(&item).map_or(Ok(()), &mut write))?;
        chunker.finish().map_or(Ok(()), &mut write)?;
        let file = file.into_inner().map_err(|error| failed("write", &path)(error.into_error()))?;
        file.sync_all().map_err(failed("sync", &path))?;
        let path = making.join(MANIFEST);
        let mut file = File::create(&path).map_err(failed("create", &path))?;
        file.write_all(&manifest.encode()).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
        sync_folder(&making)?;
        fs::rename(&making, self.path(cutoff)).map_err(failed("rename", &making))?;
        sync_folder(&self.folder)?;
        let root = manifest.root();
        self.add(cutoff, manifest);
        self.forget_old()?;
        Ok(root)
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}
