//! What to do next. Pure and total: the same node and observation always give the same plan.

mod volume;

use bizra_proto::PEERS_MAX;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use serde_json::json;

use super::{
    heal::{self, Healing, Next},
    observe::Observed,
};
use crate::{
    api::{
        Activity, BizraNode, BizraNodeStatus, ImageSpec, Permit, PermitPurpose, Reconciliation, Repair, RepairAction,
        RepairCause, Signing, condition,
    },
    controllers::{
        ReconcileError,
        conditions::{Reason, is_true},
        jailings,
        key_report::{self, KeyReading},
        network::{genesis_of, parse_genesis, validator_names},
        ownership::{Ownership, ownership},
        quorum::{self, Standing},
    },
    kubernetes::{Manifest, Write, needs_apply},
    planted::{self, Bug},
    probe::Word,
    resources::{
        config_map::{self, Neighbours},
        genesis,
        labels::{self, Component},
        names, node as node_builder, pod, revision, short_hash,
    },
};

/// A write, and what to tell people when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The write.
    pub write: Write,
    /// Reason and note of an event.
    pub event: Option<Reason>,
}

/// Why a node does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Somebody has to change something.
    Stalled(Reason),
    /// It will pass.
    Waiting(Reason),
}

/// An order that keeps the operator from doing what it otherwise would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standstill {
    /// It changes nothing.
    Paused(Reason),
    /// There is to be no pod.
    Hibernated(Reason),
    /// There is to be no pod: another node validates in its place.
    Replaced(Reason),
}

/// What an eviction needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing: the node does not vote.
    NotNeeded,
    /// This permit, checked again right before.
    Granted(Permit),
    /// A permit that has not been granted.
    Missing,
}

/// What to do, and what was found on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Writes, in order.
    pub steps: Vec<Step>,
    /// What is in the way.
    pub obstacle: Option<Obstacle>,
    /// The order that is obeyed instead.
    pub standstill: Option<Standstill>,
    /// What the node reports of its keys.
    pub key: KeyReading,
    /// True if the pod was made from what the spec says now; none without a pod.
    pub up_to_date: Option<bool>,
    /// Revision the pod should have, if that could be told.
    pub revision: Option<String>,
    /// The eviction that would bring the pod to that revision, and whether it has to be permitted.
    pub eviction: Option<(Write, Leave)>,
    /// The repair that the eviction is for; none if it is for a changed spec.
    pub repairs: Option<Repair>,
    /// What is wrong with the node, and what is done about it.
    pub healing: Healing,
    /// Hash of the network's genesis, if there is one.
    pub genesis_hash: Option<String>,
    /// True if the node is meant to validate and its key is not in the genesis.
    pub key_not_in_genesis: bool,
}

impl Plan {
    /// True if something in it cannot be taken back: a pod goes; a volume is made, which outlives its node, or grown, which
    /// never shrinks; a repair is ordered, or a pod is made that may carry one out on its database.
    pub fn needs_live_reads(&self, node: &BizraNode) -> bool {
        let known = node.status.as_ref().and_then(|status| status.repair.as_ref());
        let is_of_volume = |write: &Write| match write {
            Write::Create(manifest) => manifest.target.kind() == "PersistentVolumeClaim",
            write => write.grows_a_volume(),
        };
        self.steps.iter().any(|step| step.write.removes() || is_of_volume(&step.write))
            || self.eviction.as_ref().is_some_and(|(_, leave)| *leave != Leave::Missing)
            || self.healing.repair.as_ref() != known
            || (known.is_some() && !self.steps.is_empty())
    }
}

/// Makes the plan.
pub fn plan(node: &BizraNode, observed: &Observed, default_image: &ImageSpec) -> Result<Plan, ReconcileError> {
    let mut planner = Planner {
        node,
        observed,
        name: node.name_any(),
        namespace: node.namespace().unwrap_or_default(),
        plan: Plan {
            steps: Vec::new(),
            obstacle: None,
            standstill: None,
            key: KeyReading::Absent,
            up_to_date: None,
            revision: None,
            eviction: None,
            repairs: None,
            healing: Healing::unchanged(node),
            genesis_hash: observed.genesis.as_ref().and_then(file).map(genesis::hash),
            key_not_in_genesis: false,
        },
    };
    planner.run(default_image)?;
    if planted::is(Bug::PodFirst) {
        planner.plan.steps.sort_by_key(|step| step.write.target().kind() != "Pod");
    }
    planner.grow();
    planner.pause();
    Ok(planner.plan)
}

fn file(config_map: &ConfigMap) -> Option<&str> {
    config_map.data.as_ref().and_then(|data| data.get(genesis::FILE)).map(String::as_str)
}

struct Planner<'a> {
    node: &'a BizraNode,
    observed: &'a Observed,
    name: String,
    namespace: String,
    plan: Plan,
}

impl Planner<'_> {
    fn run(&mut self, default_image: &ImageSpec) -> Result<(), ReconcileError> {
        let Some(chain_id) = self.chain_id() else {
            let network = &self.node.spec.network_ref.name;
            self.stall("NetworkMissing", format!("there is no Network {network} in this namespace; create it"));
            return Ok(());
        };
        if let Some(claim) = &self.observed.claim {
            let volume_id = claim.uid().unwrap_or_default();
            if let Some(pod) = &self.observed.pod {
                self.plan.key = key_report::read(pod, &volume_id, &chain_id);
            }
        }
        self.compare_key_with_genesis();
        if self.network_ends() {
            self.wait("NetworkTerminating", "the Network is being deleted");
            return Ok(());
        }
        if let Some(reason) = self.wrong_genesis() {
            self.plan.obstacle = Some(Obstacle::Stalled(reason));
            return Ok(());
        }
        if let Some(successor) = self.observed.replaced_by.clone() {
            self.give_way(&successor);
            return Ok(());
        }
        let Some(volume_id) = self.claim(&chain_id)? else { return Ok(()) };
        let Some(config) = self.config(&volume_id)? else { return Ok(()) };
        self.pod(&chain_id, &volume_id, &config, default_image)
    }

    fn stall(&mut self, word: &str, message: impl Into<String>) {
        self.plan.obstacle = Some(Obstacle::Stalled(Reason::new(word, message)));
    }

    fn wait(&mut self, word: &str, message: impl Into<String>) {
        self.plan.obstacle = Some(Obstacle::Waiting(Reason::new(word, message)));
    }

    fn step(&mut self, write: Write, event: Option<Reason>) {
        self.plan.steps.push(Step { write, event });
    }

    /// From the Network, or, when that is gone, from the volume: a node without Network goes on unchanged.
    fn chain_id(&self) -> Option<String> {
        let from_claim = || {
            let claim = self.observed.claim.as_ref()?;
            pod::label(&claim.metadata, labels::CHAIN_ID).map(str::to_owned)
        };
        self.observed.network.as_ref().map(|network| network.spec.chain_id.clone()).or_else(from_claim)
    }

    /// Everything was judged as ever, to be reported; nothing of it is done.
    fn pause(&mut self) {
        let by_network = self.observed.network.as_ref().is_some_and(|network| {
            network.spec.reconciliation == Reconciliation::Paused
                && ownership(&self.node.metadata, network) == Ownership::Ours
        });
        let whose = match (self.node.spec.reconciliation, by_network) {
            (Reconciliation::Paused, _) => "spec.reconciliation".to_owned(),
            (Reconciliation::Active, true) => {
                format!("spec.reconciliation of Network {}", self.node.spec.network_ref.name)
            }
            (Reconciliation::Active, false) => return,
        };
        let waiting = self.plan.steps.len() + usize::from(self.plan.eviction.is_some());
        let message =
            format!("{whose} is Paused: the operator changes nothing of this node; changes that wait: {waiting}");
        self.plan.standstill = Some(Standstill::Paused(Reason::new("Paused", message)));
        self.plan.steps.clear();
        self.plan.eviction = None;
        self.plan.healing.repair = Healing::unchanged(self.node).repair;
    }

    fn hibernates(&self) -> bool {
        self.observed.network.as_ref().is_some_and(|network| network.spec.activity == Activity::Hibernated)
    }

    /// Asked for by name, so it needs no permit. A pod is ended as ever, with its grace, and only its deletion frees the
    /// volume.
    fn hibernate(&mut self) {
        let network = &self.node.spec.network_ref.name;
        let reason = match &self.observed.pod {
            None => {
                Reason::new("Hibernated", format!("Network {network} hibernates: there is no pod, the volume stays"))
            }
            Some(_) => Reason::new("Hibernating", format!("Network {network} hibernates: the pod is ending")),
        };
        let tells = |status: &BizraNodeStatus| status.conditions.iter().any(|one| one.reason == reason.word);
        let is_told = planted::is(Bug::HibernationTold) && self.node.status.as_ref().is_some_and(tells);
        let pod = self.observed.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        if let Some(pod) = pod.filter(|_| !is_told) {
            let event =
                Reason::new("PodHibernated", format!("deleting pod {}: Network {network} hibernates", self.name));
            self.step(Write::delete(pod), Some(event));
        }
        self.plan.standstill = Some(Standstill::Hibernated(reason));
    }

    /// Another node has its vote, for good. Its pod is ended as ever, which may take until its host is back; object and volume
    /// stay.
    fn give_way(&mut self, successor: &str) {
        let message = match &self.observed.pod {
            None => format!("{successor} validates in its place; there is no pod, the volume stays"),
            Some(_) => format!("{successor} validates in its place; the pod ends, at the latest when its host is back"),
        };
        let reason = Reason::new("Replaced", message);
        if let Some(pod) = self.observed.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let event = Reason::new("PodReplaced", format!("deleting pod {}: {successor} validates now", self.name));
            self.step(Write::delete(pod), Some(event));
        }
        self.plan.standstill = Some(Standstill::Replaced(reason));
    }

    fn network_ends(&self) -> bool {
        self.observed.network.as_ref().is_some_and(|network| network.metadata.deletion_timestamp.is_some())
    }

    /// True of one of the Network's own validators.
    fn is_of_network(&self) -> bool {
        self.observed.network.as_ref().map_or_else(
            || pod::label(&self.node.metadata, labels::COMPONENT) == Some(Component::Validator.label()),
            |network| ownership(&self.node.metadata, network) == Ownership::Ours,
        )
    }

    /// What its pod is made for. One that takes a validator's place keeps off the hosts of the others, too.
    fn component(&self) -> Component {
        let replaces = pod::annotation(&self.node.metadata, labels::REPLACES).is_some();
        if self.is_of_network() || replaces { Component::Validator } else { Component::FullNode }
    }

    /// Whether the node has voting power, by its own latest word.
    fn has_power(&self) -> bool {
        match &self.observed.word {
            Word::Status(said) if said.total_power > 0 => said.power > 0,
            _ => quorum::has_power(self.node),
        }
    }

    /// The genesis in this namespace must be the Network's own.
    fn wrong_genesis(&self) -> Option<Reason> {
        let (network, config_map) = (self.observed.network.as_ref()?, self.observed.genesis.as_ref()?);
        genesis_of(network, config_map).err()
    }

    fn compare_key_with_genesis(&mut self) {
        let KeyReading::Reported(report) = &self.plan.key else { return };
        let genesis = self.observed.genesis.as_ref().and_then(file);
        let Some(Ok(genesis)) = genesis.map(parse_genesis) else {
            return;
        };
        let meant = genesis.validators.iter().find(|validator| validator.name == self.name);
        // Another key of a validator whose owner is known comes by a rotation; one that was rotated in is as good.
        let fixed = meant.filter(|validator| validator.owner.is_none() && !self.has_power());
        self.plan.key_not_in_genesis = fixed.is_some_and(|validator| validator.public_key != report.public_key);
    }

    /// What of the configuration a pod is made from, if it is ours to write or there already.
    fn config(&mut self, volume_id: &str) -> Result<Option<String>, ReconcileError> {
        let Some(network) = &self.observed.network else {
            let kept = self.observed.config.as_ref().and_then(|config| config.data.as_ref());
            let kept = kept.and_then(|data| data.get(config_map::FILE)).map(|file| config_map::pod_part(file));
            if kept.is_none() {
                self.stall("NetworkMissing", "there is no Network, and the configuration is gone");
            }
            return Ok(kept);
        };
        if !self.may_have(
            self.observed.config.as_ref().map(|config| &config.metadata),
            "ConfigMap",
            &names::config(&self.name),
        ) {
            return Ok(None);
        }
        let validators = validator_names(network, self.observed.genesis.as_ref());
        let network_name = &self.node.spec.network_ref.name;
        let followers = &self.observed.followers;
        let (known, more) = followers.split_at(followers.len().min(PEERS_MAX.saturating_sub(validators.len())));
        let is_validator = self.is_of_network();
        if !is_validator && more.contains(&self.name) {
            let (room, count) = (known.len(), followers.len());
            self.stall(
                "NetworkFull",
                format!("validators of Network {network_name} have room for {room} nodes that follow, and there are {count}; delete some that are not needed"),
            );
            return Ok(None);
        }
        // Whoever votes hears all who vote.
        let followers = if is_validator {
            known
        } else if self.observed.voters.contains(&self.name) {
            &self.observed.voters[..self.observed.voters.len().min(known.len())]
        } else {
            &[]
        };
        let neighbours = Neighbours { validators: &validators, followers };
        let said = match &self.observed.word {
            Word::Status(said) => Some(said.as_ref()),
            Word::Unasked | Word::Unknown(_) => None,
        };
        let signing = match jailings::fence(self.node, Some(network), said) {
            Some(_) => Signing::Fenced,
            None => Signing::Allowed,
        };
        let text = config_map::node_file(&self.name, &self.namespace, network_name, volume_id, neighbours, signing)
            .map_err(|error| ReconcileError::Build(error.to_string()))?;
        let pod_part = config_map::pod_part(&text);
        let desired = config_map::config(self.node, &self.name, &self.namespace, text);
        if let Some(write) = needs_apply(self.observed.config.as_ref(), &desired)? {
            self.step(write, None);
        }
        Ok(Some(pod_part))
    }

    /// False, with an obstacle, if an object of this name is not ours.
    fn may_have(&mut self, metadata: Option<&kube::api::ObjectMeta>, kind: &str, name: &str) -> bool {
        match metadata.map(|metadata| ownership(metadata, self.node)) {
            None | Some(Ownership::Ours) => true,
            Some(Ownership::Former) => {
                self.wait("FormerTerminating", format!("{kind} {name} of the former BizraNode is being removed"));
                false
            }
            Some(Ownership::Foreign) => {
                self.stall("NameTaken", format!("{kind} {name} belongs to somebody else; delete or rename it"));
                false
            }
        }
    }

    fn pod(
        &mut self,
        chain_id: &str,
        volume_id: &str,
        config: &str,
        default_image: &ImageSpec,
    ) -> Result<(), ReconcileError> {
        let name = self.name.clone();
        if !self.may_have(self.observed.pod.as_ref().map(|pod| &pod.metadata), "Pod", &name) {
            return Ok(());
        }
        // What was the default when a pod was made stays that of its node: a new operator restarts nobody.
        let settled = self
            .observed
            .pod
            .as_ref()
            .and_then(|pod| pod::annotation(&pod.metadata, labels::DEFAULT_IMAGE).or_else(|| pod::image(pod)));
        let settled = settled.map(node_builder::parse_image);
        let default_image = settled.as_ref().unwrap_or(default_image);
        let image = node_builder::complete_image(&self.node.spec.template.image, default_image);
        let repair = self.order_for_new_pod();
        let desired = pod::pod(
            self.node,
            &self.name,
            &pod::Inputs {
                namespace: &self.namespace,
                chain_id,
                volume_id,
                config,
                image: &image,
                component: self.component(),
                repair,
            },
        )?;
        self.plan.revision = pod::annotation(&desired.metadata, labels::REVISION).map(str::to_owned);
        if self.hibernates() {
            self.hibernate();
            return Ok(());
        }
        self.plan.healing = heal::decide(self.node, self.observed);
        if let (Next::GiveUp, Some(trouble)) = (self.plan.healing.next, self.plan.healing.trouble.clone()) {
            self.plan.obstacle = Some(Obstacle::Stalled(trouble));
        }
        let is_keyless = |repair: &Repair| repair.cause == RepairCause::KeyRefused;
        if self.plan.healing.next == Next::Act
            && let Some(repair) = self.plan.healing.repair.clone().filter(is_keyless)
            && self.leave_to_repair(&repair) == Leave::Missing
            && !self.quorum_is_safe()
        {
            self.stall_without_quorum("the keys of the node are gone or refuse");
        }
        let Some(existing) = &self.observed.pod else {
            let mut desired = desired;
            let annotations = desired.metadata.annotations.get_or_insert_default();
            annotations.insert(labels::DEFAULT_IMAGE.to_owned(), node_builder::image_reference(default_image));
            if let Some(documents) = self.documents() {
                annotations.insert(labels::DOCUMENTS.to_owned(), documents);
            }
            let message = format!("created pod {name} on volume claim {}", names::claim(&name));
            self.step(Write::Create(Manifest::of(&desired)?), Some(Reason::new("PodCreated", message)));
            return Ok(());
        };
        let revision = |pod| pod::annotation(pod, labels::REVISION);
        self.plan.up_to_date = Some(revision(&existing.metadata) == revision(&desired.metadata));
        if existing.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let phase = existing.status.as_ref().and_then(|status| status.phase.as_deref());
        if let Some(phase) = phase.filter(|phase| matches!(*phase, "Failed" | "Succeeded")) {
            // All its processes have ended; the volume is free once the pod is gone.
            let why = existing.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or_default();
            let event = Reason::new("PodReplaced", format!("pod {name} has ended ({phase} {why}); making it anew"));
            self.step(Write::delete(existing), Some(event));
            return Ok(());
        }
        self.touch(existing);
        self.count_in_budget(existing);
        let due = match (self.plan.healing.next, &self.plan.healing.repair) {
            (Next::Act, Some(repair)) => Some((repair.clone(), self.leave_to_repair(repair))),
            _ => None,
        };
        if self.plan.up_to_date == Some(false) && !matches!(&due, Some((_, leave)) if *leave != Leave::Missing) {
            if planted::is(Bug::PermitIgnored) {
                self.plan.eviction = Some((Write::delete(existing), Leave::NotNeeded));
                return Ok(());
            }
            let leave = self.leave(existing)?;
            // That it does not vote was said of the pod as it was found; no live look follows, as with a permit.
            let write = if leave == Leave::NotNeeded { Write::evict_unchanged } else { Write::evict };
            self.plan.eviction = Some((write(existing), leave));
        } else if let Some((repair, leave)) = due {
            self.plan.eviction = Some((Write::evict(existing), leave));
            self.plan.repairs = Some(repair);
        }
        Ok(())
    }

    fn quorum_is_safe(&self) -> bool {
        let status = self.observed.network.as_ref().and_then(|network| network.status.as_ref());
        status.is_some_and(|status| is_true(&status.conditions, condition::QUORUM_SAFE))
    }

    /// Keys of more validators are gone than the chain does without: no rotation is finalised any more.
    fn stall_without_quorum(&mut self, what: &str) {
        let message = format!(
            "{what}, and no quorum is in sync that could finalise another key; bring the other validators back, or, if their keys are lost as well, see the runbook mass-loss (`bizra-node recover`)"
        );
        self.stall("QuorumLost", message);
    }

    /// The permit of the Network for this repair, if it is out.
    fn permit_to_repair(&self, repair: &Repair) -> Option<Permit> {
        let permit = self.observed.network.as_ref()?.status.as_ref()?.permit.clone()?;
        let fits =
            permit.purpose == purpose_of(repair.action) && permit.node == self.name && permit.pod_uid == repair.pod_uid;
        fits.then_some(permit)
    }

    /// Whether the pod may be taken down to be repaired. Who may vote needs a permit even if it does not run: its database
    /// may be needed.
    fn leave_to_repair(&self, repair: &Repair) -> Leave {
        if self.observed.network.is_none() {
            return Leave::Missing;
        }
        if quorum::is_full_node(self.node) {
            return Leave::NotNeeded;
        }
        let permit = self.permit_to_repair(repair).filter(|permit| self.observed.now < permit.expires_at.0);
        permit.map_or(Leave::Missing, Leave::Granted)
    }

    /// What a new pod is to repair: what was decided when the one before was still there, with the same leave.
    fn order_for_new_pod(&self) -> Option<pod::RepairOrder<'_>> {
        let repair = self.node.status.as_ref()?.repair.as_ref().filter(|_| self.observed.pod.is_none())?;
        if !quorum::is_full_node(self.node) {
            self.permit_to_repair(repair)?;
        }
        let database = match (repair.action, repair.cause) {
            (RepairAction::Restart | RepairAction::NewVolume | RepairAction::NewKeys, _) => pod::DatabaseOrder::Keep,
            // If the first did not help, the mark may have been what could not be written.
            (RepairAction::Resync, RepairCause::DatabaseCorrupt) if repair.attempt <= 1 => {
                pod::DatabaseOrder::ResetIfCorrupt
            }
            (RepairAction::Resync, _) => pod::DatabaseOrder::Reset,
        };
        let replaces_keys = repair.action == RepairAction::NewKeys;
        Some(pod::RepairOrder { replaces: &repair.pod_uid, database, replaces_keys })
    }

    /// Whether the pod may be taken down to be made anew.
    fn leave(&self, existing: &Pod) -> Result<Leave, ReconcileError> {
        // Without the Network nobody judges whether a quorum remains.
        let Some(network) = &self.observed.network else { return Ok(Leave::Missing) };
        if quorum::standing(self.node, Some(existing), Some(&self.observed.word)) == Standing::NotVoting {
            return Ok(Leave::NotNeeded);
        }
        let assigned = revision::of_template(&self.node.spec.template)?;
        let permit = network.status.as_ref().and_then(|status| status.permit.clone());
        let usable = permit.filter(|permit| {
            permit.purpose == PermitPurpose::Change
                && permit.node == self.name
                && Some(&permit.pod_uid) == existing.uid().as_ref()
                && permit.revision == assigned
                && self.observed.now < permit.expires_at.0
        });
        Ok(usable.map_or(Leave::Missing, Leave::Granted))
    }

    /// Changes a pod annotation when a mounted document has changed: the kubelet then refreshes the mounts at once
    /// instead of a minute later.
    fn touch(&mut self, existing: &Pod) {
        let documents = self.documents();
        if let Some(documents) = documents
            && pod::annotation(&existing.metadata, labels::DOCUMENTS) != Some(&documents)
        {
            let patch = json!({"metadata": {"annotations": {labels::DOCUMENTS: documents}}});
            self.step(Write::merge_pod(existing, patch), None);
        }
    }

    /// The disruption budget counts whoever votes, and finds it by its label: the pod of a node that came to vote later was made
    /// as that of a full node.
    fn count_in_budget(&mut self, existing: &Pod) {
        let component = if self.has_power() { Component::Validator } else { self.component() };
        // Until it has said what it is, it stays what it was.
        let is_known = self.node.status.as_ref().is_some_and(|status| status.power.is_some());
        if is_known && pod::label(&existing.metadata, labels::COMPONENT) != Some(component.label()) {
            let patch = json!({"metadata": {"labels": {labels::COMPONENT: component.label()}}});
            self.step(Write::merge_pod(existing, patch), None);
        }
    }

    /// Hash of what this node reads from the network's `ConfigMap`s; none while it lacks what it waits for: it needs its
    /// certificate as well as the genesis, so one look is enough for both.
    fn documents(&self) -> Option<String> {
        let own = config_map::certificate_key(&self.name);
        let certificates = self.observed.certificates.as_ref().and_then(|certificates| certificates.data.as_ref());
        let is_waiting = !certificates.is_some_and(|certificates| certificates.contains_key(&own));
        let certificates = [own.as_str(), config_map::AUTHORITY, config_map::OPERATOR_AUTHORITY]
            .into_iter()
            .filter_map(|key| certificates?.get(key));
        let genesis = self.observed.genesis.as_ref().and_then(file);
        // Of the configuration only what is taken up without a restart, and only once it is written: the kubelet would
        // otherwise look before there is something to see.
        let config = self.observed.config.as_ref().and_then(|config| config.data.as_ref()?.get(config_map::FILE));
        let fence = config.filter(|file| config_map::is_fenced(file)).map(|_| "fenced");
        let followers = config.map(|file| config_map::followers(file)).filter(|followers| !followers.is_empty());
        if is_waiting && fence.is_none() {
            return None;
        }
        let parts: Vec<&str> =
            genesis.into_iter().chain(certificates.map(String::as_str)).chain(fence).chain(followers).collect();
        (!parts.is_empty()).then(|| short_hash(parts.join("\0").as_bytes()))
    }
}

/// The purpose that a permit for this must have.
pub fn purpose_of(action: RepairAction) -> PermitPurpose {
    match action {
        RepairAction::Restart => PermitPurpose::Restart,
        RepairAction::Resync => PermitPurpose::Resync,
        RepairAction::NewVolume | RepairAction::NewKeys => PermitPurpose::NewKeys,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
