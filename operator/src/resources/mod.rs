//! Pure builders of Kubernetes objects: owner in, object out. Nothing here reads a clock or the API server.

pub mod budget;
pub mod claim;
pub mod config_map;
pub mod genesis;
pub mod growth;
pub mod labels;
pub mod names;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod revision;
pub mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use sha2::{Digest as _, Sha256};

/// A reference that makes `owner` the controller of an object.
pub fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Sixteen hex digits that change when `bytes` do: for revisions, which need no collision resistance.
pub fn short_hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes)).chars().take(16).collect()
}
