#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::api::{BizraNodeSpec, NetworkReference, NodeTemplate};

fn built(template: NodeTemplate) -> Value {
    built_to_repair(template, None)
}

fn built_to_repair(template: NodeTemplate, repair: Option<RepairOrder<'_>>) -> Value {
    let spec = BizraNodeSpec {
        network_ref: NetworkReference { name: "demo".to_owned() },
        reconciliation: crate::api::Reconciliation::default(),
        signing: crate::api::Signing::default(),
        template,
    };
    let node = BizraNode::new("demo-v0", spec);
    let image = node::parse_image("localhost/bizra:dev");
    let inputs = Inputs {
        namespace: "default",
        chain_id: "demo-1",
        volume_id: "volume-0",
        config: "x",
        image: &image,
        component: labels::Component::Validator,
        repair,
    };
    serde_json::to_value(pod(&node, "demo-v0", &inputs).unwrap()).unwrap()
}

#[test]
fn every_container_is_restricted() {
    let pod = built(NodeTemplate::default());
    assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], json!(65532));
    let containers = pod["spec"]["initContainers"].as_array().unwrap().iter();
    for container in containers.chain(pod["spec"]["containers"].as_array().unwrap()) {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], json!(true));
        assert_eq!(security["allowPrivilegeEscalation"], json!(false));
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(security["seccompProfile"]["type"], json!("RuntimeDefault"));
        assert_eq!(container["resources"]["requests"]["memory"], container["resources"]["limits"]["memory"]);
    }
}

#[test]
fn kubernetes_does_not_move_a_node_and_hosts_are_not_shared() {
    let pod = built(NodeTemplate::default());
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let wanted = json!({"key": taint, "operator": "Exists", "effect": "NoExecute"});
        assert!(pod["spec"]["tolerations"].as_array().unwrap().contains(&wanted));
    }
    let apart = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], json!("kubernetes.io/hostname"));
    assert_eq!(apart["labelSelector"]["matchLabels"][labels::NETWORK], json!("demo"));
    let zones = &pod["spec"]["topologySpreadConstraints"][0];
    assert_eq!(zones["topologyKey"], json!("topology.kubernetes.io/zone"));
    assert_eq!(zones["whenUnsatisfiable"], json!("ScheduleAnyway"), "a zone too few keeps no pod from running");
    assert_eq!(zones["labelSelector"], apart["labelSelector"]);
    let soft = built(NodeTemplate { host_spread: HostSpread::Preferred, ..NodeTemplate::default() });
    let apart = &soft["spec"]["affinity"]["podAntiAffinity"];
    assert!(apart["requiredDuringSchedulingIgnoredDuringExecution"].is_null());
    assert_eq!(apart["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"], json!(100));
}

#[test]
fn the_containers_run_what_the_node_offers() {
    let pod = built(NodeTemplate::default());
    assert_eq!(
        pod["spec"]["initContainers"][0]["args"],
        json!([
            "init-key",
            "--data-dir",
            "/var/lib/bizra",
            "--chain-id",
            "demo-1",
            "--node-name",
            "demo-v0",
            "--volume-id",
            "volume-0"
        ])
    );
    assert_eq!(
        pod["spec"]["initContainers"][1]["args"],
        json!([
            "init-genesis",
            "--data-dir",
            "/var/lib/bizra",
            "--genesis-dir",
            "/etc/bizra/genesis",
            "--certificates-dir",
            "/etc/bizra/certificates",
            "--node-name",
            "demo-v0"
        ])
    );
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["run", "--config", "/etc/bizra/config/node.toml"]));
    assert_eq!(pod["spec"]["subdomain"], json!("demo-nodes"));
    assert_eq!(pod["spec"]["hostname"], json!("demo-v0"));
}

/// A changed revision means that pods will be restarted. If this fails because the pod has changed on purpose, say so in
/// the changelog and take the new value over.
#[test]
fn a_new_operator_does_not_change_the_revision_of_an_unchanged_node() {
    let pod = built(NodeTemplate::default());
    assert_eq!(pod["metadata"]["annotations"][labels::REVISION], json!("a042e0cd532e0c78"));
}

#[test]
fn custom_metadata_never_overrides_ours() {
    let mut template = NodeTemplate::default();
    template.pod.labels.insert("team".to_owned(), "ledger".to_owned());
    template.pod.labels.insert(labels::NETWORK.to_owned(), "other".to_owned());
    let pod = built(template);
    assert_eq!(pod["metadata"]["labels"]["team"], json!("ledger"));
    assert_eq!(pod["metadata"]["labels"][labels::NETWORK], json!("demo"));
}

#[test]
fn an_order_for_new_keys_is_for_the_container_that_makes_them_and_is_no_other_revision() {
    let plain = built(NodeTemplate::default());
    let order = RepairOrder { replaces: "pod-1", database: DatabaseOrder::Keep, replaces_keys: true };
    let mut pod = built_to_repair(NodeTemplate::default(), Some(order));
    let revision = |pod: &Value| pod["metadata"]["annotations"]["bizra.io/revision"].clone();
    assert_eq!(revision(&pod), revision(&plain));
    let arguments = pod["spec"]["initContainers"][0]["args"].as_array_mut().unwrap();
    assert_eq!(arguments.split_off(arguments.len() - 2), ["--replace-refused", "pod-1"]);
    assert_eq!(pod["spec"], plain["spec"], "nothing else is");
}

#[test]
fn a_repair_sets_the_database_aside_after_the_keys_and_is_no_other_revision() {
    let plain = built(NodeTemplate::default());
    let revision = |pod: &Value| pod["metadata"]["annotations"]["bizra.io/revision"].clone();
    for (database, condition) in [
        (DatabaseOrder::Keep, None),
        (DatabaseOrder::ResetIfCorrupt, Some("--if-corrupt")),
        (DatabaseOrder::Reset, None),
    ] {
        let order = RepairOrder { replaces: "pod-1", database, replaces_keys: false };
        let pod = built_to_repair(NodeTemplate::default(), Some(order));
        assert_eq!(revision(&pod), revision(&plain));
        assert_eq!(pod["metadata"]["annotations"]["bizra.io/repair"], json!("pod-1"));
        let init = pod["spec"]["initContainers"].as_array().unwrap();
        let names: Vec<&str> = init.iter().map(|container| container["name"].as_str().unwrap()).collect();
        if database == DatabaseOrder::Keep {
            assert_eq!(names, ["key", "genesis"]);
            continue;
        }
        assert_eq!(names, ["key", "reset", "genesis"]);
        let mut arguments = vec!["reset-database", "--data-dir", DATA_DIR, "--order", "pod-1"];
        arguments.extend(condition);
        assert_eq!(init[1]["args"], json!(arguments));
        assert_eq!(init[1]["securityContext"], init[0]["securityContext"]);
    }
}
