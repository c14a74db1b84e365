//! Removes certificate authorities of networks that are gone. Their Secrets are in the operator's namespace, where no
//! owner reference reaches.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::ListParams};

use crate::{
    api::Network,
    controllers::{Context, ReconcileError},
    kubernetes::Write,
    resources::{labels, pod},
};

/// Deletes every authority whose Network is certainly gone: not there, or there with another uid. Those of namespaces that this
/// operator does not watch are another's. One that cannot be deleted keeps no other; the first such failure is returned.
pub async fn sweep_authorities(context: &Context) -> Result<(), ReconcileError> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.operator_namespace);
    let selector = format!("{}={},{}", labels::MANAGED_BY, labels::MANAGER, labels::NETWORK_UID);
    let list = secrets
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|source| ReconcileError::Observe { what: "the certificate authorities", source })?;
    let mut result = Ok(());
    for secret in list.items {
        let label = |key| pod::label(&secret.metadata, key).unwrap_or_default();
        let namespace = label(labels::NETWORK_NAMESPACE);
        if !context.settings.watches(namespace) {
            continue;
        }
        let networks: Api<Network> = Api::namespaced(context.client.clone(), namespace);
        match networks.get_opt(label(labels::NETWORK)).await {
            Ok(network)
                if network.as_ref().and_then(ResourceExt::uid).as_deref() == Some(label(labels::NETWORK_UID)) => {}
            Ok(_) => result = result.and(context.write(&Write::delete(&secret)).await.map(drop)),
            // Not certain, so it stays.
            Err(error) => tracing::warn!(secret = %secret.name_any(), %error, "authority not swept"),
        }
    }
    Ok(result?)
}
