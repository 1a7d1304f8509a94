//! Where the door and the server meet: a Unix socket in a directory that only we can enter.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Begins the name of the directory.
const PREFIX: &str = "lockhouse-";
/// The socket in it. It has this name only while somebody listens, or after they were killed.
const SOCKET: &str = "http";
/// Most entries of the directory for temporary files that are looked at.
const ENTRIES: usize = 10_000;

/// The directory; it is removed when this is dropped.
#[derive(Debug)]
pub struct MeetingPlace {
    directory: TempDir,
}

impl MeetingPlace {
    /// Makes one in the directory for temporary files (`TMPDIR`), and clears away those of servers that were killed.
    ///
    /// # Errors
    /// When it cannot be made there; a path that is too long for a socket, for example.
    pub fn make() -> io::Result<(Self, UnixListener)> {
        let folder = std::env::temp_dir();
        clear_away(&folder);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("no socket can be made in {}: {error}", folder.display()))
        };
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&folder)
            .map_err(named)?;
        let unnamed = directory.path().join("new");
        let listener = UnixListener::bind(&unnamed).map_err(named)?;
        fs::rename(&unnamed, directory.path().join(SOCKET)).map_err(named)?;
        Ok((Self { directory }, listener))
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

/// Removes the meeting places at which nobody listens any more.
fn clear_away(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(ENTRIES).flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let socket = entry.path().join(SOCKET);
        let nobody =
            UnixStream::connect(&socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if nobody && fs::remove_file(&socket).is_ok() {
            // If there is more in it than that, it was not ours.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
