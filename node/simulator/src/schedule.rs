//! Who validates in which epoch. The real ledger computes the next validators from its state; here a seed plans them.

use std::sync::Arc;

use bizra_driver::{Member, PublicKey};
use bizra_simplex::types::{Epoch, Height, Power};
use bizra_simplex::{Protocol, Reputation};

use crate::random::Random;

/// Epochs planned; those after the last have its validators.
const EPOCHS_PLANNED: usize = 24;

/// Validators of each epoch, as (node, power), by ascending node.
#[derive(Clone, Debug)]
pub struct Schedule {
    blocks: Option<u64>,
    epochs: Arc<Vec<Vec<(usize, u64)>>>,
    first: Protocol,
}

/// The public key of a node.
pub fn key_of(node: usize) -> PublicKey {
    PublicKey([node as u8; 32])
}

impl Schedule {
    /// The same validators for ever: nodes 0, 1, … with these powers.
    pub fn fixed(powers: &[u64]) -> Self {
        let epochs = Arc::new(vec![powers.iter().copied().enumerate().collect()]);
        Self { blocks: None, epochs, first: Protocol::LATEST }
    }

    /// The same validators for ever, `blocks` from one cut-off height to the next.
    pub fn repeated(blocks: u64, powers: &[u64]) -> Self {
        Self { blocks: Some(blocks), ..Self::fixed(powers) }
    }

    /// Validators that come, go and change their power (E3, E4), `blocks` from one cut-off height to the next. Byzantine
    /// nodes stay below a third of the power.
    pub fn changing(random: &mut Random, blocks: u64, powers: &[u64], nodes: usize, byzantine: &[usize]) -> Self {
        let mut epochs: Vec<Vec<(usize, u64)>> = vec![powers.iter().copied().enumerate().collect()];
        while epochs.len() < EPOCHS_PLANNED {
            let present = epochs.last().cloned().unwrap_or_default();
            let mut next = present.clone();
            match random.below(4) {
                0 if next.len() > 4 => drop(next.remove(random.index(next.len()))),
                1 => {
                    let outside: Vec<usize> =
                        (0..nodes).filter(|node| present.iter().all(|(member, _)| member != node)).collect();
                    if !outside.is_empty() {
                        next.push((random.pick(&outside), random.between(5, 12)));
                        next.sort_unstable();
                    }
                }
                2 => {
                    let position = random.index(next.len());
                    next[position].1 = random.between(5, 15);
                }
                _ => {}
            }
            epochs.push(if allowed(&present, &next, byzantine) { next } else { present });
        }
        Self { blocks: Some(blocks), epochs: Arc::new(epochs), first: Protocol::LATEST }
    }

    /// The same, beginning with this version of the protocol.
    #[must_use]
    pub fn beginning_with(self, first: Protocol) -> Self {
        Self { first, ..self }
    }

    /// The version of the first epoch.
    pub fn first(&self) -> Protocol {
        self.first
    }

    /// Blocks from one cut-off height to the next.
    pub fn blocks(&self) -> Option<u64> {
        self.blocks
    }

    /// The height whose execution ends an epoch.
    pub fn cutoff(&self, epoch: Epoch) -> Height {
        Height(self.blocks.map_or(u64::MAX, |blocks| blocks * (epoch.0 + 1)))
    }

    /// Validators of an epoch, as (node, power); the position is the index.
    pub fn of(&self, epoch: Epoch) -> &[(usize, u64)] {
        let last = self.epochs.len() - 1;
        &self.epochs[last.min(usize::try_from(epoch.0).unwrap_or(last))]
    }

    /// The same as the driver wants it, with the reputation of each node.
    pub fn members(&self, epoch: Epoch, reputation: impl Fn(usize) -> Reputation) -> Vec<Member> {
        let member = |(node, power): &(usize, u64)| Member {
            key: key_of(*node),
            power: Power(*power),
            reputation: reputation(*node),
        };
        self.of(epoch).iter().map(member).collect()
    }

    /// The node behind an index.
    pub fn node(&self, epoch: Epoch, index: u16) -> Option<usize> {
        self.of(epoch).get(usize::from(index)).map(|(node, _)| *node)
    }

    /// The index of a node.
    pub fn index(&self, epoch: Epoch, node: usize) -> Option<u16> {
        self.of(epoch).iter().position(|(member, _)| *member == node).map(|position| position as u16)
    }

    /// True if the node validates in some epoch.
    pub fn ever(&self, node: usize) -> bool {
        self.epochs.iter().flatten().any(|(member, _)| *member == node)
    }
}

/// E3, E4, and the assumption about Byzantine power.
fn allowed(present: &[(usize, u64)], next: &[(usize, u64)], byzantine: &[usize]) -> bool {
    let total = |set: &[(usize, u64)]| set.iter().map(|(_, power)| power).sum::<u64>();
    let power = |set: &[(usize, u64)], node: usize| set.iter().find(|(member, _)| *member == node).map_or(0, |m| m.1);
    let nodes = present.iter().chain(next).map(|(node, _)| *node).collect::<std::collections::BTreeSet<_>>();
    let changed: u64 = nodes.iter().map(|node| power(present, *node).abs_diff(power(next, *node))).sum();
    let bad: u64 = byzantine.iter().map(|node| power(next, *node)).sum();
    let largest = next.iter().map(|(_, power)| *power).max().unwrap_or_default();
    let below_a_third = |part: u64, whole: u64| 3 * part < whole;
    below_a_third(changed, total(present).min(total(next)))
        && below_a_third(bad, total(next))
        && below_a_third(largest, total(next))
}
