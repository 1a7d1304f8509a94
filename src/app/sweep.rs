//! Sweeper: stores due changes on time. These are expiries, grants after an unanswered knock, and ends of
//! waits. It also deletes old history.
//!
//! Only the time of notification depends on the sweeper. Every use case applies due expiries and grants
//! first.

use std::sync::Arc;
use std::time::Duration;

use super::current::load_current;
use super::{Service, waitlist};
use crate::domain::access::Rules;
use crate::error::Error;
use crate::store::pace::Pace;
use crate::store::{Store, WorkingSet};
use crate::time::Timestamp;

/// Maximum number of wait lists per transaction.
const LINES_PER_STEP: usize = 500;
/// Pause after the store could not be read or written.
const ERROR_RETRY: Duration = Duration::from_secs(1);
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Result of one step of a long operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepResult {
    /// Number of items that were processed.
    pub done: usize,
    /// Whether there may be more.
    pub more: bool,
}

/// Applies due expiries and grants: at most `rows`, within the time of one step.
///
/// # Errors
/// Any error of the store.
pub fn sweep(set: &WorkingSet<'_>, rules: &Rules, rows: u32) -> Result<StepResult, Error> {
    let step = set.step_budget();
    let locks = set.locks_to_check(rows)?;
    let mut swept = StepResult { done: 0, more: locks.len() >= usize::try_from(rows).unwrap_or(usize::MAX) };
    for lock in locks {
        if lock.due_at() <= set.now() {
            swept.done += 1;
            load_current(set, &lock.workspace_id, rules)?;
        } else {
            set.reschedule_check(&lock)?;
        }
        // Checked after each row, so a step always makes progress.
        if step.is_over() {
            return Ok(StepResult { more: true, ..swept });
        }
    }
    Ok(swept)
}

/// Deletes events from before `before`, oldest first, at most `rows`.
///
/// # Errors
/// Any error of the store.
pub fn trim(set: &WorkingSet<'_>, before: Timestamp, rows: u32) -> Result<StepResult, Error> {
    let done = set.delete_events_before(before, rows)?;
    Ok(StepResult { done, more: done >= usize::try_from(rows).unwrap_or(usize::MAX) })
}

impl Service {
    /// One step of the sweeper: applies at most `rows` due expiries and grants.
    ///
    /// # Errors
    /// An error of the store when it cannot write.
    pub fn sweep_step(&self, rows: u32) -> Result<StepResult, Error> {
        let rules = Arc::clone(&self.rules);
        self.store.write(move |set| sweep(set, &rules, rows)).map(|swept| swept.value)
    }

    /// One step of the sweeper: deletes at most `rows` events older than `history.keep`.
    ///
    /// # Errors
    /// An error of the store when it cannot write.
    pub fn trim_step(&self, rows: u32) -> Result<StepResult, Error> {
        let Some(keep) = self.history_keep else { return Ok(StepResult { done: 0, more: false }) };
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
    /// Until this monotonic time, other writes go first.
    rests_until: Duration,
}

impl Timer {
    pub(super) fn new(store: Arc<Store>, rules: Arc<Rules>) -> Self {
        Self { store, rules, pace: Pace::default(), rests_until: Duration::ZERO }
    }

    /// Applies a limited number of due changes. Returns the time until the next step.
    pub fn run_due(&mut self) -> Duration {
        let next = self.remove_leavers().and_then(|remove_leavers| Ok(remove_leavers.min(self.apply_due()?)));
        next.unwrap_or_else(|error| {
            log::warn!("cannot write due expiries and grants: {error}; next try in 1 s");
            self.store.queue().fail_overdue(self.store.clock().now(), &error);
            ERROR_RETRY
        })
    }

    /// Answers waiters whose wait is over or pointless.
    fn remove_leavers(&self) -> Result<Duration, Error> {
        let queue = self.store.queue();
        let leaving = queue.workspaces_with_leavers(self.store.clock().now(), LINES_PER_STEP);
        if leaving.is_empty() {
            return Ok(self.until(queue.next_deadline()));
        }
        let rules = Arc::clone(&self.rules);
        let lines = leaving.clone();
        self.store.write(move |set| waitlist::remove_leavers(set, &lines, &rules)).inspect_err(|_| {
            // Mark these wait lists again, for the next try.
            for workspace_id in &leaving {
                queue.client_left(workspace_id);
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
        let rest = self.pace.record_step(ended.saturating_sub(began));
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
