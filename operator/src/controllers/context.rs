//! What all reconciliations share.

use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{Api, Client, ResourceExt as _, api::PostParams};
use serde::Serialize;

use super::{
    bizra_node::heal::HealingLimits,
    caches::{Caches, Kept},
};
use crate::{
    api::ImageSpec,
    kubernetes::{Announcer, Debt, Write, WriteError, WriteOutcome, execute, key_of},
    metrics::Metrics,
    planted::{self, Bug},
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

impl Settings {
    /// Whether this operator is there for a namespace.
    pub fn watches(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|watched| watched == namespace)
    }
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
    /// What the watches have told.
    pub caches: Caches,
    next_numbers_at: Mutex<Instant>,
    books: Mutex<BTreeMap<String, Book>>,
}

/// What is remembered of an object between reconciliations. Losing it costs a write or a shorter wait.
#[derive(Default)]
struct Book {
    failures: u32,
    reported_at: Option<Instant>,
    has_more_to_report: bool,
}

/// First and longest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// How often an object that comes up for the first time reports where it is on its way.
pub(super) const ON_THE_WAY: Duration = Duration::from_secs(5);

/// Statuses that are written a second, of all objects together, when nothing but polled numbers has changed. However many
/// nodes there are, their chains' growth costs the API server no more than that.
const NUMBERS_PER_SECOND: u32 = 5;

impl Context {
    /// A context with nothing remembered.
    pub fn new(
        client: Client,
        settings: Settings,
        announcer: Announcer,
        probes: Arc<Probes>,
        metrics: Metrics,
    ) -> Self {
        let next_numbers_at = Mutex::new(Instant::now());
        let (caches, books) = (Caches::default(), Mutex::default());
        Self { client, settings, announcer, probes, metrics, caches, next_numbers_at, books }
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
            && self.take_turn(Instant::now())
    }

    /// True if it is somebody's turn to write numbers, which uses up the turn.
    fn take_turn(&self, now: Instant) -> bool {
        let mut next = self.next_numbers_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_turn = now >= *next;
        if is_turn {
            *next = now + Duration::from_secs(1) / NUMBERS_PER_SECOND;
        }
        is_turn
    }

    /// The status has been written.
    pub fn reported(&self, uid: &str) {
        self.book(uid, |book| (book.reported_at, book.has_more_to_report) = (Some(Instant::now()), false));
    }

    /// True if an object that comes up for the first time may report where it is; else it has more to report a moment later.
    pub fn may_report_on_the_way(&self, uid: &str) -> bool {
        self.book(uid, |book| {
            book.has_more_to_report = book.reported_at.is_some_and(|at| at.elapsed() < ON_THE_WAY);
            !book.has_more_to_report
        })
    }

    /// True, once, if something was not reported because it was too soon.
    pub fn take_more_to_report(&self, uid: &str) -> bool {
        self.book(uid, |book| std::mem::take(&mut book.has_more_to_report))
    }

    /// Executes one write and counts it.
    pub async fn write(&self, write: &Write) -> Result<WriteOutcome, WriteError> {
        let owe = |debt| self.caches.owe(write.target(), debt);
        let result = settled(execute(&self.client, write), owe, |result| {
            result.as_ref().map_or(Debt::Unknown, |done| done.debt.clone())
        });
        let result = result.await;
        let result = result.map(|done| done.outcome);
        let label = match &result {
            Ok(WriteOutcome::Written) => "written",
            Ok(WriteOutcome::Superseded) => "superseded",
            Ok(WriteOutcome::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        self.metrics.writes.with_label_values(&[write.verb(), label]).inc();
        tracing::info!(write = %write.describe(), result = label, "write");
        result
    }

    /// Replaces an object's status. Its version goes along: a status of a spec that has changed since is not written.
    pub async fn write_status<K: Kept + Serialize>(&self, object: &K) -> Result<(), kube::Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let owe = |debt| K::cache(&self.caches).owe(key_of(object), debt);
        let (name, parameters) = (object.name_any(), PostParams::default());
        let unbound = planted::is(Bug::StatusUnbound).then(|| {
            let mut object = object.clone();
            object.meta_mut().resource_version = None;
            object
        });
        let object = unbound.as_ref().unwrap_or(object);
        let result = settled(api.replace_status(&name, &parameters, object), owe, |result| {
            let version = result.as_ref().ok().and_then(kube::ResourceExt::resource_version);
            version.map_or(Debt::Unknown, |version| Debt::Version { version, is_report: true })
        });
        result.await.map(drop)
    }
}

/// Awaits a write and notes what the caches owe then. Given up half-way, it may or may not have been done: nobody knows.
async fn settled<T>(write: impl Future<Output = T>, owe: impl Fn(Debt), debt: impl FnOnce(&T) -> Debt) -> T {
    struct Unsettled<F: Fn(Debt)> {
        owe: F,
        debt: Debt,
    }
    impl<F: Fn(Debt)> Drop for Unsettled<F> {
        fn drop(&mut self) {
            (self.owe)(self.debt.clone());
        }
    }
    let mut unsettled = Unsettled { owe, debt: Debt::Unknown };
    let result = write.await;
    unsettled.debt = debt(&result);
    result
}

/// Spreads waits by up to a fifth, so that many objects do not come back at once.
pub(super) fn jittered(wait: Duration, uid: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    wait + wait / 5 * u32::try_from(hasher.finish() % 100).unwrap_or(0) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_is_given_up_half_way_leaves_a_debt() {
        let owed = Mutex::new(Vec::new());
        let owe = |debt| owed.lock().unwrap_or_else(PoisonError::into_inner).push(debt);
        let end = Debt::End { uid: "u".to_owned() };
        let hanging = settled(std::future::pending::<()>(), owe, |()| end.clone());
        assert!(tokio::time::timeout(Duration::from_millis(1), hanging).await.is_err());
        settled(std::future::ready(()), owe, |()| end.clone()).await;
        assert_eq!(owed.into_inner().unwrap_or_else(PoisonError::into_inner), [Debt::Unknown, end]);
    }
}
