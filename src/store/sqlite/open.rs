//! Opens a database: checks the application and version, configures SQLite, and resumes the lease clock.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use r2d2::PooledConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior, params};
use scheduled_thread_pool::ScheduledThreadPool;

use super::migrations::{self, APPLICATION_ID, SCHEMA_VERSION};
use super::readers::Pool;
use crate::domain::grace::{Restart, RestartGrace, Run};
use crate::error::Error;
use crate::store::Options;
use crate::time::{Clock, LeaseClock, Timestamp, Ttl, WallTime};

/// The write-ahead log is truncated to this size after it was folded in (bytes).
const LOG_SIZE_LIMIT: i64 = 64 * 1024 * 1024;

/// Size of the statement cache. It is larger than the number of statements, so that none is prepared twice.
const STATEMENT_CACHE: usize = 64;

/// Checks the header of a file without SQLite, so that a file of another program is not touched.
pub(super) fn check_header(path: &Path, file: &File) -> Result<(), Error> {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    if Path::new(&journal).exists() {
        // A rollback journal: another process was creating or changing the file and did not finish. Only
        // SQLite can tell what the file is.
        return Ok(());
    }
    let mut header = [0; 72];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let empty = file.metadata().is_ok_and(|file| file.len() == 0);
            return if empty { Ok(()) } else { Err(no_database(path)) };
        }
        Err(error) => {
            return Err(Error::Internal(format!("cannot read the database {}: {error}", path.display())));
        }
    }
    // https://www.sqlite.org/fileformat.html, section 1.3: the magic string, and the application id at byte
    // 68.
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(no_database(path));
    }
    if header.ends_with(&APPLICATION_ID.to_be_bytes()) { Ok(()) } else { Err(foreign(path)) }
}

fn no_database(path: &Path) -> Error {
    Error::Internal(format!(
        "{} is not a SQLite database; it was left as it is: give another file with --database",
        path.display()
    ))
}

fn foreign(path: &Path) -> Error {
    Error::Internal(format!(
        "{} is a SQLite database, but not Lockhouse's; it was left as it is: give another file with --database",
        path.display()
    ))
}

/// How to handle a file of an older version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Older {
    /// Migrate it to this version. Only for the process that holds the guard: otherwise a server of the older
    /// version may be running.
    Migrate,
    /// Leave it unchanged.
    Leave,
}

/// Opens a Lockhouse database, and creates the tables in an empty file. Writes nothing to any other file.
pub(super) fn prepare(path: &Path, older: Older) -> Result<Connection, Error> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .and_then(|connection| connection.busy_timeout(Duration::from_secs(5)).map(|()| connection))
    .map_err(|error| unusable(path, &error))?;
    // SQLite opens a file without write permission for reading only. It reports that late, and without the
    // path.
    if connection.is_readonly(MAIN_DB).map_err(|error| unusable(path, &error))? {
        return Err(Error::Internal(format!("cannot write to the database {}", path.display())));
    }
    let (application, version, tables) = connection
        .query_row(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)",
            [],
            |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i32>(1)?, row.get::<_, i64>(2)?)),
        )
        .map_err(|error| unusable(path, &error))?;
    let shown = path.display();
    match (application, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => {
            let difference = migrations::difference(&connection).map_err(|error| unusable(path, &error))?;
            difference.map_or(Ok(connection), |difference| Err(incomplete(path, &difference)))
        }
        (APPLICATION_ID, newer) if newer > SCHEMA_VERSION => Err(Error::Internal(format!(
            "{shown} was made by a newer Lockhouse (schema version {newer}; this one knows {SCHEMA_VERSION}): run that version, or give this one another file with --database"
        ))),
        (APPLICATION_ID, version) if migrations::is_older(version) => {
            if older == Older::Migrate {
                let difference =
                    migrations::migrate(&mut connection).map_err(|error| unusable(path, &error))?;
                if let Some(difference) = difference {
                    return Err(incomplete(path, &difference));
                }
                log::info!("{shown} had schema version {version} and has version {SCHEMA_VERSION} now");
            }
            Ok(connection)
        }
        (0, 0) if tables == 0 => {
            migrations::create(&mut connection).map_err(|error| unusable(path, &error))?;
            Ok(connection)
        }
        _ => Err(foreign(path)),
    }
}

/// The error for a file that another program has changed, as a sentence for the operator.
fn incomplete(path: &Path, difference: &str) -> Error {
    Error::Internal(format!(
        "{} {difference}: something else has changed it, and it was left as it is; put a backup in its place, or move it and its -wal and -shm files away to start with an empty one; leave the .fence file where it is",
        path.display()
    ))
}

/// The error for a file that SQLite cannot use, as a sentence for the operator.
fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    let shown = path.display();
    Error::Internal(match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => return no_database(path),
        Some(ErrorCode::DatabaseCorrupt) => format!(
            "{shown} is damaged ({error}): put a backup in its place, or move it and its -wal and -shm files away to start with an empty one; leave the .fence file where it is, and fences go on growing either way"
        ),
        Some(_) | None => format!("cannot open the database {shown}: {error}"),
    })
}

/// When a server last wrote down the time, in wall time.
pub(super) fn last_seen(path: &Path, connection: &Connection) -> Result<WallTime, Error> {
    connection
        .query_row("SELECT last_seen_at + wall_offset_ms FROM meta WHERE id = 1", [], |row| {
            row.get(0).map(WallTime)
        })
        .map_err(|error| unusable(path, &error))
}

/// Opens the one connection that writes. Also returns the resumed lease clock and the grace of restarts.
pub(super) fn writer(
    options: &Options,
    clock: Clock,
    housekeeping: &Arc<ScheduledThreadPool>,
) -> Result<(PooledConnection<SqliteConnectionManager>, LeaseClock, RestartGrace), Error> {
    let busy_timeout = options.busy_timeout;
    let max_size = options.max_size;
    let manager = SqliteConnectionManager::file(&options.path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(move |connection| {
            connection.busy_timeout(busy_timeout)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // FULL: with NORMAL a power cut can undo a granted lease, and its fence would be given out again.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            connection.pragma_update(None, "journal_size_limit", LOG_SIZE_LIMIT)?;
            // files.rs folds the log in.
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            if let Some(bytes) = max_size {
                let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
                let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
                connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            }
            connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
            Ok(())
        });
    let mut connection = pool(manager, 1, &options.path, housekeeping)?
        .get()
        .map_err(|error| Error::Internal(format!("cannot open {}: {error}", options.path.display())))?;
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(|error| unusable(&options.path, &error))?;
    if mode != "wal" {
        return Err(Error::Internal(format!(
            "{} lies where SQLite cannot keep a write-ahead log (journal mode {mode}): put it on a local disk",
            options.path.display()
        )));
    }
    let (clock, grace) =
        resume(&mut connection, options, clock).map_err(|error| unusable(&options.path, &error))?;
    Ok((connection, clock, grace))
}

/// Opens the pool of read-only connections.
pub(super) fn readers(options: &Options, housekeeping: &Arc<ScheduledThreadPool>) -> Result<Pool, Error> {
    let manager = SqliteConnectionManager::file(&options.path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|connection| {
            connection.busy_timeout(Duration::from_secs(1))?;
            connection.pragma_update(None, "query_only", "ON")?;
            connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
            Ok(())
        });
    pool(manager, options.readers, &options.path, housekeeping)
}

fn pool(
    manager: SqliteConnectionManager,
    size: u32,
    path: &Path,
    housekeeping: &Arc<ScheduledThreadPool>,
) -> Result<Pool, Error> {
    r2d2::Pool::builder()
        .thread_pool(Arc::clone(housekeeping))
        .max_size(size)
        .test_on_check_out(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_timeout(Duration::from_secs(5))
        .build(manager)
        .map_err(|error| Error::Internal(format!("cannot open {}: {error}", path.display())))
}

/// Resumes after a stop. The lease clock continues by the wall clock, and leases that were live at the stop
/// get the restart grace.
fn resume(
    connection: &mut Connection,
    options: &Options,
    clock: Clock,
) -> rusqlite::Result<(LeaseClock, RestartGrace)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (last_seen, wall_offset_ms, runs) = transaction.query_row(
        "SELECT last_seen_at, wall_offset_ms, run FROM meta WHERE id = 1",
        [],
        |row| Ok((Timestamp(row.get(0)?), row.get(1)?, row.get::<_, i64>(2)?)),
    )?;
    let clock = LeaseClock::resume(clock, last_seen, wall_offset_ms);
    let (now, offset) = (clock.now(), clock.wall_offset_ms());
    if offset != wall_offset_ms {
        log::warn!(
            "the wall clock was set back while the server was away: what is left of each lease stays, what is shown moves by {} ms",
            offset - wall_offset_ms
        );
    }
    let run = Run(runs + 1);
    let grace = Ttl::from_duration(options.restart_grace);
    let grace = RestartGrace::at_start(restarts(&transaction)?, run, last_seen, now, grace);
    transaction.execute("DELETE FROM restarts", [])?;
    for Restart { run, last_seen, grace_ends } in grace.restarts() {
        transaction
            .execute("INSERT INTO restarts VALUES (?1, ?2, ?3)", params![run.0, last_seen.0, grace_ends.0])?;
    }
    transaction.execute(
        "UPDATE meta SET last_seen_at = ?1, opened_at = ?1, wall_offset_ms = ?2, run = ?3 WHERE id = 1",
        params![now.0, offset, run.0],
    )?;
    transaction.commit()?;
    Ok((clock, grace))
}

/// The recorded restarts, oldest first.
pub(super) fn restarts(connection: &Connection) -> rusqlite::Result<Vec<Restart>> {
    connection
        .prepare("SELECT run, last_seen_at, grace_ends_at FROM restarts ORDER BY run")?
        .query_map([], |row| {
            Ok(Restart {
                run: Run(row.get(0)?),
                last_seen: Timestamp(row.get(1)?),
                grace_ends: Timestamp(row.get(2)?),
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::waitlist::WaitlistLimits;

    #[test]
    fn connections_have_the_right_pragmas_and_readers_are_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            url: None,
            path: directory.path().join("lockhouse.db"),
            busy_timeout: Duration::from_millis(50),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 3,
            waiters: WaitlistLimits { per_workspace: 1, per_user: 1, total: 1 },
        };
        let number = |connection: &Connection, name: &str| -> i64 {
            connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        std::fs::File::create(&options.path).unwrap();
        let beside = prepare(&options.path, Older::Leave).unwrap();
        // 2 is FULL: each commit is on disk before it is answered.
        assert_eq!(number(&beside, "synchronous"), 2, "lockhouse token");
        let housekeeping = Arc::new(ScheduledThreadPool::builder().num_threads(1).build());
        let (writes, _, _) = writer(&options, Clock::system(), &housekeeping).unwrap();
        for (name, expected) in [
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("journal_size_limit", LOG_SIZE_LIMIT),
            ("busy_timeout", 50),
            ("query_only", 0),
            ("mmap_size", 0),
        ] {
            assert_eq!(number(&writes, name), expected, "{name} of the writer");
        }
        let readers = readers(&options, &housekeeping).unwrap();
        let all: Vec<_> = (0..options.readers).map(|_| readers.get().unwrap()).collect();
        for connection in &all {
            assert!(connection.is_readonly(MAIN_DB).unwrap());
            for (name, expected) in [("query_only", 1), ("mmap_size", 0), ("busy_timeout", 1_000)] {
                assert_eq!(number(connection, name), expected, "{name} of a reader");
            }
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            assert!(connection.execute("DELETE FROM locks", []).is_err());
        }
    }
}
