#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::json;

use super::*;
use crate::controllers::{
    fixtures::{genesis_map, node, pod_of, report},
    quorum::Freshness,
};

/// Pods of validators on these hosts, each in this zone; an empty name is one that is not known.
fn judged(places: &[(&str, &str)]) -> Option<Reason> {
    let count = i32::try_from(places.len()).unwrap();
    let nodes: Vec<_> = (0..count).map(node).collect();
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    let genesis = genesis_map(&reports[..places.len().min(4)]);
    let genesis = bizra_proto::ceremony::Genesis::parse(genesis.data.unwrap()["genesis.json"].as_bytes()).unwrap();
    let pods: Vec<Pod> = (0..)
        .zip(places)
        .map(|(ordinal, (host, zone))| {
            let mut pod = pod_of(ordinal, None);
            pod.spec.as_mut().unwrap().node_name = (!host.is_empty()).then(|| (*host).to_owned());
            if !zone.is_empty() {
                pod.metadata.labels.as_mut().unwrap().insert(pod::ZONE.to_owned(), (*zone).to_owned());
            }
            pod
        })
        .collect();
    let census =
        Census::take(Some(&genesis), &nodes.iter().collect::<Vec<_>>(), &pods, &BTreeMap::new(), Freshness::Polled);
    concentration(&census, &pods)
}

#[test]
fn four_hosts_in_four_zones_are_fine_and_what_is_not_known_is_not_held_against_them() {
    assert_eq!(judged(&[("a", "x"), ("b", "y"), ("c", "z"), ("d", "w")]), None);
    assert_eq!(judged(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]), None);
    assert_eq!(judged(&[("", ""), ("", ""), ("", ""), ("", "")]), None);
}

#[test]
fn a_host_with_two_of_four_is_told_by_name() {
    let told = judged(&[("a", "x"), ("b", "y"), ("c", "z"), ("a", "x")]).unwrap();
    assert_eq!(told.word, "HostHoldsThird");
    assert!(told.message.contains("host a with power 2 of 4 (demo-v0, demo-v3)"), "{}", told.message);
    assert!(told.message.contains("zone x with power 2 of 4"), "{}", told.message);
}

#[test]
fn a_zone_can_hold_a_third_although_every_host_is_another() {
    let told = judged(&[("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")]).unwrap();
    assert_eq!(told.word, "ZoneHoldsThird");
    assert!(!told.message.contains("host a"), "{}", told.message);
    assert!(told.message.contains("zone x with power 2 of 4 (demo-v0, demo-v1)"), "{}", told.message);
}

#[test]
fn the_condition_is_only_there_while_it_is_so() {
    use crate::{
        api::condition,
        controllers::{
            conditions::find,
            fixtures::{default_image, network, network_observed},
            network::{plan::plan, report::status},
        },
    };
    let network = network("demo-1");
    let mut observed = network_observed();
    let reports: Vec<_> = (1..=4).map(|seed| report(seed, "demo-1", None)).collect();
    observed.genesis = Some(genesis_map(&reports));
    observed.nodes = (0..4).map(node).collect();
    observed.pods = (0..4).map(|ordinal| pod_of(ordinal, None)).collect();
    for (host, expected) in [("a", Some("HostHoldsThird")), ("b", None)] {
        for (pod, host) in observed.pods.iter_mut().zip([host, "a", "c", "d"]) {
            pod.spec = serde_json::from_value(json!({"containers": [], "nodeName": host})).unwrap();
        }
        let plan = plan(&network, &observed, &default_image()).unwrap();
        let told = status(&network, &observed, &plan, None).conditions;
        assert_eq!(find(&told, condition::POWER_CONCENTRATED).map(|told| told.reason.as_str()), expected);
    }
}
