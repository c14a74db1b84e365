//! The admission thread: collects what is submitted for a moment, admits it in one go, packs it into batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::admission::{Admission, Candidate, Checks, Rejection};
use super::events::{EventSink, StreamEvent};
use super::payload::PayloadBuilder;
use super::pending;
use super::pool::{Reply, Request, Shared};
use super::signatures::{SIGNATURES_AT_ONCE_MAX, SignatureChecker};

/// How long submissions are collected after the first. A batch leaves this long after it, plus the time of its checks.
const COLLECT_TIME: Duration = Duration::from_millis(10);

/// How long they are collected when many come: a batch costs every validator a message, a signature check and a record,
/// and the signatures of a larger one are cheaper to check.
const COLLECT_TIME_BUSY: Duration = Duration::from_millis(25);

/// So many transactions within [`COLLECT_TIME`] are many.
const BUSY_TRANSACTIONS: usize = 16;

/// How soon a batch that consensus had no room for is offered again.
const STALLED_RETRY: Duration = Duration::from_millis(5);

/// How often pending transactions are looked through for those to give up.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// A payload of admitted, verified transactions for consensus to sign, disseminate and order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBatch {
    /// Layout as in `Payload`; never empty, never larger than a batch may be.
    pub payload: Bytes,
}

/// See the module.
pub(super) struct Batcher {
    shared: Arc<Shared>,
    outbound: mpsc::Sender<PackedBatch>,
    /// Admitted batches that consensus had no room for. Nothing is admitted while there are any, so there are never
    /// more than one round of submissions makes.
    stalled: VecDeque<PackedBatch>,
    released_at: Instant,
    signatures: SignatureChecker,
}

impl Batcher {
    pub(super) fn new(shared: Arc<Shared>, outbound: mpsc::Sender<PackedBatch>) -> Self {
        let signatures = SignatureChecker::default();
        Self { shared, outbound, stalled: VecDeque::new(), released_at: Instant::now(), signatures }
    }

    /// Runs until every handle of the pool is gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let patience = if self.stalled.is_empty() { RELEASE_INTERVAL } else { STALLED_RETRY };
            let first = match requests.recv_timeout(patience) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.offer_stalled();
            self.release();
            if let Some(first) = first {
                let round = collect(first, requests);
                self.offer_stalled();
                self.admit(round);
            }
        }
    }

    fn admit(&mut self, round: Vec<Request>) {
        if self.outbound.is_closed() {
            return self.refuse(round, &Rejection::Unavailable);
        }
        if !self.stalled.is_empty() || pending::lock(&self.shared.pending).is_full(Instant::now()) {
            return self.refuse(round, &Rejection::Busy);
        }
        let shared = &self.shared;
        let checks = Checks {
            chain: shared.chain,
            finalized_height: shared.finalized_height.load(Ordering::Relaxed),
            ledger: &shared.ledger,
            metrics: &shared.metrics,
        };
        let submissions =
            round.iter().flat_map(|request| request.transactions.iter().map(|bytes| (request.trace, bytes)));
        let (answers, candidates) = checks.run(submissions, &shared.pending, &mut self.signatures);
        let payloads = self.pack(&round, &candidates);
        // First the answers, then the batch: no receipt overtakes the admission of its transaction.
        self.answer(round, answers);
        self.stalled.extend(payloads.into_iter().map(|payload| PackedBatch { payload }));
        self.offer_stalled();
    }

    /// Notes the accepted transactions as pending and packs them, in the order of their submission.
    fn pack(&self, round: &[Request], candidates: &[Candidate<'_>]) -> Vec<Bytes> {
        let mut sinks = round.iter().flat_map(|request| {
            let sink = match &request.reply {
                Reply::Stream(sink) => Some(sink),
                Reply::Once(_) => None,
            };
            std::iter::repeat_n(sink, request.transactions.len())
        });
        let mut next_answer = 0;
        let mut sink_of = |answer: usize| -> Option<EventSink> {
            let sink = sinks.nth(answer - next_answer).flatten().cloned();
            next_answer = answer + 1;
            sink
        };
        let mut builder = PayloadBuilder::default();
        let mut payloads = Vec::new();
        let mut packed: u32 = 0;
        let mut finish = |builder: &mut PayloadBuilder, packed: &mut u32| {
            if let Some(payload) = builder.finish() {
                self.shared.metrics.batch_bytes.observe(payload.len() as f64);
                self.shared.metrics.batch_transactions.observe(f64::from(std::mem::take(packed)));
                payloads.push(payload);
            }
        };
        let mut pending = pending::lock(&self.shared.pending);
        for candidate in candidates {
            let sink = sink_of(candidate.answer);
            pending.insert(candidate.id, candidate.sender, candidate.expiry_height, sink);
            if !builder.fits(candidate.bytes.len()) {
                finish(&mut builder, &mut packed);
            }
            builder.push(candidate.trace, candidate.bytes);
            packed += 1;
        }
        self.shared.metrics.set_pending(pending.len());
        drop(pending);
        finish(&mut builder, &mut packed);
        payloads
    }

    fn answer(&self, round: Vec<Request>, answers: Vec<Admission>) {
        let metrics = &self.shared.metrics;
        for answer in &answers {
            match &answer.result {
                Ok(()) => metrics.admitted.inc(),
                Err(rejection) => metrics.rejected.with_label_values(&[rejection.reason()]).inc(),
            }
        }
        let mut answers = answers.into_iter();
        for request in round {
            let answers = answers.by_ref().take(request.transactions.len()).collect();
            match request.reply {
                // Who hung up needs no answer; the transactions stay admitted.
                Reply::Once(sender) => drop(sender.send(answers)),
                Reply::Stream(sink) => sink.send(StreamEvent::Admissions(answers)),
            }
        }
    }

    fn refuse(&self, round: Vec<Request>, rejection: &Rejection) {
        let all = round.iter().flat_map(|request| &request.transactions);
        let answers = all.map(|bytes| Admission::refuse(bytes, rejection.clone())).collect();
        self.answer(round, answers);
    }

    fn offer_stalled(&mut self) {
        while let Some(batch) = self.stalled.pop_front() {
            match self.outbound.try_send(batch) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(batch)) => return self.stalled.push_front(batch),
                // Consensus has stopped: the node is stopping.
                Err(mpsc::error::TrySendError::Closed(_)) => self.stalled.clear(),
            }
        }
    }

    fn release(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.released_at) < RELEASE_INTERVAL {
            return;
        }
        self.released_at = now;
        let height = self.shared.finalized_height.load(Ordering::Relaxed);
        let mut pending = pending::lock(&self.shared.pending);
        self.shared.metrics.released.inc_by(pending.release(height, now));
        self.shared.metrics.set_pending(pending.len());
    }
}

/// Takes what arrives until the collect time has passed or one check's worth of signatures is there.
fn collect(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let start = Instant::now();
    let mut count = first.transactions.len();
    let mut round = vec![first];
    while count < SIGNATURES_AT_ONCE_MAX {
        let time = if count < BUSY_TRANSACTIONS { COLLECT_TIME } else { COLLECT_TIME_BUSY };
        match requests.recv_timeout(time.saturating_sub(start.elapsed())) {
            Ok(request) => {
                count += request.transactions.len();
                round.push(request);
            }
            Err(_) => break,
        }
    }
    round
}
