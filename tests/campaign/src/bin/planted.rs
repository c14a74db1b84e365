//! `bizra-planted-operator`: plants one bug after the other into the operator, and shows which plan finds it.

use std::process::ExitCode;

use clap::Parser;

/// Bugs planted into the operator; each must be found.
#[derive(Parser)]
#[command(name = "bizra-planted-operator", version)]
struct Arguments {
    /// Search for these bugs alone; all without.
    #[arg(long = "bug")]
    bugs: Vec<String>,
    /// Plans at a time.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if bizra_campaign::hunt(&arguments.bugs, arguments.jobs.max(1)).await {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
