//! The operator's rights against what it used of them, by the API server's audit log.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};

/// Verbs that lead to more rights than they are.
const VERBS_FORBIDDEN: [&str; 3] = ["escalate", "bind", "impersonate"];
/// Resources that are a way into pods, or to somebody else's identity.
const RESOURCES_FORBIDDEN: [&str; 7] = [
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "pods/proxy",
    "services/proxy",
    "nodes/proxy",
    "serviceaccounts/token",
];

/// HTTP status of a request that made an object.
const CREATED: u16 = 201;

/// One thing that may be done, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Grant {
    /// Namespace; everywhere, if there is none.
    pub namespace: Option<String>,
    /// API group; empty for the core.
    pub group: String,
    /// Resource, and its subresource after a slash.
    pub resource: String,
    /// Verb.
    pub verb: String,
}

/// What rules grant, one by one. Rules for names or for paths are not taken apart: the operator has none.
pub fn grants(namespace: Option<&str>, rules: &[PolicyRule]) -> BTreeSet<Grant> {
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    all.insert(Grant {
                        namespace: namespace.map(str::to_owned),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                    });
                }
            }
        }
    }
    all
}

/// A line of the audit log, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    object_ref: Option<Object>,
    #[serde(default)]
    response_status: Response,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Response {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    resource: Option<String>,
    subresource: Option<String>,
    namespace: Option<String>,
    api_group: Option<String>,
}

/// What was asked for, how often, and what of it was refused for lack of a right.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// By what was asked; the namespace is that of the request.
    pub allowed: BTreeMap<Grant, u64>,
    /// The same.
    pub refused: BTreeMap<Grant, u64>,
}

impl Use {
    /// Adds a line of the log if it is this user's. Requests for no object, such as discovery, need no rule.
    pub fn add(&mut self, line: &str, user: &str) -> Result<(), serde_json::Error> {
        let event: Event = serde_json::from_str(line)?;
        let Some(object) = event.object_ref.filter(|_| event.user.username == user) else { return Ok(()) };
        let resource = object.resource.unwrap_or_default();
        let asked = Grant {
            namespace: object.namespace,
            group: object.api_group.unwrap_or_default(),
            resource: object.subresource.map_or_else(|| resource.clone(), |sub| format!("{resource}/{sub}")),
            verb: event.verb,
        };
        let refused = event.annotations.get("authorization.k8s.io/decision").is_some_and(|word| word == "forbid");
        // An apply that made the object needed the right to create it as well.
        if asked.verb == "patch" && event.response_status.code == CREATED {
            *self.allowed.entry(Grant { verb: "create".to_owned(), ..asked.clone() }).or_default() += 1;
        }
        *if refused { &mut self.refused } else { &mut self.allowed }.entry(asked).or_default() += 1;
        Ok(())
    }
}

/// What the comparison found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Rights, and how often each was used.
    pub used: Vec<(Grant, u64)>,
    /// Rights that no request needed here, and why they are needed all the same.
    pub needed: Vec<(Grant, &'static str)>,
    /// Rights that were not used.
    pub unused: Vec<Grant>,
    /// Rights that nobody should have, and why.
    pub forbidden: Vec<(Grant, &'static str)>,
    /// What was asked for without a right.
    pub refused: Vec<(Grant, u64)>,
}

impl Verdict {
    /// Compares. `own` is the operator's namespace, the only one whose Secrets it may touch.
    pub fn of(granted: &BTreeSet<Grant>, done: &Use, own: &str) -> Self {
        let mut verdict = Self {
            used: Vec::new(),
            needed: Vec::new(),
            unused: Vec::new(),
            forbidden: Vec::new(),
            // Owners' Secrets are asked for where somebody wants a Validator; without the right that is what its status says.
            refused: done
                .refused
                .iter()
                .filter(|(asked, _)| (asked.resource.as_str(), asked.verb.as_str()) != ("secrets", "get"))
                .map(|(grant, &times)| (grant.clone(), times))
                .collect(),
        };
        for grant in granted {
            if let Some(why) = forbidden(grant, own) {
                verdict.forbidden.push((grant.clone(), why));
            }
            let times: u64 =
                done.allowed.iter().filter(|(asked, _)| covers(grant, asked)).map(|(_, &times)| times).sum();
            if times > 0 {
                verdict.used.push((grant.clone(), times));
            } else if grant.verb == "update" && grant.resource.ends_with("/finalizers") {
                // OwnerReferencesPermissionEnforcement asks for it when an owner reference blocks the owner's deletion.
                verdict.needed.push((grant.clone(), "by admission"));
            } else if grant.verb == "list" && watches(done, grant) {
                // `operator/src/kubernetes/follow.rs`: a watch begins with a list where the API server cannot stream it.
                verdict.needed.push((grant.clone(), "without streaming lists"));
            } else {
                verdict.unused.push(grant.clone());
            }
        }
        verdict
    }

    /// True if every right was used, none is one that nobody should have, and none was missing.
    pub fn is_clean(&self) -> bool {
        self.unused.is_empty() && self.forbidden.is_empty() && self.refused.is_empty()
    }
}

/// True if the same objects were watched.
fn watches(done: &Use, grant: &Grant) -> bool {
    let watch = Grant { verb: "watch".to_owned(), ..grant.clone() };
    done.allowed.keys().any(|asked| covers(&watch, asked))
}

fn covers(grant: &Grant, asked: &Grant) -> bool {
    let same_place = grant.namespace.is_none() || grant.namespace == asked.namespace;
    same_place && (&grant.group, &grant.resource, &grant.verb) == (&asked.group, &asked.resource, &asked.verb)
}

fn forbidden(grant: &Grant, own: &str) -> Option<&'static str> {
    if [&grant.group, &grant.resource, &grant.verb].into_iter().any(|word| word.contains('*')) {
        return Some("a wildcard");
    }
    if VERBS_FORBIDDEN.contains(&grant.verb.as_str()) || RESOURCES_FORBIDDEN.contains(&grant.resource.as_str()) {
        return Some("a way to more rights");
    }
    (grant.group.is_empty() && grant.resource == "secrets" && grant.namespace.as_deref() != Some(own))
        .then_some("Secrets of others")
}
