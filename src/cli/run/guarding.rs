//! The guard's own process.
//!
//! It is the parent of the command, and of the processes whose parent has ended (a child subreaper), so it sees when
//! the group is gone. It runs in a session of its own, so that signals of the terminal do not end it.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, wait};

use super::super::process::catch_signals;
use super::guard::{MESSAGE_BYTES, NO_DEADLINE, THIS_PROGRAM, is_gone, signal};
use super::launch::LAUNCH;
use crate::time::since_boot;

/// The longest wait. After the machine was suspended, the deadline is checked within this.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How often it is checked whether the group is gone, after the command has ended.
const GONE_POLL: Duration = Duration::from_millis(10);

/// What happens in the guard.
enum GuardEvent {
    /// The deadline was moved.
    Deadline(u64),
    /// `lockhouse run` has ended.
    Closed,
    /// A child has ended.
    Ended(Pid, WaitStatus),
}

/// Runs the guard. The arguments are the command.
pub(super) fn main(command: Vec<OsString>) -> ExitCode {
    match guard(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = report(&io::stdin(), &format!("failed cannot start the command: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn guard(command: Vec<OsString>) -> io::Result<()> {
    catch_signals()?;
    set_child_subreaper(Some(getpid()))?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let (deadline, terminal_of, stdin) = first_message(&socket)?;
    // The group is in the session of `lockhouse run`, so that it can have the terminal.
    let launched = Command::new(THIS_PROGRAM)
        .arg0(LAUNCH)
        .arg(terminal_of)
        .args(command)
        .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
        .process_group(0)
        .spawn()?;
    let group = i32::try_from(launched.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
    let watched = setsid().map_err(io::Error::from).and_then(|_| {
        report(&socket, &format!("started {}", group.as_raw_nonzero()))?;
        let (sender, events) = channel();
        start_listening(socket.try_clone()?, sender.clone())?;
        start_reaping(sender)?;
        Ok(events)
    });
    // Without threads nothing would guard the command.
    let events = watched.inspect_err(|_| signal(group, Signal::KILL))?;
    watch(&socket, group, deadline, &events);
    Ok(())
}

/// Ends the group at the deadline. Returns when the group is gone.
fn watch(socket: &OwnedFd, group: Pid, mut deadline: u64, events: &Receiver<GuardEvent>) {
    let may_outlive_lease = deadline == NO_DEADLINE;
    let mut has_ended = false;
    loop {
        let left = until(deadline);
        if left.is_zero() {
            signal(group, Signal::KILL);
            deadline = NO_DEADLINE;
            let _ = report(socket, "killed");
        }
        let wait = left.min(if has_ended { GONE_POLL } else { MAX_WAIT });
        match events.recv_timeout(wait) {
            Ok(GuardEvent::Deadline(moved)) => deadline = moved,
            Ok(GuardEvent::Closed) if may_outlive_lease => return,
            Ok(GuardEvent::Closed) => deadline = 0,
            Ok(GuardEvent::Ended(process, status)) if process == group => {
                let _ = report(socket, &format!("exited {}", exit_code(status)));
                has_ended = true;
            }
            Ok(GuardEvent::Ended(..)) | Err(_) => {}
        }
        if has_ended && is_gone(group) {
            let _ = report(socket, "gone");
            return;
        }
    }
}

/// The time until the deadline.
fn until(deadline: u64) -> Duration {
    Duration::from_millis(deadline).saturating_sub(since_boot())
}

/// The exit code as a shell has it: 128 and the number of the signal that ended the command.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)).unwrap_or(1)
}

/// The deadline, the group that has the terminal, and the standard input of the command.
fn first_message(socket: &OwnedFd) -> io::Result<(u64, String, Option<OwnedFd>)> {
    let mut message = [0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let length = retry_on_intr(|| recvmsg(socket, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC))?.bytes;
    let received = rights.drain().next();
    let stdin = if let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = received {
        descriptors.next()
    } else {
        None
    };
    let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
    let (deadline, terminal_of) = text.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    let deadline = deadline.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((deadline, terminal_of.to_owned(), stdin))
}

/// Starts the thread that reads messages.
fn start_listening(socket: OwnedFd, sender: Sender<GuardEvent>) -> io::Result<()> {
    let listen = move || {
        loop {
            let mut message = [0; MESSAGE_BYTES];
            let length = retry_on_intr(|| recv(&socket, &mut message[..], RecvFlags::empty()));
            let length = length.map_or(0, |(length, _)| length);
            let text = std::str::from_utf8(message.get(..length).unwrap_or_default()).unwrap_or_default();
            let event = text.parse().map_or(GuardEvent::Closed, GuardEvent::Deadline);
            let is_last = matches!(event, GuardEvent::Closed);
            if sender.send(event).is_err() || is_last {
                return;
            }
        }
    };
    Builder::new().name("deadline".to_owned()).spawn(listen).map(drop)
}

/// Starts the thread that reaps children, until there is none.
fn start_reaping(sender: Sender<GuardEvent>) -> io::Result<()> {
    let reap = move || {
        while let Ok(Some((process, status))) = retry_on_intr(|| wait(WaitOptions::empty())) {
            if sender.send(GuardEvent::Ended(process, status)).is_err() {
                return;
            }
        }
    };
    Builder::new().name("reaper".to_owned()).spawn(reap).map(drop)
}

fn report(socket: &impl AsFd, message: &str) -> io::Result<()> {
    send(socket, message.as_bytes(), SendFlags::NOSIGNAL).map(drop).map_err(io::Error::from)
}
