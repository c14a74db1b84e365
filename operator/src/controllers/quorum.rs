//! Who votes, who is in sync, and whether a quorum remains without one of them. Pure; both controllers judge by it, one
//! when it grants a permit, the other again right before it uses the permit.
//!
//! What is not known counts against the change: a node that does not answer counts as voting and as not in sync. That a
//! node does not vote needs a witness besides the operator's own failed question: its own word, or its kubelet's that it
//! does not run.

use std::collections::BTreeMap;

use bizra_proto::{
    ceremony::{Genesis, GenesisValidator},
    v1::{NodeStatus, SigningState, SyncState},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::conditions::{Reason, find, is_true};
use crate::{
    api::{BizraNode, Signing, condition},
    kubernetes::named,
    probe::Word,
    resources::pod,
};

/// A node this many blocks behind what more than a third of the power has finalised is not in sync, whatever it says.
const BEHIND_BLOCKS: u64 = 64;

/// What a node does for the quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does not run, by its kubelet's word, or does not vote, by its own.
    NotVoting,
    /// Anything else: it may vote.
    Unknown,
    /// In sync and allowed to vote, by its own word.
    InSync,
}

/// How old words may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Up to some rounds of the poller: heights cannot be compared.
    Polled,
    /// Just asked, all at once.
    Live,
}

/// A node that may vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Name of the `BizraNode`.
    pub name: String,
    /// What it does for the quorum.
    pub standing: Standing,
    /// Its power, by its own latest word or else by the genesis.
    pub power: u128,
    /// The block it has finalised, by its own latest word; 0 if it has said none.
    pub height: u64,
}

/// Whether a node may be taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A quorum remains in sync without it, or it does not vote.
    Safe,
    /// It will be possible once others are in sync.
    NotNow(Reason),
    /// It alone has so much power that no quorum ever remains without it.
    Never(Reason),
}

/// Whether somebody has said that the quorum may be lost while this change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumLoss {
    /// It may not.
    Forbidden,
    /// It may, for as long as this one node is down.
    Accepted,
}

impl QuorumLoss {
    /// What a Network's `allowQuorumLossFor` says of this revision.
    pub fn of(allowed: Option<&str>, revision: &str) -> Self {
        if allowed == Some(revision) { Self::Accepted } else { Self::Forbidden }
    }
}

impl Verdict {
    /// True if the node may be taken down. Who costs the quorum by itself may be allowed to; who only has to wait for
    /// others waits, whatever was allowed.
    pub fn permits(&self, loss: QuorumLoss) -> bool {
        match self {
            Self::Safe => true,
            Self::Never(_) => loss == QuorumLoss::Accepted,
            Self::NotNow(_) => false,
        }
    }
}

/// What is seen of a pod without reading all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its uid.
    pub uid: String,
    /// The node's container runs, by its kubelet's word.
    pub runs: bool,
    /// Its deletion has begun.
    pub is_ending: bool,
}

impl Sighting {
    /// What is seen of this one.
    pub fn of(pod: &Pod) -> Self {
        let uid = pod.uid().unwrap_or_default();
        Self { uid, runs: container_runs(pod), is_ending: pod.metadata.deletion_timestamp.is_some() }
    }
}

/// All voters of a network at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    voters: Vec<Voter>,
    total: u128,
}

impl Census {
    /// Judges every node that names the network. `words` are by node name.
    pub fn take(
        genesis: Option<&Genesis>,
        nodes: &[&BizraNode],
        pods: &[Pod],
        words: &BTreeMap<String, Word>,
        freshness: Freshness,
    ) -> Self {
        let in_genesis = |name: &str| {
            let validator = genesis?.validators.iter().find(|validator| validator.name == name)?;
            validator.power().map(u128::from)
        };
        let said = |name: &str| match words.get(name) {
            Some(Word::Status(said)) => Some(said.as_ref()),
            _ => None,
        };
        let mut voters: Vec<Voter> = nodes
            .iter()
            .map(|node| {
                let name = node.name_any();
                let told = said(&name).filter(|said| said.total_power > 0).map(|said| u128::from(said.power));
                let kept = || node.status.as_ref()?.power.as_ref()?.parse().ok();
                let last = || if is_replaced(node) { None } else { in_genesis(&name).max(kept()) };
                let power = told.unwrap_or_else(|| last().unwrap_or(0));
                let pod = named(pods, &name);
                let height = said(&name).map_or(0, |said| said.finalized_height);
                Voter { standing: standing(node, pod, words.get(&name)), power, height, name }
            })
            .collect();
        if freshness == Freshness::Live {
            let head = head(&voters);
            for voter in voters.iter_mut().filter(|voter| voter.standing == Standing::InSync) {
                if voter.height.saturating_add(BEHIND_BLOCKS) < head {
                    voter.standing = Standing::Unknown;
                }
            }
        }
        let by_genesis: u128 = genesis
            .map_or(0, |genesis| genesis.validators.iter().filter_map(GenesisValidator::power).map(u128::from).sum());
        let by_words = words.values().filter_map(|word| match word {
            Word::Status(said) if said.total_power > 0 => Some(u128::from(said.total_power)),
            _ => None,
        });
        // The largest claim counts: a lie can only stop a change, not allow one.
        let total = by_words.max().unwrap_or(by_genesis);
        Self { voters, total }
    }

    /// What this node does for the quorum.
    pub fn standing(&self, name: &str) -> Standing {
        self.voters.iter().find(|voter| voter.name == name).map_or(Standing::Unknown, |voter| voter.standing)
    }

    /// Every node that has power, and how much.
    pub fn powers(&self) -> impl Iterator<Item = (&str, u128)> {
        self.voters.iter().filter(|voter| voter.power > 0).map(|voter| (voter.name.as_str(), voter.power))
    }

    /// Power of the whole validator set.
    pub fn total(&self) -> u128 {
        self.total
    }

    /// Whether any node may vote.
    pub fn anybody_votes(&self) -> bool {
        self.voters.iter().any(|voter| voter.standing != Standing::NotVoting && voter.power > 0)
    }

    /// Whether the database of this node, which had finalised `height`, may be set aside and fetched from peers (PROTOCOL
    /// G4): a quorum without it is in sync and has what it had. Not more than one node at a time is its caller's to see to.
    pub fn may_resync(&self, name: &str, height: u64) -> Verdict {
        let holds =
            |voter: &&Voter| voter.name != name && voter.standing == Standing::InSync && voter.height >= height.max(1);
        let claimed: u128 = self.voters.iter().map(|voter| voter.power).sum();
        let remaining: u128 = self.voters.iter().filter(holds).map(|voter| voter.power).sum();
        if claimed <= self.total && remaining * 3 > self.total * 2 {
            return Verdict::Safe;
        }
        let message = format!(
            "the database of {name} is not given up: without it, power {remaining} of {} is in sync at height {height} or above, more than two thirds are needed",
            self.total
        );
        Verdict::NotNow(Reason::new("WaitingForQuorum", message))
    }

    /// Whether this node may leave the validator set for good: what remains has a quorum of its own in sync.
    pub fn may_leave(&self, name: &str) -> Verdict {
        let power = self.voters.iter().filter(|voter| voter.name == name).map(|voter| voter.power).sum();
        let others = self.voters.iter().filter(|voter| voter.name != name && voter.standing == Standing::InSync);
        let in_sync: u128 = others.map(|voter| voter.power).sum();
        let total = self.total.saturating_sub(power);
        if in_sync * 3 > total * 2 {
            return Verdict::Safe;
        }
        let message = format!(
            "without {name}, power {in_sync} of {total} would be in sync, more than two thirds are needed; it leaves when that is so"
        );
        Verdict::NotNow(Reason::new("WaitingForQuorum", message))
    }

    /// Whether this node may be taken down now.
    pub fn may_go(&self, name: &str) -> Verdict {
        let Some(candidate) = self.voters.iter().find(|voter| voter.name == name) else {
            return Verdict::NotNow(Reason::new("WaitingForQuorum", format!("nothing is known of {name}")));
        };
        if candidate.standing == Standing::NotVoting {
            return Verdict::Safe;
        }
        let claimed: u128 = self.voters.iter().map(|voter| voter.power).sum();
        if claimed > self.total {
            let message = format!(
                "the nodes claim power {claimed} together, but the validator set has {}: one of them is wrong about its own",
                self.total
            );
            return Verdict::NotNow(Reason::new("PowersContradict", message));
        }
        let others = self.voters.iter().filter(|voter| voter.name != name);
        let (in_sync, out): (Vec<&Voter>, Vec<&Voter>) = others.partition(|voter| voter.standing == Standing::InSync);
        let remaining: u128 = in_sync.iter().map(|voter| voter.power).sum();
        if remaining * 3 > self.total * 2 {
            return Verdict::Safe;
        }
        if candidate.power * 3 >= self.total {
            let message = format!(
                "{name} has power {} of {}: no quorum remains while it restarts, and no block is finalised meanwhile",
                candidate.power, self.total
            );
            return Verdict::Never(Reason::new("WouldBreakQuorum", message));
        }
        let out: Vec<&str> = out.iter().filter(|voter| voter.power > 0).map(|voter| voter.name.as_str()).collect();
        let message = format!(
            "without {name}, power {remaining} of {} would be in sync, more than two thirds are needed; waiting for {}",
            self.total,
            out.join(", ")
        );
        Verdict::NotNow(Reason::new("WaitingForQuorum", message))
    }
}

/// The height that nodes with more than a third of the power have reached: one node alone cannot make others look late.
fn head(voters: &[Voter]) -> u64 {
    let mut in_sync: Vec<(u64, u128)> = voters
        .iter()
        .filter(|voter| voter.standing == Standing::InSync)
        .map(|voter| (voter.height, voter.power))
        .collect();
    in_sync.sort_unstable_by(|left, right| right.cmp(left));
    let total: u128 = in_sync.iter().map(|(_, power)| power).sum();
    let mut reached = 0;
    for (height, power) in in_sync {
        reached += power;
        if reached * 3 > total {
            return height;
        }
    }
    0
}

/// What a node does for the quorum, by its kubelet's word and its own. That it is fenced it must be told and say: its word
/// may be older than the order to let it go.
pub fn standing(node: &BizraNode, pod: Option<&Pod>, word: Option<&Word>) -> Standing {
    let Some(pod) = pod.filter(|pod| container_runs(pod)) else { return Standing::NotVoting };
    match word {
        Some(Word::Status(said)) if never_votes(said) => Standing::NotVoting,
        Some(Word::Status(said)) if said.signing_state() == SigningState::Fenced && is_told_to_be_fenced(node) => {
            Standing::NotVoting
        }
        Some(Word::Status(said)) if pod.metadata.deletion_timestamp.is_none() && votes_in_sync(said) => {
            Standing::InSync
        }
        _ => Standing::Unknown,
    }
}

/// By its spec, or for its jailed key: that fence is never lifted, so it is known from the status, too.
fn is_told_to_be_fenced(node: &BizraNode) -> bool {
    let told = node.status.as_ref().and_then(|status| find(&status.conditions, condition::FENCED));
    node.spec.signing == Signing::Fenced || told.is_some_and(|told| told.status == "True" && told.reason == "Jailed")
}

/// True of a node that has said itself that it has no power: only such a one is repaired without a permit.
pub fn is_full_node(node: &BizraNode) -> bool {
    node.status.as_ref().and_then(|status| status.power.as_deref()) == Some("0")
}

/// True of a node that has no power by any word and awaits no repair, and does not run or says itself that it does not vote: what
/// more there is to read of its pod changes nothing for the others.
pub fn is_bystander(node: &BizraNode, seen: &Sighting, word: &Word) -> bool {
    let says_so = matches!(word, Word::Status(said) if never_votes(said) && said.power == 0);
    let awaits_repair = node.status.as_ref().is_some_and(|status| status.repair.is_some());
    (!seen.runs || says_so) && !has_power(node) && !awaits_repair
}

/// True of a node that had power when it last said.
pub fn has_power(node: &BizraNode) -> bool {
    node.status.as_ref().and_then(|status| status.power.as_deref()).is_some_and(|power| power != "0")
}

/// True of a node in whose place another one validates: its key has no power any more.
pub fn is_replaced(node: &BizraNode) -> bool {
    node.status.as_ref().is_some_and(|status| is_true(&status.conditions, condition::REPLACED))
}

fn never_votes(said: &NodeStatus) -> bool {
    match said.signing_state() {
        // Before its storage is open a node does not know yet.
        SigningState::NotAValidator => said.total_power > 0,
        SigningState::Refused => true,
        SigningState::Allowed | SigningState::Locked | SigningState::Fenced | SigningState::Unspecified => false,
    }
}

fn votes_in_sync(said: &NodeStatus) -> bool {
    said.sync_state() == SyncState::InSync && said.signing_state() == SigningState::Allowed
}

/// True if the node's container runs, as far as its kubelet says.
pub fn container_runs(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().any(|container| {
        container.name == pod::NODE_CONTAINER && container.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
