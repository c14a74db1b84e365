//! What to do next for a network. Pure and total.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::json;

use super::{
    authorities::{self, Decision},
    ceremony::{self, Ceremony, assess},
    membership::{self, Membership},
    observe::Observed,
    owners, placement,
    roll::{self, Progress, Roll},
};
use crate::{
    api::{Activity, BizraNode, DeletionPolicy, ImageSpec, Jailing, Network, NetworkPolicyMode, Reconciliation},
    certificates,
    controllers::{
        ReconcileError,
        conditions::Reason,
        jailings,
        key_report::{self, KeyReading},
        ownership::{Ownership, ownership},
        quorum::{self, Census, Freshness},
    },
    kubernetes::{Manifest, Write, named, needs_apply},
    planted::{self, Bug},
    resources::{budget, config_map, genesis, labels, names, network_policy, node as node_builder, service},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A write to the API server, and what to tell people when it is done.
    Write(Box<Write>, Option<Reason>),
    /// Make the certificate authority of this generation and keep it in its Secret, unless there is one.
    CreateAuthority {
        /// The how manyth it is.
        generation: u32,
    },
    /// Make the seed of the owners and keep it in its Secret, unless there is one.
    CreateOwners,
    /// Sign these requests as was decided, and publish certificates and authorities.
    IssueCertificates {
        /// Requests by node name.
        requests: BTreeMap<String, String>,
        /// Nodes whose present certificates stay.
        keep: Vec<String>,
    },
}

/// What to do, and what was found on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What somebody has to change.
    pub stalled: Option<Reason>,
    /// What will pass.
    pub waiting: Option<Reason>,
    /// Where the ceremony is.
    pub ceremony: Ceremony,
    /// Which validators there are to be now.
    pub membership: Membership,
    /// The rolling change; none if nothing was decided.
    pub roll: Option<Roll>,
    /// Why nothing is changed, if somebody has ordered that.
    pub paused: Option<Reason>,
    /// Why there are no pods, or soon will be none, if somebody has ordered that.
    pub hibernated: Option<Reason>,
    /// Who signs and who is trusted.
    pub authorities: Decision,
    /// Validators that are jailed, or were and may still matter.
    pub jailings: Vec<Jailing>,
    /// Which hosts or zones the chain cannot do without, if there are such.
    pub concentration: Option<Reason>,
}

impl Plan {
    /// True if something in it cannot be taken back: a genesis, what a node is to be, a permit and what becomes of it, a
    /// deletion; or if people would be told to act.
    pub fn needs_live_reads(&self, network: &Network) -> bool {
        let cannot_be_taken_back = |step: &Step| match step {
            Step::Write(write, _) => write.removes() || write.target().kind() == "BizraNode",
            Step::CreateAuthority { .. } | Step::CreateOwners => true,
            Step::IssueCertificates { .. } => false,
        };
        let status = network.status.as_ref();
        let roll = self.roll.as_ref();
        network.metadata.deletion_timestamp.is_some()
            || matches!(self.ceremony, Ceremony::Compose(_) | Ceremony::Stalled(_))
            || self.steps.iter().any(cannot_be_taken_back)
            || roll.and_then(|roll| roll.permit.as_ref()) != status.and_then(|status| status.permit.as_ref())
            || roll.and_then(|roll| roll.failed.as_ref()) != status.and_then(|status| status.failed_revision.as_ref())
    }
}

/// Makes the plan.
pub fn plan(network: &Network, observed: &Observed, default_image: &ImageSpec) -> Result<Plan, ReconcileError> {
    let now_milliseconds = u64::try_from(observed.now.as_millisecond()).unwrap_or(0);
    let seed = observed.owners.as_ref().map(owners::seed).transpose();
    let ceremony = match &seed {
        Err(reason) if observed.genesis.is_none() => Ceremony::Stalled(reason.clone()),
        _ => {
            let (genesis, seed) = (observed.genesis.as_ref(), seed.as_ref().ok().and_then(Option::as_ref));
            assess(network, genesis, &observed.pods, &observed.claims, seed, now_milliseconds)
        }
    };
    let census = census(network, observed, &ceremony);
    let mut planner = Planner {
        network,
        observed,
        name: network.name_any(),
        namespace: network.namespace().unwrap_or_default(),
        plan: Plan {
            steps: Vec::new(),
            stalled: None,
            waiting: None,
            membership: membership::decide(network, observed, &ceremony, census.as_ref()),
            ceremony,
            roll: None,
            paused: None,
            hibernated: None,
            authorities: authorities::decide(network, observed),
            jailings: jailings::known(network, observed),
            concentration: None,
        },
    };
    if network.metadata.deletion_timestamp.is_some() {
        planner.clean_up();
    } else {
        planner.plan.concentration =
            census.as_ref().and_then(|census| placement::concentration(census, &observed.pods));
        planner.run(default_image, census.as_ref())?;
        planner.hibernate();
        planner.pause();
    }
    Ok(planner.plan)
}

/// Who votes; none without a chain.
fn census(network: &Network, observed: &Observed, ceremony: &Ceremony) -> Option<Census> {
    let Ceremony::Done { genesis, .. } = ceremony else { return None };
    let name = network.name_any();
    let nodes: Vec<&BizraNode> = observed.nodes.iter().filter(|node| node.spec.network_ref.name == name).collect();
    Some(Census::take(Some(genesis), &nodes, &observed.pods, &observed.words, Freshness::Polled))
}

struct Planner<'a> {
    network: &'a Network,
    observed: &'a Observed,
    name: String,
    namespace: String,
    plan: Plan,
}

impl Planner<'_> {
    fn write(&mut self, write: Write, event: Option<Reason>) {
        self.plan.steps.push(Step::Write(Box::new(write), event));
    }

    /// The pods are ended by the controllers of their nodes.
    fn hibernate(&mut self) {
        if self.network.spec.activity == Activity::Hibernated {
            self.plan.hibernated = Some(match self.observed.pods_left() {
                0 => Reason::new(
                    "Hibernated",
                    "there are no pods; volumes, keys and genesis are kept; set spec.activity to Running to go on",
                ),
                left => Reason::new("Hibernating", format!("{left} pods are ending")),
            });
        }
    }

    /// Everything was judged as ever, to be reported; nothing of it is done. What the status holds of a rolling change stays.
    fn pause(&mut self) {
        if self.network.spec.reconciliation == Reconciliation::Paused {
            let message = format!(
                "spec.reconciliation is Paused: the operator changes nothing of this network, and renews no certificate; changes that wait: {}",
                self.plan.steps.len()
            );
            self.plan.paused = Some(Reason::new("Paused", message));
            self.plan.steps.clear();
            self.plan.roll = None;
        }
    }

    fn has_finalizer(&self) -> bool {
        self.network.finalizers().iter().any(|finalizer| finalizer == labels::DATA_FINALIZER)
    }

    fn set_finalizer(&mut self, wanted: bool) {
        let mut finalizers = self.network.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != labels::DATA_FINALIZER);
        if wanted {
            finalizers.push(labels::DATA_FINALIZER.to_owned());
        }
        self.write(Write::merge(self.network, json!({"metadata": {"finalizers": finalizers}})), None);
    }

    /// Deletes the data if that is the policy. It only deletes, so it works in a terminating namespace, and it waits
    /// for nobody: Kubernetes keeps a claim until no pod uses it.
    fn clean_up(&mut self) {
        if !self.has_finalizer() {
            return;
        }
        if self.network.spec.deletion_policy == DeletionPolicy::Delete {
            let observed = self.observed;
            // Nodes first, lest one makes a new volume.
            let nodes = observed.nodes.iter().filter(|node| node.spec.network_ref.name == self.name);
            let nodes: Vec<&BizraNode> = nodes.filter(|node| node.metadata.deletion_timestamp.is_none()).collect();
            for node in nodes {
                if ownership(&node.metadata, self.network) == Ownership::Ours {
                    self.write(Write::delete(node), None);
                }
            }
            for claim in observed.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
                self.write(Write::delete(claim), None);
            }
            if let Some(genesis) = &observed.genesis {
                self.write(Write::delete(genesis), None);
            }
            if let Some(owners) = &observed.owners {
                self.write(Write::delete(owners), None);
            }
            if planted::is(Bug::FinalizerKept) && self.plan.steps.is_empty() {
                return;
            }
        }
        self.set_finalizer(false);
    }

    fn run(&mut self, default_image: &ImageSpec, census: Option<&Census>) -> Result<(), ReconcileError> {
        let wants_finalizer = self.network.spec.deletion_policy == DeletionPolicy::Delete;
        if wants_finalizer != self.has_finalizer() {
            self.set_finalizer(wants_finalizer);
            // The patch changes the Network, so everything else waits for a fresh look.
            return Ok(());
        }
        if let Ceremony::Stalled(reason) = &self.plan.ceremony {
            self.plan.stalled = Some(reason.clone());
            return Ok(());
        }
        if let Some(unreadable) = &self.observed.unreadable_authority {
            self.plan.stalled = Some(Reason::new("AuthorityUnreadable", unreadable.clone()));
            return Ok(());
        }
        if let Some(generation) = self.plan.authorities.create {
            self.plan.steps.push(Step::CreateAuthority { generation });
        }
        if self.observed.genesis.is_none() && self.observed.owners.is_none() {
            self.plan.steps.push(Step::CreateOwners);
        }
        self.services()?;
        self.budget()?;
        // Before the first node, which is then never without it.
        self.policy()?;
        self.nodes(default_image, census)?;
        self.validators()?;
        if self.plan.stalled.is_none() {
            self.ceremony()?;
            self.certificates();
            // Last: a stopped roll-out keeps nothing else from being done.
            if let Some(Roll { progress: Progress::Stalled(reason), .. }) = &self.plan.roll {
                self.plan.stalled = Some(reason.clone());
            }
            if self.plan.stalled.is_none() && self.is_closed_off() {
                let unsound = network_policy::unsound(self.network);
                self.plan.stalled = unsound.map(|message| Reason::new("InvalidNetworkPolicyPeer", message));
            }
            if self.plan.stalled.is_none() {
                self.plan.stalled = jailings::standstill(self.network, &self.plan.jailings);
            }
        }
        Ok(())
    }

    fn is_closed_off(&self) -> bool {
        self.network.spec.network_policy.mode == NetworkPolicyMode::DefaultDeny
    }

    /// False, with the reason noted, if an object of this name is not ours.
    fn may_have(&mut self, metadata: Option<&kube::api::ObjectMeta>, kind: &str, name: &str) -> bool {
        match metadata.map(|metadata| ownership(metadata, self.network)) {
            None | Some(Ownership::Ours) => true,
            Some(Ownership::Former) => {
                let message = format!("{kind} {name} of the former Network is being removed");
                self.plan.waiting = Some(Reason::new("FormerTerminating", message));
                false
            }
            Some(Ownership::Foreign) => {
                let message =
                    format!("{kind} {name} belongs to somebody else; delete or rename it, or rename the Network");
                self.plan.stalled = Some(Reason::new("NameTaken", message));
                false
            }
        }
    }

    fn services(&mut self) -> Result<(), ReconcileError> {
        let observed = self.observed;
        let wanted = [
            (&observed.nodes_service, service::nodes(self.network, &self.name, &self.namespace)),
            (&observed.api_service, service::api(self.network, &self.name, &self.namespace)),
        ];
        for (live, desired) in wanted {
            if planted::is(Bug::ServiceOnce) && live.is_some() {
                continue;
            }
            if self.may_have(live.as_ref().map(|live| &live.metadata), "Service", &desired.name_any())
                && let Some(write) = needs_apply(live.as_ref(), &desired)?
            {
                self.write(write, None);
            }
        }
        Ok(())
    }

    fn budget(&mut self) -> Result<(), ReconcileError> {
        // Its pods are those of our validators, and of whoever came to vote later. One of ours that does not vote yet is one of them; whoever
        // took a validator's place is counted for itself.
        let find = |name: &String| named(&self.observed.nodes, name);
        let is_there = |name: &&String| !find(name).is_some_and(quorum::is_replaced);
        let power = |name: &String| ceremony::power(&self.plan.ceremony, name, find(name));
        let nodes = &self.plan.membership.nodes;
        let mut powers: Vec<u64> = nodes.iter().filter(is_there).map(power).collect();
        let others = self.observed.nodes.iter().filter(|node| {
            let is_other = !nodes.contains(&node.name_any()) && !quorum::is_replaced(node);
            node.spec.network_ref.name == self.name && is_other
        });
        let power = |node: &BizraNode| node.status.as_ref()?.power.as_ref()?.parse::<u64>().ok();
        powers.extend(others.filter_map(power).filter(|power| *power > 0));
        let live = self.observed.budget.as_ref();
        let desired = budget::disruption_budget(self.network, &self.name, &self.namespace, &powers);
        if self.may_have(live.map(|live| &live.metadata), "PodDisruptionBudget", &desired.name_any())
            && let Some(write) = needs_apply(live, &desired)?
        {
            self.write(write, None);
        }
        Ok(())
    }

    fn policy(&mut self) -> Result<(), ReconcileError> {
        let live = self.observed.policy.as_ref();
        let name = names::network_policy(&self.name);
        if !self.is_closed_off() {
            // Somebody else's policy of this name may stay.
            if let Some(live) = live.filter(|live| {
                ownership(&live.metadata, self.network) == Ownership::Ours && live.metadata.deletion_timestamp.is_none()
            }) {
                self.write(Write::delete(live), None);
            }
            return Ok(());
        }
        if !self.may_have(live.map(|live| &live.metadata), "NetworkPolicy", &name) {
            return Ok(());
        }
        let operator = &self.observed.operator_namespace;
        let desired = network_policy::network_policy(self.network, &self.name, &self.namespace, operator);
        // Not only what is asked for: anything besides would let something through.
        let same = live.is_some_and(|live| live.spec == desired.spec);
        let write = if same { needs_apply(live, &desired)? } else { needs_apply(None, &desired)? };
        if let Some(write) = write {
            self.write(write, None);
        }
        Ok(())
    }

    fn nodes(&mut self, default_image: &ImageSpec, census: Option<&Census>) -> Result<(), ReconcileError> {
        let observed = self.observed;
        // The image of the operator that made a network stays its image: a new operator restarts nobody.
        let ours = observed.nodes.iter().filter(|node| ownership(&node.metadata, self.network) == Ownership::Ours);
        let default_image = node_builder::settled_image(ours).unwrap_or_else(|| default_image.clone());
        let template = node_builder::template(self.network, &default_image);
        let standstill = jailings::standstill(self.network, &self.plan.jailings);
        let nodes = self.plan.membership.nodes.clone();
        let roll = roll::decide(self.network, observed, census, &nodes, standstill.as_ref(), template)?;
        for name in nodes {
            let live = named(&observed.nodes, &name);
            if !self.may_have(live.map(|live| &live.metadata), "BizraNode", &name)
                || live.is_some_and(|live| live.metadata.deletion_timestamp.is_some())
            {
                continue;
            }
            let desired = node_builder::validator(
                self.network,
                &self.name,
                &self.namespace,
                &name,
                roll.template(&name).clone(),
                &default_image,
            )?;
            if let Some(write) = needs_apply(live, &desired)? {
                let event =
                    live.is_none().then(|| Reason::new("ValidatorCreated", format!("created BizraNode {name}")));
                self.write(write, event);
            }
        }
        self.plan.roll = Some(roll);
        let goes = self.plan.membership.goes.as_ref();
        let goes = goes.and_then(|goes| named(&observed.nodes, goes));
        if let Some(node) = goes.filter(|node| node.metadata.deletion_timestamp.is_none()) {
            let message =
                format!("deleting BizraNode {}, which is no validator any more; its volume stays", node.name_any());
            self.write(Write::delete(node), Some(Reason::new("ValidatorRetired", message)));
        }
        Ok(())
    }

    /// Whatever else people write into one of our Validators stays: it is how they give it more stake, or another node.
    fn validators(&mut self) -> Result<(), ReconcileError> {
        let Ceremony::Done { genesis, .. } = &self.plan.ceremony else { return Ok(()) };
        let (parameters, observed) = (genesis.parameters, self.observed);
        let find = |name: &str| named(&observed.validators, name);
        for name in self.plan.membership.validators.clone() {
            let live = find(&name);
            if self.may_have(live.map(|live| &live.metadata), "Validator", &name) && live.is_none() {
                let validator = owners::validator(self.network, &name, &parameters);
                let event = Reason::new("ValidatorAppointed", format!("created Validator {name}"));
                self.write(Write::Create(Manifest::of(&validator)?), Some(event));
            }
        }
        if let Some(validator) = self.plan.membership.leaves.as_deref().and_then(find) {
            let message =
                format!("deleting Validator {}: it leaves the chain, and its stake is paid back", validator.name_any());
            self.write(Write::delete(validator), Some(Reason::new("ValidatorLeaves", message)));
        }
        if self.plan.waiting.is_none() {
            self.plan.waiting.clone_from(&self.plan.membership.waiting);
        }
        Ok(())
    }

    fn ceremony(&mut self) -> Result<(), ReconcileError> {
        if let Ceremony::Compose(genesis) = &self.plan.ceremony {
            let config_map = genesis::config_map(&self.name, &self.namespace, genesis)?;
            let message = format!(
                "made the genesis of chain {} from the keys of {} validators",
                genesis.chain_id,
                genesis.validators.len()
            );
            self.write(Write::Create(Manifest::of(&config_map)?), Some(Reason::new("GenesisCreated", message)));
        }
        Ok(())
    }

    fn certificates(&mut self) {
        // One publication for all at the end of the ceremony, not one for each report.
        if matches!(self.plan.ceremony, Ceremony::Waiting(_)) {
            return;
        }
        let Some(issuer) = self.plan.authorities.issuer.clone() else { return };
        let live = self.observed.certificates.as_ref();
        if !self.may_have(live.map(|live| &live.metadata), "ConfigMap", &names::certificates(&self.name)) {
            return;
        }
        if planted::is(Bug::CertificatesOnce) && live.is_none() && !matches!(self.plan.ceremony, Ceremony::Compose(_)) {
            return;
        }
        let data = live.and_then(|live| live.data.as_ref());
        let now = u64::try_from(self.observed.now.as_second()).unwrap_or(0);
        let lifetime = self.network.spec.certificates.node_lifetime();
        let part = |key: &str| data.and_then(|data| data.get(key)).map(String::as_str);
        let (nodes, operators) = self.plan.authorities.bundles();
        let same_authorities =
            part(config_map::AUTHORITY) == Some(&nodes) && part(config_map::OPERATOR_AUTHORITY) == Some(&operators);

        let mut requests = BTreeMap::new();
        let mut keep = Vec::new();
        let mine: Vec<&BizraNode> =
            self.observed.nodes.iter().filter(|node| node.spec.network_ref.name == self.name).collect();
        for node in &mine {
            let name = node.name_any();
            let Some(request) = self.request_of(node) else { continue };
            let current = part(&config_map::certificate_key(&name)).and_then(certificates::inspect);
            let current = current.filter(|facts| authorities::is_signed_by(facts, &issuer.authority));
            if certificates::needs_issue(current.as_ref(), &request, lifetime, now) {
                requests.insert(name, request);
            } else if current.is_some() {
                keep.push(name);
            }
        }
        // Of a node that is gone; a pool scaled up and down would otherwise fill the object with them.
        let mut certified = data.into_iter().flat_map(BTreeMap::keys).filter_map(|key| key.strip_suffix(".crt"));
        let of_nobody = certified
            .any(|name| !matches!(name, "ca" | "operator-ca") && !mine.iter().any(|node| node.name_any() == name));
        if !requests.is_empty() || of_nobody || (live.is_some() && !same_authorities) {
            self.plan.steps.push(Step::IssueCertificates { requests, keep });
        }
        self.retire();
    }

    /// Deletes authorities that nobody is told to trust any more.
    fn retire(&mut self) {
        let publishes = |step: &Step| matches!(step, Step::IssueCertificates { .. });
        if planted::is(Bug::AuthorityKept) && !self.plan.steps.iter().any(publishes) {
            return;
        }
        for kept in self.plan.authorities.retired.clone() {
            let message = format!(
                "authority {} is trusted no more; every node has a certificate of its successor's",
                kept.generation
            );
            self.write(Write::delete(&kept.secret), Some(Reason::new("AuthorityRetired", message)));
        }
    }

    /// A node's signing request: what its pod reports now, or else what its status has kept.
    fn request_of(&self, node: &BizraNode) -> Option<String> {
        let name = node.name_any();
        let claim = named(&self.observed.claims, &names::claim(&name));
        let pod = named(&self.observed.pods, &name);
        if let (Some(pod), Some(volume_id)) = (pod, claim.and_then(kube::ResourceExt::uid))
            && let KeyReading::Reported(report) = key_report::read(pod, &volume_id, &self.network.spec.chain_id)
        {
            return Some(report.certificate_request.clone());
        }
        node.status.as_ref().and_then(|status| status.certificate_request.clone())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
