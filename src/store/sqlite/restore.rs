//! Replaces a database by a backup, for `lockhouse restore`.
//!
//! At each moment the path of the database has the whole old file or the whole new one, and the fence floor is
//! above all fences of both before the new one is there:
//!
//! 1. A copy of the backup is checked and migrated.
//! 2. The old database is locked, and its write-ahead log is folded in. All locks in the copy are ended.
//! 3. The fence floor is raised.
//! 4. The old file is copied to another name.
//! 5. The copy of the backup is renamed to the path of the database.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi, params};

use super::backup::{Contents, cannot_write, is_whole, sync};
use super::floor::Floor;
use super::guard::{Guard, Inode, give, resolve};
use super::open;
use crate::domain::Fence;
use crate::error::Error;
use crate::time::{Clock, WallTime};

/// How far the fence floor is raised above the fences that are known, and above the clock (microseconds): one
/// hour. The server may have given fences that neither file knows, with a clock that was ahead.
const JUMP: i64 = 3_600_000_000;
/// The `reason` of the events that end the locks of the backup.
const REASON: &str = "a backup was restored";

/// A database that is about to be replaced. No server can start on it meanwhile.
pub struct Restore {
    // Closed before the guard: see guard.rs.
    old: Option<Connection>,
    /// Why the old file cannot be read.
    unreadable: Option<String>,
    given: Fence,
    floor: Floor,
    is_new: bool,
    guard: Guard,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// What the backup contained.
    pub contents: Contents,
    /// Where the old file is now; `None` if there was none.
    pub kept: Option<PathBuf>,
    /// Why the old file could not be read, if it could not.
    pub unreadable: Option<String>,
    /// No fence up to this one is given from now on.
    pub floor: Fence,
}

impl Restore {
    /// Locks the database, which need not exist, against servers.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator: a server has the file open, or the fence floor
    /// cannot be used.
    pub fn begin(database: &Path) -> Result<Self, Error> {
        let path = resolve(database)?;
        let is_new = !path.exists();
        // Before the guard creates a file.
        Floor::read(&path)?;
        let guard = Guard::take(database)?;
        let floor = Floor::read(guard.path())?;
        Ok(Self { old: None, unreadable: None, given: Fence(0), floor, is_new, guard })
    }

    /// The directory of the database.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.guard.path().parent().unwrap_or_else(|| Path::new("/"))
    }

    fn has_old(&self) -> bool {
        self.guard.file().metadata().is_ok_and(|file| file.len() > 0)
    }

    /// Folds the log of the old file in, locks the file, and reads its highest fence. A damaged file is no
    /// error: it is to be replaced.
    fn lock_old(&mut self) -> Result<(), Error> {
        let path = self.guard.path();
        match lock_alone(path) {
            Ok((connection, given)) => {
                self.old = Some(connection);
                self.given = given;
                Ok(())
            }
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                ) =>
            {
                Err(Error::Internal(format!("another program has {} open: end it first", path.display())))
            }
            Err(error) => {
                self.unreadable = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// Replaces the database by the backup. `scratch` is an empty directory in [`Self::directory`].
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator: the backup cannot be used, another program has the
    /// database open, or the disk is full. Then the database has what it had.
    pub fn run(
        mut self,
        backup: &Path,
        scratch: &Path,
        clock: &Clock,
        revoke_tokens: bool,
    ) -> Result<Restored, Error> {
        let new = scratch.join("new.db");
        self.take_in(backup, &new)?;
        let cannot = |error: &dyn std::fmt::Display| {
            // The operator does not know the copy.
            let error = error.to_string().replace(&*new.to_string_lossy(), &backup.to_string_lossy());
            Error::Internal(format!("the backup cannot be restored: {error}"))
        };
        let (mut connection, contents) = opened(&new).map_err(|error| cannot(&error))?;
        if self.has_old() {
            self.lock_old()?;
        }
        let floor = self.floor_above(&connection, clock).map_err(|error| cannot(&error))?;
        end_all(&mut connection, floor, clock.wall(), revoke_tokens).map_err(|error| cannot(&error))?;
        // One file: no log is left beside it.
        let mode: rusqlite::Result<String> =
            connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0));
        mode.map_err(|error| cannot(&error))?;
        drop(connection);
        sync(&new)?;
        self.floor.raise_to(floor)?;
        let kept = if self.has_old() { Some(self.keep(scratch, clock.wall())?) } else { None };
        std::fs::rename(&new, self.guard.path()).map_err(|error| cannot_write(self.guard.path(), &error))?;
        self.is_new = false;
        sync(self.directory())?;
        Ok(Restored { contents, kept, unreadable: self.unreadable.take(), floor })
    }

    /// Copies the backup, and its write-ahead log if it has one.
    fn take_in(&self, backup: &Path, new: &Path) -> Result<(), Error> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::Internal(format!("cannot read the backup {}: {error}", backup.display()))
        };
        let found = std::fs::metadata(backup).map_err(|error| cannot(&error))?;
        if !found.is_file() || found.len() == 0 {
            return Err(cannot(&"it is empty, or no regular file"));
        }
        if Inode::of(&found) == self.guard.inode() {
            return Err(cannot(&"it is the database itself"));
        }
        let file = File::open(backup).map_err(|error| cannot(&error))?;
        if file.try_lock_shared().is_err() {
            return Err(cannot(&"a server has it open; make a backup of it with lockhouse backup"));
        }
        open::check_header(backup, &file)?;
        self.copy(&file, new)?;
        match File::open(beside(backup, "-wal")) {
            Ok(log) => self.copy(&log, &beside(new, "-wal")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(cannot(&error)),
        }
    }

    /// Copies a file to the disk. The copy belongs to the owner of the database.
    fn copy(&self, from: &File, to: &Path) -> Result<(), Error> {
        let model = if self.is_new { self.directory().metadata() } else { self.guard.file().metadata() };
        model.and_then(|model| copy_to_disk(from, to, &model)).map_err(|error| cannot_write(to, &error))
    }

    /// A fence above all that were given.
    fn floor_above(&self, new: &Connection, clock: &Clock) -> Result<Fence, Error> {
        let given = highest(new)?.max(self.given).max(self.floor.value());
        let floor = Fence(given.0.max(clock.wall_micros()).saturating_add(JUMP).min(Fence::GREATEST.0 - 1));
        if floor > given {
            Ok(floor)
        } else {
            Err(Error::Internal("no fence is left above those that were given".to_owned()))
        }
    }

    /// Copies the old file to a name with the time. What is left of its log is moved there, too: the new file
    /// must not meet it.
    fn keep(&self, scratch: &Path, now: WallTime) -> Result<PathBuf, Error> {
        let time = now.to_rfc3339().replace([':', '-'], "");
        let kept = beside(self.guard.path(), &format!(".before-restore-{time}"));
        let copy = scratch.join("old.db");
        self.copy(self.guard.file(), &copy)?;
        std::fs::rename(copy, &kept).map_err(|error| cannot_write(&kept, &error))?;
        if self.old.is_none() {
            for end in ["-wal", "-journal", "-shm"] {
                let kept = beside(&kept, end);
                match std::fs::rename(beside(self.guard.path(), end), &kept) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(cannot_write(&kept, &error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        sync(self.directory())?;
        Ok(kept)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.is_new {
            // The guard has created it. It may not be there any more.
            let _ = std::fs::remove_file(self.guard.path());
        }
    }
}

fn copy_to_disk(mut from: &File, to: &Path, model: &Metadata) -> io::Result<()> {
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    give(&copy, model)?;
    from.rewind()?;
    io::copy(&mut from, &mut copy)?;
    copy.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    beside.into()
}

/// Opens a database with a lock against all other connections, and folds its log in, which removes the log.
fn lock_alone(path: &Path) -> rusqlite::Result<(Connection, Fence)> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode != "delete" {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
    }
    connection.execute_batch("BEGIN EXCLUSIVE")?;
    let given = highest(&connection)?;
    Ok((connection, given))
}

/// The highest fence that a database knows.
fn highest(connection: &Connection) -> rusqlite::Result<Fence> {
    connection.query_row(
        "SELECT max(last_fence, (SELECT coalesce(max(fence), 0) FROM locks)) FROM meta",
        [],
        |row| row.get(0).map(Fence),
    )
}

/// Checks the copy of the backup, and migrates it to the newest schema.
fn opened(new: &Path) -> Result<(Connection, Contents), Error> {
    let connection = Connection::open(new)?;
    is_whole(&connection, new)?;
    drop(connection);
    let connection = open::prepare(new, open::Older::Migrate)?;
    let contents = Contents::of(&connection)?;
    Ok((connection, contents))
}

/// Ends all locks of the copy, as an administrator would, and raises its fence counter. Their holders may not
/// come back to them: others may have had the workspaces since the backup was made.
fn end_all(
    connection: &mut Connection,
    floor: Fence,
    now: WallTime,
    revoke_tokens: bool,
) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "UPDATE meta SET last_fence = ?1, last_seen_at = max(last_seen_at, ?2 - wall_offset_ms)",
        params![floor.0, now.0],
    )?;
    transaction.execute(
        "INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, session_id, fence, message)
         SELECT last_revision + row_number() OVER (ORDER BY workspace_id), workspace_id, 'lock.revoked', ?1, last_seen_at,
                user_id, session_id, fence, ?2
         FROM locks, meta",
        params![now.0, REASON],
    )?;
    transaction.execute_batch(
        "UPDATE meta SET last_revision = last_revision + (SELECT count(*) FROM locks), lock_count = 0;
         DELETE FROM knocks;
         DELETE FROM locks;
         -- The receivers know events that the backup does not have.
         UPDATE webhooks SET position = -1;",
    )?;
    if revoke_tokens {
        transaction.execute("DELETE FROM tokens", [])?;
    }
    transaction.commit()?;
    Ok(())
}
