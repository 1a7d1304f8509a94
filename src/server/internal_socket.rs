//! The Unix socket between the event loop and `tiny_http`, in a directory that only the server's user can access.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Prefix of the directory's name.
const PREFIX: &str = "lockhouse-";
/// File name of the socket.
const SOCKET: &str = "http";
/// File name of the lock file. It is locked while the server runs.
const LOCK: &str = "lock";
/// Permissions of the directory.
const MODE: u32 = 0o700;
/// Maximum number of entries of the temporary directory that are examined.
const ENTRIES: usize = 10_000;

/// The directory with the socket. Dropping it removes the directory.
#[derive(Debug)]
pub struct InternalSocket {
    directory: TempDir,
    #[allow(dead_code, reason = "held until the process ends, even after a crash")]
    lock: File,
}

impl InternalSocket {
    /// Creates the socket in the temporary directory (`TMPDIR`), and removes sockets of killed servers.
    ///
    /// # Errors
    /// When the socket cannot be created there, for example because its path is too long.
    pub fn create() -> io::Result<(Self, UnixListener)> {
        let folder = std::env::temp_dir();
        remove_stale(&folder);
        Self::create_in(&folder).map_err(|error| {
            let folder = folder.display();
            io::Error::new(
                error.kind(),
                format!("cannot create a socket in {folder}: {error}; set TMPDIR to another directory"),
            )
        })
    }

    fn create_in(folder: &Path) -> io::Result<(Self, UnixListener)> {
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(MODE))
            .tempdir_in(folder)?;
        let at = |name: &str| directory.path().join(name);
        // Renamed only after it is locked, so that no other server considers the directory stale.
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(at("new"))?;
        lock.try_lock().map_err(io::Error::other)?;
        fs::rename(at("new"), at(LOCK))?;
        let listener = UnixListener::bind(at(SOCKET))?;
        Ok((Self { directory, lock }, listener))
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

/// Removes the socket directories of killed servers.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(ENTRIES).flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_stale(&entry.path()) {
            for name in [SOCKET, LOCK] {
                let _ = fs::remove_file(entry.path().join(name));
            }
            // Fails if the directory holds other files; then it stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Whether this is a socket directory of this user, writable by no other user, and not used by a running server.
fn is_stale(directory: &Path) -> bool {
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
    fn only_abandoned_socket_directories_of_lockhouse_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (used, _listener) = InternalSocket::create_in(folder.path()).unwrap();
        // A killed server leaves its directory behind.
        let (killed, listener) = InternalSocket::create_in(folder.path()).unwrap();
        let killed_at = killed.directory.path().to_owned();
        std::mem::forget(killed.directory);
        drop((killed.lock, listener));
        // Other users' files, a link to them, and a directory with wrong permissions.
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
        remove_stale(folder.path());
        assert!(used.path().exists());
        assert!(!killed_at.exists());
        for name in ["lockhouse-project", "elsewhere", "lockhouse-open", "lockhouse-backup"] {
            assert!(at(name).join(SOCKET).exists() && at(name).join(LOCK).exists(), "{name}");
        }
    }
}
