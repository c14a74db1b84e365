//! The policy that closes off a network's nodes, in both directions. It selects every node of the network, so that a new
//! one is closed off before it starts.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{controlled_by, labels, names};
use crate::api::{Network, ServiceType};

/// Label that the API server gives every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where names are looked up.
const DNS: u16 = 53;
/// What the charts of Prometheus call its pods.
const PROMETHEUS: &str = "prometheus";

/// Builds the policy. The admin port is for the operator in its own namespace only.
pub fn network_policy(network: &Network, name: &str, namespace: &str, operator_namespace: &str) -> NetworkPolicy {
    let spec = &network.spec.network_policy;
    let nodes = || vec![pods(labels::selector(name))];
    let mut ingress = vec![
        from(Some(nodes()), &[bizra_proto::port::PEER]),
        from(Some(vec![operator(operator_namespace)]), &[bizra_proto::port::ADMIN]),
    ];
    let published = network.spec.service.type_ != ServiceType::ClusterIP;
    let clients = match &spec.clients {
        Some(clients) => Some(sound(clients)),
        None if published => None,
        None => Some(vec![pods(BTreeMap::new())]),
    };
    ingress.extend(unless_nobody(clients, &[bizra_proto::port::GRPC, bizra_proto::port::HTTP]));
    let monitoring = spec.monitoring.as_deref().map_or_else(|| vec![prometheus()], sound);
    ingress.extend(unless_nobody(Some(monitoring), &[bizra_proto::port::MONITORING]));
    let egress = vec![
        NetworkPolicyEgressRule { to: Some(nodes()), ports: Some(vec![port("TCP", bizra_proto::port::PEER)]) },
        // Anywhere: some clusters' resolvers are no pods but addresses of the host.
        NetworkPolicyEgressRule { to: None, ports: Some(vec![port("UDP", DNS), port("TCP", DNS)]) },
    ];
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(names::network_policy(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(name)),
            owner_references: Some(vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(labels::selector(name))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

fn selector(match_labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: (!match_labels.is_empty()).then_some(match_labels), match_expressions: None }
}

/// Pods of the policy's own namespace.
fn pods(match_labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector(match_labels)), ..NetworkPolicyPeer::default() }
}

fn one(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn operator(namespace: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector(one(NAMESPACE_NAME, namespace))),
        ..pods(one(labels::NAME, labels::MANAGER))
    }
}

fn prometheus() -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..pods(one(labels::NAME, PROMETHEUS)) }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(number))),
        end_port: None,
    }
}

fn from(peers: Option<Vec<NetworkPolicyPeer>>, ports: &[u16]) -> NetworkPolicyIngressRule {
    let ports = ports.iter().map(|&number| port("TCP", number)).collect();
    NetworkPolicyIngressRule { from: peers, ports: Some(ports) }
}

/// A rule with an empty list of peers would let everybody in; nobody needs no rule.
fn unless_nobody(peers: Option<Vec<NetworkPolicyPeer>>, ports: &[u16]) -> Option<NetworkPolicyIngressRule> {
    (peers != Some(Vec::new())).then(|| from(peers, ports))
}

/// The peers that an API server would take. The others let nobody in, and [`unsound`] tells of them.
fn sound(peers: &[NetworkPolicyPeer]) -> Vec<NetworkPolicyPeer> {
    peers.iter().filter(|peer| check(peer).is_ok()).cloned().collect()
}

/// What is wrong with the first peer that no API server would take.
pub fn unsound(network: &Network) -> Option<String> {
    let spec = &network.spec.network_policy;
    let lists = [("clients", &spec.clients), ("monitoring", &spec.monitoring)];
    lists.into_iter().find_map(|(field, peers)| {
        let (index, why) =
            peers.iter().flatten().enumerate().find_map(|(index, peer)| Some((index, check(peer).err()?)))?;
        Some(format!("spec.networkPolicy.{field}[{index}] lets nobody in, because {why}"))
    })
}

/// The rules of the API server, so that a mistake in one peer costs that peer and not the whole policy.
fn check(peer: &NetworkPolicyPeer) -> Result<(), String> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
    let selectors = [namespace_selector, pod_selector];
    match ip_block {
        Some(_) if selectors.iter().any(|selector| selector.is_some()) => {
            Err("ipBlock excludes podSelector and namespaceSelector; make two peers of it".to_owned())
        }
        Some(block) => check_block(block),
        None if selectors.iter().all(|selector| selector.is_none()) => {
            Err("it is empty; set podSelector, namespaceSelector or ipBlock".to_owned())
        }
        None => selectors.into_iter().flatten().try_for_each(check_selector),
    }
}

fn check_block(block: &IPBlock) -> Result<(), String> {
    let (network, bits) = range(&block.cidr)?;
    for except in block.except.iter().flatten() {
        let (inner, inner_bits) = range(except)?;
        if inner_bits <= bits || masked(inner, bits) != Some(network) {
            return Err(format!("{except} is not a part of {}; take it out of ipBlock.except", block.cidr));
        }
    }
    Ok(())
}

/// Address and prefix length of a range in CIDR notation.
fn range(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("{text:?} is no range of addresses; write one like 10.1.0.0/16");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    // Only in the form in which they would be printed: "010.0.0.0/08" has been read in more than one way.
    let address: IpAddr =
        address.parse().ok().filter(|parsed: &IpAddr| parsed.to_string() == address).ok_or_else(wrong)?;
    let bits: u8 = bits.parse().ok().filter(|parsed: &u8| parsed.to_string() == bits).ok_or_else(wrong)?;
    if masked(address, bits) == Some(address) {
        Ok((address, bits))
    } else {
        Err(format!("{text:?} has bits beyond its prefix, or too long a prefix; write one like 10.1.0.0/16"))
    }
}

/// The address with all but its first `bits` bits cleared; none if it has not so many.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let unused = 32_u32.checked_sub(bits)?;
            let mask = u32::MAX.checked_shl(unused).unwrap_or(0);
            Some(IpAddr::V4((address.to_bits() & mask).into()))
        }
        IpAddr::V6(address) => {
            let unused = 128_u32.checked_sub(bits)?;
            let mask = u128::MAX.checked_shl(unused).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & mask).into()))
        }
    }
}

fn check_selector(selector: &LabelSelector) -> Result<(), String> {
    for (key, value) in selector.match_labels.iter().flatten() {
        check_key(key)?;
        check_value(value)?;
    }
    selector.match_expressions.iter().flatten().try_for_each(check_requirement)
}

fn check_requirement(requirement: &LabelSelectorRequirement) -> Result<(), String> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.as_deref().unwrap_or_default();
    check_key(key)?;
    values.iter().try_for_each(|value| check_value(value))?;
    match (operator.as_str(), values.is_empty()) {
        ("In" | "NotIn", false) | ("Exists" | "DoesNotExist", true) => Ok(()),
        ("In" | "NotIn", true) => Err(format!("the operator {operator} of {key:?} needs values")),
        ("Exists" | "DoesNotExist", false) => Err(format!("the operator {operator} of {key:?} takes no values")),
        _ => Err(format!("{operator:?} is no operator; write In, NotIn, Exists or DoesNotExist")),
    }
}

/// A label's key: a name, after a domain and a slash or alone.
fn check_key(key: &str) -> Result<(), String> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    if is_name(name) && domain.is_none_or(names::is_subdomain) {
        Ok(())
    } else {
        Err(format!("{key:?} is no key of a label"))
    }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(format!("{value:?} is no value of a label")) }
}

fn is_name(text: &str) -> bool {
    text.len() <= 63 && names::framed(text, |byte| byte.is_ascii_alphanumeric(), |byte| b"-_.".contains(&byte))
}

#[cfg(test)]
#[path = "network_policy_tests.rs"]
mod tests;
