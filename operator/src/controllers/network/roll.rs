//! Rolling changes: which template each validator is to have, and which one node may be down for it. Pure.
//!
//! A validator is given the new template only with a permit, so that a pod which is re-made for another reason meanwhile
//! gets what it had. A permit is only acted on in the reconciliation after the one that granted it: by then it is in the
//! status, written with the version of the Network it was judged from.

use std::{cmp::Reverse, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;

use super::observe::Observed;
use crate::{
    api::{
        Activity, BizraNode, FailedRevision, Network, NetworkStatus, NodeTemplate, Permit, PermitPurpose, Repair,
        RepairAction, condition,
    },
    controllers::{
        bizra_node::{heal::is_used, plan::purpose_of},
        conditions::{Reason, find},
        ownership::{Ownership, ownership},
        quorum::{self, Census, QuorumLoss, Standing, Verdict},
    },
    kubernetes::{named, shorten},
    planted::{self, Bug},
    resources::{labels, pod, revision},
};

/// A permit that is not used within this time is taken back. A drain of the node's host may be in the way.
pub(in crate::controllers) const PERMIT_SECONDS: i64 = 60;
/// A pod that was made within this time is about to run.
const START_SECONDS: i64 = 120;
/// Longest message of a failed revision, in bytes.
const MESSAGE_MAX_BYTES: usize = 512;

/// Where a rolling change is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every node is as the spec asks.
    Current,
    /// A node is being changed.
    Rolling(Reason),
    /// A node has to be changed and may not be now.
    Waiting(Reason),
    /// Somebody has to decide or to change something.
    Stalled(Reason),
}

/// What was decided about a rolling change.
#[derive(Clone, Debug, PartialEq)]
pub struct Roll {
    /// Revision the spec asks for.
    pub target: String,
    /// The latest revision that was in sync on a validator.
    pub good: Option<String>,
    /// The permit the status is to hold.
    pub permit: Option<Permit>,
    /// The failure the status is to hold.
    pub failed: Option<FailedRevision>,
    /// Where it is.
    pub progress: Progress,
    /// The template of each validator, if it is not the one of the spec.
    held_back: BTreeMap<String, NodeTemplate>,
    wanted: NodeTemplate,
}

impl Roll {
    /// The template this validator's `BizraNode` is to have now.
    pub fn template(&self, name: &str) -> &NodeTemplate {
        self.held_back.get(name).unwrap_or(&self.wanted)
    }
}

/// A node as the roll sees it.
struct Member<'a> {
    name: String,
    node: &'a BizraNode,
    pod: Option<&'a Pod>,
    is_ours: bool,
    /// Revision of the template it was given.
    assigned: String,
    standing: Standing,
}

impl Member<'_> {
    fn pod_uid(&self) -> String {
        self.pod.and_then(kube::ResourceExt::uid).unwrap_or_default()
    }

    /// Whether the pod is what the `BizraNode` asks for; none if that is not known yet or there is no pod.
    fn pod_is_current(&self) -> Option<bool> {
        let status = self.node.status.as_ref()?;
        let desired = status.revision.as_deref()?;
        if Some(status.observed_generation) != self.node.metadata.generation {
            return None;
        }
        let pod = self.pod.filter(|pod| pod.metadata.deletion_timestamp.is_none())?;
        Some(pod::annotation(&pod.metadata, labels::REVISION) == Some(desired))
    }

    /// Runs what it was given, and takes part.
    fn is_in_place(&self) -> bool {
        let takes_part = match self.standing {
            Standing::InSync => true,
            // A full node has nothing to vote with, and a fenced one in sync does all that it may. Of a pod that does not run
            // yet, the status may be the former one's.
            Standing::NotVoting => {
                self.pod.is_some_and(quorum::container_runs)
                    && self.ready().is_some_and(|ready| {
                        ready.status == "True" || matches!(ready.reason.as_str(), "Fenced" | "Jailed")
                    })
            }
            Standing::Unknown => false,
        };
        takes_part && self.pod_is_current() == Some(true)
    }

    /// Its pod was made a moment ago, or is about to be.
    fn is_starting(&self, now: Timestamp) -> bool {
        let Some(pod) = self.pod else {
            return self.ready().is_some_and(|ready| {
                // One that cannot be made has another reason.
                matches!(ready.reason.as_str(), "Hibernating" | "Hibernated" | "PodMissing")
            });
        };
        let made = pod.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| now < later(made.0, START_SECONDS))
    }

    /// The repair that its controller has decided on, and needs a permit for.
    fn awaited_repair(&self) -> Option<&Repair> {
        let repair = self.node.status.as_ref()?.repair.as_ref()?;
        let pod = self.pod.filter(|pod| pod.metadata.deletion_timestamp.is_none())?;
        (Some(&repair.pod_uid) == pod.uid().as_ref() && !quorum::is_full_node(self.node)).then_some(repair)
    }

    /// True from the moment its database is given up until it is in sync again.
    fn is_resyncing(&self) -> bool {
        let repair = self.node.status.as_ref().and_then(|status| status.repair.as_ref());
        let repair = repair.filter(|repair| repair.action != RepairAction::Restart);
        repair.is_some_and(|repair| self.pod.is_none_or(|pod| is_used(repair, pod)))
            && !quorum::is_full_node(self.node)
            && !self.is_in_place()
    }

    fn ready(&self) -> Option<&Condition> {
        find(&self.node.status.as_ref()?.conditions, condition::READY)
    }

    fn last_seen(&self) -> String {
        self.ready()
            .map_or_else(|| "nothing is known of it".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message))
    }
}

/// Decides. `names` are those of the validators there are to be. `census` is of the same observation; without a chain (`census` none)
/// nobody votes and everybody is changed at once. During a `standstill` nodes are repaired, and nobody is changed.
pub fn decide(
    network: &Network,
    observed: &Observed,
    census: Option<&Census>,
    names: &[String],
    standstill: Option<&Reason>,
    wanted: NodeTemplate,
) -> Result<Roll, serde_json::Error> {
    let target = revision::of_template(&wanted)?;
    let old = network.status.clone().unwrap_or_default();
    let members = members(network, observed, census)?;
    let mut roll = Roll {
        good: old.good_revision.clone(),
        permit: None,
        failed: None,
        progress: Progress::Current,
        held_back: BTreeMap::new(),
        wanted,
        target,
    };
    let Some(census) = census else { return Ok(roll) };

    let mut known: BTreeMap<String, NodeTemplate> = BTreeMap::new();
    for member in members.iter().filter(|member| member.is_ours) {
        let template = &member.node.spec.template;
        known.insert(revision::of_template(template)?, template.clone());
    }
    if members.iter().any(|member| member.is_ours && member.assigned == roll.target && member.is_in_place()) {
        roll.good = Some(roll.target.clone());
    }
    roll.failed = standing_failure(&old, &roll.target, &members);
    if let Some(failed) = &mut roll.failed {
        // If its last holder was given another template meanwhile, nobody can go back to it.
        failed.rolled_back_to = failed.rolled_back_to.take().filter(|good| known.contains_key(good));
    }
    if network.spec.activity == Activity::Hibernated {
        // Nothing runs that could show whether the new template works.
        hold_back(&mut roll, names, &members, &known, None);
        if !roll.held_back.is_empty() {
            let message = format!("revision {} is rolled out when the network runs again", roll.target);
            roll.progress = Progress::Waiting(Reason::new("Hibernated", message));
        }
        return Ok(roll);
    }
    settle_permit(&mut roll, &old, &members, &known, standstill, observed.now);
    if roll.permit.is_none() {
        let deadline = i64::from(network.spec.update_deadline_seconds);
        roll.permit = permit_repair(census, &members, observed.now, deadline);
    }
    // If nobody votes because all are being started with what worked before, after a hibernation, that is awaited.
    let starts = roll.good.is_some()
        && !census.anybody_votes()
        && members.iter().filter(|member| member.is_ours).all(|member| member.is_starting(observed.now));
    if roll.permit.is_none() {
        let waits = starts.then(|| {
            let message = "the validators have just been started; the change is rolled out when they vote";
            Reason::new("ValidatorsStarting", message)
        });
        choose(&mut roll, network, census, &members, standstill.or(waits.as_ref()), observed.now);
    }
    // What was granted just now is acted on when it is in the status.
    let permit = roll.permit.clone().filter(|permit| old.permit.as_ref() == Some(permit));
    // If nobody votes, nothing can be broken: a first image with a typing error is corrected everywhere at once.
    if (census.anybody_votes() || starts || roll.failed.is_some()) && !planted::is(Bug::PermitIgnored) {
        hold_back(&mut roll, names, &members, &known, permit.as_ref());
    }
    if let Some(failed) = &roll.failed {
        roll.progress = Progress::Stalled(failure_reason(failed));
    }
    Ok(roll)
}

fn members<'a>(
    network: &Network,
    observed: &'a Observed,
    census: Option<&Census>,
) -> Result<Vec<Member<'a>>, serde_json::Error> {
    // Who was replaced is not there to be changed.
    let of_network = observed
        .nodes
        .iter()
        .filter(|node| node.spec.network_ref.name == network.name_any() && !quorum::is_replaced(node));
    of_network
        .map(|node| {
            let name = node.name_any();
            let is_ours = ownership(&node.metadata, network) == Ownership::Ours;
            let assigned = match pod::annotation(&node.metadata, labels::TEMPLATE_REVISION).filter(|_| is_ours) {
                Some(assigned) => assigned.to_owned(),
                None => revision::of_template(&node.spec.template)?,
            };
            Ok(Member {
                pod: named(&observed.pods, &name),
                standing: census.map_or(Standing::NotVoting, |census| census.standing(&name)),
                name,
                node,
                is_ours,
                assigned,
            })
        })
        .collect()
}

/// The failure that still stands: of the revision the spec asks for, unless the node has come back with it after all.
fn standing_failure(old: &NetworkStatus, target: &str, members: &[Member<'_>]) -> Option<FailedRevision> {
    let failed = old.failed_revision.clone().filter(|failed| failed.revision == target)?;
    let is_back =
        |member: &Member<'_>| member.name == failed.node && member.assigned == failed.revision && member.is_in_place();
    (!members.iter().any(is_back)).then_some(failed)
}

/// Keeps, returns or fails the permit that is out.
fn settle_permit(
    roll: &mut Roll,
    old: &NetworkStatus,
    members: &[Member<'_>],
    known: &BTreeMap<String, NodeTemplate>,
    standstill: Option<&Reason>,
    now: Timestamp,
) {
    let Some(permit) = old.permit.clone() else { return };
    let Some(member) = members.iter().find(|member| member.name == permit.node) else { return };
    if permit.purpose != PermitPurpose::Change {
        roll.permit = settle_repair(member, permit, now);
        return;
    }
    let wanted = if member.is_ours { wanted_revision(roll, member) } else { member.assigned.clone() };
    if wanted != permit.revision || (member.assigned == permit.revision && member.is_in_place()) {
        return;
    }
    let is_another = member.pod_uid() != permit.pod_uid;
    if is_another && member.pod_is_current() == Some(false) {
        // Its pod was lost, and made anew from what there was before: that one needs a permit of its own.
        return;
    }
    let is_made = member.assigned == permit.revision && member.pod_is_current() == Some(true);
    let is_used = is_another
        || is_made
        || member.pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
        || permit.pod_uid.is_empty();
    if (now >= permit.expires_at.0 || standstill.is_some()) && !is_used {
        return;
    }
    if now < permit.deadline_at.0 {
        roll.progress = Progress::Rolling(Reason::new(
            "RollingUpdate",
            format!("{} is being changed to revision {}", permit.node, permit.revision),
        ));
        roll.permit = Some(permit);
        return;
    }
    // A roll-back that does not help either leaves the first failure standing.
    if permit.revision == roll.target {
        let proven = roll.good.as_deref() == Some(&permit.revision);
        let rolled_back_to = roll.good.clone().filter(|good| !proven && member.is_ours && known.contains_key(good));
        roll.failed = Some(FailedRevision {
            revision: permit.revision,
            node: permit.node,
            message: shorten(&member.last_seen(), MESSAGE_MAX_BYTES),
            rolled_back_to,
        });
    }
}

/// Keeps the permit of a repair until the node is in sync again in another pod, has helped itself, or has had its time.
fn settle_repair(member: &Member<'_>, permit: Permit, now: Timestamp) -> Option<Permit> {
    let is_used =
        member.pod_uid() != permit.pod_uid || member.pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
    let still_wanted = || member.awaited_repair().is_some_and(|repair| purpose_of(repair.action) == permit.purpose);
    let stays = if is_used {
        // One that awaits the next repair was not helped by this one.
        !member.is_in_place() && member.awaited_repair().is_none() && now < permit.deadline_at.0
    } else {
        still_wanted() && now < permit.expires_at.0
    };
    stays.then_some(permit)
}

/// The next repair that may be carried out. A node is repaired before others are changed: it may be what they wait for.
fn permit_repair(census: &Census, members: &[Member<'_>], now: Timestamp, deadline: i64) -> Option<Permit> {
    let may = |member: &&Member<'_>, repair: &Repair| match repair.action {
        RepairAction::Restart => census.may_go(&member.name) == Verdict::Safe,
        RepairAction::Resync | RepairAction::NewVolume | RepairAction::NewKeys => {
            // G4: one at a time, and what it had is held by others.
            let height = member.node.status.as_ref().and_then(|status| status.height).unwrap_or(0);
            let others = members.iter().filter(|other| other.name != member.name);
            !others.into_iter().any(Member::is_resyncing)
                && census.may_resync(&member.name, u64::try_from(height).unwrap_or(0)) == Verdict::Safe
        }
    };
    let (member, repair) = members
        .iter()
        .filter_map(|member| Some((member, member.awaited_repair()?)))
        .find(|(member, repair)| may(member, repair))?;
    let expires_at = later(now, PERMIT_SECONDS);
    Some(Permit {
        purpose: purpose_of(repair.action),
        node: member.name.clone(),
        pod_uid: repair.pod_uid.clone(),
        revision: member.assigned.clone(),
        expires_at: Time(expires_at),
        deadline_at: Time(later(expires_at, deadline)),
    })
}

/// The revision one of our validators is to end with.
fn wanted_revision(roll: &Roll, member: &Member<'_>) -> String {
    match &roll.failed {
        None => roll.target.clone(),
        Some(FailedRevision { rolled_back_to: Some(good), .. }) if member.assigned == roll.target => good.clone(),
        Some(_) => member.assigned.clone(),
    }
}

/// Picks the next node and asks whether it may go.
fn choose(
    roll: &mut Roll,
    network: &Network,
    census: &Census,
    members: &[Member<'_>],
    standstill: Option<&Reason>,
    now: Timestamp,
) {
    // A revision that never worked is tried on one node. Whatever became of its permit, it gets another, so that the deadline
    // runs, and until then nobody else gets that revision.
    let unproven = roll.failed.is_none() && roll.good.as_ref().is_some_and(|good| *good != roll.target);
    let on_trial =
        |member: &Member<'_>| unproven && member.is_ours && member.assigned == roll.target && !member.is_in_place();
    let mut candidates: Vec<(&Member<'_>, String)> = members
        .iter()
        .filter_map(|member| {
            let wanted = if member.is_ours { wanted_revision(roll, member) } else { member.assigned.clone() };
            // What does not vote is replaced by its own controller, without a permit.
            let outdated = member.pod_is_current() == Some(false) && member.standing != Standing::NotVoting;
            (member.assigned != wanted || outdated || on_trial(member)).then_some((member, wanted))
        })
        .collect();
    if let Some(standstill) = standstill {
        if !candidates.is_empty() {
            roll.progress = Progress::Waiting(standstill.clone());
        }
        return;
    }
    if members.iter().any(on_trial) {
        candidates.retain(|(member, _)| on_trial(member));
    }
    // Those that do not work first; the order of the names otherwise.
    candidates.sort_by_key(|(member, _)| (member.standing, Reverse(member.is_ours)));
    let allowed = network.spec.allow_quorum_loss_for.as_deref();
    let mut obstacle = None;
    for (member, wanted) in candidates {
        let refusal = match census.may_go(&member.name) {
            verdict if verdict.permits(QuorumLoss::of(allowed, &wanted)) => None,
            Verdict::Safe => None,
            Verdict::NotNow(reason) => Some(Progress::Waiting(reason)),
            Verdict::Never(Reason { word, message }) => {
                let message = format!("{message}; set spec.allowQuorumLossFor to {wanted} to do it all the same");
                Some(Progress::Stalled(Reason { word, message }))
            }
        };
        let Some(refusal) = refusal else {
            let expires_at = later(now, PERMIT_SECONDS);
            let deadline_at = later(expires_at, i64::from(network.spec.update_deadline_seconds));
            roll.progress = Progress::Rolling(Reason::new(
                "RollingUpdate",
                format!("{} may be changed to revision {wanted}", member.name),
            ));
            roll.permit = Some(Permit {
                purpose: PermitPurpose::Change,
                node: member.name.clone(),
                pod_uid: member.pod_uid(),
                revision: wanted,
                expires_at: Time(expires_at),
                deadline_at: Time(deadline_at),
            });
            return;
        };
        // The one that needs a decision is told, else the first.
        if obstacle.is_none() || matches!(refusal, Progress::Stalled(_)) {
            obstacle = Some(refusal);
        }
    }
    if let Some(obstacle) = obstacle {
        roll.progress = obstacle;
    }
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    // Whole seconds, as the API server keeps them: the permit has to be recognised when it is read back.
    let seconds = SignedDuration::from_secs(now.as_second().saturating_add(seconds));
    Timestamp::from_duration(seconds).unwrap_or(Timestamp::MAX)
}

/// Keeps every validator that has no permit at what it was given.
fn hold_back(
    roll: &mut Roll,
    names: &[String],
    members: &[Member<'_>],
    known: &BTreeMap<String, NodeTemplate>,
    permit: Option<&Permit>,
) {
    for member in members.iter().filter(|member| member.is_ours) {
        let revision = match permit {
            Some(permit) if permit.node == member.name => &permit.revision,
            _ => &member.assigned,
        };
        if *revision != roll.target {
            // Somebody has edited it and nobody else has the former template: it stays until its turn.
            let template = known.get(revision).unwrap_or(&member.node.spec.template);
            roll.held_back.insert(member.name.clone(), template.clone());
        }
    }
    // A validator whose BizraNode was deleted comes back with what is known to work.
    let good = roll.good.as_ref().filter(|good| **good != roll.target).and_then(|good| known.get(good));
    if let Some(good) = good {
        for name in names.iter().filter(|name| members.iter().all(|member| member.name != **name)) {
            roll.held_back.insert(name.clone(), good.clone());
        }
    }
}

fn failure_reason(failed: &FailedRevision) -> Reason {
    let FailedRevision { revision, node, message, rolled_back_to } = failed;
    let (word, what) = match rolled_back_to {
        Some(good) => ("RolledBack", format!("{node} is rolled back to revision {good}, no other node was touched")),
        None => ("RollStopped", "no further node is changed".to_owned()),
    };
    let message = format!(
        "{node} did not come back in sync with revision {revision} ({message}); {what}; change the spec to go on"
    );
    Reason::new(word, message)
}

/// What to tell people when this status replaces that one.
pub fn news(old: &NetworkStatus, new: &NetworkStatus) -> Vec<Reason> {
    let mut news = Vec::new();
    if let Some(permit) = new.permit.as_ref().filter(|permit| old.permit.as_ref() != Some(permit)) {
        let message = format!("{} may restart for {}", permit.node, what_for(permit));
        news.push(Reason::new("PermitGranted", message));
    }
    if let Some(permit) = old.permit.as_ref().filter(|permit| new.permit.as_ref() != Some(permit)) {
        let failed = new.failed_revision.is_some() && old.failed_revision != new.failed_revision;
        let (node, what) = (&permit.node, what_for(permit));
        news.push(if failed {
            Reason::new("PermitFailed", format!("{node} did not come back in sync with {what}"))
        } else {
            Reason::new("PermitReturned", format!("the permit of {node} for {what} is returned"))
        });
    }
    news
}

fn what_for(permit: &Permit) -> String {
    match permit.purpose {
        PermitPurpose::Change => format!("revision {}", permit.revision),
        PermitPurpose::Restart => "a repair".to_owned(),
        PermitPurpose::Resync => "a new database".to_owned(),
        PermitPurpose::NewKeys => "new keys".to_owned(),
    }
}

#[cfg(test)]
#[path = "roll_tests.rs"]
mod tests;
