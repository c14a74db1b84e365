//! Carries out plans, several at a time, and keeps what came of them, so that a campaign that was stopped goes on.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    hash::Hasher as _,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    bed::{Outcome, attempt},
    plan::{Mode, Plan, derive, spread},
    reference::Reference,
    workload::{self, Workload},
};

/// How long a plan may take from its last fault to the end that the reference has.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is carried out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// About so many plans; all without.
    pub limit: Option<usize>,
    /// Only plans whose names match.
    pub only: Option<Regex>,
    /// Only these workloads; all if it is empty.
    pub workloads: Vec<String>,
    /// Plans at a time.
    pub jobs: usize,
    /// Where results are kept and gone on from; without, nothing is kept.
    pub folder: Option<PathBuf>,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Summary {
    /// By mode: plans that converged, whose place was not met, and that failed.
    pub modes: BTreeMap<&'static str, [usize; 3]>,
    /// The same by workload.
    pub workloads: BTreeMap<&'static str, [usize; 3]>,
    /// Names of what failed, and how.
    pub failures: Vec<(String, Vec<String>)>,
    /// From the last fault to the end, of those that converged.
    pub recoveries: Vec<Duration>,
    /// Plans that an earlier campaign had carried out.
    pub kept: usize,
    /// What it took.
    pub elapsed: Duration,
}

/// A line of the result file.
#[derive(Deserialize, Serialize)]
struct Line {
    plan: String,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovery_milliseconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    found: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    writes: Vec<String>,
}

const CONVERGED: &str = "converged";
const UNMET: &str = "unmet";
const FAILED: &str = "failed";

impl Summary {
    /// True if nothing failed and something was carried out.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.count(0) > 0
    }

    /// How many of all plans converged (0), were not met (1) or failed (2).
    pub fn count(&self, outcome: usize) -> usize {
        self.modes.values().map(|counts| counts[outcome]).sum()
    }

    fn add(&mut self, plan: &Plan, line: &Line) {
        let index = [CONVERGED, UNMET, FAILED].iter().position(|outcome| *outcome == line.outcome).unwrap_or(2);
        self.modes.entry(plan.mode.name()).or_default()[index] += 1;
        self.workloads.entry(plan.workload).or_default()[index] += 1;
        if index == 2 {
            self.failures.push((line.plan.clone(), line.found.clone()));
        }
        if plan.mode != Mode::Calm && index == 0 {
            self.recoveries.extend(line.recovery_milliseconds.map(Duration::from_millis));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, table) in [("mode", &self.modes), ("workload", &self.workloads)] {
            writeln!(formatter, "{title:<26} converged  not met  failed")?;
            for (name, [converged, unmet, failed]) in table {
                writeln!(formatter, "{name:<26} {converged:>9}  {unmet:>7}  {failed:>6}")?;
            }
        }
        for (plan, found) in &self.failures {
            writeln!(formatter, "FAILED {plan}")?;
            for what in found.iter().take(6) {
                writeln!(formatter, "    {}", what.chars().take(240).collect::<String>())?;
            }
        }
        let mut sorted = self.recoveries.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        let seconds = |percent| at(percent).map_or(0.0, Duration::as_secs_f64);
        write!(
            formatter,
            "campaign: {} plans ({} of an earlier one), {} converged, {} not met, {} failed; from fault to end p50 {:.1} s, p99 {:.1} s, longest {:.1} s; {:.0} s in all",
            self.count(0) + self.count(1) + self.count(2),
            self.kept,
            self.count(0),
            self.count(1),
            self.count(2),
            seconds(50),
            seconds(99),
            seconds(100),
            self.elapsed.as_secs_f64(),
        )
    }
}

/// The workloads that are meant; they are there as long as the process.
pub(crate) fn workloads(names: &[String]) -> &'static [Workload] {
    let mut all = workload::all();
    all.retain(|workload| names.is_empty() || names.iter().any(|name| name == workload.name));
    assert!(!all.is_empty(), "no such workload: {names:?}");
    Box::leak(all.into_boxed_slice())
}

/// Runs every workload without a fault.
pub(crate) async fn references(
    workloads: &'static [Workload],
    jobs: usize,
    mut known: HashMap<String, Reference>,
) -> (HashMap<String, Reference>, Vec<(String, String)>) {
    let unknown: Vec<&'static Workload> =
        workloads.iter().filter(|workload| !known.contains_key(workload.name)).collect();
    let recorded = stream::iter(unknown).map(|workload| async move {
        let reference = tokio::spawn(Reference::record(workload)).await;
        (workload.name.to_owned(), reference.unwrap_or_else(|error| Err(error.to_string())))
    });
    let mut failures = Vec::new();
    for (name, reference) in recorded.buffer_unordered(jobs).collect::<Vec<_>>().await {
        match reference {
            Ok(reference) => drop(known.insert(name, reference)),
            Err(why) => failures.push((name, why)),
        }
    }
    (known, failures)
}

/// Every plan of the workloads that have a reference.
pub(crate) fn plans_of(workloads: &'static [Workload], references: &HashMap<String, Reference>) -> Vec<Plan> {
    workloads
        .iter()
        .filter_map(|workload| Some((workload.name, references.get(workload.name)?)))
        .flat_map(|(name, reference)| derive(name, &reference.writes, &reference.events))
        .collect()
}

/// Carries out a plan; a panic is a failure of the plan.
pub(crate) async fn carry_out(
    plan: Plan,
    workload: &'static Workload,
    reference: Reference,
    patience: Duration,
) -> (Plan, Outcome) {
    let name = plan.clone();
    let attempted = tokio::spawn(async move { attempt(workload, &plan, &reference, patience).await });
    let outcome = attempted.await.unwrap_or_else(|error| Outcome::Failed(vec![error.to_string()], Vec::new()));
    (name, outcome)
}

/// Carries out a campaign.
pub async fn conduct(settings: &Settings) -> Summary {
    let started = Instant::now();
    let workloads = workloads(&settings.workloads);
    let store = settings.folder.as_deref().map(Store::open);
    let known = store.as_ref().map(Store::references).unwrap_or_default();
    let (references, failures) = references(workloads, settings.jobs, known).await;
    if let Some(store) = &store {
        store.keep_references(&references);
    }
    let mut plans = plans_of(workloads, &references);
    println!(
        "{} plans in {} workloads; references took {:.0} s",
        plans.len(),
        workloads.len(),
        started.elapsed().as_secs_f64()
    );
    plans.retain(|plan| settings.only.as_ref().is_none_or(|only| only.is_match(&plan.name())));
    if let Some(limit) = settings.limit {
        plans = spread(plans, limit);
    }
    let mut summary = Summary::default();
    let without_fault = |(name, why)| (format!("{name} without a fault"), vec![why]);
    summary.failures.extend(failures.into_iter().map(without_fault));
    let done = store.as_ref().map(Store::done).unwrap_or_default();
    plans.retain(|plan| {
        let Some(line) = done.get(&plan.name()) else { return true };
        summary.add(plan, line);
        summary.kept += 1;
        false
    });
    // Workloads and modes mixed: what is alike would wait for the same at the same time.
    let total = plans.len();
    let order = |index: usize| (index * 7919) % total.max(1);
    let mut plans: Vec<(usize, Plan)> =
        plans.into_iter().enumerate().map(|(index, plan)| (order(index), plan)).collect();
    plans.sort_by_key(|(place, _)| *place);
    let of =
        |plan: &Plan| workloads.iter().find(|workload| workload.name == plan.workload).expect("plans are of these");
    let attempts = stream::iter(plans).map(|(_, plan)| {
        let (workload, reference) = (of(&plan), references[plan.workload].clone());
        carry_out(plan, workload, reference, PATIENCE)
    });
    let mut attempts = std::pin::pin!(attempts.buffer_unordered(settings.jobs));
    let mut number = 0;
    while let Some((plan, outcome)) = attempts.next().await {
        number += 1;
        let line = Line::of(&plan, outcome);
        if line.outcome == FAILED {
            println!("FAILED {}: {}", line.plan, line.found.first().map_or("", String::as_str));
        }
        if number % 50 == 0 {
            println!("{number} of {total} plans after {:.0} s", started.elapsed().as_secs_f64());
        }
        if let Some(store) = &store {
            store.add(&line);
        }
        summary.add(&plan, &line);
    }
    summary.elapsed = started.elapsed();
    summary
}

impl Line {
    fn of(plan: &Plan, outcome: Outcome) -> Self {
        let plan = plan.name();
        let line = |outcome: &str| Self {
            plan,
            outcome: outcome.to_owned(),
            recovery_milliseconds: None,
            found: Vec::new(),
            writes: Vec::new(),
        };
        match outcome {
            Outcome::Converged(after) => {
                Self { recovery_milliseconds: u64::try_from(after.as_millis()).ok(), ..line(CONVERGED) }
            }
            Outcome::Unmet => line(UNMET),
            Outcome::Failed(found, writes) => Self { found, writes, ..line(FAILED) },
        }
    }
}

/// Results in a folder. They are those of one build: of another one nothing is taken over.
struct Store {
    folder: PathBuf,
}

impl Store {
    fn open(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder of the results can be made");
        let build = build();
        let stamp = folder.join("build");
        if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&build) {
            for file in ["results.jsonl", "references.json"] {
                let _ = std::fs::remove_file(folder.join(file));
            }
            std::fs::write(stamp, build).expect("the folder of the results can be written to");
        }
        Self { folder: folder.to_owned() }
    }

    fn references(&self) -> HashMap<String, Reference> {
        let file = std::fs::read(self.folder.join("references.json")).unwrap_or_default();
        serde_json::from_slice(&file).unwrap_or_default()
    }

    fn keep_references(&self, references: &HashMap<String, Reference>) {
        let file = serde_json::to_vec(references).unwrap();
        std::fs::write(self.folder.join("references.json"), file).expect("references can be kept");
    }

    /// What has converged. Everything else is tried again.
    fn done(&self) -> HashMap<String, Line> {
        let Ok(file) = File::open(self.folder.join("results.jsonl")) else { return HashMap::new() };
        // The last line may be half of one.
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let lines = lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok());
        lines.filter(|line| line.outcome == CONVERGED).map(|line| (line.plan.clone(), line)).collect()
    }

    fn add(&self, line: &Line) {
        let mut file = File::options().create(true).append(true).open(self.folder.join("results.jsonl")).unwrap();
        file.write_all(format!("{}\n", serde_json::to_string(line).unwrap()).as_bytes()).unwrap();
    }
}

/// Tells one build of this program, operator included, from another.
fn build() -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&std::fs::read("/proc/self/exe").expect("a program can read itself"));
    format!("{:016x}", hasher.finish())
}
