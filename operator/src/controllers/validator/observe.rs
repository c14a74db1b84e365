//! The validator's owner, its node, and what the chain knows of them.

use std::{collections::BTreeSet, sync::Arc};

use bizra_transaction::{Address, TransactionId};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Secret},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _};
use tonic::transport::Channel;

use super::replacement::{self, Nodes};
use crate::{
    api::{BizraNode, Network, Validator, ValidatorStatus},
    controllers::{
        Context, ReconcileError, Source,
        conditions::Reason,
        network::owners,
        ownership::{Ownership, ownership},
        quorum, reading,
    },
    kubernetes::{find, named},
    ledger::{Asked, Ledger, LedgerError, OwnerKey, OwnerView},
    probe::Word,
    resources::names,
};

/// All a plan is made from, and what carries it out.
pub struct Observed {
    /// Time of the observation.
    pub now: Timestamp,
    /// The validator's Network, if it is there.
    pub network: Option<Network>,
    /// What its node says: the one whose key is to vote.
    pub word: Word,
    /// A connection to it.
    pub channel: Option<Channel>,
    /// The owner's key, or why there is none; not asked for while only the account matters, and that is known.
    pub owner: Option<Result<OwnerKey, Reason>>,
    /// An older Validator of the same account.
    pub elder: Option<String>,
    /// What the chain knows of the account; none while the account is not known.
    pub view: Option<Result<OwnerView, LedgerError>>,
    /// This operator has just begun to look on, and has not asked every node yet.
    pub is_early: bool,
    /// Whom to ask and to tell.
    pub ledger: Ledger,
    /// Its nodes, and what bears their names.
    pub around: Nodes,
}

impl Observed {
    /// The account: the one whose transactions the status tells of, or else that of the key.
    pub fn address(&self, validator: &Validator) -> Option<Address> {
        address_of(validator, self.owner.as_ref())
    }
}

/// True if the account is settled: there has been a transaction of it, or no other can own this validator. Before that a validator belongs
/// to nobody, and a wrong Secret can be put right.
fn is_bound(validator: &Validator) -> bool {
    let acted = |status: &ValidatorStatus| status.transaction.is_some() || !status.history.is_empty();
    validator.spec.owner.is_none() || validator.status.as_ref().is_some_and(acted)
}

fn address_of(validator: &Validator, owner: Option<&Result<OwnerKey, Reason>>) -> Option<Address> {
    let known = known_address(validator);
    let told = || Some(owner?.as_ref().ok()?.address());
    if is_bound(validator) { known.or_else(told) } else { told().or(known) }
}

fn known_address(validator: &Validator) -> Option<Address> {
    let address = validator.status.as_ref()?.address.as_deref()?;
    bizra_proto::ceremony::decode_hex(address).map(Address)
}

/// The validator as it is now; none if it is gone or another one.
pub async fn validator(
    context: &Context,
    source: Source,
    validator: &Validator,
) -> Result<Option<Validator>, ReconcileError> {
    let namespace = validator.namespace().unwrap_or_default();
    let name = validator.name_any();
    let live: Option<Validator> = reading::one(context, source, &namespace, &name, "the Validator").await?;
    Ok(live.filter(|live| live.uid() == validator.uid()))
}

/// Reads everything.
pub async fn observe(context: &Context, source: Source, validator: &Validator) -> Result<Observed, ReconcileError> {
    let namespace = validator.namespace().unwrap_or_default();
    let of = &validator.spec.network_ref.name;
    let network: Option<Network> = reading::one(context, source, &namespace, of, "the Network").await?;
    // Whom to ask, and what bears the names of the validator's nodes; who follows is no concern of it.
    let validators = context.caches.validators.of_network(&namespace, of);
    let named_by_one: BTreeSet<&str> =
        validators.iter().flat_map(|validator| replacement::nodes(validator.as_ref())).collect();
    let is_asked = |node: &Arc<BizraNode>| {
        named_by_one.contains(node.metadata.name.as_deref().unwrap_or_default())
            || quorum::has_power(node)
            || ownership(&node.metadata, validator) == Ownership::Ours
    };
    let all = context.caches.nodes.of_network(&namespace, of);
    let asked: BTreeSet<String> = all.iter().filter(|node| is_asked(node)).map(|node| node.name_any()).collect();
    let is_meant = |name: &str| asked.contains(name) || replacement::matters(validator, name);
    let place = (namespace.as_str(), of.as_str());
    let nodes: Vec<BizraNode> = reading::some_of_network(context, source, place, "the BizraNodes", is_meant).await?;
    let pods: Vec<Pod> = reading::some_of_network(context, source, place, "the pods", is_meant).await?;
    let owner = match known_address(validator).filter(|_| is_bound(validator)) {
        Some(_) => None,
        None => Some(owner(context, validator, network.as_ref()).await?),
    };

    let reach = |node: &BizraNode| {
        let pod = named(&pods, &node.name_any()).filter(|pod| quorum::container_runs(pod))?;
        let (key, uid) = ((namespace.clone(), node.name_any()), pod.uid()?);
        Some((context.probes.latest(&key, &uid), context.probes.channel(&key, &uid)))
    };
    let voters = nodes.iter().filter_map(|node| {
        let (Word::Status(said), Some(channel)) = reach(node)? else { return None };
        Some(Asked {
            name: node.name_any(),
            power: said.power,
            total_power: said.total_power,
            height: said.finalized_height,
            channel,
        })
    });
    let ledger = Ledger::new(voters.collect());
    let is_early = nodes.iter().filter_map(reach).any(|(word, _)| matches!(word, Word::Unasked));
    let node = named(&nodes, replacement::meant(validator));
    let (word, channel) = node.and_then(reach).unwrap_or_else(|| (Word::Unknown("it does not run".to_owned()), None));

    let address = address_of(validator, owner.as_ref());
    let elder = address.and_then(|address| elder(context, &namespace, validator, address));
    let pending = validator.status.as_ref().and_then(|status| status.transaction.as_ref());
    let pending = pending.and_then(|pending| bizra_proto::ceremony::decode_hex(&pending.id)).map(TransactionId);
    let view = match address {
        Some(address) => Some(ledger.owner(address, pending).await),
        None => None,
    };
    let of_node = |claim: &str| names::node_of_claim(claim).is_some_and(|node| replacement::matters(validator, node));
    let claims: Vec<PersistentVolumeClaim> =
        reading::some_of_network(context, source, place, "the volume claims", of_node).await?;
    let around = Nodes::of(validator, nodes, pods, claims);
    Ok(Observed { now: Timestamp::now(), network, word, channel, owner, elder, view, ledger, around, is_early })
}

/// The name of a Validator of the same account and network that was there before.
fn elder(context: &Context, namespace: &str, validator: &Validator, address: Address) -> Option<String> {
    let age = |validator: &Validator| (validator.creation_timestamp(), validator.uid());
    let others = context.caches.validators.of_network(namespace, &validator.spec.network_ref.name);
    let same = |other: &Validator| known_address(other) == Some(address) && other.uid() != validator.uid();
    others.iter().find(|other| same(other) && age(other) < age(validator)).map(|other| other.name_any())
}

/// What to run so that the operator may read Secrets here. The API server's refusal names the account the operator has, and the
/// chart names the role after it.
fn how_to_allow(refusal: &str, namespace: &str) -> String {
    let account = refusal.split("system:serviceaccount:").nth(1).and_then(|rest| rest.split('"').next());
    let Some((operator, account)) = account.and_then(|account| account.split_once(':')) else {
        return format!("the operator may not read Secrets in this namespace: {refusal}");
    };
    format!(
        "the operator may not read Secrets in this namespace; allow it: kubectl create rolebinding {account}-owners --clusterrole={account}-owners --serviceaccount={operator}:{account} --namespace {namespace}"
    )
}

/// The owner's key. Secrets are read one by one, when they are needed, and never kept.
pub async fn owner(
    context: &Context,
    validator: &Validator,
    network: Option<&Network>,
) -> Result<Result<OwnerKey, Reason>, ReconcileError> {
    let Some(wanted) = &validator.spec.owner else { return generated(context, validator, network).await };
    let (name, namespace) = (&wanted.secret_name, validator.namespace().unwrap_or_default());
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let secret = match find(&api, name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let message =
                format!("there is no Secret {name}; create it with the owner's key under {}", wanted.secret_key);
            return Ok(Err(Reason::new("SecretMissing", message)));
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(Err(Reason::new("SecretsForbidden", how_to_allow(&status.message, &namespace))));
        }
        Err(source) => return Err(ReconcileError::Observe { what: "the owner's Secret", source }),
    };
    Ok(OwnerKey::read(&secret, &wanted.secret_key)
        .map_err(|error| Reason::new("SecretMalformed", format!("Secret {name} cannot be used: {error}"))))
}

/// The key of an owner that the operator has made: the name of the Validator is what it is derived by.
async fn generated(
    context: &Context,
    validator: &Validator,
    network: Option<&Network>,
) -> Result<Result<OwnerKey, Reason>, ReconcileError> {
    let Some(network) = network else { return Ok(Err(Reason::new("NetworkMissing", "there is no Network"))) };
    let Some(secret) = owners::read(context, network).await? else {
        let (namespace, name) = (&context.settings.operator_namespace, owners::name_of(network));
        let message =
            format!("there is no Secret {namespace}/{name} with the seed of the owners; restore it from a backup");
        return Ok(Err(Reason::new("OwnersMissing", message)));
    };
    Ok(owners::seed(&secret).map(|seed| seed.owner(&validator.name_any())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_learns_what_to_run() {
        let refusal =
            r#"secrets "owner" is forbidden: User "system:serviceaccount:bizra-system:bizra" cannot get resource"#;
        let told = how_to_allow(refusal, "ledger");
        let command = "kubectl create rolebinding bizra-owners --clusterrole=bizra-owners --serviceaccount=bizra-system:bizra --namespace ledger";
        assert!(told.ends_with(command), "{told}");
        assert!(how_to_allow("no", "ledger").ends_with("no"));
    }
}
