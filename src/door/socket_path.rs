//! A Unix socket that has a path: how it gets it, and how it is given up.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The path of a socket of ours. It is removed with this, unless somebody else has it by then.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    /// The device and the number of the file.
    file: (u64, u64),
}

impl SocketPath {
    /// Listens on a socket with this path and these permissions. A socket that nobody serves any more is replaced;
    /// one that is served, or is no socket, is not.
    pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(Self, UnixListener)> {
        if !is_free(path)? {
            return Err(io::Error::other("another server listens there; stop it, or give another path"));
        }
        // It gets its name when it has its permissions: nobody comes in before.
        let unnamed = path.with_file_name(format!(".{:x}", std::process::id()));
        if is_free(&unnamed)? {
            // Left by one with our process id who was killed just here.
            let _ = fs::remove_file(&unnamed);
        }
        let socket = UnixListener::bind(&unnamed)?;
        if path.exists() {
            // Nobody serves it, as we have seen.
            let _ = fs::remove_file(path);
        }
        // A link, and no renaming: of two who start at once, one finds it taken.
        let named = fs::set_permissions(&unnamed, Permissions::from_mode(mode))
            .and_then(|()| fs::hard_link(&unnamed, path))
            .and_then(|()| fs::symlink_metadata(path));
        let _ = fs::remove_file(&unnamed);
        named.map(|found| (Self { path: path.to_owned(), file: (found.dev(), found.ino()) }, socket))
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

/// Whether nothing is there, or a socket that nobody serves any more.
fn is_free(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("something that is no socket is there; give another path"));
        }
        Ok(_) => {}
    }
    // One that does not wait: a server may be there and too busy to answer.
    match mio::net::UnixStream::connect(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind()) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
