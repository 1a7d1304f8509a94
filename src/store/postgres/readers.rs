//! The connections that read.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use super::node::Node;
use super::queries::Queries;
use super::row::get;
use super::session::Session;
use super::waiters::{self, Waiters};
use crate::domain::WorkspaceId;
use crate::error::Error;
use crate::store::queue::QueuedWaiter;
use crate::store::rows::{AsOf, ReadResult, Rows};
use crate::store::{Sizes, lock};

/// After a connection could not be made, further reads fail at once for this time (milliseconds).
const AWAY_MS: i64 = 1_000;

/// The size of the database in bytes, and the age of the oldest transaction that any part of PostgreSQL keeps rows for.
const SIZES: &str = "SELECT pg_database_size(current_database()), greatest(
 (SELECT max(age(backend_xmin)) FROM pg_stat_activity),
 (SELECT max(age(transaction)) FROM pg_prepared_xacts),
 (SELECT max(age(xmin)) FROM pg_replication_slots), 0)::bigint";

/// The connections that read. Each thread that reads takes one, so there are at most as many as such threads.
pub(in crate::store) struct Readers {
    node: Arc<Node>,
    free: Mutex<Vec<Session>>,
    /// Until this monotonic time of the machine (milliseconds) the database counts as away.
    away_until: AtomicI64,
}

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Readers")
    }
}

impl Readers {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, free: Mutex::default(), away_until: AtomicI64::new(i64::MIN) }
    }

    /// A connection that is free and works, or a new one.
    fn session(&self) -> Result<Session, Error> {
        loop {
            let free = lock(&self.free).pop();
            match free {
                Some(session) if !session.is_lost() => return Ok(session),
                Some(_) => {}
                None => break,
            }
        }
        if self.node.system_ms() < self.away_until.load(Ordering::SeqCst) {
            return Err(Error::Busy);
        }
        self.node.connect().inspect_err(|_| {
            self.away_until.store(self.node.system_ms().saturating_add(AWAY_MS), Ordering::SeqCst);
        })
    }

    /// The waiters for a lock.
    pub(in crate::store) fn waiters(&self, workspace_id: &WorkspaceId) -> Result<Vec<QueuedWaiter>, Error> {
        let session = self.session()?;
        let found = session.run(&[waiters::load(&[workspace_id.as_str().to_owned()])])?;
        let waiters = Waiters::of(&self.node);
        waiters.loaded(found.first().map_or(&[], Vec::as_slice))?;
        lock(&self.free).push(session);
        Ok(waiters.queue.waiters(workspace_id))
    }

    /// The sizes. The write-ahead log is that of all databases of PostgreSQL, so it has none.
    pub(in crate::store) fn sizes(&self) -> Result<Sizes, Error> {
        let session = self.session()?;
        let rows = session.query(SIZES, Vec::new())?;
        lock(&self.free).push(session);
        let number = |place| rows.first().map_or(Ok(0), |row| get::<i64>(row, place)).map(i64::unsigned_abs);
        Ok(Sizes { database: number(0)?, log: 0, oldest_transaction: number(1)? })
    }

    /// Reads committed data.
    pub(in crate::store) fn read<T>(
        &self,
        work: impl FnOnce(&dyn Rows) -> Result<T, Error>,
    ) -> Result<ReadResult<T>, Error> {
        let session = self.session()?;
        let queries = Queries::new(&session, self.node.clock.now(), self.node.known_grace());
        let value = work(&queries);
        let now = queries.now;
        let is_ahead_of_disk =
            queries.latest_due().is_some_and(|due| due.0 > self.node.seen.load(Ordering::SeqCst));
        if !session.is_lost() {
            lock(&self.free).push(session);
        }
        Ok(ReadResult { as_of: AsOf { now, value: value? }, is_ahead_of_disk })
    }

    /// The id of this node.
    pub(in crate::store) fn node_id(&self) -> &str {
        &self.node.id
    }

    /// Whether the database can be read.
    pub(in crate::store) fn can_read(&self) -> bool {
        self.read(|rows| rows.revisions()).is_ok()
    }
}
