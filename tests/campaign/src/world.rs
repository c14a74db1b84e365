//! Everything of a namespace, as a test sees it: to ask whether an end is reached, and to compare two ends.
//!
//! Two runs never end in the same bytes. What differs by nature is masked: uids become the names of what they stand for (so
//! that a reference to the wrong object still shows), versions, times, addresses, keys and hashes go. What else differs
//! between two runs without a fault is noise, and found by comparing them.

use std::collections::{BTreeMap, BTreeSet};

use bizra_operator::api::{BizraNode, Network, NodePool};
use k8s_openapi::api::{
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;

/// Objects by plural and name, such as `pods/demo-v0`.
pub(crate) type World = BTreeMap<String, Value>;

/// Values by path, such as `pods/demo-v0/status/phase`.
pub(crate) type Leaves = BTreeMap<String, String>;

/// Every kind the operator makes or is told by.
pub(crate) fn kinds() -> [ApiResource; 10] {
    [
        ApiResource::erase::<Network>(&()),
        ApiResource::erase::<NodePool>(&()),
        ApiResource::erase::<BizraNode>(&()),
        ApiResource::erase::<Pod>(&()),
        ApiResource::erase::<PersistentVolumeClaim>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Secret>(&()),
    ]
}

/// The objects of a kind, by its plural.
pub(crate) fn api(client: &Client, namespace: &str, plural: &str) -> Api<DynamicObject> {
    let kind = kinds().into_iter().find(|kind| kind.plural == plural).expect("workloads name kinds of the list");
    Api::namespaced_with(client.clone(), namespace, &kind)
}

/// Reads everything.
pub(crate) async fn read(client: &Client, namespace: &str) -> Result<World, kube::Error> {
    let mut world = World::new();
    for kind in kinds() {
        let list = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
        for object in list.list(&ListParams::default()).await? {
            let key = format!("{}/{}", kind.plural, object.metadata.name.clone().unwrap_or_default());
            world.insert(key, serde_json::to_value(object).unwrap());
        }
    }
    Ok(world)
}

/// Objects of this plural.
pub(crate) fn of<'a>(world: &'a World, plural: &str) -> impl Iterator<Item = &'a Value> {
    let prefix = format!("{plural}/");
    world.iter().filter(move |(key, _)| key.starts_with(&prefix)).map(|(_, object)| object)
}

/// The text at this path.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Status and reason of a condition.
pub(crate) fn condition<'a>(object: &'a Value, type_: &str) -> (&'a str, &'a str) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map_or(("", ""), |found| (text(found, "/status"), text(found, "/reason")))
}

/// True if every Network, node and pool says of its present spec that nothing is left to do.
pub(crate) fn is_settled(world: &World) -> bool {
    let is = |object: &Value, type_: &str, status: &str| ["", status].contains(&condition(object, type_).0);
    ["networks", "bizranodes", "nodepools"].iter().flat_map(|plural| of(world, plural)).all(|object| {
        object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation")
            && condition(object, "Ready").0 == "True"
            && is(object, "UpToDate", "True")
            && is(object, "CertificatesCurrent", "True")
            && is(object, "Reconciling", "False")
            && object.pointer("/status/permit").is_none_or(Value::is_null)
    })
}

/// What cannot be compared anywhere.
const NEVER: &[&str] = &[
    "clusterIP",
    "clusterIPs",
    "creationTimestamp",
    "generation",
    "height",
    "lag",
    "lastTransitionTime",
    "lastVotedHeight",
    "managedFields",
    "podIP",
    "podIPs",
    "resourceVersion",
];

/// Everything of a world that two ends can be compared by.
pub(crate) fn masked(world: &World, namespace: &str) -> Leaves {
    let uids = world.iter().map(|(key, object)| (text(object, "/metadata/uid").to_owned(), key.clone())).collect();
    let mask = Mask { namespace, uids };
    let mut leaves = Leaves::new();
    for (key, object) in world {
        let mut object = object.clone();
        if key.starts_with("poddisruptionbudgets/") {
            // Its controller is in its own time.
            object["status"] = Value::Null;
        }
        if let Some(generation) = object.pointer("/status/observedGeneration").cloned() {
            object["status"]["observedGeneration"] =
                (Some(&generation) == object.pointer("/metadata/generation")).into();
        }
        if let Some(Ok(file)) = object.pointer("/data/genesis.json").and_then(Value::as_str).map(serde_json::from_str) {
            object["data"]["genesis.json"] = file;
        }
        if key.starts_with("secrets/") {
            object["data"] = Value::Null;
        }
        object["metadata"]["uid"] = Value::Null;
        mask.walk(&mask.text(key), &object, &mut leaves);
    }
    leaves
}

struct Mask<'a> {
    namespace: &'a str,
    /// What uids stand for.
    uids: BTreeMap<String, String>,
}

impl Mask<'_> {
    fn walk(&self, path: &str, value: &Value, leaves: &mut Leaves) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields.iter().filter(|(key, _)| !NEVER.contains(&key.as_str())) {
                    self.walk(&format!("{path}/{}", self.text(key)), value, leaves);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    // Conditions have no order.
                    let name = value["type"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                    self.walk(&format!("{path}/{name}"), value, leaves);
                }
            }
            Value::Null => {}
            Value::String(value) => drop(leaves.insert(path.to_owned(), self.text(value))),
            value => drop(leaves.insert(path.to_owned(), value.to_string())),
        }
    }

    fn text(&self, text: &str) -> String {
        let certificates = text.matches("-----BEGIN ").count();
        if certificates > 0 {
            return format!("<{certificates} PEM>");
        }
        if is_time(text) {
            return "<time>".to_owned();
        }
        let text = text.replace(self.namespace, "<namespace>");
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let mut masked = String::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            masked.push_str(&self.word(word));
            let next = after.find(is_word).unwrap_or(after.len());
            masked.push_str(&after[..next]);
            rest = &after[next..];
        }
        masked
    }

    fn word(&self, word: &str) -> String {
        let parts: Vec<&str> = word.split('-').collect();
        let is_hex = |part: &str| part.bytes().all(|digit| digit.is_ascii_hexdigit());
        if parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part)) {
            return self.uids.get(word).map_or_else(|| "<uid>".to_owned(), |key| format!("<uid of {key}>"));
        }
        let masked = parts.iter().map(|part| if part.len() >= 12 && is_hex(part) { "<hex>" } else { part });
        masked.collect::<Vec<_>>().join("-")
    }
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.parse::<k8s_openapi::jiff::Timestamp>().is_ok()
}

/// Paths at which two ends differ.
pub(crate) fn noise(one: &Leaves, other: &Leaves) -> BTreeSet<String> {
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    paths.into_iter().filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

/// What is otherwise than expected, noise aside.
pub(crate) fn differences(expected: &Leaves, found: &Leaves, noise_paths: &BTreeSet<String>) -> Vec<String> {
    let value = |leaves: &Leaves, path: &String| leaves.get(path).cloned().unwrap_or_else(|| "(nothing)".to_owned());
    noise(expected, found)
        .iter()
        .filter(|path| !noise_paths.contains(*path))
        .map(|path| format!("{path}: {} instead of {}", value(found, path), value(expected, path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn end(uid: &str, owner: &str, phase: &str) -> Leaves {
        let claim = json!({"metadata": {"uid": uid, "resourceVersion": uid[..4], "labels": {"hash": uid[24..]}}});
        let pod = json!({
            "metadata": {"annotations": {"volume": owner, "made": "2026-01-01T00:00:00Z"}, "namespace": "ns-1"},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": uid}]},
        });
        masked(&World::from([("persistentvolumeclaims/a".to_owned(), claim), ("pods/a".to_owned(), pod)]), "ns-1")
    }

    #[test]
    fn what_differs_by_nature_is_masked_and_a_reference_to_another_object_is_not() {
        let (one, two) = ("0a77b7c6-0000-4000-8000-0123456789ab", "1a77b7c6-0000-4000-8000-0123456789cd");
        assert_eq!(end(one, one, "Running"), end(two, two, "Running"));
        let nothing = BTreeSet::new();
        let wrong = differences(&end(one, one, "Running"), &end(two, one, "Running"), &nothing);
        assert_eq!(wrong, ["pods/a/metadata/annotations/volume: <uid> instead of <uid of persistentvolumeclaims/a>"]);
        let wrong = differences(&end(one, one, "Running"), &end(one, one, "Pending"), &nothing);
        assert_eq!(wrong, ["pods/a/status/phase: Pending instead of Running"]);
        let noise_paths = noise(&end(one, one, "Running"), &end(one, one, "Pending"));
        assert!(differences(&end(one, one, "Running"), &end(one, one, "Failed"), &noise_paths).is_empty());
    }
}
