//! Checks the transactions of other validators' batches on a thread of its own, many signatures at once (D5). The origin's
//! signature is the driver's to check: a digest is remembered as invalid only if its origin vouched for it.

use std::sync::mpsc;
use std::thread::JoinHandle;

use bizra_driver::{Batch, Input};

use crate::transaction::{ChainId, verify_payloads};

/// Payload bytes checked in one go; enough for the largest batches, small enough to answer soon.
const BYTES_AT_ONCE: usize = 1 << 20;

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
            while let Ok(first) = receiver.recv() {
                let mut bytes = first.payload.len();
                let mut batches = vec![first];
                while bytes < BYTES_AT_ONCE
                    && let Ok(next) = receiver.try_recv()
                {
                    bytes += next.payload.len();
                    batches.push(next);
                }
                let payloads: Vec<_> = batches.iter().map(|batch| batch.payload.clone()).collect();
                let verdicts = verify_payloads(&chain, &payloads);
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
