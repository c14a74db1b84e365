//! From one Network to a chain whose nodes say that they are in sync.

use std::{sync::atomic::Ordering, time::Duration};

use bizra_operator::api::{BizraNode, Network, condition};
use bizra_proto::ceremony::{Genesis, genesis_hash};
use k8s_openapi::api::{
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::{OPERATOR_NAMESPACE, cluster},
    crash::counting,
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn one_network_becomes_four_nodes_with_a_genesis_of_their_keys() {
    let scenario = Scenario::new("ceremony").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let (client, ledger) = counting(cluster().operator());
    let operator = scenario.operator_with(client);
    let account = json!({"address": "ab".repeat(32), "balance": "1000"});
    scenario.create_network("demo", json!({"chainId": "demo-1", "genesis": {"accounts": [account]}})).await;

    let network = scenario.wait_for_condition("demo", condition::READY, "True", Some("AllValidatorsReady")).await;
    let status = network.status.clone().unwrap();
    assert_eq!(status.observed_generation, network.metadata.generation.unwrap());
    assert_eq!((status.validators.desired, status.validators.ready, status.validators.voting), (4, 4, 4));
    assert_eq!(status.quorum.needed_power, "3");
    assert!(status.height.unwrap() > 0 && status.offenders.is_empty());

    let file = scenario.genesis("demo").await;
    let genesis = Genesis::parse(file.as_bytes()).unwrap();
    assert_eq!(status.genesis_hash, Some(hex::encode(genesis_hash(file.as_bytes()))));
    let names: Vec<&str> = genesis.validators.iter().map(|validator| validator.name.as_str()).collect();
    assert_eq!(names, ["demo-v0", "demo-v1", "demo-v2", "demo-v3"]);
    assert_eq!(genesis.accounts.len(), 1 + 16);

    let map: ConfigMap = scenario.api().get("demo-genesis").await.unwrap();
    assert_eq!((map.immutable, map.owner_references().len()), (Some(true), 0));
    for name in &names {
        let claim: PersistentVolumeClaim = eventually("the claim is labelled with the genesis", || async {
            let claim = scenario.api::<PersistentVolumeClaim>().get(&format!("{name}-data")).await.unwrap();
            if claim.annotations().contains_key("bizra.io/genesis-hash") { Ok(claim) } else { Err("not yet") }
        })
        .await;
        assert_eq!(claim.owner_references().len(), 0);
        assert_eq!(claim.spec.unwrap().access_modes.unwrap(), ["ReadWriteOncePod"]);
    }
    let budget: PodDisruptionBudget = scenario.api().get("demo-validators").await.unwrap();
    assert_eq!(serde_json::to_value(budget.spec.unwrap().min_available).unwrap(), json!(3));
    assert_eq!(scenario.api::<Service>().list(&ListParams::default()).await.unwrap().items.len(), 2);
    let secrets: Api<Secret> = Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    let selector = ListParams::default().labels("bizra.io/network-namespace=ceremony");
    assert_eq!(secrets.list(&selector).await.unwrap().items.len(), 2, "the authority, and the seed of the owners");
    let told = eventually("events are told", || async {
        let events = scenario.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
        if reasons.iter().any(|reason| reason == "GenesisCreated") { Ok(reasons) } else { Err("not yet") }
    })
    .await;
    assert!(!told.is_empty());

    // Nothing is written at rest; what remains to be written after readiness is done soon.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = ledger.writes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ledger.writes.load(Ordering::SeqCst), before, "writes at rest");

    // Nor by an operator that has just started and knows nothing yet: no status is shaken.
    drop(operator);
    let (client, ledger) = counting(cluster().operator());
    let _operator = scenario.operator_with(client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*ledger.written.lock().unwrap(), Vec::<String>::new(), "writes of a new operator");

    // A deleted pod comes back on its volume, with its key.
    let key = scenario.api::<BizraNode>().get("demo-v2").await.unwrap().status.unwrap().public_key;
    let pods = scenario.api::<Pod>();
    let uid = pods.get("demo-v2").await.unwrap().uid();
    pods.delete("demo-v2", &DeleteParams::default()).await.unwrap();
    eventually("the pod is made anew", || async {
        match pods.get_opt("demo-v2").await.unwrap() {
            Some(pod) if pod.uid() != uid => Ok(()),
            _ => Err("not yet"),
        }
    })
    .await;
    scenario.wait_for_node("demo-v2", condition::READY, "True", "InSync").await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(scenario.api::<BizraNode>().get("demo-v2").await.unwrap().status.unwrap().public_key, key);
    assert_eq!(scenario.genesis("demo").await, file);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_node_stopped_is_in_its_condition() {
    let scenario = Scenario::new("last-words").await;
    let (kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let message = r#"{"reason":"DatabaseCorrupt","message":"the database is damaged"}"#;
    kubelet.failures.lock().unwrap().insert("demo-v1".to_owned(), (13, message.to_owned()));
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    let node = scenario.wait_for_node("demo-v1", condition::READY, "False", "DatabaseCorrupt").await;
    let told = node.status.unwrap().conditions;
    assert!(told.iter().any(|condition| condition.message == "the database is damaged"));
    let network = eventually("the network names the offender", || async {
        let network: Network = scenario.api().get("demo").await.unwrap();
        let offenders = network.status.clone().unwrap_or_default().offenders;
        match offenders.iter().find(|offender| offender.reason == "DatabaseCorrupt") {
            Some(_) if offenders.len() == 1 => Ok(network),
            _ => Err(format!("{offenders:?}")),
        }
    })
    .await;
    let status = network.status.unwrap();
    assert_eq!(status.validators.ready, 3);
    let safe = status.conditions.iter().find(|condition| condition.type_ == condition::QUORUM_SAFE).unwrap();
    assert_eq!(safe.status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_left_alone() {
    let scenario = Scenario::new("name-taken").await;
    let foreign = ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some("demo-v0-config".to_owned()), ..Default::default() },
        ..ConfigMap::default()
    };
    scenario.api::<ConfigMap>().create(&PostParams::default(), &foreign).await.unwrap();
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_node("demo-v0", condition::STALLED, "True", "NameTaken").await;
    assert_eq!(scenario.api::<ConfigMap>().get("demo-v0-config").await.unwrap().data, None);
}
