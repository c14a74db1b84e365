//! The shipped functions, called with real objects made of the small ones of [`super::world`], and what they answer made
//! small again. They are pure, so an answer is kept and given again.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Mutex,
};

use bizra_proto::v1::{NodeStatus, SigningState, SyncState};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;
use serde_json::json;

use super::world::{Age, Failed, Granted, Held, Image, Life, NODES, NetworkObject, NodeObject, PodObject, Told, Which};
use crate::{
    api::{BizraNode, BizraNodeStatus, FailedRevision, Network, NetworkStatus, Permit, condition},
    controllers::{
        bizra_node::{
            act::{is_held, judge},
            plan::Leave,
            {self},
        },
        conditions::{Conditions, Reason, Truth, find, is_true},
        fixtures,
        network::{self, plan::Step},
    },
    kubernetes::{Manifest, Write},
    probe::Word,
    resources::{labels, names, pod, revision},
};

/// Nodes as the API server has them.
pub(super) type Nodes = [Option<NodeObject>; NODES];
/// Pods as the API server has them, with what their nodes say.
pub(super) type Pods = [Option<PodObject>; NODES];

/// What protects a quorum, and can be left out to see that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// A node that does not answer is not in sync.
    SilenceIsUnknown,
    /// The permit is read once more before it is used.
    ReadBack,
    /// Every node is asked once more before a permit is used.
    Asking,
    /// The disruption budget.
    Budget,
    /// A status is only written over the one it was judged from.
    CompareAndSwap,
    /// What needs no permit is only evicted as it was found.
    Version,
}

/// What a Network's reconciliation would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkPlan {
    pub templates: Vec<(usize, Image)>,
    pub held: Held,
    /// Reason of the condition `Stalled`, if it is true.
    pub stalled: Option<String>,
}

/// The eviction that a node's plan asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    NotNeeded { bound: bool },
    Granted(Granted),
}

/// What a node's reconciliation would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodePlan {
    pub create: Option<Image>,
    pub leaving: Option<Leaving>,
    pub told: Told,
}

/// The shipped operator.
pub(super) struct Shipped {
    /// Power of each validator on the chain.
    pub powers: [u64; NODES],
    without: Vec<Guard>,
    genesis: ConfigMap,
    claims: Vec<PersistentVolumeClaim>,
    nodes: BTreeMap<(usize, Image), BizraNode>,
    pods: BTreeMap<(usize, Image), Pod>,
    revisions: BTreeMap<Image, String>,
    /// What the disruption budget asks for.
    pub least_available: usize,
    network_plans: Memory<(NetworkObject, Nodes, Pods), NetworkPlan>,
    node_plans: Memory<(usize, bool, NodeObject, NetworkObject, Option<PodObject>), NodePlan>,
    verdicts: Memory<(Granted, Nodes, Pods), bool>,
}

/// Answers by question.
struct Memory<K, V>(Mutex<HashMap<K, V>>);

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn recall(&self, question: K, answer: impl FnOnce(&K) -> V) -> V {
        if let Some(known) = self.0.lock().unwrap().get(&question) {
            return known.clone();
        }
        let answer = answer(&question);
        self.0.lock().unwrap().insert(question, answer.clone());
        answer
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// As poller and API server knew it last.
pub(super) fn polled(pods: &Pods) -> Pods {
    let seen = |pod: PodObject| match pod.life {
        Life::Down => pod,
        Life::Behind | Life::InSync if pod.seems_in_sync => PodObject { life: Life::InSync, ..pod },
        Life::Behind | Life::InSync => PodObject { life: Life::Behind, ..pod },
    };
    pods.map(|pod| pod.map(seen))
}

/// As the nodes answer now.
pub(super) fn asked(pods: &Pods) -> Pods {
    pods.map(|pod| pod.map(|pod| PodObject { seems_in_sync: pod.life == Life::InSync, ..pod }))
}

fn tag(image: Image) -> String {
    format!("{image:?}").to_lowercase()
}

fn image(reference: &str) -> Image {
    Image::ALL.into_iter().find(|image| reference.ends_with(&format!(":{}", tag(*image)))).unwrap()
}

fn ordinal(name: &str) -> usize {
    (0..NODES).find(|ordinal| names::validator("demo", *ordinal as i32) == name).unwrap()
}

/// The uid of a node's `BizraNode`: the one that is there, or any former one.
fn node_uid(node: usize, ours: bool) -> String {
    format!("{}-{node}", if ours { "node" } else { "former-node" })
}

impl Shipped {
    /// With validators of these powers on the chain (the genesis gave each the same), and without these guards.
    pub(super) fn new(powers: [u64; NODES], without: &[Guard]) -> Self {
        let reports: Vec<_> = (1..=NODES as u8).map(|seed| fixtures::report(seed, "demo-1", None)).collect();
        let mut shipped = Self {
            powers,
            without: without.to_vec(),
            genesis: fixtures::genesis_map(&reports),
            claims: (0..NODES as i32).map(fixtures::claim_of).collect(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            revisions: BTreeMap::new(),
            least_available: 0,
            network_plans: Memory::new(),
            node_plans: Memory::new(),
            verdicts: Memory::new(),
        };
        for image in Image::ALL {
            shipped.prepare(image);
        }
        shipped
    }

    /// Lets the shipped plans make the objects of an image.
    fn prepare(&mut self, image: Image) {
        let network = self.network(&NetworkObject { spec: image, held: Held::default() });
        let observed = self.observed(&[None; NODES], &[None; NODES]);
        let plan = network::plan::plan(&network, &observed, &fixtures::default_image()).unwrap();
        for step in plan.steps {
            let Step::Write(write, _) = step else { continue };
            let Write::Apply(Manifest { target, .. }) = write.as_ref() else { continue };
            match target.kind() {
                "BizraNode" => {
                    let node: BizraNode = fixtures::written(&write);
                    self.revisions.insert(image, revision::of_template(&node.spec.template).unwrap());
                    self.nodes.insert((ordinal(&node.name_any()), image), node);
                }
                "PodDisruptionBudget" => {
                    let budget: PodDisruptionBudget = fixtures::written(&write);
                    let Some(IntOrString::Int(least)) = budget.spec.unwrap().min_available else {
                        panic!("no integer")
                    };
                    self.least_available = usize::try_from(least).unwrap();
                }
                _ => {}
            }
        }
        for node in 0..NODES {
            let object = self.node(node, true, &NodeObject { image, told: Told::Nothing });
            let observed = self.observed_by_node(node, &network, None);
            let plan = bizra_node::plan::plan(&object, &observed, &fixtures::default_image()).unwrap();
            let create = plan.steps.iter().find(|step| matches!(&step.write, Write::Create(_))).unwrap();
            self.pods.insert((node, image), fixtures::written(&create.write));
        }
    }

    pub(super) fn has(&self, guard: Guard) -> bool {
        !self.without.contains(&guard)
    }

    /// Different questions asked of the shipped functions.
    pub(super) fn questions(&self) -> usize {
        self.network_plans.len() + self.node_plans.len() + self.verdicts.len()
    }

    /// True if more than two thirds of the power vote in truth, this node aside.
    pub(super) fn quorum_votes(&self, pods: &Pods, aside: Option<usize>) -> bool {
        let voting = (0..NODES).filter(|node| Some(*node) != aside && pods[*node].is_some_and(PodObject::votes));
        voting.map(|node| self.powers[node]).sum::<u64>() * 3 > self.powers.iter().sum::<u64>() * 2
    }

    /// True if the disruption budget lets this pod be evicted: it counts pods that are ready, and protects no other.
    pub(super) fn budget_allows(&self, pods: &Pods, node: usize) -> bool {
        let ready = pods.iter().flatten().filter(|pod| pod.is_ready()).count();
        let is_protected = pods[node].is_some_and(PodObject::is_ready);
        !self.has(Guard::Budget) || !is_protected || ready > self.least_available
    }

    /// `network::plan` and `network::report`.
    pub(super) fn plan_network(&self, seen: &NetworkObject, nodes: &Nodes, pods: &Pods) -> NetworkPlan {
        self.network_plans.recall((*seen, *nodes, polled(pods)), |(seen, nodes, pods)| {
            let network = self.network(seen);
            let observed = self.observed(nodes, pods);
            let plan = network::plan::plan(&network, &observed, &fixtures::default_image()).unwrap();
            let mut templates = Vec::new();
            for step in &plan.steps {
                let Step::Write(write, _) = step else { continue };
                match write.as_ref() {
                    Write::Apply(manifest) if manifest.target.kind() == "BizraNode" => {
                        let node: BizraNode = fixtures::written(write);
                        let image = self.image_of(&revision::of_template(&node.spec.template).unwrap());
                        templates.push((ordinal(manifest.target.name()), image));
                    }
                    // Services and the like change nothing here.
                    Write::Apply(manifest) if manifest.target.kind() != "Pod" => {}
                    other => panic!("not modelled: {}", other.describe()),
                }
            }
            let status = network::report::status(&network, &observed, &plan, None);
            let stalled = find(&status.conditions, condition::STALLED).filter(|stalled| stalled.status == "True");
            let held = Held {
                good: status.good_revision.as_deref().map(|revision| self.image_of(revision)),
                permit: status.permit.as_ref().map(|permit| self.granted(permit)),
                failed: status.failed_revision.as_ref().map(|failed| Failed {
                    revision: self.image_of(&failed.revision),
                    node: ordinal(&failed.node),
                    back_to: failed.rolled_back_to.as_deref().map(|revision| self.image_of(revision)),
                }),
            };
            NetworkPlan { templates, held, stalled: stalled.map(|stalled| stalled.reason.clone()) }
        })
    }

    /// `bizra_node::plan` and `bizra_node::report`. `ours`: by the `BizraNode` that is there now.
    pub(super) fn plan_node(
        &self,
        node: usize,
        ours: bool,
        object: &NodeObject,
        seen: &NetworkObject,
        pods: &Pods,
    ) -> NodePlan {
        let question = (node, ours, *object, *seen, polled(pods)[node]);
        self.node_plans.recall(question, |(node, ours, object, seen, pod)| {
            let network = self.network(seen);
            let live = self.node(*node, *ours, object);
            let observed = self.observed_by_node(*node, &network, pod.as_ref());
            let plan = bizra_node::plan::plan(&live, &observed, &fixtures::default_image()).unwrap();
            let mut create = None;
            for step in &plan.steps {
                match &step.write {
                    Write::Create(manifest) if manifest.target.kind() == "Pod" => {
                        let made: Pod = fixtures::written(&step.write);
                        create = Some(image(pod::image(&made).unwrap()));
                    }
                    // The configuration, and what is noted on volume and pod.
                    Write::Apply(_) | Write::Merge { .. } => {}
                    other => panic!("not modelled: {}", other.describe()),
                }
            }
            let leaving = plan.eviction.as_ref().and_then(|(write, leave)| {
                let Write::Evict { resource_version, .. } = write else { panic!("not modelled: {}", write.describe()) };
                match leave {
                    Leave::Missing => None,
                    Leave::NotNeeded => Some(Leaving::NotNeeded { bound: self.bound(resource_version.as_ref()) }),
                    Leave::Granted(permit) => Some(Leaving::Granted(self.granted(permit))),
                }
            });
            let status = bizra_node::report::status(&live, &observed, &plan, None);
            let made = self.pods[&(*node, object.image)].annotations().get(labels::REVISION);
            assert!(
                status.revision.is_none() || status.revision.as_ref() == made,
                "a pod depends on more than its image"
            );
            let told = Told::Current {
                revision: status.revision.is_some(),
                ready: is_true(&status.conditions, condition::READY),
            };
            NodePlan { create, leaving, told }
        })
    }

    /// `bizra_node::act::is_held`.
    pub(super) fn is_held(&self, live: &NetworkObject, permit: &Granted) -> bool {
        is_held(&self.network(live), &self.permit(permit), fixtures::now())
    }

    /// `bizra_node::act::judge`.
    pub(super) fn may_go(&self, live: &NetworkObject, permit: &Granted, nodes: &Nodes, pods: &Pods) -> bool {
        self.verdicts.recall((*permit, *nodes, asked(pods)), |(permit, nodes, pods)| {
            let observed = self.observed(nodes, pods);
            judge(
                &self.network(live),
                &self.permit(permit),
                observed.genesis.as_ref(),
                &observed.nodes,
                &observed.pods,
                &observed.words,
            )
            .is_ok()
        })
    }

    /// Whether an eviction demands that its pod is as it was found.
    fn bound(&self, resource_version: Option<&String>) -> bool {
        resource_version.is_some() && self.has(Guard::Version)
    }

    fn image_of(&self, revision: &str) -> Image {
        *self.revisions.iter().find(|(_, known)| known.as_str() == revision).unwrap().0
    }

    fn network(&self, seen: &NetworkObject) -> Network {
        let mut network = fixtures::network("demo-1");
        network.spec.template.image.tag = Some(tag(seen.spec));
        let Held { good, permit, failed } = seen.held;
        network.status = Some(NetworkStatus {
            good_revision: good.map(|good| self.revisions[&good].clone()),
            permit: permit.as_ref().map(|permit| self.permit(permit)),
            failed_revision: failed.map(|failed| FailedRevision {
                revision: self.revisions[&failed.revision].clone(),
                node: names::validator("demo", failed.node as i32),
                message: String::new(),
                rolled_back_to: failed.back_to.map(|image| self.revisions[&image].clone()),
            }),
            ..NetworkStatus::default()
        });
        network
    }

    fn permit(&self, granted: &Granted) -> Permit {
        let (expires_in, deadline_in) = times(granted.age);
        let after = |seconds| Time(fixtures::now() + SignedDuration::from_secs(seconds));
        let pod_uid = match granted.pod {
            Which::Nobody => String::new(),
            Which::Present => format!("pod-{}", granted.node),
            Which::Former => format!("former-pod-{}", granted.node),
        };
        serde_json::from_value(json!({
            "node": names::validator("demo", granted.node as i32),
            "podUid": pod_uid,
            "revision": self.revisions[&granted.revision],
            "expiresAt": after(expires_in),
            "deadlineAt": after(deadline_in),
        }))
        .unwrap()
    }

    fn granted(&self, permit: &Permit) -> Granted {
        let node = ordinal(&permit.node);
        let seconds = |time: Timestamp| time.as_second() - fixtures::now().as_second();
        let remaining = (seconds(permit.expires_at.0), seconds(permit.deadline_at.0));
        let age = [Age::Fresh, Age::Expired, Age::Overdue].into_iter().find(|age| times(*age) == remaining);
        let pod = match permit.pod_uid.as_str() {
            "" => Which::Nobody,
            uid if uid == format!("pod-{node}") => Which::Present,
            _ => Which::Former,
        };
        Granted { node, pod, revision: self.image_of(&permit.revision), age: age.unwrap() }
    }

    fn node(&self, node: usize, ours: bool, object: &NodeObject) -> BizraNode {
        let mut live = self.nodes[&(node, object.image)].clone();
        let generation = if object.told == Told::Outdated { 2 } else { 1 };
        live.metadata.uid = Some(node_uid(node, ours));
        live.metadata.resource_version = Some("1".to_owned());
        live.metadata.generation = Some(generation);
        let (revision, ready) = match object.told {
            Told::Nothing => return live,
            Told::Outdated => (true, false),
            Told::Current { revision, ready } => (revision, ready),
        };
        let mut conditions = Conditions::new(&[], generation, fixtures::now());
        conditions.set(condition::READY, Truth::from(ready), &Reason::new("Modelled", "in the model"));
        let made = self.pods[&(node, object.image)].annotations().get(labels::REVISION);
        live.status = Some(BizraNodeStatus {
            observed_generation: 1,
            conditions: conditions.finish(),
            power: Some(self.powers[node].to_string()),
            revision: made.filter(|_| revision).cloned(),
            ..BizraNodeStatus::default()
        });
        live
    }

    fn pod(&self, node: usize, object: &PodObject) -> Pod {
        let mut live = self.pods[&(node, object.image)].clone();
        live.metadata.uid = Some(format!("pod-{node}"));
        live.metadata.resource_version = Some("1".to_owned());
        for owner in live.metadata.owner_references.iter_mut().flatten() {
            owner.uid = node_uid(node, object.ours);
        }
        if object.ending {
            live.metadata.deletion_timestamp = Some(Time(fixtures::now()));
        }
        let status = match object.life {
            Life::Down => {
                let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
                json!({"phase": "Pending", "containerStatuses": [fixtures::container(pod::NODE_CONTAINER, &waiting)]})
            }
            Life::Behind | Life::InSync => {
                let running = json!({"running": {}});
                let done = json!({"terminated": {"exitCode": 0}});
                json!({
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": if object.seems_in_sync { "True" } else { "False" }}],
                    "initContainerStatuses": [
                        fixtures::container(pod::KEY_CONTAINER, &done),
                        fixtures::container(pod::GENESIS_CONTAINER, &done),
                    ],
                    "containerStatuses": [fixtures::container(pod::NODE_CONTAINER, &running)],
                })
            }
        };
        live.status = Some(serde_json::from_value(status).unwrap());
        live
    }

    fn word(&self, node: usize, life: Life) -> Word {
        if life == Life::Down || (life == Life::Behind && self.has(Guard::SilenceIsUnknown)) {
            return Word::Unknown("no answer".to_owned());
        }
        Word::Status(Box::new(NodeStatus {
            sync_state: SyncState::InSync.into(),
            signing_state: SigningState::Allowed.into(),
            power: self.powers[node],
            total_power: self.powers.iter().sum(),
            genesis_hash: self.genesis.annotations()[labels::GENESIS_HASH].clone(),
            ..NodeStatus::default()
        }))
    }

    fn observed(&self, nodes: &Nodes, pods: &Pods) -> network::observe::Observed {
        let mut observed = fixtures::network_observed();
        observed.genesis = Some(self.genesis.clone());
        observed.claims.clone_from(&self.claims);
        for ordinal in 0..NODES {
            observed.nodes.extend(nodes[ordinal].as_ref().map(|object| self.node(ordinal, true, object)));
            if let Some(object) = &pods[ordinal] {
                let pod = self.pod(ordinal, object);
                observed.words.insert(pod.name_any(), self.word(ordinal, object.life));
                observed.pods.push(pod);
            }
        }
        observed
    }

    fn observed_by_node(
        &self,
        node: usize,
        network: &Network,
        pod: Option<&PodObject>,
    ) -> bizra_node::observe::Observed {
        let mut observed = fixtures::node_observed();
        observed.network = Some(network.clone());
        observed.claim = Some(self.claims[node].clone());
        observed.genesis = Some(self.genesis.clone());
        observed.pod = pod.map(|object| self.pod(node, object));
        observed.word = self.word(node, pod.map_or(Life::Down, |object| object.life));
        observed
    }
}

/// Seconds from now to the end and to the deadline of a permit of this age, as the shipped code grants it.
fn times(age: Age) -> (i64, i64) {
    let wait = i64::from(fixtures::network("demo-1").spec.update_deadline_seconds);
    match age {
        Age::Fresh => (network::roll::PERMIT_SECONDS, network::roll::PERMIT_SECONDS + wait),
        Age::Expired => (0, wait),
        Age::Overdue => (-wait, 0),
    }
}
