//! Writes what is due when it is due: the end of a lease, the grant after an unanswered knock, the end of a wait; and
//! deletes history that is too old.
//!
//! Only the time of notification depends on it. Every use case applies due expiries and grants first.

use std::sync::Arc;
use std::time::Duration;

use super::current::load_current;
use super::{Service, waitlist};
use crate::domain::access::Rules;
use crate::error::Error;
use crate::store::pace::Pace;
use crate::store::{Store, WorkingSet};
use crate::time::Timestamp;

/// Most waiting lines in one transaction.
const LINES: usize = 500;
/// Pause after the store could not be read or written.
const ERROR_RETRY: Duration = Duration::from_secs(1);
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What a step of something long did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// How many were done.
    pub done: usize,
    /// Whether there may be more.
    pub more: bool,
}

/// Clears leases away whose end has come, and lets locks pass on to those whose knock was not answered: at most `rows`, and
/// as many as a step has time for.
///
/// # Errors
/// What the store refuses.
pub fn sweep(set: &WorkingSet<'_>, rules: &Rules, rows: u32) -> Result<Stepped, Error> {
    let step = set.step();
    let locks = set.locks_to_check(rows)?;
    let mut swept = Stepped { done: 0, more: locks.len() >= usize::try_from(rows).unwrap_or(usize::MAX) };
    for lock in locks {
        if lock.due_at() <= set.now() {
            swept.done += 1;
            load_current(set, &lock.workspace_id, rules)?;
        } else {
            set.check_again(&lock)?;
        }
        // After the first: it always goes on.
        if step.is_over() {
            return Ok(Stepped { more: true, ..swept });
        }
    }
    Ok(swept)
}

/// Forgets events that happened before `before`, from the oldest on, at most `rows`.
///
/// # Errors
/// What the store refuses.
pub fn trim(set: &WorkingSet<'_>, before: Timestamp, rows: u32) -> Result<Stepped, Error> {
    let done = set.delete_events_before(before, rows)?;
    Ok(Stepped { done, more: done >= usize::try_from(rows).unwrap_or(usize::MAX) })
}

impl Service {
    /// One step of the sweeper: clears at most `rows` expired leases away.
    ///
    /// # Errors
    /// What keeps the store from writing.
    pub fn sweep_step(&self, rows: u32) -> Result<Stepped, Error> {
        let rules = Arc::clone(&self.rules);
        self.store.write(move |set| sweep(set, &rules, rows)).map(|swept| swept.value)
    }

    /// One step of the sweeper: forgets at most `rows` events older than `history.keep`.
    ///
    /// # Errors
    /// What keeps the store from writing.
    pub fn trim_step(&self, rows: u32) -> Result<Stepped, Error> {
        let Some(keep) = self.history_keep else { return Ok(Stepped { done: 0, more: false }) };
        let before = move |set: &WorkingSet<'_>| Timestamp(set.now().0.saturating_sub(keep.as_millis()));
        self.store.write(move |set| trim(set, before(set), rows)).map(|trimmed| trimmed.value)
    }
}

/// Applies due changes, in steps of limited size.
#[derive(Debug)]
pub struct Timer {
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
    pub fn run_due(&mut self) -> Duration {
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
        self.store.write(move |set| waitlist::leave(set, &lines, &rules)).inspect_err(|_| {
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
        let swept = self.store.write(move |set| sweep(set, &rules, rows));
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
