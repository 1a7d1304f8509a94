//! The guard, as seen by `lockhouse run`: a process that starts the command, and kills its group when the lease ends or
//! `lockhouse run` does.
//!
//! They talk by short messages over a pair of sockets. The guard sees the end of `lockhouse run` as its end.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::Builder;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, send, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::session::{GuardReport, RunEvent, milliseconds};

/// The name by which this program runs as the guard.
pub(super) const GUARD: &str = "lockhouse-run-guard";
/// This program. The file may have been replaced since it was started.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// Size limit of a message.
pub(super) const MESSAGE_BYTES: usize = 512;
/// The deadline of a command that is not ended by the end of the lease.
pub(super) const NO_DEADLINE: u64 = u64::MAX;

/// What the guard is to start.
pub(super) struct Task<'a> {
    pub(super) command: &'a [OsString],
    pub(super) environment: [(&'static str, String); 3],
    /// The group that has the terminal on standard input, if it is to be given to the command.
    pub(super) terminal_of: Option<Pid>,
    /// When the guard kills the group, in time since the start of the machine.
    pub(super) deadline: Option<Duration>,
}

/// The guard, and the group of the command.
pub(super) struct Guard {
    process: Child,
    socket: OwnedFd,
}

impl Guard {
    /// Starts the guard, which starts the command. Its reports become events.
    pub(super) fn start(task: &Task<'_>, sender: Sender<RunEvent>) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = Command::new(THIS_PROGRAM)
            .arg0(GUARD)
            .args(task.command)
            .envs(task.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs))
            .spawn()?;
        // The guard's standard input is the socket. The command gets that of this process.
        let terminal_of = task.terminal_of.map_or(0, |group| group.as_raw_nonzero().get());
        let message = format!("{} {terminal_of}", deadline_ms(task.deadline));
        let stdin = io::stdin();
        let descriptors = [stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&socket, &[IoSlice::new(message.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
        let reports = socket.try_clone()?;
        Builder::new().name("guard".to_owned()).spawn(move || {
            while let Some(report) = next_report(&reports) {
                let is_last = matches!(report, GuardReport::Failed(_));
                if sender.send(RunEvent::Guard(report)).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { process, socket })
    }

    /// Moves the deadline.
    pub(super) fn extend(&self, deadline: Option<Duration>) {
        let message = deadline_ms(deadline).to_string();
        // If the guard does not read, this must not wait for it. If it has ended, its end is an event.
        let _ = send(&self.socket, message.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Waits for the end of the guard, which follows its last report.
    pub(super) fn finish(mut self) {
        drop(self.socket);
        let _ = self.process.wait();
    }
}

fn deadline_ms(deadline: Option<Duration>) -> u64 {
    deadline.map_or(NO_DEADLINE, milliseconds)
}

fn next_report(socket: &OwnedFd) -> Option<GuardReport> {
    let mut message = [0; MESSAGE_BYTES];
    let mut receive = || retry_on_intr(|| recv(socket, &mut message[..], RecvFlags::empty()));
    // If the guard ends before it has read all messages, this error comes once, before its last reports.
    let received = receive().or_else(|error| if error == Errno::CONNRESET { receive() } else { Err(error) });
    let length = received.map_or(0, |(length, _)| length);
    let text = String::from_utf8_lossy(message.get(..length)?);
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    Some(match (word, rest.parse::<i32>().ok()) {
        ("started", Some(group)) => GuardReport::Started(group),
        ("exited", Some(code)) => GuardReport::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        ("killed", _) => GuardReport::Killed,
        ("gone", _) => GuardReport::Gone,
        ("failed", _) => GuardReport::Failed(rest.to_owned()),
        _ => GuardReport::Failed("the guard has ended".to_owned()),
    })
}

/// Sends a signal to a group. It may be gone already.
pub(super) fn signal(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// Whether no process of the group is left.
pub(super) fn is_gone(group: Pid) -> bool {
    test_kill_process_group(group) == Err(Errno::SRCH)
}
