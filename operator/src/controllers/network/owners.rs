//! Accounts that own the network's own validators. Their keys are derived from one seed, which the operator makes before the first
//! genesis and keeps in a Secret of its own namespace, as it keeps the authorities: no tenant's namespace has to let it read Secrets.
//! The Secret outlives the Network as the chain does; who continues the chain finds it under the same name.

use bizra_proto::{
    ceremony::{Genesis, GenesisAccount, GenesisValidator},
    parameters::Parameters,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt as _, api::ObjectMeta};

use crate::{
    api::{
        GenesisSpec, Network, NetworkReference, NodeReference, Validator, ValidatorDeletionPolicy, ValidatorSpec,
        default_host_grace_seconds,
    },
    controllers::{Context, ReconcileError, conditions::Reason, reading},
    kubernetes::{Manifest, Write},
    ledger::{OwnerSeed, SEED},
    resources::{controlled_by, labels, names},
};

/// The Secret, read from the API server.
pub async fn read(context: &Context, network: &Network) -> Result<Option<Secret>, ReconcileError> {
    let own = &context.settings.operator_namespace;
    let name = name_of(network);
    let selector = format!("{}={name}", labels::OWNERS);
    let found: Vec<Secret> = reading::list(&context.client, own, &selector, "the owners' Secret").await?;
    Ok(found.into_iter().find(|secret| secret.name_any() == name))
}

/// The seed in a Secret, or what is wrong with it.
pub fn seed(secret: &Secret) -> Result<OwnerSeed, Reason> {
    OwnerSeed::read(secret).map_err(|error| {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let message = format!("Secret {namespace}/{name} cannot be used: {error}; restore it from a backup");
        Reason::new("OwnersUnreadable", message)
    })
}

/// Name of a network's Secret.
pub fn name_of(network: &Network) -> String {
    names::owners(&network.namespace().unwrap_or_default(), &network.name_any(), &network.spec.chain_id)
}

/// The Secret with a new seed. It is created, never replaced: of two that are made at once, the first holds.
pub(in crate::controllers) fn create(network: &Network, operator_namespace: &str) -> Result<Write, ReconcileError> {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let seed = OwnerSeed::generate().map_err(|error| ReconcileError::Build(error.to_string()))?;
    let secret = name_of(network);
    let mut all_labels = labels::of_network(&name);
    all_labels.insert(labels::NETWORK_NAMESPACE.to_owned(), namespace);
    all_labels.insert(labels::CHAIN_ID.to_owned(), network.spec.chain_id.clone());
    all_labels.insert(labels::OWNERS.to_owned(), secret.clone());
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(secret),
            namespace: Some(operator_namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some([labels::retained()].into()),
            ..ObjectMeta::default()
        },
        data: Some([(SEED.to_owned(), ByteString(seed.as_bytes().to_vec()))].into()),
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        ..Secret::default()
    };
    Ok(Write::Create(Manifest::of(&secret)?))
}

/// Gives each validator of a genesis its owner with the stake of its power, and makes the accounts of those that may come later.
pub(in crate::controllers) fn endow(
    validators: &mut [GenesisValidator],
    network: &Network,
    parameters: &Parameters,
    seed: &OwnerSeed,
) -> Vec<GenesisAccount> {
    let stake = parameters.stake_per_power.to_string();
    for validator in validators.iter_mut() {
        validator.owner = Some(seed.owner(&validator.name).address().to_string());
        validator.stake = Some(stake.clone());
    }
    let first = network.spec.validators;
    let spare = first..first.saturating_add(network.spec.genesis.spare_validators);
    let account = |ordinal| {
        let owner = seed.owner(&names::validator(&network.name_any(), ordinal));
        GenesisAccount { address: owner.address().to_string(), balance: stake.clone() }
    };
    spare.map(account).collect()
}

/// True if the chain knows owners of its first validators: only then they can leave, and others can be made like them.
pub(super) fn are_known(genesis: &Genesis) -> bool {
    genesis.validators.iter().all(|validator| validator.owner.is_some())
}

/// How many accounts a genesis made of this spec has besides those the spec names.
pub(super) fn spare_accounts(genesis: &Genesis, spec: &GenesisSpec) -> usize {
    if are_known(genesis) { usize::try_from(spec.spare_validators).unwrap_or(0) } else { 0 }
}

/// The Validator of one of the network's own nodes.
pub(super) fn validator(network: &Network, name: &str, parameters: &Parameters) -> Validator {
    let of = network.name_any();
    Validator {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: network.namespace(),
            labels: Some(labels::of_node(&of, name)),
            owner_references: Some(vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        spec: ValidatorSpec {
            network_ref: NetworkReference { name: of },
            node_ref: NodeReference { name: name.to_owned() },
            owner: None,
            stake: parameters.stake_per_power.to_string(),
            fee: "0".to_owned(),
            deletion_policy: ValidatorDeletionPolicy::Release,
            host_grace_seconds: default_host_grace_seconds(),
        },
        status: None,
    }
}
