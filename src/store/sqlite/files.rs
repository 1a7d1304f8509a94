//! Checks that the database files are still those that were opened, and folds the write-ahead log in.
//!
//! If a file is removed, moved or replaced while the server runs, everything acknowledged after that is lost.
//! So the writer checks before it answers: `stat` compares the paths with the files that were opened.
//!
//! A file that is overwritten in place keeps its inode. So `meta` has a random mark, and its page on disk is
//! read without SQLite. The file on disk changes only when the log is folded in, and only this module does
//! that (`wal_autocheckpoint` is 0). Before it folds the log in, it writes a new mark, which is on disk
//! afterwards. After that it writes another mark, which is in the log alone. So no backup has the mark that
//! is on disk, whether it was made before or since. A backup made while the log is folded in has that mark,
//! but also the same pages as the file, or another header (`VACUUM INTO`).
//!
//! If another program folds the log in, a mark from the log is on disk, and the log shows that it was folded.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::guard::{Guard, Inode};
use super::wal::Wal;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::health::Health;

/// Number of pages at which the log is folded in. This is SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Number of pages from which a log that a reader keeps from being folded in is reported.
const LONG_LOG_PAGES: i64 = 16_000;
type Mark = [u8; 16];

/// The part of the file on disk that is compared: its header, and the mark.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileMark {
    header: [u8; 100],
    mark: Option<Mark>,
}

/// How the log is folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckpointMode {
    /// While others read. The log keeps its size and is reused.
    Passive,
    /// The log is truncated to zero bytes.
    Truncate,
    /// As [`Self::Truncate`], but no new mark is written: the files do not change afterwards.
    Final,
}

/// The outcome of the last attempt to fold the log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckpointStatus {
    Done,
    Blocked,
    Failed,
}

/// The files of an open database.
pub(super) struct Files {
    wal: Wal,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Offset of the page of `meta` in the file, and a buffer for the page.
    at: u64,
    page: Vec<u8>,
    /// The expected mark and header on disk, once they are known.
    on_disk: Option<FileMark>,
    /// Marks that are in the log but not on disk.
    in_log: Vec<Mark>,
    salts: [u8; 8],
    /// Number of pages at which the log is folded in next.
    checkpoint_at: i64,
    status: CheckpointStatus,
    is_unreadable: bool,
    guard: Arc<Guard>,
}

impl Files {
    /// Opens the files of a database to which `connection` has written.
    pub(super) fn of(
        guard: Arc<Guard>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        connection: &Connection,
    ) -> Result<Self, Error> {
        let size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let size = usize::try_from(size).unwrap_or_default();
        let mut files = Self {
            wal: Wal::open(&guard)?,
            health,
            metrics,
            at: locate(connection, size)?,
            page: vec![0; size],
            on_disk: None,
            in_log: Vec::new(),
            salts: [0; 8],
            checkpoint_at: CHECKPOINT_PAGES,
            status: CheckpointStatus::Done,
            is_unreadable: false,
            guard,
        };
        // If a reader or the disk prevents it now, the log is folded in later.
        let _ = files.checkpoint(connection, CheckpointMode::Passive);
        Ok(files)
    }

    /// The guard of the database.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Checks that the files are still there.
    ///
    /// # Errors
    /// [`Error::Stopping`] if they are not, and from then on.
    pub(super) fn check(&mut self, connection: &Connection) -> Result<(), Error> {
        let looked = self.compare(connection);
        self.handle_comparison(looked)
    }

    /// Checks that the log is complete. Call it before a commit: the commit would grow the log again and hide
    /// what was cut off. Everything else is checked after the commit, before the answer.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn check_log(&mut self) -> Result<(), Error> {
        let looked = self.compare_log();
        self.handle_comparison(looked)
    }

    fn handle_comparison(&mut self, looked: io::Result<Option<String>>) -> Result<(), Error> {
        if self.health.is_gone() {
            return Err(Error::Stopping);
        }
        let what = match looked {
            Ok(None) => {
                self.is_unreadable = false;
                return Ok(());
            }
            Ok(Some(what)) => what,
            Err(error) => {
                // The error is about the disk. It does not show that the files have changed.
                self.health.cannot_read();
                if !std::mem::replace(&mut self.is_unreadable, true) {
                    log::warn!("cannot look whether {} is still there: {error}", self.guard.path().display());
                }
                return Ok(());
            }
        };
        Err(self.mark_lost(&what))
    }

    /// Records that the database was lost or changed. From now on the store does not read or write.
    pub(super) fn mark_lost(&self, what: &str) -> Error {
        log::error!(
            "{what} while the server ran: what was written since the last backup may be lost, nothing more is read or written, and the server stops. Put a backup in the place of {}, without its -wal and -shm files, and start the server again",
            self.guard.path().display()
        );
        self.health.set_gone();
        Error::Stopping
    }

    /// Returns what has happened to the files; `None` if they are unchanged.
    fn compare(&mut self, connection: &Connection) -> io::Result<Option<String>> {
        let database = (self.guard.path(), self.guard.inode());
        for (path, inode) in [database].into_iter().chain(self.wal.files()) {
            match std::fs::metadata(path) {
                Ok(found) if Inode::of(&found) == inode => {}
                Ok(_) => return Ok(Some(format!("{} was replaced by another file", path.display()))),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    return Ok(Some(format!("{} was removed or moved", path.display())));
                }
                Err(error) => return Err(error),
            }
        }
        let log = self.compare_log()?;
        if log.is_some() {
            return Ok(log);
        }
        if self.on_disk.is_none() || self.read_mark()? == self.on_disk {
            return Ok(None);
        }
        self.explain_change(connection)
    }

    /// Returns what has happened to the log; `None` if it is complete.
    fn compare_log(&mut self) -> io::Result<Option<String>> {
        if self.wal.is_complete(self.page.len())? {
            return Ok(None);
        }
        Ok(Some(format!("{} was cut or changed", self.wal.log_path().display())))
    }

    /// Finds out why the file does not have the expected header and mark. Returns what has happened; `None`
    /// if the change is legitimate.
    fn explain_change(&mut self, connection: &Connection) -> io::Result<Option<String>> {
        // VACUUM by another program may have moved the table.
        if let Ok(at) = locate(connection, self.page.len()) {
            self.at = at;
        }
        let found = self.read_mark()?;
        // The order matters: a process that folds the log in publishes that it is folded before it releases
        // the lock.
        if found == self.on_disk || self.wal.is_being_checkpointed()? {
            return Ok(None);
        }
        let mark = found.and_then(|found| found.mark);
        if mark.is_some_and(|mark| self.in_log.contains(&mark)) && self.was_checkpointed(connection) {
            self.on_disk = found;
            // Backups may have this mark, so the log is folded in again. `checkpoint` logs a failure.
            let _ = self.checkpoint(connection, CheckpointMode::Passive);
            return Ok(None);
        }
        Ok(Some(format!("{} was overwritten", self.guard.path().display())))
    }

    /// Reads the header and the mark on disk. `None` if the page is not complete.
    fn read_mark(&mut self) -> io::Result<Option<FileMark>> {
        let file = self.guard.file();
        let mut header = [0; 100];
        let read = file.read_at(&mut header, 0)?;
        let page = file.read_at(&mut self.page, self.at)?;
        if read < header.len() || page < self.page.len() {
            return Ok(None);
        }
        Ok(Some(FileMark { header, mark: mark_of(&self.page) }))
    }

    /// Whether the log was folded in after the last mark was written.
    fn was_checkpointed(&self, connection: &Connection) -> bool {
        self.wal.salts().ok() != Some(self.salts) || pages(connection).is_ok_and(|(_, folded)| folded > 0)
    }

    /// Writes a new mark into the log.
    fn write_mark(&mut self, connection: &Connection) -> Result<(), Error> {
        let mark: Mark =
            connection.prepare_cached("SELECT randomblob(16)")?.query_row([], |row| row.get(0))?;
        connection.prepare_cached("UPDATE meta SET mark = ?1 WHERE id = 1")?.execute(params![mark])?;
        self.in_log.push(mark);
        // The log has a header now. If its salts cannot be read, it counts as folded.
        self.salts = self.wal.salts().unwrap_or_default();
        Ok(())
    }

    /// Folds the log in if it is long enough. Call it when no caller waits for an answer.
    pub(super) fn checkpoint_if_long(&mut self, connection: &Connection) {
        if i64::from(self.wal.pages()) >= self.checkpoint_at {
            // `checkpoint` logs a failure.
            let _ = self.checkpoint(connection, CheckpointMode::Passive);
        }
    }

    /// Folds the log in, unless a connection reads from it: the writer does not wait for readers.
    ///
    /// # Errors
    /// [`Error::Busy`] while another connection reads; [`Error::Stopping`] if the files are gone; otherwise
    /// errors of SQLite.
    pub(super) fn checkpoint(&mut self, connection: &Connection, how: CheckpointMode) -> Result<(), Error> {
        self.check(connection)?;
        let outcome = self.checkpoint_with_marks(connection, how);
        let pages = pages(connection).map_or(0, |(pages, _)| pages);
        self.checkpoint_at =
            if outcome.is_ok() { CHECKPOINT_PAGES } else { pages.saturating_add(CHECKPOINT_PAGES) };
        self.log_outcome(&outcome, pages);
        outcome
    }

    fn checkpoint_with_marks(&mut self, connection: &Connection, how: CheckpointMode) -> Result<(), Error> {
        if how != CheckpointMode::Final {
            self.write_mark(connection)?;
        }
        let folded = run_checkpoint(connection, how);
        // A part of the log may be on disk even after an error.
        self.on_disk = self.read_mark().unwrap_or(None);
        if !folded? {
            return Err(Error::Busy);
        }
        self.in_log.clear();
        if how == CheckpointMode::Final { Ok(()) } else { self.write_mark(connection) }
    }

    /// Logs the outcome if it differs from the last one.
    fn log_outcome(&mut self, outcome: &Result<(), Error>, pages: i64) {
        let status = match outcome {
            Ok(()) => CheckpointStatus::Done,
            Err(Error::Busy) if pages >= LONG_LOG_PAGES => CheckpointStatus::Blocked,
            // A short log may be busy for a moment.
            Err(Error::Busy) => return,
            Err(_) => CheckpointStatus::Failed,
        };
        if status == CheckpointStatus::Failed {
            self.metrics.checkpoint_failures.inc();
        }
        let before = std::mem::replace(&mut self.status, status);
        let path = self.guard.path().display();
        match (status, outcome) {
            (_, _) if status == before => {}
            (CheckpointStatus::Failed, Err(error)) => log::error!(
                "the write-ahead log cannot be folded into {path}: {error}. It grows until that can be done; what was answered is kept in it"
            ),
            (CheckpointStatus::Blocked, _) => log::warn!(
                "the write-ahead log of {path} has {pages} pages and cannot be folded in while another program reads from the database"
            ),
            (CheckpointStatus::Done | CheckpointStatus::Failed, _) => {
                log::info!("the write-ahead log is folded into {path} again");
            }
        }
    }
}

/// The offset in the file of the root page of the table `meta`.
fn locate(connection: &Connection, page: usize) -> rusqlite::Result<u64> {
    let root: i64 = connection.query_row(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'meta' AND type = 'table'",
        [],
        |row| row.get(0),
    )?;
    let before = root.saturating_sub(1).cast_unsigned();
    Ok(u64::try_from(page).unwrap_or_default().saturating_mul(before))
}

/// The last 16 bytes of the one row on this page of a table: <https://www.sqlite.org/fileformat.html>,
/// section 1.6.
fn mark_of(page: &[u8]) -> Option<Mark> {
    const LEAF_OF_A_TABLE: u8 = 0x0d;
    let number = |at: usize| Some(u16::from_be_bytes(page.get(at..)?.first_chunk().copied()?));
    if page.first() != Some(&LEAF_OF_A_TABLE) || number(3)? != 1 {
        return None;
    }
    let cell = page.get(usize::from(number(8)?)..)?;
    // A cell: the length of the payload, as a number of one or two bytes; the row id, which is 1; the
    // payload.
    let (length, begin) = match *cell {
        [length @ ..0x80, ..] => (usize::from(length), 2),
        [high, low @ ..0x80, ..] => (usize::from(high & 0x7f) << 7 | usize::from(low), 3),
        _ => return None,
    };
    cell.get(begin..)?.get(..length)?.last_chunk().copied()
}

/// The number of pages in the log, and how many of them are folded in.
fn pages(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached("PRAGMA wal_checkpoint(NOOP)")?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Folds the log in. Returns whether all of it is folded in.
fn run_checkpoint(connection: &Connection, how: CheckpointMode) -> Result<bool, Error> {
    let sql = match how {
        CheckpointMode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        CheckpointMode::Truncate | CheckpointMode::Final => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    let milliseconds: u32 = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
    connection.busy_timeout(Duration::ZERO)?;
    let folded = connection
        .prepare_cached(sql)?
        .query_row([], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
    connection.busy_timeout(Duration::from_millis(milliseconds.into()))?;
    let (busy, pages, done) = folded?;
    Ok(!busy && pages == done)
}
