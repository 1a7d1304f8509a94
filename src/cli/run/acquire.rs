//! Gets the lock: waits in the server's line, claims the lease by a heartbeat, and waits until the process of the last
//! holder must have ended.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::client::set;
use super::keeper::{Keeper, Kept};
use super::session::{Reply, RunEvent, Session, milliseconds, say};
use super::watch;
use crate::time::since_boot;

/// The longest wait of one request.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A waiting request is replaced after this time. The new one has the place of the old one in the line.
const REPLACE_AFTER: Duration = Duration::from_secs(40);
/// The pause after a refusal that came at once.
const PAUSE: Duration = Duration::from_secs(1);
/// How much later than asked for the server may answer.
const LATENESS: Duration = Duration::from_secs(5);

/// How long the lock is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Forever,
    Until(Duration),
}

/// Why there is no lock.
pub(super) enum NotAcquired {
    /// Another holder has it.
    Conflict(String),
    /// The server cannot be reached, or refuses for another reason.
    Unavailable(String),
    /// This process got a signal.
    Signal(i32),
}

struct Grant {
    fence: i64,
    /// When nothing of the last holder runs any more.
    drained_at: Duration,
}

#[derive(Deserialize)]
struct GrantAnswer {
    lock: GrantedLock,
    #[serde(default)]
    drain_ms: u64,
}

#[derive(Deserialize)]
struct GrantedLock {
    fence: i64,
}

/// Acquires the lock. When this returns, the lease was renewed and nothing of the last holder runs.
pub(super) fn acquire(session: &Session, wait: Wait) -> Result<Keeper, NotAcquired> {
    let mut line = Line::new(wait);
    let mut is_watched = false;
    loop {
        let grant = line.wait(session)?;
        if !is_watched {
            watch::start(session);
            is_watched = true;
        }
        if let Some(keeper) = claim(session, &grant)? {
            return Ok(keeper);
        }
        if !line.goes_on(since_boot()) {
            return Err(NotAcquired::Conflict("the lease ended before the command was started".to_owned()));
        }
    }
}

/// The wait in the server's line.
struct Line {
    wait: Wait,
    /// The number of the newest request.
    number: u64,
    send_at: Duration,
    /// How long a request waits before it is replaced.
    replace_after: Duration,
    /// Whether the server has answered.
    is_reached: bool,
    is_said: bool,
    refusal: Option<NotAcquired>,
}

impl Line {
    const fn new(wait: Wait) -> Self {
        Self {
            wait,
            number: 0,
            send_at: Duration::ZERO,
            replace_after: REPLACE_AFTER,
            is_reached: false,
            is_said: false,
            refusal: None,
        }
    }

    fn wait(&mut self, session: &Session) -> Result<Grant, NotAcquired> {
        self.send_at = Duration::ZERO;
        let started_at = since_boot();
        loop {
            let now = since_boot();
            if now >= started_at + PAUSE {
                self.say_once(session);
            }
            if now >= self.send_at && (self.number == 0 || self.goes_on(now)) {
                self.send(session, now);
            }
            if let Wait::Until(end) = self.wait
                && now >= end + LATENESS
            {
                return Err(self.refusal.take().unwrap_or_else(|| silent("has not answered in time")));
            }
            match session.next(self.send_at) {
                Some(RunEvent::Signal(signal)) => return Err(NotAcquired::Signal(signal)),
                Some(RunEvent::Acquire(reply)) => {
                    if let Some(grant) = self.take(session, reply)? {
                        return Ok(grant);
                    }
                }
                Some(RunEvent::Heartbeat(_) | RunEvent::Changed | RunEvent::Guard(_)) | None => {}
            }
        }
    }

    /// Says that the lock is waited for.
    fn say_once(&mut self, session: &Session) {
        if !self.is_said {
            say(&format!("waiting for the lock of {:?}", session.workspace_id));
            self.is_said = true;
        }
    }

    fn goes_on(&self, now: Duration) -> bool {
        match self.wait {
            Wait::Forever => true,
            Wait::Until(end) => now < end,
        }
    }

    fn send(&mut self, session: &Session, now: Duration) {
        let wait = match self.wait {
            Wait::Forever => MAX_WAIT,
            Wait::Until(end) => end.saturating_sub(now).min(MAX_WAIT),
        };
        let mut body = json!({
            "kind": "run",
            "session_id": session.id,
            "ttl_ms": session.ttl_ms(),
        });
        if !wait.is_zero() {
            set(&mut body, "wait_ms", milliseconds(wait));
        }
        self.number += 1;
        session.post("", body, (self.number, wait + LATENESS), RunEvent::Acquire);
        self.send_at = now + self.replace_after;
    }

    /// Takes the answer to an acquire.
    fn take(&mut self, session: &Session, reply: Reply) -> Result<Option<Grant>, NotAcquired> {
        let now = since_boot();
        let is_newest = reply.number == self.number;
        let answer = match reply.answer {
            Ok(answer) => answer,
            Err(error) => {
                let why = session.api.failed(&error);
                if !self.is_reached {
                    return Err(NotAcquired::Unavailable(why));
                }
                return self.again(is_newest, now + PAUSE, NotAcquired::Unavailable(why));
            }
        };
        self.is_reached = true;
        if let (200, Some(GrantAnswer { lock, drain_ms })) = (answer.status, answer.body()) {
            return Ok(Some(Grant { fence: lock.fence, drained_at: now + Duration::from_millis(drain_ms) }));
        }
        let why = session.api.refused(&answer);
        match answer.status {
            409 => {
                // The server lets a request wait for this long. The next one is replaced before, and keeps its place.
                let waited = now.saturating_sub(reply.sent_at);
                if is_newest && waited >= PAUSE / 2 {
                    self.replace_after = (waited * 2 / 3).min(REPLACE_AFTER);
                }
                let next_at = if waited < PAUSE { now + PAUSE } else { now };
                self.again(is_newest, next_at, NotAcquired::Conflict(why))
            }
            429 | 500.. => self.again(is_newest, now + PAUSE, NotAcquired::Unavailable(why)),
            _ => Err(NotAcquired::Unavailable(why)),
        }
    }

    /// Plans the next request, unless the wait is over.
    fn again(
        &mut self,
        is_newest: bool,
        at: Duration,
        why: NotAcquired,
    ) -> Result<Option<Grant>, NotAcquired> {
        // A request that was replaced is answered with 409.
        if !is_newest {
            return Ok(None);
        }
        if !self.goes_on(since_boot()) {
            return Err(why);
        }
        (self.send_at, self.refusal) = (at, Some(why));
        Ok(None)
    }
}

/// Claims a lease by a heartbeat, and keeps it until the last holder's process has ended. `None` if it is lost.
fn claim(session: &Session, grant: &Grant) -> Result<Option<Keeper>, NotAcquired> {
    let mut keeper = Keeper::new(grant.fence, session.kill_after);
    let started_at = since_boot();
    let drain = grant.drained_at.saturating_sub(started_at);
    if !drain.is_zero() {
        let drain = humantime::format_duration(Duration::from_secs(drain.as_secs() + 1));
        say(&format!(
            "the lock is held; waiting {drain}, because the last holder's process may still be running"
        ));
    }
    loop {
        let now = since_boot();
        keeper.tick(session, now);
        let is_over = match keeper.times() {
            Some(times) if now >= grant.drained_at && now < times.term_at => return Ok(Some(keeper)),
            Some(times) => now >= times.ends_at,
            None => now >= started_at + MAX_WAIT,
        };
        if is_over {
            return Ok(None);
        }
        let wake_at =
            if now < grant.drained_at { keeper.due_at().min(grant.drained_at) } else { keeper.due_at() };
        match session.next(wake_at) {
            Some(RunEvent::Signal(signal)) => return Err(NotAcquired::Signal(signal)),
            Some(RunEvent::Heartbeat(reply)) => {
                if let Kept::Lost(_) = keeper.take(&reply, since_boot()) {
                    return Ok(None);
                }
            }
            Some(RunEvent::Changed) => keeper.hurry(now),
            Some(RunEvent::Acquire(_) | RunEvent::Guard(_)) | None => {}
        }
    }
}

fn silent(what: &str) -> NotAcquired {
    NotAcquired::Unavailable(format!("the server {what}"))
}
