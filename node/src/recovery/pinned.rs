//! The documents that a volume has pinned, checked again at every start.

use std::cmp::Ordering;
use std::sync::Arc;

use bizra_driver::Restarts;
use bizra_simplex::types::{Digest, Epoch};

use super::RecoveryError;
use super::document::{CheckedRestart, RestartDocument};
use crate::block::BlockStore;
use crate::blockchain::LedgerRestart;
use crate::configuration::LoadedGenesis;
use crate::gateway::BlockReader as _;
use crate::identity::SignerFolder;

/// The restarts of a chain, as this volume has pinned them; the oldest first.
#[derive(Clone, Debug, Default)]
pub struct PinnedRestarts {
    genesis_hash: Digest,
    restarts: Vec<CheckedRestart>,
}

impl PinnedRestarts {
    /// None yet, on the chain with this genesis.
    pub fn new(genesis_hash: Digest) -> Self {
        Self { genesis_hash, restarts: Vec::new() }
    }

    /// Reads what is pinned and checks all of it but what needs the chain's state.
    pub fn load(signer: &SignerFolder, genesis: &LoadedGenesis) -> Result<Self, RecoveryError> {
        let mut pinned = Self::new(genesis.hash);
        for file in signer.pinned_restarts()? {
            pinned.push(RestartDocument::parse(&file)?.check(genesis)?)?;
        }
        Ok(pinned)
    }

    /// One more, in its order.
    pub fn push(&mut self, restart: CheckedRestart) -> Result<(), RecoveryError> {
        restart.follows(self.restarts.last(), self.genesis_hash)?;
        self.restarts.push(restart);
        Ok(())
    }

    /// The restart with this number.
    pub fn get(&self, number: u64) -> Option<&CheckedRestart> {
        self.restarts.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The newest.
    pub fn last(&self) -> Option<&CheckedRestart> {
        self.restarts.last()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.restarts.len() as u64
    }

    /// What names the chain since the last restart, in votes and at the door of peers; the genesis hash without one.
    pub fn domain(&self) -> Digest {
        self.last().map_or(self.genesis_hash, |last| last.hash)
    }

    /// For consensus.
    pub fn consensus(&self) -> Restarts {
        let mut restarts = Restarts::default();
        self.restarts.iter().for_each(|restart| restarts.push(restart.consensus.clone()));
        restarts
    }

    /// For the ledger.
    pub fn ledger(&self) -> Arc<Vec<LedgerRestart>> {
        Arc::new(self.restarts.iter().map(|restart| restart.ledger.clone()).collect())
    }

    /// True if the key may ever vote by a restart that is pinned.
    pub fn names_key(&self, public_key: &[u8; 32]) -> bool {
        let named =
            |restart: &CheckedRestart| restart.ledger.members.iter().any(|member| member.consensus_key == *public_key);
        self.restarts.iter().any(named)
    }

    /// Refuses a database whose finalised blocks go past a restart by another way.
    pub fn check_blocks(&self, blocks: &BlockStore) -> Result<(), RecoveryError> {
        for restart in &self.restarts {
            let (last, epoch) = (&restart.consensus.block, restart.consensus.epoch);
            let number = restart.document.number;
            let (height, digest) = blocks.finalized();
            let other = match height.cmp(&last.height) {
                Ordering::Less => None,
                Ordering::Equal => (digest != last.digest()).then_some(digest),
                Ordering::Greater => {
                    // A pruned database may hold neither of the two.
                    let at = blocks.get(last.height)?.map(|stored| stored.block.digest());
                    let next = blocks.get(last.height.next())?.map(|stored| stored.block);
                    let next = next.filter(|next| !self.begins(next.epoch, epoch));
                    at.filter(|at| *at != last.digest()).or(next.map(|next| next.digest()))
                }
            };
            if let Some(other) = other {
                return Err(RecoveryError::Contradicts(format!(
                    "restart {number} is after block {} at height {}, and this node holds block {other} as final at or above \
                     it: it has seen more than those who reported, or another chain; keep its volume, ask for a new draft with \
                     its report, or `reset-database` if its blocks are given up",
                    last.digest(),
                    last.height
                )));
            }
        }
        Ok(())
    }

    /// True if the block after a restart with that epoch may be of this one: of two at one block the later counts.
    fn begins(&self, found: Epoch, wanted: Epoch) -> bool {
        found == wanted || self.restarts.iter().any(|later| later.consensus.epoch == found && found > wanted)
    }
}
