//! What a block changed beyond what its transactions say by themselves: the event log keeps it, because it cannot be
//! read from the blocks afterwards.

use bizra_proto::parameters::Parameters;
use bizra_simplex::types::Digest;

use crate::transaction::{Address, Operation};
use crate::validator::{Money, Registry, Report};
use bizra_ledger::Failure;

/// When in a block something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before the first transaction: what the block itself reports.
    BeforeTransactions,
    /// With the transaction that has this receipt.
    With(u32),
    /// After the last transaction: the cut-off of an epoch.
    AfterTransactions,
}

/// A change that no transaction spells out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Stake that had unbonded went back to the balance of the transaction's sender.
    StakePaidOut {
        /// Base units, above 0.
        amount: u64,
    },
    /// A validator that equivocated was jailed.
    ValidatorJailed {
        /// Its owner.
        owner: Address,
        /// The key that contradicted itself.
        consensus_key: [u8; 32],
        /// What its stake lost, base units.
        slashed: u64,
    },
    /// A block reported a validator that was not jailed.
    ReportRefused {
        /// Its owner.
        owner: Address,
        /// The key that the report is about.
        consensus_key: [u8; 32],
        /// Why it was not jailed.
        failure: Failure,
    },
    /// Parameters that found their majority hold from here on.
    ParametersUpdated(Parameters),
    /// The state at this cut-off named the validators of the next epoch; or a restart did, with its first block.
    ValidatorSetChosen {
        /// The epoch in which they will vote.
        epoch: u64,
        /// What the boundary header will name.
        hash: Digest,
        /// How many they are.
        members: u16,
        /// Their power together.
        power: u64,
        /// Owners whose change waits for a later epoch.
        waiting: Vec<Address>,
    },
}

/// What an applied operation changed beyond its own words, by the sums before and after it.
pub(super) fn of_operation(operation: &Operation, before: Money, after: Money, registry: &Registry) -> Option<Effect> {
    let paid_out = |amount: u64| (amount > 0).then_some(Effect::StakePaidOut { amount });
    match operation {
        Operation::ReserveStake { amount } => {
            paid_out(before.staked.saturating_add(*amount).saturating_sub(after.staked))
        }
        Operation::ReleaseStake { .. } => paid_out(before.staked.saturating_sub(after.staked)),
        Operation::ReportEquivocation(evidence) => {
            let set = registry.set(evidence.first.0.epoch.0)?;
            let member = set.members.iter().find(|member| member.consensus_key == evidence.public_key)?;
            let slashed = after.slashed.saturating_sub(before.slashed);
            Some(Effect::ValidatorJailed { owner: member.owner, consensus_key: evidence.public_key, slashed })
        }
        Operation::RegisterValidator { .. }
        | Operation::DeregisterValidator
        | Operation::ActivateValidator(_)
        | Operation::DeactivateValidator
        | Operation::RotateConsensusKey(_)
        | Operation::UpdateParameters(_) => None,
    }
}

/// What a block's report of a validator has led to.
pub(super) fn of_report(report: Report) -> Effect {
    let Report { owner, consensus_key, slashed, failure } = report;
    match failure {
        None => Effect::ValidatorJailed { owner, consensus_key, slashed },
        Some(failure) => Effect::ReportRefused { owner, consensus_key, failure },
    }
}

/// What the cut-off at `height` changed; `before` are the parameters before it.
pub(super) fn of_cutoff(
    before: &Parameters,
    registry: &Registry,
    height: u64,
    waiting: Vec<Address>,
) -> impl Iterator<Item = Effect> {
    let now = registry.parameters();
    let updated = (now != before).then_some(Effect::ParametersUpdated(*now));
    updated.into_iter().chain(of_set(registry, height, waiting))
}

/// The set that the state at `height` named.
pub(super) fn of_set(registry: &Registry, height: u64, waiting: Vec<Address>) -> Option<Effect> {
    registry.set_at_cutoff(height).map(|set| Effect::ValidatorSetChosen {
        epoch: set.epoch,
        hash: set.hash(),
        members: set.members.len() as u16,
        power: set.total(),
        waiting,
    })
}
