//! Figures: a table for people, JSON for machines.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control::Arm;
use crate::cuts::Cuts;
use crate::flips::Flips;
use crate::kills::Kills;
use crate::oracle::{Checked, Settled};

/// Times from a restart to the first new vote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovery(Vec<Duration>);

impl Recovery {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time within which so many of a hundred were back, milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> u128 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let position = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(position).map_or(0, Duration::as_millis)
    }

    fn json(&self) -> Value {
        let at = |percent| self.percentile(percent) as u64;
        json!({ "count": self.0.len(), "p50Milliseconds": at(50), "p99Milliseconds": at(99), "maxMilliseconds": at(100) })
    }

    fn text(&self) -> String {
        let at = |percent| self.percentile(percent);
        format!("voting again after p50 {} ms, p99 {} ms, at most {} ms", at(50), at(99), at(100))
    }
}

impl Checked {
    fn json(self) -> Value {
        let Self { votes, receipts, blocks, receipts_behind, blocks_behind } = self;
        json!({
            "votes": votes, "receipts": receipts, "blocks": blocks,
            "receiptsBehindOnOwnDisk": receipts_behind, "blocksBehindOnOwnDisk": blocks_behind,
        })
    }
}

impl Settled {
    fn json(self) -> Value {
        let Self { height, receipts, blocks, votes } = self;
        json!({ "height": height, "receipts": receipts, "announcedBlocks": blocks, "votes": votes })
    }
}

impl Kills {
    pub(crate) fn print(&self) {
        println!(
            "kills         {} in {} strikes, {} of them all four validators",
            self.count, self.strikes, self.total
        );
        println!("              {}", self.recovery.text());
        print_checked(self.checked, self.settled);
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kills": self.count, "strikes": self.strikes, "allAtOnce": self.total, "resubmitted": self.resubmitted,
            "votingAgain": self.recovery.json(), "checked": self.checked.json(), "settled": self.settled.json(),
        })
    }
}

impl Cuts {
    pub(crate) fn print(&self) {
        println!(
            "cuts on {:<5} {}, {} times all four validators at once",
            self.file_system.name(),
            self.count,
            self.total
        );
        println!("              {}", self.recovery.text());
        print_checked(self.checked, self.settled);
        let Checked { receipts_behind, blocks_behind, .. } = self.checked;
        println!(
            "              own disk behind what was said: {receipts_behind} receipts, {blocks_behind} blocks; all came back"
        );
        for arm in Arm::ALL {
            let (trials, lost, none, most) = self.arm(arm);
            let name = arm.name();
            println!(
                "              record by {name}: {lost} of {trials} cuts lost acknowledged numbers, up to {most}; {none} left no record"
            );
        }
    }

    pub(crate) fn json(&self) -> Value {
        let arm = |arm| {
            let (trials, lost, none, most) = self.arm(arm);
            json!({ "cuts": trials, "cutsThatLost": lost, "noRecordLeft": none, "mostLost": most })
        };
        json!({
            "fileSystem": self.file_system.name(), "cuts": self.count, "allAtOnce": self.total,
            "votingAgain": self.recovery.json(), "checked": self.checked.json(), "settled": self.settled.json(),
            "recordBySlots": arm(Arm::Slots), "recordByRename": arm(Arm::Rename),
        })
    }
}

impl Flips {
    pub(crate) fn print(&self) {
        println!(
            "flips         {:<14} {:>6} {:>9} {:>12} {:>9} {:>13} {:>7}",
            "file", "flips", "refused", "when read", "same", "rolled back", "silent"
        );
        for (kind, count) in &self.kinds {
            println!(
                "              {:<14} {:>6} {:>9} {:>12} {:>9} {:>13} {:>7}",
                kind.name(),
                count.total(),
                count.refused,
                count.late,
                count.same,
                count.rolled_back,
                count.silent
            );
        }
    }

    pub(crate) fn json(&self) -> Value {
        let kind = |(kind, count): (&crate::flips::Kind, &crate::flips::Count)| {
            json!({
                "file": kind.name(), "flips": count.total(), "refused": count.refused, "refusedWhenRead": count.late, "same": count.same,
                "rolledBack": count.rolled_back, "silent": count.silent,
            })
        };
        json!(self.kinds.iter().map(kind).collect::<Vec<_>>())
    }
}

fn print_checked(checked: Checked, settled: Settled) {
    let Checked { votes, receipts, blocks, .. } = checked;
    println!("              on the dead: {votes} votes, {receipts} receipts, {blocks} announced blocks looked for");
    let Settled { height, receipts, blocks, votes } = settled;
    println!(
        "              at the end, height {height}: {receipts} receipts, {blocks} announced blocks on all four; {votes} votes"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut recovery = Recovery::default();
        assert_eq!(recovery.percentile(99), 0);
        (1..=100).rev().for_each(|millisecond| recovery.add(Duration::from_millis(millisecond)));
        assert_eq!([50, 99, 100].map(|percent| recovery.percentile(percent)), [50, 99, 100]);
    }
}
