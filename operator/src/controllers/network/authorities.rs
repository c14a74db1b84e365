//! Which of a network's authorities signs, and which ones nodes are to trust: a pure judgement of what is there.
//!
//! An authority is replaced in steps, each of which is told by facts alone, so that whoever comes next goes on from there:
//!
//! 1. *Alone.* One authority is trusted and signs. When two thirds of its life are over, or `spec.certificates.rotation`
//!    is raised, a successor is made.
//! 2. *Introducing.* Both are trusted, the elder signs, until every running node says that it trusts the successor.
//! 3. *Handing over.* Both are trusted, the successor signs, until every running node says that its certificate is the
//!    successor's. A certificate of the successor's that is published is what tells this step from the one before: there is
//!    no way back.
//! 4. The elder is trusted no more, and its Secret goes.
//!
//! A node that says nothing is waited for, because it may be one that only the operator cannot reach: going on without it
//! could part it from its peers. That ends when a sixth of the elder's life is left (step 2), or none (step 3).

use std::collections::{BTreeMap, BTreeSet};

use bizra_proto::v1::NodeStatus;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::observe::Observed;
use crate::{
    api::Network,
    certificates::{Authority, CertificateError, CertificateFacts, Trust, inspect, is_due},
    controllers::quorum::Sighting,
    probe::Word,
    resources::{config_map, labels, pod},
};

/// An authority and the Secret it is kept in.
#[derive(Clone, PartialEq)]
pub struct Kept {
    /// The Secret, without what is secret: to delete it.
    pub secret: Secret,
    /// The how manyth of its network it is, from 1.
    pub generation: u32,
    /// `spec.certificates.rotation` when it was made.
    pub rotation: i32,
    /// The authority.
    pub authority: Authority,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kept").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Kept {
    /// Reads the authority in a Secret; none if the Secret is about to go.
    pub fn read(mut secret: Secret) -> Result<Option<Self>, CertificateError> {
        if secret.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let data = secret.data.take().unwrap_or_default();
        let authority = Authority::from_data(&data.into_iter().map(|(key, value)| (key, value.0)).collect())?;
        authority.check()?;
        let number = |key: &str| pod::annotation(&secret.metadata, key).and_then(|text| text.parse::<u32>().ok());
        let generation = number(labels::AUTHORITY_GENERATION).unwrap_or(1);
        let rotation = number(labels::ROTATION).and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
        Ok(Some(Self { secret, generation, rotation, authority }))
    }
}

/// Where a replacement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    Alone,
    /// These nodes do not say yet that they trust the successor.
    Introducing(Vec<String>),
    /// These nodes do not say yet that they have a certificate of the successor's.
    HandingOver(Vec<String>),
}

/// What is to be so.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Who signs; none if there is no authority yet.
    pub issuer: Option<Kept>,
    /// Whom nodes are to trust, the eldest first.
    pub trusted: Vec<Kept>,
    /// Who is not needed any more.
    pub retired: Vec<Kept>,
    /// Generation of the authority that has to be made.
    pub create: Option<u32>,
    /// Where the replacement is.
    pub stage: Stage,
    /// When the next thing falls due if nothing else happens, in seconds since 1970.
    pub due_at: Option<u64>,
}

impl Decision {
    /// What the operator believes and shows meanwhile: nodes may still have certificates of any authority there is.
    pub fn trust(&self) -> Option<Trust> {
        let certificate = |kept: &Kept| kept.authority.certificate.clone();
        Some(Trust {
            roots: self.trusted.iter().chain(&self.retired).map(certificate).collect(),
            client: self.issuer.as_ref()?.authority.clone(),
        })
    }

    /// The text of nodes' authorities and that of operators'.
    pub fn bundles(&self) -> (String, String) {
        let nodes = self.trusted.iter().map(|kept| kept.authority.certificate.as_str()).collect();
        let operators = self.trusted.iter().map(|kept| kept.authority.operator_certificate.as_str()).collect();
        (nodes, operators)
    }
}

/// True if the certificate was signed by this authority.
pub fn is_signed_by(certificate: &CertificateFacts, authority: &Authority) -> bool {
    inspect(&authority.certificate).is_some_and(|facts| {
        !facts.key_identifier.is_empty() && facts.key_identifier == certificate.authority_key_identifier
    })
}

/// Decides.
pub fn decide(network: &Network, observed: &Observed) -> Decision {
    let spec = &network.spec.certificates;
    let now = u64::try_from(observed.now.as_second()).unwrap_or(0);
    if observed.unreadable_authority.is_some() {
        // Whoever it is, it may be trusted: nobody is made, believed or given up in its place.
        let (trusted, retired) = (Vec::new(), Vec::new());
        return Decision { issuer: None, trusted, retired, create: None, stage: Stage::Alone, due_at: None };
    }
    let published = Published::read(observed);
    let mut kept = observed.authorities.clone();
    kept.sort_by_key(|kept| kept.generation);
    let mut decision =
        Decision { issuer: None, trusted: kept, retired: Vec::new(), create: None, stage: Stage::Alone, due_at: None };
    let Some(newest) = decision.trusted.last().cloned() else {
        decision.create = Some(1);
        return decision;
    };
    decision.issuer = Some(newest.clone());
    let Some(facts) = inspect(&newest.authority.certificate) else { return decision };
    let Some(elder) = decision.trusted.iter().rev().nth(1).cloned() else {
        // Until somebody has been given a certificate there is nobody to introduce a successor to.
        let wanted = spec.rotation > newest.rotation || is_due(&facts, spec.authority_lifetime(), now);
        decision.create = (wanted && published.any).then(|| newest.generation.saturating_add(1));
        let dues = published.leaves.values().map(CertificateFacts::renew_at);
        decision.due_at = dues.chain([facts.renew_at()]).min();
        return decision;
    };

    let running = running(observed);
    let lacking = |has: &dyn Fn(&NodeStatus) -> bool| -> Vec<String> {
        let has = |word: &Word| matches!(word, Word::Status(said) if has(said));
        running.iter().filter(|(_, word)| !has(word)).map(|(name, _)| name.clone()).collect()
    };
    let operators = inspect(&newest.authority.operator_certificate).map(|facts| facts.fingerprint);
    let unaware = lacking(&|said| {
        let trusts = |fingerprint: &String| said.trusted_authorities.contains(fingerprint);
        trusts(&facts.fingerprint) && operators.as_ref().is_some_and(trusts)
    });
    let handed_over = published.leaves.values().any(|leaf| is_signed_by(leaf, &newest.authority));
    let introduced = published.names(&newest.authority) && unaware.is_empty();
    let end = inspect(&elder.authority.certificate);
    if !handed_over && !introduced && end.as_ref().is_none_or(|end| now < latest_introduction(end)) {
        decision.issuer = Some(elder);
        decision.stage = Stage::Introducing(unaware);
        return decision;
    }
    let behind = lacking(&|said| said.certificate_authority == facts.fingerprint);
    let mut leaves = published.leaves.values().peekable();
    let all_signed = leaves.peek().is_some() && leaves.all(|leaf| is_signed_by(leaf, &newest.authority));
    let over = end.is_some_and(|end| now >= end.not_after);
    if all_signed && (behind.is_empty() || over) {
        decision.retired = std::mem::take(&mut decision.trusted);
        decision.trusted = decision.retired.pop().into_iter().collect();
    }
    decision.stage = Stage::HandingOver(behind);
    decision
}

/// When a sixth of an authority's life is left.
fn latest_introduction(end: &CertificateFacts) -> u64 {
    end.not_after.saturating_sub(end.not_after.saturating_sub(end.not_before) / 6)
}

/// What nodes have been given.
struct Published {
    any: bool,
    authorities: String,
    operators: String,
    leaves: BTreeMap<String, CertificateFacts>,
}

impl Published {
    fn read(observed: &Observed) -> Self {
        let data = observed.certificates.as_ref().and_then(|map| map.data.as_ref());
        let text = |key: &str| data.and_then(|data| data.get(key)).cloned().unwrap_or_default();
        // Of nodes that are gone the next publication has none.
        let nodes: BTreeSet<String> =
            observed.nodes.iter().map(|node| config_map::certificate_key(&node.name_any())).collect();
        let leaves = data.into_iter().flatten().filter(|(key, _)| nodes.contains(*key));
        Self {
            any: data.is_some(),
            authorities: text(config_map::AUTHORITY),
            operators: text(config_map::OPERATOR_AUTHORITY),
            leaves: leaves.filter_map(|(key, text)| Some((key.clone(), inspect(text)?))).collect(),
        }
    }

    /// True if nodes are told to trust this authority.
    fn names(&self, authority: &Authority) -> bool {
        self.authorities.contains(&authority.certificate) && self.operators.contains(&authority.operator_certificate)
    }
}

/// Names of the nodes whose process runs by their kubelet's word, with what they said last. The others read the
/// certificates of then when they start.
fn running(observed: &Observed) -> Vec<(String, Word)> {
    let runs = |seen: &Sighting| seen.runs && !seen.is_ending;
    let read = observed.pods.iter().filter(|pod| runs(&Sighting::of(pod))).map(kube::ResourceExt::name_any);
    let unread = observed.bystanders.iter().filter(|(_, seen)| runs(seen)).map(|(name, _)| name.clone());
    let with_word = |name: String| {
        let word = observed.words.get(&name).cloned().unwrap_or(Word::Unasked);
        (name, word)
    };
    read.chain(unread).map(with_word).collect()
}

#[cfg(test)]
#[path = "authorities_tests.rs"]
mod tests;
