//! Who is who in an epoch: validators by index, their keys, and the nodes that hold them.

use std::collections::BTreeMap;

use bizra_simplex::types::{Digest, Epoch, ValidatorIndex};
use bizra_simplex::{ValidatorSet, ValidatorSetError};
use sha2::{Digest as _, Sha256};

use crate::driver::NodeIndex;
use crate::ports::{DiskError, Member, PublicKey};

const VALIDATORS_DOMAIN: &[u8] = b"bizra/v1/validators\0";

/// The validators of one epoch.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(crate) set: ValidatorSet,
    members: Vec<Member>,
    nodes: Vec<Option<NodeIndex>>,
    pub(crate) me: Option<ValidatorIndex>,
}

/// What a boundary says of the next epoch's validators (E1): SHA-256 over epoch, count, and each key, power and
/// reputation in order: so it fixes who may vote and who leads.
pub fn validators_hash(epoch: Epoch, members: &[Member]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(VALIDATORS_DOMAIN);
    hash.update(epoch.0.to_be_bytes());
    hash.update((members.len() as u64).to_be_bytes());
    for Member { key, power, reputation } in members {
        hash.update(key.0);
        hash.update(power.0.to_be_bytes());
        hash.update(reputation.get().to_be_bytes());
    }
    Digest(hash.finalize().into())
}

/// The members as the core knows them.
pub(crate) fn validator_set(members: &[Member]) -> Result<ValidatorSet, ValidatorSetError> {
    ValidatorSet::with_reputations(members.iter().map(|member| (member.power, member.reputation)).collect())
}

impl Roster {
    /// `nodes` are the peers whose keys are known, `own` is this node's key if it has one.
    pub(crate) fn new(
        members: Vec<Member>,
        nodes: &BTreeMap<PublicKey, NodeIndex>,
        own: Option<PublicKey>,
    ) -> Result<Self, DiskError> {
        let set = validator_set(&members)
            .map_err(|error| DiskError::Corrupt(format!("the stored validators are no set: {error}")))?;
        let me = members.iter().position(|member| Some(member.key) == own);
        let me = me.map(|position| ValidatorIndex(position as u16));
        let mut roster = Self { set, nodes: Vec::new(), me, members };
        roster.locate(nodes);
        Ok(roster)
    }

    /// Looks for the validators among these peers.
    pub(crate) fn locate(&mut self, nodes: &BTreeMap<PublicKey, NodeIndex>) {
        self.nodes = self.members.iter().map(|member| nodes.get(&member.key).copied()).collect();
    }

    /// The key of a validator.
    pub(crate) fn key(&self, index: ValidatorIndex) -> Option<PublicKey> {
        self.members.get(usize::from(index.0)).map(|member| member.key)
    }

    /// The node that holds a validator's key, if it is a known peer.
    pub(crate) fn node(&self, index: ValidatorIndex) -> Option<NodeIndex> {
        self.nodes.get(usize::from(index.0)).copied().flatten()
    }

    /// The validator that a node is in this epoch.
    pub(crate) fn validator(&self, node: NodeIndex) -> Option<ValidatorIndex> {
        let position = self.nodes.iter().position(|known| *known == Some(node))?;
        Some(ValidatorIndex(position as u16))
    }
}
