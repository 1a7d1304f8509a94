//! The store: keeps the rows, and gives use cases access to them.
//!
//! A use case that changes something works on a [`WorkingSet`]. It runs inside a transaction of the one
//! writer (`writer.rs`), which runs many use cases together. It sees rows ([`Rows`], [`Changes`]), never a
//! connection. An [`engine::Engine`] implements the row functions; SQLite is one, and all SQL is in
//! [`sqlite`]; the other is `postgres`, for several servers on one database. Reads see committed data only.
#![cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "what servers on one database tell each other is used by PostgreSQL only")
)]

pub mod commit_notifier;
pub mod copy;
pub mod engine;
mod health;
mod jobs;
pub mod listing;
mod note;
mod open;
pub mod origin;
pub mod pace;
#[cfg(feature = "postgres")]
mod postgres;
pub mod queue;
mod rows;
mod set;
pub mod sqlite;
pub mod tokens;
mod waiter;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use crate::config::Secret;
use crate::domain::WorkspaceId;
use crate::domain::waitlist::WaitlistLimits;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::{Clock, LeaseClock, Timestamp};
use commit_notifier::CommitNotifier;
use health::Health;
use open::{Connections, OpenStore};
use queue::{Queue, QueuedWaiter};
pub use rows::{AsOf, Changes, Keys, Reply, RevisionRange, Rows, Visit, WebhookPosition};
pub use set::{Effects, FenceSlot, Meta, StepBudget, TransactionStart, WorkingSet};
use sqlite::{Guard, Readers, Time};

/// Maximum time that a stop waits for [`Store::leave`].
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Options for opening a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the SQLite file. It is created if it does not exist.
    pub path: PathBuf,
    /// The address of a PostgreSQL database, which takes the place of the file.
    pub url: Option<Secret>,
    /// How long a write waits for another process that holds the database.
    pub busy_timeout: Duration,
    /// Maximum size of the file, in bytes.
    pub max_size: Option<u64>,
    /// Minimum remaining time, after a start, of a lease that was live when the server stopped.
    pub restart_grace: Duration,
    /// Maximum number of concurrent reads. A further read waits.
    pub readers: u32,
    /// Limits on the number of waiters.
    pub waiters: WaitlistLimits,
}

/// Sizes for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Size of the database, in bytes.
    pub database: u64,
    /// Size of its write-ahead log, in bytes. 0 with PostgreSQL.
    pub log: u64,
    /// Transactions since the oldest one for which PostgreSQL keeps dead rows. 0 with SQLite.
    pub oldest_transaction: u64,
}

/// An open database: one writer, some readers.
#[derive(Debug)]
pub struct Store {
    // Fields are dropped in this order. The last connection to close may remove the write-ahead log.
    readers: Connections,
    writer: writer::Writer,
    clock: Arc<LeaseClock>,
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
    health: Arc<Health>,
    // Must be closed after SQLite has closed the database.
    guard: Option<Arc<Guard>>,
}

/// What an engine tells when other servers on the same database have committed.
#[derive(Debug, Clone)]
struct OtherServers {
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
}

impl Store {
    /// Opens the database, and creates it if it does not exist. Leases that were live when the last server
    /// stopped get the restart grace.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator: another server uses the file, the file is not a
    /// Lockhouse database, a newer version made it, it is damaged, or the disk reports an error.
    pub fn open(options: &Options, clock: Clock, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        Self::open_at(options, metrics, Time::Runs(clock))
    }

    /// Opens the database with a clock that stands still at the time when the last server stopped. No lease
    /// has ended since then.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as_it_stopped(options: &Options, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        Self::open_at(options, metrics, Time::StandsStill)
    }

    fn open_at(options: &Options, metrics: &Arc<Metrics>, time: Time) -> Result<Self, Error> {
        let notifier = Arc::new(CommitNotifier::default());
        let queue = Arc::new(Queue::new(options.waiters));
        let others = OtherServers { notifier: Arc::clone(&notifier), queue: Arc::clone(&queue) };
        let OpenStore { engine, readers, clock, health, guard } =
            OpenStore::open(options, metrics, time, &others)?;
        let writer = writer::Writer::start(
            engine,
            clock.clock().clone(),
            Arc::clone(metrics),
            Arc::clone(&notifier),
            Arc::clone(&queue),
        )?;
        Readers::exclude_this_thread();
        let store = Self { readers, writer, clock, notifier, queue, health, guard };
        let (last, due) = store.read(|rows| Ok((rows.revisions()?.last, rows.next_check()?)))?.value;
        store.notifier.committed(last, due);
        Ok(store)
    }

    /// The sizes. 0 for what cannot be read.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        #[cfg(feature = "postgres")]
        if let Connections::Postgres(readers) = &self.readers {
            return readers.sizes().unwrap_or_default();
        }
        let Some(path) = self.guard.as_ref().map(|guard| guard.path()) else { return Sizes::default() };
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Sizes { database: size(path), log: size(Path::new(&log)), oldest_transaction: 0 }
    }

    /// Writes the process id and `address` of this server into the lock file. A second server that tries to
    /// open the database reports them.
    ///
    /// # Errors
    /// [`Error::Internal`] when the note cannot be written.
    pub fn announce(&self, address: &str) -> Result<(), Error> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.announce(address))
    }

    /// The lease clock of this database.
    #[must_use]
    pub const fn clock(&self) -> &Arc<LeaseClock> {
        &self.clock
    }

    /// Tells the events thread about commits.
    #[must_use]
    pub const fn notifier(&self) -> &Arc<CommitNotifier> {
        &self.notifier
    }

    /// The waiters.
    #[must_use]
    pub const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The id of this server among those that share the database. `None` if no other can.
    #[must_use]
    pub fn node_id(&self) -> Option<&str> {
        match &self.readers {
            Connections::Sqlite(_) => None,
            #[cfg(feature = "postgres")]
            Connections::Postgres(readers) => Some(readers.node_id()),
        }
    }

    /// The waiters for this lock, on all servers, in the order in which they get it.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn waiters(&self, workspace_id: &WorkspaceId) -> Result<Vec<QueuedWaiter>, Error> {
        match &self.readers {
            Connections::Sqlite(_) => Ok(self.queue.waiters(workspace_id)),
            #[cfg(feature = "postgres")]
            Connections::Postgres(readers) => readers.waiters(workspace_id),
        }
    }

    /// The earliest time at which an expiry or a grant may be due.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        self.read(|rows| rows.next_check()).map(|due| due.value)
    }

    /// Submits a use case that will touch `keys`. `work` runs inside a transaction together with other use
    /// cases. It may run more than once. `reply` is called with the result, on another thread, after the
    /// commit is on disk.
    ///
    /// Never blocks. If the queue is full, `reply` is called at once with [`Error::Busy`].
    pub fn submit<T, W, R>(&self, keys: Keys, work: W, reply: R)
    where
        T: Send + 'static,
        W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
        R: Reply<T>,
    {
        if self.health.is_away() {
            return reply(Err(Error::Busy));
        }
        let health = Arc::clone(&self.health);
        self.writer.submit(keys, work, move |answer| {
            health.wrote(&answer);
            reply(answer);
        });
    }

    /// Submits a use case that names no keys, and waits for the answer. Do not call it on a thread that other
    /// threads wait for.
    ///
    /// # Errors
    /// Errors of `work`, and errors that prevent the commit.
    pub fn write<T, W>(&self, work: W) -> Result<AsOf<T>, Error>
    where
        T: Send + 'static,
        W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(Keys::default(), work, move |answer| {
            // The receiver may be gone.
            let _ = sender.send(answer);
        });
        receiver.recv().unwrap_or(Err(Error::Stopping))
    }

    /// Whether a write failed in the last minute because the disk was full. A small write may succeed where
    /// the write of a lock does not.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.health.was_full()
    }

    /// Whether the store can be read. It tries a read, unless a read has failed just before.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        match &self.readers {
            Connections::Sqlite(readers) => readers.can_read(),
            #[cfg(feature = "postgres")]
            Connections::Postgres(readers) => readers.can_read(),
        }
    }

    /// Whether a database on another machine answers. Its engine asks it each second. `None` for a file.
    #[must_use]
    pub fn answers(&self) -> Option<bool> {
        self.guard.is_none().then(|| !self.health.is_away())
    }

    /// Calls `tell` once if the database file or its write-ahead log is removed, moved or overwritten. From
    /// then on every use case is answered with [`Error::Stopping`] or [`Error::Unknown`].
    pub fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        self.health.when_gone(tell);
    }

    /// Reads committed data. If the read relied on an expiry or grant that is not recorded on disk yet, this
    /// waits until it is recorded. So a crash cannot make the answer wrong.
    ///
    /// A read of locks can wait for a write, so it must not run on the thread that answers writes.
    ///
    /// # Errors
    /// Errors of `work`, errors that prevent the write, and [`Error::Internal`] when no connection came free
    /// in time. There is one connection for each thread that reads.
    pub fn read<T>(&self, work: impl FnOnce(&dyn Rows) -> Result<T, Error>) -> Result<AsOf<T>, Error> {
        if self.health.is_away() {
            return Err(Error::Busy);
        }
        let found = match &self.readers {
            Connections::Sqlite(readers) => readers.read(work)?,
            #[cfg(feature = "postgres")]
            Connections::Postgres(readers) => readers.read(work)?,
        };
        if found.is_ahead_of_disk {
            self.write(|set| {
                set.force_write();
                Ok(())
            })?;
        }
        Ok(found.as_of)
    }

    /// The number of threads that have read, and the number of connections for them.
    #[must_use]
    pub fn readers(&self) -> (u32, u32) {
        match &self.readers {
            Connections::Sqlite(readers) => readers.count(),
            #[cfg(feature = "postgres")]
            Connections::Postgres(_) => (0, 0),
        }
    }

    /// Folds the write-ahead log into the database if the log is larger than `bytes`.
    ///
    /// # Errors
    /// Errors of SQLite, and [`Error::Busy`] while another connection reads from the log.
    pub fn checkpoint_if_over(&self, bytes: u64) -> Result<(), Error> {
        if self.guard.is_none() || self.sizes().log <= bytes { Ok(()) } else { self.writer.checkpoint() }
    }

    /// Prepares the stop of a server that shares its database: its waiters keep their positions for 5 s, so that they
    /// can ask again at another server. Call it before they are answered.
    pub fn leave(&self) {
        if self.guard.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(
            Keys::default(),
            |set| {
                set.leave();
                Ok(())
            },
            move |answer| drop(sender.send(answer)),
        );
        // A database that does not answer does not hold up the stop.
        if !matches!(receiver.recv_timeout(LEAVE_TIMEOUT), Ok(Ok(_))) {
            log::warn!("the database does not answer: waiters lose their positions by this stop");
        }
    }

    /// Stops the writer. It finishes and answers the queued use cases, writes down the time, and folds the
    /// write-ahead log in. Use cases that are submitted later are answered with [`Error::Stopping`].
    pub fn close(&self) {
        self.writer.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds the mutex.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
