//! `lockhouse backup`: copies the database. A server may run on it.

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
    /// The file to create. It must not exist.
    #[arg(value_name = "BACKUP")]
    file: PathBuf,
}

/// Makes a backup.
pub(super) fn run(BackupFlags { database, file }: &BackupFlags) -> Result<(), Error> {
    let database = database
        .existing()?
        .file("back PostgreSQL up with pg_dump (see docs/scale.md), or give --database")?;
    let shown = file.display();
    let cannot = |error: &dyn Display| Error::Internal(format!("cannot write {shown}: {error}"));
    if file.symlink_metadata().is_ok() {
        return Err(cannot(&"it exists, and a backup does not overwrite files"));
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

/// The contents of a backup, as the end of a sentence.
pub(super) fn described(contents: &Contents) -> String {
    let Contents { as_of, locks: _, workspaces, members, tokens, events } = contents;
    format!(
        "{}, {}, {} and {} of the history, as of {}",
        counted(*workspaces, "workspace"),
        counted(*members, "member"),
        counted(*tokens, "token"),
        counted(*events, "event"),
        as_of.to_rfc3339()
    )
}

/// A number with its noun, such as `1 lock` or `2 locks`.
pub(super) fn counted(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
