//! One server a file: an advisory lock on `<database>.lock`, which the system lets go of when the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Most bytes that are read of the note that another server left.
const NOTE_BYTES: u64 = 512;

/// Held as long as the database is open.
#[derive(Debug)]
pub(super) struct Guard(File);

/// The file itself, whatever links lead there: two names of one file are one database.
pub(super) fn whole(database: &Path) -> Result<PathBuf, Error> {
    let cannot = |error: std::io::Error| {
        Error::Internal(format!("cannot find the database {}: {error}", database.display()))
    };
    if let Ok(file) = database.metadata() {
        if file.is_file() && file.nlink() > 1 {
            return Err(Error::Internal(format!(
                "{} has a second name (a hard link), under which another server could open it: remove that one",
                database.display()
            )));
        }
        return database.canonicalize().map_err(cannot);
    }
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if !folder.exists() {
        return Err(Error::Internal(format!(
            "there is no directory for the database {}: make it, or give another file with --database",
            database.display()
        )));
    }
    let folder = folder.canonicalize().map_err(cannot)?;
    Ok(folder.join(database.file_name().unwrap_or_default()))
}

impl Guard {
    /// Takes the lock, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        let mut path = whole(database)?.into_os_string();
        path.push(".lock");
        let shown = Path::new(&path).display();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::Internal(format!("cannot open {shown}: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let mut note = String::new();
                // What cannot be read is left out of the sentence.
                let _ = Read::by_ref(&mut file).take(NOTE_BYTES).read_to_string(&mut note);
                let who = note.lines().next().unwrap_or("another lockhouse");
                Err(Error::Internal(format!(
                    "{} is in use by {who}; a database has one server at a time: stop that one, or give this one another file with --database",
                    database.display()
                )))
            }
            Err(TryLockError::Error(error)) => Err(Error::Internal(format!("cannot lock {shown}: {error}"))),
        }
    }

    /// Leaves a note for whoever comes next.
    pub(super) fn announce(&self, address: &str) -> Result<(), Error> {
        let mut file = &self.0;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| {
                writeln!(file, "the lockhouse with process id {}, on {address}", std::process::id())
            })
            .map_err(|error| Error::Internal(format!("cannot write the lock file: {error}")))
    }
}
