//! The store: where the rows are kept, and how use cases get at them.
//!
//! A use case that changes something works on a [`WorkingSet`], inside a transaction of the one writer (`writer.rs`), which
//! runs many of them together. It sees rows ([`Rows`], [`Changes`]), never a connection. What answers the row functions is
//! an [`engine::Engine`]; SQLite is one, and all SQL is in [`sqlite`]. Reads see what is committed.

pub mod commit_notifier;
pub mod engine;
mod health;
mod jobs;
pub mod listing;
mod note;
pub mod pace;
pub mod queue;
mod rows;
mod set;
pub mod sqlite;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use crate::domain::waitlist::WaitlistLimits;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::{Clock, LeaseClock, Timestamp};
use commit_notifier::CommitNotifier;
use health::Health;
use queue::Queue;
pub use rows::{AsOf, Changes, Kept, Keys, Rows, Visit};
pub use set::{Begin, Effects, Meta, Step, WorkingSet};
use sqlite::{Guard, Opened, Readers, Time};

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
    pub waiters: WaitlistLimits,
}

/// An open database: one writer, some readers.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    // Dropped in this order: the last connection to close is one that may remove the write-ahead log.
    readers: Readers,
    writer: writer::Writer,
    clock: Arc<LeaseClock>,
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
    health: Arc<Health>,
    // Closed after SQLite has closed the database.
    guard: Arc<Guard>,
}

impl Store {
    /// Opens the database, and makes it if it is not there. What was alive when the last server stopped gets its
    /// restart grace.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator: another server has the file, it is not Lockhouse's, it
    /// was made by a newer version, it is damaged, or the disk refuses.
    pub fn open(options: &Options, clock: Clock, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        Self::open_at(options, metrics, Time::Runs(clock))
    }

    /// The same with a clock that stands still where the last server stopped: nothing has ended since.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as_it_stopped(options: &Options, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        Self::open_at(options, metrics, Time::StandsStill)
    }

    fn open_at(options: &Options, metrics: &Arc<Metrics>, time: Time) -> Result<Self, Error> {
        let Opened { engine, readers, clock, health, guard } = sqlite::open(options, metrics, time)?;
        let notifier = Arc::new(CommitNotifier::default());
        let queue = Arc::new(Queue::new(options.waiters));
        let writer = writer::Writer::start(
            Box::new(engine),
            clock.clock().clone(),
            Arc::clone(metrics),
            Arc::clone(&notifier),
            Arc::clone(&queue),
        )?;
        Readers::do_not_count_this_thread();
        let path = guard.path().to_owned();
        let store = Self { path, readers, writer, clock, notifier, queue, health, guard };
        let (last, due) = store.read(|rows| Ok((rows.kept()?.last, rows.next_check()?)))?.value;
        store.notifier.committed(last, due);
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

    /// Leaves a note beside the database for the next one who tries to open it: who has it, and on which address.
    ///
    /// # Errors
    /// [`Error::Internal`] when the note cannot be written.
    pub fn announce(&self, address: &str) -> Result<(), Error> {
        self.guard.announce(address)
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
    /// What the engine refuses.
    pub fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        self.read(|rows| rows.next_check()).map(|due| due.value)
    }

    /// Submits a use case, which will touch `keys`. `work` runs inside a transaction together with others; it may run again.
    /// `reply` is called with what came of it, on another thread, once that is on the disk.
    ///
    /// Never blocks. With a full queue `reply` is called at once with [`Error::Busy`].
    pub fn submit<T, W, R>(&self, keys: Keys, work: W, reply: R)
    where
        T: Send + 'static,
        W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
        R: FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
    {
        let health = Arc::clone(&self.health);
        self.writer.submit(keys, work, move |answer| {
            health.wrote(&answer);
            reply(answer);
        });
    }

    /// Submits a use case that names no keys, and waits for the answer. Not for a thread that others wait for.
    ///
    /// # Errors
    /// What `work` returns, and what can keep it from being committed.
    pub fn write<T, W>(&self, work: W) -> Result<AsOf<T>, Error>
    where
        T: Send + 'static,
        W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(Keys::default(), work, move |answer| {
            // Nobody may be waiting any more.
            let _ = sender.send(answer);
        });
        receiver.recv().unwrap_or(Err(Error::Stopping))
    }

    /// Whether a write found no room in the last minute. A small one may find some where a lock does not.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.health.was_full()
    }

    /// Whether the store can be read: it reads, unless a read has failed just before.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readers.works()
    }

    /// `tell` is called once if the file of the database, or its write-ahead log, is removed, moved or overwritten. From then
    /// on every use case is answered with [`Error::Stopping`] or [`Error::Unknown`].
    pub fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        self.health.when_gone(tell);
    }

    /// Reads what is committed. When a lock was found that is over, and nothing on disk says so yet, this waits until something
    /// does: no crash can take back what is answered.
    ///
    /// With locks, not for the thread that answers what was written.
    ///
    /// # Errors
    /// What `work` returns, what keeps the store from writing, and [`Error::Internal`] when no connection came free in time:
    /// there is one for each thread that reads.
    pub fn read<T>(&self, work: impl FnOnce(&dyn Rows) -> Result<T, Error>) -> Result<AsOf<T>, Error> {
        let found = self.readers.read(work)?;
        if found.is_ahead_of_disk {
            self.write(|set| {
                set.touch();
                Ok(())
            })?;
        }
        Ok(found.as_of)
    }

    /// How many threads have read, and how many connections there are for them.
    #[must_use]
    pub fn readers(&self) -> (u32, u32) {
        self.readers.count()
    }

    /// Folds the write-ahead log into the database when it has grown beyond `bytes`.
    ///
    /// # Errors
    /// What SQLite could not do, [`Error::Busy`] when somebody reads from it.
    pub fn fold_log_over(&self, bytes: u64) -> Result<(), Error> {
        if self.sizes().1 <= bytes { Ok(()) } else { self.writer.fold() }
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
