//! The store: SQLite, and the only SQL there is.
//!
//! Every mutation is one function of [`locks`] or [`events`] that runs inside one IMMEDIATE transaction of the one
//! writer (`writer.rs`). Reads go through a pool of read-only connections and see what is committed.

pub mod audit;
pub mod commit_notifier;
pub mod events;
mod failure;
mod files;
mod floor;
mod guard;
pub mod handoff;
mod health;
pub mod invariants;
mod jobs;
pub mod listing;
pub mod locks;
mod migrations;
mod note;
mod open;
mod outside;
pub mod pace;
pub mod queue;
mod read;
mod rows;
mod shape;
pub mod tokens;
pub mod waiting;
pub mod workspaces;
mod write;
mod writer;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;

use crate::domain::Fence;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::{Clock, LeaseClock, Timestamp};
use commit_notifier::CommitNotifier;
use files::{Connected, Files};
use floor::Floor;
use guard::Guard;
use health::Health;
pub use migrations::{APPLICATION_ID, SCHEMA_VERSION};
use queue::{Limits, Queue};
pub use read::Read;
pub use write::{AsOf, Step, Write};

/// A pool of connections to one file.
type Pool = r2d2::Pool<SqliteConnectionManager>;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SQLite file; made if it is not there.
    pub path: PathBuf,
    /// How long a write waits for another process that holds the database.
    pub busy_timeout: Duration,
    /// Most bytes that the file may grow to.
    pub max_size: Option<u64>,
    /// What a lease that was alive when the server stopped has left at least.
    pub restart_grace: Duration,
    /// Most reads at a time. A further one waits.
    pub readers: u32,
    /// How many may wait for locks.
    pub waiters: Limits,
}

/// Sees to it that no fence up to `fence` is given by a server on this database from now on. The database must not be open.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator, and [`Error::StorageFull`].
pub fn fence_at_least(database: &Path, fence: Fence) -> Result<(), Error> {
    let guard = Guard::take(database)?;
    Floor::read(&guard)?.raise_to(fence)
}

/// An open database: one writer, some readers.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    // Dropped in this order: the last connection to close is one that may remove the write-ahead log.
    readers: Pool,
    writer: writer::Writer,
    clock: Arc<LeaseClock>,
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
    grace: Arc<RestartGrace>,
    opened_at: Timestamp,
    reading: Reading,
    health: Arc<Health>,
    // Closed after SQLite has closed the database.
    guard: Arc<Guard>,
}

thread_local! {
    /// Whether this thread was counted in [`Reading`].
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// How many threads read. Each is to have a connection, so that none waits for another.
#[derive(Debug, Default)]
struct Reading {
    threads: AtomicU32,
}

impl Reading {
    /// This thread reads. One that has opened a store is not counted: it has other things to do.
    fn count(&self, connections: u32) {
        if !IS_COUNTED.replace(true) && self.threads.fetch_add(1, Ordering::SeqCst) >= connections {
            log::debug!("more threads read than there are connections to read with");
        }
    }
}

impl Store {
    /// Opens the database, and makes it if it is not there. What was alive when the last server stopped gets its
    /// restart grace.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator: another server has the file, it is not Lockhouse's, it
    /// was made by a newer version, it is damaged, or the disk refuses.
    pub fn open(options: &Options, clock: Clock, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        Self::open_at(options, metrics, |_| Ok(clock))
    }

    /// The same with a clock that stands still where the last server stopped: nothing has ended since.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as_it_stopped(options: &Options, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        let seen = |connection: &_| open::last_seen(&options.path, connection).map(Clock::standing_at);
        Self::open_at(options, metrics, seen)
    }

    fn open_at(
        options: &Options,
        metrics: &Arc<Metrics>,
        clock: impl FnOnce(&Connection) -> Result<Clock, Error>,
    ) -> Result<Self, Error> {
        let guard = Arc::new(Guard::take(&options.path)?);
        let options = &Options { path: guard.path().to_owned(), ..options.clone() };
        let mut floor = Floor::read(&guard)?;
        let connection = open::prepare(guard.path(), open::Older::Migrate)?;
        floor.level(&connection)?;
        let clock = clock(&connection)?;
        drop(connection);
        let housekeeping = Arc::new(ScheduledThreadPool::builder().num_threads(1).build());
        let (connection, clock, grace) = open::writer(options, clock, &housekeeping)?;
        let readers = open::readers(options, &housekeeping)?;
        let (clock, grace) = (Arc::new(clock), Arc::new(grace));
        let health = Arc::new(Health::new(clock.clock().clone()));
        let files = Files::of(Arc::clone(&guard), Arc::clone(&health), Arc::clone(metrics), &connection)?;
        let notifier = Arc::new(CommitNotifier::default());
        let queue = Arc::new(Queue::new(options.waiters));
        let writer = writer::Writer::start(
            Connected { connection, files, floor },
            Arc::clone(&clock),
            Arc::clone(metrics),
            Arc::clone(&notifier),
            Arc::clone(&queue),
            Arc::clone(&grace),
            Arc::clone(&health),
        )?;
        let opened_at = clock.now();
        let store = Self {
            path: options.path.clone(),
            readers,
            writer,
            clock,
            notifier,
            queue,
            grace,
            opened_at,
            reading: Reading::default(),
            health,
            guard,
        };
        IS_COUNTED.set(true);
        let kept = store.read(|connection, _| events::kept(connection))?;
        store.notifier.committed(kept.value.last, store.next_due()?);
        Ok(store)
    }

    /// The sizes of the database file and of its write-ahead log, in bytes: 0 of what cannot be seen.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        (size(&self.path), size(Path::new(&log)))
    }

    /// Tells whoever tries to open the same file who has it.
    ///
    /// # Errors
    /// [`Error::Internal`] when the note cannot be written.
    pub fn announce(&self, address: &str) -> Result<(), Error> {
        self.guard.announce(address)
    }

    /// When this store was opened, in lease time.
    #[must_use]
    pub const fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    /// The lease clock of this database.
    #[must_use]
    pub const fn clock(&self) -> &Arc<LeaseClock> {
        &self.clock
    }

    /// What those who follow it are told.
    #[must_use]
    pub const fn notifier(&self) -> &Arc<CommitNotifier> {
        &self.notifier
    }

    /// Who waits for locks.
    #[must_use]
    pub const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Nothing is due before this.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        self.read(|connection, _| locks::next_due(connection)).map(|due| due.value)
    }

    /// Submits a use case. `work` runs inside an IMMEDIATE transaction together with others; should one of them fail,
    /// it may run again in a transaction of its own. `reply` is called with what came of it, on another thread, once
    /// that is on the disk.
    ///
    /// Never blocks. With a full queue `reply` is called at once with [`Error::Busy`].
    pub fn submit<T, W, R>(&self, work: W, reply: R)
    where
        T: Send + 'static,
        W: Fn(&Write<'_>) -> Result<T, Error> + Send + 'static,
        R: FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
    {
        let health = Arc::clone(&self.health);
        self.writer.submit(work, move |answer| {
            health.wrote(&answer);
            reply(answer);
        });
    }

    /// Whether a write found no room in the last minute. A small one may find some where a lock does not.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.health.was_full()
    }

    /// Whether the store can be read: it reads, unless a read has failed just before.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let Some(connection) = self.readers.try_get() else {
            // Others are reading, and what becomes of that is remembered.
            return !self.health.was_unreadable();
        };
        let read = events::kept(&connection);
        self.health.has_read(&read);
        !self.health.was_unreadable() && read.is_ok()
    }

    /// `tell` is called once if the file of the database, or its write-ahead log, is removed, moved or overwritten. From then
    /// on every use case is answered with [`Error::Stopping`] or [`Error::Unknown`].
    pub fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        self.health.when_gone(tell);
    }

    /// [`Self::submit`], and waits for the answer. Not for a thread that others wait for.
    ///
    /// # Errors
    /// What `work` returns, and what can keep it from being committed.
    pub fn write<T, W>(&self, work: W) -> Result<AsOf<T>, Error>
    where
        T: Send + 'static,
        W: Fn(&Write<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(work, move |answer| {
            // Nobody may be waiting any more.
            let _ = sender.send(answer);
        });
        receiver.recv().unwrap_or(Err(Error::Stopping))
    }

    /// Reads what is committed, of everything but the locks.
    ///
    /// # Errors
    /// What `read` returns, and [`Error::Internal`] when no connection came free in time: there is one for each thread
    /// that reads.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Connection, Timestamp) -> Result<T, Error>,
    ) -> Result<AsOf<T>, Error> {
        let connection = self.reader()?;
        let now = self.clock.now();
        let value = read(&connection, now);
        self.health.has_read(&value);
        Ok(AsOf { now, value: value? })
    }

    /// Reads what is committed, locks among it. When something was found that is over, and nothing on disk says so yet,
    /// this waits until something does: no crash can take back what is answered.
    ///
    /// Not for the thread that answers what was written.
    ///
    /// # Errors
    /// As [`Self::read`], and what keeps the store from writing.
    pub fn read_locks<T>(&self, work: impl FnOnce(&Read<'_>) -> Result<T, Error>) -> Result<AsOf<T>, Error> {
        let connection = self.reader()?;
        let read = Read::new(&connection, self.clock.now(), &self.grace);
        let value = work(&read);
        self.health.has_read(&value);
        let value = value?;
        let (now, over) = (read.now(), read.over());
        drop(connection);
        if over.is_some_and(|over| over > self.writer.seen()) {
            self.write(|write| {
                write.touch();
                Ok(())
            })?;
        }
        Ok(AsOf { now, value })
    }

    /// How many threads have read, and how many connections there are for them.
    #[must_use]
    pub fn readers(&self) -> (u32, u32) {
        (self.reading.threads.load(Ordering::SeqCst), self.readers.max_size())
    }

    fn reader(&self) -> Result<r2d2::PooledConnection<SqliteConnectionManager>, Error> {
        if self.health.is_gone() {
            return Err(Error::Stopping);
        }
        self.reading.count(self.readers.max_size());
        self.readers.get().map_err(|error| Error::Internal(format!("no connection to read with: {error}")))
    }

    /// Folds the write-ahead log into the database when it has grown beyond `bytes`.
    ///
    /// # Errors
    /// What SQLite could not do, [`Error::Busy`] when somebody reads from it.
    pub fn fold_log_over(&self, bytes: u64) -> Result<(), Error> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if std::fs::metadata(&log).map_or(0, |log| log.len()) <= bytes {
            return Ok(());
        }
        self.writer.fold()
    }

    /// Finishes what is queued and answers it, writes down when, and folds the write-ahead log in. Whatever is
    /// submitted later is answered with [`Error::Stopping`].
    pub fn close(&self) {
        self.writer.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
