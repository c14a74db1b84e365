//! What to do next. Pure and total: the same node and observation always give the same plan.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use serde_json::json;

use super::observe::Observed;
use crate::{
    api::{BizraNode, ImageSpec, Permit},
    controllers::{
        ReconcileError,
        conditions::Reason,
        key_report::{self, KeyReading},
        network::{genesis_of, parse_genesis, validator_names},
        ownership::{Ownership, ownership},
        quorum::{self, Standing},
    },
    kubernetes::{Manifest, Write, needs_apply},
    resources::{
        claim, config_map, genesis,
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
    /// What the node reports of its keys.
    pub key: KeyReading,
    /// True if the pod was made from what the spec says now; none without a pod.
    pub up_to_date: Option<bool>,
    /// Revision the pod should have, if that could be told.
    pub revision: Option<String>,
    /// The eviction that would bring the pod to that revision, and whether it has to be permitted.
    pub eviction: Option<(Write, Leave)>,
    /// Hash of the network's genesis, if there is one.
    pub genesis_hash: Option<String>,
    /// True if the node is meant to validate and its key is not in the genesis.
    pub key_not_in_genesis: bool,
}

impl Plan {
    /// True if something in it cannot be taken back: a pod goes, or a volume is made, which outlives its node.
    pub fn needs_live_reads(&self) -> bool {
        let makes_volume = |write: &Write| matches!(write, Write::Create(manifest) if manifest.target.kind() == "PersistentVolumeClaim");
        self.steps.iter().any(|step| step.write.removes() || makes_volume(&step.write))
            || self.eviction.as_ref().is_some_and(|(_, leave)| *leave != Leave::Missing)
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
            key: KeyReading::Absent,
            up_to_date: None,
            revision: None,
            eviction: None,
            genesis_hash: observed.genesis.as_ref().and_then(file).map(genesis::hash),
            key_not_in_genesis: false,
        },
    };
    planner.run(default_image)?;
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

    fn network_ends(&self) -> bool {
        self.observed.network.as_ref().is_some_and(|network| network.metadata.deletion_timestamp.is_some())
    }

    fn component(&self) -> Component {
        let is_validator = self.observed.network.as_ref().map_or_else(
            || pod::label(&self.node.metadata, labels::COMPONENT) == Some(Component::Validator.label()),
            |network| ownership(&self.node.metadata, network) == Ownership::Ours,
        );
        if is_validator { Component::Validator } else { Component::FullNode }
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
        let listed = genesis.validators.iter().any(|validator| validator.public_key == report.public_key);
        self.plan.key_not_in_genesis = !listed && self.component() == Component::Validator;
    }

    /// The volume's uid, if the node may use the volume.
    fn claim(&mut self, chain_id: &str) -> Result<Option<String>, ReconcileError> {
        let network = self.node.spec.network_ref.name.clone();
        let storage = &self.node.spec.template.storage;
        let Some(existing) = &self.observed.claim else {
            if self.observed.network.is_none() {
                self.stall("NetworkMissing", format!("there is no Network {network}, and the volume is gone"));
                return Ok(None);
            }
            let claim = claim::claim(&self.name, &self.namespace, &network, chain_id, storage);
            let event = Reason::new("VolumeClaimCreated", format!("created volume claim {}", names::claim(&self.name)));
            // The uid of the new claim goes into everything else, so the rest has to wait for it.
            self.step(Write::Create(Manifest::of(&claim)?), Some(event));
            self.wait("VolumePending", "the volume claim is being created");
            return Ok(None);
        };
        let label = |key| pod::label(&existing.metadata, key);
        if label(labels::NETWORK) != Some(&network) || label(labels::NODE) != Some(&self.name) {
            self.stall(
                "NameTaken",
                format!(
                    "PersistentVolumeClaim {0} belongs to somebody else; delete or rename it, or label it {1}={network} and {2}={3} if its data is this node's",
                    names::claim(&self.name), labels::NETWORK, labels::NODE, self.name,
                ),
            );
            return Ok(None);
        }
        if let Some(reason) = self.foreign_data(existing, chain_id) {
            self.plan.obstacle = Some(Obstacle::Stalled(reason));
            return Ok(None);
        }
        if existing.metadata.deletion_timestamp.is_some() {
            self.wait("VolumeTerminating", "the volume claim is being deleted");
            return Ok(None);
        }
        self.label_with_genesis(existing);
        self.grow(existing);
        Ok(existing.uid())
    }

    fn foreign_data(&self, existing: &PersistentVolumeClaim, chain_id: &str) -> Option<Reason> {
        let name = names::claim(&self.name);
        let other_chain = pod::label(&existing.metadata, labels::CHAIN_ID).unwrap_or("(none)");
        if other_chain != chain_id {
            return Some(Reason::new(
                "DataFromAnotherChain",
                format!(
                    "volume claim {name} holds chain {other_chain}, this network is chain {chain_id}; delete the claim if its data may be lost, or use the former chain id"
                ),
            ));
        }
        let pinned = pod::annotation(&existing.metadata, labels::GENESIS_HASH)?;
        let reported = match &self.plan.key {
            KeyReading::Reported(report) => report.genesis_hash.as_deref(),
            _ => None,
        };
        let genesis = self.plan.genesis_hash.as_deref()?;
        [Some(pinned), reported].into_iter().flatten().find(|pinned| *pinned != genesis).map(|pinned| {
            Reason::new(
                "DataFromAnotherChain",
                format!("volume claim {name} has pinned genesis {pinned}, this network has genesis {genesis}; delete the claim if its data may be lost, or restore the former genesis"),
            )
        })
    }

    fn label_with_genesis(&mut self, existing: &PersistentVolumeClaim) {
        let Some(hash) = self.plan.genesis_hash.clone() else { return };
        if pod::annotation(&existing.metadata, labels::GENESIS_HASH) == Some(&hash) {
            return;
        }
        let patch = json!({"metadata": {
            "labels": {labels::GENESIS_HASH: labels::genesis_label(&hash)},
            "annotations": {labels::GENESIS_HASH: hash},
        }});
        let patched = Write::merge(existing, patch);
        self.step(patched, None);
    }

    /// Claims only grow; one that somebody has grown further stays so.
    fn grow(&mut self, existing: &PersistentVolumeClaim) {
        let wanted = &self.node.spec.template.storage.size;
        let present = existing
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref())
            .and_then(|requests| requests.get("storage"));
        let (Some(wanted_bytes), Some(present_bytes)) =
            (claim::bytes(wanted), present.and_then(|present| claim::bytes(&present.0)))
        else {
            return;
        };
        // Growing needs a bound volume; until then the claim is too young to be too small.
        let bound = existing.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if wanted_bytes > present_bytes && bound {
            let patch = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
            let event = Reason::new("VolumeGrows", format!("growing the volume to {wanted}"));
            let patched = Write::merge(existing, patch);
            self.step(patched, Some(event));
        }
    }

    /// Text of the configuration, if it is ours to write or there already.
    fn config(&mut self, volume_id: &str) -> Result<Option<String>, ReconcileError> {
        let Some(network) = &self.observed.network else {
            let kept = self.observed.config.as_ref().and_then(|config| config.data.as_ref());
            let kept = kept.and_then(|data| data.get(config_map::FILE)).cloned();
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
        let text = config_map::node_file(&self.name, &self.namespace, network_name, volume_id, &validators)
            .map_err(|error| ReconcileError::Build(error.to_string()))?;
        let desired = config_map::config(self.node, &self.name, &self.namespace, text.clone());
        if let Some(write) = needs_apply(self.observed.config.as_ref(), &desired)? {
            self.step(write, None);
        }
        Ok(Some(text))
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
        // The image a pod was made with stays the default of its node: a new operator restarts nobody.
        let settled = self.observed.pod.as_ref().and_then(pod::image).map(node_builder::parse_image);
        let default_image = settled.as_ref().unwrap_or(default_image);
        let image = node_builder::complete_image(&self.node.spec.template.image, default_image);
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
            },
        )?;
        self.plan.revision = pod::annotation(&desired.metadata, labels::REVISION).map(str::to_owned);
        let Some(existing) = &self.observed.pod else {
            let event = Reason::new("PodCreated", format!("created pod {name}"));
            self.step(Write::Create(Manifest::of(&desired)?), Some(event));
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
        if self.plan.up_to_date == Some(false) {
            let leave = self.leave(existing)?;
            self.plan.eviction = Some((Write::evict(existing), leave));
        }
        Ok(())
    }

    /// Whether the pod may be taken down to be made anew.
    fn leave(&self, existing: &Pod) -> Result<Leave, ReconcileError> {
        // Without the Network nobody judges whether a quorum remains.
        let Some(network) = &self.observed.network else { return Ok(Leave::Missing) };
        if quorum::standing(Some(existing), Some(&self.observed.word)) == Standing::NotVoting {
            return Ok(Leave::NotNeeded);
        }
        let assigned = revision::of_template(&self.node.spec.template)?;
        let permit = network.status.as_ref().and_then(|status| status.permit.clone());
        let usable = permit.filter(|permit| {
            permit.node == self.name
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
            let mut write = Write::merge(existing, patch);
            // The kubelet writes the pod's status all the time; only the uid matters here.
            if let Write::Merge { resource_version, .. } = &mut write {
                *resource_version = None;
            }
            self.step(write, None);
        }
    }

    /// Hash of what this node reads from the network's `ConfigMap`s; none while there is nothing.
    fn documents(&self) -> Option<String> {
        let own = config_map::certificate_key(&self.name);
        let certificates = self.observed.certificates.as_ref().and_then(|certificates| certificates.data.as_ref());
        let certificates = [own.as_str(), config_map::AUTHORITY, config_map::OPERATOR_AUTHORITY]
            .into_iter()
            .filter_map(|key| certificates?.get(key));
        let genesis = self.observed.genesis.as_ref().and_then(file);
        let parts: Vec<&str> = genesis.into_iter().chain(certificates.map(String::as_str)).collect();
        (!parts.is_empty()).then(|| short_hash(parts.join("\0").as_bytes()))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
