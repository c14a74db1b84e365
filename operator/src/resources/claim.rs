//! The volume claim of a node. It has no owner: it outlives the node, because the keys and the signing record are on it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{labels, names};
use crate::api::StorageSpec;

/// A claim that only one pod can use at a time, on whichever host.
pub fn claim(
    node: &str,
    namespace: &str,
    network: &str,
    chain_id: &str,
    storage: &StorageSpec,
) -> PersistentVolumeClaim {
    let mut all_labels = labels::of_node(network, node);
    all_labels.insert(labels::CHAIN_ID.to_owned(), chain_id.to_owned());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::claim(node)),
            namespace: Some(namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some([labels::retained()].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Notes on a claim which genesis its data belongs to.
pub fn set_genesis(claim: &mut PersistentVolumeClaim, hash: &str) {
    let metadata = &mut claim.metadata;
    let label = labels::genesis_label(hash).to_owned();
    metadata.labels.get_or_insert_default().insert(labels::GENESIS_HASH.to_owned(), label);
    metadata.annotations.get_or_insert_default().insert(labels::GENESIS_HASH.to_owned(), hash.to_owned());
}

/// True if the claim was bound to a volume that is not there any more.
pub fn is_lost(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost")
}

/// Bytes of a quantity such as `10Gi`; none if it is not a whole number with a known suffix.
pub fn bytes(quantity: &str) -> Option<u128> {
    let digits = quantity.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_suffixes() {
        assert_eq!(bytes("1Gi"), bytes("1024Mi"));
        assert!(bytes("10Gi") > bytes("10G"));
        assert_eq!(bytes("1.5Gi"), None);
        assert_eq!(bytes("lots"), None);
    }

    #[test]
    fn a_claim_has_no_owner_and_is_not_pruned() {
        let claim = claim("demo-v0", "default", "demo", "demo-1", &StorageSpec::default());
        assert_eq!(claim.metadata.owner_references, None);
        let annotations = claim.metadata.annotations.unwrap_or_default();
        assert_eq!(annotations.get(labels::ARGOCD_SYNC_OPTIONS).map(String::as_str), Some("Prune=false"));
        assert!(!claim.metadata.labels.unwrap_or_default().contains_key("app.kubernetes.io/instance"));
    }
}
