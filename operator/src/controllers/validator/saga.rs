//! The registration saga: which transaction of the owner comes next. Pure.
//!
//! There is no place in a program to lose: every step is read off the finalised state. What a validator has reserved,
//! registered and activated says what is left, in either direction, so whoever comes next goes on where the last one stopped, and
//! a step that was done twice is done once. `ReserveStake → RegisterValidator → ActivateValidator` one way,
//! `DeactivateValidator → DeregisterValidator → ReleaseStake → CollectStake` the other; a move to another node is both.

use crate::{api::SagaStep, controllers::conditions::Reason, ledger::OwnerView};

/// What the owner wants of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// To validate with this node.
    Member {
        /// Its name.
        node: &'a str,
        /// Its consensus key, by its own word; none while it does not say.
        key: Option<[u8; 32]>,
        /// Stake in base units.
        stake: u64,
    },
    /// To be out, with the stake on its way back to the balance.
    Out,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This transaction.
    Step(Operation),
    /// Nothing, until something passes.
    Wait(Reason),
    /// Nothing, until somebody acts.
    Stop(Reason),
    /// Nothing: it is as it should be.
    Done,
}

/// A transaction without its terms and, if it needs one, without its key proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reserves this much more.
    Reserve(u64),
    /// Registers under the name of this node.
    Register(String),
    /// Activates with the node's key.
    Activate,
    /// Rotates to the node's key.
    Rotate,
    /// Leaves the set.
    Deactivate,
    /// Leaves the registry.
    Deregister,
    /// Starts the unbonding of this much.
    Release(u64),
    /// Collects what has unbonded.
    Collect,
}

impl Operation {
    /// Its name in a status.
    pub fn step(&self) -> SagaStep {
        match self {
            Self::Reserve(_) => SagaStep::ReserveStake,
            Self::Register(_) => SagaStep::RegisterValidator,
            Self::Activate => SagaStep::ActivateValidator,
            Self::Rotate => SagaStep::RotateConsensusKey,
            Self::Deactivate => SagaStep::DeactivateValidator,
            Self::Deregister => SagaStep::DeregisterValidator,
            Self::Release(_) => SagaStep::ReleaseStake,
            Self::Collect => SagaStep::CollectStake,
        }
    }
}

/// What a refusal by the chain means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The state was not what it was thought to be; the next look tells what to do.
    LookAgain,
    /// The same will be refused again until somebody changes something.
    Definite,
}

/// Judges a receipt's failure.
pub fn meaning(step: SagaStep, failure: &str) -> Meaning {
    match failure {
        // Somebody else used the nonce, the transaction came too late, or a proof did; a block was busy; it was done already.
        "BadNonce"
        | "Expired"
        | "StaleKeyProof"
        | "BlockBusy"
        | "AlreadyRegistered"
        | "AlreadyActive"
        | "NotActive"
        | "NotRegistered"
        | "StillValidating"
        | "TooManyReleases"
        | "InsufficientBalance" => Meaning::LookAgain,
        // Money went elsewhere between the look and the block.
        "InsufficientStake" if step == SagaStep::ReleaseStake => Meaning::LookAgain,
        _ => Meaning::Definite,
    }
}

/// Most parts of one stake that unbond at the same time, by the rules of the chain.
const UNBONDING_MAX: usize = 32;

const INACTIVE: &str = "Inactive";
const ACTIVE: &str = "Active";
/// What the chain calls a validator that signed two conflicting votes.
pub const JAILED: &str = "Jailed";

/// What comes next for this owner. `fee` is paid with each transaction.
pub fn next(view: &OwnerView, owner: &[u8; 32], wish: &Wish<'_>, fee: u64) -> Next {
    let next = match wish {
        Wish::Member { node, key, stake } => towards_membership(view, owner, node, *key, *stake),
        Wish::Out => outwards(view, owner),
    };
    match next {
        Next::Step(operation) => affordable(view, operation, fee),
        next => next,
    }
}

/// A transaction that cannot be paid is not sent.
fn affordable(view: &OwnerView, operation: Operation, fee: u64) -> Next {
    // What has unbonded pays for a reservation, too.
    let (amount, mature) = if let Operation::Reserve(amount) = operation { (amount, mature(view)) } else { (0, 0) };
    let needed = u128::from(amount) + u128::from(fee);
    let there = u128::from(view.balance) + u128::from(mature);
    if needed <= there && fee <= view.balance {
        return Next::Step(operation);
    }
    let missing = needed.saturating_sub(there).max(u128::from(fee.saturating_sub(view.balance)));
    let message = format!(
        "the owner's account has {} and needs {needed} for {:?}; {missing} are missing",
        view.balance,
        operation.step()
    );
    Next::Wait(Reason::new("InsufficientBalance", message))
}

/// What can be collected now.
fn mature(view: &OwnerView) -> u64 {
    let parts = view.validator.unbonding.iter().filter(|part| part.epoch <= view.set.epoch);
    parts.map(|part| part.amount).fold(0, u64::saturating_add)
}

fn towards_membership(view: &OwnerView, owner: &[u8; 32], node: &str, key: Option<[u8; 32]>, stake: u64) -> Next {
    let validator = &view.validator;
    if validator.status == JAILED {
        let message = "the validator signed two conflicting votes and is jailed: its key never votes again. Find out how that came about, acknowledge it in the Network's spec.acknowledgedJailings, and delete this Validator";
        return Next::Stop(Reason::new("Jailed", message));
    }
    if validator.registered && validator.node_name != node {
        // One after the other: there is never a key of each in the set.
        return leave(view, owner);
    }
    if validator.reserved_stake < stake {
        return Next::Step(Operation::Reserve(stake - validator.reserved_stake));
    }
    if !validator.registered {
        return Next::Step(Operation::Register(node.to_owned()));
    }
    let Some(key) = key else {
        let message = format!("BizraNode {node} has to be in sync and say its key");
        return Next::Wait(Reason::new("NodeNotReady", message));
    };
    match validator.status.as_str() {
        INACTIVE => return Next::Step(Operation::Activate),
        ACTIVE if validator.consensus_key != key => return Next::Step(Operation::Rotate),
        _ => {}
    }
    if validator.reserved_stake > stake {
        return release(view, validator.reserved_stake - stake);
    }
    if mature(view) > 0 {
        return Next::Step(Operation::Collect);
    }
    let member = view.member(owner);
    let power = validator.power;
    match member {
        // An earlier version of the nodes does not say what power the stake gives.
        Some(member) if member.consensus_key == key && (power == 0 || member.power == power) => Next::Done,
        _ => Next::Wait(queued(view, member.map_or(0, |member| member.power), power)),
    }
}

/// Why the set is not as the registry says (PROTOCOL E3, E4).
fn queued(view: &OwnerView, held: u64, power: u64) -> Reason {
    let total: u128 = view.set.members.iter().map(|member| u128::from(member.power)).sum();
    let (held, power) = (u128::from(held), u128::from(power));
    let after = total.saturating_sub(held).saturating_add(power);
    if 3 * power >= after && power * total > held * after {
        let message = format!(
            "the stake gives it power {power} of {after}, and nobody comes to hold a third: until others have more it keeps the power {held} that it has in the set; or ask for less stake"
        );
        return Reason::new("ShareTooLarge", message);
    }
    let epoch = view.set.epoch.saturating_add(1);
    let message = format!(
        "the set has it with power {held}, and the next epoch's, {epoch}, as the stake says, unless changes of a third of the power come before it; then it waits its turn"
    );
    Reason::new("Queued", message)
}

/// Takes a registered validator out of set and registry.
fn leave(view: &OwnerView, owner: &[u8; 32]) -> Next {
    if view.validator.status == ACTIVE {
        return Next::Step(Operation::Deactivate);
    }
    if view.may_vote(owner) {
        let epoch = view.set.epoch;
        let message = format!(
            "it may still vote; the set of epoch {epoch} is the last there is, and it leaves with one whose changes are below a third of the power and that keeps four validators"
        );
        return Next::Wait(Reason::new("Leaving", message));
    }
    Next::Step(Operation::Deregister)
}

/// The chain keeps a bounded number of parts; what has unbonded makes room.
fn release(view: &OwnerView, amount: u64) -> Next {
    if view.validator.unbonding.len() < UNBONDING_MAX || mature(view) > 0 {
        return Next::Step(Operation::Release(amount));
    }
    let message =
        format!("{UNBONDING_MAX} parts of the stake unbond already; the next is released when one of them is back");
    Next::Wait(Reason::new("Unbonding", message))
}

fn outwards(view: &OwnerView, owner: &[u8; 32]) -> Next {
    let validator = &view.validator;
    if validator.registered {
        return leave(view, owner);
    }
    if validator.reserved_stake > 0 {
        return release(view, validator.reserved_stake);
    }
    if mature(view) > 0 {
        return Next::Step(Operation::Collect);
    }
    match validator.unbonding.iter().map(|part| part.epoch).max() {
        None => Next::Done,
        Some(last) => {
            let message = format!(
                "the stake is back on the balance at epoch {last}; the set of epoch {} is the last there is",
                view.set.epoch
            );
            Next::Wait(Reason::new("Unbonding", message))
        }
    }
}

#[cfg(test)]
#[path = "saga_tests.rs"]
mod tests;
