//! Objects for the tests of plans and reports.

use bizra_proto::ceremony::{Genesis, GenesisValidator, KeyReport, prove_possession};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::{
    api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::Resource;
use serde_json::{Value, json};

use super::{
    bizra_node,
    network::{self, authorities::Kept},
    node_pool,
};
use crate::{
    api::{BizraNode, ImageSpec, Network, NodePool, NodePoolSpec, Reconciliation, StorageSpec},
    kubernetes::{Manifest, Write},
    ledger::OwnerSeed,
    probe::Word,
    resources::{claim, labels, names, node as node_builder, pod},
};

pub(super) fn default_image() -> ImageSpec {
    node_builder::parse_image("localhost/bizra:dev")
}

pub(super) fn network(chain_id: &str) -> Network {
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Network",
        "metadata": {"name": "demo", "namespace": "default", "uid": "network-1", "resourceVersion": "1", "generation": 1},
        "spec": {"chainId": chain_id},
    }))
    .unwrap()
}

pub(super) fn node(ordinal: i32) -> BizraNode {
    let name = names::validator("demo", ordinal);
    let network = network("demo-1");
    let template = node_builder::template(&network, &default_image());
    let mut node = node_builder::validator(&network, "demo", "default", &name, template, &default_image()).unwrap();
    node.metadata.uid = Some(format!("node-{ordinal}"));
    node.metadata.resource_version = Some("1".to_owned());
    node.metadata.generation = Some(1);
    node
}

pub(super) fn claim_of(ordinal: i32) -> PersistentVolumeClaim {
    let name = names::validator("demo", ordinal);
    let mut claim = claim::claim(&name, "default", "demo", "demo-1", &StorageSpec::default());
    claim.metadata.uid = Some(format!("volume-{ordinal}"));
    claim
}

pub(super) fn report(seed: u8, chain_id: &str, pinned: Option<&str>) -> KeyReport {
    let key = SigningKey::from([seed; 32]);
    let tls = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&tls).unwrap();
    KeyReport {
        public_key: hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&key))),
        proof_of_possession: prove_possession(&key, chain_id),
        certificate_request: request.pem().unwrap(),
        genesis_hash: pinned.map(str::to_owned),
    }
}

/// A pod of the ordinal's node whose init container `key` has reported.
pub(super) fn pod_of(ordinal: i32, report: Option<&KeyReport>) -> Pod {
    let owner = node(ordinal);
    let name = names::validator("demo", ordinal);
    let mut pod = pod::pod(
        &owner,
        &name,
        &pod::Inputs {
            namespace: "default",
            chain_id: "demo-1",
            volume_id: &format!("volume-{ordinal}"),
            config: "",
            image: &default_image(),
            component: labels::Component::Validator,
            repair: None,
        },
    )
    .unwrap();
    pod.metadata.uid = Some(format!("pod-{ordinal}"));
    pod.metadata.resource_version = Some("1".to_owned());
    let mut status = json!({"phase": "Pending"});
    if let Some(report) = report {
        let message = serde_json::to_string(report).unwrap();
        status["initContainerStatuses"] = json!([
            container("key", &json!({"terminated": {"exitCode": 0, "message": message}})),
            container("genesis", &json!({"running": {}})),
        ]);
    }
    pod.status = Some(serde_json::from_value(status).unwrap());
    pod
}

pub(super) fn container(name: &str, state: &Value) -> Value {
    json!({"name": name, "state": state, "ready": false, "restartCount": 0, "image": "", "imageID": ""})
}

pub(super) fn node_observed() -> bizra_node::observe::Observed {
    bizra_node::observe::Observed {
        now: now(),
        network: Some(network("demo-1")),
        claim: None,
        config: None,
        genesis: None,
        certificates: None,
        followers: Vec::new(),
        voters: Vec::new(),
        keeper: None,
        replaced_by: None,
        pod: None,
        word: Word::Unknown("not asked yet".to_owned()),
        idle: k8s_openapi::jiff::SignedDuration::ZERO,
        last_height: None,
        limits: bizra_node::heal::HealingLimits::default(),
    }
}

/// An authority in its Secret, new at [`now`].
pub(super) fn kept(generation: u32) -> Kept {
    let now = u64::try_from(now().as_second()).unwrap();
    let write = network::act::create_authority(&network("demo-1"), "bizra-system", generation, now).unwrap();
    let mut secret: Secret = written(&write);
    secret.metadata.uid = Some(format!("authority-{generation}"));
    Kept::read(secret).unwrap().unwrap()
}

/// The Secret with a seed of the owners.
pub(super) fn owners() -> Secret {
    written(&network::owners::create(&network("demo-1"), "bizra-system").unwrap())
}

pub(super) fn network_observed() -> network::observe::Observed {
    network::observe::Observed {
        now: now(),
        operator_namespace: "bizra-system".to_owned(),
        nodes: Vec::new(),
        validators: Vec::new(),
        pods: Vec::new(),
        bystanders: std::collections::BTreeMap::new(),
        words: std::collections::BTreeMap::new(),
        claims: Vec::new(),
        genesis: None,
        owners: None,
        certificates: None,
        nodes_service: None,
        api_service: None,
        budget: None,
        policy: None,
        authorities: Vec::new(),
        unreadable_authority: None,
    }
}

/// A pool of network `demo` with this in its spec.
pub(super) fn pool(spec: &Value) -> NodePool {
    let mut whole = json!({"networkRef": {"name": "demo"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "NodePool",
        "metadata": {"name": "readers", "namespace": "default", "uid": "pool-1", "resourceVersion": "1", "generation": 1},
        "spec": whole,
    }))
    .unwrap()
}

/// The pool's world with these nodes, all in sync with what they were given.
pub(super) fn pool_observed(pool: &NodePool, ordinals: std::ops::Range<i32>) -> node_pool::observe::Observed {
    let mut observed = node_pool::observe::Observed {
        now: now(),
        network: Some(network("demo-1")),
        nodes: Vec::new(),
        pods: Vec::new(),
        words: std::collections::BTreeMap::new(),
    };
    let larger = NodePool {
        spec: NodePoolSpec { replicas: ordinals.end, reconciliation: Reconciliation::Active, ..pool.spec.clone() },
        ..pool.clone()
    };
    for step in node_pool::plan::plan(&larger, &observed, &default_image()).unwrap().steps {
        let mut node: BizraNode = written(&step.write);
        if ordinals.contains(&names::ordinal("readers", node.metadata.name.as_deref().unwrap()).unwrap()) {
            node.metadata.uid = node.metadata.name.clone();
            node.metadata.resource_version = Some("1".to_owned());
            node.metadata.generation = Some(1);
            observed.nodes.push(node);
        }
    }
    for ordinal in ordinals {
        come_in_sync(&mut observed, &format!("readers-{ordinal}"));
    }
    observed
}

/// The pool's node runs what it was given, is in sync, and has no power.
pub(super) fn come_in_sync(observed: &mut node_pool::observe::Observed, name: &str) {
    let node = observed.nodes.iter_mut().find(|node| node.metadata.name.as_deref() == Some(name)).unwrap();
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "InSync", "message": "", "lastTransitionTime": Time(now())});
    let status = json!({
        "observedGeneration": node.metadata.generation, "power": "0", "conditions": [condition("Ready"), condition("UpToDate")],
    });
    node.status = Some(serde_json::from_value(status).unwrap());
    observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some(name));
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("pod-of-{name}")},
        "status": {"phase": "Running", "containerStatuses": [container("node", &json!({"running": {}}))]},
    });
    observed.pods.push(serde_json::from_value(pod).unwrap());
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(super) fn deleting<K: Resource<DynamicType = ()>>(mut object: K) -> K {
    object.meta_mut().deletion_timestamp = Some(Time(now()));
    object
}

/// What is written by an apply or create, as a typed object.
pub(super) fn written<K: serde::de::DeserializeOwned>(write: &Write) -> K {
    match write {
        Write::Apply(Manifest { body, .. }) | Write::Create(Manifest { body, .. }) => {
            serde_json::from_value(body.clone()).unwrap()
        }
        other => panic!("{other:?} writes no whole object"),
    }
}

/// A genesis that names no owners, as a person may write one.
pub(super) fn genesis_map(reports: &[KeyReport]) -> ConfigMap {
    crate::resources::genesis::config_map("demo", "default", &genesis(reports)).unwrap()
}

/// The genesis that the operator makes of these reports.
pub(super) fn endowed(reports: &[KeyReport]) -> ConfigMap {
    let mut genesis = genesis(reports);
    let network = network("demo-1");
    genesis.accounts = network::owners::endow(&mut genesis.validators, &network, &genesis.parameters, &seed());
    crate::resources::genesis::config_map("demo", "default", &genesis).unwrap()
}

pub(super) fn seed() -> OwnerSeed {
    OwnerSeed::parse(&"07".repeat(32)).unwrap()
}

fn genesis(reports: &[KeyReport]) -> Genesis {
    Genesis {
        version: 1,
        chain_id: "demo-1".to_owned(),
        time_milliseconds: 1,
        validators: (0..)
            .zip(reports)
            .map(|(ordinal, report)| GenesisValidator {
                name: names::validator("demo", ordinal),
                public_key: report.public_key.clone(),
                proof_of_possession: report.proof_of_possession.clone(),
                power: "1".to_owned(),
                owner: None,
                stake: None,
            })
            .collect(),
        accounts: Vec::new(),
        parameters: bizra_proto::parameters::Parameters::default(),
    }
}
