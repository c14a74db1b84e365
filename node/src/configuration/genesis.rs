//! The genesis file, loaded: its document, its hash, and its validators as the protocol knows them.

use std::fs;
use std::path::Path;

use bizra_proto::ceremony::{Genesis, decode_hex, genesis_hash};
use bizra_simplex::types::{Digest, Power, ValidatorIndex};

use super::ConfigurationError;

/// A genesis that has passed all its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedGenesis {
    /// The document.
    pub genesis: Genesis,
    /// SHA-256 of the file's exact bytes: the chain's identity.
    pub hash: Digest,
    /// In the order of their indices.
    pub validators: Vec<Member>,
}

/// A validator of the first epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of its node.
    pub name: String,
    /// Its consensus public key.
    pub public_key: [u8; 32],
    /// Its voting power.
    pub power: Power,
}

impl LoadedGenesis {
    /// Reads and checks a genesis file.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let file =
            fs::read(path).map_err(|source| ConfigurationError::GenesisUnreadable { path: path.to_owned(), source })?;
        Self::parse(&file).map_err(|source| ConfigurationError::Genesis { path: path.to_owned(), source })
    }

    /// Checks the bytes of a genesis file.
    pub fn parse(file: &[u8]) -> Result<Self, bizra_proto::ceremony::CeremonyError> {
        let genesis = Genesis::parse(file)?;
        // `parse` has proven every key and power; an entry without would be left out, never guessed.
        let validators = genesis
            .validators
            .iter()
            .filter_map(|validator| {
                Some(Member {
                    name: validator.name.clone(),
                    public_key: decode_hex(&validator.public_key)?,
                    power: Power(validator.power()?),
                })
            })
            .collect();
        Ok(Self { genesis, hash: Digest(genesis_hash(file)), validators })
    }

    /// Index of the validator with that key; none for a full node.
    pub fn index_of_key(&self, public_key: &[u8; 32]) -> Option<ValidatorIndex> {
        self.index_where(|member| member.public_key == *public_key)
    }

    /// Index of the validator with that node name.
    pub fn index_of_name(&self, name: &str) -> Option<ValidatorIndex> {
        self.index_where(|member| member.name == name)
    }

    fn index_where(&self, test: impl Fn(&Member) -> bool) -> Option<ValidatorIndex> {
        self.validators.iter().position(test).and_then(|index| u16::try_from(index).ok()).map(ValidatorIndex)
    }
}
