//! A directory for incomplete files.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::Builder;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use super::process::ignores_hangup;
use crate::error::Error;

/// A directory for incomplete files. It is removed when it is dropped, and on SIGINT, SIGTERM and SIGHUP.
pub(super) struct Scratch(TempDir);

impl Scratch {
    /// Creates the directory in `folder`. Its name is `prefix` and `random` random characters.
    pub(super) fn create(folder: &Path, prefix: &str, random: usize) -> Result<Self, Error> {
        let cannot =
            |error: io::Error| Error::Internal(format!("cannot write in {}: {error}", folder.display()));
        let awaited = [SIGINT, SIGTERM].into_iter().chain((!ignores_hangup()).then_some(SIGHUP));
        let mut signals = Signals::new(awaited).map_err(cannot)?;
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(random)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)
            .map_err(cannot)?;
        let path = directory.path().to_owned();
        let remove = move || {
            for signal in signals.forever() {
                let _ = std::fs::remove_dir_all(&path);
                // If the default action does not end the process, nothing more can be done.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        };
        Builder::new().name("signals".to_owned()).spawn(remove).map_err(cannot)?;
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}
