//! The operator as a process of its own against a real etcd and kube-apiserver, with thousands of nodes.
//!
//! What is real: etcd, API server, garbage collector, disruption controller, the operator's binary with the operator's rights,
//! keys, proofs, certificate requests, and the admin port over mutual TLS. What is played: kubelets and nodes (one program
//! for all of them), and no scheduler or volume runs. Writes and reads are counted in the API server's audit log, not by the
//! operator; processor time and memory come from `/proc`. All programs share the machine, this one included.

// A bench that cannot go on stops and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod ceiling;
#[allow(dead_code)]
#[path = "../../../operator/tests/api_server/cluster.rs"]
mod cluster;
mod fleet;
mod kubelet;
mod nodes;
mod process;
mod report;
mod run;
mod volumes;

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;

use run::{Outcome, Size, Subject};

/// Measure the operator with many nodes.
#[derive(Parser)]
struct Arguments {
    /// The `bizra-operator` binary.
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
    /// The Go operator to compare with; without it there is no comparison.
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
    /// Numbers of nodes, each on a cluster of its own.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    nodes: Vec<usize>,
    /// Nodes of one network, its four validators included.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(5..=500))]
    network: u16,
    /// Seconds watched at rest.
    #[arg(long, default_value_t = 120)]
    rest: u64,
    /// Seconds watched while the chains grow; 0 skips it.
    #[arg(long, default_value_t = 60)]
    moving: u64,
    /// Seconds the API server's write ceiling is measured for, before and after.
    #[arg(long, default_value_t = 10)]
    ceiling: u64,
    /// 200 nodes and short windows.
    #[arg(long)]
    quick: bool,
    /// File for the results; the operators' log goes beside it.
    #[arg(long, value_name = "FILE", default_value = "target/bench/operator.json")]
    out: PathBuf,
}

fn main() {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.nodes, arguments.rest, arguments.moving, arguments.ceiling) = (vec![200], 20, 10, 3);
    }
    let size = |nodes| Size {
        nodes,
        of_network: usize::from(arguments.network),
        rest: arguments.rest,
        moving: arguments.moving,
        ceiling: arguments.ceiling,
    };
    if let Some(folder) = arguments.out.parent() {
        std::fs::create_dir_all(folder).expect("the folder of the results can be made");
    }
    let log = arguments.out.with_extension("log");
    std::fs::write(&log, "").expect("the operators' log can be written");
    let mut results = Vec::new();
    for &nodes in &arguments.nodes {
        let peer = arguments.peer.clone().map(Subject::Peer);
        for subject in [Subject::Operator(arguments.operator.clone())].into_iter().chain(peer) {
            let Some(result) = run::measure(&subject, size(nodes), &log) else {
                eprintln!("bench-operator: interrupted; everything it had started is gone");
                std::process::exit(130);
            };
            results.push(result);
            // After each, so that a later one that fails takes nothing along.
            write_results(&arguments.out, &results);
        }
    }
    report::print(&results);
    println!("written to {}", arguments.out.display());
    let writes_at_rest = results.iter().filter(|result| result.is_ours).any(|result| result.rest.writes() > 0);
    if writes_at_rest {
        eprintln!("bench-operator: the operator wrote at rest");
        std::process::exit(1);
    }
}

fn write_results(file: &Path, results: &[Outcome]) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let document = json!({ "cores": cores, "runs": results.iter().map(report::json).collect::<Vec<_>>() });
    std::fs::write(file, format!("{document:#}\n")).expect("the results can be written");
}
