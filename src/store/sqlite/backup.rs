//! Copies a database beside its server, and looks at it, without changing it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, params};

use super::floor::Floor;
use super::tables::Tables;
use super::{SCHEMA_VERSION, guard, open};
use crate::domain::Fence;
use crate::domain::grace::{RestartGrace, Run};
use crate::error::Error;
use crate::store::rows::Rows;
use crate::time::{Timestamp, Ttl, WallTime};

/// An expired row is left for so long until the timer removes it at the latest (milliseconds). Until then it
/// is no violation.
const LEFT_MS: i64 = 60_000;

/// What a database contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// When a server last wrote down the time.
    pub as_of: WallTime,
    /// The number of lock rows.
    pub locks: i64,
    /// The number of workspaces with a name or members.
    pub workspaces: i64,
    /// The number of memberships.
    pub members: i64,
    /// The number of tokens.
    pub tokens: i64,
    /// The number of events in the history.
    pub events: i64,
}

impl Contents {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row(
            "SELECT last_seen_at + wall_offset_ms, (SELECT count(*) FROM locks), (SELECT count(*) FROM workspaces),
                    (SELECT count(*) FROM members), (SELECT count(*) FROM tokens), (SELECT count(*) FROM events)
             FROM meta",
            [],
            |row| {
                Ok(Self {
                    as_of: WallTime(row.get(0)?),
                    locks: row.get(1)?,
                    workspaces: row.get(2)?,
                    members: row.get(3)?,
                    tokens: row.get(4)?,
                    events: row.get(5)?,
                })
            },
        )
    }
}

/// Opens a database that exists, whether a server has it open or not.
fn beside(database: &Path) -> Result<(guard::SharedAccess, Connection), Error> {
    // Opening creates the file and the tables where there are none.
    if std::fs::metadata(database).is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(Error::Internal(format!("the database {} is an empty file", database.display())));
    }
    let beside = guard::SharedAccess::open(database)?;
    let connection = open::prepare(&beside.path, open::Older::Leave)?;
    // Only the server may change the database file (see files.rs).
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok((beside, connection))
}

/// Copies a database into `copy`, a file that this creates. A server may run on the database; it is not
/// delayed. The copy is complete, checked, and on disk when this returns. Its fence counter is not below the
/// fence floor, so that a restore on another machine needs nothing else.
///
/// This uses `VACUUM INTO` (<https://www.sqlite.org/lang_vacuum.html>): one read transaction, one file without
/// a write-ahead log, and nothing of deleted rows in it. SQLite does not sync that file, so this does.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub fn copy(database: &Path, copy: &Path) -> Result<Contents, Error> {
    // Must be closed last: see guard.rs.
    let (beside, connection) = beside(database)?;
    let failed =
        |error: rusqlite::Error| Error::Internal(format!("cannot copy {}: {error}", database.display()));
    // SQLite keeps the mode of a file that exists.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(copy)
        .map_err(|error| cannot_write(copy, &error))?;
    // A path that is not UTF-8 is text to SQLite all the same.
    let bytes = copy.as_os_str().as_encoded_bytes();
    connection.execute("VACUUM INTO CAST(?1 AS TEXT)", params![bytes]).map_err(failed)?;
    drop(connection);
    let floor = Floor::read(&beside.path)?.value();
    drop(beside);
    let connection = Connection::open(copy).map_err(failed)?;
    is_whole(&connection, database)?;
    connection.execute("UPDATE meta SET last_fence = max(last_fence, ?1)", [floor.0]).map_err(failed)?;
    let contents = Contents::of(&connection).map_err(failed)?;
    drop(connection);
    sync(copy)?;
    Ok(contents)
}

/// Reads a database without changing it, in one transaction. A server may run on it. `work` gets the rows, as
/// they were a minute before a server last wrote down the time, and the fence counter.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator, also if the file or its fence floor is damaged; errors of `work`.
pub fn look<T>(database: &Path, work: impl FnOnce(&dyn Rows, Fence) -> Result<T, Error>) -> Result<T, Error> {
    let (beside, connection) = beside(database)?;
    connection.pragma_update(None, "query_only", "ON")?;
    is_whole(&connection, &beside.path)?;
    Floor::read(&beside.path)?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        return Err(Error::Internal(format!(
            "{} has schema version {version}, and this program reads {SCHEMA_VERSION}: the next start of a server migrates it",
            database.display()
        )));
    }
    let transaction = connection.unchecked_transaction()?;
    let (last_fence, last_seen, run) =
        transaction.query_row("SELECT last_fence, last_seen_at, run FROM meta", [], |row| {
            Ok((Fence(row.get(0)?), Timestamp(row.get(1)?), Run(row.get(2)?)))
        })?;
    let grace =
        RestartGrace::at_start(open::restarts(&transaction)?, run, last_seen, last_seen, Ttl::from_millis(0));
    let now = Timestamp(last_seen.0.saturating_sub(LEFT_MS));
    work(&Tables::new(&transaction, now, &grace), last_fence)
}

/// Checks the pages and indexes of a database.
pub(super) fn is_whole(connection: &Connection, path: &Path) -> Result<(), Error> {
    let damaged = |what: &str| Error::Internal(format!("{} is damaged: {what}", path.display()));
    let found: rusqlite::Result<String> =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(damaged(&found)),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::Internal(format!("cannot write {}: {error}", path.display()))
}

/// Syncs a file or a directory.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| cannot_write(path, &error))
}
