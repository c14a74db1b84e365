//! What will happen, ordered by time and then by the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bizra_driver::Batch;
use bytes::Bytes;

/// Something that will happen.
pub(crate) enum Happening {
    Frame { from: usize, to: usize, frame: Bytes },
    Wake { node: usize, incarnation: u64 },
    Release { node: usize },
    Verified { node: usize, incarnation: u64, batch: Batch },
    Restart { node: usize },
    Upgrade { node: usize },
    Reconnect,
    Deafen { node: usize },
    Trouble,
    Payload,
    Mischief { node: usize },
}

struct Entry {
    time: u64,
    sequence: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.sequence) == (other.time, other.sequence)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

/// The queue of everything to come.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, time: u64, happening: Happening) {
        self.sequence += 1;
        self.entries.push(Reverse(Entry { time, sequence: self.sequence, happening }));
    }

    /// The next event and its time, if it is due by `end`.
    pub(crate) fn pop(&mut self, end: u64) -> Option<(u64, Happening)> {
        self.entries.peek().filter(|Reverse(entry)| entry.time <= end)?;
        self.entries.pop().map(|Reverse(entry)| (entry.time, entry.happening))
    }
}
