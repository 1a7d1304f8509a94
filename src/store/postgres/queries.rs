//! Queries on one connection: what a read sees, and what a use case reads that is not among the rows of its batch.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use super::row::{self, get};
use super::session::{Command, Parameter, Session, parameters};
use crate::domain::Lock;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::time::Timestamp;

pub(super) const LOCKS: &str =
    concat!("SELECT ", row::locks!(), " FROM locks WHERE workspace_id = ANY($1::text[])");
pub(super) const KNOCKS: &str = concat!(
    "SELECT ",
    row::knocks!(),
    " FROM knocks WHERE workspace_id = ANY($1::text[]) ORDER BY place, at"
);
pub(super) const LAST_LEASES: &str = concat!(
    "SELECT e.* FROM unnest($1::text[]) w(id) CROSS JOIN LATERAL (SELECT ",
    row::events!(),
    " FROM events WHERE workspace_id = w.id AND fence IS NOT NULL ORDER BY revision DESC LIMIT 1) e"
);

/// The tables, read by queries on one connection.
pub(super) struct Queries<'s> {
    pub(super) session: &'s Session,
    pub(super) now: Timestamp,
    pub(super) grace: Arc<RestartGrace>,
    /// The latest expiry or grant that was read and has come.
    latest_due: Cell<Option<Timestamp>>,
}

impl<'s> Queries<'s> {
    pub(super) const fn new(session: &'s Session, now: Timestamp, grace: Arc<RestartGrace>) -> Self {
        Self { session, now, grace, latest_due: Cell::new(None) }
    }

    pub(super) const fn latest_due(&self) -> Option<Timestamp> {
        self.latest_due.get()
    }

    /// Records that an expiry or grant at `at` was read.
    pub(super) fn found_due(&self, at: Timestamp) {
        if at <= self.now {
            self.latest_due.set(self.latest_due.get().max(Some(at)));
        }
    }

    /// Locks from their rows, with the knocks from theirs.
    pub(super) fn locks(&self, rows: &[Row], knocks: Option<&[Row]>) -> Result<Vec<Lock>, Error> {
        let mut found = Vec::with_capacity(rows.len());
        let mut with_knocks = Vec::new();
        for row in rows {
            let (lock, has_knocks) = row::lock(row, &self.grace)?;
            if has_knocks {
                with_knocks.push(lock.workspace_id.as_str().to_owned());
            }
            found.push(lock);
        }
        if !with_knocks.is_empty() {
            let queried;
            let rows = if let Some(rows) = knocks {
                rows
            } else {
                queried = self.session.query(KNOCKS, parameters![with_knocks])?;
                &queried
            };
            let mut places: HashMap<_, _> = found
                .iter()
                .enumerate()
                .map(|(place, lock)| (lock.workspace_id.as_str().to_owned(), place))
                .collect();
            for row in rows {
                if let Some(lock) =
                    places.get_mut(&get::<String>(row, 0)?).and_then(|place| found.get_mut(*place))
                {
                    row::knock(row, &mut lock.knocks)?;
                }
            }
        }
        for lock in &found {
            self.found_due(lock.due_at());
        }
        Ok(found)
    }

    pub(super) fn first<T>(
        rows: &[Row],
        read: impl FnOnce(&Row) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        rows.first().map(read).transpose()
    }

    pub(super) fn number<T: FromSqlOwned>(
        &self,
        sql: &'static str,
        parameters: Vec<Parameter>,
    ) -> Result<T, Error> {
        let rows = self.session.query(sql, parameters)?;
        rows.first().map_or_else(
            || Err(Error::Internal("PostgreSQL answered without a row".to_owned())),
            |row| get(row, 0),
        )
    }
}

pub(super) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The command that reads locks and their knocks.
pub(super) fn load(ids: &[String]) -> [Command; 2] {
    [Command::new(LOCKS, parameters![ids.to_vec()]), Command::new(KNOCKS, parameters![ids.to_vec()])]
}
