//! What is to happen at a certain time, and does, whether anybody asks or not: a lease that ends while somebody waits
//! for it or watches it, a lock that passes to whoever knocked, a wait that is over.
//!
//! Nothing that a client is told depends on it but *when* they are told: every transaction lets time have its say first.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::access::Rules;
use crate::error::Error;
use crate::store::pace::Pace;
use crate::store::{Store, locks, waiting};
use crate::time::Timestamp;

/// Lines that are looked through in one.
const LINES: usize = 500;
/// How long to wait after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait when nothing is due.
const LONG: Duration = Duration::from_secs(60);

/// Sees to it that what is due happens.
#[derive(Debug)]
pub(super) struct Dues {
    store: Arc<Store>,
    rules: Arc<Rules>,
    pace: Pace,
    /// Until then others have the writer to themselves, on the monotonic clock.
    rests_until: Duration,
}

impl Dues {
    pub(super) fn new(store: Arc<Store>, rules: Arc<Rules>) -> Self {
        Self { store, rules, pace: Pace::default(), rests_until: Duration::ZERO }
    }

    /// Lets happen what is due, a bounded number at a time. Returns how long it is until there is something to do again.
    pub(super) fn see_to(&mut self) -> Duration {
        let next = self.leave().and_then(|leave| Ok(leave.min(self.settle()?)));
        next.unwrap_or_else(|error| {
            log::warn!("what is due cannot be done just now: {error}");
            self.store.queue().give_up(self.store.clock().now(), &error);
            PAUSE
        })
    }

    /// Those who wait and cannot get what they wait for any more are told.
    fn leave(&self) -> Result<Duration, Error> {
        let queue = self.store.queue();
        let leaving = queue.with_leavers(self.store.clock().now(), LINES);
        if leaving.is_empty() {
            return Ok(self.until(queue.soonest()));
        }
        let rules = Arc::clone(&self.rules);
        let lines = leaving.clone();
        self.store.write(move |write| waiting::leave(write, &lines, &rules)).inspect_err(|_| {
            // They are looked for again.
            for workspace_id in &leaving {
                queue.somebody_left(workspace_id);
            }
        })?;
        Ok(Duration::ZERO)
    }

    /// Ends leases whose end has come, and lets locks pass on.
    fn settle(&mut self) -> Result<Duration, Error> {
        let watch = self.store.watch();
        let due = watch.due();
        if due.is_none_or(|due| due > self.store.clock().now()) {
            return Ok(self.until(due));
        }
        let began = self.store.clock().clock().monotonic();
        if began < self.rests_until {
            return Ok(self.rests_until.saturating_sub(began));
        }
        let before = watch.forget_due();
        let (rules, rows) = (Arc::clone(&self.rules), self.pace.rows());
        let swept = self.store.write(move |write| locks::sweep(write, &rules, rows));
        let found = swept.and_then(|swept| Ok((swept.value.more, self.store.next_due()?)));
        let (more, next) = found.inspect_err(|_| watch.found_due(before))?;
        watch.found_due(next);
        let ended = self.store.clock().clock().monotonic();
        let rest = self.pace.stepped(ended.saturating_sub(began));
        if more {
            self.rests_until = ended.saturating_add(rest);
            return Ok(rest);
        }
        Ok(Duration::ZERO)
    }

    fn until(&self, due: Option<Timestamp>) -> Duration {
        due.map_or(LONG, |due| {
            Duration::from_millis(due.since(self.store.clock().now()).max(0).unsigned_abs())
        })
    }
}
