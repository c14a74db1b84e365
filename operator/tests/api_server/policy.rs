//! The network policy on a real API server: there, kept, and gone when it is not wanted.

use std::sync::atomic::Ordering;

use bizra_operator::api::{Network, condition};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::cluster,
    crash::counting,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

async fn set(scenario: &Scenario, spec: serde_json::Value) {
    let patch = Patch::Merge(json!({"spec": {"networkPolicy": spec}}));
    scenario.api::<Network>().patch("demo", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_a_network_is_kept_against_drift_and_removed_when_it_is_not_wanted() {
    let scenario = Scenario::new("policy").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let (client, ledger) = counting(cluster().operator());
    let _operator = scenario.operator_with(client);
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let policies = scenario.api::<NetworkPolicy>();
    let made = policies.get("demo-nodes").await.unwrap();
    let spec = made.spec.clone().unwrap();
    assert_eq!(spec.policy_types.as_deref(), Some(&["Ingress".to_owned(), "Egress".to_owned()][..]));

    // What the API server made of it is what was asked for: nothing is written at rest.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let before = ledger.writes.load(Ordering::SeqCst);
    let poke = Patch::Merge(json!({"metadata": {"labels": {"example.org/poke": "1"}}}));
    policies.patch("demo-nodes", &PatchParams::default(), &poke).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let written = ledger.written.lock().unwrap()[before..].to_vec();
    assert!(written.iter().all(|write| !write.contains("networkpolicies")), "{written:?}");

    // Another hand that opens it, beside what the operator asks for or instead of it.
    for hole in [
        json!({"spec": {"ingress": [{}]}}),
        json!({"spec": {"egress": [{}]}}),
        json!({"spec": {"policyTypes": ["Ingress"]}}),
        json!({"spec": {"podSelector": {"matchLabels": {"no": "body"}}}}),
    ] {
        policies.patch("demo-nodes", &PatchParams::default(), &Patch::Merge(&hole)).await.unwrap();
        eventually("the hole is closed", || async {
            let now = policies.get("demo-nodes").await.unwrap().spec.unwrap();
            if now == spec { Ok(()) } else { Err(format!("{hole}: {now:?}")) }
        })
        .await;
    }
    policies.delete("demo-nodes", &DeleteParams::default()).await.unwrap();
    eventually("it is back", || async {
        let now = policies.get_opt("demo-nodes").await.unwrap();
        if now.is_some_and(|now| now.uid() != made.uid()) { Ok(()) } else { Err("not there") }
    })
    .await;

    // A peer that cannot be: nobody is let in by it, and the Network says so until it is mended.
    set(&scenario, json!({"clients": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]})).await;
    let network =
        scenario.wait_for_condition("demo", condition::STALLED, "True", Some("InvalidNetworkPolicyPeer")).await;
    let told = format!("{:?}", network.status.unwrap().conditions);
    assert!(told.contains("spec.networkPolicy.clients[0]"), "{told}");
    set(&scenario, json!({"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})).await;
    scenario.wait_for_condition("demo", condition::STALLED, "False", None).await;

    set(&scenario, json!({"mode": "Disabled"})).await;
    eventually("it is gone", || async {
        if policies.get_opt("demo-nodes").await.unwrap().is_none() { Ok(()) } else { Err("there") }
    })
    .await;
    set(&scenario, json!({"mode": "DefaultDeny"})).await;
    eventually("it is back", || async { policies.get("demo-nodes").await.map_err(|error| error.to_string()) }).await;
}
