//! Owners of validators, and what they order: to join, leave, rotate keys, stake more or less, report liars. Every order is a
//! real transaction; which are possible is read from the ledger as the oracle knows it. Liars stay below a third of the
//! power whatever part of the orders takes effect, in whatever order.

use std::collections::BTreeMap;

use bizra_ledger::{Validator, ValidatorSetRecord, ValidatorStatus};
use bizra_simplex::SignedVote;
use bizra_transaction::{Equivocation, KeyProof, Operation};

use crate::accounts::{address, operation};
use crate::ledger::{Ledger, STAKE_PER_POWER, name_of};
use crate::queue::Happening;
use crate::random::Random;
use crate::schedule::key_of;
use crate::world::World;

/// Orders that owners give in an epoch, on average.
const ORDERS_PER_EPOCH: u64 = 8;

/// Blocks after which an order that was not executed is void.
const PATIENCE: u64 = 24;

/// What owners know of their own orders.
#[derive(Default)]
pub(crate) struct Owners {
    /// Orders on their way, by owner: until which height, with which nonce, and the least power that may come of them.
    under_way: BTreeMap<usize, (u64, u64, u64)>,
    /// A contradiction somebody may report.
    contradiction: Option<(SignedVote, SignedVote)>,
    /// Height up to which orders were given.
    height: u64,
}

/// Power of an owner's validator in the set named last, and what its owner wants it to be.
fn power(ledger: &Ledger, latest: &ValidatorSetRecord, owner: usize) -> (u64, u64) {
    let now = latest.of_owner(&address(owner)).map_or(0, |member| member.power);
    let wanted = ledger
        .validator(owner)
        .filter(|known| known.status == ValidatorStatus::Active)
        .map_or(0, |known| known.granted_power + ledger.stake(owner).reserved / STAKE_PER_POWER);
    (now, wanted)
}

impl World {
    /// Somebody has executed another block: now and then, an owner gives an order.
    pub(crate) fn orders(&mut self) {
        let Some(blocks) = self.scenario.schedule.blocks() else { return };
        let height = self.oracle.ledger().height();
        while self.owners.height < height {
            self.owners.height += 1;
            if self.random.chance(1_000 * ORDERS_PER_EPOCH / blocks) {
                let delay = self.random.between(1, 100);
                self.schedule(delay, Happening::Order);
            }
        }
    }

    /// Votes of a liar that somebody may report.
    pub(crate) fn may_report(&mut self, first: SignedVote, second: SignedVote) {
        self.owners.contradiction = Some((first, second));
    }

    pub(crate) fn order(&mut self) {
        if self.healed {
            return;
        }
        let owner = self.random.index(self.nodes.len());
        let ledger = self.oracle.ledger();
        let (height, nonce) = (ledger.height(), ledger.account(owner).nonce);
        self.owners
            .under_way
            .retain(|owner, (until, nonce, _)| height <= *until && ledger.account(*owner).nonce == *nonce);
        if self.owners.under_way.contains_key(&owner) {
            return;
        }
        let Some((wanted, least)) = self.choose(owner) else { return };
        let until = height + PATIENCE;
        self.owners.under_way.insert(owner, (until, nonce, least));
        self.say(owner, || format!("orders {wanted:?}"));
        let transaction = operation(owner, nonce, until, &wanted);
        // To somebody who orders batches; a liar may lose it.
        let validators: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_validator()).collect();
        if !validators.is_empty() {
            let node = self.random.pick(&validators);
            self.inject_at(node, &transaction);
        }
    }

    /// An order of an owner, and the least power it may leave it.
    fn choose(&mut self, owner: usize) -> Option<(Operation, u64)> {
        let Self { random, oracle, owners, nodes, .. } = self;
        let ledger = oracle.ledger();
        let is_bad = |node: usize| nodes[node].adversary.is_some();
        let latest = ledger.latest()?;
        let (now, wanted) = power(ledger, latest, owner);
        let stake = ledger.stake(owner);
        // What liars may have at most, and what the others have at least.
        let liars: u64 = (0..nodes.len())
            .filter(|owner| is_bad(*owner))
            .map(|owner| {
                let (now, wanted) = power(ledger, latest, owner);
                now.max(wanted)
            })
            .sum();
        let least = |owner: usize| {
            let (now, wanted) = power(ledger, latest, owner);
            owners.under_way.get(&owner).map_or(u64::MAX, |(.., least)| *least).min(now).min(wanted)
        };
        let others: u64 = (0..nodes.len()).filter(|other| !is_bad(*other) && *other != owner).map(least).sum();
        let is_safe = |left: u64| is_bad(owner) || others + left.min(now) > 2 * liars;
        let validator = ledger.validator(owner);
        // Most of what is asked for fits, sooner or later: what would reach a third of the power waits for ever (E3, E4).
        let total = latest.total();
        let units = |random: &mut Random| match validator {
            None => random.between(total / 6, total / 4).max(1),
            Some(_) if random.chance(150) => random.between(1, total / 4),
            Some(_) => random.between(1, 2),
        };
        let more = |random: &mut Random| Operation::ReserveStake {
            // A liar's stake is there to be slashed, not to grow its power.
            amount: if is_bad(owner) { 20_u64.saturating_sub(stake.reserved) } else { units(random) * STAKE_PER_POWER },
        };
        if let Some((first, second)) = owners.contradiction.take_if(|_| random.chance(200)) {
            let set = ledger.set(first.vote.epoch.0)?;
            let public_key = set.members.get(usize::from(first.signer.0))?.consensus_key;
            let (first, second) = ((first.vote, first.signature), (second.vote, second.signature));
            return Some((Operation::ReportEquivocation(Equivocation { public_key, first, second }), now.min(wanted)));
        }
        // Before it is found out: there must be something to slash.
        if is_bad(owner) && stake.reserved == 0 && validator.is_some() {
            return Some((more(random), 0));
        }
        let Some(Validator { status, granted_power, .. }) = validator else {
            let ready = stake.reserved >= STAKE_PER_POWER || is_bad(owner);
            let wanted = if ready { Operation::RegisterValidator { name: name_of(owner) } } else { more(random) };
            return Some((wanted, 0));
        };
        // One node stays free for rotations.
        let active =
            |owner: &usize| ledger.validator(*owner).is_some_and(|known| known.status == ValidatorStatus::Active);
        let worth = granted_power + stake.reserved / STAKE_PER_POWER;
        let crowded = (0..nodes.len()).filter(active).count() + 1 >= nodes.len();
        match status {
            ValidatorStatus::Jailed => Some((Operation::DeregisterValidator, 0)),
            ValidatorStatus::Inactive => match random.below(8) {
                0 if !is_bad(owner) && is_safe(0) => Some((Operation::DeregisterValidator, 0)),
                1 if 4 * worth < total => Some((more(random), 0)),
                _ if crowded => None,
                _ => {
                    let proof = Self::proof(random, ledger, owner, nodes.len(), is_bad)?;
                    Some((Operation::ActivateValidator(proof), 0))
                }
            },
            ValidatorStatus::Active => match random.below(8) {
                0 | 1 if is_safe(0) && (crowded || random.chance(300)) => Some((Operation::DeactivateValidator, 0)),
                2..=4 if !is_bad(owner) => {
                    let proof = Self::proof(random, ledger, owner, nodes.len(), is_bad)?;
                    Some((Operation::RotateConsensusKey(proof), wanted))
                }
                5 if 4 * worth <= total => Some((more(random), wanted)),
                6 if stake.reserved > 0 => {
                    let amount = random.between(0, stake.reserved);
                    let left = wanted.saturating_sub(amount.div_ceil(STAKE_PER_POWER));
                    is_safe(left).then_some((Operation::ReleaseStake { amount }, left))
                }
                7 if !stake.unbonding.is_empty() => Some((Operation::ReleaseStake { amount: 0 }, wanted)),
                _ => None,
            },
        }
    }

    /// A key for an owner's validator: of a node that is honest as its own is, and most likely nobody else's.
    fn proof(
        random: &mut Random,
        ledger: &Ledger,
        owner: usize,
        nodes: usize,
        is_bad: impl Fn(usize) -> bool,
    ) -> Option<KeyProof> {
        let node = if is_bad(owner) {
            owner
        } else {
            let used = |node: &usize| {
                let key = Some(key_of(*node).0);
                let active = |known: &Validator| known.status == ValidatorStatus::Active;
                (0..nodes)
                    .filter_map(|other| ledger.validator(other).filter(active))
                    .any(|known| known.consensus_key == key)
            };
            let free: Vec<usize> = (0..nodes).filter(|node| !is_bad(*node) && !used(node)).collect();
            // Now and then a key that somebody else has: refused.
            if free.is_empty() || random.chance(30) {
                (0..nodes).find(|node| !is_bad(*node))?
            } else {
                random.pick(&free)
            }
        };
        let (height, block) = (ledger.height(), ledger.last_block()?);
        let signature = ledger.sign(node, &KeyProof::message(address(owner), height, block))?;
        Some(KeyProof { public_key: key_of(node).0, height, block, signature })
    }
}
