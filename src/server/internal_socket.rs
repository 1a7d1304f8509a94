//! Where the door and the server meet: a Unix socket in a directory that only we can enter.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Begins the name of the directory.
const PREFIX: &str = "lockhouse-";
/// The socket in it.
const SOCKET: &str = "http";
/// A file in it that is locked as long as the server lives.
const LOCK: &str = "lock";
/// Its permissions.
const MODE: u32 = 0o700;
/// Most entries of the directory for temporary files that are looked at.
const ENTRIES: usize = 10_000;

/// The directory; it is removed when this is dropped.
#[derive(Debug)]
pub struct MeetingPlace {
    directory: TempDir,
    #[allow(dead_code, reason = "it is kept, and let go of when the process ends, however it does")]
    lock: File,
}

impl MeetingPlace {
    /// Makes one in the directory for temporary files (`TMPDIR`), and clears away those of servers that were killed.
    ///
    /// # Errors
    /// When it cannot be made there; a path that is too long for a socket, for example.
    pub fn make() -> io::Result<(Self, UnixListener)> {
        let folder = std::env::temp_dir();
        clear_away(&folder);
        Self::make_in(&folder).map_err(|error| {
            let folder = folder.display();
            io::Error::new(
                error.kind(),
                format!("no socket can be made in {folder}: {error}; set TMPDIR to another directory"),
            )
        })
    }

    fn make_in(folder: &Path) -> io::Result<(Self, UnixListener)> {
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(MODE))
            .tempdir_in(folder)?;
        let at = |name: &str| directory.path().join(name);
        // It has its name only when it is locked: nobody takes it for that of one who was killed.
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(at("new"))?;
        lock.try_lock().map_err(io::Error::other)?;
        fs::rename(at("new"), at(LOCK))?;
        let listener = UnixListener::bind(at(SOCKET))?;
        Ok((Self { directory, lock }, listener))
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

/// Removes the meeting places of those who live no more.
fn clear_away(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(ENTRIES).flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_ours_and_abandoned(&entry.path()) {
            for name in [SOCKET, LOCK] {
                let _ = fs::remove_file(entry.path().join(name));
            }
            // If there is more in it than that, it stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Nobody else can have put anything into a directory of ours with these permissions.
fn is_ours_and_abandoned(directory: &Path) -> bool {
    let ours = fs::symlink_metadata(directory).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o777 == MODE
    });
    let is_ours = |path: &Path| {
        fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_file() && found.len() == 0 && found.mode() & 0o777 == 0o600)
    };
    let is_no_socket =
        fs::symlink_metadata(directory.join(SOCKET)).is_ok_and(|found| !found.file_type().is_socket());
    let lock = directory.join(LOCK);
    ours && is_ours(&lock) && !is_no_socket && File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_nobody_uses_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (used, _listener) = MeetingPlace::make_in(folder.path()).unwrap();
        // As one leaves it who was killed.
        let (killed, listener) = MeetingPlace::make_in(folder.path()).unwrap();
        let killed_at = killed.directory.path().to_owned();
        std::mem::forget(killed.directory);
        drop((killed.lock, listener));
        // Somebody's project, a link to somebody's files, and an open directory.
        for name in ["lockhouse-project", "elsewhere", "lockhouse-open", "lockhouse-backup"] {
            fs::create_dir(at(name)).unwrap();
            for file in [SOCKET, LOCK] {
                fs::write(at(name).join(file), "precious").unwrap();
            }
        }
        for name in ["elsewhere", "lockhouse-backup"] {
            fs::set_permissions(at(name), Permissions::from_mode(MODE)).unwrap();
        }
        std::os::unix::fs::symlink(at("elsewhere"), at("lockhouse-link")).unwrap();
        clear_away(folder.path());
        assert!(used.socket().exists());
        assert!(!killed_at.exists());
        for name in ["lockhouse-project", "elsewhere", "lockhouse-open", "lockhouse-backup"] {
            assert!(at(name).join(SOCKET).exists() && at(name).join(LOCK).exists(), "{name}");
        }
    }
}
