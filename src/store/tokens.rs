//! Access to the tokens of a database for a second process (`lockhouse token`).

use std::fmt;
use std::path::PathBuf;

use super::rows::Changes;
use super::sqlite;
use crate::config::{DatabaseConfig, Secret};
use crate::domain::Fence;
use crate::error::Error;

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The path of a SQLite file.
    File(PathBuf),
    /// The address of a PostgreSQL database.
    Postgres(Secret),
}

impl DatabaseConfig {
    /// Where the database of these settings is.
    #[must_use]
    pub fn location(&self) -> Location {
        self.url.clone().map_or_else(|| Location::File(self.path.clone()), Location::Postgres)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            // The address has a password.
            Self::Postgres(_) => formatter.write_str("PostgreSQL"),
        }
    }
}

impl Location {
    /// Gives only fences greater than `fence` from now on. No server may run on a file.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator.
    pub fn fence_at_least(&self, fence: Fence) -> Result<(), Error> {
        match self {
            Self::File(path) => sqlite::fence_at_least(path, fence),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => super::postgres::fence_at_least(url.as_str(), fence),
            #[cfg(not(feature = "postgres"))]
            Self::Postgres(_) => Err(super::open::no_postgres()),
        }
    }

    /// The path of the file, for a command that works on files. `remedy` says what to do with PostgreSQL.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator.
    pub fn file(self, remedy: &str) -> Result<PathBuf, Error> {
        match self {
            Self::File(path) => Ok(path),
            Self::Postgres(_) => Err(Error::Internal(format!(
                "database.url is set, and this command works on a SQLite file: {remedy}"
            ))),
        }
    }
}

/// Runs `work` on the tokens of a database, whether a server has it open or not. A file is created if it does
/// not exist.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub fn beside<T>(
    location: &Location,
    work: impl FnOnce(&dyn Changes) -> Result<T, Error>,
) -> Result<T, Error> {
    match location {
        Location::File(path) => sqlite::tokens::beside(path, work),
        #[cfg(feature = "postgres")]
        Location::Postgres(url) => super::postgres::beside(url.as_str(), work),
        #[cfg(not(feature = "postgres"))]
        Location::Postgres(_) => Err(super::open::no_postgres()),
    }
}
