//! Who leads, as the oracle counts it (T2): its own rotation, its own count of turns, its own shares. It shares no code with
//! the core.

use std::collections::BTreeMap;

use bizra_simplex::Block;
use bizra_simplex::types::Epoch;

use crate::schedule::Schedule;

/// All of a validator's power counts, in 1/1024.
const WHOLE: u64 = 1024;

/// What the finalised chain tells of its leaders. A new key is no new start: shares and turns are of owners.
pub(crate) struct Leaders {
    /// Share of its power with which each owner's validator takes turns, in 1/1024, by epoch. Who is not named has all of it.
    shares: Vec<BTreeMap<usize, u64>>,
    /// Turns of owners since the last cut-off: with a block, without.
    turns: BTreeMap<usize, (u64, u64)>,
    /// The indices that lead in turn, for the latest epochs.
    orders: BTreeMap<u64, Vec<u16>>,
    /// Epoch and view of the block counted last.
    last: (u64, u64),
}

impl Leaders {
    pub(crate) fn new() -> Self {
        let (shares, turns) = (vec![BTreeMap::new()], BTreeMap::new());
        Self { shares, turns, orders: BTreeMap::new(), last: (0, 0) }
    }

    /// The share of an owner in an epoch.
    pub(crate) fn share(&self, epoch: Epoch, owner: usize) -> u64 {
        self.shares.get(epoch.0 as usize).and_then(|shares| shares.get(&owner)).copied().unwrap_or(WHOLE)
    }

    /// The leaders of an epoch: each collects its weight in every view; who has most leads, and pays what all collected.
    fn order(&mut self, epoch: Epoch, schedule: &Schedule) -> &[u16] {
        if !self.orders.contains_key(&epoch.0) {
            let (members, owners) = (schedule.of(epoch), schedule.owners(epoch));
            let shared = |((_, power), owner): (&(usize, u64), &usize)| power * self.share(epoch, *owner);
            let mut weights: Vec<u64> = members.iter().zip(owners.iter()).map(shared).collect();
            let total: u64 = weights.iter().sum();
            let common = (1..=total).rev().find(|by| weights.iter().all(|weight| weight % by == 0)).unwrap_or(1);
            for weight in &mut weights {
                *weight = if total / common <= 1024 { *weight / common } else { (*weight * 1024 / total).max(1) };
            }
            let all: u64 = weights.iter().sum();
            let mut purses = vec![0_i64; weights.len()];
            let mut order = Vec::with_capacity(all as usize);
            for _ in 0..all {
                for (purse, weight) in purses.iter_mut().zip(&weights) {
                    *purse += weight.cast_signed();
                }
                let most = purses.iter().max().copied().unwrap_or_default();
                let richest = purses.iter().position(|purse| *purse == most).unwrap_or_default();
                purses[richest] -= all.cast_signed();
                order.push(richest as u16);
            }
            self.orders.insert(epoch.0, order);
            while self.orders.len() > 3 {
                self.orders.pop_first();
            }
        }
        self.orders.get(&epoch.0).map_or(&[], Vec::as_slice)
    }

    fn leader(&mut self, epoch: Epoch, view: u64, schedule: &Schedule) -> u16 {
        let order = self.order(epoch, schedule);
        order[(view % order.len() as u64) as usize]
    }

    /// True if the maker of a final block leads in its view.
    pub(crate) fn leads(&mut self, block: &Block, schedule: &Schedule) -> bool {
        block.proposer.0 == self.leader(block.epoch, block.view.0, schedule)
    }

    /// Counts the turns between the block counted last and the next one. At a cut-off whose validators are named, shares follow.
    pub(crate) fn count(&mut self, block: &Block, schedule: &Schedule) {
        let owners = schedule.owners(block.epoch);
        let after = if self.last.0 == block.epoch.0 { self.last.1 } else { 0 };
        for view in after + 1..=block.view.0 {
            let leader = self.leader(block.epoch, view, schedule);
            let turns = self.turns.entry(owners[usize::from(leader)]).or_default();
            if view == block.view.0 {
                turns.0 += 1;
            } else {
                turns.1 += 1;
            }
        }
        self.last = (block.epoch.0, block.view.0);
        let ending = Epoch(self.shares.len() as u64 - 1);
        if block.height == schedule.cutoff(ending) {
            let owners = schedule.owners(ending.next());
            self.shares.push(owners.iter().map(|owner| (*owner, self.next_share(ending, *owner))).collect());
            self.turns.clear();
        }
    }

    /// Eight turns at the present share and those on record, at least an eighth; a sixteenth more for who missed none.
    fn next_share(&self, ending: Epoch, owner: usize) -> u64 {
        let (led, missed) = self.turns.get(&owner).copied().unwrap_or_default();
        let earned = (8 * self.share(ending, owner) + WHOLE * led) / (8 + led + missed);
        let earned = earned + if missed == 0 { WHOLE / 16 } else { 0 };
        earned.clamp(WHOLE / 8, WHOLE)
    }
}
