//! The process: its signals, and the limits that the operating system sets.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::time::Clock;

/// The minimum limit of open files: for the database, the threads and some connections.
const MIN_OPEN_FILES: u64 = 64;
/// The signals that `lockhouse run` passes on to the command.
const PASSED_ON: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];
/// Signals within this time after the first count as one signal.
const SIGNAL_WINDOW: Duration = Duration::from_millis(500);

/// Starts the thread that receives signals. It passes on the first one; a later one ends the process at once.
///
/// A signal soon after the first one is ignored: both may come from one signal to the process group. The
/// thread is started early, because the system may refuse a thread when the server stops.
pub(super) fn watch_signals() -> Result<Receiver<i32>, Error> {
    let failed = |error: io::Error| Error::Internal(format!("cannot wait for signals: {error}"));
    let mut awaited = vec![SIGTERM, SIGINT];
    if !ignores_hangup() {
        awaited.push(SIGHUP);
    }
    let mut signals = Signals::new(awaited).map_err(failed)?;
    let (sender, receiver) = sync_channel(1);
    let clock = Clock::system();
    let watch = move || {
        let mut first_at = None;
        for signal in signals.forever() {
            let Some(first_at) = first_at else {
                first_at = Some(clock.monotonic());
                // The receiver may be gone already: then the process is about to exit.
                let _ = sender.try_send(signal);
                continue;
            };
            if clock.monotonic().saturating_sub(first_at) > SIGNAL_WINDOW {
                // If the default action does not end the process, nothing more can be done.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    Builder::new().name("signals".to_owned()).spawn(watch).map(|_| receiver).map_err(failed)
}

/// Handles SIGXFSZ, so that a write beyond `ulimit -f` fails like a write to a full disk.
///
/// Unhandled, the signal ends the process.
pub(super) fn survive_file_size_limit() -> Result<(), Error> {
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map(drop)
        .map_err(|error| Error::Internal(format!("cannot handle SIGXFSZ: {error}")))
}

/// The signals of [`PASSED_ON`] that are not ignored. What is ignored at the start (nohup) stays ignored.
fn passed_on() -> impl Iterator<Item = i32> {
    PASSED_ON.into_iter().filter(|signal| !is_ignored(*signal))
}

/// Calls `pass_on` with each signal that a command gets from its user. It must be called before other threads start.
pub(super) fn pass_on_signals(pass_on: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(passed_on())?;
    let watch = move || signals.forever().for_each(pass_on);
    Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

/// Makes the same signals do nothing in this process. In a program that it starts, they have their default again.
pub(super) fn catch_signals() -> io::Result<()> {
    passed_on().try_for_each(|signal| signal_hook::flag::register(signal, Arc::default()).map(drop))
}

/// Whether SIGHUP is ignored, as `nohup` sets it up. It must then stay ignored.
pub(super) fn ignores_hangup() -> bool {
    is_ignored(SIGHUP)
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Checks the limit of open files. With too few, SQLite cannot open the database and does not name the cause.
pub(super) fn has_enough_files() -> Result<(), Error> {
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < MIN_OPEN_FILES => Err(Error::Internal(format!(
            "only {limit} files can be open at a time, and it takes at least {MIN_OPEN_FILES}: raise the limit with `ulimit -n 1024`, or LimitNOFILE=1024 in a systemd unit; each connection takes one more"
        ))),
        Some(_) | None => Ok(()),
    }
}
