//! The tables, as one transaction or one read sees them.

use std::cell::{Cell, RefCell};

use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::time::Timestamp;

/// The tables, as one transaction or one read sees them.
///
/// A lease can have ended without a record of it on disk. An answer must not depend on such an end: after a
/// crash the lease would be live again. So this remembers the latest end that was read. The answer is sent
/// only after the store has written a time (`last_seen_at`) that is not before that end.
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    now: Timestamp,
    grace: &'c RestartGrace,
    latest_due: Cell<Option<Timestamp>>,
    statements: RefCell<Vec<Prepared<'c>>>,
}

/// A statement that has run, with its text. A batch runs a few statements many times. The cache of the connection copies
/// and hashes the text each time.
struct Prepared<'c> {
    sql: &'static str,
    statement: CachedStatement<'c>,
}

impl<'c> Tables<'c> {
    pub(super) const fn new(connection: &'c Connection, now: Timestamp, grace: &'c RestartGrace) -> Self {
        let statements = RefCell::new(Vec::new());
        Self { connection, now, grace, latest_due: Cell::new(None), statements }
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

    /// Runs `work` with a prepared statement, and keeps the statement for the next time.
    fn with<T>(
        &self,
        sql: &'static str,
        work: impl FnOnce(&mut CachedStatement<'c>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let kept = {
            let mut statements = self.statements.borrow_mut();
            let place = statements.iter().position(|kept| std::ptr::eq(kept.sql, sql));
            place.map(|place| statements.swap_remove(place).statement)
        };
        let mut statement = kept.map_or_else(|| self.connection.prepare_cached(sql), Ok)?;
        let outcome = work(&mut statement);
        self.statements.borrow_mut().push(Prepared { sql, statement });
        Ok(outcome?)
    }

    /// The first row of a query, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        self.with(sql, |statement| statement.query_row(params, read).optional())
    }

    /// The value of a query that always has one row of one column.
    pub(super) fn value<T: FromSql>(&self, sql: &'static str, params: impl Params) -> Result<T, Error> {
        self.with(sql, |statement| statement.query_row(params, |row| row.get(0)))
    }

    /// All rows of a query.
    pub(super) fn all<T, C: FromIterator<T>>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<C, Error> {
        self.with(sql, |statement| statement.query_map(params, read)?.collect())
    }

    /// Runs a statement. Returns the number of changed rows.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize, Error> {
        self.with(sql, |statement| statement.execute(params))
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
