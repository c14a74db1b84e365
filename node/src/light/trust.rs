//! What the client trusts, and the file it keeps it in between two runs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bizra_driver::codec::{Reader, Write as _};
use bizra_driver::light::{LightError, TrustedEpoch};
use bizra_driver::{Member, PublicKey};
use bizra_proto::ceremony::decode_hex;
use bizra_simplex::Reputation;
use bizra_simplex::types::{Digest, Power};
use serde::{Deserialize, Serialize};

use super::chain_rules;
use crate::configuration::LoadedGenesis;

const VERSION: u32 = 1;

/// Why the trust file cannot be used. It is never replaced then: what was trusted is the owner's to decide.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file operation failed.
    #[error("cannot {action} the trust file {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It does not hold what this client writes.
    #[error("the trust file {path} is damaged: {what}; remove it to start from the genesis or from a fresh anchor")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is about another chain.
    #[error("the trust file {path} is of the chain with genesis hash {found}, not {wanted}; name another file")]
    AnotherChain {
        /// The file.
        path: PathBuf,
        /// The chain it is of.
        found: String,
        /// The chain of the genesis file.
        wanted: Digest,
    },
    /// The genesis holds no validator set.
    #[error(transparent)]
    Set(#[from] LightError),
}

/// The epoch whose validators are trusted, and when they were last seen to be the present ones.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(super) epoch: TrustedEpoch,
    /// On this machine's clock, milliseconds since 1970.
    pub(super) seen_milliseconds: u64,
    /// Digests of the boundary blocks walked over, by the epoch each ended: for proofs from epochs before the present.
    pub(super) boundaries: BTreeMap<u64, Digest>,
    /// The epoch before, while the present one is the first after a restart: no boundary leads to that, so this is kept.
    pub(super) resume: Option<TrustedEpoch>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrustFile {
    version: u32,
    genesis_hash: String,
    /// The epoch whose validators are trusted.
    epoch: u64,
    seen_milliseconds: u64,
    /// The last block of the epoch before, canonical bytes in hex; absent in epoch 0.
    boundary: Option<String>,
    validators: Vec<TrustedValidator>,
    boundaries: BTreeMap<u64, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrustedValidator {
    public_key: String,
    power: String,
    /// In 1/1024.
    reputation: u16,
}

/// Epoch 0, as the genesis names it.
pub fn genesis_epoch(genesis: &LoadedGenesis) -> Result<TrustedEpoch, LightError> {
    let members = genesis.validators.iter();
    let member = |member: &crate::configuration::Member| Member {
        key: PublicKey(member.public_key),
        power: member.power,
        reputation: Reputation::FULL,
    };
    let members = members.map(member).collect();
    TrustedEpoch::genesis(chain_rules(genesis), genesis.genesis.time_milliseconds, members)
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrustError {
    let path = path.to_owned();
    move |source| TrustError::Io { action, path, source }
}

impl Trust {
    /// The genesis, which was current at its own time.
    pub fn genesis(genesis: &LoadedGenesis) -> Result<Self, LightError> {
        let seen_milliseconds = genesis.genesis.time_milliseconds;
        let epoch = genesis_epoch(genesis)?;
        Ok(Self { epoch, seen_milliseconds, boundaries: BTreeMap::new(), resume: None })
    }

    /// The epoch that is trusted.
    pub fn epoch(&self) -> &TrustedEpoch {
        &self.epoch
    }

    /// Reads the file; `None` if there is none yet.
    pub fn load(path: &Path, genesis: &LoadedGenesis) -> Result<Option<Self>, TrustError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", path)(error)),
        };
        let damaged = |what: String| TrustError::Damaged { path: path.to_owned(), what };
        let file: TrustFile = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if file.version != VERSION {
            return Err(damaged(format!("version {} is not supported", file.version)));
        }
        if file.genesis_hash != genesis.hash.to_string() {
            let (path, found, wanted) = (path.to_owned(), file.genesis_hash, genesis.hash);
            return Err(TrustError::AnotherChain { path, found, wanted });
        }
        Self::read(file, genesis).map(Some).map_err(damaged)
    }

    fn read(file: TrustFile, genesis: &LoadedGenesis) -> Result<Self, String> {
        let TrustFile { epoch, seen_milliseconds, boundary, validators, boundaries, .. } = file;
        let digest = |(epoch, text): (u64, String)| Some((epoch, Digest(decode_hex(&text)?)));
        let boundaries: Option<BTreeMap<u64, Digest>> = boundaries.into_iter().map(digest).collect();
        let boundaries = boundaries.ok_or("a boundary is not a digest")?;
        let trusted = match boundary {
            None => genesis_epoch(genesis).map_err(|error| error.to_string())?,
            Some(boundary) => {
                let bytes = hex::decode(boundary).map_err(|error| format!("the boundary block: {error}"))?;
                let mut reader = Reader::new(bytes.into());
                let block = reader.block().and_then(|block| reader.end().map(|()| block));
                let block = block.map_err(|error| format!("the boundary block: {error}"))?;
                let member = |validator: TrustedValidator| {
                    let (key, power) = (decode_hex(&validator.public_key)?, validator.power.parse().ok()?);
                    let reputation = Reputation::new(validator.reputation)?;
                    Some(Member { key: PublicKey(key), power: Power(power), reputation })
                };
                let next: Option<Vec<Member>> = validators.into_iter().map(member).collect();
                let next = next.ok_or("a validator is not a key, a power and a reputation")?;
                // The digest is kept twice, so that a changed block does not pass for the trusted one.
                let trusted = boundaries.get(&block.epoch.0).copied().ok_or("its own boundary is missing")?;
                TrustedEpoch::anchor(chain_rules(genesis), trusted, block, next).map_err(|error| error.to_string())?
            }
        };
        if trusted.epoch().0 != epoch {
            return Err(format!("it names epoch {epoch} and holds epoch {}", trusted.epoch()));
        }
        Ok(Self { epoch: trusted, seen_milliseconds, boundaries, resume: None })
    }

    /// Writes the file, whole or not at all, durably.
    pub fn store(&self, path: &Path, genesis: &LoadedGenesis) -> Result<(), TrustError> {
        let kept = self.resume.as_ref().unwrap_or(&self.epoch);
        let below = kept.below();
        let boundary = below.boundary.is_some().then(|| {
            let mut bytes = Vec::new();
            bytes.put_block(below);
            hex::encode(bytes)
        });
        let validators = kept.members().iter();
        let file = TrustFile {
            version: VERSION,
            genesis_hash: genesis.hash.to_string(),
            epoch: kept.epoch().0,
            seen_milliseconds: self.seen_milliseconds,
            boundary,
            validators: validators
                .map(|Member { key, power, reputation }| TrustedValidator {
                    public_key: hex::encode(key.0),
                    power: power.0.to_string(),
                    reputation: reputation.get(),
                })
                .collect(),
            boundaries: self.boundaries.iter().map(|(epoch, digest)| (*epoch, digest.to_string())).collect(),
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io("encode", path)(error.into()))?;
        let aside = path.with_added_extension("new");
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).open(&aside).map_err(io("create", &aside))?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(io("write", &aside))?;
        fs::rename(&aside, path).map_err(io("replace", path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of", path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_driver::validators_hash;
    use bizra_proto::ceremony::Genesis;
    use bizra_proto::parameters::Parameters;
    use bizra_simplex::types::{Epoch, Height};
    use bizra_simplex::{Block, Boundary, Checkpoint, Version};

    use super::*;

    fn genesis(hash: u8) -> LoadedGenesis {
        let genesis = Genesis {
            version: 1,
            chain_id: "demo-1".to_owned(),
            time_milliseconds: 5,
            validators: Vec::new(),
            accounts: Vec::new(),
            parameters: Parameters { epoch_blocks: 32, ..Parameters::default() },
        };
        let member =
            |key| crate::configuration::Member { name: format!("v{key}"), public_key: [key; 32], power: Power(1) };
        LoadedGenesis { genesis, hash: Digest([hash; 32]), validators: (1..=4).map(member).collect() }
    }

    /// Trust in epoch 1.
    fn trust(genesis: &LoadedGenesis) -> Trust {
        let next: Vec<Member> = (2..=5)
            .map(|key| Member { key: PublicKey([key; 32]), power: Power(2), reputation: Reputation::FLOOR })
            .collect();
        let block = Block {
            height: Height(40),
            checkpoint: Checkpoint { height: Height(32), ..Checkpoint::default() },
            boundary: Some(Boundary {
                validators: validators_hash(Epoch(1), &next),
                snapshot: Digest::default(),
                version: Version(1),
            }),
            ..Block::genesis(Digest([3; 32]), 7)
        };
        let digest = block.digest();
        let epoch = TrustedEpoch::anchor(chain_rules(genesis), digest, block, next).unwrap();
        Trust { epoch, seen_milliseconds: 99, boundaries: [(0, digest)].into(), resume: None }
    }

    #[test]
    fn what_was_stored_is_trusted_again_on_the_same_chain_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.json");
        let ours = genesis(1);
        assert!(Trust::load(&path, &ours).unwrap().is_none());
        for stored in [Trust::genesis(&ours).unwrap(), trust(&ours)] {
            stored.store(&path, &ours).unwrap();
            let found = Trust::load(&path, &ours).unwrap().unwrap();
            assert_eq!(found.epoch.epoch(), stored.epoch.epoch());
            assert_eq!(found.epoch.members(), stored.epoch.members());
            assert_eq!(found.epoch.below(), stored.epoch.below());
            assert_eq!((found.seen_milliseconds, &found.boundaries), (stored.seen_milliseconds, &stored.boundaries));
        }
        let foreign = Trust::load(&path, &genesis(2)).unwrap_err();
        assert!(matches!(foreign, TrustError::AnotherChain { .. }), "{foreign}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_changed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.json");
        let ours = genesis(1);
        trust(&ours).store(&path, &ours).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let digest = trust(&ours).epoch.below_digest().to_string();
        for (what, from, to) in [
            ("another key", "0202", "0909"),
            ("another power", "\"power\": \"2\"", "\"power\": \"3\""),
            ("another epoch", "\"epoch\": 1", "\"epoch\": 2"),
            ("another boundary", digest.as_str(), &"0".repeat(64)),
            ("a cut", "", ""),
        ] {
            let changed = text.replace(from, to);
            let changed = if what == "a cut" { text[..text.len() / 2].to_owned() } else { changed };
            assert_ne!(changed, text, "{what}");
            fs::write(&path, changed).unwrap();
            let refused = Trust::load(&path, &ours);
            assert!(matches!(refused, Err(TrustError::Damaged { .. })), "{what}: {refused:?}");
        }
    }
}
