//! One stream to one node: sends what is due, and takes the time of every receipt.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::submit_event::Event;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::plan::Scheduled;
use crate::transaction::TransactionId;

/// What is due is sent together this often.
const TICK: Duration = Duration::from_millis(5);
/// Most transactions in one message, the node's own limit.
const MESSAGE_TRANSACTIONS_MAX: usize = 1_024;
/// Messages under way before sending waits; what waits stays on its schedule and shows in the figures.
const MESSAGES_UNDER_WAY_MAX: usize = 64;

/// Longer times are counted as this, one hour.
const LATENCY_MAX_MICROSECONDS: u64 = 3_600_000_000;

/// What came of one stream.
pub(super) struct Outcome {
    /// Transactions that were scheduled.
    pub(super) offered: u64,
    /// Transactions that were handed to the connection.
    pub(super) sent: u64,
    pub(super) admitted: u64,
    pub(super) rejected: BTreeMap<String, u64>,
    pub(super) applied: u64,
    pub(super) failed: BTreeMap<String, u64>,
    /// Microseconds from the scheduled submit to the notice of finality.
    pub(super) latency: Histogram<u64>,
    pub(super) last_receipt: Option<Instant>,
    /// What broke the stream, if something did.
    pub(super) error: Option<String>,
}

impl Outcome {
    fn new(offered: u64) -> Self {
        #[allow(clippy::expect_used)]
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROSECONDS, 3)
            .expect("the maximum is above 2 and three significant digits are below 5, as the histogram demands");
        Self {
            offered,
            sent: 0,
            admitted: 0,
            rejected: BTreeMap::new(),
            applied: 0,
            failed: BTreeMap::new(),
            latency,
            last_receipt: None,
            error: None,
        }
    }

    /// Everything that went wrong, for a sentence.
    pub(super) fn complaints(&self) -> String {
        let counted = self.rejected.iter().chain(&self.failed).map(|(reason, count)| format!("{count} {reason}"));
        let all: Vec<_> = counted.chain(self.error.clone()).collect();
        if all.is_empty() { "the others are not finalised yet".to_owned() } else { all.join(", ") }
    }

    fn take(&mut self, event: Event, due: &mut HashMap<[u8; 32], Duration>, start: Instant) {
        match event {
            Event::Admission(admission) if admission.rejection.is_empty() => self.admitted += 1,
            Event::Admission(admission) => {
                if let Ok(id) = <[u8; 32]>::try_from(admission.transaction_id) {
                    due.remove(&id);
                }
                *self.rejected.entry(admission.rejection).or_default() += 1;
            }
            Event::Receipt(receipt) => {
                let now = Instant::now();
                let due = <[u8; 32]>::try_from(receipt.transaction_id).ok().and_then(|id| due.remove(&id));
                if let Some(due) = due {
                    let latency = now.saturating_duration_since(start + due);
                    self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
                    self.last_receipt = Some(now);
                    if receipt.failure.is_empty() {
                        self.applied += 1;
                    } else {
                        *self.failed.entry(receipt.failure).or_default() += 1;
                    }
                }
            }
        }
    }
}

/// Sends the schedule and waits for its receipts, at most `drain` after the last submit.
pub(super) async fn run(
    mut client: LedgerClient<Channel>,
    schedule: Vec<Scheduled>,
    start: Instant,
    drain: Duration,
) -> Outcome {
    let mut outcome = Outcome::new(schedule.len() as u64);
    let mut due: HashMap<[u8; 32], Duration> =
        schedule.iter().map(|scheduled| (TransactionId::of(&scheduled.bytes).0, scheduled.due)).collect();
    let last_due = schedule.last().map_or(Duration::ZERO, |scheduled| scheduled.due);
    let (sender, receiver) = mpsc::channel(MESSAGES_UNDER_WAY_MAX);
    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(send(schedule, start, sender, sent.clone()));
    let events = async {
        let mut events = client.submit_stream(ReceiverStream::new(receiver)).await?.into_inner();
        while !due.is_empty()
            && let Some(event) = events.message().await?
        {
            if let Some(event) = event.event {
                outcome.take(event, &mut due, start);
            }
        }
        Ok::<_, tonic::Status>(())
    };
    match tokio::time::timeout_at(start + last_due + drain, events).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => outcome.error = Some(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => outcome.error = Some(format!("no receipt for {} transactions in time", due.len())),
    }
    sending.abort();
    outcome.sent = sent.load(Ordering::Relaxed);
    outcome
}

/// Sends what is due at every tick, and counts it.
async fn send(schedule: Vec<Scheduled>, start: Instant, sender: mpsc::Sender<v1::SubmitRequest>, sent: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval_at(start, TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut rest = schedule.into_iter().peekable();
    while rest.peek().is_some() {
        ticks.tick().await;
        let now = start.elapsed();
        loop {
            let mut transactions = Vec::new();
            while transactions.len() < MESSAGE_TRANSACTIONS_MAX
                && let Some(scheduled) = rest.next_if(|scheduled| scheduled.due <= now)
            {
                transactions.push(scheduled.bytes);
            }
            if transactions.is_empty() {
                break;
            }
            let count = transactions.len() as u64;
            if sender.send(v1::SubmitRequest { transactions }).await.is_err() {
                return;
            }
            sent.fetch_add(count, Ordering::Relaxed);
        }
    }
}
