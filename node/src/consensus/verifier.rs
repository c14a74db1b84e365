//! Checks the transactions of other validators' batches on a thread of its own, many signatures at once (D5). The origin's
//! signature is the driver's to check: a digest is remembered as invalid only if its origin vouched for it.
//!
//! Origins take turns, batch by batch: one that floods waits behind itself, and delays another's batch by one round.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bizra_driver::{Batch, Input};
use bizra_simplex::types::{Epoch, ValidatorIndex};

use crate::transaction::{ChainId, PayloadVerifier};

/// Payload bytes checked in one go; enough for the largest batches, small enough to answer soon.
const BYTES_AT_ONCE: usize = 1 << 20;

/// From this size on, some 16 transactions, a batch shows that there is load, and the next ones are waited for: checked
/// together they are cheaper.
const BUSY_BYTES: usize = 4 << 10;

/// What is checked without waiting for more, some 256 transactions: more at once is hardly cheaper.
const ENOUGH_BYTES: usize = 64 << 10;

/// How long the first batch waits for others.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// Hands batches to the thread. The thread ends when this is dropped.
pub(super) struct Verifier {
    sender: mpsc::Sender<Batch>,
}

impl Verifier {
    /// Starts the thread; answers go to `answers`.
    pub(super) fn start(
        chain: ChainId,
        answers: tokio::sync::mpsc::UnboundedSender<Input>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        // Unbounded, but fed only by the driver, which caps the bytes of an origin that are being checked or unordered.
        let (sender, receiver) = mpsc::channel::<Batch>();
        let thread = std::thread::Builder::new().name("verifier".to_owned()).spawn(move || {
            let mut verifier = PayloadVerifier::new(chain);
            let mut waiting = Waiting::default();
            while let Some(batches) = gather(&mut waiting, &receiver) {
                let payloads: Vec<_> = batches.iter().map(|batch| batch.payload.clone()).collect();
                let verdicts = verifier.verify(&payloads);
                for (batch, verdict) in batches.into_iter().zip(verdicts) {
                    let valid = verdict.is_ok();
                    if let Err(error) = verdict {
                        tracing::warn!(origin = %batch.origin, reason = error.reason(), %error, "invalid batch");
                    }
                    if answers.send(Input::BatchVerified(batch, valid)).is_err() {
                        return;
                    }
                }
            }
        })?;
        Ok((Self { sender }, thread))
    }

    /// Queues a batch; false if the thread is gone.
    pub(super) fn check(&self, batch: Batch) -> bool {
        self.sender.send(batch).is_ok()
    }
}

/// What is to be checked next, as soon as there is something; none when the driver is gone.
fn gather(waiting: &mut Waiting, receiver: &mpsc::Receiver<Batch>) -> Option<Vec<Batch>> {
    if waiting.is_empty() {
        waiting.add(receiver.recv().ok()?);
    }
    let deadline = Instant::now() + GATHER_TIME;
    let (mut bytes, mut batches) = (0, Vec::new());
    loop {
        for batch in receiver.try_iter() {
            waiting.add(batch);
        }
        while bytes < BYTES_AT_ONCE
            && let Some(batch) = waiting.take()
        {
            bytes += batch.payload.len();
            batches.push(batch);
        }
        if !(BUSY_BYTES..ENOUGH_BYTES).contains(&bytes) {
            return Some(batches);
        }
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(batch) => waiting.add(batch),
            Err(_) => return Some(batches),
        }
    }
}

type Origin = (Epoch, ValidatorIndex);

/// Batches by origin; the origin whose turn it is comes first.
#[derive(Default)]
struct Waiting(VecDeque<(Origin, VecDeque<Batch>)>);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, batch: Batch) {
        let origin = (batch.epoch, batch.origin);
        match self.0.iter_mut().find(|(known, _)| *known == origin) {
            Some((_, batches)) => batches.push_back(batch),
            None => self.0.push_back((origin, VecDeque::from([batch]))),
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let (origin, mut batches) = self.0.pop_front()?;
        let batch = batches.pop_front();
        if !batches.is_empty() {
            self.0.push_back((origin, batches));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_simplex::types::Signature;
    use bytes::Bytes;

    use super::*;

    fn batch(origin: u16, sequence: u64, bytes: usize) -> Batch {
        let payload = Bytes::from(vec![0; bytes]);
        Batch { epoch: Epoch(0), origin: ValidatorIndex(origin), sequence, payload, signature: Signature([0; 64]) }
    }

    #[test]
    fn origins_take_turns_whatever_one_of_them_has_sent() {
        let (sender, receiver) = mpsc::channel();
        for sequence in 0..100 {
            sender.send(batch(0, sequence, BYTES_AT_ONCE / 2)).unwrap();
        }
        for origin in 1..4 {
            (0..2).for_each(|sequence| sender.send(batch(origin, sequence, 1_000)).unwrap());
        }
        let mut waiting = Waiting::default();
        let checked: Vec<Vec<(u16, u64)>> = (0..3)
            .map(|_| gather(&mut waiting, &receiver).unwrap())
            .map(|batches| batches.into_iter().map(|batch| (batch.origin.0, batch.sequence)).collect())
            .collect();
        assert_eq!(checked[0], [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]);
        assert_eq!(checked[1], [(1, 1), (2, 1), (3, 1), (0, 2), (0, 3)]);
        assert_eq!(checked[2], [(0, 4), (0, 5)]);
    }

    #[test]
    fn what_waits_is_checked_before_the_thread_ends() {
        let (sender, receiver) = mpsc::channel();
        (0..3).for_each(|sequence| sender.send(batch(0, sequence, BYTES_AT_ONCE)).unwrap());
        drop(sender);
        let mut waiting = Waiting::default();
        (0..3).for_each(|_| assert_eq!(gather(&mut waiting, &receiver).unwrap().len(), 1));
        assert!(gather(&mut waiting, &receiver).is_none());
    }
}
