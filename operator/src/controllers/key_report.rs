//! What a node reports of its keys, read from its pod's status: the kubelet wrote it there, not the pod network.

use bizra_proto::ceremony::{KeyReport, verify_possession};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    memo::Memo,
    resources::{labels, pod},
};

/// Proofs that hold.
static PROVEN: Memo<()> = Memo::new(16_384);

/// What a pod's status says of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyReading {
    /// Nothing yet.
    Absent,
    /// A report with a valid proof for the chain.
    Reported(Box<KeyReport>),
    /// Something that is not one.
    Invalid(String),
}

/// Reads the report of a pod that uses the claim `volume_id`. A pod that is being deleted reports nothing any more.
pub fn read(pod: &Pod, volume_id: &str, chain_id: &str) -> KeyReading {
    if pod.metadata.deletion_timestamp.is_some() || pod::annotation(&pod.metadata, labels::VOLUME_ID) != Some(volume_id)
    {
        return KeyReading::Absent;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    let key = statuses.into_iter().flatten().find(|status| status.name == pod::KEY_CONTAINER);
    let message = key
        .and_then(|status| {
            let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            let before = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            now.or(before)
        })
        .filter(|terminated| terminated.exit_code == 0)
        .and_then(|terminated| terminated.message.as_deref());
    let Some(message) = message else { return KeyReading::Absent };
    match serde_json::from_str::<KeyReport>(message) {
        Ok(report) => match PROVEN.result(&[chain_id.as_bytes(), message.as_bytes()], || {
            verify_possession(&report.public_key, &report.proof_of_possession, chain_id).map(drop)
        }) {
            Ok(()) => KeyReading::Reported(Box::new(report)),
            Err(error) => KeyReading::Invalid(error.to_string()),
        },
        Err(error) => KeyReading::Invalid(format!("the key report cannot be read: {error}")),
    }
}
