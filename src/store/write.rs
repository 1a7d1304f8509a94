//! What a use case sees of the transaction that it runs in: the connection, the time, and what must outlive every lock.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::note::Note;
use super::queue::{Lines, Moved, Queue};
use super::read::Read;
use crate::domain::grace::{RestartGrace, Run};
use crate::domain::{Fence, Lock, UserId};
use crate::error::Error;
use crate::time::{Clock, LeaseClock, Timestamp, WallTime};

/// `meta.last_seen_at` is not written more often than this (milliseconds).
const SEEN_EVERY_MS: i64 = 1_000;
/// What a step of something long may take: others wait no longer for the writer.
const STEP: Duration = Duration::from_millis(5);

/// A value, and the lease time at which it was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// Lease time.
    pub now: Timestamp,
    /// What was true.
    pub value: T,
}

/// What a use case sees of the transaction that it runs in.
#[derive(Debug)]
pub struct Write<'c> {
    read: Read<'c>,
    clock: &'c Clock,
    wall_micros: i64,
    /// The row as it was, and as it is to be.
    before: Meta,
    meta: Cell<Meta>,
    tally: Cell<Tally>,
    touched: Cell<bool>,
    due: Cell<Option<Timestamp>>,
    lines: Lines<'c>,
    parted: RefCell<Vec<(i64, HashSet<UserId>)>>,
    notes: RefCell<Vec<Note>>,
}

/// The row of the table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    last_fence: i64,
    pub(super) last_revision: i64,
    pub(super) last_seen_at: i64,
    pub(super) wall_offset_ms: i64,
    lock_count: i64,
    run: i64,
}

impl Meta {
    /// Whether this is not what the server that wrote `before` can find: what it writes never becomes less.
    pub(super) fn is_of_another(self, before: Self) -> bool {
        self.run != before.run
            || self.last_fence < before.last_fence
            || self.last_revision < before.last_revision
            || self.last_seen_at < before.last_seen_at
    }
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

/// What is counted of a transaction.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    expiries: u64,
    takeovers: u64,
}

/// What follows from a transaction once it is committed.
#[derive(Debug)]
pub(super) struct Written {
    /// Lease time.
    pub(super) now: Timestamp,
    pub(super) expiries: u64,
    pub(super) takeovers: u64,
    /// The last fence, if one was given.
    pub(super) fence: Option<Fence>,
    /// The row of the table `meta`, as it is on disk once this is committed.
    pub(super) meta: Meta,
    /// Nothing is due before this about the locks that were written.
    pub(super) due: Option<Timestamp>,
    /// Those who waited and wait no more, and those who do now.
    pub(super) moved: Moved,
    /// The members of workspaces that were deleted, by the revision of that.
    pub(super) parted: Vec<(i64, HashSet<UserId>)>,
    /// What is to be logged.
    pub(super) notes: Vec<Note>,
}

impl<'c> Write<'c> {
    /// The transaction has begun: the time is read, once, and a wall clock that was set is noticed.
    pub(super) fn begin(
        connection: &'c Connection,
        clock: &'c LeaseClock,
        queue: &'c Queue,
        grace: &'c RestartGrace,
    ) -> Result<Self, Error> {
        let before = read_meta(connection)?;
        let wall_offset_ms = clock.wall_was_set().unwrap_or(before.wall_offset_ms);
        Ok(Self {
            read: Read::new(connection, clock.now(), grace),
            clock: clock.clock(),
            wall_micros: clock.clock().wall_micros(),
            before,
            meta: Cell::new(Meta { wall_offset_ms, ..before }),
            tally: Cell::default(),
            touched: Cell::new(false),
            due: Cell::default(),
            lines: Lines::of(queue),
            parted: RefCell::default(),
            notes: RefCell::default(),
        })
    }

    /// It is about to be committed: what must outlive every lock is written down.
    pub(super) fn end(self) -> Result<Written, Error> {
        let mut meta = self.meta.get();
        let seen = Timestamp(self.before.last_seen_at);
        if meta != self.before
            || self.touched.get()
            || self.read.over().is_some_and(|over| over > seen)
            || self.now().since(seen) >= SEEN_EVERY_MS
        {
            meta.last_seen_at = self.now().0;
            write_meta(self.connection(), meta)?;
        }
        let Tally { expiries, takeovers } = self.tally.get();
        Ok(Written {
            now: self.now(),
            expiries,
            takeovers,
            fence: (meta.last_fence > self.before.last_fence).then_some(Fence(meta.last_fence)),
            meta,
            due: self.due.get(),
            moved: self.lines.into_moved(),
            parted: self.parted.into_inner(),
            notes: self.notes.into_inner(),
        })
    }

    /// The connection, inside the transaction.
    #[must_use]
    pub const fn connection(&self) -> &'c Connection {
        self.read.connection()
    }

    /// Lease time, read once for the whole transaction.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.read.now()
    }

    /// For reading locks.
    #[must_use]
    pub const fn read(&self) -> &Read<'c> {
        &self.read
    }

    /// The current run of the server.
    #[must_use]
    pub(super) const fn run(&self) -> Run {
        self.read.grace().run()
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

    /// A fence above every other. It counts as given out only after [`Self::fence_given`].
    #[must_use]
    pub fn fresh_fence(&self) -> Fence {
        // A clock that is set beyond what a JavaScript number can count is not followed.
        let by_the_clock = if self.wall_micros <= Fence::GREATEST_BY_CLOCK { self.wall_micros } else { 0 };
        Fence(self.meta.get().last_fence.saturating_add(1).max(by_the_clock))
    }

    /// The highest fence that is out.
    #[must_use]
    pub fn last_fence(&self) -> Fence {
        Fence(self.meta.get().last_fence)
    }

    /// `fence` is out.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is not above every other: there is none left. No fence is given out twice.
    pub fn fence_given(&self, fence: Fence) -> Result<(), Error> {
        let meta = self.meta.get();
        if fence.0 <= meta.last_fence {
            let last = meta.last_fence;
            return Err(Error::Internal(format!(
                "there is no fence above {last}, which meta.last_fence has"
            )));
        }
        self.meta.set(Meta { last_fence: fence.0, ..meta });
        Ok(())
    }

    /// The revision of the next event.
    #[must_use]
    pub fn next_revision(&self) -> i64 {
        let meta = self.meta.get();
        let last_revision = meta.last_revision.saturating_add(1);
        self.meta.set(Meta { last_revision, ..meta });
        last_revision
    }

    /// The last event that was written down is that a workspace was deleted, and these were its members.
    pub fn parted(&self, members: HashSet<UserId>) {
        self.parted.borrow_mut().push((self.meta.get().last_revision, members));
    }

    /// Once it is committed, this is logged.
    pub(super) fn note(&self, note: Option<Note>) {
        self.notes.borrow_mut().extend(note);
    }

    /// The transaction writes, whatever else it does: so that a probe reaches the disk.
    pub fn touch(&self) {
        self.touched.set(true);
    }

    /// A lock was written, about which something is due.
    pub fn due_at(&self, lock: &Lock) {
        self.due.set(earlier(self.due.get(), Some(lock.due_at())));
    }

    /// There are so many locks.
    pub(super) fn set_lock_count(&self, lock_count: i64) {
        self.meta.set(Meta { lock_count, ..self.meta.get() });
    }

    /// There are so many locks more.
    pub(super) fn count_lock(&self, more: i64) {
        let meta = self.meta.get();
        self.meta.set(Meta { lock_count: meta.lock_count.saturating_add(more), ..meta });
    }

    /// Who waits for a lock.
    #[must_use]
    pub const fn lines(&self) -> &Lines<'c> {
        &self.lines
    }

    /// A lease ended because nobody renewed it.
    pub fn count_expiry(&self) {
        let tally = self.tally.get();
        self.tally.set(Tally { expiries: tally.expiries + 1, ..tally });
    }

    /// A lease was taken over.
    pub fn count_takeover(&self) {
        let tally = self.tally.get();
        self.tally.set(Tally { takeovers: tally.takeovers + 1, ..tally });
    }
}

pub(super) fn read_meta(connection: &Connection) -> Result<Meta, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT last_fence, last_revision, last_seen_at, wall_offset_ms, lock_count, run FROM meta WHERE id = 1",
        )?
        .query_row([], |row| {
            Ok(Meta {
                last_fence: row.get(0)?,
                last_revision: row.get(1)?,
                last_seen_at: row.get(2)?,
                wall_offset_ms: row.get(3)?,
                lock_count: row.get(4)?,
                run: row.get(5)?,
            })
        })?)
}

fn write_meta(connection: &Connection, meta: Meta) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE meta SET last_fence = ?1, last_revision = ?2, last_seen_at = ?3, wall_offset_ms = ?4, lock_count = ?5 WHERE id = 1",
        )?
        .execute(params![
            meta.last_fence,
            meta.last_revision,
            meta.last_seen_at,
            meta.wall_offset_ms,
            meta.lock_count
        ])?;
    Ok(())
}
