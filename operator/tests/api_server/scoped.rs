//! An install for named namespaces: what the chart grants then is enough, and nothing of it reaches beyond them.

use std::{path::Path, process::Command, time::Duration};

use bizra_operator::{
    api::{Network, condition},
    controllers::{Settings, bizra_node::heal::HealingLimits, is_installed},
    metrics::Metrics,
    operator::operate,
    probe::PollSettings,
    resources::node::parse_image,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Secret},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::cluster,
    kubelet::{Kubelet, Stopper},
    scenario::Scenario,
};

/// Namespace and release of the install.
const OWN: &str = "bizra-scoped";

/// What the chart would install, given these values.
fn template(values: &[&str]) -> Vec<Value> {
    let binaries = std::env::var_os("BIZRA_CLUSTER_BIN").expect("BIZRA_CLUSTER_BIN is set; run `make test`");
    let chart = Path::new("../charts/bizra-operator");
    let output = Command::new(Path::new(&binaries).join("helm"))
        .args(["template", "bizra-operator"])
        .arg(chart)
        .args(["--namespace", OWN])
        .args(values.iter().flat_map(|value| ["--set", value]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---").map(|document| serde_yaml_ng::from_str::<Value>(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

#[test]
fn no_install_grants_a_wildcard_or_a_way_to_more_rights_or_secrets_of_others() {
    const OWNERS: &str = "bizra-operator-owners";
    for (values, cluster_roles, cluster_bindings) in [(vec![], 2, 1), (vec!["watchNamespaces={one,two}"], 0, 0)] {
        let objects = template(&values);
        assert_eq!(of_kind(&objects, "ClusterRole").count(), cluster_roles);
        assert_eq!(of_kind(&objects, "ClusterRoleBinding").count(), cluster_bindings);
        // The keys of owners: in the namespaces that the operator was installed for, and otherwise where somebody binds it.
        let bindings = of_kind(&objects, "ClusterRoleBinding").chain(of_kind(&objects, "RoleBinding"));
        let owners: Vec<&Value> = bindings.filter(|binding| binding["roleRef"]["name"] == OWNERS).collect();
        let places: Vec<_> = owners.iter().filter_map(|binding| binding["metadata"]["namespace"].as_str()).collect();
        assert_eq!(places, if values.is_empty() { vec![] } else { vec!["one", "two"] });
        assert_eq!(owners.len(), places.len(), "bound everywhere");
        let roles: Vec<&Value> = of_kind(&objects, "ClusterRole").chain(of_kind(&objects, "Role")).collect();
        assert_eq!(roles.len(), if values.is_empty() { 3 } else { 5 });
        for role in roles {
            if role["metadata"]["name"] == OWNERS {
                assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]));
                continue;
            }
            let granted = role["rules"].to_string();
            for forbidden in ["*", "escalate", "bind\"", "impersonate", "exec", "attach", "portforward", "proxy"] {
                assert!(!granted.contains(forbidden), "{forbidden} in {granted}");
            }
            let own = role["kind"] == "Role" && role["metadata"]["namespace"] == OWN;
            assert!(own || !granted.contains("secrets"), "secrets outside of the operator's namespace: {granted}");
        }
        assert_eq!(of_kind(&objects, "NetworkPolicy").count(), 1);
    }
    assert_eq!(of_kind(&template(&["networkPolicy.enabled=false"]), "NetworkPolicy").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_rights_in_one_namespace_only_runs_a_network_there() {
    let scenario = Scenario::new("scoped").await;
    let other = Scenario::new("scoped-other").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(OWN.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::<Namespace>::all(scenario.admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let values = format!("watchNamespaces={{{}}}", scenario.namespace);
    let objects = tokio::task::spawn_blocking(move || template(&[&values])).await.unwrap();
    for object in of_kind(&objects, "Role") {
        let api = Api::<Role>::namespaced(scenario.admin.clone(), object["metadata"]["namespace"].as_str().unwrap());
        api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
    }
    for object in of_kind(&objects, "RoleBinding") {
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let api = Api::<RoleBinding>::namespaced(scenario.admin.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
    }

    let client = cluster().acting_as(&format!("system:serviceaccount:{OWN}:bizra-operator"));
    assert!(is_installed::<Network>(&client, std::slice::from_ref(&scenario.namespace)).await);
    assert!(!is_installed::<Network>(&client, &[]).await, "rights everywhere");
    for namespace in [&scenario.namespace, &other.namespace] {
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
        assert!(secrets.list(&ListParams::default()).await.is_err(), "secrets of {namespace}");
    }
    assert!(Api::<Pod>::namespaced(client.clone(), &other.namespace).list(&ListParams::default()).await.is_err());

    let settings = Settings {
        operator_namespace: OWN.to_owned(),
        default_image: parse_image("localhost/bizra:dev"),
        status_interval: Duration::from_mins(1),
        namespaces: vec![scenario.namespace.clone()],
        concurrency: 4,
        healing: HealingLimits::default(),
    };
    let polling =
        PollSettings { interval: Duration::from_millis(200), timeout: Duration::from_secs(2), concurrency: 8 };
    let metrics = Metrics::new().unwrap();
    let _operator = Stopper(tokio::spawn(async move {
        let ended = operate(client, "scoped", settings, polling, metrics, std::future::pending()).await;
        panic!("the operator ended: {ended:?}");
    }));
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    other.create_network("demo", json!({"chainId": "demo-1"})).await;
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    let untouched = other.api::<Network>().get("demo").await.unwrap();
    assert_eq!(untouched.status.map(|status| status.observed_generation), Some(-1), "a network of others was touched");
}
