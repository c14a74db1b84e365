//! The steps: the operator's, the cluster's, and what goes wrong; and the promises that are checked in every state.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::{
    shipped::{Guard, Leaving, Shipped},
    world::{
        Breach, Core, Eviction, Granted, Held, Image, Life, NODES, NetworkObject, NodeObject, NodeWork, Paused,
        Trouble, Which, World,
    },
};

/// Rounds of everybody's work after which a world that still changes is said never to come to rest. A roll of four nodes
/// takes about forty.
const ROUNDS_MAX: u32 = 200;

/// Where an operator is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// After the first reads: the rest of what it observes is newer.
    Reading,
    /// Before the write, or the look, of this number.
    Before(usize),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The Network is reconciled, or until it is stopped.
    Network(Option<Stop>),
    /// A `BizraNode` is reconciled, or until it is stopped.
    Node(usize, Option<Stop>),
    /// An operator that was stopped goes on.
    Resume(usize),
    /// A node's kubelet and the node itself get on.
    Advance(usize),
    /// Poller and readiness probe look at a node.
    Poll(usize),
    /// The garbage collector looks at a pod.
    Collect(usize),
    /// Time passes.
    Tick,
    EditSpec(Image),
    DeletePod(usize),
    DeleteNode(usize),
    TakePermit,
    /// A node falls out of sync; whether poller and readiness probe have seen it.
    FallBehind(usize, bool),
    Die(usize),
}

/// What becomes of a world when nothing goes wrong any more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// As the spec asks.
    Desired,
    /// Stopped for this reason, with a quorum in sync.
    Stalled(String),
    /// It rests somewhere else.
    Wrong(String),
    /// It never rests.
    Restless,
}

/// What is explored.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Power of each validator.
    pub powers: [u64; NODES],
    /// What the spec may be edited to.
    pub images: Vec<Image>,
    /// How much goes wrong.
    pub trouble: Trouble,
    /// Nodes that fall behind, die or are deleted.
    pub struck: Vec<usize>,
    /// Guards that are left out.
    pub without: Vec<Guard>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Summary {
    /// Different states.
    pub states: usize,
    /// States generated, repetitions included.
    pub generated: usize,
    /// Longest sequence of actions.
    pub depth: usize,
    /// Different calls of shipped functions.
    pub calls: usize,
    /// True if every state within the bounds was seen.
    pub is_complete: bool,
    /// Broken promises, with the actions that lead there and the state.
    pub violations: Vec<(&'static str, String)>,
    /// Things that should be reachable and were not met.
    pub unreached: Vec<&'static str>,
    /// Real time.
    pub elapsed: Duration,
}

struct Exploration {
    bounds: Bounds,
    shipped: Shipped,
    settled: Mutex<HashMap<Core, Outcome>>,
    quiet: Mutex<HashMap<Core, bool>>,
}

impl Exploration {
    fn new(bounds: Bounds) -> Self {
        let shipped = Shipped::new(bounds.powers, &bounds.without);
        Self { bounds, shipped, settled: Mutex::default(), quiet: Mutex::default() }
    }

    /// The four steps of a reconciliation of the Network.
    fn network(&self, world: &mut World, stop: Option<Stop>) {
        let seen = world.core.network;
        if stop == Some(Stop::Reading) {
            return world.pause(Paused::NetworkRead { seen, unchanged: true });
        }
        self.network_seen(world, &seen, true, stop);
    }

    fn network_seen(&self, world: &mut World, seen: &NetworkObject, unchanged: bool, stop: Option<Stop>) {
        let plan = self.shipped.plan_network(seen, &world.core.nodes, &world.core.pods);
        self.network_writes(world, &plan.templates, plan.held, unchanged, stop);
    }

    fn network_writes(
        &self,
        world: &mut World,
        templates: &[(usize, Image)],
        held: Held,
        unchanged: bool,
        stop: Option<Stop>,
    ) {
        for (number, (node, image)) in templates.iter().enumerate() {
            if stop == Some(Stop::Before(number)) {
                let templates = templates[number..].to_vec();
                return world.pause(Paused::NetworkWrites { templates, held, unchanged });
            }
            world.apply(*node, *image);
        }
        if stop == Some(Stop::Before(templates.len())) {
            return world.pause(Paused::NetworkWrites { templates: Vec::new(), held, unchanged });
        }
        if unchanged || !self.shipped.has(Guard::CompareAndSwap) {
            world.set_held(held);
        }
    }

    /// The reconciliation of a `BizraNode`.
    fn node(&self, world: &mut World, node: usize, stop: Option<Stop>) {
        let (Some(object), seen) = (world.core.nodes[node], world.core.network) else { return };
        if stop == Some(Stop::Reading) {
            return world.pause(Paused::Node { node, ours: true, work: NodeWork::Read { object, seen } });
        }
        self.node_seen(world, (node, true), &object, &seen, stop);
    }

    fn node_seen(
        &self,
        world: &mut World,
        who: (usize, bool),
        object: &NodeObject,
        seen: &NetworkObject,
        stop: Option<Stop>,
    ) {
        let (node, ours) = who;
        let plan = self.shipped.plan_node(node, ours, object, seen, &world.core.pods);
        let paused = world.paused.len();
        if let Some(image) = plan.create {
            if stop.is_some() {
                return world.pause(Paused::Node { node, ours, work: NodeWork::Create(image) });
            }
            world.create(node, image, ours);
        }
        match plan.leaving {
            None => {}
            Some(Leaving::NotNeeded { bound }) => {
                let unchanged = bound.then_some(true);
                let eviction = Eviction { permitted: false, safe: true, pod: Which::Present, unchanged };
                self.evict(world, who, eviction, stop.map(|_| Stop::Before(0)), 0);
            }
            Some(Leaving::Granted(permit)) => self.check(world, who, &permit, stop),
        }
        let was_stopped = world.paused.len() != paused;
        if let Some(live) = world.core.nodes[node].as_mut().filter(|live| ours && !was_stopped && *live == object) {
            live.told = plan.told;
        }
    }

    /// Reads the permit once more, …
    fn check(&self, world: &mut World, who: (usize, bool), permit: &Granted, stop: Option<Stop>) {
        if stop == Some(Stop::Before(0)) {
            return world.pause(Paused::Node { node: who.0, ours: who.1, work: NodeWork::Check(*permit) });
        }
        if !self.shipped.has(Guard::ReadBack) || self.shipped.is_held(&world.core.network, permit) {
            self.judge(world, who, permit, stop);
        }
    }

    /// … asks every node, …
    fn judge(&self, world: &mut World, who: (usize, bool), permit: &Granted, stop: Option<Stop>) {
        if stop == Some(Stop::Before(1)) {
            return world.pause(Paused::Node { node: who.0, ours: who.1, work: NodeWork::Judge(*permit) });
        }
        let Core { network, nodes, pods } = &world.core;
        let safe = self.shipped.quorum_votes(pods, Some(who.0));
        if !self.shipped.has(Guard::Asking) || self.shipped.may_go(network, permit, nodes, pods) {
            let eviction = Eviction { permitted: true, safe, pod: permit.pod, unchanged: None };
            self.evict(world, who, eviction, stop, 2);
        }
    }

    /// … and evicts. The API server looks at uid, version and disruption budget.
    fn evict(&self, world: &mut World, who: (usize, bool), eviction: Eviction, stop: Option<Stop>, number: usize) {
        let (node, ours) = who;
        if stop == Some(Stop::Before(number)) {
            return world.pause(Paused::Node { node, ours, work: NodeWork::Evict(eviction) });
        }
        let Some(pod) = world.core.pods[node].filter(|pod| !pod.ending) else { return };
        let is_found = eviction.pod == Which::Present && eviction.unchanged != Some(false);
        if !is_found || !self.shipped.budget_allows(&world.core.pods, node) {
            return;
        }
        let runs = pod.life != Life::Down;
        let others_away = (0..NODES).any(|other| other != node && world.away[other]);
        world.breach = world.breach.or(match (runs, eviction.permitted) {
            (true, false) => Some(Breach::VoterWithoutPermit),
            (true, true) if !eviction.safe => Some(Breach::QuorumAtRisk),
            (true, true) if pod.votes() && others_away => Some(Breach::TwoAtOnce),
            _ => None,
        });
        world.away[node] |= pod.votes() && eviction.permitted;
        world.change_pod(node, |pod| pod.ending = true);
    }

    fn resume(&self, world: &mut World, number: usize) {
        match world.paused.remove(number) {
            Paused::NetworkRead { seen, unchanged } => self.network_seen(world, &seen, unchanged, None),
            Paused::NetworkWrites { templates, held, unchanged } => {
                self.network_writes(world, &templates, held, unchanged, None);
            }
            Paused::Node { node, ours, work } => {
                let who = (node, ours);
                match work {
                    NodeWork::Read { object, seen } => self.node_seen(world, who, &object, &seen, None),
                    NodeWork::Create(image) => world.create(node, image, ours),
                    NodeWork::Check(permit) => self.check(world, who, &permit, None),
                    NodeWork::Judge(permit) => self.judge(world, who, &permit, None),
                    NodeWork::Evict(eviction) => self.evict(world, who, eviction, None, 0),
                }
            }
        }
    }

    /// What everybody does who is not disturbed, time aside.
    fn regular() -> impl Iterator<Item = Action> {
        let of_each =
            |node| [Action::Advance(node), Action::Poll(node), Action::Collect(node), Action::Node(node, None)];
        (0..NODES).flat_map(of_each).chain([Action::Network(None)])
    }

    /// True if only time can change this.
    fn is_quiet(&self, core: &Core) -> bool {
        if let Some(known) = self.quiet.lock().unwrap().get(core) {
            return *known;
        }
        let world = World { core: *core, ..World::new(Trouble::default()) };
        let changes = |action| self.perform(&world, &action).is_some_and(|next| next.core != *core);
        let quiet = !Self::regular().any(changes);
        self.quiet.lock().unwrap().insert(*core, quiet);
        quiet
    }

    /// What becomes of a world in which everybody does what they have to, in turn, and time passes when nobody has.
    fn settle(&self, core: &Core) -> Outcome {
        let mut world = World { core: *core, ..World::new(Trouble::default()) };
        let mut way = Vec::new();
        let outcome = loop {
            if let Some(known) = self.settled.lock().unwrap().get(&world.core) {
                break known.clone();
            }
            way.push(world.core);
            if way.len() as u32 > ROUNDS_MAX {
                break Outcome::Restless;
            }
            for action in Self::regular() {
                world = self.perform(&world, &action).unwrap_or(world);
            }
            if Some(&world.core) == way.last() {
                world.tick();
                if Some(&world.core) == way.last() {
                    break self.judge_rest(&world.core);
                }
            }
        };
        let mut settled = self.settled.lock().unwrap();
        settled.extend(way.into_iter().map(|core| (core, outcome.clone())));
        outcome
    }

    fn judge_rest(&self, core: &Core) -> Outcome {
        let Core { network, nodes, pods } = core;
        let is_there = |node: usize| {
            nodes[node].is_some_and(|node| node.image == network.spec)
                && pods[node].is_some_and(|pod| pod.image == network.spec && pod.ours && pod.votes())
        };
        let plan = self.shipped.plan_network(network, nodes, pods);
        let Held { permit, failed, .. } = network.held;
        match plan.stalled {
            None if (0..NODES).all(is_there) && permit.is_none() && failed.is_none() => Outcome::Desired,
            Some(reason) if self.shipped.quorum_votes(pods, None) && permit.is_none() => Outcome::Stalled(reason),
            stalled => Outcome::Wrong(format!("at rest, stalled: {stalled:?}, {core:?}")),
        }
    }

    /// The state after an action, if the action is possible and changes anything.
    fn perform(&self, world: &World, action: &Action) -> Option<World> {
        let mut next = world.clone();
        let left = &mut next.left;
        match action {
            Action::EditSpec(_) => left.edits = left.edits.checked_sub(1)?,
            Action::DeletePod(_) | Action::DeleteNode(_) => left.deletions = left.deletions.checked_sub(1)?,
            Action::TakePermit => left.thefts = left.thefts.checked_sub(1)?,
            Action::FallBehind(..) | Action::Die(_) => left.faults = left.faults.checked_sub(1)?,
            Action::Tick if !self.is_quiet(&world.core) => left.delays = left.delays.checked_sub(1)?,
            _ => {}
        }
        let before = next.clone();
        match *action {
            Action::Network(stop) => self.network(&mut next, stop),
            Action::Node(node, stop) => self.node(&mut next, node, stop),
            Action::Resume(number) => self.resume(&mut next, number),
            Action::Advance(node) => next.advance(node),
            Action::Poll(node) => next.poll(node),
            Action::Collect(node) => next.collect(node),
            Action::Tick => next.tick(),
            Action::EditSpec(image) => next.set_spec(image),
            Action::DeletePod(node) => next.change_pod(node, |pod| pod.ending = true),
            Action::DeleteNode(node) => {
                next.core.nodes[node]?;
                next.delete_node(node);
            }
            Action::TakePermit => next.set_held(Held { permit: None, ..world.core.network.held }),
            Action::FallBehind(node, is_seen) => {
                world.core.pods[node].filter(|pod| pod.life == Life::InSync && !pod.ending)?;
                next.change_pod(node, |pod| {
                    pod.life = Life::Behind;
                    pod.seems_in_sync &= !is_seen;
                });
            }
            Action::Die(node) => next.change_pod(node, |pod| {
                pod.life = Life::Down;
                pod.seems_in_sync = false;
            }),
        }
        (next != before).then_some(next)
    }

    /// Where the work of an operator can be stopped to some effect.
    fn stops(&self, world: &World, actions: &mut Vec<Action>) {
        let Core { network, nodes, pods } = &world.core;
        actions.push(Action::Network(Some(Stop::Reading)));
        let plan = self.shipped.plan_network(network, nodes, pods);
        if !plan.templates.is_empty() || plan.held != network.held {
            actions.extend((0..=plan.templates.len()).map(|number| Action::Network(Some(Stop::Before(number)))));
        }
        for (node, object) in nodes.iter().enumerate() {
            let Some(object) = object else { continue };
            actions.push(Action::Node(node, Some(Stop::Reading)));
            let plan = self.shipped.plan_node(node, true, object, network, pods);
            let looks = match plan.leaving {
                Some(Leaving::Granted(_)) => 3,
                Some(Leaving::NotNeeded { .. }) => 1,
                None => usize::from(plan.create.is_some()),
            };
            actions.extend((0..looks).map(|number| Action::Node(node, Some(Stop::Before(number)))));
        }
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        // The operator comes to know the network before anything goes wrong.
        let mut world = World::new(self.bounds.trouble);
        for action in Self::regular().chain(Self::regular()) {
            world = self.perform(&world, &action).unwrap_or(world);
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.breach.is_some() {
            return;
        }
        actions.extend(Self::regular().chain([Action::Tick]));
        actions.extend((0..world.paused.len()).map(Action::Resume));
        if world.left.pauses > 0 {
            self.stops(world, actions);
        }
        if world.left.edits > 0 {
            actions.extend(self.bounds.images.iter().copied().map(Action::EditSpec));
        }
        actions.push(Action::TakePermit);
        for node in self.bounds.struck.iter().copied() {
            actions.extend([Action::DeletePod(node), Action::DeleteNode(node), Action::Die(node)]);
            actions.extend([true, false].map(|is_seen| Action::FallBehind(node, is_seen)));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.perform(world, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(QUORUM, |_, world: &World| world.breach != Some(Breach::QuorumAtRisk)),
            Property::always(ONE_AT_A_TIME, |_, world: &World| world.breach != Some(Breach::TwoAtOnce)),
            Property::always(PERMITTED, |_, world: &World| world.breach != Some(Breach::VoterWithoutPermit)),
            Property::always(CONVERGES, |exploration: &Self, world: &World| {
                matches!(exploration.settle(&world.core), Outcome::Desired | Outcome::Stalled(_))
            }),
            Property::always(NO_NEEDLESS_STOP, |exploration: &Self, world: &World| {
                // With a spec that works, and nodes that take no longer than they have.
                let may_stop =
                    !world.core.network.spec.works() || world.left.delays < exploration.bounds.trouble.delays;
                let outcome = exploration.settle(&world.core);
                may_stop || !matches!(outcome, Outcome::Stalled(reason) if reason != "WouldBreakQuorum")
            }),
            Property::sometimes("a change reaches every node", |_, world: &World| {
                world.core.pods.iter().all(|pod| pod.is_some_and(|pod| pod.image != Image::First && pod.votes()))
            }),
            Property::sometimes("a permit is out and another node falls out of sync", |_, world: &World| {
                let permit = world.core.network.held.permit;
                permit.is_some_and(|permit| {
                    (0..NODES).any(|node| node != permit.node && world.core.pods[node].is_some_and(|pod| !pod.votes()))
                })
            }),
        ]
    }
}

/// Promises.
pub(super) const QUORUM: &str = "no permit is used without a quorum in sync besides its node";
pub(super) const ONE_AT_A_TIME: &str = "no two permits are in use for voting nodes at once";
pub(super) const PERMITTED: &str = "nothing that may vote is evicted without a permit";
pub(super) const CONVERGES: &str =
    "when nothing goes wrong any more, all becomes as asked for, or stalls with a reason and a quorum";
pub(super) const NO_NEEDLESS_STOP: &str = "a roll-out that works is not stopped";

const PROMISES: [&str; 5] = [QUORUM, ONE_AT_A_TIME, PERMITTED, CONVERGES, NO_NEEDLESS_STOP];

/// Explores all states within `bounds`, breadth first on `jobs` threads, for at most `limit`, or until a promise is
/// found broken.
pub(super) fn check(bounds: Bounds, jobs: usize, limit: Duration) -> Summary {
    let began = Instant::now();
    let exploration = Exploration::new(bounds);
    let checker = exploration.checker().threads(jobs).timeout(limit);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let names: Vec<&'static str> = checker.model().properties().iter().map(|property| property.name).collect();
    let violations = PROMISES.into_iter().filter_map(|name| {
        let path = found.get(name)?;
        let outcome = checker.model().settle(&path.last_state().core);
        Some((name, format!("{:?} ends in {outcome:?} {:?}", path.clone().into_actions(), path.last_state())))
    });
    let violations: Vec<_> = violations.collect();
    Summary {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        calls: checker.model().shipped.questions(),
        is_complete: violations.is_empty() && began.elapsed() < limit,
        violations,
        unreached: names.into_iter().filter(|name| !PROMISES.contains(name) && !found.contains_key(name)).collect(),
        elapsed: began.elapsed(),
    }
}
