//! The folders of the database while it is replaced by a snapshot. Each step is one rename, so a crash at any point
//! leaves the old database or the new one, each whole:
//!
//! | folder | what it is |
//! | --- | --- |
//! | `database` | what the node runs on |
//! | `database.joining` | a snapshot on its way; continued by the next start |
//! | `database.joined` | a whole snapshot, checked; takes the place of `database` at the next start |
//! | `database.replaced` | the database before, being removed |
//! | `database.set-aside` | the database before the last ordered reset |
//!
//! A node that stops because its database is damaged leaves a mark inside of that database. The mark goes where the database
//! goes, so a reset that asks for it can never meet the new, sound one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bizra_simplex::Block;

use super::store::sync_folder;
use crate::block::BlockStore;
use crate::storage::{Database, StorageError};

/// The mark of a damaged database.
const MARK: &str = "FOUND-CORRUPT";
/// Where the last order to reset the database is kept.
const ORDER: &str = "reset-order";

/// When a reset is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetWhen {
    /// In any case.
    Always,
    /// Only if the node itself has stopped for it.
    FoundCorrupt,
}

/// What came of an order to reset the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obeyed {
    /// The database is set aside now.
    Now,
    /// This order was obeyed before; nothing is done.
    Before,
    /// The database is not marked as damaged, or there is none; nothing is done.
    NotNeeded,
}

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

    /// Marks the database as damaged, by the node that has just stopped for it.
    pub fn mark_corrupt(&self) -> Result<(), StorageError> {
        let path = self.database().join(MARK);
        File::create(&path).and_then(|mark| mark.sync_all()).map_err(|error| failed("make", &path, &error))
    }

    /// Takes the mark away: the database was opened after all.
    pub fn unmark_corrupt(&self) -> Result<(), StorageError> {
        let path = self.database().join(MARK);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    /// True if the node has stopped because this database is damaged.
    pub fn is_marked_corrupt(&self) -> bool {
        self.database().join(MARK).exists()
    }

    /// Sets the database aside because of this order: at most once, however often the order is given. Only the last one set
    /// aside is kept, so that orders cannot fill the volume. The order is noted first: after a crash in between nothing has
    /// been done, and whoever gave the order sees that.
    pub fn obey(&self, order: &str, when: ResetWhen) -> Result<Obeyed, StorageError> {
        let noted = self.data_dir.join(ORDER);
        if fs::read_to_string(&noted).is_ok_and(|before| before == order) {
            return Ok(Obeyed::Before);
        }
        let new = self.data_dir.join("reset-order.new");
        File::create(&new)
            .and_then(|mut file| file.write_all(order.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| failed("write", &new, &error))?;
        self.rename(&new, &noted)?;
        if !self.database().exists() || (when == ResetWhen::FoundCorrupt && !self.is_marked_corrupt()) {
            return Ok(Obeyed::NotNeeded);
        }
        self.forget_derived()?;
        let aside = self.data_dir.join("database.set-aside");
        Self::remove(&aside)?;
        self.rename(&self.database(), &aside)?;
        Ok(Obeyed::Now)
    }

    fn forget_derived(&self) -> Result<(), StorageError> {
        [self.joining(), self.joined(), self.replaced(), self.snapshots()]
            .iter()
            .try_for_each(|path| Self::remove(path))
    }

    /// Moves the database and what was made of it aside, or removes them; the signer's folder is not touched. Returns
    /// where the database is now, `None` if it is removed or there was none.
    pub fn reset(&self, remove: bool) -> Result<Option<PathBuf>, StorageError> {
        self.forget_derived()?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn folders() -> (tempfile::TempDir, DatabaseFolders) {
        let data = tempfile::tempdir().unwrap();
        let folders = DatabaseFolders::new(data.path());
        make(&folders, "first");
        (data, folders)
    }

    fn make(folders: &DatabaseFolders, content: &str) {
        fs::create_dir_all(folders.database()).unwrap();
        fs::write(folders.database().join("CURRENT"), content).unwrap();
    }

    #[test]
    fn an_order_is_obeyed_once() {
        let (data, folders) = folders();
        assert_eq!(folders.obey("pod-1", ResetWhen::Always).unwrap(), Obeyed::Now);
        assert!(!folders.database().exists());
        make(&folders, "second");
        assert_eq!(folders.obey("pod-1", ResetWhen::Always).unwrap(), Obeyed::Before);
        assert!(folders.is_started());
        assert_eq!(folders.obey("pod-2", ResetWhen::Always).unwrap(), Obeyed::Now);
        let kept = fs::read_to_string(data.path().join("database.set-aside/CURRENT")).unwrap();
        assert_eq!(kept, "second", "only the last one is kept");
    }

    #[test]
    fn a_sound_database_is_never_taken_for_the_damaged_one() {
        let (_data, folders) = folders();
        assert_eq!(folders.obey("pod-1", ResetWhen::FoundCorrupt).unwrap(), Obeyed::NotNeeded);
        folders.mark_corrupt().unwrap();
        assert_eq!(folders.obey("pod-1", ResetWhen::FoundCorrupt).unwrap(), Obeyed::Before);
        assert_eq!(folders.obey("pod-2", ResetWhen::FoundCorrupt).unwrap(), Obeyed::Now);
        make(&folders, "new");
        assert_eq!(folders.obey("pod-3", ResetWhen::FoundCorrupt).unwrap(), Obeyed::NotNeeded);
        folders.mark_corrupt().unwrap();
        folders.unmark_corrupt().unwrap();
        folders.unmark_corrupt().unwrap();
        assert_eq!(folders.obey("pod-4", ResetWhen::FoundCorrupt).unwrap(), Obeyed::NotNeeded);
        assert!(folders.is_started());
    }
}
