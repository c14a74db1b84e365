//! Sets a damaged database aside, so that the next start makes it anew from peers.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::termination::CliError;
use crate::snapshot::{DatabaseFolders, Obeyed, ResetWhen};
use crate::storage::{Database, StorageError};

/// Set a stopped node's database aside; the next start makes it anew from peers. Keys and signing record stay as they are.
#[derive(Args, Clone, Debug)]
pub struct ResetDatabaseCommand {
    /// The node's data folder; `database/` is inside.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Remove the database instead of keeping it under another name.
    #[arg(long, conflicts_with = "order")]
    pub remove: bool,
    /// Do it for this order: at most once, however often the command is run with it. Of databases set aside for orders
    /// only the last is kept.
    #[arg(long, value_name = "ORDER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub order: Option<String>,
    /// With an order: only if the node has stopped because it found this database damaged.
    #[arg(long, requires = "order")]
    pub if_corrupt: bool,
}

impl ResetDatabaseCommand {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        if !self.data_dir.join("signer").is_dir() {
            let folder = self.data_dir.display();
            return Err(CliError::failed(format!("{folder} holds no `signer/`: it is not the data folder of a node")));
        }
        let folders = DatabaseFolders::new(&self.data_dir);
        if Database::is_in_use(&folders.database()).map_err(storage)? {
            return Err(CliError::failed("the node runs on this database; stop it first"));
        }
        if let Some(order) = &self.order {
            let when = if self.if_corrupt { ResetWhen::FoundCorrupt } else { ResetWhen::Always };
            let said = match folders.obey(order, when).map_err(storage)? {
                Obeyed::Now => "the database is set aside; the next start makes it anew from peers",
                Obeyed::Before => "this order was obeyed before; the database stays",
                Obeyed::NotNeeded => "there is no database that was found damaged; nothing is done",
            };
            return writeln!(std::io::stdout(), "{said}; `signer/` is untouched.").map_err(CliError::failed);
        }
        let aside = folders.reset(self.remove).map_err(storage)?;
        let what = match aside {
            Some(path) => {
                format!("the database is in {} now; remove it when it is not needed any more", path.display())
            }
            None => "there is no database any more".to_owned(),
        };
        writeln!(std::io::stdout(), "{what}. The next start makes it anew from peers; `signer/` is untouched.")
            .map_err(CliError::failed)
    }
}

fn storage(error: StorageError) -> CliError {
    CliError::failed(error)
}
