//! Reads the tables of a database for another engine, while no server runs on it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::backup::{Contents, is_whole};
use super::floor::Floor;
use super::guard::Guard;
use super::{SCHEMA_VERSION, open};
use crate::domain::Fence;
use crate::domain::grace::Run;
use crate::error::Error;
use crate::time::Timestamp;

/// Rows are handed on in pieces of about this size (bytes).
const PIECE: usize = 64 * 1024;

/// A database that is being read. No server can start on it, and no other program can change it.
pub(in crate::store) struct Dump {
    connection: Connection,
    /// No fence above this was given.
    pub(in crate::store) highest_fence: Fence,
    // Closed after the connection: see guard.rs.
    _guard: Guard,
}

/// The row of `meta`.
pub(in crate::store) struct MetaDump {
    pub(in crate::store) last_revision: i64,
    pub(in crate::store) wall_offset_ms: i64,
    pub(in crate::store) last_seen: Timestamp,
    pub(in crate::store) run: Run,
    pub(in crate::store) opened_at: Timestamp,
}

impl Dump {
    /// Opens a database that exists.
    pub(in crate::store) fn open(database: &Path) -> Result<Self, Error> {
        if std::fs::metadata(database).is_ok_and(|file| file.is_file() && file.len() == 0) {
            return Err(Error::Internal(format!("the database {} is an empty file", database.display())));
        }
        let guard = Guard::take(database)?;
        let connection = open::prepare(guard.path(), open::Older::Leave)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // `lockhouse token` writes without the guard.
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != SCHEMA_VERSION {
            return Err(Error::Internal(format!(
                "{} has schema version {version}, and this program copies {SCHEMA_VERSION}: start this version's server on it once",
                database.display()
            )));
        }
        is_whole(&connection, guard.path())?;
        let given: i64 = connection.query_row("SELECT last_fence FROM meta", [], |row| row.get(0))?;
        let highest_fence = Fence(given).max(Floor::read(guard.path())?.value());
        Ok(Self { connection, highest_fence, _guard: guard })
    }

    /// What the database contains.
    pub(in crate::store) fn contents(&self) -> Result<Contents, Error> {
        Ok(Contents::of(&self.connection)?)
    }

    pub(in crate::store) fn meta(&self) -> Result<MetaDump, Error> {
        let sql = "SELECT last_revision, wall_offset_ms, last_seen_at, run, opened_at FROM meta";
        let meta = self.connection.query_row(sql, [], |row| {
            Ok(MetaDump {
                last_revision: row.get(0)?,
                wall_offset_ms: row.get(1)?,
                last_seen: Timestamp(row.get(2)?),
                run: Run(row.get(3)?),
                opened_at: Timestamp(row.get(4)?),
            })
        });
        Ok(meta?)
    }

    /// The tables except `meta`, each after those that it refers to.
    pub(in crate::store) fn tables(&self) -> Result<Vec<String>, Error> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'meta' AND name NOT LIKE 'sqlite%'
                   ORDER BY rowid";
        self.names(sql, [])
    }

    /// The columns of a table.
    pub(in crate::store) fn columns(&self, table: &str) -> Result<Vec<String>, Error> {
        self.names("SELECT name FROM pragma_table_info(?1)", [table])
    }

    fn names(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<String>, Error> {
        let mut statement = self.connection.prepare(sql)?;
        let names = statement.query_map(parameters, |row| row.get(0))?.collect::<Result<_, _>>();
        Ok(names?)
    }

    /// Gives the rows of a table to `take`, as lines in the text format of PostgreSQL's COPY.
    pub(in crate::store) fn rows(
        &self,
        table: &str,
        columns: &[String],
        mut take: impl FnMut(Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut statement =
            self.connection.prepare(&format!("SELECT {} FROM {table}", columns.join(", ")))?;
        let mut rows = statement.query([])?;
        let mut piece = Vec::new();
        while let Some(row) = rows.next()? {
            for index in 0..columns.len() {
                if index > 0 {
                    piece.push(b'\t');
                }
                write_value(&mut piece, row.get_ref(index)?);
            }
            piece.push(b'\n');
            if piece.len() >= PIECE {
                take(std::mem::take(&mut piece))?;
            }
        }
        if piece.is_empty() { Ok(()) } else { take(piece) }
    }
}

/// Writes a value: <https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format".
fn write_value(line: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => line.extend(b"\\N"),
        ValueRef::Integer(number) => line.extend(number.to_string().into_bytes()),
        ValueRef::Real(number) => line.extend(number.to_string().into_bytes()),
        ValueRef::Text(text) => {
            for byte in text {
                match byte {
                    b'\\' => line.extend(b"\\\\"),
                    b'\t' => line.extend(b"\\t"),
                    b'\n' => line.extend(b"\\n"),
                    b'\r' => line.extend(b"\\r"),
                    byte => line.push(*byte),
                }
            }
        }
        ValueRef::Blob(bytes) => {
            line.extend(b"\\\\x");
            line.extend(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        }
    }
}
