//! Writes what is due when it is due: the end of a lease, the grant after an unanswered knock, the end of a wait.
//!
//! Only the time of notification depends on it. Every transaction applies due expiries and grants first.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::access::Rules;
use crate::error::Error;
use crate::store::pace::Pace;
use crate::store::{Store, locks, waiting};
use crate::time::Timestamp;

/// Most waiting lines in one transaction.
const LINES: usize = 500;
/// Pause after the store could not be read or written.
const ERROR_RETRY: Duration = Duration::from_secs(1);
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Applies due changes, in steps of limited size.
#[derive(Debug)]
pub(super) struct Timer {
    store: Arc<Store>,
    rules: Arc<Rules>,
    pace: Pace,
    /// Other writes go first until then (monotonic).
    rests_until: Duration,
}

impl Timer {
    pub(super) fn new(store: Arc<Store>, rules: Arc<Rules>) -> Self {
        Self { store, rules, pace: Pace::default(), rests_until: Duration::ZERO }
    }

    /// Applies a limited number of due changes. Returns the time until the next step.
    pub(super) fn run_due(&mut self) -> Duration {
        let next = self.leave_lines().and_then(|leave_lines| Ok(leave_lines.min(self.apply_due()?)));
        next.unwrap_or_else(|error| {
            log::warn!("cannot write due expiries and grants: {error}; next try in 1 s");
            self.store.queue().give_up(self.store.clock().now(), &error);
            ERROR_RETRY
        })
    }

    /// Answers waiters whose wait is over or pointless.
    fn leave_lines(&self) -> Result<Duration, Error> {
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

    /// Ends leases that have expired and grants locks that are due to a knock.
    fn apply_due(&mut self) -> Result<Duration, Error> {
        let notifier = self.store.notifier();
        let due = notifier.due();
        if due.is_none_or(|due| due > self.store.clock().now()) {
            return Ok(self.until(due));
        }
        let began = self.store.clock().clock().monotonic();
        if began < self.rests_until {
            return Ok(self.rests_until.saturating_sub(began));
        }
        let before = notifier.forget_due();
        let (rules, rows) = (Arc::clone(&self.rules), self.pace.rows());
        let swept = self.store.write(move |write| locks::sweep(write, &rules, rows));
        let found = swept.and_then(|swept| Ok((swept.value.more, self.store.next_due()?)));
        let (more, next) = found.inspect_err(|_| notifier.found_due(before))?;
        notifier.found_due(next);
        let ended = self.store.clock().clock().monotonic();
        let rest = self.pace.stepped(ended.saturating_sub(began));
        if more {
            self.rests_until = ended.saturating_add(rest);
            return Ok(rest);
        }
        Ok(Duration::ZERO)
    }

    fn until(&self, due: Option<Timestamp>) -> Duration {
        due.map_or(IDLE, |due| {
            Duration::from_millis(due.since(self.store.clock().now()).max(0).unsigned_abs())
        })
    }
}
