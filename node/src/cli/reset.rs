//! Sets a damaged database aside, so that the next start makes it anew from peers.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::termination::CliError;
use crate::snapshot::DatabaseFolders;
use crate::storage::{Database, StorageError};

/// Set a stopped node's database aside; the next start makes it anew from peers. Keys and signing record stay as they are.
#[derive(Args, Clone, Debug)]
pub struct ResetDatabaseCommand {
    /// The node's data folder; `database/` is inside.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Remove the database instead of keeping it under another name.
    #[arg(long)]
    pub remove: bool,
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
