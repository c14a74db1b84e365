//! The genesis `ConfigMap`: written once, immutable, without owner, so that it outlives the Network.

use std::collections::BTreeMap;

use bizra_proto::ceremony::{Genesis, genesis_hash};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{labels, names};

/// Key of the genesis file.
pub const FILE: &str = "genesis.json";

/// Builds the `ConfigMap`. The bytes made here are the genesis for ever: they are never serialised again.
pub fn config_map(network: &str, namespace: &str, genesis: &Genesis) -> Result<ConfigMap, serde_json::Error> {
    let file = serde_json::to_string_pretty(genesis)?;
    let hash = hash(&file);
    let mut all_labels = labels::of_network(network);
    all_labels.insert(labels::CHAIN_ID.to_owned(), genesis.chain_id.clone());
    all_labels.insert(labels::GENESIS_HASH.to_owned(), labels::genesis_label(&hash).to_owned());
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::genesis(network)),
            namespace: Some(namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some(BTreeMap::from([labels::retained(), (labels::GENESIS_HASH.to_owned(), hash)])),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(FILE.to_owned(), file)])),
        binary_data: None,
    })
}

/// Lower-case hex of the hash that names a genesis file.
pub fn hash(file: &str) -> String {
    hex::encode(genesis_hash(file.as_bytes()))
}
