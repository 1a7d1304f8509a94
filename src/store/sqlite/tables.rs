//! The tables, as one transaction or one read sees them.

use std::cell::Cell;

use rusqlite::Connection;

use crate::domain::grace::RestartGrace;
use crate::time::Timestamp;

/// The tables, as one transaction or one read sees them.
///
/// A lease can have ended without a record of it on disk. An answer must not depend on such an end: after a
/// crash the lease would be live again. So this remembers the latest end that was read. The answer is sent
/// only after the store has written a time (`last_seen_at`) that is not before that end.
#[derive(Debug)]
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    now: Timestamp,
    grace: &'c RestartGrace,
    latest_due: Cell<Option<Timestamp>>,
}

impl<'c> Tables<'c> {
    pub(super) const fn new(connection: &'c Connection, now: Timestamp, grace: &'c RestartGrace) -> Self {
        Self { connection, now, grace, latest_due: Cell::new(None) }
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

    /// Records that an expiry or grant at `at` was read. If `at` has come, the answer depends on it.
    pub(super) fn found_due(&self, at: Timestamp) {
        if at <= self.now {
            self.latest_due.set(self.latest_due.get().max(Some(at)));
        }
    }

    /// The latest expiry or grant that was read and has come. `None` if there was none.
    pub(super) const fn latest_due(&self) -> Option<Timestamp> {
        self.latest_due.get()
    }
}

/// Converts a limit of rows to SQLite's integer type.
pub(super) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
