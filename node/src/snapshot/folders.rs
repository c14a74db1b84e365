//! The folders of the database while it is replaced by a snapshot. Each step is one rename, so a crash at any point
//! leaves the old database or the new one, each whole:
//!
//! | folder | what it is |
//! | --- | --- |
//! | `database` | what the node runs on |
//! | `database.joining` | a snapshot on its way; continued by the next start |
//! | `database.joined` | a whole snapshot, checked; takes the place of `database` at the next start |
//! | `database.replaced` | the database before, being removed |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bizra_simplex::Block;

use super::store::sync_folder;
use crate::block::BlockStore;
use crate::storage::{Database, StorageError};

/// The database's folders under a data folder.
#[derive(Clone, Debug)]
pub struct DatabaseFolders {
    data_dir: PathBuf,
}

fn failed(action: &str, path: &Path, error: &io::Error) -> StorageError {
    StorageError::Failed(format!("cannot {action} {}: {error}", path.display()))
}

impl DatabaseFolders {
    /// Those of a node.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// What the node runs on.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("database")
    }

    /// Where a snapshot becomes a database.
    pub fn joining(&self) -> PathBuf {
        self.data_dir.join("database.joining")
    }

    /// Snapshots for peers.
    pub fn snapshots(&self) -> PathBuf {
        self.data_dir.join("snapshots")
    }

    fn joined(&self) -> PathBuf {
        self.data_dir.join("database.joined")
    }

    fn replaced(&self) -> PathBuf {
        self.data_dir.join("database.replaced")
    }

    /// True if there is a database, or one that takes its place at the next start.
    pub fn is_started(&self) -> bool {
        self.database().join("CURRENT").exists() || self.joined().exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        fs::rename(from, to).map_err(|error| failed("rename", from, &error))?;
        sync_folder(&self.data_dir).map_err(|error| StorageError::Failed(error.to_string()))
    }

    fn remove(path: &Path) -> Result<(), StorageError> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
            _ => Ok(()),
        }
    }

    /// Forgets a snapshot on its way.
    pub fn forget_joining(&self) -> Result<(), StorageError> {
        Self::remove(&self.joining())
    }

    /// The snapshot is whole and checked, and nobody has it open any more.
    pub fn finish_joining(&self) -> Result<(), StorageError> {
        Self::remove(&self.joined())?;
        self.rename(&self.joining(), &self.joined())
    }

    /// To be called before the database is opened: puts a finished snapshot in its place, with the highest votes and the
    /// contradictions that the old database knows (PROTOCOL S5, V6), and removes the old one.
    pub fn settle(&self, genesis: &Block) -> Result<(), StorageError> {
        if self.joined().exists() {
            if self.database().join("CURRENT").exists() {
                carry_over(&self.database(), &self.joined(), genesis);
            }
            if self.database().exists() {
                Self::remove(&self.replaced())?;
                self.rename(&self.database(), &self.replaced())?;
            }
            self.rename(&self.joined(), &self.database())?;
            tracing::info!("the database begins at a snapshot from peers now");
        }
        Self::remove(&self.replaced())
    }

    /// Moves the database and what was made of it aside, or removes them; the signer's folder is not touched. Returns
    /// where the database is now, `None` if it is removed or there was none.
    pub fn reset(&self, remove: bool) -> Result<Option<PathBuf>, StorageError> {
        for path in [self.joining(), self.joined(), self.replaced(), self.snapshots()] {
            Self::remove(&path)?;
        }
        if remove {
            Self::remove(&self.database())?;
            return Ok(None);
        }
        if !self.database().exists() {
            return Ok(None);
        }
        let free = (1_u32..).map(|number| self.data_dir.join(format!("database.old-{number}")));
        let Some(aside) = free.into_iter().find(|path| !path.exists()) else { return Ok(None) };
        self.rename(&self.database(), &aside)?;
        Ok(Some(aside))
    }
}

/// Copies what only this node may have seen. A database that cannot be read has nothing to copy.
fn carry_over(from: &Path, to: &Path, genesis: &Block) {
    let copy = || -> Result<usize, StorageError> {
        let old = BlockStore::open(Database::open_read_only(from)?, genesis.clone())?;
        let database = Database::open(to)?;
        let new = BlockStore::open(database.clone(), genesis.clone())?;
        let (votes, evidence) = (old.highest_votes()?, old.evidence()?);
        let mut writes = database.writes();
        for (key, vote) in &votes {
            new.put_vote(&mut writes, *key, vote)?;
        }
        for (key, told) in &evidence {
            new.put_evidence(&mut writes, *key, &told.first, &told.second)?;
        }
        writes.commit_synced()?;
        Ok(votes.len() + evidence.len())
    };
    match copy() {
        Ok(count) => tracing::info!(count, "votes and evidence of the old database are kept"),
        Err(error) => tracing::warn!(%error, "the old database cannot be read; what it knew of others' votes is lost"),
    }
}
