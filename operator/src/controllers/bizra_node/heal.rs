//! What is wrong with a node that cannot help itself, and what is done about it. Pure.
//!
//! A repair replaces the pod: as it was (a restart), or with its database set aside, to be fetched from peers (a resync).
//! It is written into the status first and acted on in a later reconciliation that reads it back, so that an operator which
//! comes in between knows which pod was to be replaced and why. A node that may vote also needs a permit of its Network.
//!
//! The operator's own failed question is never the only witness: a node is stuck if its kubelet finds it not ready all the
//! time, and damaged if it has said so itself when it stopped. That its keys refuse is also its own last word; new ones are only
//! made for a node without a vote, or if somebody can put the new key in the place of the old one on the chain.

use bizra_proto::{
    exit::{ExitReason, Termination},
    v1::{NodeStatus, SyncState},
};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;

use super::observe::Observed;
use crate::{
    api::{BizraNode, Repair, RepairAction, RepairCause, condition},
    controllers::{
        conditions::{Reason, is_true},
        hosts,
        quorum::{self, container_runs},
    },
    kubernetes::shorten,
    probe::Word,
    resources::{labels, pod},
};

/// Repairs in a row that did not help, after which somebody has to look.
pub const REPAIRS_MAX: i32 = 3;
/// The first so many repairs of a stuck node are restarts; then it fetches its database anew.
pub const RESTARTS_MAX: i32 = 2;
/// Ends of a container in a row that make a crash loop.
const CRASHES_MIN: i32 = 3;
/// The kubelet forgets about ends that are longer ago than this.
const CRASH_MEMORY: SignedDuration = SignedDuration::from_mins(10);
/// Longest part of a node's last words in a message, in bytes.
const WORDS_MAX_BYTES: usize = 400;

/// How patient the operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealingLimits {
    /// A node that makes no progress for so long is stuck.
    pub stuck_after: SignedDuration,
    /// Time between two repairs of a node; a node that is well for so long is healed.
    pub cool_down: SignedDuration,
}

impl Default for HealingLimits {
    fn default() -> Self {
        Self { stuck_after: SignedDuration::from_mins(5), cool_down: SignedDuration::from_mins(10) }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Diagnosis {
    /// It says itself that its database is damaged, and does not run.
    Corrupt(String),
    /// It runs and comes to nothing.
    Stuck(String),
    /// It says itself that its keys are gone or refuse, does not run, and may have others.
    Keyless(String),
    /// It ends again and again.
    Crashing(String),
}

/// What is decided about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    /// What is wrong, and what is being done about it.
    pub trouble: Option<Reason>,
    /// The repair that the status is to hold.
    pub repair: Option<Repair>,
    /// What comes next.
    pub next: Next,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// Nothing now.
    #[default]
    Wait,
    /// The repair is carried out on the pod that is there: it was decided before, and the pod still needs it.
    Act,
    /// Nothing more is tried.
    GiveUp,
}

impl Healing {
    /// Nothing is decided anew.
    pub fn unchanged(node: &BizraNode) -> Self {
        Self { repair: node.status.as_ref().and_then(|status| status.repair.clone()), ..Self::default() }
    }
}

/// Judges a node whose pod is there.
pub fn decide(node: &BizraNode, observed: &Observed) -> Healing {
    let mut healing = judge(node, observed);
    healing.trouble = healing.trouble.or_else(|| out_of_reach(observed));
    healing
}

/// A node whose host is out of reach by Kubernetes' word and that does not answer itself. Nothing of it is repaired: its volume,
/// and its process if that still runs, are where nobody reaches them.
fn out_of_reach(observed: &Observed) -> Option<Reason> {
    let pod = observed.pod.as_ref().filter(|_| matches!(observed.word, Word::Unknown(_)))?;
    let (since, host) = (hosts::unreachable_since(pod)?, hosts::host(pod));
    let message = format!(
        "Kubernetes has not heard of host {host} since {since}, and the node does not answer; it goes on with its volume when the host is back"
    );
    Some(Reason::new("HostUnreachable", message))
}

/// `kept` is what was decided before.
fn judge(node: &BizraNode, observed: &Observed) -> Healing {
    let kept = node.status.as_ref().and_then(|status| status.repair.clone());
    let Some(pod) = observed.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
        let trouble = kept.as_ref().filter(|kept| is_recent(kept, observed)).map(under_way);
        return Healing { trouble, repair: kept, next: Next::Wait };
    };
    match diagnose(node, observed, pod) {
        None => undisturbed(observed, pod, kept),
        Some(Diagnosis::Crashing(what)) => {
            let message = format!("{what}; the kubelet starts it again, later and later");
            Healing { trouble: Some(Reason::new("CrashLoop", message)), repair: kept, next: Next::Wait }
        }
        Some(Diagnosis::Corrupt(what)) => disturbed(observed, pod, kept, (RepairCause::DatabaseCorrupt, &what)),
        Some(Diagnosis::Keyless(what)) => {
            // What was repaired before is no matter of the keys.
            let kept = kept.filter(|kept| kept.cause == RepairCause::KeyRefused);
            disturbed(observed, pod, kept, (RepairCause::KeyRefused, &what))
        }
        Some(Diagnosis::Stuck(what)) => disturbed(observed, pod, kept, (RepairCause::Stuck, &what)),
    }
}

fn is_recent(repair: &Repair, observed: &Observed) -> bool {
    since(observed.now, &repair.ordered_at) < observed.limits.cool_down
}

fn since(now: Timestamp, then: &Time) -> SignedDuration {
    now.duration_since(then.0)
}

/// True if this pod was made to carry out the repair.
pub fn is_used(repair: &Repair, pod: &Pod) -> bool {
    pod::annotation(&pod.metadata, labels::REPAIR) == Some(&repair.pod_uid)
}

fn under_way(repair: &Repair) -> Reason {
    let what = match repair.action {
        RepairAction::Restart => "the node was restarted",
        RepairAction::Resync => "the database was set aside and is fetched from peers",
        RepairAction::NewVolume => "the node has a new volume and new keys, and fetches the database from peers",
        RepairAction::NewKeys => "the node has new keys",
    };
    Reason::new(
        "Repairing",
        format!("{what}, because of {:?} (repair {} of {REPAIRS_MAX})", repair.cause, repair.attempt),
    )
}

/// Nothing is wrong now.
fn undisturbed(observed: &Observed, pod: &Pod, kept: Option<Repair>) -> Healing {
    let Some(kept) = kept else { return Healing::default() };
    let used = is_used(&kept, pod);
    if matches!(&observed.word, Word::Status(said) if said.sync_state() == SyncState::InSync) {
        // It is forgotten when the node has been well for a while, or has helped itself.
        let over = !used || since(observed.now, &kept.ordered_at) >= observed.limits.cool_down;
        return Healing { repair: (!over).then_some(kept), ..Healing::default() };
    }
    let trouble = if used {
        under_way(&kept)
    } else {
        // The kubelet is just trying again.
        Reason::new(&format!("{:?}", kept.cause), "the node was found so; it is being watched")
    };
    Healing { trouble: Some(trouble), repair: Some(kept), next: Next::Wait }
}

/// Something is wrong that can be repaired.
fn disturbed(observed: &Observed, pod: &Pod, kept: Option<Repair>, (cause, what): (RepairCause, &str)) -> Healing {
    let word = format!("{cause:?}");
    let uid = pod.uid().unwrap_or_default();
    let told = |next: &str, repair: Option<Repair>| Healing {
        trouble: Some(Reason::new(&word, format!("{what}; {next}"))),
        repair,
        next: Next::Wait,
    };
    // What was never carried out does not count: the pod was replaced for another reason.
    let tried = kept.as_ref().map_or(0, |kept| kept.attempt - i32::from(!is_used(kept, pod)));
    if let Some(kept) = kept.as_ref().filter(|kept| kept.pod_uid == uid && kept.cause == cause) {
        let next = match kept.action {
            RepairAction::Restart => "it is restarted, if it may vote as soon as its Network grants a permit",
            RepairAction::Resync => {
                "its database is set aside and fetched from peers, if it may vote as soon as its Network grants a permit: one node at a time, while a quorum without it is in sync at its height"
            }
            RepairAction::NewVolume | RepairAction::NewKeys => {
                "it gets new keys, if it may vote as soon as its Network grants a permit: one node at a time, while a quorum without it is in sync at its height"
            }
        };
        return Healing { next: Next::Act, ..told(next, Some(kept.clone())) };
    }
    if tried >= REPAIRS_MAX {
        let message = format!(
            "{what}; {tried} repairs did not help and nothing more is tried by itself: see the runbook repair-exhausted"
        );
        return Healing { trouble: Some(Reason::new("RepairExhausted", message)), repair: kept, next: Next::GiveUp };
    }
    if tried > 0
        && let Some(kept) = &kept
        && is_recent(kept, observed)
    {
        let left = observed.limits.cool_down.saturating_sub(since(observed.now, &kept.ordered_at));
        // Minutes, so that the message does not change all the time.
        let next = format!("repair {tried} did not help, the next one comes in {} min", left.as_secs() / 60 + 1);
        return told(&next, Some(kept.clone()));
    }
    let action = match cause {
        RepairCause::Stuck if tried < RESTARTS_MAX => RepairAction::Restart,
        RepairCause::Stuck | RepairCause::DatabaseCorrupt => RepairAction::Resync,
        RepairCause::VolumeLost => RepairAction::NewVolume,
        RepairCause::KeyRefused => RepairAction::NewKeys,
    };
    told("a repair is being ordered", Some(order(observed.now, (cause, action), uid, tried + 1)))
}

/// A repair that is decided on now.
pub fn order(now: Timestamp, (cause, action): (RepairCause, RepairAction), pod_uid: String, attempt: i32) -> Repair {
    // As the API server keeps it.
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Repair { cause, action, pod_uid, ordered_at: Time(seconds), attempt }
}

fn diagnose(node: &BizraNode, observed: &Observed, pod: &Pod) -> Option<Diagnosis> {
    if let Some(what) = refused_keys(pod).filter(|_| may_have_new_keys(node, observed)) {
        return Some(Diagnosis::Keyless(what));
    }
    let container = node_container(pod)?;
    let runs = container_runs(pod);
    if !runs
        && let Some(end) = last_end(container)
        && reason_of(end) == Some(ExitReason::DatabaseCorrupt)
    {
        return Some(Diagnosis::Corrupt(format!("the node stopped: {}", words_of(end))));
    }
    if let Some(what) = crashing(observed, container, runs) {
        return Some(Diagnosis::Crashing(what));
    }
    stuck(observed, pod).map(Diagnosis::Stuck)
}

/// True of a node without a vote, and of one whose lost key its owner can replace on the chain.
pub fn may_have_new_keys(node: &BizraNode, observed: &Observed) -> bool {
    quorum::is_full_node(node) || observed.keeper.is_some()
}

/// What a node that does not run said last, if it was that its keys are gone or refuse. It may have said so before it began, too.
fn refused_keys(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref().filter(|_| !container_runs(pod))?;
    let mut init = status.init_container_statuses.iter().flatten();
    let key = init.find(|container| container.name == pod::KEY_CONTAINER);
    let ends = [key.and_then(last_end), node_container(pod).and_then(last_end)];
    let end = ends.into_iter().flatten().find(|end| reason_of(end) == Some(ExitReason::SigningRecordRefused))?;
    Some(format!("the node stopped: {}", words_of(end)))
}

/// True if the node does not run because its volume is full, by its own last word.
pub fn is_stopped_by_full_volume(pod: &Pod) -> bool {
    let end = node_container(pod).and_then(last_end);
    !container_runs(pod) && end.is_some_and(|end| reason_of(end) == Some(ExitReason::VolumeFull))
}

fn node_container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|container| container.name == pod::NODE_CONTAINER)
}

/// The end of the container that was, or is, the last.
fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or_else(|| container.last_state.as_ref()?.terminated.as_ref())
}

/// Why the node stopped, by its own word.
fn reason_of(end: &ContainerStateTerminated) -> Option<ExitReason> {
    let words = serde_json::from_str::<Termination>(end.message.as_deref().unwrap_or_default());
    words.map(|words| words.reason).ok().or_else(|| ExitReason::from_code(end.exit_code))
}

fn words_of(end: &ContainerStateTerminated) -> String {
    let message = end.message.as_deref().unwrap_or_default();
    let text = match serde_json::from_str::<Termination>(message) {
        Ok(words) => format!("{}: {}", words.reason, words.message),
        Err(_) => format!("exit code {} {message}", end.exit_code),
    };
    shorten(text.trim_end(), WORDS_MAX_BYTES)
}

fn crashing(observed: &Observed, container: &ContainerStatus, runs: bool) -> Option<String> {
    // A damaged database has a row of its own, also while the kubelet tries again.
    let end =
        last_end(container).filter(|end| end.exit_code != 0 && reason_of(end) != Some(ExitReason::DatabaseCorrupt))?;
    let is_recent = end.finished_at.as_ref().is_none_or(|at| since(observed.now, at) < CRASH_MEMORY);
    if container.restart_count < CRASHES_MIN || (runs && !is_recent) {
        return None;
    }
    Some(format!(
        "the node's container has ended {} times, the last time with {}",
        container.restart_count,
        words_of(end)
    ))
}

/// What a node that runs and comes to nothing is told of: only if its kubelet has found it not ready all the time, and
/// only while the network goes on without it, so that it is this node which hangs.
fn stuck(observed: &Observed, pod: &Pod) -> Option<String> {
    let patience = observed.limits.stuck_after;
    let network = observed.network.as_ref()?.status.as_ref()?;
    if !is_true(&network.conditions, condition::QUORUM_SAFE) || !container_runs(pod) || observed.idle < patience {
        return None;
    }
    // That the pod is not ready is not the kubelet's word then, but that of those who miss the kubelet.
    if hosts::unreachable_since(pod).is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")?;
    let unready_since = ready.last_transition_time.as_ref().filter(|_| ready.status == "False")?;
    if since(observed.now, unready_since) < patience {
        return None;
    }
    let seconds = patience.as_secs();
    match &observed.word {
        Word::Status(said) => stands_still(said).map(|state| {
            format!(
                "by its own word the node is {state}, at height {}, without progress for {seconds} s",
                said.finalized_height
            )
        }),
        Word::Unknown(_) => {
            Some(format!("the node does not answer, and its kubelet finds it not ready, for {seconds} s"))
        }
        Word::Unasked => None,
    }
}

fn stands_still(said: &NodeStatus) -> Option<&'static str> {
    match said.sync_state() {
        SyncState::Starting => Some("starting"),
        SyncState::CatchingUp => Some("catching up"),
        // What keeps it from voting is nothing that a restart helps against.
        SyncState::InSync | SyncState::Unspecified => None,
    }
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
