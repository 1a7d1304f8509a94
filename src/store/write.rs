//! What a use case sees of the transaction that it runs in: the connection, the time, and what must outlive every lock.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::queue::{Lines, Moved, Queue};
use crate::error::Error;
use crate::lock::{Fence, Lock, UserId};
use crate::time::{LeaseClock, Timestamp, WallTime};

/// `meta.last_seen_at` is not written more often than this (milliseconds).
const SEEN_EVERY_MS: i64 = 1_000;

/// A value, and the lease time at which it was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// Lease time.
    pub now: Timestamp,
    /// What was true.
    pub value: T,
}

/// What a use case sees of the transaction that it runs in.
#[derive(Debug)]
pub struct Write<'c> {
    connection: &'c Connection,
    now: Timestamp,
    wall_micros: i64,
    /// The row as it was, and as it is to be.
    before: Meta,
    meta: Cell<Meta>,
    tally: Cell<Tally>,
    touched: Cell<bool>,
    dues: Cell<Dues>,
    lines: Lines<'c>,
    parted: RefCell<Vec<(i64, HashSet<UserId>)>>,
}

/// The row of the table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    last_fence: i64,
    last_revision: i64,
    last_seen_at: i64,
    wall_offset_ms: i64,
}

/// When time has its say about the locks that were written, at the earliest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dues {
    /// The first end of a lease.
    pub end: Option<Timestamp>,
    /// The first time that a lock passes to somebody whose knock was not answered.
    pub grant: Option<Timestamp>,
}

impl Dues {
    /// The earlier of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { end: first(self.end, other.end), grant: first(self.grant, other.grant) }
    }
}

/// The earlier of those that there are.
fn first(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
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
    /// What is added to lease time from now on to get wall time.
    pub(super) wall_offset_ms: i64,
    /// The revision of the last event there is.
    pub(super) last_revision: i64,
    /// When time has its say about the locks that were written.
    pub(super) dues: Dues,
    /// Those who waited and wait no more, and those who do now.
    pub(super) moved: Moved,
    /// The members of workspaces that were deleted, by the revision of that.
    pub(super) parted: Vec<(i64, HashSet<UserId>)>,
}

impl<'c> Write<'c> {
    /// The transaction has begun: the time is read, once, and a wall clock that was set is noticed.
    pub(super) fn begin(
        connection: &'c Connection,
        clock: &LeaseClock,
        queue: &'c Queue,
    ) -> Result<Self, Error> {
        let before = read_meta(connection)?;
        let wall_offset_ms = clock.wall_was_set().unwrap_or(before.wall_offset_ms);
        Ok(Self {
            connection,
            now: clock.now(),
            wall_micros: clock.clock().wall_micros(),
            before,
            meta: Cell::new(Meta { wall_offset_ms, ..before }),
            tally: Cell::default(),
            touched: Cell::new(false),
            dues: Cell::default(),
            lines: Lines::of(queue),
            parted: RefCell::default(),
        })
    }

    /// It is about to be committed: what must outlive every lock is written down.
    pub(super) fn end(self) -> Result<Written, Error> {
        let mut meta = self.meta.get();
        if meta != self.before
            || self.touched.get()
            || self.now.0.saturating_sub(self.before.last_seen_at) >= SEEN_EVERY_MS
        {
            meta.last_seen_at = self.now.0;
            write_meta(self.connection, meta)?;
        }
        let Tally { expiries, takeovers } = self.tally.get();
        Ok(Written {
            now: self.now,
            expiries,
            takeovers,
            wall_offset_ms: meta.wall_offset_ms,
            last_revision: meta.last_revision,
            dues: self.dues.get(),
            moved: self.lines.into_moved(),
            parted: self.parted.into_inner(),
        })
    }

    /// The connection, inside the transaction.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        self.connection
    }

    /// Lease time, read once for the whole transaction.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
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

    /// The transaction writes, whatever else it does: so that a probe reaches the disk.
    pub fn touch(&self) {
        self.touched.set(true);
    }

    /// A lock was written: time will have its say.
    pub fn due_at(&self, lock: &Lock) {
        let dues = Dues { end: Some(lock.expires_at), grant: lock.knocks.grant_at };
        self.dues.set(self.dues.get().or(dues));
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

fn read_meta(connection: &Connection) -> Result<Meta, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT last_fence, last_revision, last_seen_at, wall_offset_ms FROM meta WHERE id = 1",
        )?
        .query_row([], |row| {
            Ok(Meta {
                last_fence: row.get(0)?,
                last_revision: row.get(1)?,
                last_seen_at: row.get(2)?,
                wall_offset_ms: row.get(3)?,
            })
        })?)
}

fn write_meta(connection: &Connection, meta: Meta) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE meta SET last_fence = ?1, last_revision = ?2, last_seen_at = ?3, wall_offset_ms = ?4 WHERE id = 1",
        )?
        .execute(params![meta.last_fence, meta.last_revision, meta.last_seen_at, meta.wall_offset_ms])?;
    Ok(())
}
