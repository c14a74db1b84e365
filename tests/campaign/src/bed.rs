//! One namespace with a kubelet and an operator of its own, in which one plan is carried out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bizra_operator::{
    controllers::{Settings, bizra_node::heal::HealingLimits},
    metrics::Metrics,
    operator::operate,
    probe::PollSettings,
    resources::node::parse_image,
};
use futures::FutureExt as _;
use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{Role, RoleBinding},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cluster::{OPERATOR_NAMESPACE, cluster},
    kubelet::{Kubelet, Stopper},
    plan::{Mode, Plan},
    proxy::{Former, Proxy},
    reference::Reference,
    run::{DELAY, Run},
    watchdog,
    workload::Workload,
    world::{self, Leaves, World},
};

/// Nothing was written for so long: it is at rest.
const QUIET: Duration = Duration::from_millis(700);
/// The same where a reference ends: longer than the operator lets an object rest before a change brings it back.
const REST: Duration = Duration::from_secs(3);
/// Time between two looks at everything.
const LOOK: Duration = Duration::from_millis(250);
/// How long the operator has to reach an end without a fault.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is wanted of one run and what came of it.
pub(crate) struct Passage {
    pub leaves: Leaves,
    pub created: BTreeMap<String, usize>,
    pub deleted: BTreeMap<String, usize>,
    pub writes: Vec<String>,
    pub events: Vec<String>,
}

/// What came of a plan.
pub(crate) enum Outcome {
    /// The same end as without the fault; so long after it.
    Converged(Duration),
    /// The same end, but the place of the fault was not met.
    Unmet,
    /// Something else; what was written is beside it.
    Failed(Vec<String>, Vec<String>),
}

struct Bed<'a> {
    workload: &'a Workload,
    run: Arc<Run>,
    kubelet: Arc<Kubelet>,
    kubelet_task: Stopper,
    watchdog: Stopper,
    counts_voters: Arc<AtomicBool>,
    proxy: Arc<Proxy>,
    operator: Stopper,
}

/// Carries out a workload without a fault.
pub(crate) async fn record(workload: &Workload) -> Result<Passage, String> {
    let mut bed = Bed::new(workload, Mode::Calm, None).await?;
    let before = bed.begin().await?;
    bed.settle("the end", REST, |now| (workload.is_end)(&before, now)).await?;
    if workload.ends_with_start {
        bed.restart(None);
        bed.settle("the end after a start", REST, |now| (workload.is_end)(&before, now)).await?;
    }
    bed.check()?;
    let world = bed.read().await?;
    let leaves = world::masked(&world, &bed.run.namespace);
    let passage = {
        let seen = bed.run.seen();
        let (created, deleted) = (seen.created.clone(), seen.deleted.clone());
        Passage { leaves, created, deleted, writes: seen.writes.clone(), events: seen.events.clone() }
    };
    bed.end().await;
    Ok(passage)
}

/// Carries out a plan.
pub(crate) async fn attempt(workload: &Workload, plan: &Plan, reference: &Reference, patience: Duration) -> Outcome {
    let mut bed = match Bed::new(workload, plan.mode, plan.place.clone()).await {
        Ok(bed) => bed,
        Err(why) => return Outcome::Failed(vec![why], Vec::new()),
    };
    let outcome = bed.converge(reference, patience).await;
    let log = bed.run.seen().log.clone();
    bed.end().await;
    match outcome {
        Ok(Some(after)) => Outcome::Converged(after),
        Ok(None) => Outcome::Unmet,
        Err(why) => Outcome::Failed(why, log),
    }
}

impl<'a> Bed<'a> {
    async fn new(workload: &'a Workload, mode: Mode, place: Option<(String, usize)>) -> Result<Self, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("campaign-{:05}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let admin = tokio::task::spawn_blocking(|| cluster().admin()).await.unwrap();
        make_namespace(&admin, &namespace).await.map_err(|error| format!("no namespace: {error}"))?;
        let run = Arc::new(Run::new(admin.clone(), namespace.clone(), (mode, place), workload.may_delete_volumes));
        let (kubelet, kubelet_task) = Kubelet::start(admin, &namespace);
        let counts_voters = Arc::new(AtomicBool::new(false));
        let watchdog = watchdog::watch(&run, &counts_voters);
        let (proxy, operator) = start(&run, None);
        Ok(Self { workload, run, kubelet, kubelet_task, watchdog, counts_voters, proxy, operator })
    }

    async fn read(&self) -> Result<World, String> {
        let mut tries = 0;
        loop {
            match world::read(&self.run.admin, &self.run.namespace).await {
                Ok(world) => return Ok(world),
                // An API server that has just started, or has much to do.
                Err(_) if tries < 20 => tries += 1,
                Err(error) => return Err(format!("cannot read: {error}")),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Brings about the beginning and makes the change; returns what there was before.
    async fn begin(&self) -> Result<World, String> {
        let (run, kubelet) = (&self.run, &self.kubelet);
        let failed = |error: kube::Error| format!("the user's change failed: {error}");
        for change in &self.workload.initial {
            change.carry_out(&run.admin, &run.namespace, kubelet).await.map_err(failed)?;
            self.settle("the beginning", QUIET, world::is_settled).await?;
        }
        let before = self.read().await?;
        run.arm().await.map_err(failed)?;
        self.counts_voters.store(self.workload.voters_stay, Ordering::SeqCst);
        self.workload.change.carry_out(&run.admin, &run.namespace, kubelet).await.map_err(failed)?;
        Ok(before)
    }

    /// Waits until it is so and nothing is written any more.
    async fn settle(&self, what: &str, quiet: Duration, is_so: impl Fn(&World) -> bool) -> Result<(), String> {
        let started = Instant::now();
        let mut so_since = None;
        while started.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            self.check()?;
            if !is_so(&self.read().await?) {
                so_since = None;
                continue;
            }
            let since = *so_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= quiet && self.is_quiet(quiet) {
                return Ok(());
            }
        }
        let world = self.read().await?;
        let told: Vec<String> = ["networks", "bizranodes", "nodepools"]
            .iter()
            .flat_map(|plural| world::of(&world, plural))
            .map(|one| format!("{}: {:?}", world::text(one, "/metadata/name"), world::condition(one, "Ready")))
            .collect();
        let seen = self.run.seen();
        let latest = seen.log.iter().rev().take(5).cloned().collect::<Vec<_>>();
        Err(format!("{what} was not reached within {} s; {told:?}; latest writes: {latest:?}", PATIENCE.as_secs()))
    }

    fn is_quiet(&self, quiet: Duration) -> bool {
        self.run.seen().last_write.is_none_or(|at| at.elapsed() >= quiet)
    }

    /// No rule was broken, and nobody else has given up.
    fn check(&self) -> Result<(), String> {
        for (name, task) in
            [("kubelet", &self.kubelet_task), ("watchdog", &self.watchdog), ("operator", &self.operator)]
        {
            if task.0.is_finished() {
                return Err(format!("the {name} has ended; its last words are above"));
            }
        }
        self.run.seen().violations.first().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// What the successor of an operator that has died is shown at first, if not the world as it is.
    fn former(&self) -> Option<Former> {
        let seen = self.run.seen();
        let version = match self.run.mode() {
            Mode::Rewound => seen.version_at_hit.clone(),
            Mode::RewoundFar => seen.version_at_change.clone(),
            _ => return None,
        };
        Some(Former { version, until: Instant::now() + DELAY })
    }

    /// A new operator; the one before is gone.
    fn restart(&mut self, former: Option<Former>) {
        self.run.seen().ignores_events = true;
        (self.proxy, self.operator) = start(&self.run, former);
    }

    /// Until everything is as in the reference, at rest. None if the fault was not met.
    async fn converge(&mut self, reference: &Reference, patience: Duration) -> Result<Option<Duration>, Vec<String>> {
        let before = self.begin().await.map_err(|why| vec![why])?;
        let mut is_ended = !self.workload.ends_with_start;
        let mut deadline = Instant::now() + patience;
        let mut reached: Option<Instant> = None;
        let mut fault_over: Option<Instant> = None;
        loop {
            if self.proxy.died.notified().now_or_never().is_some() {
                let former = self.former();
                self.restart(former);
                fault_over = Some(Instant::now());
                deadline = Instant::now() + patience;
            }
            self.check().map_err(|why| vec![why])?;
            let world = self.read().await.map_err(|why| vec![why])?;
            if !is_ended && self.is_over() && (self.workload.is_end)(&before, &world) && self.is_quiet(QUIET) {
                is_ended = true;
                self.restart(None);
            }
            let mut wrong =
                world::differences(&reference.leaves, &world::masked(&world, &self.run.namespace), &reference.noise);
            {
                let seen = self.run.seen();
                wrong.extend(uneven("created", &reference.created, &seen.created));
                wrong.extend(uneven("deleted", &reference.deleted, &seen.deleted));
            }
            if !is_ended {
                wrong.push("the end is not reached".to_owned());
            }
            if !wrong.is_empty() {
                reached = None;
            }
            if wrong.is_empty() && self.is_over() {
                let since = *reached.get_or_insert_with(Instant::now);
                if since.elapsed() >= QUIET && self.is_quiet(QUIET) {
                    let hit_at = self.run.seen().hit_at;
                    let is_met = hit_at.is_some() || self.run.mode() == Mode::Calm;
                    let from = fault_over.or(hit_at);
                    return Ok(
                        is_met.then(|| from.map_or(Duration::ZERO, |from| since.saturating_duration_since(from)))
                    );
                }
            }
            if Instant::now() > deadline {
                if wrong.is_empty() {
                    wrong.push("it is never at rest".to_owned());
                }
                return Err(wrong);
            }
            if tokio::time::timeout(LOOK, self.proxy.died.notified()).await.is_ok() {
                // Told once more, to be met above.
                self.proxy.died.notify_one();
            }
        }
    }

    /// True unless the fault still goes on.
    fn is_over(&self) -> bool {
        let seen = self.run.seen();
        let Some(hit_at) = seen.hit_at else { return true };
        match self.run.mode() {
            Mode::Held | Mode::Rewound | Mode::RewoundFar => hit_at.elapsed() > DELAY,
            Mode::Missed => seen.has_relisted,
            _ => true,
        }
    }

    /// Leaves nothing running; what is in the namespace goes in its own time.
    async fn end(self) {
        let Self { run, operator, kubelet_task, watchdog, .. } = self;
        drop((operator, kubelet_task, watchdog));
        let namespaces: Api<Namespace> = Api::all(run.admin.clone());
        // A cluster that ends with this process is not worth a failure.
        let _ = namespaces.delete(&run.namespace, &DeleteParams::background()).await;
    }
}

fn uneven(what: &str, expected: &BTreeMap<String, Option<usize>>, found: &BTreeMap<String, usize>) -> Vec<String> {
    let kinds = expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    let uneven = kinds.into_iter().filter_map(|kind| {
        // None is a number that differs without a fault, too.
        let wanted = expected.get(kind).copied().unwrap_or(Some(0))?;
        let found = found.get(kind).copied().unwrap_or(0);
        (wanted != found).then(|| format!("{what} {found} {kind} instead of {wanted}"))
    });
    uneven.collect()
}

fn start(run: &Arc<Run>, former: Option<Former>) -> (Arc<Proxy>, Stopper) {
    let proxy = Proxy::new(run, cluster().operator(), former);
    let settings = Settings {
        // A namespace of its own, so that no other plan's operator sweeps what is in it.
        operator_namespace: run.namespace.clone(),
        default_image: parse_image("localhost/bizra:dev"),
        // Nothing may depend on the periodic look.
        status_interval: Duration::from_mins(30),
        namespaces: vec![run.namespace.clone()],
        concurrency: 4,
        healing: HealingLimits::default(),
    };
    let polling =
        PollSettings { interval: Duration::from_millis(300), timeout: Duration::from_secs(2), concurrency: 8 };
    let client = proxy.client();
    let operator = tokio::spawn(async move {
        let metrics = Metrics::new().unwrap();
        let ended = operate(client, "campaign", settings, polling, metrics, std::future::pending()).await;
        panic!("the operator ended: {ended:?}");
    });
    (proxy, Stopper(operator))
}

/// A namespace in which the operator may do what it may in its own, too, and whose volumes can grow.
async fn make_namespace(admin: &Client, name: &str) -> Result<(), kube::Error> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::<Namespace>::all(admin.clone()).create(&PostParams::default(), &namespace).await?;
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some("grows".to_owned()),
            annotations: Some([("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: "test.bizra.io/none".to_owned(),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    match Api::<StorageClass>::all(admin.clone()).create(&PostParams::default(), &class).await {
        // Another plan was first.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    copy::<Role>(admin, name).await?;
    copy::<RoleBinding>(admin, name).await
}

/// Copies what the operator has in its own namespace.
async fn copy<K>(admin: &Client, namespace: &str) -> Result<(), kube::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let own: Api<K> = Api::namespaced(admin.clone(), OPERATOR_NAMESPACE);
    for mut object in own.list(&ListParams::default()).await? {
        *object.meta_mut() = ObjectMeta { name: Some(object.name_any()), ..ObjectMeta::default() };
        Api::<K>::namespaced(admin.clone(), namespace).create(&PostParams::default(), &object).await?;
    }
    Ok(())
}
