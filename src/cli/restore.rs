//! `lockhouse restore`: replaces the database with a backup.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::Database;
use super::backup::{counted, described};
use super::scratch::Scratch;
use crate::error::Error;
use crate::store::sqlite::restore;
use crate::time::Clock;

#[derive(Debug, Args)]
pub(super) struct RestoreFlags {
    #[command(flatten)]
    database: Database,
    /// The backup. It is not changed.
    #[arg(value_name = "BACKUP")]
    file: PathBuf,
    /// Revoke all tokens. Otherwise, tokens that were revoked after the backup was made are valid again.
    #[arg(long)]
    revoke_tokens: bool,
}

/// Restores a backup.
pub(super) fn run(RestoreFlags { database, file, revoke_tokens }: &RestoreFlags) -> Result<(), Error> {
    let path = database
        .location()?
        .file("restore PostgreSQL with pg_restore (see docs/scale.md), or give --database")?;
    let restore = restore::Restore::begin(&path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = restore.directory().to_owned();
    // The name is the same each time, so that the files of a killed restore are removed here.
    let prefix = format!(".{name}.restore");
    match std::fs::remove_dir_all(folder.join(&prefix)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Internal(format!(
                "cannot remove {}: {error}",
                folder.join(&prefix).display()
            )));
        }
        Ok(()) | Err(_) => {}
    }
    let scratch = Scratch::create(&folder, &prefix, 0)?;
    let done = restore.run(file, scratch.path(), &Clock::system(), *revoke_tokens)?;
    let mut said = format!("{} has {}\n", path.display(), described(&done.contents));
    let (ended, floor) = (counted(done.contents.locks, "lock"), done.floor.0);
    let _ = writeln!(said, "{ended} of the backup ended; all new fences are greater than {floor}");
    said += if *revoke_tokens {
        "all tokens were revoked; members who were removed after the backup are back: remove them again\n"
    } else {
        "tokens and members that were removed after the backup are back: revoke and remove them again\n"
    };
    if let Some(kept) = &done.kept {
        let _ = writeln!(said, "the previous database is in {}", kept.display());
    }
    if let Some(why) = &done.unreadable {
        let _ = writeln!(said, "it could not be read: {why}");
    }
    let _ = io::stdout().write_all(said.as_bytes());
    Ok(())
}
