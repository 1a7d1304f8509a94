//! One server a file.
//!
//! Two advisory locks, which the system releases when the process ends: one on `<database>.lock`, one on the database file
//! itself (`flock`, independent of SQLite's own locks). The first keeps a second server off the name, the second off the
//! file, whatever name leads there.
//!
//! SQLite's own locks are POSIX locks. The system drops those of a whole process when it closes *any* descriptor of the file
//! (<https://www.sqlite.org/howtocorrupt.html>, section 2.2), and then another process may delete the write-ahead log. So
//! the descriptor is opened before SQLite opens the file and closed after SQLite has closed it, and nothing else here
//! opens the file.

use std::collections::BTreeSet;
use std::fs::{File, FileType, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::open::look;
use crate::error::Error;

/// Most bytes that are read of the note that another server left.
const NOTE_BYTES: u64 = 512;
/// How often the file's lock is tried. `lockhouse token` has a share in it for some microseconds.
const TRIES: u32 = 20;
/// How long it waits between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// The files that this process holds.
static HELD: Mutex<BTreeSet<Inode>> = Mutex::new(BTreeSet::new());

/// What a file is, whatever its name.
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

/// Both locks, as long as the database is open.
#[derive(Debug)]
pub(in crate::store) struct Guard {
    path: PathBuf,
    name: File,
    file: File,
    inode: Inode,
}

/// The file itself, whatever links lead there: two names of one file are one database. Regular files only, and that is
/// found out without opening them: to open a FIFO waits for ever, and to open a device can do anything.
pub(super) fn whole(database: &Path) -> Result<PathBuf, Error> {
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
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if !folder.exists() {
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
    Ok(folder.canonicalize().map_err(cannot)?.join(name))
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

/// Opens a database, and makes an empty file if it is not there. What is not ours is refused and left as it is.
fn open(path: &Path) -> Result<File, Error> {
    let cannot = |error: std::io::Error| {
        Error::Internal(format!("cannot open the database {}: {error}", path.display()))
    };
    let file = for_both().create(true).open(path).map_err(cannot)?;
    regular(path, &file.metadata().map_err(cannot)?)?;
    look(path, &file)?;
    Ok(file)
}

/// Whether this process holds it open already. To open it once more and close that would drop SQLite's locks.
fn is_held(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| held().contains(&Inode::of(&file)))
}

/// For reading and writing, and without waiting for whatever is at the other end.
fn for_both() -> OpenOptions {
    let mut options = OpenOptions::new();
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    options.read(true).write(true).truncate(false).mode(0o600).custom_flags(at_once);
    options
}

fn held() -> MutexGuard<'static, BTreeSet<Inode>> {
    // Nothing panics while it is held.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_file(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn in_use(database: &Path, by: &str) -> Error {
    Error::Internal(format!(
        "{} is in use by {by}; a database has one server at a time: stop that one, or give this one another file with --database",
        database.display()
    ))
}

impl Guard {
    /// Takes both locks, or says who has them. The file is made if it is not there.
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        let path = whole(database)?;
        let elsewhere = || in_use(database, "a lockhouse that may have it under another name");
        if is_held(&path) {
            return Err(elsewhere());
        }
        // First what is there: no lock file is made beside what is not ours.
        let there = if path.exists() { Some(open(&path)?) } else { None };
        let lock_file = lock_file(&path);
        let shown = lock_file.display();
        let mut name = for_both()
            .create(true)
            .open(&lock_file)
            .map_err(|error| Error::Internal(format!("cannot open {shown}: {error}")))?;
        match name.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut note = String::new();
                // What cannot be read is left out of the sentence.
                let _ = Read::by_ref(&mut name).take(NOTE_BYTES).read_to_string(&mut note);
                return Err(in_use(database, note.lines().next().unwrap_or("another lockhouse")));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::Internal(format!("cannot lock {shown}: {error}")));
            }
        }
        let file = there.map_or_else(|| open(&path), Ok)?;
        for left in (0..TRIES).rev() {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if left > 0 => std::thread::park_timeout(BETWEEN_TRIES),
                Err(TryLockError::WouldBlock) => return Err(elsewhere()),
                Err(TryLockError::Error(error)) => {
                    return Err(Error::Internal(format!("cannot lock {}: {error}", path.display())));
                }
            }
        }
        let inode = file.metadata().map(|file| Inode::of(&file));
        let inode =
            inode.map_err(|error| Error::Internal(format!("cannot read {}: {error}", path.display())))?;
        held().insert(inode);
        Ok(Self { path, name, file, inode })
    }

    /// The file's whole name.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for looking at it past SQLite.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Which file that is.
    pub(super) const fn inode(&self) -> Inode {
        self.inode
    }

    /// Leaves a note for whoever comes next.
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
        held().remove(&self.inode);
    }
}

/// A database that a server may have open, for working on it from beside. The file is made if it is not there.
#[derive(Debug)]
pub(super) struct Beside {
    /// The file's whole name.
    pub(super) path: PathBuf,
    /// The file, unless this process holds it open already. To be closed after SQLite has closed it.
    _file: Option<File>,
}

impl Beside {
    /// Looks whether a server has the file under another name: its write-ahead log would be another, too, and neither
    /// would see what the other writes.
    pub(super) fn open(database: &Path) -> Result<Self, Error> {
        let path = whole(database)?;
        if is_held(&path) {
            return Ok(Self { path, _file: None });
        }
        let file = open(&path)?;
        let is_free = |file: &File| file.try_lock_shared().is_ok() && file.unlock().is_ok();
        if !is_free(&file) {
            // Nobody has a lock on a name that is not there.
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
