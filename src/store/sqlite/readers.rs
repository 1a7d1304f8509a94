//! The connections that read.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use r2d2_sqlite::SqliteConnectionManager;

use super::tables::Tables;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::store::health::Health;
use crate::store::rows::{AsOf, ReadResult, Rows};
use crate::time::LeaseClock;

/// A pool of connections to one file.
pub(super) type Pool = r2d2::Pool<SqliteConnectionManager>;

/// The connections that read.
#[derive(Debug)]
pub(in crate::store) struct Readers {
    pub(super) pool: Pool,
    pub(super) clock: Arc<LeaseClock>,
    pub(super) grace: Arc<RestartGrace>,
    /// `meta.last_seen_at`, as it is on disk.
    pub(super) seen: Arc<AtomicI64>,
    pub(super) health: Arc<Health>,
    pub(super) threads: Threads,
}

thread_local! {
    /// Whether this thread was counted in [`Threads`].
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The number of threads that have read. Each should have a connection, so that none waits for another.
#[derive(Debug, Default)]
pub(super) struct Threads(AtomicU32);

impl Readers {
    /// Excludes this thread from the count. It opened the store, and does not serve reads.
    pub(in crate::store) fn exclude_this_thread() {
        IS_COUNTED.set(true);
    }

    /// The number of threads that have read, and the number of connections for them.
    pub(in crate::store) fn count(&self) -> (u32, u32) {
        (self.threads.0.load(Ordering::SeqCst), self.pool.max_size())
    }

    /// Reads committed data.
    pub(in crate::store) fn read<T>(
        &self,
        work: impl FnOnce(&dyn Rows) -> Result<T, Error>,
    ) -> Result<ReadResult<T>, Error> {
        if self.health.is_gone() {
            return Err(Error::Stopping);
        }
        if !IS_COUNTED.replace(true) && self.threads.0.fetch_add(1, Ordering::SeqCst) >= self.pool.max_size()
        {
            log::debug!("more threads read than there are connections to read with");
        }
        let connection = self
            .pool
            .get()
            .map_err(|error| Error::Internal(format!("no connection to read with: {error}")))?;
        let tables = Tables::new(&connection, self.clock.now(), &self.grace);
        let value = work(&tables);
        self.health.has_read(&value);
        let is_ahead_of_disk =
            tables.latest_due().is_some_and(|latest_due| latest_due.0 > self.seen.load(Ordering::SeqCst));
        Ok(ReadResult { as_of: AsOf { now: tables.now(), value: value? }, is_ahead_of_disk })
    }

    /// Whether the store can be read. It tries a read, unless a read has failed just before.
    pub(in crate::store) fn can_read(&self) -> bool {
        let Some(connection) = self.pool.try_get() else {
            // All connections are in use, and `health` records the outcomes of their reads.
            return !self.health.was_unreadable();
        };
        let read = Tables::new(&connection, self.clock.now(), &self.grace).revisions();
        self.health.has_read(&read);
        !self.health.was_unreadable() && read.is_ok()
    }
}
