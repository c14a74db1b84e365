//! Names of everything the operator makes. They are fixed, so that a second creation meets the first.

use sha2::{Digest as _, Sha256};

/// The genesis validator with this ordinal.
pub fn validator(network: &str, ordinal: i32) -> String {
    format!("{network}-v{ordinal}")
}

/// The ordinal in the name of a network's own validator; none if the name is not one a network gives.
pub fn validator_ordinal(network: &str, name: &str) -> Option<i32> {
    name.strip_prefix(network)?.strip_prefix("-v")?.parse().ok()
}

/// A pool's node of this ordinal.
pub fn pool_node(pool: &str, ordinal: i32) -> String {
    format!("{pool}-{ordinal}")
}

/// The ordinal of a pool's node; none if the name is not one a pool gives.
pub fn ordinal(pool: &str, node: &str) -> Option<i32> {
    node.strip_prefix(pool)?.strip_prefix('-')?.parse().ok()
}

/// The how manyth replacement of a validator's node.
pub fn replacement(node: &str, number: u32) -> String {
    format!("{node}-r{number}")
}

/// True if this is the name of a replacement of the node.
pub fn is_replacement(node: &str, name: &str) -> bool {
    let number = name.strip_prefix(node).and_then(|rest| rest.strip_prefix("-r"));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|parsed| parsed.to_string() == number))
}

/// The volume claim of a node.
pub fn claim(node: &str) -> String {
    format!("{node}-data")
}

/// The node whose volume claim has this name.
pub fn node_of_claim(claim: &str) -> Option<&str> {
    claim.strip_suffix("-data")
}

/// The `ConfigMap` with a node's configuration.
pub fn config(node: &str) -> String {
    format!("{node}-config")
}

/// The `ConfigMap` with the genesis file.
pub fn genesis(network: &str) -> String {
    format!("{network}-genesis")
}

/// The `ConfigMap` with the certificates of a network's nodes.
pub fn certificates(network: &str) -> String {
    format!("{network}-certificates")
}

/// The headless Service that gives every node a host name.
pub fn nodes_service(network: &str) -> String {
    format!("{network}-nodes")
}

/// The Service for clients.
pub fn api_service(network: &str) -> String {
    format!("{network}-api")
}

/// The disruption budget of a network's validators.
pub fn disruption_budget(network: &str) -> String {
    format!("{network}-validators")
}

/// The policy that closes off the nodes of a network.
pub fn network_policy(network: &str) -> String {
    format!("{network}-nodes")
}

/// The Secret with a network's certificate authority, in the operator's namespace. The uid is part of it: a network
/// that is deleted and applied again gets a new authority, and the old one can be swept without asking who uses it.
pub fn authority(network_uid: &str, generation: u32) -> String {
    let digest = hex::encode(Sha256::digest(network_uid.as_bytes()));
    let name = format!("bizra-authority-{}", digest.get(..16).unwrap_or(&digest));
    // The first was made before there were others.
    if generation <= 1 { name } else { format!("{name}-{generation}") }
}

/// The Secret with the seed of a network's generated owners, in the operator's namespace. It outlives the Network, as the chain does,
/// and belongs to whoever continues that chain.
pub fn owners(namespace: &str, network: &str, chain_id: &str) -> String {
    // None of them holds a slash.
    let digest = hex::encode(Sha256::digest(format!("{namespace}/{network}/{chain_id}").as_bytes()));
    format!("bizra-owners-{}", digest.get(..16).unwrap_or(&digest))
}

/// Host name of a node inside the cluster, without the cluster domain.
pub fn host(node: &str, network: &str, namespace: &str) -> String {
    format!("{node}.{}.{namespace}.svc", nodes_service(network))
}

/// True of a DNS subdomain, which is what the API server takes as the name of an object.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| framed(part, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-'))
}

/// True if the text begins and ends with `outer` bytes and has only those and `inner` ones between.
pub fn framed(text: &str, outer: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&byte| outer(byte))
        && bytes.last().is_some_and(|&byte| outer(byte))
        && bytes.iter().all(|&byte| outer(byte) || inner(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_told_by_its_name() {
        assert!(is_replacement("demo-v0", &replacement("demo-v0", 12)));
        for other in ["demo-v0", "demo-v0-r", "demo-v0-r01", "demo-v0-r+1", "demo-v0-r1-r1", "demo-v01-r1", "demo-r1"] {
            assert!(!is_replacement("demo-v0", other), "{other}");
        }
    }
}
