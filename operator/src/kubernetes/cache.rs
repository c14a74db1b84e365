//! What a watch has told of one kind, pruned to what plans read.
//!
//! A cache is behind the API server, by milliseconds or by as long as a watch hangs. What makes it safe to plan from one:
//!
//! 1. *Own writes are read.* Every write of this process leaves a debt here: the version it made, or the uid it ended. Until the
//!    watch has paid it, the object is [`Answer::Behind`], and whoever reads asks the API server instead. A write whose outcome
//!    is not known, that was given up half-way, or that somebody else was faster than, is such a debt too. What the API server
//!    answers pays only debts that are older than the question.
//! 2. *Not here is not nowhere.* Watches select by label. An object that is not here may be there without the label, so what
//!    would be overwritten is asked for before it is made. See [`Answer::Absent`].
//! 3. *It never goes back.* A list from an API server that is itself behind replaces no object by an older one.
//!
//! What cannot be taken back (a genesis, a permit, an eviction, a deletion) is never decided from here; see
//! `controllers::reading`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{NamespaceResourceScope, serde::de::DeserializeOwned};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use tokio::sync::Notify;

use crate::planted::{self, Bug};

/// Namespace and name of an object.
pub type ObjectKey = (String, String);

/// An answer of the API server that an object is not there counts for this long.
const ABSENCE_COUNTS: Duration = Duration::from_secs(1);
/// Answers of that sort that are kept.
const ABSENCES_MAX: usize = 4096;

/// A kind that can be cached.
pub trait Cached:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Serialize
    + DeserializeOwned
    + Debug
    + Send
    + Sync
    + 'static
{
    /// What is read of many without opening each.
    type Brief: Clone + Debug + Send + Sync;

    /// Label selector of the watch; empty for all objects.
    const SELECTOR: &'static str;

    /// The brief of this one.
    fn brief(&self) -> Self::Brief;

    /// Name of the Network it belongs to.
    fn network(&self) -> Option<&str>;

    /// True if it is kept as text and read when it is looked up: one of many that few look at. The types of Kubernetes have room
    /// for all that an object may have; a pod is a fifth as large as text.
    fn is_packed(&self) -> bool {
        false
    }

    /// Drops what no plan reads. Objects read from the API server are pruned, too, so that no plan can come to depend on it.
    fn prune(&mut self);
}

/// What the cache knows of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<K> {
    /// It is like this.
    Known(Arc<K>),
    /// It is not here. The API server has said a moment ago that it is not there either.
    Gone,
    /// It is not here; it may be there without the label.
    Absent,
    /// This process has written it later than the cache knows.
    Behind,
}

/// A change that a watch has told.
#[derive(Clone, Debug)]
pub struct Change<K> {
    /// As it was; none if it is new.
    pub old: Option<Arc<K>>,
    /// As it is; none if it is gone.
    pub new: Option<Arc<K>>,
    /// The change is a status this process has written: it is no news to the object's own controller.
    pub is_own_report: bool,
}

/// What the watch still has to tell of an own write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debt {
    /// This version of the object, or a later one.
    Version {
        /// The version.
        version: String,
        /// It was the object's own status that was written.
        is_report: bool,
    },
    /// The end of the object with this uid, or that its end has begun.
    End {
        /// The uid.
        uid: String,
    },
    /// Nobody knows: only the API server can tell.
    Unknown,
}

/// The cache of one kind.
pub struct Cache<K: Cached> {
    inner: Mutex<Inner<K>>,
    progress: Notify,
}

struct Inner<K: Cached> {
    objects: BTreeMap<ObjectKey, Stored<K>>,
    /// Names by namespace and network.
    by_network: BTreeMap<ObjectKey, BTreeSet<String>>,
    debts: HashMap<ObjectKey, Owed>,
    /// Own writes so far, of all objects.
    writes: u64,
    absences: HashMap<ObjectKey, Instant>,
}

/// An object as it is kept.
struct Stored<K: Cached> {
    brief: K::Brief,
    body: Body<K>,
}

#[derive(Clone)]
enum Body<K> {
    Open(Arc<K>),
    Packed(Arc<[u8]>),
}

impl<K: Cached> Body<K> {
    fn of(object: &Arc<K>) -> Self {
        match object.is_packed().then(|| serde_json::to_vec(object.as_ref())) {
            Some(Ok(text)) => Self::Packed(text.into()),
            Some(Err(_)) | None => Self::Open(Arc::clone(object)),
        }
    }

    /// None only if what was written cannot be read, which is as if it were not here: the API server is asked.
    fn open(&self) -> Option<Arc<K>> {
        match self {
            Self::Open(object) => Some(Arc::clone(object)),
            Self::Packed(text) => serde_json::from_slice(text).ok().map(Arc::new),
        }
    }
}

struct Owed {
    debt: Debt,
    /// The how manyth own write it was.
    write: u64,
}

/// The own writes at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Before(u64);

impl<K: Cached> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            by_network: BTreeMap::new(),
            debts: HashMap::new(),
            writes: 0,
            absences: HashMap::new(),
        };
        Self { inner: Mutex::new(inner), progress: Notify::new() }
    }
}

impl<K: Cached> Cache<K> {
    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks an object up.
    pub fn look(&self, key: &ObjectKey) -> Answer<K> {
        let inner = self.inner();
        if inner.debts.contains_key(key) && !planted::is(Bug::OwnWritesUnread) {
            return Answer::Behind;
        }
        let stored = inner.objects.get(key).map(|stored| stored.body.clone());
        match stored {
            Some(body) => {
                drop(inner);
                body.open().map_or(Answer::Behind, Answer::Known)
            }
            None if inner.absences.get(key).is_some_and(|at| at.elapsed() < ABSENCE_COUNTS) => Answer::Gone,
            None => Answer::Absent,
        }
    }

    /// Waits until the watch has told all of this object that this process knows must come; false if that takes longer than
    /// `patience`, or cannot be known.
    pub async fn catch_up(&self, key: &ObjectKey, patience: Duration) -> bool {
        let waiting = async {
            loop {
                let progress = self.progress.notified();
                match self.inner().debts.get(key).map(|owed| &owed.debt) {
                    None => return true,
                    Some(Debt::Unknown) => return false,
                    Some(_) => {}
                }
                progress.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.unwrap_or(false)
    }

    /// What the watch has told last, whatever has been written since: to know whom a change concerns, not to plan from.
    pub fn last_told(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let body = self.inner().objects.get(key).map(|stored| stored.body.clone());
        body?.open()
    }

    /// All objects of a network, by name. Own writes may be missing: see [`behind`](Self::behind).
    pub fn of_network(&self, namespace: &str, network: &str) -> Vec<Arc<K>> {
        self.some_of_network(namespace, network, |_| true)
    }

    /// The same of those whose names are asked for.
    pub fn some_of_network(&self, namespace: &str, network: &str, is_meant: impl Fn(&str) -> bool) -> Vec<Arc<K>> {
        let inner = self.inner();
        let stored: Vec<Body<K>> =
            inner.stored(namespace, network, is_meant).map(|(_, stored)| stored.body.clone()).collect();
        drop(inner);
        stored.iter().filter_map(Body::open).collect()
    }

    /// The names of all objects of a network, and what is told of each without opening it.
    pub fn briefs_of_network(&self, namespace: &str, network: &str) -> BTreeMap<String, K::Brief> {
        let inner = self.inner();
        inner.stored(namespace, network, |_| true).map(|(name, stored)| (name.clone(), stored.brief.clone())).collect()
    }

    /// Those of a namespace that this process has written later than the cache knows, statuses aside.
    pub fn behind(&self, namespace: &str) -> Vec<ObjectKey> {
        let inner = self.inner();
        let is_report = |debt: &Debt| matches!(debt, Debt::Version { is_report: true, .. });
        let behind = inner.debts.iter().filter(|(key, owed)| key.0 == namespace && !is_report(&owed.debt));
        behind.map(|(key, _)| key.clone()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner().objects.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes an own write.
    pub fn owe(&self, key: ObjectKey, mut debt: Debt) {
        let mut inner = self.inner();
        inner.absences.remove(&key);
        inner.writes += 1;
        let write = inner.writes;
        let is_paid = is_paid(inner.open(&key).as_deref(), &debt);
        match (inner.debts.get_mut(&key), &mut debt) {
            // A version that is not known to be the latest must not hide that nothing is known.
            (Some(owed), _) if owed.debt == Debt::Unknown => {
                owed.write = write;
                return;
            }
            (Some(Owed { debt: Debt::Version { version: old, .. }, .. }), Debt::Version { version, .. })
                if is_at_least(old, version) =>
            {
                return;
            }
            // It stands for both writes now.
            (Some(Owed { debt: Debt::Version { is_report: was_report, .. }, .. }), Debt::Version { is_report, .. }) => {
                *is_report = *is_report && *was_report;
            }
            // Its beginning has still to be told, so that it is not here says nothing of its end.
            (Some(_), Debt::End { .. }) => {
                inner.debts.insert(key, Owed { debt, write });
                return;
            }
            _ => {}
        }
        if !is_paid {
            inner.debts.insert(key, Owed { debt, write });
        }
    }

    /// To be taken before the API server is asked for what is [learnt](Self::learn) then.
    pub fn before(&self) -> Before {
        Before(self.inner().writes)
    }

    /// Notes what the API server has said of an object. The question may have been answered before an own write that has
    /// ended meanwhile; then nothing is learnt.
    pub fn learn(&self, key: &ObjectKey, live: Option<&K>, before: Before) {
        let mut inner = self.inner();
        if inner.debts.get(key).is_some_and(|owed| Before(owed.write) > before) {
            return;
        }
        let write = inner.writes;
        inner.debts.remove(key);
        let cached = inner.open(key);
        let cached = cached.as_deref();
        let debt = match live {
            // No watch will ever tell of it, so the API server has to be asked each time.
            Some(live) if !selects(K::SELECTOR, live) => Debt::Unknown,
            Some(live) => Debt::Version { version: live.resource_version().unwrap_or_default(), is_report: false },
            None => {
                let Some(uid) = cached.and_then(kube::ResourceExt::uid) else {
                    if inner.absences.len() >= ABSENCES_MAX {
                        inner.absences.clear();
                    }
                    inner.absences.insert(key.clone(), Instant::now());
                    return;
                };
                Debt::End { uid }
            }
        };
        if !is_paid(cached, &debt) {
            inner.debts.insert(key.clone(), Owed { debt, write });
        }
    }

    /// A watch tells that an object is like this now; none if that is nothing new.
    pub fn put(&self, object: K) -> Option<Change<K>> {
        let change = self.inner().put(object);
        self.progress.notify_waiters();
        change
    }

    /// A watch tells that an object is gone.
    pub fn remove(&self, object: &K) -> Change<K> {
        let change = self.inner().remove(&key_of(object), object.resource_version());
        self.progress.notify_waiters();
        change
    }

    /// A watch has told all objects of a namespace (none means everywhere) anew, and these are all there are.
    pub fn keep_only(&self, namespace: Option<&str>, listed: &BTreeSet<ObjectKey>) -> Vec<Change<K>> {
        let mut inner = self.inner();
        let is_gone = |key: &&ObjectKey| {
            !planted::is(Bug::GoneKept)
                && namespace.is_none_or(|namespace| key.0 == namespace)
                && !listed.contains(*key)
        };
        let gone: Vec<ObjectKey> = inner.objects.keys().filter(is_gone).cloned().collect();
        let changes = gone.iter().map(|key| inner.remove(key, None)).collect();
        drop(inner);
        self.progress.notify_waiters();
        changes
    }
}

impl<K: Cached> Inner<K> {
    fn stored(
        &self,
        namespace: &str,
        network: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&String, &Stored<K>)> {
        let names = self.by_network.get(&(namespace.to_owned(), network.to_owned()));
        let names = names.into_iter().flatten().filter(move |name| is_meant(name));
        names.filter_map(move |name| Some((name, self.objects.get(&(namespace.to_owned(), name.clone()))?)))
    }

    fn open(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.get(key)?.body.open()
    }

    fn put(&mut self, object: K) -> Option<Change<K>> {
        let key = key_of(&object);
        let old = self.open(&key);
        let version = object.resource_version().unwrap_or_default();
        if let Some(known) = &old
            && is_at_least(&known.resource_version().unwrap_or_default(), &version)
        {
            return None;
        }
        self.absences.remove(&key);
        let mut is_own_report = false;
        if let Some(Owed { debt, .. }) = self.debts.get(&key) {
            is_own_report = matches!(debt, Debt::Version { version: own, is_report: true } if *own == version);
            if is_paid(Some(&object), debt) {
                self.debts.remove(&key);
            }
        }
        let object = Arc::new(object);
        if let Some(old) = &old {
            self.leave_network(&key, old);
        }
        if let Some(network) = object.network() {
            let place = (key.0.clone(), network.to_owned());
            self.by_network.entry(place).or_default().insert(key.1.clone());
        }
        self.objects.insert(key, Stored { brief: object.brief(), body: Body::of(&object) });
        Some(Change { old, new: Some(object), is_own_report })
    }

    /// `version` is the one at which it went, if that is known.
    fn remove(&mut self, key: &ObjectKey, version: Option<String>) -> Change<K> {
        let old = self.objects.remove(key).and_then(|stored| stored.body.open());
        if let Some(old) = &old {
            self.leave_network(key, old);
        }
        let is_paid = match (self.debts.get(key).map(|owed| &owed.debt), version) {
            (Some(Debt::End { .. }), _) => true,
            (Some(Debt::Version { version: own, .. }), Some(version)) => is_at_least(&version, own),
            _ => false,
        };
        if is_paid {
            self.debts.remove(key);
        }
        Change { old, new: None, is_own_report: false }
    }

    fn leave_network(&mut self, key: &ObjectKey, object: &K) {
        let Some(network) = object.network() else { return };
        let place = (key.0.clone(), network.to_owned());
        if let Some(names) = self.by_network.get_mut(&place) {
            names.remove(&key.1);
            if names.is_empty() {
                self.by_network.remove(&place);
            }
        }
    }
}

/// Namespace and name of an object.
pub fn key_of<K: Resource<DynamicType = ()>>(object: &K) -> ObjectKey {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The object of this name. Plans look for many in lists of a hundred, so nothing is allocated.
pub fn named<'a, K: Resource>(objects: &'a [K], name: &str) -> Option<&'a K> {
    objects.iter().find(|object| object.meta().name.as_deref() == Some(name))
}

fn is_paid<K: Cached>(object: Option<&K>, debt: &Debt) -> bool {
    match debt {
        Debt::Version { version, .. } => {
            object.is_some_and(|object| is_at_least(&object.resource_version().unwrap_or_default(), version))
        }
        Debt::End { uid } => {
            object.is_none_or(|object| object.uid().as_ref() != Some(uid) || object.meta().deletion_timestamp.is_some())
        }
        Debt::Unknown => false,
    }
}

/// Versions of a kind are numbers that grow (Kubernetes says so since 1.35, and was so before). Should they not be numbers, only
/// the same version is known not to be older.
fn is_at_least(version: &str, wanted: &str) -> bool {
    match (version.parse::<u64>(), wanted.parse::<u64>()) {
        (Ok(version), Ok(wanted)) => version >= wanted,
        _ => version == wanted,
    }
}

/// True if a watch with this selector, a list of labels that must be there, tells of this object.
fn selects<K: Cached>(selector: &str, object: &K) -> bool {
    selector.split(',').filter(|label| !label.is_empty()).all(|label| object.labels().contains_key(label))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
