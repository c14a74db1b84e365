//! The genesis ceremony (PROTOCOL G1, G2), as a pure judgement of what is there.
//!
//! A genesis that exists is the genesis. If there is none, but a volume has pinned one, that one has to come back; a new
//! one would be another chain. Only if no volume knows a genesis, and every validator has proven its key, is one
//! composed: from one list of all pods, each with the uid of the claim its key is on.

use std::collections::BTreeSet;

use bizra_proto::ceremony::{CeremonyError, Genesis, GenesisAccount, GenesisValidator, KeyReport};
use bizra_proto::parameters::Parameters;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;

use super::owners;
use crate::{
    api::{BizraNode, GenesisAccountSpec, LedgerParametersSpec, Network},
    controllers::{
        conditions::Reason,
        key_report::{self, KeyReading},
    },
    kubernetes::named,
    ledger::OwnerSeed,
    memo::Memo,
    resources::{genesis, labels, names, pod},
};

/// Voting power of each genesis validator.
const POWER: &str = "1";

/// Where the ceremony is.
#[derive(Clone, Debug, PartialEq)]
pub enum Ceremony {
    /// There is a genesis, and it is this network's.
    Done {
        /// The genesis.
        genesis: Genesis,
        /// Its hash, lower-case hex.
        hash: String,
    },
    /// Every validator has proven its key; this is to be the genesis.
    Compose(Genesis),
    /// These validators have not reported a key yet; if it is none of them, the owners have none.
    Waiting(Vec<String>),
    /// Somebody has to change something.
    Stalled(Reason),
}

/// Names of a network's genesis validators, in order: those of its genesis if there is one.
pub fn validator_names(network: &Network, config_map: Option<&ConfigMap>) -> Vec<String> {
    match config_map.map(|config_map| genesis_of(network, config_map)) {
        Some(Ok((genesis, _))) => genesis.validators.into_iter().map(|validator| validator.name).collect(),
        _ => wanted_names(network),
    }
}

/// Power of one of the network's own validators: by its node's status, or else by the genesis; before there is one, all have the same.
pub(super) fn power(ceremony: &Ceremony, name: &str, node: Option<&BizraNode>) -> u64 {
    let told = node.and_then(|node| node.status.as_ref()?.power.as_ref()?.parse().ok());
    told.unwrap_or_else(|| match ceremony {
        Ceremony::Done { genesis, .. } => {
            let of_genesis = genesis.validators.iter().find(|validator| validator.name == name);
            of_genesis.and_then(GenesisValidator::power).unwrap_or(0)
        }
        _ => 1,
    })
}

/// Names of the validators the spec asks for.
pub fn wanted_names(network: &Network) -> Vec<String> {
    let name = network.name_any();
    (0..network.spec.validators).map(|ordinal| names::validator(&name, ordinal)).collect()
}

/// Reads and checks a genesis file.
pub fn parse(file: &str) -> Result<Genesis, CeremonyError> {
    static CHECKED: Memo<Genesis> = Memo::new(1024);
    CHECKED.result(&[file.as_bytes()], || Genesis::parse(file.as_bytes()))
}

/// The genesis in a `ConfigMap` and its hash, if it is this network's.
pub fn genesis_of(network: &Network, config_map: &ConfigMap) -> Result<(Genesis, String), Reason> {
    let name = config_map.name_any();
    let Some(file) = config_map.data.as_ref().and_then(|data| data.get(genesis::FILE)) else {
        return Err(Reason::new("InvalidGenesis", format!("ConfigMap {name} has no {}; restore it", genesis::FILE)));
    };
    let genesis = parse(file).map_err(|error| {
        Reason::new("InvalidGenesis", format!("the genesis in ConfigMap {name} is not valid: {error}; restore it"))
    })?;
    let other = |what: String| {
        Reason::new(
            "DataFromAnotherChain",
            format!(
                "ConfigMap {name} is the genesis of another chain: {what}; set the spec to what that chain was made of, or delete the ConfigMap and the volume claims if their data may be lost"
            ),
        )
    };
    if genesis.chain_id != network.spec.chain_id {
        return Err(other(format!("its chain id is {}, not {}", genesis.chain_id, network.spec.chain_id)));
    }
    let wanted = &network.spec.genesis;
    let theirs: BTreeSet<_> = genesis.accounts.iter().map(|account| (&account.address, &account.balance)).collect();
    let ours: BTreeSet<_> = wanted.accounts.iter().map(|account| (&account.address, &account.balance)).collect();
    if !ours.is_subset(&theirs) || theirs.len() - ours.len() != owners::spare_accounts(&genesis, wanted) {
        return Err(other("its accounts are not those of spec.genesis".to_owned()));
    }
    let is_ours = |(ordinal, validator): (i32, &GenesisValidator)| {
        validator.name == names::validator(&network.name_any(), ordinal)
    };
    if !(0..).zip(&genesis.validators).all(is_ours) {
        return Err(other("it names validators of another network".to_owned()));
    }
    let count = genesis.validators.len();
    if !owners::are_known(&genesis) && i32::try_from(count) != Ok(network.spec.validators) {
        return Err(Reason::new(
            "ValidatorsFixed",
            format!(
                "the genesis names no owners of its {count} validators, so none can leave and no other is one of them; set spec.validators to {count}, or make a BizraNode and a Validator"
            ),
        ));
    }
    let hash = genesis::hash(file);
    Ok((genesis, hash))
}

/// Judges where the ceremony is.
pub fn assess(
    network: &Network,
    config_map: Option<&ConfigMap>,
    pods: &[Pod],
    claims: &[PersistentVolumeClaim],
    seed: Option<&OwnerSeed>,
    now_milliseconds: u64,
) -> Ceremony {
    let chain_id = &network.spec.chain_id;
    for claim in claims {
        let other = pod::label(&claim.metadata, labels::CHAIN_ID).unwrap_or("(none)");
        if other != chain_id {
            return Ceremony::Stalled(Reason::new(
                "DataFromAnotherChain",
                format!(
                    "volume claim {} holds chain {other}, this network is chain {chain_id}; delete the claim if its data may be lost, or use the former chain id",
                    claim.name_any()
                ),
            ));
        }
    }
    let readings: Vec<(String, KeyReading)> =
        wanted_names(network).into_iter().map(|name| read(name, chain_id, pods, claims)).collect();
    let pinned = pinned_hashes(&readings, claims);

    match config_map {
        Some(config_map) => match genesis_of(network, config_map) {
            Err(reason) => Ceremony::Stalled(reason),
            Ok((genesis, hash)) => match pinned.iter().find(|(_, pinned)| *pinned != hash) {
                Some((holder, pinned)) => Ceremony::Stalled(Reason::new(
                    "DataFromAnotherChain",
                    format!(
                        "{holder} has pinned genesis {pinned}, ConfigMap {} has genesis {hash}; restore the former genesis, or delete the volume claim if its data may be lost",
                        config_map.name_any()
                    ),
                )),
                None => Ceremony::Done { genesis, hash },
            },
        },
        None if !pinned.is_empty() => Ceremony::Stalled(genesis_lost(network, &pinned)),
        None => compose(network, readings, seed, now_milliseconds),
    }
}

/// A genesis was pinned, and its file is gone: it cannot be made again from its hash.
fn genesis_lost(network: &Network, pinned: &[(String, String)]) -> Reason {
    let hashes: BTreeSet<&str> = pinned.iter().map(|(_, hash)| hash.as_str()).collect();
    let hashes: Vec<&str> = hashes.into_iter().collect();
    let config_map = names::genesis(&network.name_any());
    match hashes.as_slice() {
        [one] => Reason::new(
            "GenesisLost",
            format!(
                "the volumes have pinned genesis {one}, but ConfigMap {config_map} is gone; restore it (its {} has this SHA-256), or delete the volume claims if their data may be lost",
                genesis::FILE
            ),
        ),
        many => Reason::new(
            "DataFromAnotherChain",
            format!(
                "the volumes have pinned different genesis files ({}); delete the claims of the chain that may be lost",
                many.join(", ")
            ),
        ),
    }
}

/// What one validator reports.
fn read(name: String, chain_id: &str, pods: &[Pod], claims: &[PersistentVolumeClaim]) -> (String, KeyReading) {
    let claim_name = names::claim(&name);
    let volume_id = named(claims, &claim_name).and_then(kube::ResourceExt::uid);
    let pod = named(pods, &name);
    let reading = match (pod, volume_id) {
        (Some(pod), Some(volume_id)) => key_report::read(pod, &volume_id, chain_id),
        _ => KeyReading::Absent,
    };
    (name, reading)
}

/// Every genesis hash a volume is known to have pinned, with who says so.
fn pinned_hashes(readings: &[(String, KeyReading)], claims: &[PersistentVolumeClaim]) -> Vec<(String, String)> {
    let reported = readings.iter().filter_map(|(name, reading)| match reading {
        KeyReading::Reported(report) => Some((format!("node {name}"), report.genesis_hash.clone()?)),
        _ => None,
    });
    let labelled = claims.iter().filter_map(|claim| {
        let hash = pod::annotation(&claim.metadata, labels::GENESIS_HASH)?;
        Some((format!("volume claim {}", claim.name_any()), hash.to_owned()))
    });
    reported.chain(labelled).collect()
}

fn compose(
    network: &Network,
    readings: Vec<(String, KeyReading)>,
    seed: Option<&OwnerSeed>,
    time_milliseconds: u64,
) -> Ceremony {
    let mut missing = Vec::new();
    let mut reports: Vec<(String, KeyReport)> = Vec::new();
    for (name, reading) in readings {
        match reading {
            KeyReading::Absent => missing.push(name),
            KeyReading::Reported(report) => reports.push((name, *report)),
            KeyReading::Invalid(why) => {
                return Ceremony::Stalled(Reason::new(
                    "InvalidKeyReport",
                    format!("node {name} reports a key that cannot be used: {why}"),
                ));
            }
        }
    }
    let Some(seed) = seed.filter(|_| missing.is_empty()) else { return Ceremony::Waiting(missing) };
    let parameters = network.spec.genesis.parameters.as_ref();
    let parameters = parameters.map_or_else(Parameters::default, LedgerParametersSpec::of_genesis);
    let validator = |(name, report): (String, KeyReport)| GenesisValidator {
        name,
        public_key: report.public_key,
        proof_of_possession: report.proof_of_possession,
        power: POWER.to_owned(),
        owner: None,
        stake: None,
    };
    let mut validators: Vec<GenesisValidator> = reports.into_iter().map(validator).collect();
    let spare = owners::endow(&mut validators, network, &parameters, seed);
    let account = |account: &GenesisAccountSpec| GenesisAccount {
        address: account.address.clone(),
        balance: account.balance.clone(),
    };
    let genesis = Genesis {
        version: 1,
        chain_id: network.spec.chain_id.clone(),
        time_milliseconds,
        validators,
        accounts: network.spec.genesis.accounts.iter().map(account).chain(spare).collect(),
        parameters,
    };
    match genesis.check() {
        Ok(()) => Ceremony::Compose(genesis),
        Err(error) => Ceremony::Stalled(Reason::new("InvalidGenesis", format!("no genesis can be made: {error}"))),
    }
}

#[cfg(test)]
#[path = "ceremony_tests.rs"]
mod tests;
