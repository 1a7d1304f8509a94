//! The working set of a use case: the rows, the time, and the data that outlives every lock.
//!
//! A use case makes all changes through its working set. If the transaction is rolled back, or an engine runs
//! the use case again, the set is dropped without effect: answers, metrics and log lines are produced only
//! after the commit.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Deref;
use std::time::Duration;

use super::note::LogEntry;
use super::queue::{Queue, QueueChanges, QueueView};
use super::rows::Changes;
use crate::domain::event::NewEvent;
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{Fence, Lock, Moment, UserId};
use crate::error::Error;
use crate::time::{Clock, Timestamp, WallTime};

/// The time budget of one step of a long task. It limits how long others wait for the writer.
const STEP: Duration = Duration::from_millis(5);

/// The row of data that outlives every lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The highest fence that was given out.
    pub last_fence: Fence,
    /// The revision of the last event.
    pub last_revision: i64,
    /// Difference between wall time and lease time (milliseconds): wall time = lease time + offset.
    pub wall_offset_ms: i64,
    /// The number of lock rows.
    pub lock_count: i64,
    /// When a server last opened the store (lease time).
    pub opened_at: Timestamp,
}

/// The state at the beginning of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct TransactionStart {
    /// The wall clock, in microseconds since 1970.
    pub wall_micros: i64,
    /// The row as stored, with the wall offset that holds from this transaction on.
    pub meta: Meta,
    /// The fences that this server gives out.
    pub fences: FenceSlot,
}

/// The fences that a server gives out: those that are equal to `slot` modulo `slots`. So two servers on one
/// database never give out the same fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceSlot {
    /// From 0.
    pub slot: i64,
    /// At least 1.
    pub slots: i64,
}

impl FenceSlot {
    /// All fences, for the only server on a database.
    pub const ALL: Self = Self { slot: 0, slots: 1 };

    /// The least fence of this slot that is not below `least`.
    const fn at_least(self, least: i64) -> Fence {
        Fence(least.saturating_add(self.slot.saturating_sub(least).rem_euclid(self.slots)))
    }
}

/// The time budget of one step of a long task.
#[derive(Debug)]
pub struct StepBudget<'c> {
    clock: &'c Clock,
    until: Duration,
}

impl StepBudget<'_> {
    /// Whether the budget is used up, so that others must get the writer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.clock.monotonic() >= self.until
    }
}

/// The earlier of two times that may be absent.
pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

/// The rows, the time and the pending effects of one transaction.
pub struct WorkingSet<'c> {
    rows: &'c dyn Changes,
    clock: &'c Clock,
    wall_micros: i64,
    fences: FenceSlot,
    effects: RefCell<Effects>,
    queue: QueueView<'c>,
}

/// The effects of a transaction that apply after its commit.
#[derive(Debug)]
pub struct Effects {
    /// Lease time of the transaction.
    pub(super) now: Timestamp,
    /// The row to store.
    pub meta: Meta,
    /// The transaction writes even if nothing else has changed.
    pub is_touched: bool,
    pub(super) expiries: u64,
    pub(super) takeovers: u64,
    /// The earliest time at which an expiry or grant of a written lock is due.
    pub(super) due: Option<Timestamp>,
    /// The changes to the queue of waiters.
    pub(super) queue_changes: QueueChanges,
    /// The members of deleted workspaces, by the revision of the deletion.
    pub(super) deleted_members: Vec<(i64, HashSet<UserId>)>,
    /// The lines to log.
    pub(super) log_entries: Vec<LogEntry>,
}

impl Effects {
    /// Adds `by` to all revisions, for an engine that numbers the events when it commits.
    pub(super) fn shift_revisions(&mut self, by: i64) {
        self.meta.last_revision = self.meta.last_revision.saturating_add(by);
        for (revision, _) in &mut self.deleted_members {
            *revision = revision.saturating_add(by);
        }
        for entry in &mut self.log_entries {
            entry.shift_revision(by);
        }
    }

    /// The effects of a transaction that did nothing.
    pub(super) fn none(now: Timestamp, meta: Meta) -> Self {
        Self {
            now,
            meta,
            is_touched: false,
            expiries: 0,
            takeovers: 0,
            due: None,
            queue_changes: QueueChanges::default(),
            deleted_members: Vec::new(),
            log_entries: Vec::new(),
        }
    }
}

impl<'c> WorkingSet<'c> {
    /// Creates the working set of a transaction that has begun.
    #[must_use]
    pub fn new(rows: &'c dyn Changes, start: TransactionStart, clock: &'c Clock, queue: &'c Queue) -> Self {
        let effects = RefCell::new(Effects::none(rows.now(), start.meta));
        let TransactionStart { wall_micros, fences, meta: _ } = start;
        Self { rows, clock, wall_micros, fences, effects, queue: QueueView::of(queue) }
    }

    /// Returns the effects to apply after the commit.
    #[must_use]
    pub fn into_effects(self) -> Effects {
        Effects { queue_changes: self.queue.into_changes(), ..self.effects.into_inner() }
    }

    fn meta(&self) -> Meta {
        self.effects.borrow().meta
    }

    /// Starts a step of a long task.
    #[must_use]
    pub fn step_budget(&self) -> StepBudget<'c> {
        StepBudget { clock: self.clock, until: self.clock.monotonic().saturating_add(STEP) }
    }

    /// The wall time, read once for the whole transaction.
    #[must_use]
    pub const fn wall(&self) -> WallTime {
        WallTime(self.wall_micros / 1_000)
    }

    /// Converts lease time to wall time, as shown to people.
    #[must_use]
    pub fn wall_at(&self, at: Timestamp) -> WallTime {
        WallTime(at.0.saturating_add(self.meta().wall_offset_ms))
    }

    /// The inputs of a decision: lease time, start time and a fresh fence. The fence counts as given out only
    /// after [`Self::begin_lease`].
    #[must_use]
    pub fn moment(&self) -> Moment {
        let Meta { last_fence, opened_at, .. } = self.meta();
        let least = last_fence.0.saturating_add(1).max(Fence::by_clock(self.wall_micros));
        let next_fence = self.fences.at_least(least);
        Moment { now: self.now(), opened_at, next_fence }
    }

    /// The highest fence that was given out.
    #[must_use]
    pub fn last_fence(&self) -> Fence {
        self.meta().last_fence
    }

    /// Records that `fence` was given out.
    ///
    /// # Errors
    /// [`Error::Internal`] if it is not above the last fence, or too great: then no fence is left. No fence is
    /// given out twice.
    pub fn give_fence(&self, fence: Fence) -> Result<(), Error> {
        let meta = self.meta();
        if fence <= meta.last_fence || fence > Fence::GREATEST {
            let (last, greatest) = (meta.last_fence.0, Fence::GREATEST.0);
            return Err(Error::Internal(format!(
                "no fence is left: the last one is {last}, and the greatest is {greatest}"
            )));
        }
        self.effects.borrow_mut().meta.last_fence = fence;
        Ok(())
    }

    /// Writes a new lease, and records that its fence was given out.
    ///
    /// # Errors
    /// Errors of [`Self::give_fence`] and of the engine.
    pub fn begin_lease(&self, lock: &Lock) -> Result<(), Error> {
        self.resume_lease(lock)?;
        self.give_fence(lock.fence)
    }

    /// Writes a lease that its holder resumes after its end.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn resume_lease(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.count_locks(1);
        self.rows.insert_lock(lock)
    }

    /// Writes the times of a lease that is renewed.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn extend(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.update_lock_times(lock)
    }

    /// Writes the fields of a lease that can change while it lasts.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn renew(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.update_lock(lock)
    }

    /// Writes a lease and its knocks.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn put_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.update_lock_and_knocks(lock)
    }

    /// Schedules the next check of a lock that was checked before it was due.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn reschedule_check(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.set_check_at(&lock.workspace_id, lock.due_at())
    }

    /// Deletes the row of a lease that has ended.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn end_lease(&self, lock: &Lock) -> Result<(), Error> {
        if self.rows.delete_lock(lock)? {
            self.count_locks(-1);
        }
        Ok(())
    }

    /// Writes an event. It is logged after the commit.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn record(&self, event: &NewEvent<'_>) -> Result<(), Error> {
        let meta = self.meta();
        let last_revision = meta.last_revision.saturating_add(1);
        self.effects.borrow_mut().meta.last_revision = last_revision;
        self.rows.insert_event(last_revision, self.wall_at(event.at), event)?;
        self.effects.borrow_mut().log_entries.extend(LogEntry::of_event(event, last_revision));
        Ok(())
    }

    /// Stores a new token. It is logged after the commit.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn create_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.rows.insert_token(token, hash)?;
        self.effects.borrow_mut().log_entries.extend(LogEntry::of_new_token(token));
        Ok(())
    }

    /// Deletes a token, if it has this scope. The deletion is logged after the commit. Returns whether a
    /// token was deleted.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn revoke_token(&self, token_id: &str, only: Option<Scope>) -> Result<bool, Error> {
        let revoked = self.rows.delete_token(token_id, only)?;
        self.effects.borrow_mut().log_entries.extend(revoked.as_ref().and_then(LogEntry::of_revoked_token));
        Ok(revoked.is_some())
    }

    /// Remembers the members of a workspace that was deleted. The deletion must be the last event written.
    pub fn deleted_members(&self, members: HashSet<UserId>) {
        let revision = self.meta().last_revision;
        self.effects.borrow_mut().deleted_members.push((revision, members));
    }

    /// Makes the transaction write even if nothing else changes, so that a probe reaches the disk.
    pub fn force_write(&self) {
        self.effects.borrow_mut().is_touched = true;
    }

    /// Sets the counter of lock rows.
    pub fn set_lock_count(&self, lock_count: i64) {
        self.effects.borrow_mut().meta.lock_count = lock_count;
    }

    /// The waiters, as this transaction sees them.
    #[must_use]
    pub const fn queue(&self) -> &QueueView<'c> {
        &self.queue
    }

    /// Counts a lease that expired.
    pub fn count_expiry(&self) {
        self.effects.borrow_mut().expiries += 1;
    }

    /// Counts a takeover.
    pub fn count_takeover(&self) {
        self.effects.borrow_mut().takeovers += 1;
    }

    fn count_locks(&self, more: i64) {
        self.set_lock_count(self.meta().lock_count.saturating_add(more));
    }

    /// Records that a written lock has an expiry or grant due at `at`.
    fn due_at(&self, at: Timestamp) {
        let mut effects = self.effects.borrow_mut();
        effects.due = earlier(effects.due, Some(at));
    }
}

/// Gives access to the row functions.
impl<'c> Deref for WorkingSet<'c> {
    type Target = dyn Changes + 'c;

    fn deref(&self) -> &Self::Target {
        self.rows
    }
}
