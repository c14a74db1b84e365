//! The pod of a node. Its spec is create-only: what it was made from is told by its revision.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction,
        LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod, PodAffinityTerm, PodAntiAffinity,
        PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
        TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{controlled_by, labels, names, node, revision};
use crate::api::{BizraNode, HostSpread, ImageSpec, PullPolicy};

/// Where the volume is mounted.
pub const DATA_DIR: &str = "/var/lib/bizra";
/// Where the configuration file is.
pub const CONFIG_DIR: &str = "/etc/bizra/config";
/// Where the genesis file is, once there is one.
pub const GENESIS_DIR: &str = "/etc/bizra/genesis";
/// Where the certificates are, once there are any.
pub const CERTIFICATES_DIR: &str = "/etc/bizra/certificates";
/// Init container that makes or finds the keys and reports them.
pub const KEY_CONTAINER: &str = "key";
/// Init container that sets the database aside; only in a pod that is made to repair its node.
pub const RESET_CONTAINER: &str = "reset";
/// Init container that waits for genesis and certificates.
pub const GENESIS_CONTAINER: &str = "genesis";
/// The node itself.
pub const NODE_CONTAINER: &str = "node";

/// Label that names a host's zone. Kubernetes copies it to the pods of the host from version 1.35 on.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// User and group of every process; owns the volume.
const USER: i64 = 65532;

/// What a pod is made from, besides its node.
pub struct Inputs<'a> {
    /// Namespace of the node.
    pub namespace: &'a str,
    /// Chain the node follows.
    pub chain_id: &'a str,
    /// Uid of the claim; the signing record is bound to it.
    pub volume_id: &'a str,
    /// Text of the configuration file. Not in the pod, but a pod made from another one is of another revision.
    pub config: &'a str,
    /// Image, complete.
    pub image: &'a ImageSpec,
    /// What the node was made for.
    pub component: labels::Component,
    /// What the pod is to repair. No part of its revision: it is as it should be once it has done that.
    pub repair: Option<RepairOrder<'a>>,
}

/// An order that a pod carries out before its node starts, once, however often its init containers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairOrder<'a> {
    /// Uid of the pod it replaces, which makes the order unique.
    pub replaces: &'a str,
    /// What becomes of the database.
    pub database: DatabaseOrder,
    /// Whether keys that refuse are set aside, and new ones made.
    pub replaces_keys: bool,
}

/// What becomes of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseOrder {
    /// It stays.
    Keep,
    /// It is set aside if the node itself has marked it as damaged.
    ResetIfCorrupt,
    /// It is set aside.
    Reset,
}

/// Builds the pod.
pub fn pod(owner: &BizraNode, name: &str, inputs: &Inputs<'_>) -> Result<Pod, serde_json::Error> {
    let template = &owner.spec.template;
    let network = owner.spec.network_ref.name.as_str();
    let mut spec = pod_spec(owner, name, inputs);
    let revision = revision::of_pod(&spec, &template.pod.labels, &template.pod.annotations, inputs.config)?;

    let mut all_labels = template.pod.labels.clone();
    all_labels.extend(labels::of_node(network, name));
    all_labels.insert(labels::COMPONENT.to_owned(), inputs.component.label().to_owned());
    if let Some(pool) = label(&owner.metadata, labels::POOL) {
        all_labels.insert(labels::POOL.to_owned(), pool.to_owned());
    }
    let mut annotations = template.pod.annotations.clone();
    annotations.insert(labels::VOLUME_ID.to_owned(), inputs.volume_id.to_owned());
    annotations.insert(labels::REVISION.to_owned(), revision);
    if let Some(order) = &inputs.repair {
        annotations.insert(labels::REPAIR.to_owned(), order.replaces.to_owned());
        add_reset(&mut spec, order);
        if order.replaces_keys {
            add_key_order(&mut spec, order.replaces);
        }
    }
    Ok(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(inputs.namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

fn pod_spec(owner: &BizraNode, name: &str, inputs: &Inputs<'_>) -> PodSpec {
    let template = &owner.spec.template;
    let network = owner.spec.network_ref.name.as_str();
    let resources = resources(template.resources.as_ref());
    let container = |container_name: &str, arguments: &[&str], mounts: Vec<VolumeMount>| Container {
        name: container_name.to_owned(),
        image: Some(node::image_reference(inputs.image)),
        image_pull_policy: Some(
            match inputs.image.pull_policy {
                PullPolicy::Always => "Always",
                PullPolicy::IfNotPresent => "IfNotPresent",
                PullPolicy::Never => "Never",
            }
            .to_owned(),
        ),
        command: Some(vec!["bizra-node".to_owned()]),
        args: Some(arguments.iter().map(|&argument| argument.to_owned()).collect()),
        env: Some(vec![EnvVar { name: "BIZRA_LOG".to_owned(), value: Some("info".to_owned()), ..EnvVar::default() }]),
        volume_mounts: Some(mounts),
        resources: Some(resources.clone()),
        security_context: Some(container_security()),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    };
    let data = || mount("data", DATA_DIR, false);
    let genesis = || mount("genesis", GENESIS_DIR, true);
    let certificates = || mount("certificates", CERTIFICATES_DIR, true);

    let key = container(
        KEY_CONTAINER,
        &[
            "init-key",
            "--data-dir",
            DATA_DIR,
            "--chain-id",
            inputs.chain_id,
            "--node-name",
            name,
            "--volume-id",
            inputs.volume_id,
        ],
        vec![data()],
    );
    let wait = container(
        GENESIS_CONTAINER,
        &[
            "init-genesis",
            "--data-dir",
            DATA_DIR,
            "--genesis-dir",
            GENESIS_DIR,
            "--certificates-dir",
            CERTIFICATES_DIR,
            "--node-name",
            name,
        ],
        vec![data(), genesis(), certificates()],
    );
    let config_file = format!("{CONFIG_DIR}/{}", super::config_map::FILE);
    let main = Container {
        ports: Some(vec![
            port("peer", bizra_proto::port::PEER),
            port("grpc", bizra_proto::port::GRPC),
            port("http", bizra_proto::port::HTTP),
            port("admin", bizra_proto::port::ADMIN),
            port("monitoring", bizra_proto::port::MONITORING),
        ]),
        // Opening a large database takes long; until it is open the process must not be killed for it.
        startup_probe: Some(probe("/livez", 5, 120)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        ..container(
            NODE_CONTAINER,
            &["run", "--config", &config_file],
            vec![data(), mount("config", CONFIG_DIR, true), genesis(), certificates()],
        )
    };

    PodSpec {
        hostname: Some(name.to_owned()),
        subdomain: Some(names::nodes_service(network)),
        init_containers: Some(vec![key, wait]),
        containers: vec![main],
        volumes: Some(vec![
            Volume {
                name: "data".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: names::claim(name),
                    read_only: None,
                }),
                ..Volume::default()
            },
            config_volume("config", names::config(name), None),
            config_volume("genesis", names::genesis(network), Some(true)),
            config_volume("certificates", names::certificates(network), Some(true)),
        ]),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(30),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: (!template.image_pull_secrets.is_empty()).then(|| {
            template
                .image_pull_secrets
                .iter()
                .map(|secret| LocalObjectReference { name: secret.name.clone() })
                .collect()
        }),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: Some(tolerations(&template.tolerations)),
        affinity: Some(affinity(template.affinity.clone(), template.host_spread, network, inputs.component)),
        topology_spread_constraints: Some(vec![spread_over_zones(network, inputs.component)]),
        priority_class_name: template.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

/// After the keys are there, and before anything opens the database.
fn add_reset(spec: &mut PodSpec, order: &RepairOrder<'_>) {
    let condition: &[&str] = match order.database {
        DatabaseOrder::Keep => return,
        DatabaseOrder::ResetIfCorrupt => &["--if-corrupt"],
        DatabaseOrder::Reset => &[],
    };
    let arguments = ["reset-database", "--data-dir", DATA_DIR, "--order", order.replaces];
    let Some(init) = &mut spec.init_containers else { return };
    let Some(at) = init.iter().position(|container| container.name == KEY_CONTAINER) else { return };
    let reset = Container {
        name: RESET_CONTAINER.to_owned(),
        args: Some(arguments.iter().chain(condition).map(|&argument| argument.to_owned()).collect()),
        ..init[at].clone()
    };
    init.insert(at + 1, reset);
}

fn add_key_order(spec: &mut PodSpec, order: &str) {
    let mut init = spec.init_containers.iter_mut().flatten();
    if let Some(key) = init.find(|container| container.name == KEY_CONTAINER) {
        key.args.get_or_insert_default().extend(["--replace-refused", order].map(str::to_owned));
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn config_volume(name: &str, config_map: String, optional: Option<bool>) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: config_map, optional, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("monitoring".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

/// Memory request and limit are the same, so that a host under memory pressure evicts others first.
fn resources(wanted: Option<&ResourceRequirements>) -> ResourceRequirements {
    let mut requests = wanted.and_then(|resources| resources.requests.clone()).unwrap_or_default();
    let mut limits = wanted.and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let memory =
        limits.get("memory").or_else(|| requests.get("memory")).cloned().unwrap_or_else(|| Quantity("1Gi".to_owned()));
    requests.insert("memory".to_owned(), memory.clone());
    limits.insert("memory".to_owned(), memory);
    let cpu = limits.get("cpu").cloned().unwrap_or_else(|| Quantity("250m".to_owned()));
    requests.entry("cpu".to_owned()).or_insert(cpu);
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

/// Kubernetes must not move a node by itself: its volume may still be in use on a host that is only unreachable.
fn tolerations(wanted: &[Toleration]) -> Vec<Toleration> {
    let stay = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|taint| Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    stay.into_iter().chain(wanted.iter().cloned()).collect()
}

/// Selects the nodes of a network that were made for the same.
fn alike(network: &str, component: labels::Component) -> LabelSelector {
    let mut match_labels = labels::selector(network);
    match_labels.insert(labels::COMPONENT.to_owned(), component.label().to_owned());
    LabelSelector { match_labels: Some(match_labels), ..LabelSelector::default() }
}

/// As evenly as can be, and never at the price of a pod that finds no host.
fn spread_over_zones(network: &str, component: labels::Component) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: ZONE.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(alike(network, component)),
        ..TopologySpreadConstraint::default()
    }
}

/// Validators of a network keep off each other's hosts; other nodes keep off each other's.
fn affinity(wanted: Option<Affinity>, spread: HostSpread, network: &str, component: labels::Component) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(alike(network, component)),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let mut affinity = wanted.unwrap_or_default();
    let apart: &mut PodAntiAffinity = affinity.pod_anti_affinity.get_or_insert_default();
    match spread {
        HostSpread::Required => {
            apart.required_during_scheduling_ignored_during_execution.get_or_insert_default().push(term);
        }
        HostSpread::Preferred => {
            apart
                .preferred_during_scheduling_ignored_during_execution
                .get_or_insert_default()
                .push(WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term });
        }
    }
    affinity
}

/// The image of a pod's node.
pub fn image(pod: &Pod) -> Option<&str> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == NODE_CONTAINER)?.image.as_deref()
}

/// The annotations of an object, or none.
pub fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref().and_then(|all: &BTreeMap<String, String>| all.get(key)).map(String::as_str)
}

/// A label of an object.
pub fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref().and_then(|all| all.get(key)).map(String::as_str)
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
