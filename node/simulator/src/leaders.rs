//! Who leads, as the oracle counts it (T2): its own rotation, its own count of turns, its own shares. It shares no code with
//! the core.

use std::collections::BTreeMap;

use bizra_simplex::Block;
use bizra_simplex::types::Epoch;

use crate::schedule::Schedule;

/// All of a validator's power counts, in 1/1024.
const WHOLE: u64 = 1024;

/// What the finalised chain tells of its leaders.
pub(crate) struct Leaders {
    /// Share of its power with which each node takes turns, in 1/1024, by epoch. Who is not named has all of it.
    shares: Vec<BTreeMap<usize, u64>>,
    /// Turns since the last cut-off: with a block, without.
    turns: BTreeMap<usize, (u64, u64)>,
    /// The epoch of the last block, the nodes that lead in it in turn, and the last block's view.
    epoch: Epoch,
    order: Vec<usize>,
    view: u64,
}

impl Leaders {
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let (shares, turns) = (vec![BTreeMap::new()], BTreeMap::new());
        let mut leaders = Self { shares, turns, epoch: Epoch(0), order: Vec::new(), view: 0 };
        leaders.begin(Epoch(0), schedule);
        leaders
    }

    /// The share of a node in an epoch.
    pub(crate) fn share(&self, epoch: Epoch, node: usize) -> u64 {
        self.shares.get(epoch.0 as usize).and_then(|shares| shares.get(&node)).copied().unwrap_or(WHOLE)
    }

    /// The leaders of an epoch: each collects its weight in every view; who has most leads, and pays what all collected.
    fn begin(&mut self, epoch: Epoch, schedule: &Schedule) {
        let members = schedule.of(epoch);
        let mut weights: Vec<u64> = members.iter().map(|(node, power)| power * self.share(epoch, *node)).collect();
        let total: u64 = weights.iter().sum();
        let common = (1..=total).rev().find(|by| weights.iter().all(|weight| weight % by == 0)).unwrap_or(1);
        for weight in &mut weights {
            *weight = if total / common <= 1024 { *weight / common } else { (*weight * 1024 / total).max(1) };
        }
        let all: u64 = weights.iter().sum();
        let mut purses = vec![0_i64; weights.len()];
        self.order.clear();
        for _ in 0..all {
            for (purse, weight) in purses.iter_mut().zip(&weights) {
                *purse += weight.cast_signed();
            }
            let most = purses.iter().max().copied().unwrap_or_default();
            let richest = purses.iter().position(|purse| *purse == most).unwrap_or_default();
            purses[richest] -= all.cast_signed();
            self.order.push(members[richest].0);
        }
        (self.epoch, self.view) = (epoch, 0);
    }

    fn leader(&self, view: u64) -> usize {
        self.order[(view % self.order.len() as u64) as usize]
    }

    /// Takes the next final block. False if its maker did not lead in its view, or the view is none above its parent's.
    pub(crate) fn take(&mut self, block: &Block, schedule: &Schedule) -> bool {
        if block.epoch != self.epoch {
            self.begin(block.epoch, schedule);
        }
        let leader = self.leader(block.view.0);
        let sound = block.view.0 > self.view && schedule.node(block.epoch, block.proposer.0) == Some(leader);
        for view in self.view + 1..block.view.0 {
            let idle = self.leader(view);
            self.turns.entry(idle).or_default().1 += 1;
        }
        self.turns.entry(leader).or_default().0 += 1;
        self.view = block.view.0;
        let ending = Epoch(self.shares.len() as u64 - 1);
        if block.height == schedule.cutoff(ending) {
            let next = schedule.of(ending.next()).iter().map(|(node, _)| (*node, self.next_share(ending, *node)));
            self.shares.push(next.collect());
            self.turns.clear();
        }
        sound
    }

    /// Eight turns at the present share and those on record, at least an eighth; a sixteenth more for who missed none.
    fn next_share(&self, ending: Epoch, node: usize) -> u64 {
        let (led, missed) = self.turns.get(&node).copied().unwrap_or_default();
        let earned = (8 * self.share(ending, node) + WHOLE * led) / (8 + led + missed);
        let earned = earned + if missed == 0 { WHOLE / 16 } else { 0 };
        earned.clamp(WHOLE / 8, WHOLE)
    }
}
