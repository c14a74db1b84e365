#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;

fn network(spec: &Value) -> Network {
    let mut whole = json!({"chainId": "demo-1"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Network",
        "metadata": {"name": "demo", "namespace": "default", "uid": "network-1"}, "spec": whole,
    }))
    .unwrap()
}

fn ingress(spec: &Value) -> Value {
    let policy = network_policy(&network(spec), "demo", "default", "bizra-system");
    serde_json::to_value(policy).unwrap()["spec"]["ingress"].clone()
}

/// The rule for a port; none is `null`.
fn rule(spec: &Value, port: u16) -> Value {
    let rules = ingress(spec);
    let of = |rule: &&Value| rule["ports"].as_array().unwrap().iter().any(|one| one["port"] == json!(port));
    rules.as_array().unwrap().iter().find(of).cloned().unwrap_or_default()
}

#[test]
fn what_a_network_lets_through_by_default() {
    let policy = network_policy(&network(&json!({})), "demo", "default", "bizra-system");
    let nodes =
        json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "bizra-node", "bizra.io/network": "demo"}}});
    let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
    let expected = json!({
        "podSelector": nodes["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [nodes], "ports": [tcp(7100)]},
            {
                "from": [{
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bizra-system"}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "bizra-operator"}},
                }],
                "ports": [tcp(7400)],
            },
            {"from": [{"podSelector": {}}], "ports": [tcp(7200), tcp(7300)]},
            {
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}],
                "ports": [tcp(7500)],
            },
        ],
        "egress": [
            {"to": [nodes], "ports": [tcp(7100)]},
            {"ports": [{"protocol": "UDP", "port": 53}, tcp(53)]},
        ],
    });
    assert_eq!(serde_json::to_value(policy.spec).unwrap(), expected);
}

#[test]
fn a_published_service_is_open_and_a_list_of_clients_is_the_whole_list() {
    let published = json!({"service": {"type": "NodePort"}});
    assert_eq!(rule(&published, 7200)["from"], Value::Null);
    assert!(!rule(&published, 7200).is_null());
    let named =
        json!({"service": {"type": "NodePort"}, "networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}});
    assert_eq!(rule(&named, 7300)["from"], json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}]));
    let nobody = json!({"service": {"type": "NodePort"}, "networkPolicy": {"clients": [], "monitoring": []}});
    assert_eq!((rule(&nobody, 7200), rule(&nobody, 7500)), (Value::Null, Value::Null));
    // Never a rule without peers for the ports that are nobody else's.
    for spec in [published, named, nobody] {
        assert!(rule(&spec, 7100)["from"].is_array() && rule(&spec, 7400)["from"].is_array());
    }
}

#[test]
fn a_peer_that_no_api_server_takes_lets_nobody_in_and_is_told_of() {
    let good = json!({"podSelector": {"matchLabels": {"example.org/role": "wallet"}}});
    for (bad, sentence) in [
        (json!({}), "it is empty"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}), "make two peers of it"),
        (json!({"ipBlock": {"cidr": "10.0.0.1/8"}}), "bits beyond its prefix"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/33"}}), "too long a prefix"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/08"}}), "no range of addresses"),
        (json!({"ipBlock": {"cidr": "here"}}), "no range of addresses"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}), "not a part of"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}), "not a part of"),
        (json!({"podSelector": {"matchLabels": {"-x": "y"}}}), "no key of a label"),
        (json!({"podSelector": {"matchLabels": {"Example.org/x": "y"}}}), "no key of a label"),
        (json!({"podSelector": {"matchLabels": {"x": "y z"}}}), "no value of a label"),
        (json!({"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "In"}]}}), "needs values"),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "Exists", "values": ["y"]}]}}),
            "takes no values",
        ),
        (json!({"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "Is"}]}}), "no operator"),
    ] {
        let spec = json!({"networkPolicy": {"clients": [good, bad]}});
        assert_eq!(rule(&spec, 7200)["from"], json!([good]), "{bad}");
        let told = unsound(&network(&spec)).unwrap();
        assert!(told.starts_with("spec.networkPolicy.clients[1] ") && told.contains(sentence), "{bad}: {told}");
    }
    let only_bad = json!({"networkPolicy": {"clients": [{}]}});
    assert_eq!(rule(&only_bad, 7200), Value::Null);
    let sound = json!({"networkPolicy": {"monitoring": [good, {"ipBlock": {"cidr": "fd00::/8", "except": ["fd01::/16"]}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]}});
    assert_eq!(unsound(&network(&sound)), None);
}
