//! What blocks report of validators that contradicted themselves (PROTOCOL V7). Nodes report by themselves, without an
//! owner's account; the ledger judges as it judges a transaction of kind `ReportEquivocation`.

use bizra_simplex::Contradiction;

use super::entry::{Domain, Entries, EntryKey};
use super::registry::{Money, OperationError, Registry, Turn};
use crate::failure::Failure;
use crate::stored::StorageError;
use bizra_transaction::{Address, Equivocation};

/// What a block's report has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The validator's owner.
    pub owner: Address,
    /// The key that signed both votes.
    pub consensus_key: [u8; 32],
    /// What its stake lost, base units.
    pub slashed: u64,
    /// Why it was not jailed; `None` if it was.
    pub failure: Option<Failure>,
}

impl Registry {
    /// Executes a report of a block of this epoch. A key that is not punished, because a third of the power would be
    /// jailed (E4), may be reported again in a later epoch. `None` if the set of the contradiction is not retained.
    pub fn take_report<E: Entries>(
        &mut self,
        epoch: u64,
        told: &Contradiction,
        money: &mut Money,
        turn: &mut Turn<'_, E>,
    ) -> Result<Option<Report>, StorageError> {
        let (of_epoch, signer) = told.of();
        let Some(public_key) = self.key_of(of_epoch.0, signer.0) else { return Ok(None) };
        let Some(owner) = self.owner_of(of_epoch.0, signer.0) else { return Ok(None) };
        let Contradiction { first, second } = told;
        let evidence =
            Equivocation { public_key, first: (first.vote, first.signature), second: (second.vote, second.signature) };
        let before = money.slashed;
        let failure = match self.report(&evidence, money, turn) {
            Ok(()) => None,
            Err(OperationError::Failed(failure)) => Some(failure),
            Err(OperationError::Storage(error)) => return Err(error),
        };
        let reported = EntryKey::new(Domain::Reported, public_key);
        turn.entries.set(reported, failure.is_some().then(|| epoch.to_be_bytes().to_vec()))?;
        let slashed = money.slashed.saturating_sub(before);
        Ok(Some(Report { owner, consensus_key: public_key, slashed, failure }))
    }
}

/// True if a block of this epoch must not report the key: it is punished, or was reported in this epoch.
pub fn is_reported(entries: &impl Entries, key: [u8; 32], epoch: u64) -> Result<bool, StorageError> {
    if entries.get(&EntryKey::new(Domain::Punished, key))?.is_some() {
        return Ok(true);
    }
    let Some(bytes) = entries.get(&EntryKey::new(Domain::Reported, key))? else { return Ok(false) };
    let last = bytes.try_into().map_err(|_| StorageError::Corrupt("a stored report does not decode".to_owned()))?;
    Ok(u64::from_be_bytes(last) >= epoch)
}
