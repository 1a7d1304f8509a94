//! What a use case sees of the locks that it reads: the connection, the time, and the grace of restarts.
//!
//! A lease can have ended without anything on disk that says so. No answer may rest on that: after a crash the lease would
//! be alive again. So a reading remembers what it has taken for over, and is answered only when the store has written
//! down that it was there at a later time ([`super::Store::read_locks`]).

use std::cell::Cell;

use rusqlite::Connection;

use crate::domain::grace::RestartGrace;
use crate::time::Timestamp;

/// What a use case sees of the locks that it reads.
#[derive(Debug)]
pub struct Read<'c> {
    connection: &'c Connection,
    now: Timestamp,
    grace: &'c RestartGrace,
    over: Cell<Option<Timestamp>>,
}

impl<'c> Read<'c> {
    pub(super) const fn new(connection: &'c Connection, now: Timestamp, grace: &'c RestartGrace) -> Self {
        Self { connection, now, grace, over: Cell::new(None) }
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Lease time, read once.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The grace of restarts.
    #[must_use]
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
    #[must_use]
    pub(super) const fn over(&self) -> Option<Timestamp> {
        self.over.get()
    }
}
