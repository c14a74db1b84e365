//! Edits of every field of every custom resource against the operator on a real etcd and kube-apiserver.
//!
//! From the generated schemas alone: every leaf with nothing, with sound values, at and beyond its bounds, with what is hostile,
//! with another type; ten such edits in a row, then back to the first spec. An edit must be refused by the API server with a
//! reason that names the field, or the object must say within 30 seconds that it is ready, or why not. A network beside it, which
//! nobody edits, must be looked after all the time. Back at the first spec, everything must be as after a first deployment.
//!
//! What is real: etcd, API server, garbage collector, disruption controller, the operator's code and its rights. Played: kubelets
//! and nodes, those of the operator's own tests. The idea is Acto's (SOSP 2023).

// A run that cannot go on stops and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod canary;
mod chain;
// Shared with the operator's tests, which use more of them.
#[allow(dead_code)]
#[path = "../../../operator/tests/api_server/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../../../operator/tests/api_server/kubelet.rs"]
mod kubelet;
#[allow(dead_code)]
#[path = "../../faults/src/random.rs"]
mod random;
mod run;
#[allow(dead_code)]
#[path = "../../../operator/tests/api_server/scenario.rs"]
mod scenario;
mod schema;
mod state;
mod values;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use chain::{Deck, EDITS};
use run::{Record, Talk};

/// Chains that hold this many transitions; going back is one.
pub fn chains_for(transitions: u64) -> u64 {
    transitions.div_ceil(EDITS as u64 + 1)
}

/// What a run has shown.
pub struct Outcome {
    /// Edits that were sent, ways back included.
    pub transitions: usize,
    /// What must not be, a line each; every line has the seed that repeats it.
    pub failures: Vec<String>,
    /// Leaves that no edit has touched.
    pub untouched: Vec<String>,
    /// Everything, for a file.
    pub results: Value,
}

/// Runs chains, some at the same time, each in a namespace and with an operator of its own.
pub async fn mutate(seeds: Range<u64>, at_once: usize) -> Outcome {
    let started = Instant::now();
    let deck = Arc::new(Deck::new());
    let count = seeds.end - seeds.start;
    let talk = if count == 1 { Talk::Edits } else { Talk::Failures };
    let runs = stream::iter(seeds).map(|seed| {
        let deck = Arc::clone(&deck);
        tokio::spawn(async move { run::run(&deck, &deck.chain(seed), talk).await })
    });
    let mut runs = runs.buffer_unordered(at_once);
    let mut records = Vec::new();
    while let Some(record) = runs.next().await {
        let record = record.expect("the test itself does not panic");
        let endings: Vec<String> =
            record.endings.iter().map(|(ending, count)| format!("{count} {}", ending.trim_end())).collect();
        eprintln!(
            "{}/{count} chain {} {}: {}; {} failures; back in {:.1} s, {:.1} s in all",
            records.len() + 1,
            record.seed,
            record.kind,
            endings.join(", "),
            record.failures.len(),
            record.back.as_secs_f64(),
            record.took.as_secs_f64(),
        );
        records.push(record);
    }
    outcome(&deck, &records, started.elapsed())
}

fn outcome(deck: &Deck, records: &[Record], took: Duration) -> Outcome {
    let mut touched: BTreeMap<String, BTreeSet<String>> =
        deck.leaves().map(|leaf| (leaf.to_string(), BTreeSet::new())).collect();
    let mut endings: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let leaves = &deck.kinds[&record.kind].leaves;
        for (leaf, sort) in &record.touched {
            touched.entry(leaves[*leaf].to_string()).or_default().insert(format!("{sort:?}"));
        }
        for (ending, count) in &record.endings {
            *endings.entry(ending.trim_end()).or_default() += count;
        }
    }
    let failures = records.iter().flat_map(|record| &record.failures).map(|failure| {
        let run::Failure { seed, edit, change, what } = failure;
        format!("SEED={seed} edit {edit}: {change}: {what}")
    });
    let failures: Vec<String> = failures.collect();
    let untouched: Vec<String> =
        touched.iter().filter(|(_, sorts)| sorts.is_empty()).map(|(leaf, _)| leaf.clone()).collect();
    let transitions = records.iter().map(|record| record.transitions).sum();
    let longest = |of: fn(&Record) -> Duration| records.iter().map(of).max().unwrap_or_default().as_secs_f64();
    let sorts: Vec<usize> = touched.values().map(BTreeSet::len).collect();
    let results = json!({
        "transitions": transitions,
        "chains": records.len(),
        "seconds": took.as_secs_f64(),
        "endings": endings,
        "longestWayBackSeconds": longest(|record| record.back),
        "longestCanarySeconds": longest(|record| record.canary),
        "leaves": touched.len(),
        "leavesTouched": touched.len() - untouched.len(),
        "fewestSortsOfALeaf": sorts.iter().min(),
        "meanSortsOfALeaf": sorts.iter().sum::<usize>() as f64 / sorts.len().max(1) as f64,
        "sortsOfValues": touched,
        "failures": failures,
    });
    Outcome { transitions, failures, untouched, results }
}
