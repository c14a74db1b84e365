//! What there is, in small: the Network, its `BizraNode`s and pods, and the work of operators that were stopped in the
//! middle of it. Only what the plans read is kept, so that states are few; [`super::shipped`] makes real objects of it.

/// Validators.
pub(super) const NODES: usize = 4;

/// What the Network's spec can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Image {
    /// What runs at the start.
    First,
    /// Another one that works.
    Second,
    /// Runs and is never in sync.
    Stuck,
    /// Cannot be pulled: its container never runs.
    Broken,
}

impl Image {
    pub(super) const ALL: [Self; 4] = [Self::First, Self::Second, Self::Stuck, Self::Broken];

    pub(super) fn works(self) -> bool {
        matches!(self, Self::First | Self::Second)
    }
}

/// How far the time of a permit has run. Time passes for all permits alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Age {
    /// The pod may be evicted.
    Fresh,
    /// It may not any more, and the deadline is still to come.
    Expired,
    /// The deadline is over.
    Overdue,
}

/// Which pod of a node is meant. Uids are never used again, so a former pod is as good as any other former one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Which {
    Nobody,
    Present,
    Former,
}

/// A permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Granted {
    pub node: usize,
    pub pod: Which,
    pub revision: Image,
    pub age: Age,
}

/// A stopped roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Failed {
    pub revision: Image,
    pub node: usize,
    pub back_to: Option<Image>,
}

/// What plans read of `Network.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Held {
    pub good: Option<Image>,
    pub permit: Option<Granted>,
    pub failed: Option<Failed>,
}

/// The Network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NetworkObject {
    pub spec: Image,
    pub held: Held,
}

/// What a `BizraNode`'s status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Told {
    Nothing,
    /// About a former spec.
    Outdated,
    /// About the present spec: whether the revision of the pod could be told, and whether the node is ready.
    Current {
        revision: bool,
        ready: bool,
    },
}

/// A `BizraNode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeObject {
    pub image: Image,
    pub told: Told,
}

/// What a node does, in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Life {
    /// Its container does not run, and its kubelet says so.
    Down,
    /// It runs and is not in sync; it does not answer the operator.
    Behind,
    /// It is in sync and votes.
    InSync,
}

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodObject {
    pub image: Image,
    /// Its owner is the `BizraNode` that is there now.
    pub ours: bool,
    /// It has been deleted or evicted, and its kubelet has not ended it yet.
    pub ending: bool,
    pub life: Life,
    /// What poller and readiness probe found last: that it is in sync.
    pub seems_in_sync: bool,
}

impl PodObject {
    fn new(image: Image, ours: bool) -> Self {
        Self { image, ours, ending: false, life: Life::Down, seems_in_sync: false }
    }

    pub(super) fn votes(self) -> bool {
        self.life == Life::InSync && !self.ending
    }

    /// As the disruption budget sees it.
    pub(super) fn is_ready(self) -> bool {
        self.seems_in_sync && self.life != Life::Down && !self.ending
    }
}

/// Everything that decides what an undisturbed operator does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Core {
    pub network: NetworkObject,
    pub nodes: [Option<NodeObject>; NODES],
    pub pods: [Option<PodObject>; NODES],
}

/// What an operator had still to do when it was stopped. It may go on at any time, while another one leads, or never:
/// then it has crashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Paused {
    /// The Network was read, nothing else.
    NetworkRead { seen: NetworkObject, unchanged: bool },
    /// Templates to be written, then the status. `unchanged`: nobody has written the Network since it was read.
    NetworkWrites { templates: Vec<(usize, Image)>, held: Held, unchanged: bool },
    /// Work on one node. `ours`: its `BizraNode` has not been deleted since.
    Node { node: usize, ours: bool, work: NodeWork },
}

/// See [`Paused::Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeWork {
    /// The `BizraNode` and the Network were read, nothing else.
    Read { object: NodeObject, seen: NetworkObject },
    /// A pod is to be created.
    Create(Image),
    /// The permit is to be read once more.
    Check(Granted),
    /// The permit was read once more; the nodes are to be asked.
    Judge(Granted),
    /// The pod is to be evicted.
    Evict(Eviction),
}

/// An eviction about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Eviction {
    /// False if the node was found not to vote, so that it needs no permit.
    pub permitted: bool,
    /// The truth when the nodes were asked: the others hold more than two thirds.
    pub safe: bool,
    /// The pod is still the one that was found.
    pub pod: Which,
    /// The eviction demands that the pod is as it was found, and whether it still is; none if only the uid matters.
    pub unchanged: Option<bool>,
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Breach {
    /// A permit was used while the power in sync without its node was two thirds or less.
    QuorumAtRisk,
    /// A permit was used on a node that voted while the node of another one was still down for it.
    TwoAtOnce,
    /// A node that runs, so that it may vote, was evicted without a permit.
    VoterWithoutPermit,
}

/// How much may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trouble {
    /// Edits of the spec's image.
    pub edits: u8,
    /// Pods and `BizraNode`s deleted by somebody.
    pub deletions: u8,
    /// Permits edited away.
    pub thefts: u8,
    /// Nodes that fall out of sync or die.
    pub faults: u8,
    /// Operators stopped in the middle of their work.
    pub pauses: u8,
    /// Times a node takes longer than a permit waits for it.
    pub delays: u8,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub core: Core,
    pub paused: Vec<Paused>,
    pub left: Trouble,
    /// Nodes that voted when they were taken down with a permit, and have not been in sync since.
    pub away: [bool; NODES],
    pub breach: Option<Breach>,
}

impl World {
    /// Every validator in sync with the first image, and nothing known to the operator yet.
    pub(super) fn new(left: Trouble) -> Self {
        let node = NodeObject { image: Image::First, told: Told::Nothing };
        let life = PodObject { life: Life::InSync, seems_in_sync: true, ..PodObject::new(Image::First, true) };
        let network = NetworkObject { spec: Image::First, held: Held::default() };
        let core = Core { network, nodes: [Some(node); NODES], pods: [Some(life); NODES] };
        Self { core, paused: Vec::new(), left, away: [false; NODES], breach: None }
    }

    /// Keeps unfinished work.
    pub(super) fn pause(&mut self, work: Paused) {
        self.left.pauses -= 1;
        self.paused.push(work);
        self.tidy();
    }

    /// Forgets work that can have no effect any more, and orders the rest.
    fn tidy(&mut self) {
        self.paused.retain(|work| match work {
            Paused::NetworkWrites { templates, unchanged, .. } => *unchanged || !templates.is_empty(),
            Paused::Node { work: NodeWork::Evict(eviction), .. } => {
                eviction.pod == Which::Present && eviction.unchanged != Some(false)
            }
            Paused::Node { work: NodeWork::Check(permit) | NodeWork::Judge(permit), .. } => {
                permit.pod == Which::Present
            }
            _ => true,
        });
        self.paused.sort();
    }

    fn permits(&mut self) -> impl Iterator<Item = &mut Granted> {
        let paused = self.paused.iter_mut().filter_map(|work| match work {
            Paused::NetworkRead { seen, .. } | Paused::Node { work: NodeWork::Read { seen, .. }, .. } => {
                seen.held.permit.as_mut()
            }
            Paused::NetworkWrites { held, .. } => held.permit.as_mut(),
            Paused::Node { work: NodeWork::Check(permit) | NodeWork::Judge(permit), .. } => Some(permit),
            Paused::Node { .. } => None,
        });
        self.core.network.held.permit.as_mut().into_iter().chain(paused)
    }

    /// Time passes.
    pub(super) fn tick(&mut self) {
        for permit in self.permits() {
            permit.age = match permit.age {
                Age::Fresh => Age::Expired,
                Age::Expired | Age::Overdue => Age::Overdue,
            };
        }
        self.tidy();
    }

    /// Somebody has written the Network: a status judged from a former one is refused.
    fn network_changed(&mut self) {
        for work in &mut self.paused {
            if let Paused::NetworkRead { unchanged, .. } | Paused::NetworkWrites { unchanged, .. } = work {
                *unchanged = false;
            }
        }
        self.tidy();
    }

    /// A pod's status or metadata has been written.
    fn pod_changed(&mut self, changed: usize) {
        for work in &mut self.paused {
            if let Paused::Node { node, work: NodeWork::Evict(eviction), .. } = work
                && *node == changed
            {
                eviction.unchanged = eviction.unchanged.map(|_| false);
            }
        }
        self.tidy();
    }

    fn pod_removed(&mut self, removed: usize) {
        self.core.pods[removed] = None;
        for permit in self.permits().filter(|permit| permit.node == removed && permit.pod == Which::Present) {
            permit.pod = Which::Former;
        }
        for work in &mut self.paused {
            if let Paused::Node { node, work: NodeWork::Evict(eviction), .. } = work
                && *node == removed
            {
                eviction.pod = Which::Former;
            }
        }
        self.tidy();
    }

    pub(super) fn set_spec(&mut self, image: Image) {
        self.core.network.spec = image;
        self.network_changed();
    }

    pub(super) fn set_held(&mut self, held: Held) {
        if self.core.network.held != held {
            self.core.network.held = held;
            self.network_changed();
        }
    }

    /// An apply of a `BizraNode`.
    pub(super) fn apply(&mut self, node: usize, image: Image) {
        match &mut self.core.nodes[node] {
            Some(object) if object.image == image => {}
            Some(object) => {
                object.image = image;
                if object.told != Told::Nothing {
                    object.told = Told::Outdated;
                }
            }
            None => self.core.nodes[node] = Some(NodeObject { image, told: Told::Nothing }),
        }
    }

    /// A create of a pod, refused if there is one.
    pub(super) fn create(&mut self, node: usize, image: Image, ours: bool) {
        if self.core.pods[node].is_none() {
            self.core.pods[node] = Some(PodObject::new(image, ours));
        }
    }

    pub(super) fn delete_node(&mut self, deleted: usize) {
        self.core.nodes[deleted] = None;
        if let Some(pod) = &mut self.core.pods[deleted] {
            pod.ours = false;
        }
        for work in &mut self.paused {
            if let Paused::Node { node, ours, .. } = work
                && *node == deleted
            {
                *ours = false;
            }
        }
        self.tidy();
    }

    /// Changes a pod and what its node does.
    pub(super) fn change_pod(&mut self, node: usize, change: impl FnOnce(&mut PodObject)) {
        let Some(pod) = &mut self.core.pods[node] else { return };
        let before = *pod;
        change(pod);
        let after = *pod;
        if after == before {
            return;
        }
        if after.votes() {
            self.away[node] = false;
        }
        if after != (PodObject { life: after.life, ..before })
            || (before.life == Life::Down) != (after.life == Life::Down)
        {
            self.pod_changed(node);
        }
    }

    /// The kubelet ends a pod, or its node gets on.
    pub(super) fn advance(&mut self, node: usize) {
        match self.core.pods[node] {
            Some(pod) if pod.ending => self.pod_removed(node),
            Some(PodObject { life: Life::Down, image, .. }) if image != Image::Broken => {
                self.change_pod(node, |pod| pod.life = Life::Behind);
            }
            Some(PodObject { life: Life::Behind, image, .. }) if image.works() => {
                self.change_pod(node, |pod| {
                    pod.life = Life::InSync;
                    pod.seems_in_sync = true;
                });
            }
            _ => {}
        }
    }

    /// Poller and readiness probe look.
    pub(super) fn poll(&mut self, node: usize) {
        self.change_pod(node, |pod| pod.seems_in_sync = pod.life == Life::InSync);
    }

    /// The garbage collector looks for pods whose `BizraNode` is gone.
    pub(super) fn collect(&mut self, node: usize) {
        self.change_pod(node, |pod| pod.ending |= !pod.ours);
    }
}
