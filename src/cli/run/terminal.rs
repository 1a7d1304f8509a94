//! The terminal on standard input: it is lent to the command.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// Blocks SIGTTOU in this thread and those that it starts. A process in the background of a terminal is otherwise
/// stopped when it sets the foreground group, or writes.
pub(super) fn block_ttou() {
    let _ = SigSet::from_iter([Signal::SIGTTOU]).thread_block();
}

/// The group of this process, if it has the terminal on standard input.
pub(super) fn foreground_group() -> Option<Pid> {
    tcgetpgrp(io::stdin()).ok().filter(|group| *group == getpgrp())
}

/// Gives the terminal back to the group of this process.
pub(super) fn take_back() {
    let _ = tcsetpgrp(io::stdin(), getpgrp());
}
