//! `keygen`: a key for an account owner.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::OutputArgs;
use super::owner_key;
use super::termination::CliError;

/// Make the key of an account owner and print the account's address.
#[derive(Args, Clone, Debug)]
pub struct KeygenCommand {
    /// Where to write the key; an existing file is not overwritten.
    #[arg(long, value_name = "FILE", default_value = "owner.key")]
    pub out: PathBuf,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Made {
    address: String,
    file: PathBuf,
}

impl KeygenCommand {
    /// Runs the command.
    #[allow(clippy::unused_async)] // Commands are all run alike.
    pub async fn run(self) -> Result<(), CliError> {
        let key = owner_key::create(&self.out)?;
        let made = Made { address: owner_key::address(&key).to_string(), file: self.out };
        self.output.print(&made, |made| made.address.clone())
    }
}
