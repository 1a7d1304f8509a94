//! What the parts of `lockhouse run` share: the server, the session, and the channel of what happens.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use serde_json::Value;

use super::super::client::{ApiClient, encoded};
use super::super::http::ServerAnswer;
use crate::time::since_boot;

/// The longest wait for an event. After the machine was suspended, the time is checked within this.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// What happens while a lock is awaited or held.
pub(super) enum RunEvent {
    /// A signal to this process.
    Signal(i32),
    /// An answer to an acquire.
    Acquire(Reply),
    /// An answer to a heartbeat.
    Heartbeat(Reply),
    /// Something happened to the workspace, or it is not known whether it did.
    Changed,
    /// A report of the guard.
    Guard(GuardReport),
}

/// An answer of the server, or why there is none.
pub(super) struct Reply {
    /// The number of the request.
    pub(super) number: u64,
    /// When the request was sent.
    pub(super) sent_at: Duration,
    pub(super) answer: Result<ServerAnswer, String>,
}

/// What the guard reports.
pub(super) enum GuardReport {
    /// The command was started in this group.
    Started(i32),
    /// The guard has killed the group, because the deadline has passed.
    Killed,
    /// The command has ended with this exit code.
    Exited(u8),
    /// No process of the group is left.
    Gone,
    /// The guard has ended, or could not start the command.
    Failed(String),
}

/// A session of `lockhouse run`.
pub(super) struct Session {
    pub(super) api: ApiClient,
    pub(super) workspace_id: String,
    pub(super) id: String,
    pub(super) ttl: Duration,
    pub(super) kill_after: Option<Duration>,
    pub(super) sender: Sender<RunEvent>,
    pub(super) events: Receiver<RunEvent>,
}

impl Session {
    /// The next event, or `None` at `until` or somewhat earlier.
    pub(super) fn next(&self, until: Duration) -> Option<RunEvent> {
        self.events.recv_timeout(until.saturating_sub(since_boot()).min(MAX_WAIT)).ok()
    }

    /// Sends a request about the lock. The answer becomes an event.
    pub(super) fn post(
        &self,
        operation: &str,
        body: Value,
        (number, timeout): (u64, Duration),
        event: fn(Reply) -> RunEvent,
    ) {
        let (sent_at, sender) = (since_boot(), self.sender.clone());
        self.api.start("POST", &self.path(operation), body, timeout, move |answer| {
            // The receiver lives as long as the process.
            let _ = sender.send(event(Reply { number, sent_at, answer }));
        });
    }

    /// The path of an operation on the lock, such as `/heartbeat`.
    pub(super) fn path(&self, operation: &str) -> String {
        format!("/workspaces/{}/lock{operation}", encoded(&self.workspace_id))
    }

    /// The length of the lease as the API takes it.
    pub(super) fn ttl_ms(&self) -> u64 {
        milliseconds(self.ttl)
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the person at the terminal.
pub(super) fn say(message: &str) {
    eprintln!("lockhouse: {message}");
}
