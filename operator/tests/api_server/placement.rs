//! What the operator says of hosts and zones, told by the API server's own admission.

use bizra_operator::{
    api::{Network, condition},
    controllers::conditions::find,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::{
    kubelet::Kubelet,
    scenario::{Scenario, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_or_zone_with_a_third_of_the_power_is_told_of() {
    let scenario = Scenario::new("placement").await;
    let (_kubelet, _kubelet_task) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let _operator = scenario.operator();
    scenario.create_network("demo", json!({"chainId": "demo-1"})).await;
    let network = scenario.wait_for_condition("demo", condition::READY, "True", None).await;
    assert_eq!(find(&network.status.unwrap().conditions, condition::POWER_CONCENTRATED), None, "nothing is known yet");

    let hosts: Api<Node> = Api::all(scenario.admin.clone());
    for (host, zone) in [("placement-a", "east"), ("placement-b", "west"), ("placement-c", "north")] {
        let host = json!({"metadata": {"name": host, "labels": {"topology.kubernetes.io/zone": zone}}});
        hosts.create(&PostParams::default(), &serde_json::from_value(host).unwrap()).await.unwrap();
    }
    // As the scheduler does it.
    let bind = |pod: &'static str, host: &'static str| {
        let pods = scenario.api::<Pod>();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": host},
        });
        async move {
            let _: Value = pods.create_subresource("binding", pod, &PostParams::default(), &binding).await.unwrap();
        }
    };
    bind("demo-v0", "placement-a").await;
    bind("demo-v1", "placement-b").await;
    bind("demo-v2", "placement-c").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let network = scenario.api::<Network>().get("demo").await.unwrap();
    assert_eq!(find(&network.status.unwrap().conditions, condition::POWER_CONCENTRATED), None, "a quarter each");

    bind("demo-v3", "placement-a").await;
    let message = eventually("the host is told of", || async {
        let told = scenario.api::<Network>().get("demo").await.unwrap().status.unwrap().conditions;
        let found = find(&told, condition::POWER_CONCENTRATED).ok_or("no condition")?;
        assert_eq!((found.status.as_str(), found.reason.as_str()), ("True", "HostHoldsThird"));
        // The zone comes with the binding, from the host's label.
        if found.message.contains("zone east") { Ok(found.message.clone()) } else { Err("no zone yet") }
    })
    .await;
    assert!(message.contains("host placement-a with power 2 of 4 (demo-v0, demo-v3)"), "{message}");
    scenario.wait_for_condition("demo", condition::READY, "True", None).await;
}
