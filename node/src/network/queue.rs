//! What waits to be sent to one peer in one lane: bounded in bytes, the oldest goes first when it overflows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::CONSENSUS_FRAME_MAX_BYTES;

/// Bound of the consensus lane: minutes of votes. Reached only when the peer is away.
const CONSENSUS_QUEUE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bound of the data lane: some thirty batches. A slow or absent peer costs no more memory than this.
const DATA_QUEUE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What a frame costs beside its bytes, so that empty frames are bounded too.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Which of a peer's two connections a frame takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Consensus,
    Data,
}

impl Lane {
    pub(super) const BOTH: [Self; 2] = [Self::Consensus, Self::Data];

    pub(super) fn of(frame: &Bytes) -> Self {
        if frame.len() > CONSENSUS_FRAME_MAX_BYTES { Self::Data } else { Self::Consensus }
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::BOTH.into_iter().find(|lane| lane.number() == number)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Data => "data",
        }
    }

    fn queue_max_bytes(self) -> usize {
        match self {
            Self::Consensus => CONSENSUS_QUEUE_MAX_BYTES,
            Self::Data => DATA_QUEUE_MAX_BYTES,
        }
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
    pub(super) fn new(lane: Lane) -> Arc<Self> {
        Arc::new(Self { max_bytes: lane.queue_max_bytes(), waiting: Mutex::default(), filled: Notify::new() })
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
        assert_eq!(100_000 - dropped, (CONSENSUS_QUEUE_MAX_BYTES / FRAME_OVERHEAD_BYTES) as u64);
    }
}
