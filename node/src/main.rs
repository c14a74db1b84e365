//! The `bizra-node` binary.

use std::process::ExitCode;

use bizra_node::cli::CommandLine;
use bizra_node::cli::termination::{CliError, finish};
use clap::Parser as _;

/// What one thread allocates another frees: batches, blocks, RocksDB's buffers. The C library's allocator keeps such memory in
/// an arena for each thread and never gives it back. Replaces `malloc` for RocksDB too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    bizra_node::monitoring::logging::start(command_line.log_format);
    // Two threads: a node's own work is on the consensus, verifier and admission threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    finish(match runtime {
        Ok(runtime) => runtime.block_on(command_line.command.run()),
        Err(error) => Err(CliError::failed(error)),
    })
}
