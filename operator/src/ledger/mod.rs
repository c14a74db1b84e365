//! What the chain knows of an owner, and the owner's transactions on their way to it, over the nodes' admin port.
//!
//! Nothing is believed that one node says: an answer counts if nodes with more than a third of the power give the same one about
//! the same finalised height, so that an honest one is among them.

mod client;
mod owner;

pub use client::{Asked, Ledger, LedgerError, prove_key};
pub use owner::{OwnerKey, OwnerKeyError, OwnerSeed, SEED};

use bizra_proto::v1;

/// What the chain knows of an owner, as of one finalised height.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnerView {
    /// The height.
    pub height: u64,
    /// Balance in base units.
    pub balance: u64,
    /// How many transactions of the account were applied.
    pub nonce: u64,
    /// The owner's validator and stake.
    pub validator: v1::GetValidatorResponse,
    /// The set computed last: that of the running epoch, or of the next.
    pub set: v1::GetValidatorSetResponse,
    /// The set before that, which may still be running.
    pub before: v1::GetValidatorSetResponse,
    /// The receipt of the transaction that was asked for, if it is final.
    pub receipt: Option<v1::Receipt>,
}

impl OwnerView {
    /// The owner's place in the set computed last.
    pub fn member(&self, owner: &[u8; 32]) -> Option<&v1::ValidatorSetMember> {
        self.set.members.iter().find(|member| member.owner == owner)
    }

    /// True if the owner's validator is in a set that is running or about to.
    pub fn may_vote(&self, owner: &[u8; 32]) -> bool {
        self.set.members.iter().chain(&self.before.members).any(|member| member.owner == owner)
    }
}
