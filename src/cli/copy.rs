//! `lockhouse copy`: copies a SQLite file to PostgreSQL.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Database;
use super::backup::{counted, described};
use crate::error::Error;
use crate::store::copy;

/// Copies the file of the settings to the `database.url` of the settings.
pub(super) fn run(database: &Database) -> Result<(), Error> {
    let config = Database::settings(database.config.as_ref(), None)?;
    let path = database.database.as_ref().map_or(config.path, PathBuf::from);
    let shown = path.display();
    let Some(url) = &config.url else {
        return Err(Error::Internal(
            "there is nothing to copy to: set LOCKHOUSE_DATABASE_URL or database.url_file to an empty PostgreSQL database"
                .to_owned(),
        ));
    };
    if !path.exists() {
        return Err(Error::Internal(format!("there is no database {shown}: give its path with --database")));
    }
    let copied = copy::copy(&path, url)?;
    let _ = writeln!(
        io::stdout(),
        "PostgreSQL has {}, {} and everything else of {shown}; all new fences are greater than {}\n\
         start no server on {shown} any more: its locks would contradict those in PostgreSQL",
        described(&copied.contents),
        counted(copied.contents.locks, "lock"),
        copied.fence_floor.0
    );
    Ok(())
}
