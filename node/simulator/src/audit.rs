//! Money and validators as the oracle reads them: what must hold after every block and at every cut-off, whatever the rules
//! that led there. It shares the stored forms with the ledger, and none of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bizra_ledger::{Member, ValidatorSetRecord, ValidatorStatus};

use crate::accounts::account_of;
use crate::ledger::{Ledger, STAKE_PER_POWER};
use crate::schedule::{Schedule, node_of};

/// A way in which the validators of an epoch differ from those of the epoch before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// An owner's validator came in.
    Join,
    /// One left because its owner wanted it to.
    Leave,
    /// One left because it was jailed.
    Jailing,
    /// One votes with another key.
    Rotation,
    /// One has more power.
    Raise,
    /// One has less power.
    Lowering,
    /// A change did not fit and waits for a later epoch (E3, E4).
    Wait,
}

impl Turn {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Join, Self::Leave, Self::Jailing, Self::Rotation, Self::Raise, Self::Lowering, Self::Wait];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Jailing => "jailing",
            Self::Rotation => "rotation",
            Self::Raise => "raise",
            Self::Lowering => "lowering",
            Self::Wait => "wait",
        }
    }
}

/// How often validators changed in each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turnover([u64; Turn::ALL.len()]);

impl Turnover {
    fn count(&mut self, turn: Turn) {
        self.0[turn as usize] += 1;
    }

    /// How often they changed in this way.
    pub fn of(&self, turn: Turn) -> u64 {
        self.0[turn as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// All that took effect.
    pub fn changes(&self) -> u64 {
        self.by_way().filter(|(turn, _)| *turn != Turn::Wait).map(|(_, count)| count).sum()
    }

    /// Ways and counts.
    pub fn by_way(&self) -> impl Iterator<Item = (Turn, u64)> + '_ {
        Turn::ALL.into_iter().map(|turn| (turn, self.of(turn)))
    }
}

/// What was found of one chain so far.
pub(crate) struct Audit {
    /// Power that the genesis grants each owner.
    granted: BTreeMap<usize, u64>,
    /// Every set as its cut-off named it.
    sets: Vec<Arc<ValidatorSetRecord>>,
    turnover: Turnover,
}

fn total<'a>(members: impl IntoIterator<Item = &'a Member>) -> u128 {
    members.into_iter().map(|member| u128::from(member.power)).sum()
}

impl Audit {
    pub(crate) fn new(schedule: &Schedule, ledger: &Ledger) -> Self {
        let seats = schedule.of(bizra_simplex::types::Epoch(0));
        Self {
            granted: seats.iter().enumerate().map(|(owner, (_, power))| (owner, *power)).collect(),
            sets: ledger.set(0).cloned().into_iter().collect(),
            turnover: Turnover::default(),
        }
    }

    pub(crate) fn turnover(&self) -> &Turnover {
        &self.turnover
    }

    /// After every block: no money was made or lost (H4), and sets that were named stay what they were (E3).
    pub(crate) fn block(&self, ledger: &Ledger) -> Vec<String> {
        let mut found = Vec::new();
        let (height, sums) = (ledger.height(), ledger.sums());
        if !sums.are_conserved() {
            found.push(format!("money is not conserved at height {height}: {sums:?}"));
        }
        for set in self.sets.iter().rev().take(3) {
            if ledger.set(set.epoch).is_some_and(|known| !Arc::ptr_eq(known, set) && known != set) {
                found.push(format!("E3: the validators of epoch {} changed at height {height}", set.epoch));
            }
        }
        found.extend(ledger.broken().map(|error| format!("the ledger broke at height {height}: {error}")));
        found
    }

    /// At a cut-off: what may separate the next set from the present one.
    pub(crate) fn cutoff(
        &mut self,
        next: &Arc<ValidatorSetRecord>,
        ledger: &Ledger,
        is_bad: impl Fn(usize) -> bool,
    ) -> Vec<String> {
        let Some(present) = self.sets.last().cloned() else { return Vec::new() };
        self.sets.push(Arc::clone(next));
        let mut found = Vec::new();
        let epoch = next.epoch;
        let mut complain = |what: String| found.push(format!("at the cut-off before epoch {epoch}: {what}"));
        let owner = |member: &Member| account_of(member.owner).unwrap_or(usize::MAX);
        let validator = |member: &Member| ledger.validator(owner(member));
        let is_jailed =
            |member: &Member| validator(member).is_some_and(|known| known.status == ValidatorStatus::Jailed);
        let remaining: Vec<&Member> = present.members.iter().filter(|member| !is_jailed(member)).collect();
        let (old, left, new) = (total(&present.members), total(remaining.iter().copied()), total(&next.members));

        // E3: who came, went, has another key or another power, all together.
        let mut changed = 0;
        for before in &present.members {
            let after = next.of_owner(&before.owner);
            changed += match after {
                None => u128::from(before.power),
                Some(after) if after.consensus_key != before.consensus_key => before.power.max(after.power).into(),
                Some(after) => before.power.abs_diff(after.power).into(),
            };
            let Some(after) = after else {
                self.turnover.count(if is_jailed(before) { Turn::Jailing } else { Turn::Leave });
                continue;
            };
            if after.consensus_key != before.consensus_key {
                self.turnover.count(Turn::Rotation);
            }
            if after.power > before.power {
                self.turnover.count(Turn::Raise);
            }
            if after.power < before.power {
                self.turnover.count(Turn::Lowering);
            }
        }
        for after in next.members.iter().filter(|member| present.of_owner(&member.owner).is_none()) {
            changed += u128::from(after.power);
            self.turnover.count(Turn::Join);
        }
        // Jailing is not held back for the new total's sake: without it, less would be left of it.
        let only_jailed = changed == old - left;
        if changed > 0 && (3 * changed >= old || (3 * changed >= new && !only_jailed)) {
            complain(format!("E3: power {changed} changed between totals {old} and {new}"));
        }

        // E4, but for what jailing does: four stay, and nobody comes to hold a third.
        if next.members.len() < remaining.len().min(4) {
            complain(format!("E4: {} validators of {} are left", next.members.len(), remaining.len()));
        }
        for member in &next.members {
            let had = remaining.iter().find(|before| before.owner == member.owner).map_or(0, |before| before.power);
            let power = u128::from(member.power);
            if 3 * power >= new && power * left > u128::from(had) * new {
                complain(format!("E4: {} of {new} comes to hold a third", member.power));
            }
        }

        // Each votes with the key and the power that its owner wants and has paid for, or as before.
        let mut keys = BTreeSet::new();
        for member in &next.members {
            let owner = owner(member);
            let granted = self
                .granted
                .get(&owner)
                .copied()
                .filter(|_| validator(member).is_some_and(|known| known.granted_power > 0));
            let paid = granted.unwrap_or_default() + ledger.stake(owner).reserved / STAKE_PER_POWER;
            let before = present.of_owner(&member.owner);
            let as_before =
                before.is_some_and(|old| (old.consensus_key, old.power) == (member.consensus_key, member.power));
            let wanted = validator(member).is_some_and(|known| {
                known.status == ValidatorStatus::Active && known.consensus_key == Some(member.consensus_key)
            });
            if !as_before && (!wanted || member.power != paid) {
                complain(format!("{owner} has power {}, paid for {paid}, wanted: {wanted}", member.power));
            }
            if as_before && !(wanted && member.power == paid) {
                self.turnover.count(Turn::Wait);
            }
            if is_jailed(member) {
                complain(format!("{owner} is jailed and validates"));
            }
            if !keys.insert(member.consensus_key) {
                complain(format!("{owner} votes with the key of another"));
            }
        }
        for member in present.members.iter().filter(|member| is_jailed(member)) {
            if !is_bad(node_of(member.consensus_key)) {
                complain(format!("the honest {} is jailed", owner(member)));
            }
        }
        let bad: u64 =
            next.members.iter().filter(|member| is_bad(node_of(member.consensus_key))).map(|member| member.power).sum();
        if 3 * u128::from(bad) >= new {
            complain(format!("the simulation itself lets liars hold {bad} of {new}"));
        }
        found
    }
}
