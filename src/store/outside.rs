//! Whether another program has put other data into the database while the server runs, by SQLite's own means: a backup that
//! was restored into it, say. The files stay the same then, which `files.rs` compares.
//!
//! SQLite tells whether anybody else has written since. Only then the schema and the row of `meta` are compared.

use rusqlite::Connection;

use super::migrations;
use super::write::{Meta, read_meta};
use crate::error::Error;

/// What was there when this server wrote last.
#[derive(Debug)]
pub(super) struct Known {
    /// `PRAGMA data_version`: <https://www.sqlite.org/pragma.html#pragma_data_version>.
    version: i64,
    meta: Meta,
}

impl Known {
    /// What is there now.
    ///
    /// # Errors
    /// What keeps SQLite from reading.
    pub(super) fn of(connection: &Connection) -> Result<Self, Error> {
        Ok(Self { version: version(connection)?, meta: read_meta(connection)? })
    }

    /// This was committed.
    pub(super) fn wrote(&mut self, meta: Meta) {
        self.meta = meta;
    }

    /// Returns what is not as it must be any more, as the end of a sentence.
    ///
    /// # Errors
    /// What keeps SQLite from reading.
    pub(super) fn look(&mut self, connection: &Connection) -> Result<Option<String>, Error> {
        let version = version(connection)?;
        if version != self.version {
            if let Some(lacking) = migrations::lacks(connection)? {
                return Ok(Some(lacking));
            }
            if read_meta(connection)?.is_of_another(self.meta) {
                return Ok(Some("has older data, or that of another database".to_owned()));
            }
        }
        self.version = version;
        Ok(None)
    }
}

fn version(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}
