//! The limit on open files.

use std::io;

/// File descriptors reserved for other uses: the database, the internal connection, the log.
const OTHER_FILES: usize = 48;
/// Minimum number of connections that the limit must allow.
const FEWEST: usize = 8;

/// Raises the limit on open files to the hard limit, and returns the number of connections that it allows.
pub(super) fn room_for_connections() -> io::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, wanted).is_ok() {
        limit = wanted;
    }
    let files = limit.current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let room = files.saturating_sub(OTHER_FILES);
    if room < FEWEST {
        return Err(io::Error::other(format!(
            "the limit of open files is {files}, which is too low; raise it to at least {}, with ulimit -n or LimitNOFILE=",
            OTHER_FILES + FEWEST
        )));
    }
    Ok(room)
}
