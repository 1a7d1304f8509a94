//! `lockhouse restore`: replaces the database by a backup.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::Database;
use super::backup::described;
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
    /// Revoke all tokens: those that were revoked since the backup was made come back with it.
    #[arg(long)]
    revoke_tokens: bool,
}

/// Restores a backup.
pub(super) fn run(RestoreFlags { database, file, revoke_tokens }: &RestoreFlags) -> Result<(), Error> {
    let path = database.path()?;
    let restore = restore::Restore::begin(&path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = restore.directory().to_owned();
    // The same name each time: what a kill has left is removed here.
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
    let (ended, floor) = (done.contents.locks, done.floor.0);
    let _ =
        writeln!(said, "{ended} locks of that time were ended; no fence up to {floor} is given from now on");
    said += if *revoke_tokens {
        "all tokens were revoked; members who were removed since then are back: remove them again\n"
    } else {
        "tokens and members that were removed since then are back: revoke and remove them again\n"
    };
    if let Some(kept) = &done.kept {
        let _ = writeln!(said, "the database before is in {}", kept.display());
    }
    if let Some(why) = &done.unreadable {
        let _ = writeln!(said, "it could not be read: {why}");
    }
    let _ = io::stdout().write_all(said.as_bytes());
    Ok(())
}
