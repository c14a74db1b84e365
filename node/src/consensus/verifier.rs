//! Checks the transactions of other validators' batches on a thread of its own, many signatures at once (D5). The origin's
//! signature is the driver's to check: a digest is remembered as invalid only if its origin vouched for it.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bizra_driver::{Batch, Input};

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
        // Unbounded, but fed only by the driver, which caps unordered bytes by origin.
        let (sender, receiver) = mpsc::channel::<Batch>();
        let thread = std::thread::Builder::new().name("verifier".to_owned()).spawn(move || {
            let mut verifier = PayloadVerifier::new(chain);
            while let Ok(first) = receiver.recv() {
                let batches = gather(first, &receiver);
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

/// The first batch and what can be checked with it.
fn gather(first: Batch, receiver: &mpsc::Receiver<Batch>) -> Vec<Batch> {
    let deadline = Instant::now() + GATHER_TIME;
    let mut bytes = first.payload.len();
    let mut batches = vec![first];
    while bytes < BYTES_AT_ONCE {
        let waits = (BUSY_BYTES..ENOUGH_BYTES).contains(&bytes);
        let patience = if waits { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        let Ok(next) = receiver.recv_timeout(patience) else { break };
        bytes += next.payload.len();
        batches.push(next);
    }
    batches
}
