//! The signer folder: keys bound to one volume and one genesis (PROTOCOL S1).
//!
//! ```text
//! signer/consensus.key   Ed25519 seed, 0600
//! signer/tls.key         P-256, PKCS#8 PEM, 0600
//! signer/volume          id of the volume the keys were made on
//! signer/unsigned        there until the signing record is made: nothing was signed with this key yet
//! signer/genesis         hash of the chain's genesis, written once
//! signer/restart-1, …    documents of restarts, each written once
//! signer/record          the signing record; owned by `consensus`
//! signer.refused-…       a folder that refused and was set aside, by the order for it; nobody opens it any more
//! ```
//!
//! The first four appear together, by one rename, so that a crash leaves all or none, and a folder with some of them has
//! lost the others. `unsigned` tells a first start from a lost record: without it, a missing record means refuse.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bizra_proto::ceremony::decode_hex;
use bizra_simplex::types::Digest;

use super::file::{self, io};
use super::{ConsensusKey, IdentityError, TlsKey};

const FOLDER: &str = "signer";
/// Where a new folder is prepared; what a crash leaves there was never used and is removed.
const PREPARED_FOLDER: &str = "signer.new";
const CONSENSUS_KEY: &str = "consensus.key";
const TLS_KEY: &str = "tls.key";
const VOLUME: &str = "volume";
const UNSIGNED: &str = "unsigned";
const GENESIS: &str = "genesis";
const GENESIS_NEW: &str = "genesis.new";
const RESTART: &str = "restart-";
const RESTART_NEW: &str = "restart.new";
const RECORD: &str = "record";
const REFUSED: &str = "signer.refused-";

/// Files without which the folder is not one.
const REQUIRED: [&str; 3] = [CONSENSUS_KEY, TLS_KEY, VOLUME];

/// The opened signer folder of a node.
#[derive(Debug)]
pub struct SignerFolder {
    path: PathBuf,
}

impl SignerFolder {
    /// Opens the folder inside `data_dir`, or makes it with fresh keys if there is none. Refuses a folder made on
    /// another volume and a folder of which a part is missing.
    pub fn open_or_create(data_dir: &Path, volume_id: &str) -> Result<Self, IdentityError> {
        let path = data_dir.join(FOLDER);
        if is_absent_or_empty(&path)? {
            Self::create(data_dir, volume_id)?;
        }
        Self::open(data_dir, volume_id)
    }

    /// Opens the folder inside `data_dir`; it must have been made by [`Self::open_or_create`] on this volume.
    pub fn open(data_dir: &Path, volume_id: &str) -> Result<Self, IdentityError> {
        let folder = Self::open_unchecked(data_dir)?;
        let recorded = file::read_text(&folder.path.join(VOLUME))?;
        if recorded == volume_id {
            Ok(folder)
        } else {
            Err(IdentityError::OtherVolume { path: folder.path, recorded, given: volume_id.to_owned() })
        }
    }

    /// Opens the folder without a claim about the volume: enough to read certificates and the pin, never to sign.
    pub fn open_unchecked(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(FOLDER);
        if is_absent_or_empty(&path)? {
            return Err(IdentityError::Missing(path));
        }
        let (present, missing): (Vec<_>, Vec<_>) = REQUIRED.iter().partition(|name| path.join(name).exists());
        if missing.is_empty() {
            return Ok(Self { path });
        }
        let others = [GENESIS, RECORD, UNSIGNED].into_iter().filter(|name| path.join(name).exists());
        let present: Vec<_> = present.into_iter().copied().chain(others).collect();
        let present = if present.is_empty() { "other files".to_owned() } else { present.join(", ") };
        let missing = missing.into_iter().copied().collect::<Vec<_>>().join(", ");
        Err(IdentityError::Incomplete { path, present, missing })
    }

    /// Sets the folder aside because of this order, so that the next start makes fresh keys; false if that was done before.
    pub fn set_aside(data_dir: &Path, order: &str) -> Result<bool, IdentityError> {
        let (path, aside) = (data_dir.join(FOLDER), data_dir.join(format!("{REFUSED}{order}")));
        if aside.exists() {
            return Ok(false);
        }
        fs::rename(&path, &aside).map_err(io("set aside", &path))?;
        file::sync_folder(data_dir)?;
        Ok(true)
    }

    fn create(data_dir: &Path, volume_id: &str) -> Result<(), IdentityError> {
        fs::create_dir_all(data_dir).map_err(io("create", data_dir))?;
        let prepared = data_dir.join(PREPARED_FOLDER);
        if prepared.exists() {
            fs::remove_dir_all(&prepared).map_err(io("remove", &prepared))?;
        }
        DirBuilder::new().mode(0o700).create(&prepared).map_err(io("create", &prepared))?;
        ConsensusKey::generate()?.create(&prepared.join(CONSENSUS_KEY))?;
        TlsKey::generate()?.create(&prepared.join(TLS_KEY))?;
        file::create(&prepared.join(VOLUME), volume_id.as_bytes())?;
        file::create(&prepared.join(UNSIGNED), b"")?;
        file::sync_folder(&prepared)?;
        // Renaming onto an empty folder is allowed; onto one that has meanwhile been filled it fails.
        let path = data_dir.join(FOLDER);
        fs::rename(&prepared, &path).map_err(io("create", &path))?;
        file::sync_folder(data_dir)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the consensus key.
    pub fn consensus_key(&self) -> Result<ConsensusKey, IdentityError> {
        ConsensusKey::load(&self.path.join(CONSENSUS_KEY))
    }

    /// Reads the TLS key.
    pub fn tls_key(&self) -> Result<TlsKey, IdentityError> {
        TlsKey::load(&self.path.join(TLS_KEY))
    }

    /// Where the signing record lives.
    pub fn record_path(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    /// True until [`Self::record_made`]: nothing was ever signed with this key, so a missing or half-made record is a
    /// first start and may be made afresh. Afterwards a missing record means refuse.
    pub fn may_make_record(&self) -> bool {
        self.path.join(UNSIGNED).exists()
    }

    /// To be called once the fresh record is durable and before the first signature.
    pub fn record_made(&self) -> Result<(), IdentityError> {
        let marker = self.path.join(UNSIGNED);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &marker)(error)),
            _ => file::sync_folder(&self.path),
        }
    }

    /// The genesis this volume has pinned.
    pub fn pinned_genesis(&self) -> Result<Option<Digest>, IdentityError> {
        let path = self.path.join(GENESIS);
        if !path.exists() {
            return Ok(None);
        }
        let text = file::read_text(&path)?;
        decode_hex(text.trim_end())
            .map(|hash| Some(Digest(hash)))
            .ok_or_else(|| IdentityError::Damaged { path, what: "it does not hold a hash of 64 hex digits".to_owned() })
    }

    /// Pins this genesis for ever, durably; refuses if another one is pinned.
    pub fn pin_genesis(&self, given: Digest) -> Result<(), IdentityError> {
        match self.pinned_genesis()? {
            Some(pinned) if pinned == given => Ok(()),
            Some(pinned) => Err(IdentityError::OtherGenesis { pinned, given }),
            None => self.write_pin((GENESIS_NEW, GENESIS), format!("{given}\n").as_bytes()),
        }
    }

    /// The documents of restarts that this volume has pinned, from number 1 on; whose they are, the caller checks.
    pub fn pinned_restarts(&self) -> Result<Vec<Vec<u8>>, IdentityError> {
        let mut pinned = Vec::new();
        let entries = fs::read_dir(&self.path).map_err(io("read", &self.path))?;
        for entry in entries {
            let name = entry.map_err(io("read", &self.path))?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.strip_prefix(RESTART)) {
                pinned.push(number.parse::<u64>().map_err(|_| self.damaged_restarts())?);
            }
        }
        pinned.sort_unstable();
        if !pinned.iter().copied().eq(1..=pinned.len() as u64) {
            return Err(self.damaged_restarts());
        }
        let path = |number: u64| self.path.join(format!("{RESTART}{number}"));
        pinned.into_iter().map(|number| fs::read(path(number)).map_err(io("read", &path(number)))).collect()
    }

    fn damaged_restarts(&self) -> IdentityError {
        let what = "its files `restart-1`, `restart-2`, … are not complete".to_owned();
        IdentityError::Damaged { path: self.path.clone(), what }
    }

    /// Pins the document of the next restart for ever, durably.
    pub fn pin_restart(&self, number: u64, document: &[u8]) -> Result<(), IdentityError> {
        self.write_pin((RESTART_NEW, &format!("{RESTART}{number}")), document)
    }

    /// Whole or not at all: written aside and synced, then renamed.
    fn write_pin(&self, (aside, name): (&str, &str), content: &[u8]) -> Result<(), IdentityError> {
        let (aside, path) = (self.path.join(aside), self.path.join(name));
        if aside.exists() {
            fs::remove_file(&aside).map_err(io("remove", &aside))?;
        }
        file::create(&aside, content)?;
        fs::rename(&aside, &path).map_err(io("create", &path))?;
        file::sync_folder(&self.path)
    }
}

fn is_absent_or_empty(path: &Path) -> Result<bool, IdentityError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_proto::exit::ExitReason;

    use super::*;

    #[test]
    fn the_second_start_finds_the_keys_of_the_first() {
        let data = tempfile::tempdir().unwrap();
        let first = SignerFolder::open_or_create(data.path(), "uid-1").unwrap().consensus_key().unwrap();
        let second = SignerFolder::open_or_create(data.path(), "uid-1").unwrap().consensus_key().unwrap();
        assert_eq!(first.public_key(), second.public_key());
    }

    #[test]
    fn an_empty_folder_and_the_rest_of_an_interrupted_start_are_a_first_start() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join(FOLDER)).unwrap();
        fs::create_dir(data.path().join(PREPARED_FOLDER)).unwrap();
        fs::write(data.path().join(PREPARED_FOLDER).join(CONSENSUS_KEY), [1; 10]).unwrap();
        SignerFolder::open_or_create(data.path(), "uid-1").unwrap().consensus_key().unwrap();
        assert!(!data.path().join(PREPARED_FOLDER).exists());
    }

    #[test]
    fn another_volume_is_refused() {
        let data = tempfile::tempdir().unwrap();
        SignerFolder::open_or_create(data.path(), "uid-1").unwrap();
        let error = SignerFolder::open_or_create(data.path(), "uid-2").unwrap_err();
        assert!(matches!(error, IdentityError::OtherVolume { .. }));
        assert_eq!(error.reason(), ExitReason::SigningRecordRefused);
    }

    #[test]
    fn a_folder_that_lost_a_file_is_refused_and_never_refilled() {
        for name in REQUIRED {
            let data = tempfile::tempdir().unwrap();
            let folder = SignerFolder::open_or_create(data.path(), "uid-1").unwrap();
            fs::remove_file(folder.path().join(name)).unwrap();
            let error = SignerFolder::open_or_create(data.path(), "uid-1").unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.reason(), ExitReason::SigningRecordRefused);
        }
    }

    #[test]
    fn a_genesis_is_pinned_once() {
        let data = tempfile::tempdir().unwrap();
        let folder = SignerFolder::open_or_create(data.path(), "uid-1").unwrap();
        assert_eq!(folder.pinned_genesis().unwrap(), None);
        let (ours, other) = (Digest([1; 32]), Digest([2; 32]));
        folder.pin_genesis(ours).unwrap();
        folder.pin_genesis(ours).unwrap();
        let error = folder.pin_genesis(other).unwrap_err();
        assert_eq!(error.reason(), ExitReason::WrongGenesis);
        assert!(error.to_string().contains(&ours.to_string()) && error.to_string().contains(&other.to_string()));
        assert_eq!(folder.pinned_genesis().unwrap(), Some(ours));
    }

    #[test]
    fn a_flipped_byte_is_damage_and_no_failing_disk() {
        let data = tempfile::tempdir().unwrap();
        let folder = SignerFolder::open_or_create(data.path(), "uid-1").unwrap();
        folder.pin_genesis(Digest([1; 32])).unwrap();
        for name in [GENESIS, VOLUME] {
            let path = folder.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            bytes[0] ^= 0x80;
            fs::write(&path, bytes).unwrap();
            let error =
                SignerFolder::open(data.path(), "uid-1").and_then(|folder| folder.pinned_genesis()).unwrap_err();
            assert_eq!(error.reason(), ExitReason::SigningRecordRefused, "{error}");
        }
    }

    #[test]
    fn a_record_may_be_made_once() {
        let data = tempfile::tempdir().unwrap();
        let folder = SignerFolder::open_or_create(data.path(), "uid-1").unwrap();
        assert!(folder.may_make_record());
        folder.record_made().unwrap();
        folder.record_made().unwrap();
        assert!(!SignerFolder::open(data.path(), "uid-1").unwrap().may_make_record());
    }
}
