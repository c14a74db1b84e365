//! Does what was planned, one write at a time.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Resource as _, ResourceExt as _};

use super::plan::{Leave, Plan, Step};
use crate::{
    api::{BizraNode, Network, Permit},
    controllers::{
        Context, ReconcileError,
        network::genesis_of,
        quorum::{Census, Freshness, Verdict},
        reading,
    },
    kubernetes::{Announcement, Severity, WriteError, WriteOutcome},
    resources::{labels, names},
};

/// Evicts the pod if it may go, and if that still holds by live reads: the permit and the others' words are a reconciliation
/// old by now.
pub(super) async fn evict(context: &Context, node: &BizraNode, plan: &Plan) -> Result<(), ReconcileError> {
    let Some((write, leave)) = &plan.eviction else { return Ok(()) };
    let result = match leave {
        Leave::Missing => return Ok(()),
        Leave::NotNeeded => "not_needed",
        Leave::Granted(permit) => {
            if permit_stands(context, node, permit).await? {
                "used"
            } else {
                context.metrics.permits.with_label_values(&["withheld"]).inc();
                return Ok(());
            }
        }
    };
    if context.write(write).await? == WriteOutcome::Written {
        context.metrics.permits.with_label_values(&[result]).inc();
        let message = "the pod was evicted, to be made anew from the present spec".to_owned();
        let announcement = Announcement { severity: Severity::Normal, reason: "PodEvicted".to_owned(), note: message };
        context.announcer.announce(node.object_ref(&()), announcement);
    }
    Ok(())
}

/// True if the Network still holds this permit, and a quorum remains by what every other node answers now.
async fn permit_stands(context: &Context, node: &BizraNode, permit: &Permit) -> Result<bool, ReconcileError> {
    let (client, namespace) = (&context.client, node.namespace().unwrap_or_default());
    let name = &node.spec.network_ref.name;
    let Some(network) = reading::get::<Network>(client, &namespace, name, "the Network").await? else {
        return Ok(false);
    };
    let held = network.status.as_ref().and_then(|status| status.permit.as_ref());
    if held != Some(permit) || network.metadata.deletion_timestamp.is_some() || Timestamp::now() >= permit.expires_at.0
    {
        return Ok(false);
    }
    if network.spec.allow_quorum_loss_for.as_ref() == Some(&permit.revision) {
        return Ok(true);
    }
    let nodes = reading::list_all::<BizraNode>(client, &namespace, "the BizraNodes").await?;
    let nodes: Vec<&BizraNode> = nodes.iter().filter(|node| node.spec.network_ref.name == *name).collect();
    let pods: Vec<Pod> = reading::list(client, &namespace, &format!("{}={name}", labels::NETWORK), "the pods").await?;
    let genesis = reading::get(client, &namespace, &names::genesis(name), "the genesis").await?;
    let genesis = genesis.as_ref().and_then(|genesis| genesis_of(&network, genesis).ok());
    let asked = pods.iter().map(|pod| async move {
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        (pod.name_any(), context.probes.ask_now(&key, &pod.uid().unwrap_or_default()).await)
    });
    let words = futures::future::join_all(asked).await.into_iter().collect();
    let genesis = genesis.as_ref().map(|(genesis, _)| genesis);
    let verdict = Census::take(genesis, &nodes, &pods, &words, Freshness::Live).may_go(&permit.node);
    if verdict != Verdict::Safe {
        tracing::info!(node = %permit.node, ?verdict, "permit not used");
    }
    Ok(verdict == Verdict::Safe)
}

/// Executes the steps in order. Stops at the first that somebody else was faster with: the rest was planned from what
/// is no longer so, and the next observation comes soon.
pub(super) async fn act(context: &Context, node: &BizraNode, steps: &[Step]) -> Result<(), WriteError> {
    for step in steps {
        match context.write(&step.write).await? {
            WriteOutcome::Written => {
                if let Some(event) = &step.event {
                    let announcement = Announcement {
                        severity: Severity::Normal,
                        reason: event.word.clone(),
                        note: event.message.clone(),
                    };
                    context.announcer.announce(node.object_ref(&()), announcement);
                }
            }
            WriteOutcome::Superseded | WriteOutcome::Refused => break,
        }
    }
    Ok(())
}
