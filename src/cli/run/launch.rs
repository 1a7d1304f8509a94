//! The step before the command, in its process: takes the terminal, and becomes the command.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::session::say;
use super::terminal::block_ttou;

/// The name by which this program runs as this step.
pub(super) const LAUNCH: &str = "lockhouse-run-launch";
/// The command was not found, as shells have it.
const NOT_FOUND: u8 = 127;
/// The command cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// Becomes the command. The arguments are the group that has the terminal, or 0, and the command.
pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let terminal_of = arguments.next().and_then(|group| group.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    if terminal_of.is_some() && tcgetpgrp(io::stdin()).ok() == terminal_of {
        block_ttou();
        // If this fails, the command runs in the background of the terminal.
        let _ = tcsetpgrp(io::stdin(), getpgrp());
    }
    // This sets SIGPIPE to its default and unblocks all signals.
    let error = Command::new(&program).args(arguments).exec();
    say(&format!("cannot run {}: {error}", program.display()));
    ExitCode::from(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}
