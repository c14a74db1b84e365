//! What to say of a node: a pure function of spec, observation and outcome, written last and only if it changed.

use bizra_proto::{
    exit::{ExitReason, Termination},
    v1::{NodeStatus, SigningState, SyncState},
};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Resource as _, ResourceExt as _};

use super::{
    observe::Observed,
    plan::{Obstacle, Plan, Standstill},
};
use crate::{
    api::{BizraNode, BizraNodeStatus, Network, VolumeStatus, condition},
    controllers::{
        Context, ReconcileError,
        conditions::{Conditions, Headway, Reason, Truth, announcements, find, is_step, is_true, refused},
        hosts, jailings,
        key_report::KeyReading,
        signed,
    },
    kubernetes::WriteError,
    planted::{self, Bug},
    probe::Word,
    resources::{config_map, pod},
};

/// Writes the status if it changed; true if the node is ready.
pub async fn report(
    context: &Context,
    node: &BizraNode,
    observed: &Observed,
    plan: &Plan,
    outcome: Result<&(), &WriteError>,
) -> Result<bool, ReconcileError> {
    let uid = node.uid().unwrap_or_default();
    let old = node.status.clone().unwrap_or_default();
    let new = status(node, observed, plan, outcome.err());
    let ready = is_true(&new.conditions, condition::READY);
    let changed = without_numbers(&old) != without_numbers(&new);
    if !changed && (old == new || !context.numbers_are_due(&uid)) {
        return Ok(ready);
    }
    // On the way up there is much news of little worth; whatever is out of the ordinary is told at once.
    let is_on_the_way = old.version.is_none()
        && !old.conditions.is_empty()
        && is_step(find(&new.conditions, condition::READY))
        && !is_true(&new.conditions, condition::STALLED)
        && old.repair == new.repair;
    if changed && is_on_the_way && !context.may_report_on_the_way(&uid) {
        return Ok(false);
    }
    let mut written = node.clone();
    let news = announcements(&old.conditions, &new.conditions);
    let trouble =
        |status: &BizraNodeStatus| find(&status.conditions, condition::DEGRADED).map(|told| told.reason.clone());
    let begun = trouble(&new).filter(|reason| trouble(&old).as_ref() != Some(reason));
    written.status = Some(new);
    // The observed resourceVersion goes along: a status of a spec that has changed since is not written.
    match context.write_status(&written).await {
        Ok(()) => {
            context.reported(&uid);
            if let Some(reason) = begun {
                context.metrics.troubles.with_label_values(&[reason.as_str()]).inc();
            }
            for announcement in news {
                context.announcer.announce(node.object_ref(&()), announcement);
            }
            Ok(ready)
        }
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(false),
        Err(_) if planted::is(Bug::LostReport) => Ok(ready),
        Err(error) => Err(ReconcileError::Report(error)),
    }
}

/// The part of a status that is written at once when it changes, and wakes others.
pub(in crate::controllers) fn without_numbers(status: &BizraNodeStatus) -> BizraNodeStatus {
    BizraNodeStatus { height: None, lag: None, last_voted_height: None, peers: None, volume: None, ..status.clone() }
}

/// The status.
pub fn status(node: &BizraNode, observed: &Observed, plan: &Plan, failure: Option<&WriteError>) -> BizraNodeStatus {
    let old = node.status.clone().unwrap_or_default();
    let generation = node.metadata.generation.unwrap_or(0);
    let refused = failure.filter(|error| error.is_refusal()).map(refused);
    let (ready, reason) = match (readiness(node, observed, plan), &refused) {
        // It is not being made.
        ((ready, reason), Some(refused)) if reason.word == "PodMissing" => (ready, refused.clone()),
        (said, _) => said,
    };
    let mut conditions = Conditions::new(&old.conditions, generation, observed.now);
    conditions.set(condition::READY, ready, &reason);
    let order = order_to_fence(node, observed);
    let fence = order.as_ref().map(|order| fence(order, observed, &old));
    let obeyed = match (&plan.standstill, &fence) {
        (Some(Standstill::Paused(order)), _) => Some(order),
        (Some(Standstill::Hibernated(order) | Standstill::Replaced(order)), _) if observed.pod.is_none() => Some(order),
        (None, Some((Truth::True, order))) if reason.word == order.word && plan.steps.is_empty() => Some(order),
        _ => None,
    };
    let stalled = match &plan.obstacle {
        Some(Obstacle::Stalled(reason)) => Some(reason),
        _ => None,
    };
    let (up_to_date, why) = match plan.up_to_date {
        Some(true) => (Truth::True, Reason::new("RevisionCurrent", "the pod was made from the present spec")),
        Some(false) => (
            Truth::False,
            Reason::new(
                "RevisionPending",
                "the spec has changed since the pod was made; the pod is made anew when the Network grants a permit",
            ),
        ),
        None => (Truth::Unknown, Reason::new("PodMissing", "there is no pod")),
    };
    conditions.set_progress(&Headway {
        ready: ready == Truth::True,
        reason: &reason,
        is_done: plan.steps.is_empty(),
        behind: (up_to_date == Truth::False).then_some(&why),
        failure: failure.filter(|_| refused.is_none()).map(ToString::to_string),
        stalled: stalled.or(refused.as_ref()),
        order: obeyed,
    });
    if let Some(Standstill::Paused(paused)) = &plan.standstill {
        conditions.set(condition::PAUSED, Truth::True, paused);
    }
    if let Some(successor) = &observed.replaced_by {
        let message = format!("BizraNode {successor} validates in its place, because its host was lost");
        conditions.set(condition::REPLACED, Truth::True, &Reason::new("HostLost", message));
    }
    let jailed = order.as_ref().filter(|order| order.word == "Jailed");
    if let Some(trouble) = plan.healing.trouble.as_ref().or(jailed) {
        conditions.set(condition::DEGRADED, Truth::True, trouble);
    }
    if let Some((truth, reason)) = &fence {
        conditions.set(condition::FENCED, *truth, reason);
    }
    set_synced(&mut conditions, &observed.word);
    conditions.set(condition::UP_TO_DATE, up_to_date, &why);
    if plan.key_not_in_genesis {
        conditions.set(
            condition::KEY_NOT_IN_GENESIS,
            Truth::True,
            &Reason::new(
                "KeyNotInGenesis",
                "the key on the volume is not among the genesis validators (a new volume has a new key): the node runs as a full node and does not vote",
            ),
        );
    }

    let said = match &observed.word {
        Word::Status(status) => Some(status.as_ref()),
        Word::Unasked | Word::Unknown(_) => None,
    };
    let report = match &plan.key {
        KeyReading::Reported(report) => Some(report),
        _ => None,
    };
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    BizraNodeStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        height: said.map(|said| said.finalized_height).or(observed.last_height).map(signed).or(old.height),
        lag: said.map(lag),
        last_voted_height: said.map(|said| signed(said.last_voted_height)).or(old.last_voted_height),
        peers: said.map(connected_peers),
        version: said.and_then(|said| text(&said.version)).or(old.version),
        power: said.map(|said| said.power.to_string()).or(old.power),
        public_key: report.map(|report| report.public_key.clone()).or(old.public_key),
        genesis_hash: said
            .and_then(|said| text(&said.genesis_hash))
            .or_else(|| report.and_then(|report| report.genesis_hash.clone()))
            .or(old.genesis_hash),
        certificate_request: report.map(|report| report.certificate_request.clone()).or(old.certificate_request),
        revision: plan.revision.clone(),
        volume_id: observed.claim.as_ref().and_then(kube::ResourceExt::uid),
        volume: said.and_then(volume).or(old.volume),
        repair: plan.healing.repair.clone(),
    }
}

fn lag(said: &NodeStatus) -> i64 {
    signed(said.network_height.saturating_sub(said.finalized_height))
}

fn volume(said: &NodeStatus) -> Option<VolumeStatus> {
    (said.volume_total_bytes > 0).then(|| VolumeStatus {
        total_bytes: signed(said.volume_total_bytes),
        free_bytes: signed(said.volume_free_bytes),
    })
}

fn connected_peers(said: &NodeStatus) -> i32 {
    i32::try_from(said.peers.iter().filter(|peer| peer.connected).count()).unwrap_or(i32::MAX)
}

fn set_synced(conditions: &mut Conditions<'_>, word: &Word) {
    let (truth, reason) = match word {
        Word::Unasked => (Truth::Unknown, Reason::new("Unasked", "the node is about to be asked")),
        Word::Unknown(why) => (Truth::Unknown, Reason::new("Unreachable", why.clone())),
        Word::Status(said) => match said.sync_state() {
            SyncState::InSync => (Truth::True, Reason::new("InSync", "at the head of the chain")),
            SyncState::CatchingUp => (Truth::False, Reason::new("CatchingUp", "fetching finalised blocks from peers")),
            SyncState::Starting | SyncState::Unspecified => (Truth::False, Reason::new("Starting", "opening storage")),
        },
    };
    conditions.set(condition::SYNCED, truth, &reason);
}

/// Why the node is to sign nothing; none if it may.
fn order_to_fence(node: &BizraNode, observed: &Observed) -> Option<Reason> {
    let said = match &observed.word {
        Word::Status(said) => Some(said.as_ref()),
        Word::Unasked | Word::Unknown(_) => None,
    };
    jailings::fence(node, observed.network.as_ref(), said)
}

/// Whether the node does as it was told and signs nothing.
fn fence(order: &Reason, observed: &Observed, old: &BizraNodeStatus) -> (Truth, Reason) {
    let file = observed.config.as_ref().and_then(|config| config.data.as_ref()?.get(config_map::FILE));
    let is_written = file.is_some_and(|file| config_map::is_fenced(file));
    let fenced = |message: &str| (Truth::True, Reason::new(&order.word, message));
    match &observed.word {
        Word::Status(said) if said.signing_state() == SigningState::Fenced => fenced(&order.message),
        // There is no process, and the next one reads its orders before anything else.
        _ if is_written && observed.pod.is_none() => {
            fenced("there is no pod, and the next one is fenced from its start")
        }
        // It has obeyed, and only a changed file makes it forget that.
        Word::Unasked | Word::Unknown(_) if is_written && is_true(&old.conditions, condition::FENCED) => {
            let kept = find(&old.conditions, condition::FENCED).map_or("", |told| told.message.as_str());
            fenced(kept)
        }
        _ => {
            let message = format!("not confirmed by the node, which may still sign: {}", order.message);
            (Truth::False, Reason::new("FencePending", message))
        }
    }
}

/// Whether the node is ready, and why not. The first thing in the way is told.
fn readiness(node: &BizraNode, observed: &Observed, plan: &Plan) -> (Truth, Reason) {
    match (&plan.obstacle, &plan.standstill) {
        (Some(Obstacle::Stalled(reason) | Obstacle::Waiting(reason)), _)
        | (None, Some(Standstill::Hibernated(reason) | Standstill::Replaced(reason))) => {
            return (Truth::False, reason.clone());
        }
        (None, Some(Standstill::Paused(_)) | None) => {}
    }
    let Some(pod) = &observed.pod else {
        let what = match plan.standstill {
            None => "the pod is being made",
            Some(_) => "there is no pod, and none is made while reconciliation is paused",
        };
        return (Truth::False, Reason::new("PodMissing", what));
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return (Truth::False, Reason::new("PodTerminating", terminating(pod, observed.now)));
    }
    if let KeyReading::Invalid(why) = &plan.key {
        return (Truth::False, Reason::new("InvalidKeyReport", why.clone()));
    }
    if let Some(reason) = pod_trouble(pod) {
        return (Truth::False, reason);
    }
    match &observed.word {
        Word::Unasked => (Truth::Unknown, Reason::new("Unasked", "the node is about to be asked how it is")),
        Word::Unknown(why) => {
            (Truth::Unknown, Reason::new("Unreachable", format!("the node does not say how it is: {why}")))
        }
        Word::Status(said) => said_readiness(node, observed.network.as_ref(), said, pod, plan),
    }
}

fn terminating(pod: &Pod, now: Timestamp) -> String {
    let due = pod.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    if now.duration_since(due) > SignedDuration::from_secs(60) {
        let host = hosts::host(pod);
        // A time and not a duration: what is said must not change with every look.
        format!(
            "the pod should have ended at {due}; host {host} may be down (a pod is never deleted by force, because its process may still run)"
        )
    } else {
        "the pod is ending".to_owned()
    }
}

/// What the node's own words mean.
fn said_readiness(
    node: &BizraNode,
    network: Option<&Network>,
    said: &NodeStatus,
    pod: &Pod,
    plan: &Plan,
) -> (Truth, Reason) {
    let no = |word: &str, message: &str| (Truth::False, Reason::new(word, message));
    if plan.genesis_hash.as_ref().is_some_and(|hash| *hash != said.genesis_hash) {
        return no("WrongGenesis", "the node runs another genesis than the network's");
    }
    match said.signing_state() {
        SigningState::Refused => {
            return no(
                "SignedElsewhere",
                "a peer has seen a later signature of this key than the signing record holds; the key must be rotated",
            );
        }
        SigningState::Locked => {
            return no("SigningLocked", "waiting for a quorum of peers to say which view this key signed last");
        }
        // In sync first: a fenced node is one that follows the chain.
        SigningState::Fenced if said.power == 0 || said.sync_state() != SyncState::InSync => {}
        SigningState::Fenced => {
            let order = jailings::fence(node, network, Some(said));
            let lifting = || Reason::new("FenceLifting", "the node is still fenced; it was told to sign again");
            return (Truth::False, order.unwrap_or_else(lifting));
        }
        SigningState::Allowed | SigningState::NotAValidator | SigningState::Unspecified => {}
    }
    match said.sync_state() {
        SyncState::Starting | SyncState::Unspecified => no("Starting", "the node is starting"),
        SyncState::CatchingUp => no("CatchingUp", "the node is fetching finalised blocks from its peers"),
        SyncState::InSync if !pod_is_ready(pod) => {
            no("NotReady", "the node is in sync, but its readiness probe does not succeed yet")
        }
        SyncState::InSync => (Truth::True, Reason::new("InSync", "in sync and able to do its part")),
    }
}

fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What keeps the node's container from running.
fn pod_trouble(pod: &Pod) -> Option<Reason> {
    let status = pod.status.as_ref();
    let unscheduled = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.clone().unwrap_or_default();
        return Some(Reason::new("Unschedulable", format!("no host takes the pod: {message}")));
    }
    let empty = Vec::new();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).unwrap_or(&empty);
    let main = status.and_then(|status| status.container_statuses.as_ref()).unwrap_or(&empty);
    let named = |list: &'_ [ContainerStatus], name: &str| list.iter().find(|status| status.name == name).cloned();

    let reset = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let reset = reset.into_iter().flatten().find(|container| container.name == pod::RESET_CONTAINER);
    let expected = [Some(pod::KEY_CONTAINER), reset.map(|_| pod::RESET_CONTAINER), Some(pod::GENESIS_CONTAINER)];
    for name in expected.into_iter().flatten() {
        let Some(container) = named(init, name) else {
            return Some(Reason::new("PodPending", "the pod is waiting for its host and volume"));
        };
        if let Some(reason) = container_trouble(&container) {
            return Some(reason);
        }
        let done = container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .is_some_and(|terminated| terminated.exit_code == 0);
        if !done {
            return Some(match name {
                pod::KEY_CONTAINER => Reason::new("KeyPending", "the node is making or finding its keys"),
                pod::RESET_CONTAINER => Reason::new("ResettingDatabase", "the database is being set aside"),
                _ => Reason::new("WaitingForGenesis", "the node waits for the genesis and its certificate"),
            });
        }
    }
    match named(main, pod::NODE_CONTAINER) {
        None => Some(Reason::new("PodPending", "the container is about to start")),
        Some(container) => container_trouble(&container).or_else(|| {
            let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
            (!running).then(|| Reason::new("PodPending", "the container is about to start"))
        }),
    }
}

/// What a container that is not running says: its last words if it had any, else the kubelet's.
fn container_trouble(container: &ContainerStatus) -> Option<Reason> {
    let state = container.state.as_ref()?;
    if let Some(terminated) = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0) {
        return Some(last_words(&container.name, terminated));
    }
    let waiting = state.waiting.as_ref()?;
    let word = waiting.reason.clone().unwrap_or_default();
    if matches!(word.as_str(), "" | "PodInitializing" | "ContainerCreating") {
        return None;
    }
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    Some(match before.filter(|before| before.exit_code != 0) {
        Some(before) => last_words(&container.name, before),
        None => Reason::new(&word, format!("{}: {}", container.name, waiting.message.clone().unwrap_or_default())),
    })
}

/// The reason and message a stopped node left behind.
fn last_words(container: &str, terminated: &ContainerStateTerminated) -> Reason {
    let message = terminated.message.as_deref().unwrap_or_default();
    if let Ok(words) = serde_json::from_str::<Termination>(message) {
        return Reason::new(&words.reason.to_string(), words.message);
    }
    match ExitReason::from_code(terminated.exit_code) {
        Some(reason) => Reason::new(&reason.to_string(), message),
        None => Reason::new(
            "ContainerFailed",
            format!("container {container} ended with exit code {}: {message}", terminated.exit_code),
        ),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
