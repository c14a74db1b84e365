//! The node's volume: made, labelled, grown, and made anew where that loses nothing that others do not have.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use serde_json::json;

use super::{Leave, Obstacle, Planner, heal};
use crate::{
    api::{RepairAction, RepairCause},
    controllers::{
        ReconcileError,
        conditions::Reason,
        key_report::KeyReading,
        ownership::{Ownership, ownership},
        quorum,
    },
    kubernetes::{Manifest, Write},
    planted::{self, Bug},
    probe::Word,
    resources::{
        claim, controlled_by,
        growth::{self, Fill, Growth},
        labels, names, pod,
    },
};

impl Planner<'_> {
    /// The volume's uid, if the node may use the volume.
    pub(super) fn claim(&mut self, chain_id: &str) -> Result<Option<String>, ReconcileError> {
        let network = self.node.spec.network_ref.name.clone();
        let storage = &self.node.spec.template.storage;
        let Some(existing) = &self.observed.claim else {
            if self.observed.network.is_none() {
                self.stall("NetworkMissing", format!("there is no Network {network}, and the volume is gone"));
                return Ok(None);
            }
            let mut claim = claim::claim(&self.name, &self.namespace, &network, chain_id, storage);
            if let Some(hash) = &self.plan.genesis_hash {
                claim::set_genesis(&mut claim, hash);
            }
            if planted::is(Bug::VolumeOwned) {
                claim.metadata.owner_references = Some(vec![controlled_by(self.node)]);
            }
            // The first volume is told of with the pod; that there is another, empty one is news.
            let had_volume = self.node.status.as_ref().is_some_and(|status| status.volume_id.is_some());
            let message = format!("created volume claim {}; its volume is a new one", names::claim(&self.name));
            let event = had_volume.then(|| Reason::new("VolumeClaimCreated", message));
            // The uid of the new claim goes into everything else, so the rest has to wait for it.
            self.step(Write::Create(Manifest::of(&claim)?), event);
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
        if existing.metadata.deletion_timestamp.is_some() || claim::is_lost(existing) {
            self.replace_volume(existing);
            return Ok(None);
        }
        self.label_with_genesis(existing);
        Ok(existing.uid())
    }

    /// The volume is gone, or goes as soon as no pod uses it. A full node has nothing on it that others have not: it gets a
    /// new one. On a validator's are its key and its signing record. It gets another if a Validator can put the new key in the
    /// place of the old one; else that is for its owner to do, and as long as the pod runs it goes on.
    fn replace_volume(&mut self, existing: &PersistentVolumeClaim) {
        let name = names::claim(&self.name);
        let is_going = existing.metadata.deletion_timestamp.is_some();
        if let Some(keeper) = self.observed.keeper.as_ref().filter(|_| !quorum::is_full_node(self.node)) {
            self.replace_validators_volume(existing, keeper);
            return;
        }
        if !quorum::is_full_node(self.node) {
            if is_going {
                self.wait(
                    "VolumeTerminating",
                    format!("volume claim {name} was deleted and goes when the pod ends, and the validator's key with it; rotate the key before that"),
                );
            } else {
                let message = format!(
                    "volume claim {name} has lost its volume, and the validator's key with it; bring the volume back, or delete the claim and rotate the key"
                );
                self.stall("VolumeLost", message);
            }
            return;
        }
        let pod = self.observed.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        if let Some(pod) = pod.filter(|pod| ownership(&pod.metadata, self.node) == Ownership::Ours) {
            let event = Reason::new("VolumeReplaced", format!("deleting pod {}: its volume is gone", self.name));
            self.step(Write::delete(pod), Some(event));
        }
        if !is_going {
            let event =
                Reason::new("VolumeReplaced", format!("deleting volume claim {name}, which has lost its volume"));
            self.step(Write::delete(existing), Some(event));
        }
        self.wait("VolumeReplaced", "the volume is gone; the node gets a new one and fetches the chain from its peers");
    }

    /// The pod of a validator goes with a permit only, even if it does not run: what it has finalised may be needed. Its own
    /// end, which its kubelet confirms, lets the claim go. One that is only lost may still get its volume back, so it is
    /// deleted only while a quorum does without.
    fn replace_validators_volume(&mut self, existing: &PersistentVolumeClaim, keeper: &str) {
        let name = names::claim(&self.name);
        let is_going = existing.metadata.deletion_timestamp.is_some();
        let word = if is_going { "VolumeTerminating" } else { "VolumeLost" };
        let what = if is_going { "was deleted" } else { "has lost its volume" };
        let next = format!("the node gets a new one with a new key, and Validator {keeper} rotates to it");
        let Some(pod) = &self.observed.pod else {
            if is_going {
                self.wait(word, format!("volume claim {name} {what} and is about to go; {next}"));
            } else if self.quorum_is_safe() {
                let event = Reason::new("VolumeReplaced", format!("deleting volume claim {name}, which {what}"));
                self.step(Write::delete(existing), Some(event));
                self.wait(word, format!("volume claim {name} {what}; {next}"));
            } else {
                self.stall_without_quorum(&format!("volume claim {name} {what}"));
            }
            return;
        };
        if pod.metadata.deletion_timestamp.is_some() || ownership(&pod.metadata, self.node) != Ownership::Ours {
            self.wait(word, format!("volume claim {name} {what}; {next} when the pod has ended"));
            return;
        }
        let uid = pod.uid().unwrap_or_default();
        let known = self.plan.healing.repair.clone();
        let known = known.filter(|known| known.cause == RepairCause::VolumeLost && known.pod_uid == uid);
        let Some(repair) = known else {
            let kind = (RepairCause::VolumeLost, RepairAction::NewVolume);
            self.plan.healing.repair = Some(heal::order(self.observed.now, kind, uid, 1));
            self.wait(word, format!("volume claim {name} {what}; {next}"));
            return;
        };
        let leave = self.leave_to_repair(&repair);
        if leave == Leave::Missing && !self.quorum_is_safe() && !quorum::container_runs(pod) {
            self.stall_without_quorum(&format!("volume claim {name} {what}"));
        } else {
            let message = format!(
                "volume claim {name} {what}, and the key goes with the pod; as soon as its Network grants a permit, {next}"
            );
            self.wait(word, message);
        }
        self.plan.eviction = Some((Write::evict(pod), leave));
        self.plan.repairs = Some(repair);
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

    /// Claims only grow; one that somebody has grown further stays so. Last of all steps: a storage class that does not allow
    /// it must not keep the pod from being made.
    pub(super) fn grow(&mut self) {
        let Some(existing) = self.observed.claim.as_ref().filter(|_| self.plan.obstacle.is_none()) else { return };
        let fill = self.fill();
        let next = match growth::judge(existing, &self.node.spec.template.storage, fill, self.observed.now) {
            Growth::Enough => return,
            Growth::To(size) => {
                let event = Reason::new("VolumeGrows", format!("growing the volume to {size}"));
                let patch = json!({
                    "metadata": {"annotations": {labels::GROWN_AT: growth::grown_at(self.observed.now)}},
                    "spec": {"resources": {"requests": {"storage": size}}},
                });
                self.step(Write::merge(existing, patch), Some(event));
                format!("it is being grown to {size}")
            }
            Growth::UnderWay => "it is being grown".to_owned(),
            Growth::NotBefore(at) => format!("it was grown not long ago, and is grown again at {at}"),
            Growth::NotAllowed => {
                "raise storage.size, or set storage.autoGrow with a limit that leaves room".to_owned()
            }
        };
        let trouble = match fill {
            Fill::Full => {
                Reason::new("VolumeFull", format!("the node has stopped, because its volume is full; {next}"))
            }
            Fill::Percent(_) if growth::is_trouble(fill) => {
                Reason::new("VolumeFilling", format!("the volume fills up, see status.volume; {next}"))
            }
            Fill::Percent(_) | Fill::Unknown => return,
        };
        // What else is wrong is told first, except for the crashes that a full volume is the reason of.
        if self.plan.healing.trouble.as_ref().is_none_or(|known| known.word == "CrashLoop") {
            self.plan.healing.trouble = Some(trouble);
        }
    }

    /// How full the volume is, by the node's word: its last one, if that was that it is full.
    fn fill(&self) -> Fill {
        if self.observed.pod.as_ref().is_some_and(heal::is_stopped_by_full_volume) {
            return Fill::Full;
        }
        match &self.observed.word {
            Word::Status(said) => Fill::of(said.volume_total_bytes, said.volume_free_bytes),
            Word::Unasked | Word::Unknown(_) => Fill::Unknown,
        }
    }
}
