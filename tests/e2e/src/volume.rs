//! What happens to a node's volume behind its back.

use std::{fs::File, io, path::PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{process::Process, scene::SceneError};

/// Where a node has its volume.
const DATA: &str = "var/lib/bizra";
/// Takes the room in a full volume.
const FILLER: &str = "filler";
/// Where the first record of a manifest begins.
const MANIFEST_HEADER_BYTES: usize = 8;

/// The volume of a running node.
#[derive(Debug)]
pub struct Volume {
    folder: PathBuf,
}

impl Volume {
    /// The volume as this process sees it, for as long as it lives.
    pub fn of(process: &Process) -> Self {
        Self { folder: process.root().join(DATA) }
    }

    fn done<T>(&self, what: &str, result: io::Result<T>) -> Result<T, SceneError> {
        result.map_err(|error| SceneError::Unexpected(format!("{what} in {}: {error}", self.folder.display())))
    }

    /// Turns bits of the database's manifest around. The process has read it and does not notice; the next one does.
    pub fn damage_database(&self) -> Result<(), SceneError> {
        let damage = || {
            let mut entries = std::fs::read_dir(self.folder.join("database"))?;
            let is_manifest = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("MANIFEST");
            let manifest = entries.find(|entry| entry.as_ref().map_or(true, is_manifest));
            let path = manifest.ok_or_else(|| io::Error::other("there is no manifest"))??.path();
            let mut bytes = std::fs::read(&path)?;
            bytes.iter_mut().skip(MANIFEST_HEADER_BYTES).for_each(|byte| *byte ^= 0x5a);
            std::fs::write(path, bytes)
        };
        self.done("damaging the database", damage())
    }

    /// Removes everything: keys, signing record and database. The process has its files open and does not notice; the next one
    /// does.
    pub fn wipe(&self) -> Result<(), SceneError> {
        let wipe = || {
            for entry in std::fs::read_dir(&self.folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        self.done("wiping the volume", wipe())
    }

    /// Takes every block that is free.
    pub fn fill(&self) -> Result<(), SceneError> {
        let filler = self.done("making the filler", File::create(self.folder.join(FILLER)))?;
        let mut end = 0;
        for step in [64 << 20, 1 << 20, 4 << 10] {
            while fallocate(&filler, FallocateFlags::empty(), end, step).is_ok() {
                end += step;
            }
        }
        let room = if end > 0 { Ok(()) } else { Err(io::Error::other("there was no room to take")) };
        self.done("filling the volume", room)
    }

    /// Gives the room back.
    pub fn drain(&self) -> Result<(), SceneError> {
        self.done("removing the filler", std::fs::remove_file(self.folder.join(FILLER)))
    }
}
