//! Converts errors of SQLite to [`Error`], with the cause as exact as SQLite knows it.

use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use rustix::io::Errno;

use crate::error::Error;

/// Names of extended codes: <https://www.sqlite.org/rescode.html>. SQLite's own text is the same for every
/// I/O error.
const NAMES: &[(i32, &str)] = &[
    (ffi::SQLITE_CORRUPT, "SQLITE_CORRUPT"),
    (ffi::SQLITE_IOERR_READ, "SQLITE_IOERR_READ"),
    (ffi::SQLITE_IOERR_SHORT_READ, "SQLITE_IOERR_SHORT_READ"),
    (ffi::SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE"),
    (ffi::SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"),
    (ffi::SQLITE_IOERR_DIR_FSYNC, "SQLITE_IOERR_DIR_FSYNC"),
    (ffi::SQLITE_IOERR_TRUNCATE, "SQLITE_IOERR_TRUNCATE"),
    (ffi::SQLITE_IOERR_FSTAT, "SQLITE_IOERR_FSTAT"),
    (ffi::SQLITE_IOERR_UNLOCK, "SQLITE_IOERR_UNLOCK"),
    (ffi::SQLITE_IOERR_RDLOCK, "SQLITE_IOERR_RDLOCK"),
    (ffi::SQLITE_IOERR_DELETE, "SQLITE_IOERR_DELETE"),
    (ffi::SQLITE_IOERR_NOMEM, "SQLITE_IOERR_NOMEM"),
    (ffi::SQLITE_IOERR_ACCESS, "SQLITE_IOERR_ACCESS"),
    (ffi::SQLITE_IOERR_LOCK, "SQLITE_IOERR_LOCK"),
    (ffi::SQLITE_IOERR_CLOSE, "SQLITE_IOERR_CLOSE"),
    (ffi::SQLITE_IOERR_SHMOPEN, "SQLITE_IOERR_SHMOPEN"),
    (ffi::SQLITE_IOERR_SHMSIZE, "SQLITE_IOERR_SHMSIZE"),
    (ffi::SQLITE_IOERR_SHMLOCK, "SQLITE_IOERR_SHMLOCK"),
    (ffi::SQLITE_IOERR_SHMMAP, "SQLITE_IOERR_SHMMAP"),
    (ffi::SQLITE_IOERR_SEEK, "SQLITE_IOERR_SEEK"),
    (ffi::SQLITE_IOERR_MMAP, "SQLITE_IOERR_MMAP"),
    (ffi::SQLITE_IOERR_DATA, "SQLITE_IOERR_DATA"),
    (ffi::SQLITE_IOERR_CORRUPTFS, "SQLITE_IOERR_CORRUPTFS"),
];

/// A disk with less free space than this counts as full (bytes).
const MIN_FREE_BYTES: u64 = 64 * 1024;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::StorageFull,
            Some(ErrorCode::SystemIoFailure) if is_beyond_size_limit(&error) => Self::StorageFull,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen,
            ) => Self::Disk(described(&error)),
            Some(_) | None => Self::Internal(described(&error)),
        }
    }
}

/// Whether a write exceeded the file size limit (`ulimit -f`). SQLite does not tell this from other faults.
/// Nothing was written beyond the limit.
fn is_beyond_size_limit(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_extended_error_code();
    matches!(code, Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE))
        && io::Error::last_os_error().raw_os_error() == Some(Errno::FBIG.raw_os_error())
}

/// The error with its extended code and the name of the code. SQLite reports an unreadable disk as a
/// malformed file, so the last error of the system is added.
fn described(error: &rusqlite::Error) -> String {
    let Some(code) = error.sqlite_extended_error_code() else { return format!("SQLite: {error}") };
    let cause = io::Error::last_os_error();
    let name = NAMES.iter().find(|(known, _)| *known == code).map_or("SQLite code", |(_, name)| name);
    if cause.raw_os_error() == Some(Errno::IO.raw_os_error()) {
        return format!("SQLite: {error} ({name} {code}); the system's last error: {cause}");
    }
    format!("SQLite: {error} ({name} {code})")
}

/// What a failed COMMIT has left in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogRemains {
    /// Nothing that a restart would take for a transaction.
    Nothing,
    /// Possibly a part of the transaction, possibly nothing.
    Part,
    /// The whole transaction was written, but not synced: a restart finds it.
    Whole,
}

/// Converts the error of a failed COMMIT. Call it at once: it reads the last error of the system.
pub(super) fn commit_error(error: rusqlite::Error, database: &Path) -> (Error, LogRemains) {
    // For a full disk, SQLite reports a failed write as full, but a failed fsync as an I/O error.
    let cause = io::Error::last_os_error();
    let synced = error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_FSYNC);
    let error = Error::from(error);
    let Error::Disk(text) = error else { return (error, LogRemains::Nothing) };
    let remains = if synced { LogRemains::Whole } else { LogRemains::Part };
    let full = is_disk_full(&cause) || is_disk_nearly_full(database);
    (if full { Error::StorageFull } else { Error::Unknown(text) }, remains)
}

fn is_disk_full(cause: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_disk_nearly_full(database: &Path) -> bool {
    rustix::fs::statvfs(database)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < MIN_FREE_BYTES)
}
