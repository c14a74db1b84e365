//! Revisions: hashes that change exactly when a pod would have to be made anew. Nothing an operator upgrade alone touches is
//! in them; golden tests pin both.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::{node, short_hash};
use crate::api::{NodeTemplate, PodMetadataSpec};

/// The revision of a template: the same for every node that is meant to be like it. The one place that lists which fields
/// may change a pod: a new field does not compile until it is decided here.
pub fn of_template(template: &NodeTemplate) -> Result<String, serde_json::Error> {
    let NodeTemplate {
        image,
        image_pull_secrets,
        // The claim grows in place.
        storage: _,
        resources,
        node_selector,
        tolerations,
        affinity,
        host_spread,
        priority_class_name,
        pod: PodMetadataSpec { labels, annotations },
    } = template;
    hash(json!({
        "image": node::image_reference(image),
        "pullPolicy": image.pull_policy,
        "imagePullSecrets": image_pull_secrets,
        "resources": resources,
        "nodeSelector": node_selector,
        "tolerations": tolerations,
        "affinity": affinity,
        "hostSpread": host_spread,
        "priorityClassName": priority_class_name,
        "labels": labels,
        "annotations": annotations,
    }))
}

/// The revision of one node's pod: its spec, the template's labels and annotations, and the configuration it reads at
/// its start.
pub fn of_pod(
    spec: &PodSpec,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    config: &str,
) -> Result<String, serde_json::Error> {
    hash(json!({ "spec": spec, "labels": labels, "annotations": annotations, "config": config }))
}

/// Keys sorted, and what says nothing left out: a field that is absent and one that is empty are the same pod.
fn hash(value: Value) -> Result<String, serde_json::Error> {
    Ok(short_hash(&serde_json::to_vec(&normalised(value))?))
}

fn normalised(value: Value) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(key, value)| (key, normalised(value)))
                .filter(|(_, value)| says_something(value))
                .collect();
            fields.into_iter().collect()
        }
        Value::Array(items) => items.into_iter().map(normalised).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::StorageSpec;

    /// A changed revision means that every node will be restarted. If this fails because templates have changed on purpose,
    /// say so in the changelog and take the new value over.
    #[test]
    fn a_new_operator_does_not_change_the_revision_of_an_unchanged_template() {
        let template = NodeTemplate { image: node::parse_image("localhost/bizra:dev"), ..NodeTemplate::default() };
        assert_eq!(of_template(&template).unwrap(), "a595d00fd8698fa8");
    }

    #[test]
    fn a_larger_volume_is_no_other_revision_but_another_image_or_label_is() {
        let template = NodeTemplate { image: node::parse_image("localhost/bizra:dev"), ..NodeTemplate::default() };
        let before = of_template(&template).unwrap();
        let mut larger = template.clone();
        larger.storage = StorageSpec { size: "20Gi".to_owned(), ..StorageSpec::default() };
        assert_eq!(of_template(&larger).unwrap(), before);
        let mut other = template.clone();
        other.image.tag = Some("next".to_owned());
        assert_ne!(of_template(&other).unwrap(), before);
        let mut labelled = template;
        labelled.pod.labels.insert("team".to_owned(), "ledger".to_owned());
        assert_ne!(of_template(&labelled).unwrap(), before);
    }

    #[test]
    fn what_says_nothing_does_not_count() {
        assert_eq!(normalised(json!({"a": {"b": []}, "c": null, "d": 0})), json!({"d": 0}));
    }
}
