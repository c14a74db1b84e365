#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::controllers::fixtures::{network, network_observed, node};

const KEY: &str = "0505050505050505050505050505050505050505050505050505050505050505";

/// A Validator of `demo-v<ordinal>` that was jailed at this height.
fn jailed(ordinal: i32, height: i64) -> Validator {
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Validator",
        "metadata": {"name": format!("owner-{ordinal}"), "namespace": "default", "uid": format!("validator-{ordinal}")},
        "spec": {
            "networkRef": {"name": "demo"}, "nodeRef": {"name": format!("demo-v{ordinal}")},
            "owner": {"secretName": "owner"}, "stake": "1000",
        },
        "status": {"publicKey": KEY, "jailedAt": height},
    }))
    .unwrap()
}

fn with_key(mut node: BizraNode, key: &str) -> BizraNode {
    node.status.get_or_insert_default().public_key = Some(key.to_owned());
    node
}

#[test]
fn a_jailing_outlives_its_validator_until_it_is_acknowledged_and_no_node_has_the_key() {
    let (mut network, mut observed) = (network("demo-1"), network_observed());
    assert_eq!(known(&network, &observed), []);
    observed.validators.push(jailed(2, 77));
    observed.nodes.push(with_key(node(2), KEY));
    let kept = known(&network, &observed);
    let id = format!("{KEY}@77");
    assert_eq!(kept.iter().map(|kept| kept.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let told = standstill(&network, &kept).unwrap();
    assert!(told.message.contains("owner-2") && told.message.contains(&id), "{}", told.message);

    network.status.get_or_insert_default().jailings.clone_from(&kept);
    assert_eq!(known(&network, &observed), kept, "once");
    observed.validators.clear();
    assert_eq!(known(&network, &observed), kept, "its Validator is gone");
    network.spec.acknowledged_jailings.push(id);
    assert_eq!(known(&network, &observed), kept, "its key is still there");
    assert_eq!(standstill(&network, &kept), None);
    observed.nodes[0] = with_key(node(2), "06");
    assert_eq!(known(&network, &observed), []);
    // The same key at another height is another jailing, and not acknowledged.
    observed.validators.push(jailed(2, 78));
    assert!(standstill(&network, &known(&network, &observed)).is_some());
}

#[test]
fn a_node_is_fenced_for_as_long_as_it_may_have_the_jailed_key() {
    let (mut network, mut observed) = (network("demo-1"), network_observed());
    observed.validators.push(jailed(2, 77));
    network.status.get_or_insert_default().jailings = known(&network, &observed);
    let word = |node: &BizraNode, said: Option<&str>| {
        let said = said.map(|key| NodeStatus { public_key: key.to_owned(), ..NodeStatus::default() });
        fence(node, Some(&network), said.as_ref()).map(|order| order.word)
    };
    let jailed = Some("Jailed".to_owned());
    let (known, other) = (with_key(node(2), KEY), with_key(node(2), "06"));
    assert_eq!(word(&known, None), jailed);
    assert_eq!(word(&known, Some("06")), jailed, "its volume was replaced, and its status does not say so yet");
    assert_eq!(word(&other, Some(KEY)), jailed);
    assert_eq!(word(&other, Some("06")), None);
    assert_eq!(word(&node(3), None), None, "nobody else");
    network.spec.acknowledged_jailings.push(format!("{KEY}@77"));
    assert!(fence(&known, Some(&network), None).is_some(), "acknowledged, and still jailed");
}
