//! The fence floor: a number outside the database that is not below any fence given so far.
//!
//! It keeps fences growing if the database is lost or an older backup is restored, and the machine's clock is
//! behind its earlier value. It is stored in `.<database file name>.fence`, in the directory of the database.
//! `rm lockhouse.db*` does not remove it.
//!
//! The floor is on disk before a fence above the old floor is given. So it is raised ahead, in blocks of one
//! minute of the clock. That costs two syncs a minute, and after a crash fences are at most a minute ahead of
//! the clock. A normal stop lowers it to the last fence that was given.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::guard::give;
use crate::domain::Fence;
use crate::error::Error;

/// How far the floor is raised ahead: one minute, in microseconds.
const BLOCK: i64 = 60_000_000;
/// Read limit for the file, in bytes. It is larger than any valid file.
const MOST_BYTES: u64 = 1024;

/// The floor of one database. Only the process that holds the guard of the database has one.
#[derive(Debug)]
pub(super) struct Floor {
    path: PathBuf,
    /// The value on disk; 0 if there is no file.
    value: Fence,
    /// No fence that was given is above this.
    given: Fence,
}

/// The content of the file. It has the number twice, so that a damaged number is not taken for a lower floor.
fn text(floor: Fence) -> String {
    let Fence(floor) = floor;
    format!(
        "Lockhouse has given no fence above this one, see docs/operation.md. Do not change or remove this file.\n{floor}\n{floor}\n"
    )
}

fn parse(file: &str) -> Option<Fence> {
    let floor = Fence(file.lines().nth(1)?.parse().ok()?);
    ((Fence(1)..=Fence::GREATEST).contains(&floor) && file == text(floor)).then_some(floor)
}

impl Floor {
    /// Reads the floor of the database with this resolved path. Before the first start and on a new machine there is no file,
    /// and the floor is 0.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator, if the file exists but cannot be used.
    pub(super) fn read(database: &Path) -> Result<Self, Error> {
        let mut name = std::ffi::OsString::from(".");
        name.push(database.file_name().unwrap_or_default());
        name.push(".fence");
        let path = database.with_file_name(name);
        let unusable = |why: &str| {
            Error::Internal(format!(
                "the fence floor {} {why}: put a copy of it in its place, or remove it and start once with --fence-at-least N, where N is not below any fence that was given (see docs/operation.md)",
                path.display()
            ))
        };
        let value = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Fence(0),
            Err(error) => return Err(unusable(&format!("cannot be read ({error})"))),
            Ok(file) if !file.is_file() => return Err(unusable("is not a regular file")),
            Ok(_) => {
                let mut bytes = Vec::new();
                File::open(&path)
                    .and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))
                    .map_err(|error| unusable(&format!("cannot be read ({error})")))?;
                std::str::from_utf8(&bytes).ok().and_then(parse).ok_or_else(|| unusable("is damaged"))?
            }
        };
        if value == Fence::GREATEST {
            return Err(unusable("is the greatest, above which no fence is left"));
        }
        Ok(Self { path, value, given: value })
    }

    /// The value on disk; 0 if there is no file.
    pub(super) const fn value(&self) -> Fence {
        self.value
    }

    /// Levels the floor and the counter in the database at start: the lower one is raised to the other.
    ///
    /// # Errors
    /// Errors of SQLite, and [`Error::Disk`] if the file cannot be written.
    pub(super) fn reconcile(&mut self, connection: &Connection) -> Result<(), Error> {
        let last: Fence =
            connection.query_row("SELECT last_fence FROM meta WHERE id = 1", [], |row| row.get(0))?;
        if self.value > last {
            connection.execute("UPDATE meta SET last_fence = ?1 WHERE id = 1", [self.value])?;
        } else {
            match self.raise_to(last) {
                // The write is tried again before a fence is given. Everything else works.
                Err(Error::StorageFull) => {
                    log::warn!("the disk is full: no fence can be given until there is room");
                }
                raised => raised?,
            }
        }
        self.given = self.value.max(last);
        Ok(())
    }

    /// Makes sure, before `fence` is given, that the floor on disk is not below it.
    ///
    /// # Errors
    /// [`Error::StorageFull`]; [`Error::Disk`] if the file cannot be written. After an error the fence must not
    /// be given.
    pub(super) fn reserve(&mut self, fence: Fence) -> Result<(), Error> {
        if fence > self.value {
            self.write(Fence(fence.0.saturating_add(BLOCK)).min(Fence::GREATEST))?;
        }
        self.given = self.given.max(fence);
        Ok(())
    }

    /// Raises the floor to `fence`, so that no fence up to it is given from now on.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(super) fn raise_to(&mut self, fence: Fence) -> Result<(), Error> {
        if fence <= self.value { Ok(()) } else { self.write(fence.min(Fence::GREATEST)) }
    }

    /// Lowers the floor to the last fence that was given. For a normal stop.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(super) fn release_reserve(&mut self) -> Result<(), Error> {
        if self.given < self.value { self.write(self.given) } else { Ok(()) }
    }

    fn write(&mut self, value: Fence) -> Result<(), Error> {
        replace(&self.path, &text(value)).map_err(|error| {
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ) {
                Error::StorageFull
            } else {
                Error::Disk(format!("cannot write the fence floor {}: {error}", self.path.display()))
            }
        })?;
        self.value = value;
        Ok(())
    }
}

/// Replaces the file completely or not at all, even if the power fails.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    // A crash may have left a temporary file.
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let owned = folder.metadata().and_then(|folder| give(&file, &folder));
    let written = owned.and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(temporary, path)) {
        // The next attempt removes the file if this one cannot.
        let _ = std::fs::remove_file(temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_fence_floor_is_detected() {
        let whole = text(Fence(1_795_435_200_000_000));
        assert_eq!(parse(&whole), Some(Fence(1_795_435_200_000_000)));
        for at in 0..whole.len() {
            assert_eq!(parse(&whole[..at]), None, "cut off at {at}");
            for other in ["0", "1", "7", "-", "\n", ""] {
                let damaged = format!("{}{other}{}", &whole[..at], &whole[at + 1..]);
                assert!(damaged == whole || parse(&damaged).is_none(), "{damaged:?}");
            }
        }
        for outside in [i64::MIN, -1, 0, Fence::GREATEST.0 + 1, i64::MAX] {
            assert_eq!(parse(&text(Fence(outside))), None, "{outside}");
        }
        assert_eq!(parse(&text(Fence::GREATEST)), Some(Fence::GREATEST));
    }
}
