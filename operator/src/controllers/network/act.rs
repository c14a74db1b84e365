//! Does what was planned, one write at a time.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};

use super::{
    observe::Observed,
    owners,
    plan::{Plan, Step},
};
use crate::{
    api::Network,
    certificates::{Authority, NodeNames},
    controllers::{Context, ReconcileError, conditions::Reason},
    kubernetes::{Announcement, Manifest, Severity, Write, WriteOutcome},
    resources::{config_map, labels, names},
};

/// Executes the steps in order. Stops at the first that somebody else was faster with, and at the first that fails; a Service that
/// the API server refuses, because of its annotations, keeps no validator from being made and no certificate from being renewed.
pub(super) async fn act(
    context: &Context,
    network: &Network,
    observed: &Observed,
    plan: &Plan,
) -> Result<(), ReconcileError> {
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let mut refused = None;
    for step in &plan.steps {
        let (write, event) = match step {
            Step::Write(write, event) => (write.as_ref().clone(), event.clone()),
            Step::CreateAuthority { generation } => {
                let write = create_authority(network, &context.settings.operator_namespace, *generation, now)?;
                let message = format!("made authority {generation}; nodes are told to trust it before it signs");
                (write, (*generation > 1).then(|| Reason::new("AuthorityCreated", message)))
            }
            Step::CreateOwners => (owners::create(network, &context.settings.operator_namespace)?, None),
            Step::IssueCertificates { requests, keep } => {
                let Some(write) = issue(network, observed, plan, requests, keep, now)? else { continue };
                (write, None)
            }
        };
        match context.write(&write).await {
            Ok(WriteOutcome::Written) => announce(context, network, event),
            Ok(WriteOutcome::Superseded | WriteOutcome::Refused(_)) => break,
            Err(error) if error.is_refusal() && write.target().kind() == "Service" => {
                refused.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}

fn announce(context: &Context, network: &Network, event: Option<Reason>) {
    if let Some(event) = event {
        let announcement = Announcement { severity: Severity::Normal, reason: event.word, note: event.message };
        context.announcer.announce(network.object_ref(&()), announcement);
    }
}

/// The Secret is created, never replaced: of two that are made at once, the first is the authority.
pub(crate) fn create_authority(
    network: &Network,
    operator_namespace: &str,
    generation: u32,
    now: u64,
) -> Result<Write, ReconcileError> {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let uid = network.uid().unwrap_or_default();
    let spec = &network.spec.certificates;
    let authority = Authority::generate(&namespace, &name, generation, spec.authority_lifetime(), now)?;
    let annotations =
        [(labels::AUTHORITY_GENERATION, generation.to_string()), (labels::ROTATION, spec.rotation.to_string())];
    let mut all_labels = labels::of_network(&name);
    all_labels.insert(labels::NETWORK_NAMESPACE.to_owned(), namespace);
    all_labels.insert(labels::NETWORK_UID.to_owned(), uid.clone());
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(names::authority(&uid, generation)),
            namespace: Some(operator_namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        data: Some(authority.to_data().into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        ..Secret::default()
    };
    Ok(Write::Create(Manifest::of(&secret)?))
}

pub(super) fn issue(
    network: &Network,
    observed: &Observed,
    plan: &Plan,
    requests: &BTreeMap<String, String>,
    keep: &[String],
    now: u64,
) -> Result<Option<Write>, ReconcileError> {
    let Some(issuer) = &plan.authorities.issuer else { return Ok(None) };
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let present = observed.certificates.as_ref().and_then(|certificates| certificates.data.as_ref());
    let (nodes, operators) = plan.authorities.bundles();
    let mut data = BTreeMap::from([
        (config_map::AUTHORITY.to_owned(), nodes),
        (config_map::OPERATOR_AUTHORITY.to_owned(), operators),
    ]);
    for node in keep {
        let key = config_map::certificate_key(node);
        if let Some(certificate) = present.and_then(|present| present.get(&key)) {
            data.insert(key, certificate.clone());
        }
    }
    for (node, request) in requests {
        let names = NodeNames { node, network: &name, namespace: &namespace };
        let certificate = issuer.authority.sign(request, &names, network.spec.certificates.node_lifetime(), now)?;
        data.insert(config_map::certificate_key(node), certificate);
    }
    let certificates = config_map::certificates(network, &name, &namespace, data);
    Ok(Some(Write::Apply(Manifest::of(&certificates)?.stamped())))
}
