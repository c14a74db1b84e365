//! What waits to be sent to one peer in one lane: bounded in bytes, the oldest goes first when it overflows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::CONSENSUS_FRAME_MAX_BYTES;

const KIBIBYTE: usize = 1024;
const MEBIBYTE: usize = 1024 * KIBIBYTE;

/// What a lane may hold and take, for one peer. Sending is bounded in memory; receiving in memory and in speed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Frames that wait to be sent; the oldest goes when there is no room. A slow or absent peer costs no more memory.
    pub(super) queue_max_bytes: usize,
    /// Frames received and not consumed yet: a peer that floods waits for itself only.
    pub(super) unconsumed_max_bytes: usize,
    /// What any received frame costs at least, so that many small ones are bounded too.
    pub(super) frame_cost_min_bytes: usize,
    /// What a peer may send in the long run, far above what an honest one does.
    pub(super) bytes_per_second: u64,
    /// What it may send at once after a rest.
    pub(super) burst_bytes: u64,
}

/// Minutes of votes; 2,000 frames a second where some 300 are usual.
const CONSENSUS_LIMITS: Limits = Limits {
    queue_max_bytes: 4 * MEBIBYTE,
    unconsumed_max_bytes: 4 * MEBIBYTE,
    frame_cost_min_bytes: 4 * KIBIBYTE,
    bytes_per_second: 8 << 20,
    burst_bytes: 8 << 20,
};
/// Some thirty batches; 64 MiB a second, where full load is some 10 from one origin.
const DATA_LIMITS: Limits = Limits {
    queue_max_bytes: 16 * MEBIBYTE,
    unconsumed_max_bytes: 16 * MEBIBYTE,
    frame_cost_min_bytes: 16 * KIBIBYTE,
    bytes_per_second: 64 << 20,
    burst_bytes: 64 << 20,
};
/// What a node that catches up has asked for, at most: the answers to all its open questions.
const SYNC_LIMITS: Limits = Limits { queue_max_bytes: 32 * MEBIBYTE, ..DATA_LIMITS };

/// What a frame costs beside its bytes, so that empty frames are bounded too.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Which of a peer's connections a frame takes: one for each class of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Votes, proposals, certificates, questions.
    Consensus,
    /// New batches.
    Data,
    /// Answers to questions.
    Sync,
}

impl Lane {
    pub(super) const COUNT: usize = 3;
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Consensus, Self::Data, Self::Sync];

    /// The lane of a frame that answers nothing: its length decides.
    pub(super) fn of(frame: &Bytes) -> Self {
        if frame.len() > CONSENSUS_FRAME_MAX_BYTES { Self::Data } else { Self::Consensus }
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Data => "data",
            Self::Sync => "sync",
        }
    }

    pub(super) fn limits(self) -> Limits {
        match self {
            Self::Consensus => CONSENSUS_LIMITS,
            Self::Data => DATA_LIMITS,
            Self::Sync => SYNC_LIMITS,
        }
    }

    /// What a received frame costs its sender.
    pub(super) fn cost_bytes(self, length: usize) -> usize {
        length.max(self.limits().frame_cost_min_bytes)
    }
}

/// A queue with one sender side for any thread and one receiving task.
#[derive(Debug)]
pub(super) struct Queue {
    max_bytes: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(lane: Lane) -> Self {
        Self { max_bytes: lane.limits().queue_max_bytes, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Appends a frame and returns how many older ones had to go for it. Never blocks on anything but a short lock.
    pub(super) fn push(&self, frame: Bytes) -> u64 {
        let mut waiting = self.lock();
        waiting.bytes += cost(&frame);
        waiting.frames.push_back(frame);
        let mut dropped = 0;
        while waiting.bytes > self.max_bytes && waiting.frames.len() > 1 {
            if let Some(oldest) = waiting.frames.pop_front() {
                waiting.bytes -= cost(&oldest);
                dropped += 1;
            }
        }
        drop(waiting);
        self.filled.notify_one();
        dropped
    }

    /// The next frame, as soon as there is one. Loses nothing when the future is dropped.
    pub(super) async fn next(&self) -> Bytes {
        loop {
            if let Some(frame) = self.pop() {
                return frame;
            }
            self.filled.notified().await;
        }
    }

    fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let frame = waiting.frames.pop_front()?;
        waiting.bytes -= cost(&frame);
        Some(frame)
    }

    /// The state is two fields changed together without a panic between, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frames_length_decides_its_lane() {
        assert_eq!(Lane::of(&Bytes::from(vec![0; CONSENSUS_FRAME_MAX_BYTES])), Lane::Consensus);
        assert_eq!(Lane::of(&Bytes::from(vec![0; CONSENSUS_FRAME_MAX_BYTES + 1])), Lane::Data);
    }

    #[tokio::test]
    async fn frames_come_out_in_order_and_the_oldest_go_on_overflow() {
        let queue = Queue::new(Lane::Data);
        let mebibyte = |number: u8| Bytes::from(vec![number; 1024 * 1024]);
        let dropped: u64 = (0..20).map(|number| queue.push(mebibyte(number))).sum();
        assert_eq!(dropped, 5, "15 frames with their overhead fit 16 MiB");
        for number in 5..20 {
            assert_eq!(queue.next().await, mebibyte(number));
        }
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn empty_frames_are_bounded_too() {
        let queue = Queue::new(Lane::Consensus);
        let dropped: u64 = (0..100_000).map(|_| queue.push(Bytes::new())).sum();
        assert_eq!(100_000 - dropped, (CONSENSUS_LIMITS.queue_max_bytes / FRAME_OVERHEAD_BYTES) as u64);
    }
}
