//! One writer, many use cases at a time.
//!
//! SQLite has one writer whatever one does. So one thread owns the one connection that writes: it drains a bounded
//! channel, runs what it finds in one IMMEDIATE transaction, commits once, and only then lets the answers go. It never
//! waits for more work to come: the time of a commit is the window in which the next batch gathers.
//!
//! A use case that fails, or panics, takes only itself down: its batch is rolled back and every use case of it runs
//! again in a transaction of its own. That is why they are `Fn`.
//!
//! The answers are given by a second thread, so that turning them into bytes and sending them overlaps with the next
//! commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::commit_notifier::CommitNotifier;
use super::failure::{self, Left};
use super::files::{Connected, Fold};
use super::health::Health;
use super::jobs::{Done, Job, Told, answer, job};
use super::note::Note;
use super::outside::Known;
use super::queue::Queue;
use super::write::{AsOf, Write, Written};
use crate::domain::Acquired;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::{LeaseClock, Timestamp};

/// Most use cases that wait for the writer; a further one is answered with [`Error::Busy`].
const QUEUE: usize = 4096;
/// Most use cases in one transaction, so that the first of them does not wait too long for the last.
const BATCH: usize = 256;
/// After so long without work the writer looks whether the files are still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the end waits for clients that do not read.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many answers are given at once: that takes less time than to wake the other thread.
const FEW_ANSWERS: usize = 2;
/// Most batches that are committed but not answered yet.
const UNANSWERED_BATCHES: usize = 4;

enum Command {
    Run(Box<dyn Job>),
    Fold(SyncSender<Result<(), Error>>),
    Stop,
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    commands: SyncSender<Command>,
    metrics: Arc<Metrics>,
    seen: Arc<AtomicI64>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The thread that writes has the connection; the second answers; the third says when both have ended.
    Running(JoinHandle<Connected>, JoinHandle<()>, Receiver<()>),
    /// The connection is kept until the readers are closed.
    Stopped { _connection: Option<Box<Connected>> },
}

impl Writer {
    pub(super) fn start(
        connected: Connected,
        clock: Arc<LeaseClock>,
        metrics: Arc<Metrics>,
        notifier: Arc<CommitNotifier>,
        queue: Arc<Queue>,
        grace: Arc<RestartGrace>,
        health: Arc<Health>,
    ) -> Result<Self, Error> {
        let known = Known::of(&connected.connection)?;
        // The first transaction says what is on disk.
        let seen = Arc::new(AtomicI64::new(i64::MIN));
        let (commands, received) = sync_channel(QUEUE);
        let (done, to_answer) = sync_channel(UNANSWERED_BATCHES);
        let thread = Thread {
            connected,
            clock,
            metrics: Arc::clone(&metrics),
            notifier,
            queue,
            grace,
            seen: Arc::clone(&seen),
            health,
            unsettled: false,
            known,
            done,
        };
        let failed = |error: std::io::Error| Error::Internal(format!("cannot start a thread: {error}"));
        let (running, ended) = channel::<()>();
        let until_the_end = running.clone();
        let writer = Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let _until_the_end = running;
                thread.work(&received)
            })
            .map_err(failed)?;
        let answerer = Builder::new()
            .name("answers".to_owned())
            .spawn(move || {
                let _until_the_end = until_the_end;
                answer(&to_answer);
            })
            .map_err(failed)?;
        Ok(Self { commands, metrics, seen, state: Mutex::new(State::Running(writer, answerer, ended)) })
    }

    pub(super) fn submit<T, W, R>(&self, work: W, reply: R)
    where
        T: Send + 'static,
        W: Fn(&Write<'_>) -> Result<T, Error> + Send + 'static,
        R: FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
    {
        self.metrics.queue_depth.inc();
        let (command, error) = match self.commands.try_send(Command::Run(job(work, reply))) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Error::Busy),
            Err(TrySendError::Disconnected(command)) => (command, Error::Stopping),
        };
        self.metrics.queue_depth.dec();
        if let Command::Run(job) = command {
            job.answer(Some(error));
        }
    }

    /// When the store was last there, as is written on disk.
    pub(super) fn seen(&self) -> Timestamp {
        Timestamp(self.seen.load(Ordering::SeqCst))
    }

    pub(super) fn fold(&self) -> Result<(), Error> {
        let (sender, receiver) = sync_channel(1);
        self.commands.send(Command::Fold(sender)).map_err(|_| Error::Stopping)?;
        receiver.recv().unwrap_or(Err(Error::Stopping))
    }

    pub(super) fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = State::Stopped { _connection: None };
        let State::Running(writer, answerer, ended) = std::mem::replace(&mut *state, stopped) else {
            return;
        };
        // A client that does not read can hold up the answers, and they the writer: nobody waits for it for ever.
        let told = (0..100).any(|_| {
            let full = matches!(self.commands.try_send(Command::Stop), Err(TrySendError::Full(_)));
            if full {
                std::thread::park_timeout(PATIENCE / 100);
            }
            !full
        });
        if !told || ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("a write that waits for the database is left behind; what was answered is kept");
            return;
        }
        let (connection, rest) = (writer.join(), answerer.join());
        if connection.is_err() || rest.is_err() {
            log::error!("a thread of the store had panicked");
        }
        *state = State::Stopped { _connection: connection.ok().map(Box::new) };
    }
}

/// The thread that owns the connection.
struct Thread {
    connected: Connected,
    clock: Arc<LeaseClock>,
    metrics: Arc<Metrics>,
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
    grace: Arc<RestartGrace>,
    seen: Arc<AtomicI64>,
    health: Arc<Health>,
    /// A commit failed. SQLite goes on as if it had not been there, but its pages may be whole in the log, where a restart
    /// would find them. The next commit is written over them.
    unsettled: bool,
    known: Known,
    done: SyncSender<Done>,
}

impl Thread {
    fn work(mut self, commands: &Receiver<Command>) -> Connected {
        let mut next = None;
        loop {
            let command = match next.take().map_or_else(|| commands.recv_timeout(LOOK_EVERY), Ok) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => {
                    let Connected { connection, files, .. } = &mut self.connected;
                    // Whoever comes next is told.
                    let _ = files
                        .check(connection)
                        .and_then(|()| files.check_content(connection, &mut self.known));
                    self.settle();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match command {
                Command::Stop => break,
                Command::Fold(reply) => {
                    let Connected { connection, files, .. } = &mut self.connected;
                    // Whoever asked may be gone.
                    let _ = reply.send(files.fold(connection, Fold::Whole));
                }
                Command::Run(job) => {
                    let mut jobs = vec![job];
                    while jobs.len() < BATCH {
                        match commands.try_recv() {
                            Ok(Command::Run(job)) => jobs.push(job),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.run(jobs);
                }
            }
        }
        // Whoever still came after the end was asked for is told, not forgotten.
        while let Ok(command) = commands.try_recv() {
            if let Command::Run(job) = command {
                let jobs = vec![(job, Some(Error::Stopping))];
                let _ = self.done.send(Done { jobs, ..Done::default() });
            }
        }
        self.finish()
    }

    /// Runs a batch and hands it on to be answered.
    fn run(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let size = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        self.metrics.queue_depth.dec_by(i64::from(size));
        self.metrics.batch_size.observe(f64::from(size));
        let same = |jobs: Vec<_>, failure: Option<Error>| -> Vec<_> {
            jobs.into_iter().map(|job| (job, failure.clone())).collect()
        };
        let mut done = match self.transact(&mut jobs) {
            Ok(told) => Done { jobs: same(jobs, None), told },
            // Alone it failed alone. When another process has the database, each of them would wait as long again.
            Err(error) if size == 1 || error == Error::Busy || self.health.is_gone() => {
                Done { jobs: same(jobs, Some(error)), told: Vec::new() }
            }
            Err(_) => self.each_alone(jobs),
        };
        if !self.settle() {
            // A restart may find what failed.
            for failure in done.jobs.iter_mut().filter_map(|(_, failure)| failure.as_mut()) {
                if !matches!(failure, Error::Unknown(_)) {
                    *failure = Error::Unknown(failure.to_string());
                }
            }
        }
        self.answer(done);
        let Connected { connection, files, .. } = &mut self.connected;
        files.fold_if_long(connection);
    }

    fn answer(&self, done: Done) {
        if done.jobs.len() + done.told.len() <= FEW_ANSWERS {
            return done.answer();
        }
        // The thread that answers ends after this one.
        let _ = self.done.send(done);
    }

    /// All of them together failed.
    fn each_alone(&mut self, jobs: Vec<Box<dyn Job>>) -> Done {
        let mut done = Done::default();
        for job in jobs {
            let mut alone = [job];
            let told = self.transact(&mut alone);
            let [job] = alone;
            done.jobs.push((job, told.as_ref().err().cloned()));
            done.told.extend(told.into_iter().flatten());
        }
        done
    }

    /// Writes over what commits that failed have left in the log, if they have. Returns whether it is known that a restart
    /// does not find it there.
    fn settle(&mut self) -> bool {
        if self.unsettled && !self.health.is_gone() {
            // It looks below whether that went well.
            let _ = self.transact(&mut []);
        }
        !self.unsettled
    }

    /// One transaction: all of `jobs` or none. Rolled back when one of them fails, or the commit does. Returns who of
    /// those who waited is to be told what.
    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Vec<Told>, Error> {
        let Self {
            connected,
            clock,
            metrics,
            notifier,
            queue,
            grace,
            seen,
            health,
            unsettled,
            known,
            done: _,
        } = self;
        if health.is_gone() {
            return Err(Error::Stopping);
        }
        let Connected { connection, files, floor } = connected;
        if !connection.is_autocommit() {
            // The last one could not even be rolled back.
            connection.execute_batch("ROLLBACK")?;
        }
        // What was cut from the log in between would be grown over.
        files.check(connection)?;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let writes = jobs.is_empty() || *unsettled;
        let looked = files.check_content(connection, known);
        let inside = looked.and_then(|()| Self::inside(connection, clock, queue, grace, writes, jobs));
        let outcome = inside.and_then(|written| {
            if let Some(fence) = written.fence {
                floor.cover(fence)?;
            }
            let started = clock.clock().monotonic();
            let mut commit = connection.prepare_cached("COMMIT")?;
            commit.execute([]).map_err(|error| {
                let (error, left) = failure::of_commit(error, files.guard().path());
                *unsettled = match left {
                    Left::Nothing => *unsettled,
                    Left::Part => *unsettled || !jobs.is_empty(),
                    // It is over what was there before.
                    Left::Whole => !jobs.is_empty(),
                };
                error
            })?;
            *unsettled = false;
            known.wrote(written.meta);
            metrics.commit_seconds.observe(clock.clock().monotonic().saturating_sub(started).as_secs_f64());
            // It is on disk, but in a file that may be nobody's any more.
            files.check(connection).map_err(|_| Error::Unknown("the database is gone".to_owned()))?;
            Ok(written)
        });
        match outcome {
            Ok(mut written) => {
                metrics.expiries.inc_by(written.expiries);
                metrics.takeovers.inc_by(written.takeovers);
                notifier.deleted_members(std::mem::take(&mut written.parted));
                seen.store(written.meta.last_seen_at, Ordering::SeqCst);
                notifier.committed(written.meta.last_revision, written.due);
                written.notes.iter().for_each(Note::log);
                let waited = std::mem::take(&mut written.moved.told);
                if queue.commit(written.moved) {
                    metrics.waiters.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
                    notifier.wake();
                }
                let by = written.meta.wall_offset_ms.saturating_sub(clock.wall_offset_ms());
                if by != 0 {
                    clock.set_wall_offset_ms(written.meta.wall_offset_ms);
                    metrics.clock_corrections.inc();
                    log::warn!(
                        "the wall clock was set by {by} ms: what is left of each lease stays, what is shown moves along"
                    );
                }
                let now = written.now;
                let told = |outcome: Result<Acquired, Error>| outcome.map(|value| AsOf { now, value });
                Ok(waited.into_iter().map(|(waiter, outcome)| (waiter, told(outcome))).collect())
            }
            Err(error) => {
                // Some errors have rolled back already (a full disk, say).
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    /// What happens between BEGIN and COMMIT.
    fn inside(
        connection: &Connection,
        clock: &LeaseClock,
        queue: &Queue,
        grace: &RestartGrace,
        writes: bool,
        jobs: &mut [Box<dyn Job>],
    ) -> Result<Written, Error> {
        let write = Write::begin(connection, clock, queue, grace)?;
        if writes {
            write.touch();
        }
        for job in jobs {
            match catch_unwind(AssertUnwindSafe(|| job.run(&write))) {
                Ok(result) => result?,
                Err(_) => return Err(Error::Internal("a use case panicked".to_owned())),
            }
        }
        write.end()
    }

    /// Writes down when the server stopped, and leaves one tidy file behind.
    fn finish(mut self) -> Connected {
        let written = self.transact(&mut []);
        let Connected { connection, files, floor } = &mut self.connected;
        let folded = written.and_then(|_| files.fold(connection, Fold::Last));
        if self.health.is_gone() {
            // Nor is anything written when the connection is closed.
            if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
                log::warn!("the write-ahead log may be folded in at the end: {error}");
            }
        } else if let Err(error) = folded {
            log::warn!("the write-ahead log was not folded in: {error}; the next start does it");
        }
        if let Err(error) = floor.settle() {
            log::warn!("the fence floor stays ahead of the last fence: {error}");
        }
        self.connected
    }
}
