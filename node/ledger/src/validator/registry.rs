//! The registry: validators, the sets of retained epochs and the parameters, in memory, and the rules that change them.
//!
//! Bounded: at most [`REGISTERED_MAX`] validators, and the sets of the unbonding period. Stakes are as many as there are
//! owners and stay in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bizra_proto::parameters::Parameters;
use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Epoch};

use super::entry::{Domain, Entries, EntryKey};
use super::next_set::{self, Wanted};
use super::record::{Member, Stake, Unbonding, Validator, ValidatorSetRecord, ValidatorStatus};
use super::reputation::TurnBook;
use super::versions;
use crate::failure::Failure;
use crate::stored::StorageError;
use bizra_transaction::{Address, Equivocation, KeyProof, Operation, Verify};

/// Most registered validators: bounds the work of a cut-off.
const REGISTERED_MAX: usize = 1_024;

/// Most parts of one stake that unbond at the same time: bounds the size of a stake.
const UNBONDING_MAX: usize = 32;

/// How far back a key proof may refer (PROTOCOL E3), in blocks.
pub const RECENT_BLOCKS: u64 = 100;

/// Signature checks one block executes at most, 50 µs each. An attacker who orders more makes the others fail.
const SIGNATURE_CHECKS_MAX: u32 = 64;

/// Why an operation has no effect.
#[derive(Debug)]
pub enum OperationError {
    /// By the rules.
    Failed(Failure),
    /// The database failed.
    Storage(StorageError),
}

impl From<StorageError> for OperationError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<Failure> for OperationError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Money outside of balances and fees, base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Reserved and unbonding stakes.
    pub staked: u64,
    /// Taken from equivocating validators; belongs to nobody.
    pub slashed: u64,
}

/// What an operation may see and change beside the registry.
pub struct Turn<'a, E> {
    /// State entries.
    pub entries: &'a mut E,
    /// Height of the block being executed.
    pub height: u64,
    /// Digest of a block below, if it is at most [`RECENT_BLOCKS`] below.
    pub recent_block: &'a dyn Fn(u64) -> Option<Digest>,
    /// What votes of an epoch are signed with: the genesis hash, unless owners have restarted the chain.
    pub domain: &'a dyn Fn(Epoch) -> Digest,
    /// How signatures are checked.
    pub verify: Verify<'a>,
    /// Signature checks made in this block.
    pub signature_checks: &'a mut u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Registry {
    validators: BTreeMap<Address, Validator>,
    sets: BTreeMap<u64, Arc<ValidatorSetRecord>>,
    approvals: BTreeMap<Address, Parameters>,
    parameters: Parameters,
    /// The version each consensus key signalled last.
    pub(super) signals: BTreeMap<[u8; 32], u32>,
    /// Turns to lead since the last cut-off.
    pub(super) turn_book: TurnBook,
}

fn missing(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} of the validator registry is missing"))
}

fn decode_parameters(bytes: &[u8]) -> Result<Parameters, StorageError> {
    let fixed = bytes.try_into().map_err(|_| StorageError::Corrupt("stored parameters do not decode".to_owned()))?;
    Ok(Parameters::decode(fixed))
}

impl Registry {
    /// The registry of a genesis, of members with their stakes: its entries go to `entries`.
    pub fn genesis(
        staked: Vec<(Member, u64)>,
        parameters: Parameters,
        entries: &mut impl Entries,
    ) -> Result<Self, StorageError> {
        let mut validators = BTreeMap::new();
        let mut members = Vec::with_capacity(staked.len());
        for (member, reserved) in staked {
            let validator = Validator {
                name: member.name.clone(),
                status: ValidatorStatus::Active,
                consensus_key: Some(member.consensus_key),
                granted_power: member.power.saturating_sub(reserved / parameters.stake_per_power.max(1)),
                queued_at: 0,
            };
            if reserved > 0 {
                let stake = Stake { reserved, unbonding: Vec::new() };
                entries.set(EntryKey::of(Domain::Stake, member.owner), Some(stake.encode()))?;
            }
            entries.set(EntryKey::of(Domain::Validator, member.owner), Some(validator.encode()))?;
            validators.insert(member.owner, validator);
            members.push(member);
        }
        let version = parameters.protocol_version;
        let set = ValidatorSetRecord { epoch: 0, cutoff: 0, version, members };
        entries.set(EntryKey::numbered(Domain::ValidatorSet, 0), Some(set.encode()))?;
        entries.set(EntryKey::single(Domain::Parameters), Some(parameters.encode().to_vec()))?;
        let sets = BTreeMap::from([(0, Arc::new(set))]);
        let (approvals, signals, turn_book) = (BTreeMap::new(), BTreeMap::new(), TurnBook::default());
        Ok(Self { validators, sets, approvals, parameters, signals, turn_book })
    }

    /// The registry behind stored entries.
    pub fn load(
        entries: impl Iterator<Item = Result<(EntryKey, Vec<u8>), StorageError>>,
    ) -> Result<Self, StorageError> {
        let (mut validators, mut sets, mut approvals) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut parameters, mut signals, mut turn_book) = (None, BTreeMap::new(), TurnBook::default());
        for entry in entries {
            let (key, value) = entry?;
            let owner = Address(key.id());
            match key.0[0] {
                domain if domain == Domain::Validator as u8 => {
                    validators.insert(owner, Validator::decode(&value)?);
                }
                domain if domain == Domain::ValidatorSet as u8 => {
                    let set = ValidatorSetRecord::decode(&value)?;
                    sets.insert(set.epoch, Arc::new(set));
                }
                domain if domain == Domain::Approval as u8 => {
                    approvals.insert(owner, decode_parameters(&value)?);
                }
                domain if domain == Domain::Signal as u8 => {
                    signals.insert(key.id(), versions::decode(&value)?);
                }
                domain if domain == Domain::Turns as u8 => turn_book.load_turns(owner, &value)?,
                domain if domain == Domain::LastView as u8 => turn_book.load_last(&value)?,
                domain if domain == Domain::Parameters as u8 => parameters = Some(decode_parameters(&value)?),
                _ => {}
            }
        }
        let parameters = parameters.ok_or_else(|| missing("the parameters"))?;
        if sets.is_empty() {
            return Err(missing("every set"));
        }
        Ok(Self { validators, sets, approvals, parameters, signals, turn_book })
    }

    /// The parameters in force.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The set computed last: that of the running epoch, or of the next one if its boundary has not come yet.
    pub fn latest(&self) -> Result<&Arc<ValidatorSetRecord>, StorageError> {
        self.sets.last_key_value().map(|(_, set)| set).ok_or_else(|| missing("every set"))
    }

    /// The retained set of an epoch.
    pub fn set(&self, epoch: u64) -> Option<&Arc<ValidatorSetRecord>> {
        self.sets.get(&epoch)
    }

    fn member(&self, epoch: u64, index: u16) -> Option<&Member> {
        self.sets.get(&epoch)?.members.get(usize::from(index))
    }

    /// The consensus key behind an index of a retained set.
    pub(super) fn key_of(&self, epoch: u64, index: u16) -> Option<[u8; 32]> {
        self.member(epoch, index).map(|member| member.consensus_key)
    }

    /// The owner of that validator.
    pub(super) fn owner_of(&self, epoch: u64, index: u16) -> Option<Address> {
        self.member(epoch, index).map(|member| member.owner)
    }

    /// The retained set that the state at this height named.
    pub fn set_at_cutoff(&self, height: u64) -> Option<&Arc<ValidatorSetRecord>> {
        self.sets.values().rev().find(|set| set.cutoff == height)
    }

    /// Executes an operation of `owner`, whose balance it may change. An error leaves everything as it was, but for
    /// entries in a failed database.
    pub fn execute<E: Entries>(
        &mut self,
        operation: &Operation,
        owner: Address,
        balance: &mut u64,
        money: &mut Money,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        match operation {
            Operation::ReserveStake { amount } => self.reserve(owner, *amount, balance, money, turn),
            Operation::ReleaseStake { amount } => self.release(owner, *amount, balance, money, turn),
            Operation::RegisterValidator { name } => self.register(owner, name, turn),
            Operation::DeregisterValidator => self.deregister(owner, turn),
            Operation::ActivateValidator(proof) => {
                let validator = self.validator(owner)?;
                match validator.status {
                    ValidatorStatus::Inactive => self.take_key(owner, proof, turn),
                    ValidatorStatus::Active => Err(Failure::AlreadyActive.into()),
                    ValidatorStatus::Jailed => Err(Failure::Jailed.into()),
                }
            }
            Operation::RotateConsensusKey(proof) => {
                self.active(owner)?;
                self.take_key(owner, proof, turn)
            }
            Operation::DeactivateValidator => {
                let validator = self.active(owner)?;
                let inactive =
                    Validator { status: ValidatorStatus::Inactive, queued_at: turn.height, ..validator.clone() };
                self.put(owner, inactive, turn.entries)
            }
            Operation::ReportEquivocation(evidence) => self.report(evidence, money, turn),
            Operation::UpdateParameters(parameters) => {
                if self.latest()?.of_owner(&owner).is_none() {
                    return Err(Failure::NotAValidator.into());
                }
                if parameters.protocol_version != self.parameters.protocol_version {
                    // Owners cannot know what nodes can go by: these signal it themselves (PROTOCOL P1).
                    return Err(Failure::ProtocolVersionSignalled.into());
                }
                if parameters.epoch_blocks != self.parameters.epoch_blocks {
                    // Consensus counts epochs by it, before anything is executed.
                    return Err(Failure::EpochLengthFixed.into());
                }
                turn.entries.set(EntryKey::of(Domain::Approval, owner), Some(parameters.encode().to_vec()))?;
                self.approvals.insert(owner, *parameters);
                Ok(())
            }
        }
    }

    fn validator(&self, owner: Address) -> Result<&Validator, OperationError> {
        self.validators.get(&owner).ok_or_else(|| Failure::NotRegistered.into())
    }

    fn active(&self, owner: Address) -> Result<&Validator, OperationError> {
        let validator = self.validator(owner)?;
        match validator.status {
            ValidatorStatus::Active => Ok(validator),
            ValidatorStatus::Inactive => Err(Failure::NotActive.into()),
            ValidatorStatus::Jailed => Err(Failure::Jailed.into()),
        }
    }

    fn put(&mut self, owner: Address, validator: Validator, entries: &mut impl Entries) -> Result<(), OperationError> {
        entries.set(EntryKey::of(Domain::Validator, owner), Some(validator.encode()))?;
        self.validators.insert(owner, validator);
        Ok(())
    }

    fn reserve<E: Entries>(
        &self,
        owner: Address,
        amount: u64,
        balance: &mut u64,
        money: &mut Money,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        let mut stake = read_stake(turn.entries, owner)?;
        let mature = take_mature(&mut stake, self.latest()?.epoch);
        let available = balance.checked_add(mature).ok_or_else(exceeded)?;
        let rest = available.checked_sub(amount).ok_or(Failure::InsufficientBalance)?;
        stake.reserved = stake.reserved.checked_add(amount).ok_or_else(exceeded)?;
        let staked = money.staked.checked_sub(mature).and_then(|staked| staked.checked_add(amount));
        (*balance, money.staked) = (rest, staked.ok_or_else(exceeded)?);
        write_stake(turn.entries, owner, &stake)
    }

    fn release<E: Entries>(
        &self,
        owner: Address,
        amount: u64,
        balance: &mut u64,
        money: &mut Money,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        let mut stake = read_stake(turn.entries, owner)?;
        let latest = self.latest()?;
        let mature = take_mature(&mut stake, latest.epoch);
        stake.reserved = stake.reserved.checked_sub(amount).ok_or(Failure::InsufficientStake)?;
        if let Some(validator) = self.validators.get(&owner)
            && amount > 0
            && self.power(validator, &stake) == 0
        {
            // A registration without power would hold a name and a place for nothing.
            return Err(Failure::StakeInUse.into());
        }
        if amount > 0 {
            // It counts in the set computed last, so its period begins with the one after.
            let epoch = latest.epoch.saturating_add(1).saturating_add(self.parameters.unbonding_epochs.into());
            match stake.unbonding.last_mut() {
                Some(last) if last.epoch >= epoch => {
                    last.amount = last.amount.checked_add(amount).ok_or_else(exceeded)?;
                }
                _ => stake.unbonding.push(Unbonding { epoch, amount }),
            }
            if stake.unbonding.len() > UNBONDING_MAX {
                return Err(Failure::TooManyReleases.into());
            }
        }
        let paid = if planted(Bug::ReleasePaidTwice) { mature + amount } else { mature };
        let paid = balance.checked_add(paid).zip(money.staked.checked_sub(mature));
        (*balance, money.staked) = paid.ok_or_else(exceeded)?;
        write_stake(turn.entries, owner, &stake)
    }

    fn power(&self, validator: &Validator, stake: &Stake) -> u64 {
        let power = validator.power(stake, self.parameters.stake_per_power);
        if planted(Bug::PowerCountedTwice) { power.saturating_mul(2) } else { power }
    }

    fn register<E: Entries>(
        &mut self,
        owner: Address,
        name: &str,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        if self.validators.contains_key(&owner) {
            return Err(Failure::AlreadyRegistered.into());
        }
        let named = self.validators.values().any(|validator| validator.name == name);
        if named || self.running_members()?.any(|member| member.name == name) {
            return Err(Failure::NameTaken.into());
        }
        if self.validators.len() >= REGISTERED_MAX {
            return Err(Failure::RegistryFull.into());
        }
        let validator = Validator {
            name: name.to_owned(),
            status: ValidatorStatus::Inactive,
            consensus_key: None,
            granted_power: 0,
            queued_at: turn.height,
        };
        if self.power(&validator, &read_stake(turn.entries, owner)?) == 0 {
            return Err(Failure::InsufficientStake.into());
        }
        self.put(owner, validator, turn.entries)
    }

    /// Members of the running epoch and of the one that may follow it.
    fn running_members(&self) -> Result<impl Iterator<Item = &Member>, StorageError> {
        let latest = self.latest()?;
        let before = latest.epoch.checked_sub(1).and_then(|epoch| self.sets.get(&epoch));
        Ok(before.into_iter().chain([latest]).flat_map(|set| &set.members))
    }

    fn deregister<E: Entries>(&mut self, owner: Address, turn: &mut Turn<'_, E>) -> Result<(), OperationError> {
        let validator = self.validator(owner)?;
        let votes = self.running_members()?.any(|member| member.owner == owner);
        if validator.status == ValidatorStatus::Active || votes {
            return Err(Failure::StillValidating.into());
        }
        turn.entries.set(EntryKey::of(Domain::Validator, owner), None)?;
        self.validators.remove(&owner);
        Ok(())
    }

    /// The validator wants to vote with this key from the next epoch on.
    fn take_key<E: Entries>(
        &mut self,
        owner: Address,
        proof: &KeyProof,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        let validator = self.validator(owner)?.clone();
        let key = proof.public_key;
        let taken = self.validators.iter().any(|(other, known)| *other != owner && known.consensus_key == Some(key));
        let voted = self.sets.values().flat_map(|set| &set.members);
        if taken || voted.into_iter().any(|member| member.owner != owner && member.consensus_key == key) {
            return Err(Failure::KeyInUse.into());
        }
        if turn.entries.get(&EntryKey::new(Domain::Punished, key))?.is_some() {
            return Err(Failure::Jailed.into());
        }
        if self.power(&validator, &read_stake(turn.entries, owner)?) == 0 {
            return Err(Failure::InsufficientStake.into());
        }
        if (turn.recent_block)(proof.height) != Some(proof.block) {
            return Err(Failure::StaleKeyProof.into());
        }
        count_checks(turn.signature_checks, 1)?;
        if !proof.is_valid_by(owner, turn.verify) {
            return Err(Failure::InvalidKeyProof.into());
        }
        if planted(Bug::RotationTooEarly) {
            self.rotate_at_once(owner, key);
        }
        let status = ValidatorStatus::Active;
        let active = Validator { status, consensus_key: Some(key), queued_at: turn.height, ..validator };
        self.put(owner, active, turn.entries)
    }

    /// [`Bug::RotationTooEarly`].
    fn rotate_at_once(&mut self, owner: Address, key: [u8; 32]) {
        if let Some((_, set)) = self.sets.iter_mut().next_back() {
            let members = &mut Arc::make_mut(set).members;
            members.iter_mut().filter(|member| member.owner == owner).for_each(|member| member.consensus_key = key);
        }
    }

    /// Jails the validator that signed both votes and takes a part of its stake.
    pub(super) fn report<E: Entries>(
        &mut self,
        evidence: &Equivocation,
        money: &mut Money,
        turn: &mut Turn<'_, E>,
    ) -> Result<(), OperationError> {
        let epoch = evidence.first.0.epoch.0;
        let set = self.sets.get(&epoch).ok_or(Failure::EvidenceOutOfRange)?;
        let member = set.members.iter().find(|member| member.consensus_key == evidence.public_key);
        let owner = member.ok_or(Failure::InvalidEvidence)?.owner;
        let punished = EntryKey::new(Domain::Punished, evidence.public_key);
        if turn.entries.get(&punished)?.is_some() {
            return Err(Failure::AlreadyPunished.into());
        }
        count_checks(turn.signature_checks, 2)?;
        if !evidence.is_valid_by((turn.domain)(evidence.first.0.epoch), turn.verify) {
            return Err(Failure::InvalidEvidence.into());
        }
        if !self.may_jail(owner)? {
            tracing::error!(%owner, epoch, "a validator equivocated and is not jailed: a third of the power would be");
            return Err(Failure::JailingStopped.into());
        }
        let mut stake = read_stake(turn.entries, owner)?;
        let taken = slash(&mut stake, self.parameters.slash_per_mille);
        let kept = if planted(Bug::SlashedLost) { 0 } else { taken };
        let sums = money.staked.checked_sub(taken).zip(money.slashed.checked_add(kept));
        (money.staked, money.slashed) = sums.ok_or_else(exceeded)?;
        write_stake(turn.entries, owner, &stake)?;
        turn.entries.set(punished, Some(turn.height.to_be_bytes().to_vec()))?;
        if let Some(validator) = self.validators.get(&owner) {
            let jailed = Validator { status: ValidatorStatus::Jailed, queued_at: turn.height, ..validator.clone() };
            self.put(owner, jailed, turn.entries)?;
        }
        Ok(())
    }

    fn is_jailed(&self, owner: &Address) -> bool {
        self.validators.get(owner).is_some_and(|validator| validator.status == ValidatorStatus::Jailed)
    }

    /// E4: jailing stops before the jailed power of a set reaches a third of it.
    fn may_jail(&self, owner: Address) -> Result<bool, StorageError> {
        let latest = self.latest()?;
        if latest.of_owner(&owner).is_none() {
            return Ok(true);
        }
        let jailed = latest.members.iter().filter(|member| member.owner == owner || self.is_jailed(&member.owner));
        let power: u128 = jailed.map(|member| u128::from(member.power)).sum();
        Ok(3 * power < u128::from(latest.total()))
    }

    /// Ends an epoch at its cut-off height: parameters that found their majority hold from here, and the next set is
    /// computed. Returns owners whose change did not fit.
    pub fn cut_off(&mut self, height: u64, entries: &mut impl Entries) -> Result<Vec<Address>, StorageError> {
        let latest = Arc::clone(self.latest()?);
        self.adopt_parameters(&latest, entries)?;
        let mut wanted = Vec::new();
        let mut jailed = BTreeSet::new();
        for (&owner, validator) in &self.validators {
            let stake = read_stake(entries, owner)?;
            let power = self.power(validator, &stake);
            let key = validator.consensus_key.filter(|_| validator.status == ValidatorStatus::Active && power > 0);
            if validator.status == ValidatorStatus::Jailed {
                jailed.insert(owner);
                continue;
            }
            let conduct = latest.of_owner(&owner).map(|member| member.conduct).unwrap_or_default();
            let name = validator.name.clone();
            let member = key.map(|consensus_key| Member { owner, name, consensus_key, power, conduct });
            wanted.push(Wanted { owner, queued_at: validator.queued_at, member });
        }
        let next_set::NextMembers { mut members, queued } = next_set::next_members(&latest, &jailed, wanted);
        self.judge_turns(&mut members, entries)?;
        let version = self.next_version(&latest, &members);
        if version != self.parameters.protocol_version {
            self.parameters.protocol_version = version;
            entries.set(EntryKey::single(Domain::Parameters), Some(self.parameters.encode().to_vec()))?;
        }
        self.forget_signals(&members, entries)?;
        let set = ValidatorSetRecord { epoch: latest.epoch.saturating_add(1), cutoff: height, version, members };
        entries.set(EntryKey::numbered(Domain::ValidatorSet, set.epoch), Some(set.encode()))?;
        // Evidence of an epoch counts as long as stakes that answered in it unbond.
        let oldest = set.epoch.saturating_sub(u64::from(self.parameters.unbonding_epochs) + 2);
        self.sets.insert(set.epoch, Arc::new(set));
        while let Some((&epoch, _)) = self.sets.first_key_value().filter(|(epoch, _)| **epoch < oldest) {
            entries.set(EntryKey::numbered(Domain::ValidatorSet, epoch), None)?;
            self.sets.remove(&epoch);
        }
        Ok(queued)
    }

    /// Owners restart the chain with these validators after a block of epoch `ended` (PROTOCOL E6). Sets of epochs that have
    /// not begun are gone; whoever is not named is out until its owner activates it again; who is named has the power that
    /// was named, unless the stake alone gives more by the next cut-off.
    pub fn restart(
        &mut self,
        set: ValidatorSetRecord,
        ended: u64,
        entries: &mut impl Entries,
    ) -> Result<(), StorageError> {
        // Turns of an epoch that was broken off say nothing of those who lead from here.
        self.judge_turns(&mut [], entries)?;
        let never_begun: Vec<u64> = self.sets.keys().copied().filter(|epoch| *epoch > ended).collect();
        for epoch in never_begun {
            entries.set(EntryKey::numbered(Domain::ValidatorSet, epoch), None)?;
            self.sets.remove(&epoch);
        }
        if self.parameters.protocol_version != set.version {
            self.parameters.protocol_version = set.version;
            entries.set(EntryKey::single(Domain::Parameters), Some(self.parameters.encode().to_vec()))?;
        }
        let height = set.cutoff;
        let mut next = BTreeMap::new();
        for (owner, known) in std::mem::take(&mut self.validators) {
            if set.of_owner(&owner).is_some() {
                continue;
            }
            if set.members.iter().any(|member| member.name == known.name) {
                // Somebody else's node has the name now.
                entries.set(EntryKey::of(Domain::Validator, owner), None)?;
                continue;
            }
            let taken = |key: &[u8; 32]| set.members.iter().any(|member| member.consensus_key == *key);
            let status = match known.status {
                ValidatorStatus::Active => ValidatorStatus::Inactive,
                status => status,
            };
            let consensus_key = known.consensus_key.filter(|key| !taken(key));
            next.insert(owner, Validator { status, consensus_key, queued_at: height, ..known });
        }
        for member in &set.members {
            let stake = read_stake(entries, member.owner)?;
            let staked = stake.reserved / self.parameters.stake_per_power.max(1);
            let validator = Validator {
                name: member.name.clone(),
                status: ValidatorStatus::Active,
                consensus_key: Some(member.consensus_key),
                granted_power: member.power.saturating_sub(staked),
                queued_at: height,
            };
            next.insert(member.owner, validator);
        }
        for (owner, validator) in &next {
            entries.set(EntryKey::of(Domain::Validator, *owner), Some(validator.encode()))?;
        }
        self.validators = next;
        entries.set(EntryKey::numbered(Domain::ValidatorSet, set.epoch), Some(set.encode()))?;
        self.sets.insert(set.epoch, Arc::new(set));
        Ok(())
    }

    fn adopt_parameters(
        &mut self,
        latest: &ValidatorSetRecord,
        entries: &mut impl Entries,
    ) -> Result<(), StorageError> {
        let power = |owner: &Address| latest.of_owner(owner).map_or(0, |member| u128::from(member.power));
        // An approval may be older than the version that has been activated since.
        let protocol_version = self.parameters.protocol_version;
        self.approvals.values_mut().for_each(|approved| approved.protocol_version = protocol_version);
        let adopted = self.approvals.values().copied().find(|wanted| {
            let approving = self.approvals.iter().filter(|(_, approved)| *approved == wanted);
            3 * approving.map(|(owner, _)| power(owner)).sum::<u128>() > 2 * u128::from(latest.total())
        });
        if let Some(parameters) = adopted {
            entries.set(EntryKey::single(Domain::Parameters), Some(parameters.encode().to_vec()))?;
            self.parameters = parameters;
        }
        let done = |owner: &Address| adopted.is_some() || latest.of_owner(owner).is_none();
        let settled: Vec<Address> = self.approvals.keys().copied().filter(done).collect();
        for owner in settled {
            entries.set(EntryKey::of(Domain::Approval, owner), None)?;
            self.approvals.remove(&owner);
        }
        Ok(())
    }
}

fn exceeded() -> OperationError {
    OperationError::Storage(StorageError::Corrupt("stakes exceed the supply".to_owned()))
}

fn count_checks(checks: &mut u32, more: u32) -> Result<(), Failure> {
    *checks = checks.saturating_add(more);
    if *checks > SIGNATURE_CHECKS_MAX { Err(Failure::BlockBusy) } else { Ok(()) }
}

pub(super) fn read_stake(entries: &impl Entries, owner: Address) -> Result<Stake, StorageError> {
    let value = entries.get(&EntryKey::of(Domain::Stake, owner))?;
    value.map_or(Ok(Stake::default()), |bytes| Stake::decode(&bytes))
}

fn write_stake(entries: &mut impl Entries, owner: Address, stake: &Stake) -> Result<(), OperationError> {
    let value = (*stake != Stake::default()).then(|| stake.encode());
    Ok(entries.set(EntryKey::of(Domain::Stake, owner), value)?)
}

/// Takes what has unbonded by this epoch out of the stake.
fn take_mature(stake: &mut Stake, epoch: u64) -> u64 {
    let before = stake.total();
    stake.unbonding.retain(|part| part.epoch > epoch);
    before.saturating_sub(stake.total())
}

/// Takes this many thousandths of every part, rounded down.
fn slash(stake: &mut Stake, per_mille: u16) -> u64 {
    let before = stake.total();
    let keep = |amount: u64| amount - (u128::from(amount) * u128::from(per_mille.min(1_000)) / 1_000) as u64;
    stake.reserved = keep(stake.reserved);
    stake.unbonding.iter_mut().for_each(|part| part.amount = keep(part.amount));
    before - stake.total()
}
