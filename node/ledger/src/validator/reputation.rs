//! Who had a turn to lead since the last cut-off, and what follows for the next epoch (PROTOCOL T2).
//!
//! Every block names the view it is first proposed in, so the leaders of the views between it and its parent had a turn that
//! came to nothing, and its own maker had one that did. The state keeps both counts of every owner, with the epoch and view
//! of the last block; at a cut-off they become the reputations of the next set, and begin anew. They follow the owner, not
//! its key: a new key is no new start. Who leaves the set leaves its reputation behind, and an epoch without turns.

use std::collections::BTreeMap;

use bizra_simplex::types::View;
use bizra_simplex::{Block, Reputation, Turns, ValidatorSet};

use super::entry::{Domain, Entries, EntryKey};
use super::record::Member;
use super::registry::Registry;
use crate::stored::{Fields, StorageError};
use bizra_transaction::Address;

/// What a validator's turns have led to, as of the cut-off that named its set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// How much of its power counts when the epoch's turns are given out.
    pub reputation: Reputation,
    /// Turns from the cut-off before to this one, on which it rests.
    pub turns: Turns,
}

/// Turns since the last cut-off, in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct TurnBook {
    turns: BTreeMap<Address, Turns>,
    /// Epoch and view of the block executed last.
    last: (u64, u64),
    /// Who leads in an epoch: that of the block executed last.
    leaders: Option<(u64, ValidatorSet)>,
}

fn corrupt(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} of the validator registry does not decode"))
}

/// Two numbers, big-endian.
fn encode((first, second): (u64, u64)) -> Vec<u8> {
    [first.to_be_bytes(), second.to_be_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut fields = Fields(bytes);
    let both = (fields.u64()?, fields.u64()?);
    fields.end().map(|()| both)
}

/// Reads the turns of an owner since the last cut-off, as stored.
pub fn decode_turns(bytes: &[u8]) -> Result<Turns, StorageError> {
    let (led, missed) = decode(bytes).ok_or_else(|| corrupt("a count of turns"))?;
    Ok(Turns { led, missed })
}

impl TurnBook {
    /// Takes a stored entry of [`Domain::Turns`].
    pub(super) fn load_turns(&mut self, owner: Address, value: &[u8]) -> Result<(), StorageError> {
        self.turns.insert(owner, decode_turns(value)?);
        Ok(())
    }

    /// Takes the stored entry of [`Domain::LastView`].
    pub(super) fn load_last(&mut self, value: &[u8]) -> Result<(), StorageError> {
        self.last = decode(value).ok_or_else(|| corrupt("the last view"))?;
        Ok(())
    }

    fn count(
        &mut self,
        owner: Address,
        (led, missed): (u64, u64),
        entries: &mut impl Entries,
    ) -> Result<(), StorageError> {
        let turns = self.turns.entry(owner).or_default();
        turns.led = turns.led.saturating_add(led);
        turns.missed = turns.missed.saturating_add(missed);
        entries.set(EntryKey::of(Domain::Turns, owner), Some(encode((turns.led, turns.missed))))
    }
}

impl Registry {
    /// Counts the turns since the block executed last.
    pub fn note_turns(&mut self, block: &Block, entries: &mut impl Entries) -> Result<(), StorageError> {
        let (epoch, view) = (block.epoch.0, block.view);
        // Where nobody validates nobody leads: ledgers for tests.
        let Some(set) = self.set(epoch).filter(|set| !set.members.is_empty()).cloned() else { return Ok(()) };
        let book = &mut self.turn_book;
        let leaders = match book.leaders.take() {
            Some((of, leaders)) if of == epoch => leaders,
            _ => set.validator_set()?,
        };
        let after = if book.last.0 == epoch { View(book.last.1) } else { View(0) };
        for (member, missed) in set.members.iter().zip(leaders.turns_between(after, view)) {
            if missed > 0 {
                book.count(member.owner, (0, missed), entries)?;
            }
        }
        if let Some(maker) = set.members.get(usize::from(block.proposer.0)) {
            book.count(maker.owner, (1, 0), entries)?;
        }
        book.last = (epoch, view.0);
        book.leaders = Some((epoch, leaders));
        entries.set(EntryKey::single(Domain::LastView), Some(encode(book.last)))
    }

    /// At a cut-off: the reputations of the next set, from those of the present one and the turns since the cut-off before.
    pub(super) fn judge_turns(
        &mut self,
        members: &mut [Member],
        entries: &mut impl Entries,
    ) -> Result<(), StorageError> {
        let counted = std::mem::take(&mut self.turn_book.turns);
        for member in members {
            let turns = counted.get(&member.owner).copied().unwrap_or_default();
            member.conduct = Conduct { reputation: member.conduct.reputation.after(turns), turns };
        }
        counted.into_keys().try_for_each(|owner| entries.set(EntryKey::of(Domain::Turns, owner), None))
    }
}
