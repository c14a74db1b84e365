//! Removes certificate authorities of networks that are gone. Their Secrets are in the operator's namespace, where no
//! owner reference reaches.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    api::Network,
    controllers::{Context, ReconcileError},
    kubernetes::Write,
    resources::{labels, pod},
};

/// Deletes every authority whose Network is certainly gone: not there, or there with another uid.
pub async fn sweep_authorities(context: &Context) -> Result<(), ReconcileError> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.operator_namespace);
    let selector = format!("{}={},{}", labels::MANAGED_BY, labels::MANAGER, labels::NETWORK_UID);
    let list = secrets
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|source| ReconcileError::Observe { what: "the certificate authorities", source })?;
    for secret in list.items {
        let label = |key| pod::label(&secret.metadata, key).unwrap_or_default();
        let networks: Api<Network> = Api::namespaced(context.client.clone(), label(labels::NETWORK_NAMESPACE));
        let network = networks
            .get_opt(label(labels::NETWORK))
            .await
            .map_err(|source| ReconcileError::Observe { what: "the Network of an authority", source })?;
        if network.is_none_or(|network| network.uid().as_deref() != Some(label(labels::NETWORK_UID))) {
            context.write(&Write::delete(&secret)).await?;
        }
    }
    Ok(())
}
