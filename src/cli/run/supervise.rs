//! Keeps the lock while the command runs, and ends the command before the lease ends.

use std::ffi::OsString;
use std::thread::park_timeout;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal};

use super::guard::{Guard, Task, is_gone, signal};
use super::keeper::{Keeper, Kept};
use super::session::{GuardReport, RunEvent, Session, say};
use super::terminal;
use super::times::Times;
use crate::time::since_boot;

/// How long a group is waited for after the guard has failed and the group was killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const GONE_POLL: Duration = Duration::from_millis(10);
const NOT_RENEWED: &str = "the lease could not be renewed in time";

/// What happens to the command when the lock is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnLost {
    /// Send TERM, and KILL after --kill-after.
    Term,
    /// Send KILL.
    Kill,
    /// Let the command run on. Its exit code is kept.
    Ignore,
}

/// How the command ended.
pub(super) enum Ended {
    /// With this exit code, while the lock was held.
    Exited(u8),
    /// The lock was lost.
    Lost,
    /// It could not be started or supervised.
    Failed(String),
}

/// A command that runs under a lock.
struct Supervisor<'a> {
    session: &'a Session,
    keeper: &'a mut Keeper,
    guard: Guard,
    on_lost: OnLost,
    group: Option<Pid>,
    exit_code: u8,
    /// Signals that came before the group was known.
    pending: Vec<Signal>,
    /// Whether the lease has ended, or was about to. The command is stopped for it.
    is_lost: bool,
    /// Whether the server has said that the lease has ended.
    is_ended: bool,
    /// When the group gets KILL.
    kill_at: Option<Duration>,
}

/// Runs the command. When this returns, the whole group is gone.
pub(super) fn supervise(
    session: &Session,
    keeper: &mut Keeper,
    command: &[OsString],
    on_lost: OnLost,
) -> Ended {
    let terminal_of = terminal::foreground_group();
    let task = Task {
        command,
        environment: [
            ("LOCKHOUSE_FENCE", keeper.fence().to_string()),
            ("LOCKHOUSE_WORKSPACE", session.workspace_id.clone()),
            ("LOCKHOUSE_SESSION", session.id.clone()),
        ],
        terminal_of,
        deadline: deadline(keeper, on_lost),
    };
    let guard = match Guard::start(&task, session.sender.clone()) {
        Ok(guard) => guard,
        Err(error) => return Ended::Failed(format!("cannot start the command: {error}")),
    };
    let mut supervisor = Supervisor {
        session,
        keeper,
        guard,
        on_lost,
        group: None,
        exit_code: 0,
        pending: Vec::new(),
        is_lost: false,
        is_ended: false,
        kill_at: None,
    };
    let failure = supervisor.run();
    if terminal_of.is_some() {
        terminal::take_back();
    }
    let Supervisor { guard, exit_code, is_lost, .. } = supervisor;
    match failure {
        // A guard that has failed may hang.
        Some(failure) => return Ended::Failed(failure),
        None => guard.finish(),
    }
    if is_lost && on_lost != OnLost::Ignore { Ended::Lost } else { Ended::Exited(exit_code) }
}

/// When the guard kills the group.
fn deadline(keeper: &Keeper, on_lost: OnLost) -> Option<Duration> {
    if on_lost == OnLost::Ignore { None } else { keeper.times().map(|times| times.guard_at) }
}

impl Supervisor<'_> {
    /// Runs until the group is gone. `Some` is a failure of the guard.
    fn run(&mut self) -> Option<String> {
        loop {
            let now = since_boot();
            self.check_time(now);
            // Also while the command is being stopped: nobody else gets the lock before it has ended.
            if !self.is_ended {
                self.keeper.tick(self.session, now);
            }
            match self.session.next(self.wake_at(now)) {
                Some(RunEvent::Signal(number)) => self.forward(number),
                Some(RunEvent::Heartbeat(reply)) => match self.keeper.take(&reply, since_boot()) {
                    Kept::Renewed => self.guard.extend(deadline(self.keeper, self.on_lost)),
                    Kept::Unknown => {}
                    Kept::Lost(why) => {
                        self.is_ended = true;
                        self.lose(&why, since_boot());
                    }
                },
                Some(RunEvent::Changed) => self.keeper.hurry(since_boot()),
                Some(RunEvent::Guard(GuardReport::Started(group))) => self.begin(group),
                Some(RunEvent::Guard(GuardReport::Killed)) => self.lose(NOT_RENEWED, since_boot()),
                Some(RunEvent::Guard(GuardReport::Exited(code))) => self.exit_code = code,
                Some(RunEvent::Guard(GuardReport::Gone)) => {
                    // This process may have been stopped for longer than the lease.
                    self.check_time(since_boot());
                    return None;
                }
                Some(RunEvent::Guard(GuardReport::Failed(why))) => return Some(self.fail(why)),
                Some(RunEvent::Acquire(_)) | None => {}
            }
        }
    }

    /// When something is to be done.
    fn wake_at(&self, now: Duration) -> Duration {
        let kill_at = self.kill_at.filter(|_| self.group.is_some()).unwrap_or(Duration::MAX);
        match self.keeper.times() {
            Some(times) if !self.is_ended && now < times.ends_at => {
                let stop_at = if self.is_lost { Duration::MAX } else { self.stop_at(times) };
                kill_at.min(stop_at).min(self.keeper.due_at())
            }
            Some(_) | None => kill_at,
        }
    }

    /// When the command is stopped, unless the lease is renewed.
    const fn stop_at(&self, times: Times) -> Duration {
        match self.on_lost {
            OnLost::Term => times.term_at,
            OnLost::Kill => times.kill_at,
            OnLost::Ignore => times.ends_at,
        }
    }

    /// Ends the group if the lease has ended or is about to.
    fn check_time(&mut self, now: Duration) {
        if self.keeper.times().is_some_and(|times| now >= self.stop_at(times)) {
            self.lose(NOT_RENEWED, now);
        }
        if let (Some(group), Some(_)) = (self.group, self.kill_at.filter(|at| now >= *at)) {
            signal(group, Signal::KILL);
            self.kill_at = None;
        }
    }

    /// The lease has ended, or is about to. Only the first call counts.
    fn lose(&mut self, why: &str, now: Duration) {
        let Some(times) = self.keeper.times().filter(|_| !self.is_lost) else { return };
        self.is_lost = true;
        let says = match self.on_lost {
            OnLost::Ignore => "the command runs on",
            // A command that has run beyond its time gets no more.
            OnLost::Term if now < times.kill_at => {
                self.kill_at = Some(times.kill_at.min(now + (times.kill_at.saturating_sub(times.term_at))));
                self.send(Signal::TERM);
                // A stopped process gets TERM only when it continues.
                self.send(Signal::CONT);
                "the command is stopped"
            }
            OnLost::Term | OnLost::Kill => {
                self.kill_at = Some(now);
                "the command is killed"
            }
        };
        say(&format!("lost the lock of {:?}: {why}; {says}", self.session.workspace_id));
    }

    /// The command was started in this group.
    fn begin(&mut self, group: i32) {
        self.group = Pid::from_raw(group);
        for number in std::mem::take(&mut self.pending) {
            self.send(number);
        }
    }

    fn forward(&mut self, number: i32) {
        if let Some(number) = Signal::from_named_raw(number) {
            self.send(number);
        }
    }

    fn send(&mut self, number: Signal) {
        match self.group {
            Some(group) => signal(group, number),
            None => self.pending.push(number),
        }
    }

    /// Ends the group without the guard.
    fn fail(&mut self, why: String) -> String {
        let Some(group) = self.group else { return why };
        signal(group, Signal::KILL);
        let end = since_boot() + GONE_WITHIN;
        while !is_gone(group) && since_boot() < end {
            park_timeout(GONE_POLL);
        }
        why
    }
}
