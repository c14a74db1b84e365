//! What one plan does to an operator and what the operator does meanwhile: shared by the connections of an operator and of its
//! successors. Also the rules that hold for every write at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ListParams};
use serde_json::Value;
use tonic::codegen::http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use crate::{
    plan::Mode,
    world::{api, text},
};

/// How long watches are held back or show a former world, and how long it takes until one that has missed something lists anew.
pub(crate) const DELAY: Duration = Duration::from_secs(2);

/// A write on its way to the API server.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Verb and place, such as `create pods/demo-v0`.
    pub key: String,
    verb: &'static str,
    resource: String,
    name: String,
    body: Value,
}

impl Write {
    /// None for an Event: those are best-effort.
    pub(crate) fn of(method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let root = if parts.first() == Some(&"api") { 2 } else { 3 };
        let parts = parts.get(root + 2..).unwrap_or_default();
        let is_apply = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply"));
        let verb = match *method {
            Method::POST if parts.get(2) == Some(&"eviction") => "evict",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH if is_apply => "apply",
            Method::PATCH => "patch",
            _ => "delete",
        };
        let resource = (*parts.first()?).to_owned();
        let name = parts.get(1).map_or_else(|| text(&body, "/metadata/name").to_owned(), |name| (*name).to_owned());
        let part = parts.get(2).filter(|part| **part != "eviction").map(|part| format!("/{part}")).unwrap_or_default();
        let key = format!("{verb} {resource}/{}{part}", without_hashes(&name));
        (resource != "events").then_some(Self { key, verb, resource, name, body })
    }

    fn place(&self) -> String {
        format!("{}/{}", self.resource, self.name)
    }
}

/// A name without what is another one in each run.
fn without_hashes(name: &str) -> String {
    let is_hash = |part: &&str| part.len() >= 12 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
    name.split('-').filter(|part| !is_hash(part)).collect::<Vec<_>>().join("-")
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As ever.
    Go,
    /// The fault is here.
    Hit(Mode),
}

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    is_armed: bool,
    /// Writes since the change, and events told by watches.
    pub writes: Vec<String>,
    pub events: Vec<String>,
    pub ignores_events: bool,
    /// The same with their answers, to read when something went wrong.
    pub log: Vec<String>,
    counts: BTreeMap<String, usize>,
    /// How many objects of a kind were made and ended, by the API server's answers.
    pub created: BTreeMap<String, usize>,
    pub deleted: BTreeMap<String, usize>,
    pub violations: BTreeSet<String>,
    /// When the latest write was asked for.
    pub last_write: Option<Instant>,
    pub hit_at: Option<Instant>,
    /// The kind whose watch is held back, and until when.
    held: Option<(String, Instant)>,
    /// Version of the world before the user's change, and before the write that was hit.
    pub version_at_change: String,
    pub version_at_hit: String,
    /// The object a watch is silent about.
    missed: Option<String>,
    pub has_relisted: bool,
}

/// One run of a workload.
pub(crate) struct Run {
    pub admin: Client,
    pub namespace: String,
    mode: Mode,
    place: Option<(String, usize)>,
    may_delete_volumes: bool,
    seen: Mutex<Seen>,
}

impl Run {
    pub(crate) fn new(
        admin: Client,
        namespace: String,
        (mode, place): (Mode, Option<(String, usize)>),
        may_delete_volumes: bool,
    ) -> Self {
        Self { admin, namespace, mode, place, may_delete_volumes, seen: Mutex::default() }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// From now on writes and events count.
    pub(crate) async fn arm(&self) -> Result<(), kube::Error> {
        let version = self.version().await?;
        let mut seen = self.seen();
        seen.is_armed = true;
        seen.version_at_change = version;
        Ok(())
    }

    /// The API server's version of everything.
    pub(crate) async fn version(&self) -> Result<String, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), &self.namespace);
        Ok(maps.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default())
    }

    pub(crate) fn violated(&self, what: String) {
        self.seen().violations.insert(what);
    }

    /// A write is about to be sent.
    pub(crate) fn begin(&self, write: &Write) -> Verdict {
        let mut seen = self.seen();
        seen.last_write = Some(Instant::now());
        if !seen.is_armed {
            return Verdict::Go;
        }
        seen.writes.push(write.key.clone());
        if self.mode != Mode::Missed && self.is_hit(&mut seen, &write.key) {
            if self.mode == Mode::Held {
                seen.held = Some((write.resource.clone(), Instant::now() + DELAY));
            }
            return Verdict::Hit(self.mode);
        }
        Verdict::Go
    }

    fn is_hit(&self, seen: &mut Seen, key: &str) -> bool {
        let count = seen.counts.entry(key.to_owned()).or_default();
        *count += 1;
        let is_hit = self.place.as_ref().is_some_and(|(place, number)| place == key && number == count);
        let is_first = is_hit && seen.hit_at.is_none();
        if is_first {
            seen.hit_at = Some(Instant::now());
            seen.log.push(format!("{} here:", self.mode.name()));
        }
        is_first
    }

    /// The API server has answered a write.
    pub(crate) fn settle(&self, write: &Write, status: StatusCode) {
        let mut seen = self.seen();
        seen.log.push(format!("{} {}", write.key, status.as_u16()));
        if !seen.is_armed || !status.is_success() {
            return;
        }
        let counted = match write.verb {
            "create" | "apply" if status == StatusCode::CREATED => &mut seen.created,
            "delete" | "evict" => &mut seen.deleted,
            _ => return,
        };
        *counted.entry(write.resource.clone()).or_default() += 1;
    }

    /// What a watch tells; false if it is not to be told.
    pub(crate) fn tell(&self, key: &str, place: &str) -> bool {
        let mut seen = self.seen();
        if !seen.is_armed || seen.ignores_events {
            return true;
        }
        seen.events.push(key.to_owned());
        if self.mode == Mode::Missed && self.is_hit(&mut seen, key) {
            seen.missed = Some(place.to_owned());
        }
        seen.missed.as_deref() != Some(place)
    }

    /// A watch that has missed something lists anew and is told everything from then on.
    pub(crate) fn relisted(&self) {
        let mut seen = self.seen();
        seen.missed = None;
        seen.has_relisted = true;
    }

    /// Until when the watch of this kind is held back.
    pub(crate) fn held_until(&self, plural: &str) -> Option<Instant> {
        let seen = self.seen();
        let (_, until) = seen.held.as_ref().filter(|(held, until)| held == plural && *until > Instant::now())?;
        Some(*until)
    }

    /// What must never be written, whatever has happened before.
    pub(crate) async fn judge(&self, write: &Write) {
        let Write { key, verb, resource, body, .. } = write;
        let bound = match *verb {
            "delete" => text(body, "/preconditions/uid"),
            "evict" => text(body, "/deleteOptions/preconditions/uid"),
            "update" => text(body, "/metadata/resourceVersion"),
            _ => "-",
        };
        if bound.is_empty() {
            self.violated(format!("{key}: not bound to what was observed"));
        }
        if *verb == "delete" && resource == "persistentvolumeclaims" && !self.may_delete_volumes {
            self.violated(format!("{key}: nobody has asked for it"));
        }
        if *verb == "create" && resource == "pods" {
            let volumes = body.pointer("/spec/volumes").and_then(Value::as_array);
            for volume in volumes.into_iter().flatten() {
                let claim = text(volume, "/persistentVolumeClaim/claimName");
                let map = text(volume, "/configMap/name");
                let is_optional = volume.pointer("/configMap/optional") == Some(&true.into());
                for (plural, name) in [("persistentvolumeclaims", claim), ("configmaps", map)] {
                    let is_needed = !name.is_empty() && !is_optional;
                    if is_needed && matches!(api(&self.admin, &self.namespace, plural).get_opt(name).await, Ok(None)) {
                        self.violated(format!("{key}: {plural}/{name} is not there yet"));
                    }
                }
            }
        }
    }
}

/// What one operator has been told that it has made, and not ended since.
#[derive(Default)]
pub(crate) struct Acknowledged(Mutex<BTreeSet<String>>);

impl Acknowledged {
    /// The operator gets this answer.
    pub(crate) fn note(&self, run: &Run, write: &Write, status: StatusCode, answer: &[u8]) {
        let mut made = self.0.lock().unwrap();
        match write.verb {
            "create" if status == StatusCode::CREATED => drop(made.insert(write.place())),
            "create" if status == StatusCode::CONFLICT && made.contains(&write.place()) => {
                let reason: Value = serde_json::from_slice(answer).unwrap_or_default();
                if text(&reason, "/reason") == "AlreadyExists" {
                    run.violated(format!("{}: the operator knows that it has made this", write.key));
                }
            }
            "delete" | "evict" => drop(made.remove(&write.place())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_have_a_place_and_events_have_none() {
        let of = |method: Method, path: &str, body: Value| {
            let write = Write::of(&method, path, &HeaderMap::new(), body.to_string().as_bytes());
            write.map(|write| write.key)
        };
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(of(Method::POST, "/api/v1/namespaces/n/pods", named("a")).unwrap(), "create pods/a");
        assert_eq!(of(Method::POST, "/api/v1/namespaces/n/pods/a/eviction", named("a")).unwrap(), "evict pods/a");
        let status = "/apis/bizra.io/v1alpha1/namespaces/n/networks/demo/status";
        assert_eq!(of(Method::PUT, status, json!({})).unwrap(), "update networks/demo/status");
        let secret = of(Method::POST, "/api/v1/namespaces/n/secrets", named("bizra-authority-0123456789abcdef-2"));
        assert_eq!(secret.unwrap(), "create secrets/bizra-authority-2");
        assert_eq!(of(Method::POST, "/apis/events.k8s.io/v1/namespaces/n/events", named("e")), None);
    }
}
