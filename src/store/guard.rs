//! One server a file: an advisory lock on `<database>.lock`, which the system lets go of when the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::Error;

/// Most bytes that are read of the note that another server left.
const NOTE_BYTES: u64 = 512;

/// Held as long as the database is open.
#[derive(Debug)]
pub(super) struct Guard(File);

impl Guard {
    /// Takes the lock, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        let mut path = database.as_os_str().to_owned();
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
