//! Opening a database: whose it is, what version it has, how SQLite is set, and where the lease clock goes on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use r2d2::PooledConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior, params};
use scheduled_thread_pool::ScheduledThreadPool;

use super::{Options, Pool};
use crate::error::Error;
use crate::time::{Clock, LeaseClock, Resumed, Timestamp, Ttl, WallTime};

/// `PRAGMA application_id` of a Lockhouse database: "LOCK".
pub const APPLICATION_ID: i32 = 0x4C4F_434B;
/// `PRAGMA user_version`: the version of `schema.sql`.
pub const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = include_str!("../../schema.sql");

/// The write-ahead log is cut back to this after it was folded in (bytes).
const LOG_BYTES: i64 = 64 * 1024 * 1024;

/// More than this program has different statements, so that none is prepared twice.
const STATEMENTS: usize = 64;

/// Looks at a file without opening it as a database: what is not ours is not touched at all.
pub(super) fn look(path: &Path) -> Result<(), Error> {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    if Path::new(&journal).exists() {
        // Somebody was making or changing it and did not finish: only SQLite can tell what it is.
        return Ok(());
    }
    let mut header = [0; 72];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let empty = std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
            return if empty { Ok(()) } else { Err(no_database(path)) };
        }
        Err(error) => {
            return Err(Error::Internal(format!("cannot read the database {}: {error}", path.display())));
        }
    }
    // https://www.sqlite.org/fileformat.html, section 1.3: the magic string, and the application id at 68.
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

/// Sees to it that there is a database of ours, of this version, and opens it. Nothing is written to any other.
pub(super) fn prepare(path: &Path) -> Result<Connection, Error> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Error::Internal(format!("cannot make the database {}: {error}", path.display())));
        }
    }
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .and_then(|connection| connection.busy_timeout(Duration::from_secs(5)).map(|()| connection))
    .map_err(|error| unusable(path, &error))?;
    // SQLite opens what it may not write for reading only, and says so late, and not of which file.
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
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(connection),
        (APPLICATION_ID, newer) if newer > SCHEMA_VERSION => Err(Error::Internal(format!(
            "{shown} was made by a newer Lockhouse (schema version {newer}; this one knows {SCHEMA_VERSION}): run that version, or give this one another file with --database"
        ))),
        (0, 0) if tables == 0 => {
            create(&mut connection).map_err(|error| unusable(path, &error))?;
            Ok(connection)
        }
        _ => Err(foreign(path)),
    }
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 0, 0, 0, 0);"
    ))?;
    transaction.commit()
}

/// A sentence for the operator about a file that SQLite cannot use.
fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    let shown = path.display();
    Error::Internal(match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => return no_database(path),
        Some(ErrorCode::DatabaseCorrupt) => format!(
            "{shown} is damaged ({error}): put a backup in its place, or move it and its -wal and -shm files away to start with an empty one; fences go on growing either way"
        ),
        Some(_) | None => format!("cannot open the database {shown}: {error}"),
    })
}

/// When a server was last there, as the wall clock showed it.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub fn last_seen(path: &Path) -> Result<WallTime, Error> {
    look(path)?;
    prepare(path)?
        .query_row("SELECT last_seen_at + wall_offset_ms FROM meta WHERE id = 1", [], |row| {
            row.get(0).map(WallTime)
        })
        .map_err(|error| unusable(path, &error))
}

/// The one connection that writes, and the lease clock, resumed.
pub(super) fn writer(
    options: &Options,
    clock: Clock,
    housekeeping: &Arc<ScheduledThreadPool>,
) -> Result<(PooledConnection<SqliteConnectionManager>, LeaseClock), Error> {
    let busy_timeout = options.busy_timeout;
    let max_size = options.max_size;
    let manager = SqliteConnectionManager::file(&options.path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(move |connection| {
            connection.busy_timeout(busy_timeout)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // FULL: with NORMAL a power cut can take back a lease that was granted, and give its fence out again.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
            if let Some(bytes) = max_size {
                let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
                let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
                connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            }
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
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
    let resumed =
        resume(&mut connection, options, &clock).map_err(|error| unusable(&options.path, &error))?;
    Ok((connection, LeaseClock::start(clock, resumed)))
}

/// Connections that cannot write.
pub(super) fn readers(options: &Options, housekeeping: &Arc<ScheduledThreadPool>) -> Result<Pool, Error> {
    let manager = SqliteConnectionManager::file(&options.path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|connection| {
            connection.busy_timeout(Duration::from_secs(1))?;
            connection.pragma_update(None, "query_only", "ON")?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
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

/// The server was away. The lease clock goes on by the wall clock, and what was alive at the end gets its grace.
fn resume(connection: &mut Connection, options: &Options, clock: &Clock) -> rusqlite::Result<Resumed> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (last_seen, wall_offset_ms) =
        transaction.query_row("SELECT last_seen_at, wall_offset_ms FROM meta WHERE id = 1", [], |row| {
            Ok((Timestamp(row.get(0)?), row.get(1)?))
        })?;
    let resumed = LeaseClock::resume(last_seen, wall_offset_ms, clock.wall());
    if resumed.wall_offset_ms != wall_offset_ms {
        log::warn!(
            "the wall clock was set back while the server was away: what is left of each lease stays, what is shown moves by {} ms",
            resumed.wall_offset_ms - wall_offset_ms
        );
    }
    let grace_ends = resumed.now.plus(Ttl::from_duration(options.restart_grace));
    let prolonged = transaction.execute(
        "UPDATE locks SET expires_at = ?1 WHERE expires_at > ?2 AND expires_at < ?1",
        params![grace_ends.0, last_seen.0],
    )?;
    // Nor could they answer whoever knocked.
    transaction.execute(
        "UPDATE locks SET grant_at = ?1 WHERE grant_at > ?2 AND grant_at < ?1",
        params![grace_ends.0, last_seen.0],
    )?;
    transaction.execute(
        "UPDATE meta SET last_seen_at = ?1, wall_offset_ms = ?2 WHERE id = 1",
        params![resumed.now.0, resumed.wall_offset_ms],
    )?;
    transaction.commit()?;
    if prolonged > 0 {
        log::info!("restart grace: {prolonged} leases that were alive at the end have a while left");
    }
    Ok(resumed)
}
