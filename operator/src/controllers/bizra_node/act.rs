//! Does what was planned, one write at a time.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    jiff::Timestamp,
};
use kube::{Resource as _, ResourceExt as _};

use super::plan::{Leave, Plan, Step};
use crate::{
    api::{Activity, BizraNode, Network, Permit, PermitPurpose, Reconciliation},
    controllers::{
        Context, ReconcileError,
        conditions::Reason,
        network::genesis_of,
        quorum::{Census, Freshness, QuorumLoss, Verdict},
        reading,
    },
    kubernetes::{Announcement, Severity, WriteError, WriteOutcome},
    probe::Word,
    resources::{labels, names},
};

/// How soon a permit that could not be used is tried again: the others may be well a moment later.
const WITHHELD: Duration = Duration::from_secs(2);

/// How soon an eviction that was refused is tried again: the budget's controller may have to catch up first.
const REFUSED: Duration = Duration::from_secs(5);

/// Evicts the pod if it may go, and if that still holds by live reads: the permit and the others' words are a reconciliation
/// old by now. Returns how soon to try again, if it could not be done.
pub(super) async fn evict(
    context: &Context,
    node: &BizraNode,
    plan: &Plan,
) -> Result<Option<Duration>, ReconcileError> {
    let Some((write, leave)) = &plan.eviction else { return Ok(None) };
    let result = match leave {
        Leave::Missing => return Ok(None),
        Leave::NotNeeded => "not_needed",
        Leave::Granted(permit) => {
            if permit_stands(context, node, permit).await? {
                "used"
            } else {
                context.metrics.permits.with_label_values(&["withheld"]).inc();
                return Ok(Some(WITHHELD));
            }
        }
    };
    match context.write(write).await? {
        WriteOutcome::Written => {
            context.metrics.permits.with_label_values(&[result]).inc();
            let message = match &plan.repairs {
                None => "the pod was evicted, to be made anew from the present spec".to_owned(),
                Some(repair) => {
                    let (cause, action) = (format!("{:?}", repair.cause), format!("{:?}", repair.action));
                    context.metrics.repairs.with_label_values(&[cause.as_str(), action.as_str()]).inc();
                    format!("the pod was evicted because of {cause}, for a {}", action.to_lowercase())
                }
            };
            context.announcer.announce(node.object_ref(&()), Announcement::normal(Reason::new("PodEvicted", message)));
            Ok(None)
        }
        WriteOutcome::Refused(why) => {
            let warning = Announcement {
                severity: Severity::Warning,
                reason: "EvictionRefused".to_owned(),
                note: format!("the pod may go, but its eviction is refused, and tried again: {why}"),
            };
            context.announcer.announce(node.object_ref(&()), warning);
            Ok(Some(REFUSED))
        }
        WriteOutcome::Superseded => Ok(None),
    }
}

/// True if the Network still holds this permit, and a quorum remains by what every other node answers now.
async fn permit_stands(context: &Context, node: &BizraNode, permit: &Permit) -> Result<bool, ReconcileError> {
    let (client, namespace) = (&context.client, node.namespace().unwrap_or_default());
    let name = &node.spec.network_ref.name;
    let Some(network) = reading::get::<Network>(client, &namespace, name, "the Network").await? else {
        return Ok(false);
    };
    if !is_held(&network, permit, Timestamp::now()) {
        return Ok(false);
    }
    let nodes = reading::list_all::<BizraNode>(client, &namespace, "the BizraNodes").await?;
    let pods: Vec<Pod> = reading::list(client, &namespace, &format!("{}={name}", labels::NETWORK), "the pods").await?;
    let genesis = reading::get(client, &namespace, &names::genesis(name), "the genesis").await?;
    let asked = pods.iter().map(|pod| async move {
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        (pod.name_any(), context.probes.ask_now(&key, &pod.uid().unwrap_or_default()).await)
    });
    let words = futures::future::join_all(asked).await.into_iter().collect();
    let judged = judge(&network, permit, genesis.as_ref(), &nodes, &pods, &words);
    if let Err(verdict) = &judged {
        tracing::info!(node = %permit.node, ?verdict, "permit not used");
    }
    Ok(judged.is_ok())
}

/// True if the Network holds exactly this permit, it may still be used, and nobody has ordered a standstill.
pub(in crate::controllers) fn is_held(network: &Network, permit: &Permit, now: Timestamp) -> bool {
    let held = network.status.as_ref().and_then(|status| status.permit.as_ref());
    let at_work = network.spec.reconciliation == Reconciliation::Active
        && network.spec.activity == Activity::Running
        && network.metadata.deletion_timestamp.is_none();
    held == Some(permit) && at_work && now < permit.expires_at.0
}

/// Whether the permit's node may go, by live reads and by `words` that every node was asked for just now; if not, why.
pub(in crate::controllers) fn judge(
    network: &Network,
    permit: &Permit,
    genesis: Option<&ConfigMap>,
    nodes: &[BizraNode],
    pods: &[Pod],
    words: &BTreeMap<String, Word>,
) -> Result<(), Verdict> {
    let name = network.name_any();
    let nodes: Vec<&BizraNode> = nodes.iter().filter(|node| node.spec.network_ref.name == name).collect();
    let genesis = genesis.and_then(|genesis| genesis_of(network, genesis).ok()).map(|(genesis, _)| genesis);
    let census = Census::take(genesis.as_ref(), &nodes, pods, words, Freshness::Live);
    let (verdict, loss) = match permit.purpose {
        PermitPurpose::Change => {
            let allowed = network.spec.allow_quorum_loss_for.as_deref();
            (census.may_go(&permit.node), QuorumLoss::of(allowed, &permit.revision))
        }
        PermitPurpose::Restart => (census.may_go(&permit.node), QuorumLoss::Forbidden),
        PermitPurpose::Resync | PermitPurpose::NewKeys => {
            let status = nodes.iter().find(|node| node.name_any() == permit.node).and_then(|node| node.status.as_ref());
            let height = status.and_then(|status| status.height).unwrap_or(0);
            (census.may_resync(&permit.node, u64::try_from(height).unwrap_or(0)), QuorumLoss::Forbidden)
        }
    };
    if verdict.permits(loss) { Ok(()) } else { Err(verdict) }
}

/// Executes the steps in order. Stops at the first that somebody else was faster with: the rest was planned from what
/// is no longer so, and the next observation comes soon.
pub(super) async fn act(context: &Context, node: &BizraNode, steps: &[Step]) -> Result<(), WriteError> {
    for step in steps {
        match context.write(&step.write).await? {
            WriteOutcome::Written => {
                if let Some(event) = step.event.clone() {
                    context.announcer.announce(node.object_ref(&()), Announcement::normal(event));
                }
            }
            WriteOutcome::Superseded | WriteOutcome::Refused(_) => break,
        }
    }
    Ok(())
}
