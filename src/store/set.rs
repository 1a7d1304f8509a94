//! The working set of a use case: the rows, the time, and what must outlive every lock.
//!
//! All that a use case does, it does to this. If the transaction is rolled back, or an engine runs the use case again, the set
//! is dropped and nothing has happened: nothing is told, counted or logged before the commit.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::Deref;
use std::time::Duration;

use super::note::Note;
use super::queue::{Lines, Moved, Queue};
use super::rows::Changes;
use crate::domain::event::NewEvent;
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{Fence, Lock, Moment, UserId};
use crate::error::Error;
use crate::time::{Clock, Timestamp, WallTime};

/// What a step of something long may take: others wait no longer for the writer.
const STEP: Duration = Duration::from_millis(5);

/// What must outlive every lock: one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The highest fence that was given out.
    pub last_fence: Fence,
    /// The revision of the last event.
    pub last_revision: i64,
    /// What is added to lease time to get wall time (milliseconds).
    pub wall_offset_ms: i64,
    /// How many rows of locks there are.
    pub lock_count: i64,
    /// When a server last opened the store.
    pub opened_at: Timestamp,
}

/// What a transaction begins with.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// What the wall clock shows, in microseconds since 1970.
    pub wall_micros: i64,
    /// The row as it is, with the wall offset that holds from now on.
    pub meta: Meta,
}

/// The time that a step of something long has.
#[derive(Debug)]
pub struct Step<'c> {
    clock: &'c Clock,
    until: Duration,
}

impl Step<'_> {
    /// Whether it is time to let others in.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.clock.monotonic() >= self.until
    }
}

/// The earlier of those that there are.
pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

/// What a use case works on.
pub struct WorkingSet<'c> {
    rows: &'c dyn Changes,
    clock: &'c Clock,
    wall_micros: i64,
    meta: Cell<Meta>,
    expiries: Cell<u64>,
    takeovers: Cell<u64>,
    is_touched: Cell<bool>,
    due: Cell<Option<Timestamp>>,
    lines: Lines<'c>,
    parted: RefCell<Vec<(i64, HashSet<UserId>)>>,
    notes: RefCell<Vec<Note>>,
}

/// What follows from a transaction once it is committed.
#[derive(Debug)]
pub struct Effects {
    /// Lease time.
    pub(super) now: Timestamp,
    /// The row as it is to be.
    pub meta: Meta,
    /// The transaction writes, whatever else it does.
    pub is_touched: bool,
    pub(super) expiries: u64,
    pub(super) takeovers: u64,
    /// Nothing is due before this about the locks that were written.
    pub(super) due: Option<Timestamp>,
    /// Those who waited and wait no more, and those who do now.
    pub(super) moved: Moved,
    /// The members of workspaces that were deleted, by the revision of that.
    pub(super) parted: Vec<(i64, HashSet<UserId>)>,
    /// What is to be logged.
    pub(super) notes: Vec<Note>,
}

impl Effects {
    /// Of a transaction in which nothing was done.
    pub(super) fn none(now: Timestamp, meta: Meta) -> Self {
        Self {
            now,
            meta,
            is_touched: false,
            expiries: 0,
            takeovers: 0,
            due: None,
            moved: Moved::default(),
            parted: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl<'c> WorkingSet<'c> {
    /// A transaction has begun.
    #[must_use]
    pub fn new(rows: &'c dyn Changes, begin: Begin, clock: &'c Clock, queue: &'c Queue) -> Self {
        Self {
            rows,
            clock,
            wall_micros: begin.wall_micros,
            meta: Cell::new(begin.meta),
            expiries: Cell::default(),
            takeovers: Cell::default(),
            is_touched: Cell::default(),
            due: Cell::default(),
            lines: Lines::of(queue),
            parted: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// What follows once it is committed.
    #[must_use]
    pub fn into_effects(self) -> Effects {
        let nothing = Effects::none(self.now(), self.meta.get());
        Effects {
            is_touched: self.is_touched.get(),
            expiries: self.expiries.get(),
            takeovers: self.takeovers.get(),
            due: self.due.get(),
            moved: self.lines.into_moved(),
            parted: self.parted.into_inner(),
            notes: self.notes.into_inner(),
            ..nothing
        }
    }

    /// A step of something long begins.
    #[must_use]
    pub fn step(&self) -> Step<'c> {
        Step { clock: self.clock, until: self.clock.monotonic().saturating_add(STEP) }
    }

    /// What the wall clock shows, read once for the whole transaction.
    #[must_use]
    pub const fn wall(&self) -> WallTime {
        WallTime(self.wall_micros / 1_000)
    }

    /// How `at` is shown to people.
    #[must_use]
    pub fn wall_at(&self, at: Timestamp) -> WallTime {
        WallTime(at.0.saturating_add(self.meta.get().wall_offset_ms))
    }

    /// What a decision goes by. The fresh fence counts as given out only with [`Self::begin_lease`].
    #[must_use]
    pub fn moment(&self) -> Moment {
        let Meta { last_fence, opened_at, .. } = self.meta.get();
        // A clock that is set beyond what a JavaScript number can count is not followed.
        let by_the_clock = if self.wall_micros <= Fence::GREATEST_BY_CLOCK { self.wall_micros } else { 0 };
        let fresh = Fence(last_fence.0.saturating_add(1).max(by_the_clock));
        Moment { now: self.now(), opened_at, fresh }
    }

    /// The highest fence that is out.
    #[must_use]
    pub fn last_fence(&self) -> Fence {
        self.meta.get().last_fence
    }

    /// `fence` is out.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is not above every other: there is none left. No fence is given out twice.
    pub fn give_fence(&self, fence: Fence) -> Result<(), Error> {
        let meta = self.meta.get();
        if fence <= meta.last_fence {
            let last = meta.last_fence.0;
            return Err(Error::Internal(format!(
                "there is no fence above {last}, which meta.last_fence has"
            )));
        }
        self.meta.set(Meta { last_fence: fence, ..meta });
        Ok(())
    }

    /// Writes a new lease, whose fence is out from now on.
    ///
    /// # Errors
    /// Those of [`Self::give_fence`], and what the engine refuses.
    pub fn begin_lease(&self, lock: &Lock) -> Result<(), Error> {
        self.resume_lease(lock)?;
        self.give_fence(lock.fence)
    }

    /// Writes a lease that goes on after its end.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn resume_lease(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.count_locks(1);
        self.rows.insert_lock(lock)
    }

    /// Writes what can change while a lease lasts.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn renew(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.update_lock(lock)
    }

    /// Writes a lease, with its knocks.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn put_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.update_lock_and_knocks(lock)
    }

    /// A lock was looked at and has time left: it is looked at again when that is up.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn check_again(&self, lock: &Lock) -> Result<(), Error> {
        self.due_at(lock.due_at());
        self.rows.set_check_at(&lock.workspace_id, lock.due_at())
    }

    /// A lease is no more.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn end_lease(&self, lock: &Lock) -> Result<(), Error> {
        if self.rows.delete_lock(lock)? {
            self.count_locks(-1);
        }
        Ok(())
    }

    /// Writes an event down. It is logged once that is committed.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn record(&self, event: &NewEvent<'_>) -> Result<(), Error> {
        let meta = self.meta.get();
        let last_revision = meta.last_revision.saturating_add(1);
        self.meta.set(Meta { last_revision, ..meta });
        self.rows.insert_event(last_revision, self.wall_at(event.at), event)?;
        self.notes.borrow_mut().extend(Note::of_event(event));
        Ok(())
    }

    /// Keeps a new token. It is logged once that is committed.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn create_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.rows.insert_token(token, hash)?;
        self.notes.borrow_mut().extend(Note::of_new_token(token));
        Ok(())
    }

    /// Forgets a token, if it is of this scope. It is logged once that is committed. Returns whether there was one.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn revoke_token(&self, token_id: &str, only: Option<Scope>) -> Result<bool, Error> {
        let revoked = self.rows.delete_token(token_id, only)?;
        self.notes.borrow_mut().extend(revoked.as_ref().and_then(Note::of_revoked_token));
        Ok(revoked.is_some())
    }

    /// The last event that was written down is that a workspace was deleted, and these were its members.
    pub fn parted(&self, members: HashSet<UserId>) {
        self.parted.borrow_mut().push((self.meta.get().last_revision, members));
    }

    /// The transaction writes, whatever else it does: so that a probe reaches the disk.
    pub fn touch(&self) {
        self.is_touched.set(true);
    }

    /// There are so many locks.
    pub fn set_lock_count(&self, lock_count: i64) {
        self.meta.set(Meta { lock_count, ..self.meta.get() });
    }

    /// Who waits for a lock.
    #[must_use]
    pub const fn lines(&self) -> &Lines<'c> {
        &self.lines
    }

    /// A lease ended because nobody renewed it.
    pub fn count_expiry(&self) {
        self.expiries.set(self.expiries.get() + 1);
    }

    /// A lease was taken over.
    pub fn count_takeover(&self) {
        self.takeovers.set(self.takeovers.get() + 1);
    }

    fn count_locks(&self, more: i64) {
        self.set_lock_count(self.meta.get().lock_count.saturating_add(more));
    }

    /// A lock was written, about which something is due.
    fn due_at(&self, at: Timestamp) {
        self.due.set(earlier(self.due.get(), Some(at)));
    }
}

/// The row functions.
impl<'c> Deref for WorkingSet<'c> {
    type Target = dyn Changes + 'c;

    fn deref(&self) -> &Self::Target {
        self.rows
    }
}
