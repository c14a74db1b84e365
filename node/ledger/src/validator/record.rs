//! Stored forms of stakes, validators and validator sets: a version byte, then fixed-width big-endian fields and
//! length-prefixed names. What does not decode is corruption.

use bizra_driver::{PublicKey, validators_hash};
use bizra_simplex::types::{Digest, Epoch, Power};
use bizra_simplex::{Reputation, Turns, ValidatorSet};

use super::reputation::Conduct;
use crate::stored::{Fields, StorageError};
use bizra_transaction::Address;

const VERSION: u8 = 1;

/// Whether a registered validator wants to be in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ValidatorStatus {
    /// Registered, or deactivated by its owner.
    Inactive = 0,
    /// Wants to be in the set of the next epoch.
    Active = 1,
    /// Equivocated; its owner must deregister it.
    Jailed = 2,
}

impl ValidatorStatus {
    /// Stable name for clients.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "Inactive",
            Self::Active => "Active",
            Self::Jailed => "Jailed",
        }
    }
}

/// A registered validator. It belongs to one account; an account has one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// Name of its node, as in peers' configuration and certificates.
    pub name: String,
    /// What it wants to be.
    pub status: ValidatorStatus,
    /// The consensus key it wants to vote with; `None` until its first activation.
    pub consensus_key: Option<[u8; 32]>,
    /// Power the genesis gave it, in addition to that of its stake.
    pub granted_power: u64,
    /// Height of its last activation, deactivation or rotation: its place in the queue.
    pub queued_at: u64,
}

impl Validator {
    /// The power that grant and stake give.
    pub fn power(&self, stake: &Stake, stake_per_power: u64) -> u64 {
        self.granted_power.saturating_add(stake.reserved / stake_per_power.max(1))
    }
}

/// Money of an account that answers for a validator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stake {
    /// Base units that count as power.
    pub reserved: u64,
    /// Released parts that still answer for what was signed; ascending epochs.
    pub unbonding: Vec<Unbonding>,
}

/// A released part of a stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbonding {
    /// Epoch from which it is paid out with the owner's next stake transaction.
    pub epoch: u64,
    /// Base units.
    pub amount: u64,
}

/// A validator of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Owner account.
    pub owner: Address,
    /// Name of its node.
    pub name: String,
    /// Ed25519 key it votes with.
    pub consensus_key: [u8; 32],
    /// Voting power, above 0.
    pub power: u64,
    /// What its turns to lead have led to.
    pub conduct: Conduct,
}

/// The validators of an epoch, in the order that gives each its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSetRecord {
    /// The epoch they vote in.
    pub epoch: u64,
    /// Height whose state named them; 0 for the genesis.
    pub cutoff: u64,
    /// Version of the protocol's rules in that epoch.
    pub version: u32,
    /// 1 to 128; total power below 2^63.
    pub members: Vec<Member>,
}

fn corrupt(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} of the validator registry does not decode"))
}

fn read_name(fields: &mut Fields<'_>) -> Option<String> {
    let length = usize::from(fields.u8()?);
    std::str::from_utf8(fields.slice(length)?).ok().map(str::to_owned)
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    // Names are DNS labels: checked by the genesis and by the codec.
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
}

impl Validator {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.status as u8];
        bytes.extend_from_slice(&self.granted_power.to_be_bytes());
        bytes.extend_from_slice(&self.queued_at.to_be_bytes());
        bytes.push(u8::from(self.consensus_key.is_some()));
        bytes.extend_from_slice(&self.consensus_key.unwrap_or_default());
        put_name(&mut bytes, &self.name);
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            fields.version(VERSION)?;
            let status = match fields.u8()? {
                0 => ValidatorStatus::Inactive,
                1 => ValidatorStatus::Active,
                2 => ValidatorStatus::Jailed,
                _ => return None,
            };
            let (granted_power, queued_at) = (fields.u64()?, fields.u64()?);
            let (has_key, key) = (fields.u8()?, fields.take()?);
            let consensus_key = match has_key {
                0 => None,
                1 => Some(key),
                _ => return None,
            };
            let name = read_name(&mut fields)?;
            fields.end()?;
            Some(Self { name, status, consensus_key, granted_power, queued_at })
        };
        read().ok_or_else(|| corrupt("a validator"))
    }
}

impl Stake {
    /// All of it, base units. The parts of a supply below 2^63 add up.
    pub fn total(&self) -> u64 {
        self.unbonding.iter().fold(self.reserved, |sum, part| sum.saturating_add(part.amount))
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.reserved.to_be_bytes());
        for part in &self.unbonding {
            bytes.extend_from_slice(&part.epoch.to_be_bytes());
            bytes.extend_from_slice(&part.amount.to_be_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            fields.version(VERSION)?;
            let mut stake = Self { reserved: fields.u64()?, unbonding: Vec::new() };
            while fields.end().is_none() {
                stake.unbonding.push(Unbonding { epoch: fields.u64()?, amount: fields.u64()? });
            }
            Some(stake)
        };
        read().ok_or_else(|| corrupt("a stake"))
    }
}

impl ValidatorSetRecord {
    /// Sum of all powers; below 2^63.
    pub fn total(&self) -> u64 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.power))
    }

    /// The member that belongs to an account.
    pub fn of_owner(&self, owner: &Address) -> Option<&Member> {
        self.members.iter().find(|member| member.owner == *owner)
    }

    /// The members as consensus knows them.
    pub fn voters(&self) -> Vec<bizra_driver::Member> {
        let voter = |member: &Member| bizra_driver::Member {
            key: PublicKey(member.consensus_key),
            power: Power(member.power),
            reputation: member.conduct.reputation,
        };
        self.members.iter().map(voter).collect()
    }

    /// Quorums and leaders of the epoch. What was computed is a set: an error is corruption.
    pub fn validator_set(&self) -> Result<ValidatorSet, StorageError> {
        let members = self.members.iter().map(|member| (Power(member.power), member.conduct.reputation));
        let epoch = self.epoch;
        ValidatorSet::with_reputations(members.collect())
            .map_err(|error| StorageError::Corrupt(format!("the validators of epoch {epoch} are no set: {error}")))
    }

    /// What a boundary header names (PROTOCOL E1).
    pub fn hash(&self) -> Digest {
        validators_hash(Epoch(self.epoch), &self.voters())
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.cutoff.to_be_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        for member in &self.members {
            bytes.extend_from_slice(&member.owner.0);
            bytes.extend_from_slice(&member.consensus_key);
            bytes.extend_from_slice(&member.power.to_be_bytes());
            let Conduct { reputation, turns } = member.conduct;
            bytes.extend_from_slice(&reputation.get().to_be_bytes());
            bytes.extend_from_slice(&turns.led.to_be_bytes());
            bytes.extend_from_slice(&turns.missed.to_be_bytes());
            put_name(&mut bytes, &member.name);
        }
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            fields.version(VERSION)?;
            let (epoch, cutoff, version) = (fields.u64()?, fields.u64()?, fields.u32()?);
            let mut set = Self { epoch, cutoff, version, members: Vec::new() };
            while fields.end().is_none() {
                let (owner, consensus_key) = (Address(fields.take()?), fields.take()?);
                let power = fields.u64()?;
                let reputation = Reputation::new(fields.u16()?)?;
                let turns = Turns { led: fields.u64()?, missed: fields.u64()? };
                let (conduct, name) = (Conduct { reputation, turns }, read_name(&mut fields)?);
                set.members.push(Member { owner, name, consensus_key, power, conduct });
            }
            Some(set)
        };
        read().ok_or_else(|| corrupt("a validator set"))
    }
}
