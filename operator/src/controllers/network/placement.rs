//! Where the voting power is. Pure.
//!
//! A host or a zone that goes takes all its validators along. If they hold a third of the power, no block is finalised until
//! some are back. Hosts are what the pods were bound to; zones are told by the pods' labels, which Kubernetes sets from
//! version 1.35 on. Where it does not, only hosts are judged: to read hosts, the operator would need rights in the whole cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::{
    controllers::{conditions::Reason, quorum::Census},
    resources::pod,
};

/// Most validators that a message names for a place.
const NAMES_MAX: usize = 4;

/// Validators that go together.
#[derive(Default)]
struct Place<'a> {
    power: u128,
    validators: Vec<&'a str>,
}

/// Which hosts and zones run validators with a third of the power or more; none if none does.
pub fn concentration(census: &Census, pods: &[Pod]) -> Option<Reason> {
    let by_name: BTreeMap<String, &Pod> = pods.iter().map(|pod| (pod.name_any(), pod)).collect();
    let host_of = |pod: &'_ Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let zone_of = |pod: &'_ Pod| pod::label(&pod.metadata, pod::ZONE).map(str::to_owned);
    let hosts = too_strong(census, &by_name, "host", host_of);
    let zones = too_strong(census, &by_name, "zone", zone_of);
    let word = match (hosts.is_empty(), zones.is_empty()) {
        (true, true) => return None,
        (false, _) => "HostHoldsThird",
        (true, false) => "ZoneHoldsThird",
    };
    let places: Vec<String> = hosts.into_iter().chain(zones).collect();
    let message = format!(
        "a third of the voting power goes with one of these, and no block is finalised until it is back: {}; spread the validators over more hosts (spec.hostSpread: Required) and over four zones or more",
        places.join("; ")
    );
    Some(Reason::new(word, message))
}

/// What to say of each place that holds a third, in the order of their names.
fn too_strong(
    census: &Census,
    pods: &BTreeMap<String, &Pod>,
    what: &str,
    place_of: impl Fn(&Pod) -> Option<String>,
) -> Vec<String> {
    let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
    for (name, power) in census.powers() {
        let Some(place) = pods.get(name).and_then(|pod| place_of(pod)) else { continue };
        let place = places.entry(place).or_default();
        place.power += power;
        place.validators.push(name);
    }
    let total = census.total();
    places.retain(|_, place| place.power * 3 >= total);
    let told = places.into_iter().map(|(name, mut place)| {
        place.validators.sort_unstable();
        let more = place.validators.len().saturating_sub(NAMES_MAX);
        place.validators.truncate(NAMES_MAX);
        let validators = place.validators.join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what} {name} with power {} of {total} ({validators}{more})", place.power)
    });
    told.collect()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
