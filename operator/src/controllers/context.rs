//! What all reconciliations share.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;

use super::bizra_node::heal::HealingLimits;
use crate::{
    api::ImageSpec,
    kubernetes::{Announcer, Write, WriteError, WriteOutcome, execute},
    metrics::Metrics,
    probe::Probes,
};

/// Settings of the controllers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator; certificate authorities are kept there.
    pub operator_namespace: String,
    /// Image of nodes that name none.
    pub default_image: ImageSpec,
    /// Time after which polled numbers are written even if nothing else changed.
    pub status_interval: Duration,
    /// Namespaces to watch; empty for all.
    pub namespaces: Vec<String>,
    /// Most reconciliations of a kind at the same time.
    pub concurrency: u16,
    /// How long to wait before something is done about a node.
    pub healing: HealingLimits,
}

/// What all reconciliations share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Settings.
    pub settings: Settings,
    /// Publishes events.
    pub announcer: Announcer,
    /// What nodes say.
    pub probes: Arc<Probes>,
    /// Metrics.
    pub metrics: Metrics,
    books: Mutex<BTreeMap<String, Book>>,
}

/// What is remembered of an object between reconciliations. Losing it costs a write or a shorter wait.
#[derive(Default)]
struct Book {
    failures: u32,
    reported_at: Option<Instant>,
}

/// First and longest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(2);

impl Context {
    /// A context with nothing remembered.
    pub fn new(
        client: Client,
        settings: Settings,
        announcer: Announcer,
        probes: Arc<Probes>,
        metrics: Metrics,
    ) -> Self {
        Self { client, settings, announcer, probes, metrics, books: Mutex::default() }
    }

    fn book<T>(&self, uid: &str, use_it: impl FnOnce(&mut Book) -> T) -> T {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(books.entry(uid.to_owned()).or_default())
    }

    /// Forgets an object.
    pub fn forget(&self, uid: &str) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// How long to wait after another failure of this object: exponential, with jitter.
    pub fn wait_after_failure(&self, uid: &str) -> Duration {
        let failures = self.book(uid, |book| {
            book.failures = book.failures.saturating_add(1);
            book.failures
        });
        let wait = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT);
        jittered(wait, uid)
    }

    /// The object is fine again.
    pub fn succeeded(&self, uid: &str) {
        self.book(uid, |book| book.failures = 0);
    }

    /// True if polled numbers may be written although nothing else changed.
    pub fn numbers_are_due(&self, uid: &str) -> bool {
        let interval = self.settings.status_interval;
        // A new operator waits its turn, too: its start is no news.
        self.book(uid, |book| book.reported_at.get_or_insert_with(Instant::now).elapsed() >= interval)
    }

    /// The status has been written.
    pub fn reported(&self, uid: &str) {
        self.book(uid, |book| book.reported_at = Some(Instant::now()));
    }

    /// Executes one write and counts it.
    pub async fn write(&self, write: &Write) -> Result<WriteOutcome, WriteError> {
        let result = execute(&self.client, write).await;
        let label = match &result {
            Ok(WriteOutcome::Written) => "written",
            Ok(WriteOutcome::Superseded) => "superseded",
            Ok(WriteOutcome::Refused) => "refused",
            Err(_) => "failed",
        };
        self.metrics.writes.with_label_values(&[write.verb(), label]).inc();
        tracing::info!(write = %write.describe(), result = label, "write");
        result
    }
}

/// Spreads waits by up to a fifth, so that many objects do not come back at once.
pub(super) fn jittered(wait: Duration, uid: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    wait + wait / 5 * u32::try_from(hasher.finish() % 100).unwrap_or(0) / 100
}
