//! Restarts by owners (PROTOCOL E6, G3), as the ledger sees them: what of a document its own state can confirm, and the
//! transition between the last block before a restart and the first one after it. The transition belongs to that first
//! block: it is executed with it, whoever executes it and when.

use std::collections::BTreeSet;
use std::sync::Arc;

use bizra_simplex::Block;
use bizra_simplex::types::{Digest, Epoch};

use super::effect::{self, Effect};
use super::history::{Change, Value};
use super::ledger::Ledger;
use super::sealing::commitment;
use crate::storage::StorageError;
use crate::transaction::Address;
use crate::validator::{Entries as _, Member, ValidatorSetRecord};

use super::accounts;
use bizra_ledger::BlockAccounts;

/// What a document of a restart says to the ledger. Its signatures are valid; what they weigh the ledger knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRestart {
    /// Number among the restarts of the chain, from 1.
    pub number: u64,
    /// Height of the last block before.
    pub height: u64,
    /// Its digest.
    pub block: Digest,
    /// Its epoch; owners of that epoch's validators decide.
    pub block_epoch: u64,
    /// Commitment to the state after that block.
    pub state: Digest,
    /// The epoch that begins.
    pub epoch: u64,
    /// Its validators, in the order of their indices.
    pub members: Vec<Member>,
    /// Accounts that have signed.
    pub signers: BTreeSet<Address>,
    /// In every vote from that epoch on.
    pub domain: Digest,
}

/// Why the ledger does not accept a restart.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The document is of another chain of blocks.
    #[error("restart {number} begins after block {wanted} at height {height}, and block {found} is there")]
    Block {
        /// The restart.
        number: u64,
        /// The height.
        height: u64,
        /// The document's block.
        wanted: Digest,
        /// The one that was executed.
        found: Digest,
    },
    /// The blocks lead to another state.
    #[error("restart {number} names state {wanted} after height {height}, and the blocks lead to {found}")]
    State {
        /// The restart.
        number: u64,
        /// The height.
        height: u64,
        /// The document's commitment.
        wanted: Digest,
        /// The one computed here.
        found: Digest,
    },
    /// Too few have signed.
    #[error(
        "restart {number} is signed by owners of power {signed} of {total} in epoch {epoch}; more than two thirds must sign"
    )]
    Owners {
        /// The restart.
        number: u64,
        /// The epoch whose validators count.
        epoch: u64,
        /// Power of the owners that signed.
        signed: u64,
        /// Power of all.
        total: u64,
    },
    /// The validators of that epoch are not kept.
    #[error("restart {number} is for the owners of epoch {epoch} to decide, and its validators are not known here")]
    NoSet {
        /// The restart.
        number: u64,
        /// The epoch.
        epoch: u64,
    },
}

impl LedgerRestart {
    /// True if owners of more than two thirds of the power of these validators have signed.
    pub fn weigh(&self, set: &ValidatorSetRecord) -> Result<(), RestartError> {
        let signing = set.members.iter().filter(|member| self.signers.contains(&member.owner));
        let signed = signing.fold(0_u64, |sum, member| sum.saturating_add(member.power));
        let total = set.total();
        if 3 * u128::from(signed) > 2 * u128::from(total) {
            return Ok(());
        }
        Err(RestartError::Owners { number: self.number, epoch: set.epoch, signed, total })
    }

    /// The cut-off height of the epoch that begins.
    pub(super) fn cutoff(&self, epoch_blocks: u64) -> u64 {
        self.epoch.saturating_add(1).saturating_mul(epoch_blocks)
    }

    /// The set that it names; the state of the first block after it is the first that has it.
    pub(crate) fn set(&self, version: u32) -> ValidatorSetRecord {
        let (epoch, cutoff) = (self.epoch, self.height.saturating_add(1));
        ValidatorSetRecord { epoch, cutoff, version, members: self.members.clone() }
    }
}

impl Ledger {
    /// The restarts of the chain, in their order. Of two after one block the later one counts.
    #[must_use]
    pub fn with_restarts(mut self, restarts: Arc<Vec<LedgerRestart>>) -> Self {
        self.restarts = restarts;
        self
    }

    /// What votes of an epoch are signed with.
    pub(super) fn domain(restarts: &[LedgerRestart], genesis_hash: Digest, epoch: Epoch) -> Digest {
        let begun = restarts.iter().rev().find(|restart| restart.epoch <= epoch.0);
        begun.map_or(genesis_hash, |restart| restart.domain)
    }

    /// The restart after the executed block, if there is one and its own state agrees with it.
    pub fn restart(&self) -> Result<Option<&LedgerRestart>, RestartError> {
        let executed = self.executed().0;
        let Some(restart) = self.restarts.iter().rev().find(|restart| restart.height == executed) else {
            return Ok(None);
        };
        self.confirm(restart)?;
        Ok(Some(restart))
    }

    /// Compares a restart after the executed block with block, state and owners as they are here.
    pub fn confirm(&self, restart: &LedgerRestart) -> Result<(), RestartError> {
        let LedgerRestart { number, height, .. } = *restart;
        let found = self.recent.back().copied().unwrap_or_default();
        if found != restart.block || self.executed().0 != height {
            return Err(RestartError::Block { number, height, wanted: restart.block, found });
        }
        let epoch = restart.block_epoch;
        let set = self.validators_of_epoch(epoch).ok_or(RestartError::NoSet { number, epoch })?;
        restart.weigh(&set)?;
        let found = self.state_commitment()?;
        if found != restart.state {
            return Err(RestartError::State { number, height, wanted: restart.state, found });
        }
        Ok(())
    }

    /// The validators of an epoch that a restart begins after the executed block.
    pub fn restarted_set(&self, epoch: u64) -> Result<Option<Arc<ValidatorSetRecord>>, RestartError> {
        let Some(restart) = self.restart()?.filter(|restart| restart.epoch == epoch) else { return Ok(None) };
        Ok(Some(Arc::new(restart.set(self.restarted_version(restart)))))
    }

    /// Rules go on as they were in the epoch that ended: one that was named and has not begun names no version.
    fn restarted_version(&self, restart: &LedgerRestart) -> u32 {
        let ended = self.registry.set(restart.block_epoch);
        ended.map_or(self.registry.parameters().protocol_version, |set| set.version)
    }

    /// Commitment to the state after the executed block, also between checkpoints.
    pub fn state_commitment(&self) -> Result<Digest, StorageError> {
        let mut lattice = self.lattice.clone();
        let mut changes = self.changes.clone();
        changes.sort_by_key(|change| (change.key, change.height));
        let mut accounts = BlockAccounts::default();
        let groups: Vec<_> = changes
            .chunk_by(|first, second| first.key == second.key)
            .filter_map(|group| group.first())
            .map(|first| (first, first.key.account().map(|address| accounts.mention(address))))
            .collect();
        accounts::load(&mut accounts, &self.unwritten, &self.cache, &self.database)?;
        for (Change { key, old, .. }, slot) in groups {
            let now = match slot {
                Some(slot) => Value::account(accounts.get(slot)),
                None => Value::entry(self.entries.get(key)?),
            };
            old.bytes().into_iter().for_each(|bytes| lattice.remove(key, bytes));
            now.bytes().into_iter().for_each(|bytes| lattice.add(key, bytes));
        }
        Ok(commitment(&lattice, &self.state, &self.recent))
    }

    /// Executes the restart before `block`, if there is one. The error says why the ledger cannot go on.
    pub(super) fn begin_restarted(&mut self, block: &Block) -> Result<Option<Effect>, StorageError> {
        let refused = |error: RestartError| match error {
            RestartError::Storage(error) => error,
            error => StorageError::Corrupt(error.to_string()),
        };
        let Some(restart) = self.restart().map_err(refused)?.cloned() else { return Ok(None) };
        if block.epoch.0 != restart.epoch {
            return Err(StorageError::Corrupt(format!(
                "block {} of epoch {} follows a restart that begins epoch {}",
                block.height, block.epoch, restart.epoch
            )));
        }
        let set = restart.set(self.restarted_version(&restart));
        self.registry.restart(set, restart.block_epoch, &mut self.entries)?;
        self.state.next_cutoff = restart.cutoff(self.registry.parameters().epoch_blocks);
        tracing::warn!(
            number = restart.number,
            epoch = restart.epoch,
            height = restart.height,
            "owners have restarted the chain"
        );
        Ok(effect::of_set(&self.registry, restart.height.saturating_add(1), Vec::new()))
    }
}
