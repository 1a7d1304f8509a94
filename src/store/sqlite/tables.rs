//! The tables as one transaction or one read sees them.

use std::cell::Cell;

use rusqlite::Connection;

use crate::domain::grace::RestartGrace;
use crate::time::Timestamp;

/// The tables, as one transaction or one reading sees them.
///
/// A lease can have ended without anything on disk that says so. No answer may rest on that: after a crash the lease would
/// be alive again. So this remembers what was taken for over, and what was read is answered only when the store has
/// written down that it was there at a later time.
#[derive(Debug)]
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    now: Timestamp,
    grace: &'c RestartGrace,
    over: Cell<Option<Timestamp>>,
}

impl<'c> Tables<'c> {
    pub(super) const fn new(connection: &'c Connection, now: Timestamp, grace: &'c RestartGrace) -> Self {
        Self { connection, now, grace, over: Cell::new(None) }
    }

    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) const fn connection(&self) -> &'c Connection {
        self.connection
    }

    pub(super) const fn grace(&self) -> &'c RestartGrace {
        self.grace
    }

    /// Something that is due at `at` was read. If that has come, what is answered rests on it.
    pub(super) fn found_due(&self, at: Timestamp) {
        if at <= self.now {
            self.over.set(self.over.get().max(Some(at)));
        }
    }

    /// The last thing that was taken for over, if any was.
    pub(super) const fn over(&self) -> Option<Timestamp> {
        self.over.get()
    }
}

/// A limit of rows, as SQLite counts.
pub(super) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
