//! The guard: at most one server per database file.
//!
//! It consists of two advisory locks (`flock`, independent of SQLite's own locks): one on `<database>.lock`,
//! one on the database file itself. The system releases them when the process ends. The first prevents a
//! second server on the same path. The second prevents a second server on the same file under another path.
//!
//! SQLite's own locks are POSIX locks. When a process closes *any* descriptor of a file, the system drops all
//! POSIX locks of that process on the file (<https://www.sqlite.org/howtocorrupt.html>, section 2.2). Then
//! another process may delete the write-ahead log. So the descriptor is opened before SQLite opens the file
//! and closed after SQLite has closed it, and no other code here opens the file.

use std::collections::BTreeSet;
use std::fs::{File, FileType, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::open::check_header;
use crate::error::Error;

/// Maximum number of bytes that are read of another server's note in the lock file.
const NOTE_BYTES: u64 = 512;
/// How often the lock on the file is tried. `lockhouse token` holds a shared lock on it for some
/// microseconds.
const LOCK_TRIES: u32 = 20;
/// The wait between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The database files that this process holds.
static HELD_FILES: Mutex<BTreeSet<Inode>> = Mutex::new(BTreeSet::new());

/// The identity of a file, independent of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), number: file.ino() }
    }
}

/// Holds both locks while the database is open.
#[derive(Debug)]
pub(in crate::store) struct Guard {
    path: PathBuf,
    name: File,
    file: File,
    inode: Inode,
}

/// Resolves the path of a database through symbolic links, because two paths of one file are one database.
/// Accepts regular files only. The type is checked without opening the file: opening a FIFO blocks without
/// limit, and opening a device can have any effect.
pub(super) fn resolve(database: &Path) -> Result<PathBuf, Error> {
    let cannot = |error: std::io::Error| {
        Error::Internal(format!("cannot find the database {}: {error}", database.display()))
    };
    match database.metadata() {
        Ok(file) => {
            regular(database, &file)?;
            return database.canonicalize().map_err(cannot);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(error)),
    }
    if let Ok(target) = std::fs::read_link(database) {
        return Err(Error::Internal(format!(
            "{} is a symbolic link to {}, which does not exist: correct the link, or give another file with --database",
            database.display(),
            target.display()
        )));
    }
    let directory = database.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    if !directory.exists() {
        return Err(Error::Internal(format!(
            "there is no directory for the database {}: make it, or give another file with --database",
            database.display()
        )));
    }
    let Some(name) = database.file_name() else {
        return Err(Error::Internal(format!(
            "{} names no file: give one with --database",
            database.display()
        )));
    };
    Ok(directory.canonicalize().map_err(cannot)?.join(name))
}

fn regular(database: &Path, file: &Metadata) -> Result<(), Error> {
    let shown = database.display();
    if !file.is_file() {
        return Err(Error::Internal(format!(
            "{shown} is {}, and the database must be a regular file: give another with --database",
            kind(file.file_type())
        )));
    }
    if file.nlink() > 1 {
        return Err(Error::Internal(format!(
            "{shown} has a second name (a hard link), under which another server could open it: remove that one"
        )));
    }
    Ok(())
}

fn kind(of: FileType) -> &'static str {
    if of.is_dir() {
        "a directory"
    } else if of.is_fifo() {
        "a named pipe (FIFO)"
    } else if of.is_socket() {
        "a socket"
    } else if of.is_char_device() || of.is_block_device() {
        "a device"
    } else {
        "no file that can be read"
    }
}

/// Opens a database, and creates an empty file if it does not exist. A file of another program is refused and
/// left unchanged.
fn open(path: &Path) -> Result<File, Error> {
    let cannot = |error: std::io::Error| {
        Error::Internal(format!("cannot open the database {}: {error}", path.display()))
    };
    let file = open_options().create(true).open(path).map_err(cannot)?;
    regular(path, &file.metadata().map_err(cannot)?)?;
    check_header(path, &file)?;
    Ok(file)
}

/// Whether this process has the file open already. To open and close it once more would drop SQLite's locks.
fn is_held(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| held_files().contains(&Inode::of(&file)))
}

/// Gives a new file to the owner of another file, if root runs this program for the server of another user.
pub(super) fn give(file: &File, model: &Metadata) -> std::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return fchown(file, Some(model.uid()), Some(model.gid()));
    }
    Ok(())
}

/// Options to open a file for reading and writing, without blocking if it is a FIFO or a device.
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    options.read(true).write(true).truncate(false).mode(0o600).custom_flags(at_once);
    options
}

fn held_files() -> MutexGuard<'static, BTreeSet<Inode>> {
    // No code panics while it holds the mutex.
    HELD_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_file(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn in_use_error(database: &Path, by: &str) -> Error {
    Error::Internal(format!(
        "{} is in use by {by}; a database has one server at a time: stop that one, or give this one another file with --database",
        database.display()
    ))
}

impl Guard {
    /// Takes both locks. If they are taken, the error names the holder. The file is created if it does not
    /// exist.
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        let path = resolve(database)?;
        let elsewhere = || in_use_error(database, "a lockhouse that may have it under another name");
        if is_held(&path) {
            return Err(elsewhere());
        }
        // An existing file is checked first, so that no lock file is created beside a file of another
        // program.
        let existing = if path.exists() { Some(open(&path)?) } else { None };
        let lock_file = lock_file(&path);
        let shown = lock_file.display();
        let mut name = open_options()
            .create(true)
            .open(&lock_file)
            .and_then(|file| {
                path.with_file_name("").metadata().and_then(|folder| give(&file, &folder)).map(|()| file)
            })
            .map_err(|error| Error::Internal(format!("cannot open {shown}: {error}")))?;
        match name.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut note = String::new();
                // A note that cannot be read is left out of the error.
                let _ = Read::by_ref(&mut name).take(NOTE_BYTES).read_to_string(&mut note);
                return Err(in_use_error(database, note.lines().next().unwrap_or("another lockhouse")));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::Internal(format!("cannot lock {shown}: {error}")));
            }
        }
        let file = existing.map_or_else(|| open(&path), Ok)?;
        for left in (0..LOCK_TRIES).rev() {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if left > 0 => std::thread::park_timeout(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => return Err(elsewhere()),
                Err(TryLockError::Error(error)) => {
                    return Err(Error::Internal(format!("cannot lock {}: {error}", path.display())));
                }
            }
        }
        let inode = file.metadata().map(|file| Inode::of(&file));
        let inode =
            inode.map_err(|error| Error::Internal(format!("cannot read {}: {error}", path.display())))?;
        held_files().insert(inode);
        Ok(Self { path, name, file, inode })
    }

    /// The resolved path of the file.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for reading it without SQLite.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// The identity of the file.
    pub(super) const fn inode(&self) -> Inode {
        self.inode
    }

    /// Writes the process id and `address` into the lock file, for the error of a second server.
    pub(in crate::store) fn announce(&self, address: &str) -> Result<(), Error> {
        let mut file = &self.name;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| {
                writeln!(file, "the lockhouse with process id {}, on {address}", std::process::id())
            })
            .map_err(|error| Error::Internal(format!("cannot write the lock file: {error}")))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A child process has these descriptors too until it executes its program. To close them here would
        // not be enough.
        for file in [&self.file, &self.name] {
            let _ = file.unlock();
        }
        held_files().remove(&self.inode);
    }
}

/// Access to a database that a server may have open. The file is created if it does not exist.
#[derive(Debug)]
pub(super) struct SharedAccess {
    /// The resolved path of the file.
    pub(super) path: PathBuf,
    /// The file, unless this process has it open already. Must be closed after SQLite has closed it.
    _file: Option<File>,
}

impl SharedAccess {
    /// Opens the file, and checks that no server has it open under another path. That server would use
    /// another write-ahead log, and neither process would see what the other writes.
    pub(super) fn open(database: &Path) -> Result<Self, Error> {
        let path = resolve(database)?;
        if is_held(&path) {
            return Ok(Self { path, _file: None });
        }
        let file = open(&path)?;
        let is_free = |file: &File| file.try_lock_shared().is_ok() && file.unlock().is_ok();
        if !is_free(&file) {
            // A lock file that does not exist is not locked.
            let name_is_free =
                OpenOptions::new().read(true).open(lock_file(&path)).map_or(true, |name| is_free(&name));
            if name_is_free {
                return Err(Error::Internal(format!(
                    "{} is in use by a lockhouse that has it under another name, or its .lock file was removed: give the name that the server has, or stop it",
                    database.display()
                )));
            }
        }
        Ok(Self { path, _file: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_is_given_up_although_a_child_process_still_has_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("lockhouse.db");
        let guard = Guard::take(&database).unwrap();
        let of_child = [guard.name.try_clone().unwrap(), guard.file.try_clone().unwrap()];
        assert!(Guard::take(&database).is_err());
        drop(guard);
        Guard::take(&database).unwrap();
        drop(of_child);
    }
}
