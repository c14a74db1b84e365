//! Documents of the genesis ceremony: what a node reports of its keys, and the genesis made of those reports.
//!
//! A genesis is identified by the SHA-256 of its exact bytes, so whoever can read the file can name it. It is written
//! once and never re-serialised.

use ed25519_zebra::{Signature, SigningKey, VerificationKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::parameters::{Parameters, ParametersError};

/// Domain of the proof-of-possession signature.
const PROOF_DOMAIN: &[u8] = b"bizra/v1/proof-of-possession\0";

/// Longest chain id, in bytes. It travels zero-padded in every transaction.
pub const CHAIN_ID_MAX_BYTES: usize = 32;

/// Longest name of a node, in bytes: it is a DNS label.
pub const NODE_NAME_MAX_BYTES: usize = 63;

/// Most validators a genesis may name: vote sets are kept per view, so the set bounds memory.
pub const VALIDATORS_MAX: usize = 128;

/// What the `key` init container reports as its termination message, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyReport {
    /// Consensus public key (Ed25519), lower-case hex.
    pub public_key: String,
    /// Signature over (domain, chain id, public key) with that key, lower-case hex.
    pub proof_of_possession: String,
    /// PEM certificate signing request for the node's TLS key.
    pub certificate_request: String,
    /// Hash of the genesis this volume has pinned, lower-case hex; absent on a fresh volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis_hash: Option<String>,
}

/// The genesis file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Genesis {
    /// Format version; 1.
    pub version: u32,
    /// Name of the chain: 1 to 32 of `a-z`, `0-9` and `-`.
    pub chain_id: String,
    /// Milliseconds since 1970.
    pub time_milliseconds: u64,
    /// In the order that gives each validator its index.
    pub validators: Vec<GenesisValidator>,
    /// Accounts with money at height 0.
    #[serde(default)]
    pub accounts: Vec<GenesisAccount>,
    /// Parameters of the ledger at height 0.
    #[serde(default, skip_serializing_if = "Parameters::is_default")]
    pub parameters: Parameters,
}

/// A validator of the first epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenesisValidator {
    /// Name of its node, as in peer configuration and certificates.
    pub name: String,
    /// Consensus public key, lower-case hex.
    pub public_key: String,
    /// See [`KeyReport::proof_of_possession`].
    pub proof_of_possession: String,
    /// Voting power, a positive decimal number.
    pub power: String,
    /// Account that may change this validator on chain, lower-case hex. Without one it is the account of the consensus
    /// key, which signs no transactions: such a validator can be jailed, but never rotated or deactivated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Stake the owner has reserved at height 0, base units, a decimal number. What it is worth is a part of `power`; the rest is
    /// granted by the genesis for as long as the validator stays registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stake: Option<String>,
}

/// An account of height 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenesisAccount {
    /// Ed25519 public key of the owner, lower-case hex.
    pub address: String,
    /// Balance in base units, a decimal number.
    pub balance: String,
}

/// What can be wrong with a document of the ceremony.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CeremonyError {
    /// Not JSON of the expected shape.
    #[error("the genesis is not valid JSON of version 1: {0}")]
    Malformed(String),
    /// A version this build does not know.
    #[error("genesis version {0} is not supported; this build reads version 1")]
    Version(u32),
    /// The chain id has a forbidden form.
    #[error("chain id {0:?} must be 1 to 32 characters of a-z, 0-9 and '-'")]
    ChainId(String),
    /// Too few or too many validators.
    #[error("a genesis needs 1 to {VALIDATORS_MAX} validators, not {0}")]
    ValidatorCount(usize),
    /// A validator entry is wrong.
    #[error("validator {name}: {what}")]
    Validator {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// An account entry is wrong.
    #[error("account {address}: {what}")]
    Account {
        /// Its address.
        address: String,
        /// What is wrong.
        what: String,
    },
    /// A parameter is out of range.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// The proof does not show possession of the key for this chain.
    #[error("proof of possession of key {0} is not valid for this chain")]
    Proof(String),
}

/// Identifies a genesis: SHA-256 over the exact bytes of its file.
pub fn genesis_hash(file: &[u8]) -> [u8; 32] {
    Sha256::digest(file).into()
}

/// True if `text` may name a chain.
pub fn is_chain_id(text: &str) -> bool {
    (1..=CHAIN_ID_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// True for a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, not at the ends.
pub fn is_node_name(text: &str) -> bool {
    (1..=NODE_NAME_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn proof_message(chain_id: &str, public_key: [u8; 32]) -> Vec<u8> {
    [PROOF_DOMAIN, chain_id.as_bytes(), b"\0", &public_key].concat()
}

/// Signs that the holder of `key` wants to validate on `chain_id`; lower-case hex.
pub fn prove_possession(key: &SigningKey, chain_id: &str) -> String {
    let public_key: [u8; 32] = ed25519_zebra::VerificationKeyBytes::from(key).into();
    hex::encode(key.sign(&proof_message(chain_id, public_key)).to_bytes())
}

/// Checks a proof made by [`prove_possession`] and returns the key.
pub fn verify_possession(public_key: &str, proof: &str, chain_id: &str) -> Result<[u8; 32], CeremonyError> {
    let fail = || CeremonyError::Proof(public_key.to_owned());
    let key_bytes = decode_hex::<32>(public_key).ok_or_else(fail)?;
    let signature = Signature::from(decode_hex::<64>(proof).ok_or_else(fail)?);
    let key = VerificationKey::try_from(key_bytes).map_err(|_| fail())?;
    key.verify(&signature, &proof_message(chain_id, key_bytes)).map_err(|_| fail())?;
    Ok(key_bytes)
}

/// Reads lower-case hex of exactly `N` bytes.
pub fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

impl Genesis {
    /// Reads and checks a genesis file: form, distinct and proven keys, positive powers, and totals that fit 63 bits.
    pub fn parse(file: &[u8]) -> Result<Self, CeremonyError> {
        let genesis: Self =
            serde_json::from_slice(file).map_err(|error| CeremonyError::Malformed(error.to_string()))?;
        genesis.check()?;
        Ok(genesis)
    }

    /// Checks everything [`Self::parse`] checks, on a value that is about to be written.
    pub fn check(&self) -> Result<(), CeremonyError> {
        if self.version != 1 {
            return Err(CeremonyError::Version(self.version));
        }
        if !is_chain_id(&self.chain_id) {
            return Err(CeremonyError::ChainId(self.chain_id.clone()));
        }
        if !(1..=VALIDATORS_MAX).contains(&self.validators.len()) {
            return Err(CeremonyError::ValidatorCount(self.validators.len()));
        }
        self.parameters.check()?;
        let mut names = std::collections::BTreeSet::new();
        let mut owners = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeSet::new();
        let mut total_power: u64 = 0;
        let mut supply: u64 = 0;
        for validator in &self.validators {
            let fail = |what: &str| CeremonyError::Validator { name: validator.name.clone(), what: what.to_owned() };
            let key = verify_possession(&validator.public_key, &validator.proof_of_possession, &self.chain_id)?;
            if !names.insert(&validator.name) {
                return Err(fail("its name is given twice"));
            }
            if !keys.insert(key) {
                return Err(fail("its key belongs to another validator too"));
            }
            let owner = validator.owner(key).ok_or_else(|| fail("its owner is not 64 lower-case hex digits"))?;
            if !owners.insert(owner) {
                return Err(fail("its owner owns another validator too; an account owns one at most"));
            }
            let power = validator.power().ok_or_else(|| fail("its power must be a positive decimal number"))?;
            total_power = add_within_63_bits(total_power, power).ok_or_else(|| fail("the total power is too large"))?;
            let stake = validator.stake().ok_or_else(|| fail("its stake is not a decimal number"))?;
            if validator.granted_power(&self.parameters).is_none() {
                return Err(fail("its stake is worth more than its power"));
            }
            supply = add_within_63_bits(supply, stake).ok_or_else(|| fail("the total supply is too large"))?;
        }
        let mut addresses = std::collections::BTreeSet::new();
        for account in &self.accounts {
            let fail = |what: &str| CeremonyError::Account { address: account.address.clone(), what: what.to_owned() };
            let address = decode_hex::<32>(&account.address).ok_or_else(|| fail("not 64 lower-case hex digits"))?;
            if !addresses.insert(address) {
                return Err(fail("it is given twice"));
            }
            let balance = parse_decimal(&account.balance).ok_or_else(|| fail("its balance is not a decimal number"))?;
            supply = add_within_63_bits(supply, balance).ok_or_else(|| fail("the total supply is too large"))?;
        }
        Ok(())
    }
}

impl GenesisValidator {
    /// The power as a number, if it is one and positive.
    pub fn power(&self) -> Option<u64> {
        parse_decimal(&self.power).filter(|&power| power > 0)
    }

    /// The stake as a number; 0 without one, `None` if it is malformed.
    pub fn stake(&self) -> Option<u64> {
        self.stake.as_deref().map_or(Some(0), parse_decimal)
    }

    /// The power beyond that of the stake; `None` if the stake is worth more, or something is malformed.
    pub fn granted_power(&self, parameters: &Parameters) -> Option<u64> {
        self.power()?.checked_sub(self.stake()? / parameters.stake_per_power.max(1))
    }

    /// The owner's account, by default that of the consensus key; `None` if it is malformed.
    pub fn owner(&self, public_key: [u8; 32]) -> Option<[u8; 32]> {
        self.owner.as_deref().map_or(Some(public_key), decode_hex)
    }
}

impl GenesisAccount {
    /// The balance as a number, if it is one.
    pub fn balance(&self) -> Option<u64> {
        parse_decimal(&self.balance)
    }
}

/// Canonical decimals only: no sign, no leading zero.
fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| canonical)
}

/// Sums stay below 2^63, so that `3 * power` fits 65 bits and databases with signed integers can hold them.
fn add_within_63_bits(total: u64, amount: u64) -> Option<u64> {
    total.checked_add(amount).filter(|&sum| i64::try_from(sum).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn validator(seed: u8, chain_id: &str) -> GenesisValidator {
        let key = SigningKey::from([seed; 32]);
        GenesisValidator {
            name: format!("v{seed}"),
            public_key: hex::encode(<[u8; 32]>::from(ed25519_zebra::VerificationKeyBytes::from(&key))),
            proof_of_possession: prove_possession(&key, chain_id),
            power: "1".to_owned(),
            owner: None,
            stake: None,
        }
    }

    fn genesis() -> Genesis {
        Genesis {
            version: 1,
            chain_id: "demo-1".to_owned(),
            time_milliseconds: 0,
            validators: (1..=4).map(|seed| validator(seed, "demo-1")).collect(),
            accounts: vec![GenesisAccount { address: "11".repeat(32), balance: "5".to_owned() }],
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn a_sound_genesis_survives_a_round_trip() {
        let file = serde_json::to_vec(&genesis()).unwrap();
        assert_eq!(Genesis::parse(&file), Ok(genesis()));
    }

    #[test]
    fn a_proof_for_another_chain_is_refused() {
        let mut wrong = genesis();
        wrong.validators[2] = validator(3, "demo-2");
        assert!(matches!(wrong.check(), Err(CeremonyError::Proof(_))));
    }

    #[test]
    fn a_key_cannot_be_two_validators() {
        let mut wrong = genesis();
        wrong.validators[3] = GenesisValidator { name: "other".to_owned(), ..wrong.validators[0].clone() };
        assert!(matches!(wrong.check(), Err(CeremonyError::Validator { .. })));
    }

    #[test]
    fn an_account_owns_one_validator_and_parameters_have_ranges() {
        let mut wrong = genesis();
        wrong.validators[0].owner = Some("22".repeat(32));
        assert_eq!(wrong.check(), Ok(()));
        wrong.validators[1].owner = Some("22".repeat(32));
        assert!(matches!(wrong.check(), Err(CeremonyError::Validator { .. })));
        let mut wrong = genesis();
        wrong.parameters.epoch_blocks = 100;
        assert!(matches!(wrong.check(), Err(CeremonyError::Parameters(_))));
    }

    #[test]
    fn a_stake_is_worth_no_more_than_the_power() {
        let mut genesis = genesis();
        let spoken = |genesis: &Genesis| genesis.check().map_err(|error| error.to_string());
        genesis.validators[0].power = "2".to_owned();
        genesis.validators[0].stake = Some("1999".to_owned());
        assert_eq!((spoken(&genesis), genesis.validators[0].granted_power(&genesis.parameters)), (Ok(()), Some(1)));
        for (stake, told) in
            [("3000", "worth more"), ("01", "not a decimal number"), ("9223372036854775807", "worth more")]
        {
            genesis.validators[0].stake = Some(stake.to_owned());
            assert!(spoken(&genesis).is_err_and(|error| error.contains(told)), "{stake}");
        }
        genesis.validators[0].power = i64::MAX.to_string();
        genesis.validators[1].stake = Some("1".to_owned());
        assert!(spoken(&genesis).is_err(), "a supply of 2^63");
    }

    #[test]
    fn totals_stay_below_two_to_the_63() {
        let mut wrong = genesis();
        wrong.accounts[0].balance = u64::MAX.to_string();
        assert!(matches!(wrong.check(), Err(CeremonyError::Account { .. })));
        wrong.accounts[0].balance = "007".to_owned();
        assert!(matches!(wrong.check(), Err(CeremonyError::Account { .. })));
    }
}
