//! `ConfigMap`s that are owned: a node's configuration and a network's certificates.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Serialize;

use super::{controlled_by, labels, names, pod};
use crate::api::{BizraNode, Network, Signing};

/// Key of the configuration file.
pub const FILE: &str = "node.toml";
/// Key of the network's certificate authority.
pub const AUTHORITY: &str = "ca.crt";
/// Key of the authority that signs the operator's client certificate.
pub const OPERATOR_AUTHORITY: &str = "operator-ca.crt";

/// The line that fences a node. It is taken up while the node runs, so it makes no other revision of the pod.
const FENCE: &str = "signing = \"fenced\"\n";

/// True if this configuration file fences its node.
pub fn is_fenced(file: &str) -> bool {
    file.contains(FENCE)
}

/// Begins the list of the nodes that follow, at the end of the file. It is taken up while the node runs, too.
const FOLLOWERS: &str = "\n# Nodes that follow.\n";

/// The list of the nodes that follow; empty if there are none.
pub fn followers(file: &str) -> &str {
    file.split_once(FOLLOWERS).map_or("", |(_, followers)| followers)
}

/// The part of a configuration file that a pod has to be made anew for.
pub fn pod_part(file: &str) -> String {
    file.split_once(FOLLOWERS).map_or(file, |(before, _)| before).replace(FENCE, "")
}

/// Key of a node's certificate. The schema refuses nodes whose certificates would be called like an authority's.
pub fn certificate_key(node: &str) -> String {
    format!("{node}.crt")
}

/// The configuration file of a node.
#[derive(Serialize)]
struct NodeFile<'a> {
    node_name: &'a str,
    data_dir: &'a str,
    volume_id: &'a str,
    genesis_file: String,
    // Left out by default, so that a node of an earlier version can read its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing: Option<&'static str>,
    tls: TlsSection,
    peers: Vec<Peer>,
}

// The names are those of the file.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct TlsSection {
    certificate_file: String,
    ca_file: String,
    operator_ca_file: String,
}

#[derive(Serialize)]
struct Peer {
    name: String,
    address: String,
}

#[derive(Serialize)]
struct Peers {
    peers: Vec<Peer>,
}

/// Whom a node talks to. A node takes no stream of whom it does not know.
#[derive(Clone, Copy, Debug)]
pub struct Neighbours<'a> {
    /// The validators: whoever follows a chain gets it from them.
    pub validators: &'a [String],
    /// The nodes that follow, if this node is a validator.
    pub followers: &'a [String],
}

/// Text of a node's configuration file.
pub fn node_file(
    node: &str,
    namespace: &str,
    network: &str,
    volume_id: &str,
    neighbours: Neighbours<'_>,
    signing: Signing,
) -> Result<String, toml::ser::Error> {
    let certificates = pod::CERTIFICATES_DIR;
    let peers = |names: &[String]| -> Vec<Peer> {
        let others = names.iter().filter(|name| name.as_str() != node);
        let peer = |name: &String| Peer {
            name: name.clone(),
            address: format!("{}:{}", names::host(name, network, namespace), bizra_proto::port::PEER),
        };
        others.map(peer).collect()
    };
    let mut text = toml::to_string(&NodeFile {
        node_name: node,
        data_dir: pod::DATA_DIR,
        volume_id,
        genesis_file: format!("{}/{}", pod::GENESIS_DIR, super::genesis::FILE),
        signing: (signing == Signing::Fenced).then_some("fenced"),
        tls: TlsSection {
            certificate_file: format!("{certificates}/{}", certificate_key(node)),
            ca_file: format!("{certificates}/{AUTHORITY}"),
            operator_ca_file: format!("{certificates}/{OPERATOR_AUTHORITY}"),
        },
        peers: peers(neighbours.validators),
    })?;
    let followers = peers(neighbours.followers);
    if !followers.is_empty() {
        text.push_str(FOLLOWERS);
        text.push_str(&toml::to_string(&Peers { peers: followers })?);
    }
    Ok(text)
}

/// The `ConfigMap` with a node's configuration file.
pub fn config(node: &BizraNode, name: &str, namespace: &str, file: String) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::config(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_node(&node.spec.network_ref.name, name)),
            owner_references: Some(vec![controlled_by(node)]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(FILE.to_owned(), file)])),
        ..ConfigMap::default()
    }
}

/// The `ConfigMap` with the certificates of a network's nodes.
pub fn certificates(network: &Network, name: &str, namespace: &str, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::certificates(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(name)),
            owner_references: Some(vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file_of(followers: &[&str], signing: Signing) -> String {
        let validators = ["demo-v0", "demo-v1"].map(str::to_owned);
        let followers: Vec<String> = followers.iter().map(|name| (*name).to_owned()).collect();
        let neighbours = Neighbours { validators: &validators, followers: &followers };
        node_file("demo-v0", "default", "demo", "uid-1", neighbours, signing).unwrap()
    }

    #[test]
    fn a_node_file_names_its_certificates_and_its_peers_but_not_itself() {
        let file = file_of(&[], Signing::Allowed);
        let expected = r#"node_name = "demo-v0"
data_dir = "/var/lib/bizra"
volume_id = "uid-1"
genesis_file = "/etc/bizra/genesis/genesis.json"

[tls]
certificate_file = "/etc/bizra/certificates/demo-v0.crt"
ca_file = "/etc/bizra/certificates/ca.crt"
operator_ca_file = "/etc/bizra/certificates/operator-ca.crt"

[[peers]]
name = "demo-v1"
address = "demo-v1.demo-nodes.default.svc:7100"
"#;
        assert_eq!(file, expected);
    }

    #[test]
    fn a_fence_and_the_nodes_that_follow_are_no_other_revision() {
        let file = file_of(&[], Signing::Allowed);
        let fenced = file_of(&["reader-0"], Signing::Fenced);
        assert!(is_fenced(&fenced) && !is_fenced(&file));
        assert_eq!(
            followers(&fenced),
            "[[peers]]\nname = \"reader-0\"\naddress = \"reader-0.demo-nodes.default.svc:7100\"\n"
        );
        assert_eq!((pod_part(&fenced), followers(&file)), (file.clone(), ""));
        assert_eq!(file_of(&["demo-v0"], Signing::Allowed), file, "a node does not follow itself");
        let names: Vec<String> = toml::from_str::<toml::Table>(&fenced).unwrap()["peers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|peer| peer["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["demo-v1", "reader-0"]);
    }
}
