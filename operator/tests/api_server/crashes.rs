//! The operator may die after any write; whoever comes next converges to the same.

use std::{sync::atomic::Ordering, time::Duration};

use bizra_operator::api::{BizraNode, condition};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{ResourceExt, api::ListParams};
use serde_json::json;

use crate::{cluster::cluster, crash::crashing, kubelet::Kubelet, scenario::Scenario};

/// Runs operators that die after `writes` writes each, until the network is ready; returns how many died.
async fn converge_with_crashes(scenario: &Scenario, writes: usize) -> usize {
    let mut deaths = 0;
    loop {
        let (client, ledger) = crashing(cluster().operator(), writes);
        let operator = scenario.operator_with(client);
        for _ in 0..600 {
            if ledger.crashed.load(Ordering::SeqCst) {
                break;
            }
            let network = scenario.api::<bizra_operator::api::Network>().get("demo").await.unwrap();
            let told = network.status.unwrap_or_default().conditions;
            if bizra_operator::controllers::conditions::is_true(&told, condition::READY) {
                return deaths;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(ledger.crashed.load(Ordering::SeqCst), "neither ready nor crashed within 12 s");
        drop(operator);
        deaths += 1;
        assert!(deaths < 400, "no progress");
    }
}

async fn crash_after_every(namespace: &str, writes: usize) {
    let scenario = Scenario::new(namespace).await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    let deaths = converge_with_crashes(&scenario, writes).await;
    assert!(deaths > 5, "only {deaths} operators died: the test does not test");

    // What is there is what one undisturbed operator would have made, and it stays.
    let genesis = scenario.genesis("demo").await;
    let nodes = scenario.api::<BizraNode>().list(&ListParams::default()).await.unwrap().items;
    let claims = scenario.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    let pods = scenario.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!((nodes.len(), claims.len(), pods.len()), (4, 4, 4));
    let _operator = scenario.operator();
    tokio::time::sleep(Duration::from_secs(2)).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(scenario.genesis("demo").await, genesis);
    let mut before: Vec<_> = pods.iter().map(ResourceExt::uid).collect();
    let after = scenario.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let mut after: Vec<_> = after.iter().map(ResourceExt::uid).collect();
    before.sort();
    after.sort();
    assert_eq!(before, after, "no pod was made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_each_write_converges() {
    crash_after_every("crash-1", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_every_third_write_converges() {
    crash_after_every("crash-3", 3).await;
}
