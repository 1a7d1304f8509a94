//! `lockhouse backup`: copies the database, whether a server runs on it or not.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempPath;

use super::Database;
use super::scratch::Scratch;
use crate::error::Error;
use crate::store::sqlite::backup::{self, Contents};

#[derive(Debug, Args)]
pub(super) struct BackupFlags {
    #[command(flatten)]
    database: Database,
    /// The file to make. It must not exist.
    #[arg(value_name = "BACKUP")]
    file: PathBuf,
}

/// Makes a backup.
pub(super) fn run(BackupFlags { database, file }: &BackupFlags) -> Result<(), Error> {
    let database = database.existing()?;
    let shown = file.display();
    let cannot = |error: &dyn Display| Error::Internal(format!("cannot write {shown}: {error}"));
    if file.symlink_metadata().is_ok() {
        return Err(cannot(&"it exists, and a backup overwrites nothing"));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().map_err(|error| cannot(&error))?;
    let scratch = Scratch::create(&folder, ".lockhouse-backup-", 6)?;
    let copy = scratch.path().join("copy.db");
    let contents = backup::copy(&database, &copy)?;
    let copy = TempPath::try_from_path(copy).map_err(|error| cannot(&error))?;
    // Overwrites nothing.
    copy.persist_noclobber(file).map_err(|error| cannot(&error.error))?;
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot(&error))?;
    let _ = writeln!(io::stdout(), "{shown} has {}", described(&contents));
    Ok(())
}

/// What a backup has, as the end of a sentence.
pub(super) fn described(contents: &Contents) -> String {
    let Contents { as_of, locks: _, workspaces, members, tokens, events } = contents;
    format!(
        "{workspaces} workspaces, {members} members, {tokens} tokens and {events} events of the history, as of {}",
        as_of.to_rfc3339()
    )
}
