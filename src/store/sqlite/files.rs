//! Whether the files of the database are still those that were opened, and folding the write-ahead log in.
//!
//! A file that is removed, moved or replaced while the server runs takes with it what is acknowledged from then on. So the
//! writer looks before it answers: the names are compared by `stat` with the files that were opened.
//!
//! A file that is overwritten in place keeps its inode. So `meta` has a random mark, and its page on disk is read past
//! SQLite. The file on disk changes only when the log is folded in, and only this module does that
//! (`wal_autocheckpoint` is 0): a new mark is written before it, which is on disk afterwards, and another after it, which is
//! in the log alone. So no backup has the mark that is on disk, whether it was made before or since. One that is made while
//! the log is folded in has it, and the same pages as the file, or (`VACUUM INTO`) another header.
//!
//! The log is compared with its index, which says how many pages it has.
//!
//! If another program folds the log in, a mark of the log is on disk, and the log tells that it was folded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::guard::{Guard, Inode};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::health::Health;

/// The log is folded in when it has so many pages: as SQLite itself would do it.
const FOLD_AT: i64 = 1_000;
/// A log of so many pages that cannot be folded in because somebody reads is worth a line.
const LONG: i64 = 16_000;
/// Whoever folds the log in has a lock on this byte of the index (`WAL_CKPT_LOCK`:
/// <https://www.sqlite.org/walformat.html>, section 2.3.2).
const FOLDING_LOCK: u64 = 121;
/// Where the log's salts are in it, which are others each time it begins anew (section 4.1 of the file format).
const SALTS: u64 = 16;

/// The sizes of the headers of the log and of each of its pages (section 4.1).
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// In the index, where the number of the log's pages is and where its salts are, which end what is read of it
/// (<https://www.sqlite.org/walformat.html>, section 2.1).
const INDEX_PAGES: usize = 16;
const INDEX_SALTS: usize = 32;
const INDEX_HEADER: usize = 40;
/// How often the log is compared with its index before they are said to differ.
const LOOKS: usize = 5;

type Mark = [u8; 16];

/// What is compared of the file on disk: its header, and the mark.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileMark {
    header: [u8; 100],
    mark: Option<Mark>,
}

/// How the log is folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    /// While others read; the log keeps its size and is used again.
    Passing,
    /// The log is cut to nothing.
    Whole,
    /// As [`Self::Whole`], and the files stay as they are afterwards.
    Last,
}

/// How that went the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Well,
    HeldUp,
    Badly,
}

/// A file beside the database, as SQLite has it. Kept open until SQLite has closed the database.
struct SideFile {
    path: PathBuf,
    file: File,
    inode: Inode,
}

impl SideFile {
    fn open(guard: &Guard, end: &str) -> io::Result<Self> {
        let mut path = guard.path().as_os_str().to_owned();
        path.push(end);
        let file = File::open(&path)?;
        let inode = Inode::of(&file.metadata()?);
        Ok(Self { path: path.into(), file, inode })
    }
}

/// The files of an open database.
pub(super) struct Files {
    log: SideFile,
    index: SideFile,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Where the page of `meta` is, and room for it.
    at: u64,
    page: Vec<u8>,
    /// What is on disk, once that is known.
    on_disk: Option<FileMark>,
    /// Marks that are in the log and not on disk.
    in_log: Vec<Mark>,
    salts: [u8; 8],
    /// The log is folded in when it has so many pages.
    fold_at: i64,
    went: Went,
    cannot_look: bool,
    guard: Arc<Guard>,
}

impl Files {
    /// Of a database to which `connection` has written.
    pub(super) fn of(
        guard: Arc<Guard>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        connection: &Connection,
    ) -> Result<Self, Error> {
        let beside = |end| {
            SideFile::open(&guard, end).map_err(|error| {
                Error::Internal(format!("cannot open {}{end}: {error}", guard.path().display()))
            })
        };
        let size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let size = usize::try_from(size).unwrap_or_default();
        let mut files = Self {
            log: beside("-wal")?,
            index: beside("-shm")?,
            health,
            metrics,
            at: locate(connection, size)?,
            page: vec![0; size],
            on_disk: None,
            in_log: Vec::new(),
            salts: [0; 8],
            fold_at: FOLD_AT,
            went: Went::Well,
            cannot_look: false,
            guard,
        };
        // What a reader or the disk keeps from being folded in now is folded in later.
        let _ = files.fold(connection, Fold::Passing);
        Ok(files)
    }

    /// The database.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether the files are still there.
    ///
    /// # Errors
    /// [`Error::Stopping`] when they are not, and from then on.
    pub(super) fn check(&mut self, connection: &Connection) -> Result<(), Error> {
        let looked = self.look(connection);
        self.conclude(looked)
    }

    /// Whether the log is whole: what was cut from it would be grown over by the next commit. To be called before that; all
    /// else is checked after it, and before it is answered.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn check_log(&mut self) -> Result<(), Error> {
        let looked = self.look_at_log();
        self.conclude(looked)
    }

    fn conclude(&mut self, looked: io::Result<Option<String>>) -> Result<(), Error> {
        if self.health.is_gone() {
            return Err(Error::Stopping);
        }
        let what = match looked {
            Ok(None) => {
                self.cannot_look = false;
                return Ok(());
            }
            Ok(Some(what)) => what,
            Err(error) => {
                // That says nothing of the files, but of the disk.
                self.health.cannot_read();
                if !std::mem::replace(&mut self.cannot_look, true) {
                    log::warn!("cannot look whether {} is still there: {error}", self.guard.path().display());
                }
                return Ok(());
            }
        };
        Err(self.lost(&what))
    }

    /// The database is not what it was: from now on nothing is read or written.
    pub(super) fn lost(&self, what: &str) -> Error {
        log::error!(
            "{what} while the server ran: what was written since the last backup may be lost, nothing more is read or written, and the server stops. Put a backup in the place of {}, without its -wal and -shm files, and start the server again",
            self.guard.path().display()
        );
        self.health.set_gone();
        Error::Stopping
    }

    /// Returns what has happened to the files, if anything has.
    fn look(&mut self, connection: &Connection) -> io::Result<Option<String>> {
        let others = [&self.log, &self.index].map(|beside| (beside.path.as_path(), beside.inode));
        for (path, inode) in [(self.guard.path(), self.guard.inode())].into_iter().chain(others) {
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
        let log = self.look_at_log()?;
        if log.is_some() {
            return Ok(log);
        }
        if self.on_disk.is_none() || self.see()? == self.on_disk {
            return Ok(None);
        }
        self.look_closer(connection)
    }

    /// Returns what has happened to the log, if anything has.
    fn look_at_log(&self) -> io::Result<Option<String>> {
        // Another program may be changing log and index just now.
        for _ in 0..LOOKS {
            if self.has_whole_log()? {
                return Ok(None);
            }
        }
        Ok(Some(format!("{} was cut or changed", self.log.path.display())))
    }

    /// Whether the log has what its index says that it has: its beginning, and as many pages. SQLite writes the log first,
    /// and takes the pages out of the index before it cuts the log.
    fn has_whole_log(&self) -> io::Result<bool> {
        let mut index = [0; INDEX_HEADER];
        self.index.file.read_exact_at(&mut index, 0)?;
        let (_, rest) = index.split_at(INDEX_PAGES);
        let pages = rest.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        if pages == 0 {
            return Ok(true);
        }
        let page = u64::try_from(self.page.len()).unwrap_or_default().saturating_add(FRAME_HEADER);
        let needed = LOG_HEADER.saturating_add(page.saturating_mul(pages.into()));
        if self.log.file.metadata()?.len() < needed {
            return Ok(false);
        }
        let (_, salts) = index.split_at(INDEX_SALTS);
        Ok(self.salts()?.as_slice() == salts)
    }

    /// What should be on disk is not there.
    fn look_closer(&mut self, connection: &Connection) -> io::Result<Option<String>> {
        // VACUUM by another program may have moved the table.
        if let Ok(at) = locate(connection, self.page.len()) {
            self.at = at;
        }
        let found = self.see()?;
        // In this order: whoever folds the log in says that it is folded before they let go of the lock.
        if found == self.on_disk || self.is_being_folded()? {
            return Ok(None);
        }
        let mark = found.and_then(|found| found.mark);
        if mark.is_some_and(|mark| self.in_log.contains(&mark)) && self.was_folded(connection) {
            self.on_disk = found;
            // Backups may have this mark. The log tells if it cannot be folded in.
            let _ = self.fold(connection, Fold::Passing);
            return Ok(None);
        }
        Ok(Some(format!("{} was overwritten", self.guard.path().display())))
    }

    /// What is on disk; nothing, if that is no whole page.
    fn see(&mut self) -> io::Result<Option<FileMark>> {
        let file = self.guard.file();
        let mut header = [0; 100];
        let read = file.read_at(&mut header, 0)?;
        let page = file.read_at(&mut self.page, self.at)?;
        if read < header.len() || page < self.page.len() {
            return Ok(None);
        }
        Ok(Some(FileMark { header, mark: mark_of(&self.page) }))
    }

    /// Whether another program is folding the log in.
    fn is_being_folded(&self) -> io::Result<bool> {
        let lock = Flock {
            start: FOLDING_LOCK,
            length: 1,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        Ok(fcntl_getlk(&self.index.file, &lock)?.is_some())
    }

    /// Whether the log was folded in since the last mark was written.
    fn was_folded(&self, connection: &Connection) -> bool {
        self.salts().ok() != Some(self.salts) || pages(connection).is_ok_and(|(_, folded)| folded > 0)
    }

    fn salts(&self) -> io::Result<[u8; 8]> {
        let mut salts = [0; 8];
        self.log.file.read_exact_at(&mut salts, SALTS).map(|()| salts)
    }

    /// Writes a new mark, into the log.
    fn renew(&mut self, connection: &Connection) -> Result<(), Error> {
        let mark: Mark =
            connection.prepare_cached("SELECT randomblob(16)")?.query_row([], |row| row.get(0))?;
        connection.prepare_cached("UPDATE meta SET mark = ?1 WHERE id = 1")?.execute(params![mark])?;
        self.in_log.push(mark);
        // The log has a beginning now. If it cannot be read, it counts as folded.
        self.salts = self.salts().unwrap_or_default();
        Ok(())
    }

    /// Folds the log in if it is time. To be called when nobody waits for an answer.
    pub(super) fn fold_if_long(&mut self, connection: &Connection) {
        if pages(connection).is_ok_and(|(pages, _)| pages >= self.fold_at) {
            // The log tells.
            let _ = self.fold(connection, Fold::Passing);
        }
    }

    /// Folds the log in, unless somebody is reading from it: nobody waits for that.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody reads, [`Error::Stopping`] when the files are gone, else what SQLite could not do.
    pub(super) fn fold(&mut self, connection: &Connection, how: Fold) -> Result<(), Error> {
        self.check(connection)?;
        let outcome = self.fold_marked(connection, how);
        let pages = pages(connection).map_or(0, |(pages, _)| pages);
        self.fold_at = if outcome.is_ok() { FOLD_AT } else { pages.saturating_add(FOLD_AT) };
        self.tell(&outcome, pages);
        outcome
    }

    fn fold_marked(&mut self, connection: &Connection, how: Fold) -> Result<(), Error> {
        if how != Fold::Last {
            self.renew(connection)?;
        }
        let folded = checkpoint(connection, how);
        // Some of it may be on disk, however that went.
        self.on_disk = self.see().unwrap_or(None);
        if !folded? {
            return Err(Error::Busy);
        }
        self.in_log.clear();
        if how == Fold::Last { Ok(()) } else { self.renew(connection) }
    }

    /// Logs when it goes another way than the last time.
    fn tell(&mut self, outcome: &Result<(), Error>, pages: i64) {
        let went = match outcome {
            Ok(()) => Went::Well,
            Err(Error::Busy) if pages >= LONG => Went::HeldUp,
            // It may be so for a moment.
            Err(Error::Busy) => return,
            Err(_) => Went::Badly,
        };
        if went == Went::Badly {
            self.metrics.checkpoint_failures.inc();
        }
        let before = std::mem::replace(&mut self.went, went);
        let path = self.guard.path().display();
        match (went, outcome) {
            (_, _) if went == before => {}
            (Went::Badly, Err(error)) => log::error!(
                "the write-ahead log cannot be folded into {path}: {error}. It grows until that can be done; what was answered is kept in it"
            ),
            (Went::HeldUp, _) => log::warn!(
                "the write-ahead log of {path} has {pages} pages and cannot be folded in while another program reads from the database"
            ),
            (Went::Well | Went::Badly, _) => log::info!("the write-ahead log is folded into {path} again"),
        }
    }
}

/// Where the page of the table `meta` begins.
fn locate(connection: &Connection, page: usize) -> rusqlite::Result<u64> {
    let root: i64 = connection.query_row(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'meta' AND type = 'table'",
        [],
        |row| row.get(0),
    )?;
    let before = root.saturating_sub(1).cast_unsigned();
    Ok(u64::try_from(page).unwrap_or_default().saturating_mul(before))
}

/// The last 16 bytes of the one row on this page of a table: <https://www.sqlite.org/fileformat.html>, section 1.6.
fn mark_of(page: &[u8]) -> Option<Mark> {
    const LEAF_OF_A_TABLE: u8 = 0x0d;
    let number = |at: usize| Some(u16::from_be_bytes(page.get(at..)?.first_chunk().copied()?));
    if page.first() != Some(&LEAF_OF_A_TABLE) || number(3)? != 1 {
        return None;
    }
    let cell = page.get(usize::from(number(8)?)..)?;
    // The payload's length, as a number of one or two bytes, the row's id, which is 1, and the payload.
    let (length, begin) = match *cell {
        [length @ ..0x80, ..] => (usize::from(length), 2),
        [high, low @ ..0x80, ..] => (usize::from(high & 0x7f) << 7 | usize::from(low), 3),
        _ => return None,
    };
    cell.get(begin..)?.get(..length)?.last_chunk().copied()
}

/// How many pages the log has, and how many of them are folded in.
fn pages(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached("PRAGMA wal_checkpoint(NOOP)")?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Returns whether the whole log is folded in.
fn checkpoint(connection: &Connection, how: Fold) -> Result<bool, Error> {
    let sql = match how {
        Fold::Passing => "PRAGMA wal_checkpoint(PASSIVE)",
        Fold::Whole | Fold::Last => "PRAGMA wal_checkpoint(TRUNCATE)",
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
