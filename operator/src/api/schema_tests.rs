#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn network(spec: &Value) -> Network {
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Network", "metadata": {"name": "demo"}, "spec": spec,
    }))
    .unwrap()
}

fn refusal(result: Result<(), ValidationErrors>) -> String {
    result.err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn sound_networks_pass_the_rules() {
    for spec in [
        json!({"chainId": "demo-1"}),
        json!({"chainId": "demo-1", "validators": 31, "image": {"tag": "1.0"}}),
        json!({"chainId": "demo-1", "image": {"repository": "x", "digest": "sha256:00"}}),
        json!({"chainId": "demo-1", "resources": {"limits": {"memory": "1Gi"}}}),
        json!({"chainId": "demo-1", "resources": {"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}}}),
    ] {
        assert_eq!(refusal(validate(&network(&spec))), "", "{spec}");
    }
}

#[test]
fn unsound_networks_are_refused_with_a_sentence() {
    for (spec, sentence) in [
        (json!({"chainId": "a", "validators": 3}), "four are the least that survive one fault"),
        (json!({"chainId": "a", "validators": 1}), "four are the least that survive one fault"),
        (json!({"chainId": "a", "validators": 32}), "at most 31"),
        (json!({"chainId": "a", "image": {"tag": "1", "digest": "sha256:00"}}), "not by both"),
        (json!({"chainId": "a", "image": {"repository": "x"}}), "set image.tag or image.digest"),
        (
            json!({"chainId": "a", "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}}),
            "must be equal",
        ),
        (json!({"chainId": "a", "pod": {"labels": {"bizra.io/x": "y"}}}), "choose another prefix"),
        (json!({"chainId": "a", "storage": {"size": "2Gi", "autoGrow": {"limit": "1Gi"}}}), "storage.size or more"),
    ] {
        let told = refusal(validate(&network(&spec)));
        assert!(told.contains(sentence), "{spec}: {told}");
    }
}

#[test]
fn what_a_chain_is_made_of_cannot_change_and_volumes_only_grow() {
    let old = network(&json!({"chainId": "a", "storage": {"size": "2Gi"}}));
    for (spec, sentence) in [
        (json!({"chainId": "b", "storage": {"size": "2Gi"}}), "set spec.chainId back"),
        (json!({"chainId": "a", "storage": {"size": "1Gi"}}), "a volume cannot shrink"),
        (json!({"chainId": "a", "storage": {"size": "2Gi", "className": "x"}}), "set storage.className back"),
        (
            json!({"chainId": "a", "storage": {"size": "2Gi"}, "genesis": {"accounts": [{"address": "0", "balance": "1"}]}}),
            "set spec.genesis back",
        ),
        (
            json!({"chainId": "a", "storage": {"size": "2Gi"}, "genesis": {"spareValidators": 1}}),
            "set spec.genesis back",
        ),
    ] {
        let told = refusal(validate_update(&network(&spec), &old));
        assert!(told.contains(sentence), "{spec}: {told}");
    }
    let grown = network(&json!({"chainId": "a", "validators": 5, "storage": {"size": "3Gi"}, "image": {"tag": "2"}}));
    assert_eq!(refusal(validate_update(&grown, &old)), "");
}

#[test]
fn a_jailing_is_acknowledged_after_it_has_happened() {
    let key = "05".repeat(32);
    let with = |acknowledged: &[String], jailed: &[&String]| {
        let mut network = network(&json!({"chainId": "a", "acknowledgedJailings": acknowledged}));
        let jailing = |id: &&String| json!({"id": id, "validator": "v", "node": "n", "publicKey": key, "height": 7});
        let jailings: Vec<Value> = jailed.iter().map(jailing).collect();
        network.status = Some(serde_json::from_value(json!({"jailings": jailings})).unwrap());
        network
    };
    let (first, second) = (format!("{key}@7"), format!("{key}@8"));
    let early = refusal(validate_update(&with(std::slice::from_ref(&first), &[]), &with(&[], &[])));
    assert!(early.contains("add only what status.jailings shows"), "{early}");
    let other = refusal(validate_update(&with(&[second], &[&first]), &with(&[], &[&first])));
    assert!(other.contains("add only what status.jailings shows"), "{other}");
    let acknowledged = with(std::slice::from_ref(&first), &[&first]);
    assert_eq!(refusal(validate_update(&acknowledged, &with(&[], &[&first]))), "");
    // It stays acknowledged when the status forgets it, and in a manifest for a new cluster.
    assert_eq!(refusal(validate_update(&with(std::slice::from_ref(&first), &[]), &acknowledged)), "");
    assert_eq!(refusal(validate(&with(&[first], &[]))), "");
}

fn pool(name: &str, spec: &Value) -> NodePool {
    let mut whole = json!({"networkRef": {"name": "demo"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pool = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "NodePool", "metadata": {"name": name}, "spec": whole,
    });
    serde_json::from_value(pool).unwrap()
}

#[test]
fn unsound_pools_are_refused_with_a_sentence() {
    let longest = "a".repeat(59);
    for (name, spec) in [("a", json!({"replicas": 0})), (longest.as_str(), json!({"replicas": 100})), ("ca", json!({}))]
    {
        assert_eq!(refusal(validate(&pool(name, &spec))), "", "{name} {spec}");
    }
    let too_long = "a".repeat(60);
    for (name, spec, sentence) in [
        ("a", json!({"replicas": -1}), "set spec.replicas to 0 or more"),
        ("a", json!({"replicas": 101}), "create another NodePool"),
        ("a", json!({"maxUnavailable": 0}), "set spec.maxUnavailable to 1 or more"),
        ("a", json!({"hostGraceSeconds": 9}), "set spec.hostGraceSeconds to 10 or more"),
        ("a", json!({"image": {"tag": "1", "digest": "sha256:00"}}), "not by both"),
        (&too_long, json!({}), "choose a shorter one"),
        ("1st", json!({}), "starts with a letter"),
    ] {
        let told = refusal(validate(&pool(name, &spec)));
        assert!(told.contains(sentence), "{name} {spec}: {told}");
    }
    let old = pool("a", &json!({"storage": {"size": "2Gi"}}));
    for (spec, sentence) in [
        (json!({"networkRef": {"name": "other"}}), "create a new NodePool"),
        (json!({"storage": {"size": "1Gi"}}), "a volume cannot shrink"),
    ] {
        let told = refusal(validate_update(&pool("a", &spec), &old));
        assert!(told.contains(sentence), "{spec}: {told}");
    }
}

#[test]
fn a_pool_has_a_scale_that_autoscalers_can_use_and_a_network_has_none() {
    for definition in definitions().unwrap() {
        let kind = definition.spec.names.kind.clone();
        let scale = definition.spec.versions[0].subresources.as_ref().and_then(|all| all.scale.clone());
        let paths = scale.map(|scale| {
            (scale.spec_replicas_path, scale.status_replicas_path, scale.label_selector_path.unwrap_or_default())
        });
        let expected = (".spec.replicas", ".status.replicas", ".status.selector");
        let expected =
            (kind == "NodePool").then(|| (expected.0.to_owned(), expected.1.to_owned(), expected.2.to_owned()));
        assert_eq!(paths, expected, "{kind}");
    }
}

/// Every schema below `schema`, with its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            walk(inner, &format!("{path}.{key}"), visit);
        }
    }
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(inner, &format!("{path}.{name}"), visit);
    }
}

#[test]
fn everything_is_bounded_and_nothing_is_unsigned_or_floating() {
    for definition in definitions().unwrap() {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            walk(&schema["properties"][part], part, &mut |path, schema| {
                let type_ = schema["type"].as_str().unwrap_or_default();
                let format = schema["format"].as_str().unwrap_or_default();
                assert!(!format.starts_with("uint") && type_ != "number", "{path}: {type_} {format}");
                assert!(type_ != "array" || schema["maxItems"].is_u64(), "{path} has no maxItems");
                let bounded = schema["maxLength"].is_u64() || !schema["enum"].is_null() || !format.is_empty();
                assert!(type_ != "string" || bounded, "{path} has no maxLength");
                assert_ne!(schema["x-kubernetes-preserve-unknown-fields"], json!(true), "{path} takes unknown fields");
            });
        }
        assert_eq!(schema["properties"]["status"]["default"], json!({"observedGeneration": -1}));
        assert!(serde_json::to_string(&definition).unwrap().len() < 200 * 1024);
    }
}

#[test]
fn the_checked_in_definitions_are_the_generated_ones() {
    for definition in definitions().unwrap() {
        let name = definition.metadata.name.clone().unwrap();
        let path = format!("../crds/{name}.yaml");
        let checked_in = std::fs::read_to_string(&path).unwrap();
        let generated = serde_yaml_ng::to_string(&definition).unwrap();
        assert!(checked_in == generated, "crds/{name}.yaml is not up to date; run `make generate`");
    }
}

#[test]
fn the_roles_of_chart_and_kustomization_are_the_same() {
    let root = std::path::Path::new("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let rbac = read("config/default/rbac.yaml");
    let roles: Vec<Value> = rbac
        .split("---\n")
        .map(|document| serde_yaml_ng::from_str(document).unwrap())
        .filter(|role: &Value| !role["rules"].is_null())
        .collect();
    for (role, file) in roles.iter().zip(["cluster-rules", "own-rules", "owner-rules"]) {
        let expected: Value =
            serde_yaml_ng::from_str(&read(&format!("charts/bizra-operator/files/{file}.yaml"))).unwrap();
        assert_eq!(role["rules"], expected, "{file}.yaml and config/default/rbac.yaml differ");
        assert!(!expected.to_string().contains('*'), "a wildcard in {file}.yaml");
    }
    assert_eq!(roles.len(), 3);
}
