//! How long one validator is away: every fault again and again, and a table of fault → voting again.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use bizra_e2e::{
    hosts::Hosts,
    owned::{Owned, with_owner},
    process,
    scene::SceneError,
    stage::{Stage, VALIDATORS},
    volume::Volume,
    witness::{Before, Process},
};
use clap::{Parser, ValueEnum};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};

/// How long a host stays cut off or without power.
const OUTAGE: Duration = Duration::from_secs(10);
/// Longest time a validator may be away, seconds.
const PATIENCE_SECONDS: u64 = 120;
/// Longest time a validator may be away that gets a new key, seconds. A host is first waited for.
const REPLACEMENT_SECONDS: u64 = 300;
/// Every validator whose claim was deleted or whose volume was wiped must vote again in this time.
const NEW_KEY_MAX: Duration = Duration::from_mins(1);
/// Every validator whose host is lost must vote again in this time after that was decided.
const REPLACED_MAX: Duration = Duration::from_mins(1);
/// A validator with an owner that is made for the purpose.
const FIFTH: &str = "fifth";
/// Pause between two looks at a pod.
const LOOK: Duration = Duration::from_millis(40);
/// Half of the killed pods must be back in this time.
const POD_KILLED_MEDIAN_MAX: Duration = Duration::from_secs(5);
/// Every damaged database must be back in this time.
const DATABASE_DAMAGED_MAX: Duration = Duration::from_mins(1);

/// Breaks one validator after the other in several ways, and measures the time until each votes again.
#[derive(Parser)]
#[command(name = "bizra-e2e-repeat")]
struct Arguments {
    /// How often to repeat each fault.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Faults to repeat; all, if none is given.
    #[arg(long = "fault", value_enum)]
    faults: Vec<Fault>,
    /// The `Validator` whose node loses its keys. `fifth` is made first; others must be there, as those of the genesis are.
    #[arg(long, default_value = FIFTH)]
    owned: String,
    /// File to write the figures to, as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Fault {
    /// The pod is deleted without grace: its process is killed.
    PodKilled,
    /// The process is killed in its container. Always on a fresh pod: a kubelet waits longer each time.
    ContainerKilled,
    /// The database is damaged, and the process killed: the operator orders a repair, which needs a permit.
    DatabaseDamaged,
    /// The pod is deleted as users do, and ends in order.
    PodDeleted,
    /// The host's link is cut for a while; the time runs from the moment it is healed.
    LinkCut,
    /// The host loses its power for a while; the time runs from the moment it has power again.
    PowerLost,
    /// The volume claim is deleted. As the two below, of the validator of `--owned`: it votes again with a new key.
    ClaimDeleted,
    /// Everything is removed from the volume, and the process killed.
    VolumeWiped,
    /// The host's link is cut until another node votes in the place of the one on it, and healed then: the old pod is alive. The
    /// time runs from the cut; until the step `Decided`, Kubernetes and the operator wait whether the host comes back.
    HostReplaced,
}

impl Fault {
    /// The keys are lost, and the chain takes others.
    fn costs_keys(self) -> bool {
        matches!(self, Self::ClaimDeleted | Self::VolumeWiped | Self::HostReplaced)
    }
}

/// One repetition.
struct Measure {
    away: Duration,
    /// When each step on the way back was seen, by name.
    steps: BTreeMap<Step, Duration>,
    still: Duration,
}

/// Steps of a pod on its way back, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Decided,
    Created,
    Scheduled,
    VolumeMounted,
    KeyFound,
    GenesisFound,
    Running,
    Answers,
    MaySign,
    Votes,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut measures = BTreeMap::new();
    let result = repeat(&arguments, &mut measures).await;
    print!("{}", table(&measures));
    let written = arguments.out.as_ref().map_or(Ok(()), |out| write(out, &measures));
    let missed = missed(&measures);
    if let Err(error) = result {
        eprintln!("error: {error}");
    } else if let Err(error) = written {
        eprintln!("error: the figures could not be written: {error}");
    } else if let Some(missed) = missed {
        eprintln!("error: {missed}");
    } else {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// The target that was missed.
fn missed(measures: &BTreeMap<Fault, Vec<Measure>>) -> Option<String> {
    let of = |fault| measures.get(&fault).map(|measures| away(measures)).unwrap_or_default();
    let median = quantile(of(Fault::PodKilled), 1, 2);
    let longest = quantile(of(Fault::DatabaseDamaged), 1, 1);
    if median > POD_KILLED_MEDIAN_MAX {
        let target = POD_KILLED_MEDIAN_MAX;
        return Some(format!("half of the killed pods were away for {median:?}, the target is {target:?}"));
    }
    for fault in [Fault::ClaimDeleted, Fault::VolumeWiped] {
        let longest = quantile(of(fault), 1, 1);
        if longest > NEW_KEY_MAX {
            return Some(format!("{fault:?}: away for {longest:?}, the target is {NEW_KEY_MAX:?}"));
        }
    }
    let replaced = measures.get(&Fault::HostReplaced).into_iter().flatten();
    let since_decided =
        |measure: &Measure| measure.away.saturating_sub(measure.steps.get(&Step::Decided).copied().unwrap_or_default());
    let longest_replaced = replaced.map(since_decided).max().unwrap_or_default();
    if longest_replaced > REPLACED_MAX {
        return Some(format!(
            "a validator of a lost host was away for {longest_replaced:?} after that was decided, the target is {REPLACED_MAX:?}"
        ));
    }
    let target = DATABASE_DAMAGED_MAX;
    (longest > target).then(|| format!("a damaged database was away for {longest:?}, the target is {target:?}"))
}

async fn repeat(arguments: &Arguments, measures: &mut BTreeMap<Fault, Vec<Measure>>) -> Result<(), SceneError> {
    let faults = if arguments.faults.is_empty() { Fault::value_variants().to_vec() } else { arguments.faults.clone() };
    let hosts = Hosts::embedded()?;
    let costs_keys = faults.iter().any(|fault| fault.costs_keys());
    let adjust: fn(&mut Value) = if costs_keys { with_owner } else { |_| {} };
    let mut stage = Stage::start("repeat", adjust).await?;
    let owned = match arguments.owned.as_str() {
        FIFTH if costs_keys => Owned::join(&mut stage, FIFTH).await?,
        name => Owned::named(name),
    };
    for round in 0..arguments.repeats {
        let validator = VALIDATORS[round as usize % VALIDATORS.len()];
        for &fault in &faults {
            stage.begin();
            let (away, steps) = if fault.costs_keys() {
                replaced(&mut stage, &hosts, fault, &owned).await?
            } else {
                let took = once(&stage, &hosts, fault, validator).await?;
                stage.scene.wait_node_ready(validator, PATIENCE_SECONDS).await?;
                took
            };
            let act = stage.end(&format!("{round:>3} {fault:?} {validator}")).await?;
            measures.entry(fault).or_default().push(Measure { away, steps, still: act.still });
        }
    }
    stage.finish().await
}

/// The validator loses its node's keys, and votes again with others.
async fn replaced(
    stage: &mut Stage,
    hosts: &Hosts,
    fault: Fault,
    owned: &Owned,
) -> Result<(Duration, BTreeMap<Step, Duration>), SceneError> {
    let former = owned.node(&stage.scene).await?;
    let pod = stage.scene.pod(&former).await?;
    let mut before = stage.before(&former);
    let mut steps = BTreeMap::new();
    let mut cut = None;
    let begun = Instant::now();
    match fault {
        Fault::ClaimDeleted => owned.delete_claim(&stage.scene).await?,
        Fault::VolumeWiped => owned.wipe_volume(&stage.scene).await?,
        _ => {
            cut = Some(hosts.cut_link(&stage.scene.host_of(&former).await?).await?);
            let successor = owned.wait_replacement(&stage.scene, &former, REPLACEMENT_SECONDS).await?;
            steps.insert(Step::Decided, begun.elapsed());
            stage.witness.watch(&stage.scene, &successor);
            before = stage.before(&successor);
        }
    }
    tokio::select! {
        voted = stage.witness.votes_again(&before, Process::New, REPLACEMENT_SECONDS) => voted?,
        () = follow(stage, &pod, &before, begun, &mut steps) => {}
    }
    let away = begun.elapsed();
    steps.insert(Step::Votes, away);
    if let Some(cut) = cut {
        owned.wait_validates(&stage.scene, REPLACEMENT_SECONDS).await?;
        cut.heal().await?;
        owned.wait_gone(&stage.scene, &former, PATIENCE_SECONDS).await?;
    }
    owned.wait_validates(&stage.scene, REPLACEMENT_SECONDS).await?;
    stage.scene.wait_node_ready(before.validator(), PATIENCE_SECONDS).await?;
    Ok((away, steps))
}

/// One fault of one validator, and how long it was away.
async fn once(
    stage: &Stage,
    hosts: &Hosts,
    fault: Fault,
    validator: &str,
) -> Result<(Duration, BTreeMap<Step, Duration>), SceneError> {
    let pod = stage.scene.pod(validator).await?;
    let uid = pod.uid().unwrap_or_default();
    let mut before = stage.before(validator);
    let mut begun = Instant::now();
    let mut expected = Process::New;
    match fault {
        Fault::PodKilled | Fault::PodDeleted => {
            let grace = (fault == Fault::PodKilled).then_some(0);
            let how = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
            stage.scene.api::<Pod>().delete(validator, &how).await?;
        }
        Fault::DatabaseDamaged => {
            let process = process::Process::of_pod(&uid, "bizra-node")?;
            Volume::of(&process).damage_database()?;
            process.kill()?;
        }
        Fault::ContainerKilled => process::Process::of_pod(&uid, "bizra-node")?.kill()?,
        Fault::LinkCut => {
            let cut = hosts.cut_link(&stage.scene.host_of(validator).await?).await?;
            tokio::time::sleep(OUTAGE).await;
            before = stage.before(validator);
            expected = Process::Any;
            begun = Instant::now();
            cut.heal().await?;
        }
        Fault::PowerLost => {
            let off = hosts.power_off(&stage.scene.host_of(validator).await?).await?;
            tokio::time::sleep(OUTAGE).await;
            before = stage.before(validator);
            begun = Instant::now();
            off.heal().await?;
        }
        // See `replaced`.
        Fault::ClaimDeleted | Fault::VolumeWiped | Fault::HostReplaced => {}
    }
    let mut steps = BTreeMap::new();
    tokio::select! {
        voted = stage.witness.votes_again(&before, expected, PATIENCE_SECONDS) => voted?,
        () = follow(stage, &pod, &before, begun, &mut steps) => {}
    }
    let away = begun.elapsed();
    steps.insert(Step::Votes, away);
    Ok((away, steps))
}

/// Notes when each step is first seen, for ever.
async fn follow(stage: &Stage, former: &Pod, before: &Before, begun: Instant, steps: &mut BTreeMap<Step, Duration>) {
    let restarts = |pod: &Pod| container(pod, "node").map_or(0, |status| status.restart_count);
    loop {
        let pod = stage.scene.pod(before.validator()).await.ok();
        let pod = pod.filter(|pod| pod.uid() != former.uid() || restarts(pod) > restarts(former));
        let mut see = |step, seen: bool| {
            if seen {
                steps.entry(step).or_insert_with(|| begun.elapsed());
            }
        };
        if let Some(pod) = pod {
            see(Step::Created, pod.uid() != former.uid());
            see(Step::Scheduled, pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
            let started = |status: &ContainerStatus| {
                status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            };
            let ended =
                |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
            see(Step::VolumeMounted, container(&pod, "key").is_some_and(started));
            see(Step::KeyFound, container(&pod, "key").is_some_and(ended));
            see(Step::GenesisFound, container(&pod, "genesis").is_some_and(ended));
            see(Step::Running, container(&pod, "node").is_some_and(started));
        }
        let sighting = stage.witness.sighting(before.validator());
        if let Some(sighting) = sighting.filter(|sighting| before.is_other(sighting)) {
            see(Step::Answers, true);
            see(Step::MaySign, sighting.ready);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.into_iter().find(|container| container.name == name)
}

fn away(measures: &[Measure]) -> Vec<Duration> {
    measures.iter().map(|measure| measure.away).collect()
}

/// The smallest value that at least `part` of `whole` values do not exceed.
fn quantile(mut values: Vec<Duration>, part: usize, whole: usize) -> Duration {
    values.sort_unstable();
    let rank = (values.len() * part).div_ceil(whole.max(1));
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn table(measures: &BTreeMap<Fault, Vec<Measure>>) -> String {
    let mut text = String::from("\nfault            n   p50 s   max s   longest s without a block\n");
    for (fault, measures) in measures {
        let still = measures.iter().map(|measure| measure.still).max().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<15}{:>3}{:>8.2}{:>8.2}{:>8.2}",
            format!("{fault:?}"),
            measures.len(),
            quantile(away(measures), 1, 2).as_secs_f64(),
            quantile(away(measures), 1, 1).as_secs_f64(),
            still.as_secs_f64(),
        );
    }
    text.push_str("\nmedian times of the steps on the way back, s\n");
    for (fault, measures) in measures {
        let steps = medians(measures).into_iter().map(|(step, at)| format!("{step:?} {:.2}", at.as_secs_f64()));
        let _ = writeln!(text, "{:<15} {}", format!("{fault:?}"), steps.collect::<Vec<_>>().join(", "));
    }
    text
}

fn medians(measures: &[Measure]) -> BTreeMap<Step, Duration> {
    let mut all: BTreeMap<Step, Vec<Duration>> = BTreeMap::new();
    for (step, at) in measures.iter().flat_map(|measure| &measure.steps) {
        all.entry(*step).or_default().push(*at);
    }
    all.into_iter().map(|(step, times)| (step, quantile(times, 1, 2))).collect()
}

fn write(out: &PathBuf, measures: &BTreeMap<Fault, Vec<Measure>>) -> std::io::Result<()> {
    let figures: BTreeMap<String, Value> = measures
        .iter()
        .map(|(fault, measures)| {
            let seconds: Vec<f64> = away(measures).iter().map(Duration::as_secs_f64).collect();
            let steps: BTreeMap<String, f64> =
                medians(measures).into_iter().map(|(step, at)| (format!("{step:?}"), at.as_secs_f64())).collect();
            let figure = json!({
                "awaySeconds": seconds,
                "p50Seconds": quantile(away(measures), 1, 2).as_secs_f64(),
                "maxSeconds": quantile(away(measures), 1, 1).as_secs_f64(),
                "longestSecondsWithoutBlock":
                    measures.iter().map(|measure| measure.still.as_secs_f64()).fold(0.0, f64::max),
                "medianStepSeconds": steps,
            });
            (format!("{fault:?}"), figure)
        })
        .collect();
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(out, serde_json::to_vec_pretty(&figures)?)
}
