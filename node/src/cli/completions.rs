//! `completions`: completion scripts for shells.

use clap::{Args, Command};
use clap_complete::Shell;

use super::termination::CliError;

/// Print a completion script for a shell.
#[derive(Args, Clone, Debug)]
pub struct CompletionsCommand {
    /// The shell.
    pub shell: Shell,
}

impl CompletionsCommand {
    /// Prints the script for `command`, the binary's whole command line.
    #[allow(clippy::unused_async)] // Commands are all run alike.
    pub async fn run(self, mut command: Command) -> Result<(), CliError> {
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut std::io::stdout());
        Ok(())
    }
}
