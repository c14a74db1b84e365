//! The ledger in small, for tests: as far as one owner sees it, by the rules of the node's registry.

use bizra_proto::v1;
use bizra_simplex::types::{Digest, Signature};
use bizra_transaction::{Action, KeyProof, Operation, Transaction};

use super::saga;
use crate::ledger::OwnerView;

pub(super) const OWNER_SEED: u8 = 7;
pub(super) const KEY: [u8; 32] = [5; 32];
/// Epochs until a released stake can be collected.
pub(super) const UNBONDING: u64 = 2;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SmallLedger {
    pub owner: [u8; 32],
    pub view: OwnerView,
    pub fees: u64,
    /// An operation that is always refused, by its kind, and the chain's word for it.
    pub refuses: Option<(u8, &'static str)>,
}

/// The operation as it is in a transaction; the proof's signature is left to the node's own tests.
pub(super) fn operation(wanted: &saga::Operation, key: [u8; 32]) -> Operation {
    let proof = KeyProof { public_key: key, height: 1, block: Digest([1; 32]), signature: Signature([1; 64]) };
    match wanted {
        saga::Operation::Reserve(amount) => Operation::ReserveStake { amount: *amount },
        saga::Operation::Register(name) => Operation::RegisterValidator { name: name.clone() },
        saga::Operation::Activate => Operation::ActivateValidator(proof),
        saga::Operation::Rotate => Operation::RotateConsensusKey(proof),
        saga::Operation::Deactivate => Operation::DeactivateValidator,
        saga::Operation::Deregister => Operation::DeregisterValidator,
        saga::Operation::Release(amount) => Operation::ReleaseStake { amount: *amount },
        saga::Operation::Collect => Operation::ReleaseStake { amount: 0 },
    }
}

impl SmallLedger {
    pub(super) fn new(owner: [u8; 32], balance: u64) -> Self {
        let set = v1::GetValidatorSetResponse { epoch: 1, ..Default::default() };
        let view = OwnerView { height: 1, balance, set, ..OwnerView::default() };
        Self { owner, view, fees: 0, refuses: None }
    }

    /// All there is of the owner's, and what was paid.
    pub(super) fn money(&self) -> u64 {
        let validator = &self.view.validator;
        let unbonding: u64 = validator.unbonding.iter().map(|part| part.amount).sum();
        self.view.balance + self.fees + validator.reserved_stake + unbonding
    }

    fn collect(&mut self) {
        let epoch = self.view.set.epoch;
        let parts = std::mem::take(&mut self.view.validator.unbonding);
        let (mature, rest): (Vec<v1::Unbonding>, _) = parts.into_iter().partition(|part| part.epoch <= epoch);
        self.view.validator.unbonding = rest;
        self.view.balance += mature.iter().map(|part| part.amount).sum::<u64>();
    }

    /// A block with this transaction: its failure, or nothing.
    pub(super) fn include(&mut self, bytes: &[u8]) -> &'static str {
        self.view.height += 1;
        let transaction = Transaction::decode(bytes).unwrap();
        let Action::Operation(operation) = &transaction.action else { panic!("the saga transfers nothing") };
        let terms = transaction.terms;
        if self.view.height > terms.expiry_height {
            return "Expired";
        }
        if terms.nonce != self.view.nonce {
            return "BadNonce";
        }
        let before = self.clone();
        let applied = match self.view.balance.checked_sub(terms.fee) {
            None => Err("InsufficientBalance"),
            Some(rest) => {
                (self.view.balance, self.fees) = (rest, self.fees + terms.fee);
                self.execute(operation)
            }
        };
        match applied {
            Ok(()) => "",
            Err(failure) => {
                *self = before;
                failure
            }
        }
    }

    /// Executes as the registry does.
    pub(super) fn execute(&mut self, operation: &Operation) -> Result<(), &'static str> {
        if let Some((kind, failure)) = self.refuses
            && operation.kind() == kind
        {
            return Err(failure);
        }
        let may_vote = self.view.may_vote(&self.owner);
        let is = |validator: &v1::GetValidatorResponse, status: &str| validator.status == status;
        let validator = &mut self.view.validator;
        match operation {
            Operation::ReserveStake { amount } => {
                self.collect();
                self.view.balance = self.view.balance.checked_sub(*amount).ok_or("InsufficientBalance")?;
                self.view.validator.reserved_stake += amount;
            }
            Operation::RegisterValidator { name } => {
                match () {
                    () if validator.registered => return Err("AlreadyRegistered"),
                    () if validator.reserved_stake == 0 => return Err("InsufficientStake"),
                    () => {}
                }
                validator.registered = true;
                validator.node_name.clone_from(name);
                "Inactive".clone_into(&mut validator.status);
            }
            Operation::ActivateValidator(proof) => {
                match validator.status.as_str() {
                    "Inactive" => {}
                    "Active" => return Err("AlreadyActive"),
                    saga::JAILED => return Err("Jailed"),
                    _ => return Err("NotRegistered"),
                }
                "Active".clone_into(&mut validator.status);
                validator.consensus_key = proof.public_key.to_vec();
            }
            Operation::RotateConsensusKey(proof) => {
                if !is(validator, "Active") {
                    return Err("NotActive");
                }
                validator.consensus_key = proof.public_key.to_vec();
            }
            Operation::DeactivateValidator => {
                if !is(validator, "Active") {
                    return Err("NotActive");
                }
                "Inactive".clone_into(&mut validator.status);
            }
            Operation::DeregisterValidator => {
                match () {
                    () if !validator.registered => return Err("NotRegistered"),
                    () if is(validator, "Active") || may_vote => return Err("StillValidating"),
                    () => {}
                }
                validator.registered = false;
                validator.status.clear();
                validator.consensus_key.clear();
                validator.node_name.clear();
            }
            Operation::ReleaseStake { amount } => {
                self.collect();
                let validator = &mut self.view.validator;
                let left = validator.reserved_stake.checked_sub(*amount).ok_or("InsufficientStake")?;
                if *amount > 0 {
                    if validator.registered && left == 0 {
                        return Err("StakeInUse");
                    }
                    validator.reserved_stake = left;
                    let epoch = self.view.set.epoch + 1 + UNBONDING;
                    validator.unbonding.push(v1::Unbonding { epoch, amount: *amount });
                }
            }
            Operation::ReportEquivocation(_) | Operation::UpdateParameters(_) => panic!("no step of the saga"),
        }
        self.view.nonce += 1;
        let validator = &mut self.view.validator;
        validator.power = if validator.registered { validator.reserved_stake } else { 0 };
        Ok(())
    }

    /// The next epoch's set is computed; others stay as they are.
    pub(super) fn cut_off(&mut self) {
        let validator = &self.view.validator;
        let owned = (validator.status == "Active").then(|| v1::ValidatorSetMember {
            owner: self.owner.to_vec(),
            consensus_key: validator.consensus_key.clone(),
            power: validator.power,
            ..Default::default()
        });
        let others = self.view.set.members.iter().filter(|member| member.owner != self.owner).cloned();
        let members = others.chain(owned).collect();
        let next = v1::GetValidatorSetResponse { epoch: self.view.set.epoch + 1, members, ..Default::default() };
        self.view.before = std::mem::replace(&mut self.view.set, next);
        self.view.height += 1;
    }
}
