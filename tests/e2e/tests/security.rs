//! What keeps strangers out, shown by connections that do not come about.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bizra_e2e::audit::{Grant, Use, Verdict, grants};
use bizra_e2e::scene::{Scene, SceneError, small_network};
use bizra_e2e::stage::Stage;
use bizra_operator::api::BizraNode;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::NetworkPolicy,
    rbac::v1::PolicyRule,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

type Outcome = Result<(), SceneError>;

const PEER: u16 = bizra_proto::port::PEER;
const CLIENTS: [u16; 2] = [bizra_proto::port::GRPC, bizra_proto::port::HTTP];
const ALL: [u16; 5] = [PEER, CLIENTS[0], CLIENTS[1], bizra_proto::port::ADMIN, bizra_proto::port::MONITORING];

/// Address, host and image of a pod.
async fn place(scene: &Scene, pod: &str) -> Result<(String, String, String), SceneError> {
    let pod = scene.api::<Pod>().get(pod).await?;
    let spec = pod.spec.unwrap();
    Ok((
        pod.status.and_then(|status| status.pod_ip).unwrap(),
        spec.node_name.unwrap(),
        spec.containers[0].image.clone().unwrap(),
    ))
}

fn at(address: &str, ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("{address}:{port}")).collect()
}

#[tokio::test]
async fn strangers_reach_no_port_of_a_node_until_its_network_is_opened() -> Outcome {
    let scene = Scene::start("closed").await?;
    let foreign = Scene::start("foreign").await?;
    let mut network = small_network("closed-1")?;
    scene.apply(&network).await?;
    // Ready means that the validators reach each other and the operator reaches all of them.
    scene.wait_ready("demo", 120).await?;
    let (address, host, image) = place(&scene, "demo-v0").await?;
    let (_, other_host, _) = place(&scene, "demo-v1").await?;
    let none = json!({});
    let all = at(&address, &ALL);

    for (name, host) in [("same-host", &host), ("other-host", &other_host)] {
        let reached = foreign.reaches(name, host, &none, &image, &all).await?;
        assert_eq!(reached, Vec::<String>::new(), "a pod of another namespace, {name}");
        let reached = scene.reaches(name, host, &none, &image, &all).await?;
        assert_eq!(reached, at(&address, &CLIENTS), "a pod of this namespace, {name}");
        // Looking like the operator is not enough outside of its namespace.
        let disguise = json!({"app.kubernetes.io/name": "bizra-operator"});
        let reached = foreign.reaches("disguised", host, &disguise, &image, &all).await?;
        assert_eq!(reached, Vec::<String>::new(), "a pod that is labelled like the operator, {name}");
    }

    // The other direction: what is labelled like a node of the network speaks with nodes only. The API server is one that
    // everybody else reaches.
    let services = Api::<Service>::namespaced(scene.client.clone(), "default");
    let api = services.get("kubernetes").await?.spec.and_then(|spec| spec.cluster_ip).unwrap();
    let api = format!("{api}:443");
    let targets = [vec![api.clone()], at(&address, &[PEER])].concat();
    let disguise = json!({"app.kubernetes.io/name": "bizra-node", "bizra.io/network": "demo"});
    assert_eq!(scene.reaches("disguised", &other_host, &disguise, &image, &targets).await?, at(&address, &[PEER]));
    assert_eq!(scene.reaches("nobody", &other_host, &none, &image, &targets).await?, [api]);

    // Named clients replace the default.
    network["spec"]["networkPolicy"] = json!({"clients": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": foreign.namespace}},
        "podSelector": {"matchLabels": {"role": "wallet"}},
    }]});
    scene.apply(&network).await?;
    let wallet = json!({"role": "wallet"});
    scene
        .wait("the named client reaches the client ports", 60, || async {
            let reached = foreign.reaches("wallet", &other_host, &wallet, &image, &all).await?;
            Ok(if reached == at(&address, &CLIENTS) { Ok(()) } else { Err(format!("{reached:?}")) })
        })
        .await?;
    assert_eq!(scene.reaches("former", &other_host, &none, &image, &all).await?, Vec::<String>::new());

    // Turned off, the same stranger's connections come about.
    network["spec"]["networkPolicy"] = json!({"mode": "Disabled"});
    scene.apply(&network).await?;
    scene
        .wait("the policy is gone", 60, || async {
            let left = scene.names::<NetworkPolicy>().await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await?;
    scene
        .wait("a stranger reaches every port", 60, || async {
            let reached = foreign.reaches("stranger", &other_host, &none, &image, &all).await?;
            Ok(if reached == all { Ok(()) } else { Err(format!("{reached:?}")) })
        })
        .await?;
    foreign.remove().await?;
    scene.remove().await
}

/// Uids of the network's pods.
async fn uids(scene: &Scene) -> Result<BTreeMap<String, Option<String>>, SceneError> {
    let pods = scene.api::<Pod>().list(&ListParams::default()).await?;
    Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid())).collect())
}

async fn certificates(scene: &Scene) -> Result<BTreeMap<String, String>, SceneError> {
    Ok(scene.api::<ConfigMap>().get("demo-certificates").await?.data.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes six minutes; `make e2e` has it"]
async fn certificates_are_renewed_every_minute_for_five_minutes_and_authorities_replaced_while_clients_are_served()
-> Outcome {
    const SECONDS: u64 = 300;
    let mut stage = Stage::start("rotating", |_| {}).await?;
    let (before, first) = (uids(&stage.scene).await?, certificates(&stage.scene).await?);
    stage.begin();
    // They are renewed after two thirds of their life.
    stage.change(json!({"certificates": {"nodeLifetimeSeconds": 90}})).await?;
    let begun = Instant::now();
    let (mut seen, mut asked) = (BTreeSet::new(), false);
    while begun.elapsed() < Duration::from_secs(SECONDS) {
        seen.insert(certificates(&stage.scene).await?["demo-v0.crt"].clone());
        if !asked && begun.elapsed() > Duration::from_secs(SECONDS / 2) {
            asked = true;
            stage.change(json!({"certificates": {"rotation": 1}})).await?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    stage.end("certificates renewed, authorities replaced").await?;
    assert!(seen.len() as u64 >= SECONDS / 60, "only {} certificates in {SECONDS} s", seen.len());

    let scene = &stage.scene;
    scene
        .wait("another authority is the only one", 60, || async {
            let now = certificates(scene).await?;
            let one = now["ca.crt"].matches("BEGIN CERTIFICATE").count() == 1;
            Ok(if one && now["ca.crt"] != first["ca.crt"] { Ok(()) } else { Err(now["ca.crt"].clone()) })
        })
        .await?;
    assert_eq!(uids(scene).await?, before, "no pod was made anew");
    // Connections live on when the certificates behind them have ended. A node that starts needs new ones, with everybody.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    scene.api::<Pod>().delete("demo-v1", &now).await?;
    scene
        .wait("demo-v1 is back with all its peers", 60, || async {
            let pod = uids(scene).await?;
            let node = scene.api::<BizraNode>().get("demo-v1").await?.status.unwrap_or_default();
            let ready = node.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let back = pod.get("demo-v1").is_some_and(|uid| *uid != before["demo-v1"]);
            Ok(if back && ready && node.peers == Some(3) { Ok(()) } else { Err(format!("{node:?}")) })
        })
        .await?;
    stage.finish().await
}

#[test]
fn the_audit_finds_what_was_not_used_what_nobody_should_have_and_what_was_missing() {
    let rules = |rules: serde_json::Value| -> Vec<PolicyRule> { serde_json::from_value(rules).unwrap() };
    let mut granted = grants(
        None,
        &rules(json!([
            {"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get", "watch"]},
            {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
            {"apiGroups": ["bizra.io"], "resources": ["networks/finalizers"], "verbs": ["update", "bind"]},
            {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]},
        ])),
    );
    let secrets = rules(json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]));
    granted.extend(grants(Some("own"), &secrets));
    granted.extend(grants(Some("other"), &secrets));

    let mut done = Use::default();
    let line = |user: &str, verb: &str, object: serde_json::Value, decision: &str| {
        json!({"verb": verb, "user": {"username": user}, "objectRef": object,
            "annotations": {"authorization.k8s.io/decision": decision}})
        .to_string()
    };
    let pods = json!({"resource": "pods", "namespace": "one", "apiVersion": "v1"});
    for text in [
        line("me", "get", pods.clone(), "allow"),
        line("me", "get", pods.clone(), "allow"),
        line("you", "watch", pods.clone(), "allow"),
        line("me", "watch", json!({"resource": "configmaps"}), "allow"),
        line("me", "delete", pods, "forbid"),
        line("me", "list", json!({"resource": "secrets", "namespace": "own"}), "allow"),
        json!({"verb": "get", "user": {"username": "me"}, "requestURI": "/version"}).to_string(),
        // Server-side apply of what was not there.
        json!({"verb": "patch", "user": {"username": "me"}, "objectRef": {"resource": "services", "namespace": "one"},
            "responseStatus": {"code": 201}})
        .to_string(),
    ] {
        done.add(&text, "me").unwrap();
    }
    let verdict = Verdict::of(&granted, &done, "own");
    let told = |grants: &[Grant]| -> Vec<String> {
        let place = |grant: &Grant| grant.namespace.clone().unwrap_or_default();
        grants.iter().map(|grant| format!("{} {} {}", place(grant), grant.verb, grant.resource)).collect()
    };
    let used: Vec<_> = verdict.used.iter().map(|(grant, times)| (grant.resource.as_str(), *times)).collect();
    assert_eq!(used, [("configmaps", 1), ("pods", 2), ("services", 1), ("services", 1), ("secrets", 1)]);
    let (needed, why): (Vec<Grant>, Vec<&str>) = verdict.needed.iter().cloned().unzip();
    assert_eq!(told(&needed), [" list configmaps", " update networks/finalizers"]);
    assert_eq!(why, ["without streaming lists", "by admission"]);
    assert_eq!(
        told(&verdict.unused),
        [
            " watch pods",
            " get pods/exec",
            " watch pods/exec",
            " get *",
            " bind networks/finalizers",
            "other list secrets"
        ]
    );
    let forbidden: Vec<Grant> = verdict.forbidden.iter().map(|(grant, _)| grant.clone()).collect();
    assert_eq!(
        told(&forbidden),
        [" get pods/exec", " watch pods/exec", " get *", " bind networks/finalizers", "other list secrets"]
    );
    assert_eq!((verdict.refused.len(), verdict.is_clean()), (1, false));
}
