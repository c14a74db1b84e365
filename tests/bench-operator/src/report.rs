//! The results as JSON and as a table beside what was measured of public operators.

use serde_json::{Value, json};

use crate::run::{Outcome, Stretch};

/// Most memory the operator may use with 5,000 nodes, MiB.
const RESIDENT_AIM: f64 = 150.0;
/// The table's lines of the two public operators, at 500 custom resources on a machine of the same kind.
const PUBLIC: [[&str; 9]; 2] = [
    ["cosmos-operator", "500", "243.5", "11.5", "-", "175", "20.0", "0.0", "0.29"],
    ["cosmopilot", "500", "262.1", "43.8", "-", "233", "55.6", "129", "1.18"],
];

/// All figures of a run.
pub(crate) fn json(outcome: &Outcome) -> Value {
    let Outcome {
        is_ours,
        nodes,
        ceiling: (ceiling_before, ceiling_after),
        resident_idle,
        resident_most,
        ready_seconds,
        ramp,
        node_p99,
        network_p99,
        rest,
        moving,
        looked_seconds,
        recovered_seconds,
    } = outcome;
    json!({
        "operator": if *is_ours { "bizra" } else { "go-peer" },
        "nodes": nodes,
        "apiServerWritesPerSecondMax": { "before": ceiling_before, "after": ceiling_after },
        "secondsToAllReady": ready_seconds,
        "writesPerNode": writes_per_node(outcome),
        "eventsPerNode": ramp.requests.events() as f64 / *nodes as f64,
        "readsPerNode": ramp.requests.reads() as f64 / *nodes as f64,
        "writesPerSecondToReady": ramp.writes() as f64 / ready_seconds,
        "shareOfCeiling": share_of_ceiling(outcome),
        "reconcilesPerSecondToReady": ramp.reconciles / ready_seconds,
        "cpuMillisecondsPerWrite": ramp.cpu_seconds * 1000.0 / ramp.writes().max(1) as f64,
        "reconcileSecondsP99": { "node": node_p99, "network": network_p99 },
        "residentMebibytes": {
            "idle": resident_idle, "ready": ramp.resident, "rest": rest.resident, "most": resident_most,
        },
        "ramp": stretch(ramp),
        "rest": stretch(rest),
        "growing": moving.as_ref().map(stretch),
        "restart": { "secondsToLookAtAll": looked_seconds, "secondsToDeletedPodsRunning": recovered_seconds },
    })
}

fn stretch(stretch: &Stretch) -> Value {
    json!({
        "seconds": stretch.seconds,
        "cpuSeconds": stretch.cpu_seconds,
        "cores": stretch.cpu_seconds / stretch.seconds,
        "writes": stretch.writes(),
        "leaseWrites": stretch.requests.lease_writes(),
        "reads": stretch.requests.reads(),
        "reconciles": stretch.reconciles,
        "answersOfNodes": stretch.answers,
        "residentMebibytes": stretch.resident,
        "requests": stretch.requests.table(),
    })
}

fn writes_per_node(outcome: &Outcome) -> f64 {
    outcome.ramp.writes() as f64 / outcome.nodes as f64
}

/// Which share of what the API server takes at most the operator wrote until all was ready.
fn share_of_ceiling(outcome: &Outcome) -> f64 {
    let (before, after) = outcome.ceiling;
    outcome.ramp.writes() as f64 / outcome.ready_seconds / before.midpoint(after)
}

fn line(columns: &[String]) {
    let [name, rest @ ..] = columns else { return };
    print!("{name:>16}");
    for column in rest {
        print!(" {column:>11}");
    }
    println!();
}

/// Prints all runs.
pub(crate) fn print(outcomes: &[Outcome]) {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    line(&words(&[
        "operator",
        "nodes",
        "ready s",
        "writes/node",
        "ceiling %",
        "MiB",
        "rest wr/s",
        "rest rd/s",
        "rest cores",
    ]));
    for outcome in outcomes {
        let rest = &outcome.rest;
        line(&[
            if outcome.is_ours { "bizra" } else { "Go, same shape" }.to_owned(),
            outcome.nodes.to_string(),
            format!("{:.1}", outcome.ready_seconds),
            format!("{:.1}", writes_per_node(outcome)),
            format!("{:.0}", share_of_ceiling(outcome) * 100.0),
            format!("{:.0}", rest.resident),
            format!("{:.1}", rest.writes() as f64 / rest.seconds),
            format!("{:.1}", rest.requests.reads() as f64 / rest.seconds),
            format!("{:.2}", rest.cpu_seconds / rest.seconds),
        ]);
    }
    for public in PUBLIC {
        line(&words(&public));
    }
    for outcome in outcomes {
        details(outcome);
    }
}

fn details(outcome: &Outcome) {
    let Outcome { nodes, ramp, rest, ceiling: (before, after), .. } = outcome;
    let name = if outcome.is_ours { "bizra" } else { "Go, same shape" };
    println!("{name}, {nodes} nodes:");
    println!("  the API server took at most {before:.0} writes a second before and {after:.0} after");
    println!(
        "  ramp: {:.0} writes a second ({:.1} Events a node among {:.1} writes), {:.1} reads a node, {:.0} reconciliations a second, {:.1} ms of CPU a write",
        ramp.writes() as f64 / outcome.ready_seconds,
        ramp.requests.events() as f64 / *nodes as f64,
        writes_per_node(outcome),
        ramp.requests.reads() as f64 / *nodes as f64,
        ramp.reconciles / outcome.ready_seconds,
        ramp.cpu_seconds * 1000.0 / ramp.writes().max(1) as f64,
    );
    println!(
        "  99 of 100 reconciliations took at most {:.0} ms of a node, {:.0} ms of its owner",
        outcome.node_p99 * 1000.0,
        outcome.network_p99 * 1000.0
    );
    println!(
        "  at rest for {:.0} s: {} writes ({} renewals of the lease aside), {} reads, {:.3} cores, {:.0} questions to nodes a second",
        rest.seconds,
        rest.writes(),
        rest.requests.lease_writes(),
        rest.requests.reads(),
        rest.cpu_seconds / rest.seconds,
        rest.answers as f64 / rest.seconds,
    );
    if let Some(moving) = &outcome.moving {
        println!(
            "  with chains that grow: {:.1} writes a second, {:.1} reads a second, {:.3} cores",
            moving.writes() as f64 / moving.seconds,
            moving.requests.reads() as f64 / moving.seconds,
            moving.cpu_seconds / moving.seconds,
        );
    }
    println!(
        "  memory: {:.0} MiB idle, {:.0} when ready, {:.0} at rest, {:.0} at most",
        outcome.resident_idle, ramp.resident, rest.resident, outcome.resident_most
    );
    println!(
        "  killed and started again: every node looked at after {:.1} s, deleted pods running after {:.1} s",
        outcome.looked_seconds, outcome.recovered_seconds
    );
    if outcome.is_ours && *nodes >= 5000 {
        let word = if rest.resident <= RESIDENT_AIM { "met" } else { "missed" };
        println!("  {word}: {:.0} MiB with {nodes} nodes, aim at most {RESIDENT_AIM:.0}", rest.resident);
    }
}
