//! `bizra-crash-campaign`: crashes, misleads and cuts off the operator at every step of its work.

#![allow(clippy::expect_used)]

use std::{path::PathBuf, process::ExitCode};

use bizra_campaign::{Settings, conduct};
use clap::Parser;
use regex::Regex;

/// Carry out every plan, or some.
#[derive(Parser)]
#[command(name = "bizra-crash-campaign", version)]
struct Arguments {
    /// About so many plans, spread evenly over workloads and modes; all without.
    #[arg(long)]
    limit: Option<usize>,
    /// Only plans whose names match this regular expression, such as `^pool-.*/seen/`.
    #[arg(long)]
    only: Option<Regex>,
    /// Only this workload; may be given several times.
    #[arg(long = "workload", value_name = "NAME")]
    workloads: Vec<String>,
    /// Plans at a time.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Folder of the results. A campaign goes on where the last one of the same build has stopped.
    #[arg(long, value_name = "FOLDER", default_value = "target/campaign")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { limit, only, workloads, jobs, out } = Arguments::parse();
    let settings = Settings { limit, only, workloads, jobs: jobs.max(1), folder: Some(out) };
    let summary = conduct(&settings).await;
    println!("{summary}");
    if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
