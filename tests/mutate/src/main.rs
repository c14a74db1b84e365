//! `bizra-mutate-crs`: see the library.

// A run that cannot go on stops and says where.
#![allow(clippy::expect_used)]

use std::{path::PathBuf, process::ExitCode};

use bizra_mutate_crs::{chains_for, mutate};
use clap::Parser;

/// Edit every field of every custom resource and watch what the operator makes of it.
#[derive(Parser)]
struct Arguments {
    /// Edits, ways back included.
    #[arg(long, default_value_t = 1000)]
    transitions: u64,
    /// Run this chain alone.
    #[arg(long)]
    seed: Option<u64>,
    /// The first chain; later ones have other values.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Chains at the same time.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// File for the results.
    #[arg(long, value_name = "FILE", default_value = "target/mutate/results.json")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = arguments.from..arguments.from + chains_for(arguments.transitions);
    let seeds = arguments.seed.map_or(all, |seed| seed..seed + 1);
    let outcome = mutate(seeds, arguments.at_once).await;
    if let Some(folder) = arguments.out.parent() {
        std::fs::create_dir_all(folder).expect("the folder of the results can be made");
    }
    std::fs::write(&arguments.out, format!("{:#}\n", outcome.results)).expect("the results can be written");
    let told = |key: &str| outcome.results[key].to_string();
    println!("transitions {}, endings {:#}", outcome.transitions, outcome.results["endings"]);
    println!(
        "longest way back {} s, longest wait of the untouched network {} s",
        told("longestWayBackSeconds"),
        told("longestCanarySeconds")
    );
    println!(
        "leaves {} of {}, each with {} sorts of values or more, {} on average",
        told("leavesTouched"),
        told("leaves"),
        told("fewestSortsOfALeaf"),
        told("meanSortsOfALeaf")
    );
    println!("written to {}", arguments.out.display());
    for failure in &outcome.failures {
        eprintln!("FAILED {failure}");
    }
    // A short run cannot reach them all.
    let misses = arguments.seed.is_none() && arguments.transitions >= 1000 && !outcome.untouched.is_empty();
    if misses {
        eprintln!("FAILED no edit of {}", outcome.untouched.join(", "));
    }
    println!("{} failures", outcome.failures.len() + usize::from(misses));
    ExitCode::from(u8::from(misses || !outcome.failures.is_empty()))
}
