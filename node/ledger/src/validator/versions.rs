//! Which version of the protocol's rules the next epoch has (PROTOCOL P1, P2).
//!
//! Every block names the highest version that its proposer can go by. The state keeps the last word of each consensus key.
//! At the cut-off the next epoch takes the highest version for which more than two thirds of the power have spoken, both
//! of the set that ends and of the one that begins: so an epoch never begins without a quorum that knows its rules. A
//! version never falls.

use bizra_simplex::Block;

use super::entry::{Domain, Entries, EntryKey};
use super::record::{Member, ValidatorSetRecord};
use super::registry::Registry;
use crate::stored::StorageError;

pub(super) fn decode(bytes: &[u8]) -> Result<u32, StorageError> {
    let fixed = bytes.try_into().map_err(|_| StorageError::Corrupt("a stored signal does not decode".to_owned()))?;
    Ok(u32::from_be_bytes(fixed))
}

impl Registry {
    /// Takes the signal of an executed block's proposer. Blocks of one key that say the same change nothing.
    pub fn note_signal(&mut self, block: &Block, entries: &mut impl Entries) -> Result<(), StorageError> {
        let Some(key) = self.key_of(block.epoch.0, block.proposer.0) else { return Ok(()) };
        if self.signals.insert(key, block.signals.0) != Some(block.signals.0) {
            entries.set(EntryKey::new(Domain::Signal, key), Some(block.signals.0.to_be_bytes().to_vec()))?;
        }
        Ok(())
    }

    /// Power of the set computed last whose keys have signalled `version` or a higher one.
    pub fn power_signalling(&self, version: u32) -> u64 {
        let latest = self.latest().map(|set| self.signalling(&set.members, version)).unwrap_or_default();
        latest.try_into().unwrap_or(u64::MAX)
    }

    fn signalling(&self, members: &[Member], version: u32) -> u128 {
        let speaks =
            |member: &&Member| self.signals.get(&member.consensus_key).is_some_and(|signalled| *signalled >= version);
        members.iter().filter(speaks).map(|member| u128::from(member.power)).sum()
    }

    pub(super) fn next_version(&self, ending: &ValidatorSetRecord, beginning: &[Member]) -> u32 {
        let has_quorum = |members: &[Member], version: u32| {
            let total: u128 = members.iter().map(|member| u128::from(member.power)).sum();
            3 * self.signalling(members, version) > 2 * total
        };
        // A signal may name any number; only one that was named can be the highest with a quorum.
        let named = self.signals.values().copied().filter(|version| *version > ending.version);
        let agreed = named.filter(|version| has_quorum(&ending.members, *version) && has_quorum(beginning, *version));
        agreed.max().unwrap_or(ending.version)
    }

    /// Signals of keys that leave the set are forgotten: the state holds as many as there are validators.
    pub(super) fn forget_signals(
        &mut self,
        members: &[Member],
        entries: &mut impl Entries,
    ) -> Result<(), StorageError> {
        let stays = |key: &[u8; 32]| members.iter().any(|member| member.consensus_key == *key);
        let gone: Vec<[u8; 32]> = self.signals.keys().copied().filter(|key| !stays(key)).collect();
        for key in gone {
            entries.set(EntryKey::new(Domain::Signal, key), None)?;
            self.signals.remove(&key);
        }
        Ok(())
    }
}
