//! The tables, as one transaction or one read sees them.

use std::cell::Cell;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::domain::grace::RestartGrace;
use crate::error::Error;
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

    /// The first row of a query, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self.connection.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    /// The value of a query that always has one row of one column.
    pub(super) fn value<T: FromSql>(&self, sql: &'static str, params: impl Params) -> Result<T, Error> {
        Ok(self.connection.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
    }

    /// All rows of a query.
    pub(super) fn all<T, C: FromIterator<T>>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<C, Error> {
        Ok(self.connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<_>>()?)
    }

    /// Runs a statement. Returns the number of changed rows.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize, Error> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
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
