//! How commands print: for people, or as one JSON document.

use std::io::Write as _;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::termination::CliError;

/// Form of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// The `--output` option.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
}

impl OutputArgs {
    /// Prints `document` as JSON, or the text made from it, with a newline.
    pub fn print<T: Serialize>(self, document: &T, text: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        let printed = match self.output {
            OutputFormat::Text => text(document),
            OutputFormat::Json => serde_json::to_string_pretty(document).map_err(CliError::failed)?,
        };
        writeln!(std::io::stdout(), "{printed}").map_err(CliError::failed)
    }
}

/// Tells what is going on, on standard error, where it is in nobody's way.
pub(super) fn progress(message: impl std::fmt::Display) {
    // Standard error may be closed; the command's result does not depend on it.
    let _ = writeln!(std::io::stderr(), "{message}");
}
