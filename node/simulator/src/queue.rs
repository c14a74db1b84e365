//! What will happen, ordered by time and then by the order in which it was planned.

use std::collections::{BTreeMap, VecDeque};

use bizra_driver::Batch;
use bytes::Bytes;

/// Something that will happen.
pub(crate) enum Happening {
    Frame { from: usize, to: usize, frame: Bytes },
    Wake { node: usize, incarnation: u64 },
    Release { node: usize },
    Verified { node: usize, incarnation: u64, batch: Batch },
    Restart { node: usize },
    PowerLoss { node: usize },
    Kill { node: usize },
    Upgrade { node: usize },
    Reconnect,
    Deafen { node: usize },
    OldVolume { node: usize },
    Trouble,
    Payload,
    Order,
    Mischief { node: usize },
}

/// Milliseconds ahead that have a place of their own; nearly everything is planned within them.
const NEAR: u64 = 2_048;

/// The queue of everything to come: a ring of milliseconds, and an ordered map for what lies beyond it.
pub(crate) struct Queue {
    near: Vec<VecDeque<Happening>>,
    far: BTreeMap<u64, VecDeque<Happening>>,
    /// Everything before has happened; the ring begins here.
    now: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { near: (0..NEAR).map(|_| VecDeque::new()).collect(), far: BTreeMap::new(), now: 0 }
    }
}

impl Queue {
    /// Plans something; what is over counts as now.
    pub(crate) fn push(&mut self, time: u64, happening: Happening) {
        let time = time.max(self.now);
        if time < self.now + NEAR {
            self.near[(time % NEAR) as usize].push_back(happening);
        } else {
            self.far.entry(time).or_default().push_back(happening);
        }
    }

    /// The next event and its time, if it is due by `end`.
    pub(crate) fn pop(&mut self, end: u64) -> Option<(u64, Happening)> {
        loop {
            if let Some(happening) = self.near[(self.now % NEAR) as usize].pop_front() {
                return Some((self.now, happening));
            }
            if self.now >= end {
                return None;
            }
            // Nobody has planned for this millisecond since it came near: what was planned before comes first.
            if let Some(entry) = self.far.first_entry().filter(|entry| *entry.key() == self.now + NEAR) {
                self.near[(self.now % NEAR) as usize] = entry.remove();
            }
            self.now += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_planning() {
        let mut queue = Queue::default();
        let times = [5, 3, NEAR * 3, 5, NEAR, 3, NEAR * 3, 0];
        for (node, time) in times.into_iter().enumerate() {
            queue.push(time, Happening::Restart { node });
        }
        let mut order = Vec::new();
        for end in [2, 5, NEAR * 2, NEAR * 4] {
            while let Some((time, Happening::Restart { node })) = queue.pop(end) {
                assert!(time <= end);
                // Planned late, for the same moment: comes last.
                if node == 4 {
                    queue.push(NEAR * 3, Happening::Restart { node: 9 });
                }
                order.push((time, node));
            }
        }
        let expected = [(0, 7), (3, 1), (3, 5), (5, 0), (5, 3), (NEAR, 4), (NEAR * 3, 2), (NEAR * 3, 6), (NEAR * 3, 9)];
        assert_eq!(order, expected);
    }
}
