//! Who validates in which epoch: what the finalised chain has named so far, for whoever looks at a run from outside. The
//! nodes compute it for themselves, with the shipped rules, in [`crate::ledger`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bizra_driver::PublicKey;
use bizra_ledger::ValidatorSetRecord;
use bizra_simplex::Protocol;
use bizra_simplex::types::{Epoch, Height};

use crate::accounts::account_of;

/// Validators of an epoch, as (node, power); the position is the index.
pub type Seats = Arc<Vec<(usize, u64)>>;

/// The sets named so far, each with the accounts that own its validators.
type Named = Vec<(Seats, Arc<Vec<usize>>)>;

/// Validators of each epoch. Copies share what the chain names.
#[derive(Clone, Debug)]
pub struct Schedule {
    blocks: Option<u64>,
    named: Arc<Mutex<Named>>,
    first: Protocol,
}

/// The public key of a node.
pub fn key_of(node: usize) -> PublicKey {
    PublicKey([node as u8; 32])
}

/// The node behind a public key.
pub(crate) fn node_of(key: [u8; 32]) -> usize {
    usize::from(key[0])
}

impl Schedule {
    /// The same validators for ever: nodes 0, 1, … with these powers, each of the account of the same number.
    pub fn fixed(powers: &[u64]) -> Self {
        let seats = (Arc::new(powers.iter().copied().enumerate().collect()), Arc::new((0..powers.len()).collect()));
        Self { blocks: None, named: Arc::new(Mutex::new(vec![seats])), first: Protocol::LATEST }
    }

    /// These validators first, `blocks` from one cut-off height to the next.
    pub fn repeated(blocks: u64, powers: &[u64]) -> Self {
        Self { blocks: Some(blocks), ..Self::fixed(powers) }
    }

    /// The same, beginning with this version of the protocol.
    #[must_use]
    pub fn beginning_with(self, first: Protocol) -> Self {
        Self { first, ..self }
    }

    /// The same before anything was named, for a run of its own.
    #[must_use]
    pub fn anew(&self) -> Self {
        let first = self.named().first().cloned();
        Self { named: Arc::new(Mutex::new(first.into_iter().collect())), ..self.clone() }
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain has named the next epoch's validators.
    pub(crate) fn name(&self, set: &ValidatorSetRecord) {
        let seats = set.members.iter().map(|member| (node_of(member.consensus_key), member.power)).collect();
        let owners = set.members.iter().map(|member| account_of(member.owner).unwrap_or(usize::MAX)).collect();
        self.named().push((Arc::new(seats), Arc::new(owners)));
    }

    /// The version of the first epoch.
    pub fn first(&self) -> Protocol {
        self.first
    }

    /// Blocks from one cut-off height to the next.
    pub fn blocks(&self) -> Option<u64> {
        self.blocks
    }

    /// The height whose execution ends an epoch.
    pub fn cutoff(&self, epoch: Epoch) -> Height {
        Height(self.blocks.map_or(u64::MAX, |blocks| blocks.saturating_mul(epoch.0.saturating_add(1))))
    }

    /// Validators of an epoch; of one that the chain has not named yet, the last that it has.
    pub fn of(&self, epoch: Epoch) -> Seats {
        let named = self.named();
        let last = named.len() - 1;
        Arc::clone(&named[last.min(usize::try_from(epoch.0).unwrap_or(last))].0)
    }

    /// The accounts that own them.
    pub(crate) fn owners(&self, epoch: Epoch) -> Arc<Vec<usize>> {
        let named = self.named();
        let last = named.len() - 1;
        Arc::clone(&named[last.min(usize::try_from(epoch.0).unwrap_or(last))].1)
    }

    /// The node behind an index.
    pub fn node(&self, epoch: Epoch, index: u16) -> Option<usize> {
        self.of(epoch).get(usize::from(index)).map(|(node, _)| *node)
    }

    /// The index of a node.
    pub fn index(&self, epoch: Epoch, node: usize) -> Option<u16> {
        self.of(epoch).iter().position(|(member, _)| *member == node).map(|position| position as u16)
    }

    /// True if the node may come to validate.
    pub fn ever(&self, node: usize) -> bool {
        self.blocks.is_some() || self.of(Epoch(0)).iter().any(|(member, _)| *member == node)
    }
}
