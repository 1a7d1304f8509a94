//! Creates and removes Unix sockets with a path.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Number of attempts to lock the directory, and the pause between them.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The path of a socket that this process created. Dropping it removes the socket, unless another has replaced it.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    /// The device and the inode of the socket.
    file: (u64, u64),
}

impl SocketPath {
    /// Listens on a socket with this path and these permissions. Replaces a stale socket, but no other file.
    pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(Self, UnixListener)> {
        SocketAddr::from_pathname(path).map_err(|_| {
            io::Error::other(format!(
                "the path of a socket must have 1 to 107 bytes; this one has {}",
                path.as_os_str().len()
            ))
        })?;
        // Servers that start at the same time must not replace each other's socket.
        let _turn = lock_directory(path);
        if !is_unused(path)? {
            return Err(io::Error::other(
                "another server listens on it; stop that server, or use another path",
            ));
        }
        let _ = fs::remove_file(path);
        // Set the permissions before the socket gets its final name, so that no other user can connect earlier. Not
        // possible if the temporary name would be too long.
        let unnamed = path.with_file_name(format!(".{:x}", std::process::id()));
        if SocketAddr::from_pathname(&unnamed).is_err() {
            let socket = UnixListener::bind(path)?;
            return Ok((Self::named(path, mode)?, socket));
        }
        if is_unused(&unnamed)? {
            // Left by a killed server that had the same process id.
            let _ = fs::remove_file(&unnamed);
        }
        let socket = UnixListener::bind(&unnamed)?;
        let named = fs::set_permissions(&unnamed, Permissions::from_mode(mode))
            .and_then(|()| fs::hard_link(&unnamed, path))
            .and_then(|()| Self::named(path, mode));
        let _ = fs::remove_file(&unnamed);
        Ok((named?, socket))
    }

    fn named(path: &Path, mode: u32) -> io::Result<Self> {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), file: (found.dev(), found.ino()) })
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Locks the directory of a path. `None` if another process keeps it locked.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory).ok()?;
    for _ in 0..TRIES {
        if directory.try_lock().is_ok() {
            return Some(directory);
        }
        std::thread::park_timeout(PAUSE);
    }
    None
}

/// Whether the path does not exist or is a stale socket.
fn is_unused(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("the file exists and is not a socket; use another path"));
        }
        Ok(_) => {}
    }
    // Non-blocking, because a busy server may not accept soon.
    match mio::net::UnixStream::connect(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind()) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
