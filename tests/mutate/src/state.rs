//! What there is in a namespace, without what differs between two deployments of the same.

use std::collections::BTreeMap;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use bizra_operator::{
    api::{BizraNode, Network, NodePool, Validator},
    resources::labels,
};

/// Objects by kind and name.
pub(crate) type State = BTreeMap<String, Value>;

/// Everything of the network `demo` and its nodes.
pub(crate) async fn capture(client: &Client, namespace: &str) -> Result<State, kube::Error> {
    let mut state = State::new();
    add::<Network>(&mut state, client, namespace).await?;
    add::<NodePool>(&mut state, client, namespace).await?;
    add::<BizraNode>(&mut state, client, namespace).await?;
    add::<Validator>(&mut state, client, namespace).await?;
    add::<Pod>(&mut state, client, namespace).await?;
    add::<PersistentVolumeClaim>(&mut state, client, namespace).await?;
    add::<ConfigMap>(&mut state, client, namespace).await?;
    add::<Service>(&mut state, client, namespace).await?;
    add::<NetworkPolicy>(&mut state, client, namespace).await?;
    add::<PodDisruptionBudget>(&mut state, client, namespace).await?;
    Ok(state)
}

async fn add<K>(state: &mut State, client: &Client, namespace: &str) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let kind = K::kind(&());
    for object in Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items {
        let name = object.name_any();
        if !name.starts_with("canary") {
            let object = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
            state.insert(format!("{kind} {name}"), masked(&kind, object));
        }
    }
    Ok(())
}

/// The volumes are the same ones before and after, so keys, genesis and configuration are compared as they are. Masked are: what
/// the API server numbers and dates, what nodes say of themselves and kubelets of pods, certificates, and when a pod's mounts
/// were refreshed.
fn masked(kind: &str, mut object: Value) -> Value {
    let metadata = &object["metadata"];
    let kept = ["name", "labels", "annotations", "finalizers"].map(|key| (key.to_owned(), metadata[key].clone()));
    let mut kept: serde_json::Map<String, Value> = kept.into_iter().collect();
    kept.insert("owner".to_owned(), metadata["ownerReferences"][0]["name"].clone());
    if let Some(annotations) = kept.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(labels::DOCUMENTS);
        // It covers the owner's uid, which is another one after a node has gone and come back. What else it covers is compared.
        annotations.remove(labels::APPLIED);
    }
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let told: BTreeMap<&str, String> = conditions
        .iter()
        .map(|told| (told["type"].as_str().unwrap_or_default(), format!("{} {}", told["status"], told["reason"])))
        .collect();
    let is_ours = matches!(kind, "Network" | "NodePool" | "BizraNode" | "Validator");
    let status = if is_ours {
        // The revision tells whether every pod would be made the same again.
        json!({"conditions": told, "revision": object["status"]["revision"], "failed": object["status"]["failedRevision"]})
    } else {
        Value::Null
    };
    if object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-certificates")) {
        kept.insert("annotations".to_owned(), Value::Null);
        for (_, certificate) in object["data"].as_object_mut().into_iter().flatten() {
            *certificate = json!("a certificate");
        }
    }
    json!({"metadata": kept, "spec": object["spec"], "data": object["data"], "status": status})
}

/// Where two states differ, a line each.
pub(crate) fn differences(fresh: &State, now: &State) -> Vec<String> {
    let mut told = Vec::new();
    for (name, before) in fresh {
        match now.get(name) {
            None => told.push(format!("{name} is gone")),
            Some(after) => compare(name, before, after, &mut told),
        }
    }
    told.extend(now.keys().filter(|name| !fresh.contains_key(*name)).map(|name| format!("{name} is left over")));
    told
}

fn compare(place: &str, before: &Value, after: &Value, told: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                compare(&format!("{place} {key}"), &of(before), &of(after), told);
            }
        }
        (before, after) if before != after => told.push(format!("{place}: {before} has become {after}")),
        _ => {}
    }
}

/// What cannot be taken back by design, and is therefore not compared:
///
/// 1. a volume that has grown stays as large, and so does what is asked for it;
/// 2. the volume of a node that went stays, be it of a pool or of a network that had more validators, for the next node of that name.
pub(crate) fn forgive(fresh: &mut State, now: &mut State) {
    let is_numbered = |name: &String| {
        ["readers-", "demo-v"].iter().any(|prefix| name.starts_with(&format!("PersistentVolumeClaim {prefix}")))
    };
    let left = |name: &String| is_numbered(name) && !fresh.contains_key(name);
    let left: Vec<String> = now.keys().filter(|name| left(name)).cloned().collect();
    now.retain(|name, _| !left.contains(name));
    let size = |object: &Value| object.pointer("/spec/resources/requests/storage").cloned();
    let grown = |name: &String| size(fresh.get(name).unwrap_or(&Value::Null)) != now.get(name).and_then(size);
    if fresh.keys().any(|name| name.starts_with("PersistentVolumeClaim ") && grown(name)) {
        for object in fresh.values_mut().chain(now.values_mut()) {
            for pointer in ["/spec/resources/requests/storage", "/spec/storage/size", "/spec/storage/autoGrow/limit"] {
                if let Some(value) = object.pointer_mut(pointer) {
                    *value = json!("grown");
                }
            }
            if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                annotations.remove(labels::GROWN_AT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, size: &str) -> (String, Value) {
        (format!("PersistentVolumeClaim {name}"), json!({"spec": {"resources": {"requests": {"storage": size}}}}))
    }

    #[test]
    fn a_changed_a_missing_and_an_additional_object_are_told() {
        let pod = |image: &str| ("Pod demo-v0".to_owned(), json!({"spec": {"image": image}}));
        let fresh = State::from([pod("a"), claim("demo-v0-data", "1Gi")]);
        assert_eq!(differences(&fresh, &fresh), Vec::<String>::new());
        let now = State::from([pod("b"), claim("demo-v1-data", "1Gi")]);
        let told = differences(&fresh, &now).join("\n");
        for part in ["demo-v0-data is gone", "spec image: \"a\" has become \"b\"", "demo-v1-data is left over"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn a_grown_volume_and_a_kept_one_are_forgiven_and_nothing_else() {
        let mut fresh = State::from([claim("demo-v0-data", "10Gi")]);
        let mut now = State::from([claim("demo-v0-data", "11Gi"), claim("readers-1-data", "10Gi")]);
        forgive(&mut fresh, &mut now);
        assert_eq!(differences(&fresh, &now), Vec::<String>::new());
        let mut fresh = State::from([claim("demo-v0-data", "10Gi")]);
        let mut now = State::from([claim("demo-v0-data", "10Gi"), claim("other-data", "10Gi")]);
        forgive(&mut fresh, &mut now);
        assert_eq!(differences(&fresh, &now), ["PersistentVolumeClaim other-data is left over"]);
    }

    #[test]
    fn a_revision_is_not_masked_and_a_certificate_is() {
        let pod = json!({"metadata": {"name": "x", "uid": "1", "annotations": {labels::REVISION: "r", labels::DOCUMENTS: "d"}}});
        let pod = masked("Pod", pod);
        assert_eq!(pod["metadata"]["annotations"], json!({labels::REVISION: "r"}));
        assert!(pod["metadata"]["uid"].is_null());
        let map = json!({"metadata": {"name": "demo-certificates"}, "data": {"ca.crt": "-----BEGIN"}});
        assert_eq!(masked("ConfigMap", map)["data"], json!({"ca.crt": "a certificate"}));
    }
}
