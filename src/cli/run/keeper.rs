//! Heartbeats: they are repeated until the lease has ended, by an answer or by the clock.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::session::{Reply, RunEvent, Session};
use super::times::Times;

/// How long an answer is awaited before the next heartbeat is sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limits of the pause after a heartbeat that failed.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What an answer to a heartbeat says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The lease was renewed.
    Renewed,
    /// Nothing is known. The next heartbeat follows soon.
    Unknown,
    /// The lease has ended, for this reason.
    Lost(String),
}

/// Renews one lease.
pub(super) struct Keeper {
    fence: i64,
    kill_after: Option<Duration>,
    times: Option<Times>,
    next_at: Duration,
    /// Until when the answer to the last heartbeat is awaited.
    awaited_until: Option<Duration>,
    /// Whether something happened since the last heartbeat was sent.
    is_outdated: bool,
    failures: u32,
}

#[derive(Deserialize)]
struct RenewedAnswer {
    expires_in_ms: u64,
}

impl Keeper {
    /// Renews the lease with this fence, at once for the first time.
    pub(super) fn new(fence: i64, kill_after: Option<Duration>) -> Self {
        Self {
            fence,
            kill_after,
            times: None,
            next_at: Duration::ZERO,
            awaited_until: None,
            is_outdated: false,
            failures: 0,
        }
    }

    pub(super) const fn fence(&self) -> i64 {
        self.fence
    }

    /// The times of the lease, if it was renewed at least once.
    pub(super) const fn times(&self) -> Option<Times> {
        self.times
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn due_at(&self) -> Duration {
        self.awaited_until.unwrap_or(self.next_at)
    }

    /// Sends a heartbeat if it is time.
    pub(super) fn tick(&mut self, session: &Session, now: Duration) {
        if self.awaited_until.is_some_and(|until| now >= until) {
            self.retry(now);
        }
        if self.awaited_until.is_some() || now < self.next_at {
            return;
        }
        // A late answer counts, too, so a request may last until the lease ends. The next one does not wait for it.
        let (patience, timeout) = match self.times {
            Some(times) if now >= times.ends_at => return,
            Some(times) => (times.interval().min(PATIENCE), times.ends_at.saturating_sub(now)),
            None => (PATIENCE, PATIENCE),
        };
        let body = json!({ "fence": self.fence, "session_id": session.id, "ttl_ms": session.ttl_ms() });
        session.post("/heartbeat", body, (0, timeout.min(PATIENCE)), RunEvent::Heartbeat);
        self.awaited_until = Some(now + patience);
        self.is_outdated = false;
    }

    /// Sends a heartbeat soon: its answer says whether the lease goes on.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.next_at = self.next_at.min(now);
        self.is_outdated = true;
    }

    /// Takes the answer to a heartbeat.
    pub(super) fn take(&mut self, reply: &Reply, now: Duration) -> Kept {
        let Ok(answer) = &reply.answer else { return self.retry(now) };
        match (answer.status, answer.body(), answer.code().as_deref()) {
            (200, Some(RenewedAnswer { expires_in_ms }), _) => {
                let times = Times::of(reply.sent_at, Duration::from_millis(expires_in_ms), self.kill_after);
                if self.times.is_none_or(|known| known.sent_at <= times.sent_at) {
                    self.times = Some(times);
                    self.next_at = if self.is_outdated { now } else { times.sent_at + times.interval() };
                    (self.awaited_until, self.failures) = (None, 0);
                }
                Kept::Renewed
            }
            (403, _, Some("not_holder")) | (404, _, Some("lock_not_found")) => Kept::Lost(answer.reason()),
            _ => self.retry(now),
        }
    }

    /// Plans the next heartbeat after one that failed.
    fn retry(&mut self, now: Duration) -> Kept {
        self.awaited_until = None;
        self.next_at = now + MIN_PAUSE.saturating_mul(1 << self.failures.min(4)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        Kept::Unknown
    }
}
