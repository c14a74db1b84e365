//! The custom resource definitions as they are installed: the derived schemas, made fit for an API server.
//!
//! What the derive cannot say is added here for all kinds alike: bounds for embedded Kubernetes types, list-map keys of
//! conditions, the status default, rules about names. The rules of [`validate`] are the same ones, run client-side.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    CustomResourceExt,
    core::cel::{ValidationErrors, Validator},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{BizraNode, Network, NodePool, Validator as ValidatorKind, bizra_node, network, node_pool, validator};

/// Name of an object that a spec refers to: a DNS subdomain.
pub(super) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Key of an entry of a Secret.
pub(super) const SECRET_KEY: &str = r"^[-._a-zA-Z0-9]+$";
/// Bound of every list that states none.
const MAX_ITEMS: u64 = 64;
/// Bound of every string that states none.
const MAX_LENGTH: u64 = 1024;

/// The definitions of all kinds, as installed.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    Ok(vec![
        definition::<Network>()?,
        definition::<BizraNode>()?,
        definition::<NodePool>()?,
        definition::<ValidatorKind>()?,
    ])
}

/// Runs the CEL rules for a new object.
pub fn validate<K: CustomResourceExt + Serialize>(object: &K) -> Result<(), ValidationErrors> {
    run_rules(object, None)
}

/// Runs the CEL rules for a change of an object.
pub fn validate_update<K: CustomResourceExt + Serialize>(object: &K, old: &K) -> Result<(), ValidationErrors> {
    run_rules(object, Some(old))
}

fn run_rules<K: CustomResourceExt + Serialize>(object: &K, old: Option<&K>) -> Result<(), ValidationErrors> {
    let mut schema = definition::<K>()
        .and_then(serde_json::to_value)
        .unwrap_or_default()
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_default();
    // The evaluator needs types where the API server infers them.
    schema["properties"]["metadata"] = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let value = |object: &K| serde_json::to_value(object).unwrap_or_default();
    Validator::new().validate(&schema, &value(object), old.map(value).as_ref())
}

fn definition<K: CustomResourceExt>() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut definition = serde_json::to_value(K::crd())?;
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let columns = match kind.as_str() {
        "Network" => network::COLUMNS,
        "NodePool" => node_pool::COLUMNS,
        "Validator" => validator::COLUMNS,
        _ => bizra_node::COLUMNS,
    };
    definition["spec"]["versions"][0]["additionalPrinterColumns"] =
        columns.iter().map(|(name, type_, path)| json!({"name": name, "type": type_, "jsonPath": path})).collect();
    if kind == "Validator"
        && let Some(columns) = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array_mut()
    {
        columns.extend(
            validator::WIDE_COLUMNS
                .iter()
                .map(|(name, type_, path)| json!({"name": name, "type": type_, "jsonPath": path, "priority": 1})),
        );
    }
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    // The derived spec comes as a whole; embedded Kubernetes types carry pages of prose that would blow the size.
    bound(schema, Prose::Ours);
    schema["x-kubernetes-validations"] = name_rules(&kind);
    schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    schema["properties"]["status"]["properties"]["observedGeneration"]["default"] = json!(-1);
    let conditions = &mut schema["properties"]["status"]["properties"]["conditions"];
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    conditions["maxItems"] = json!(16);
    conditions["items"]["properties"]["message"]["maxLength"] = json!(32768);
    for name in ["lastTransitionTime", "message", "observedGeneration", "reason", "status", "type"] {
        if let Some(property) = conditions["items"]["properties"][name].as_object_mut() {
            property.remove("description");
        }
    }
    if let Some(fields) = conditions.as_object_mut() {
        fields.remove("default");
    }
    serde_json::from_value(definition)
}

/// Names become host names and parts of other names.
fn name_rules(kind: &str) -> Value {
    let longest = match kind {
        "Network" => 40,
        // Room for the ordinal.
        "NodePool" => 59,
        _ => 63,
    };
    let mut rules = json!([
        {
            "rule": format!("size(self.metadata.name) <= {longest}"),
            "message": format!("a {kind}'s name becomes part of host names and may have at most {longest} characters; choose a shorter one"),
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": format!("a {kind}'s name becomes a host name: it starts with a letter and has only a-z, 0-9 and '-'; choose another one"),
        },
    ]);
    if let (true, Some(rules)) = (kind == "BizraNode", rules.as_array_mut()) {
        rules.push(json!({
            "rule": "!(self.metadata.name in ['ca', 'operator-ca'])",
            "message": "the certificates of authorities are called so; choose another name",
        }));
    }
    if let (true, Some(rules)) = (kind == "Network", rules.as_array_mut()) {
        // Of a change only: a manifest that names what another cluster has seen can be applied to a new one.
        rules.push(json!({
            "rule": "!has(self.spec.acknowledgedJailings) || self.spec.acknowledgedJailings.all(id, (has(oldSelf.spec.acknowledgedJailings) && id in oldSelf.spec.acknowledgedJailings) || (has(self.status) && has(self.status.jailings) && self.status.jailings.exists(jailing, jailing.id == id)))",
            "message": "a jailing is acknowledged after it has happened; add only what status.jailings shows as id",
        }));
    }
    rules
}

/// Whose descriptions a schema has.
#[derive(Clone, Copy, PartialEq)]
enum Prose {
    Ours,
    Kubernetes,
}

/// Fields of the spec that are embedded Kubernetes types.
const EMBEDDED: [&str; 5] = ["affinity", "tolerations", "resources", "clients", "monitoring"];

/// Bounds lists and strings, drops formats the API server does not know, and shortens foreign prose.
fn bound(schema: &mut Value, prose: Prose) {
    let Some(fields) = schema.as_object_mut() else { return };
    match fields.get("type").and_then(Value::as_str) {
        Some("array") => {
            fields.entry("maxItems").or_insert_with(|| json!(MAX_ITEMS));
        }
        Some("string") if !fields.contains_key("enum") && !fields.contains_key("format") => {
            fields.entry("maxLength").or_insert_with(|| json!(MAX_LENGTH));
        }
        Some("object") if fields.contains_key("additionalProperties") => {
            fields.entry("maxProperties").or_insert_with(|| json!(MAX_ITEMS));
        }
        _ => {}
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        fields.entry("maxLength").or_insert_with(|| json!(32));
    }
    if prose == Prose::Kubernetes {
        fields.remove("description");
    } else if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = on_one_line(text);
    }
    // Without the flag the API server drops nulls, so that `has()` means what it says.
    fields.remove("nullable");
    if fields.get("default") == Some(&Value::Null) {
        fields.remove("default");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            bound(inner, prose);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        bound_properties(properties, prose);
    }
}

fn bound_properties(properties: &mut Map<String, Value>, prose: Prose) {
    for (name, property) in properties {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let description = property.get("description").cloned();
        let embedded = EMBEDDED.contains(&name.as_str());
        bound(property, if embedded { Prose::Kubernetes } else { prose });
        // What the field is for is our prose even where its type is not ours.
        if let (Some(Value::String(text)), true, Prose::Ours) = (description, embedded, prose) {
            property["description"] = json!(on_one_line(&text));
        }
    }
}

/// Rust doc comments wrap lines; descriptions do not.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
