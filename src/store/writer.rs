//! The writer: one thread that runs many use cases in one transaction.
//!
//! SQLite allows one writer at a time. So one thread owns the one connection that writes. It drains a bounded
//! channel, runs the use cases in one IMMEDIATE transaction, commits once, and only then sends the answers.
//! It never waits for more work: the next batch gathers during the commit.
//!
//! A use case that fails or panics affects only itself. Its batch is rolled back, and every use case of the
//! batch runs again in a transaction of its own. That is why use cases are `Fn`.
//!
//! A second thread sends the answers. So serializing and sending them overlaps with the next commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::commit_notifier::CommitNotifier;
use super::engine::{Engine, Work};
use super::jobs::{Answers, FinalAnswer, Job, answer, job};
use super::note::LogEntry;
use super::queue::Queue;

use super::rows::{AsOf, Changes, Keys, Reply};
use super::set::{Effects, TransactionStart, WorkingSet};
use crate::domain::Acquired;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::Clock;

/// Maximum number of use cases that wait for the writer. A further one is answered with [`Error::Busy`].
const QUEUE_LENGTH: usize = 4096;
/// Maximum number of use cases in one transaction. It limits how long the first one waits for the last.
const BATCH_SIZE: usize = 256;
/// Time without work after which the writer checks that the files are still there.
const IDLE_CHECK: Duration = Duration::from_millis(250);
/// Maximum wait at the stop for clients that do not read.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Up to this number of answers, the writer sends them itself: that takes less time than waking the other
/// thread.
const FEW_ANSWERS: usize = 2;
/// Maximum number of batches that are committed but not answered yet.
const UNANSWERED_BATCHES: usize = 4;

enum WriterMessage {
    Run(Box<dyn Job>),
    Checkpoint(SyncSender<Result<(), Error>>),
    Stop,
}

/// Handle to the writer threads.
#[derive(Debug)]
pub struct Writer {
    commands: SyncSender<WriterMessage>,
    metrics: Arc<Metrics>,
    state: Mutex<WriterState>,
}

enum WriterState {
    /// The thread that writes, which owns the engine; the thread that answers; a channel that disconnects
    /// when both have ended.
    Running(JoinHandle<Box<dyn Engine>>, JoinHandle<()>, Receiver<()>),
    /// The engine is kept until the readers are closed.
    Stopped { _engine: Option<Box<dyn Engine>> },
}

impl std::fmt::Debug for WriterState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if matches!(self, Self::Running(..)) { "Running" } else { "Stopped" })
    }
}

impl Writer {
    /// Starts the threads. `clock` measures the duration of steps.
    ///
    /// # Errors
    /// [`Error::Internal`] if the system cannot start a thread.
    pub fn start(
        engine: Box<dyn Engine>,
        clock: Clock,
        metrics: Arc<Metrics>,
        notifier: Arc<CommitNotifier>,
        queue: Arc<Queue>,
    ) -> Result<Self, Error> {
        let (commands, received) = sync_channel(QUEUE_LENGTH);
        let (done, to_answer) = sync_channel(UNANSWERED_BATCHES);
        let thread = Thread { engine, clock, metrics: Arc::clone(&metrics), notifier, queue, done };
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
        Ok(Self { commands, metrics, state: Mutex::new(WriterState::Running(writer, answerer, ended)) })
    }

    /// Submits a use case: see [`super::Store::submit`].
    pub fn submit<T, W, R>(&self, keys: Keys, work: W, reply: R)
    where
        T: Send + 'static,
        W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
        R: Reply<T>,
    {
        self.metrics.queue_depth.inc();
        let (command, error) = match self.commands.try_send(WriterMessage::Run(job(keys, work, reply))) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Error::Busy),
            Err(TrySendError::Disconnected(command)) => (command, Error::Stopping),
        };
        self.metrics.queue_depth.dec();
        if let WriterMessage::Run(job) = command {
            job.answer(Some(error));
        }
    }

    pub(super) fn checkpoint(&self) -> Result<(), Error> {
        let (sender, receiver) = sync_channel(1);
        self.commands.send(WriterMessage::Checkpoint(sender)).map_err(|_| Error::Stopping)?;
        receiver.recv().unwrap_or(Err(Error::Stopping))
    }

    /// Finishes the queued use cases, and ends the threads.
    pub fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = WriterState::Stopped { _engine: None };
        let WriterState::Running(writer, answerer, ended) = std::mem::replace(&mut *state, stopped) else {
            return;
        };
        // A client that does not read can block the answers, and so the writer. The wait for it is limited.
        let told = (0..100).any(|_| {
            let full = matches!(self.commands.try_send(WriterMessage::Stop), Err(TrySendError::Full(_)));
            if full {
                std::thread::park_timeout(STOP_TIMEOUT / 100);
            }
            !full
        });
        if !told || ended.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("a write that waits for the database is left behind; what was answered is kept");
            return;
        }
        let (engine, rest) = (writer.join(), answerer.join());
        if engine.is_err() || rest.is_err() {
            log::error!("a thread of the store had panicked");
        }
        *state = WriterState::Stopped { _engine: engine.ok() };
    }
}

/// The thread that owns the engine.
struct Thread {
    engine: Box<dyn Engine>,
    clock: Clock,
    metrics: Arc<Metrics>,
    notifier: Arc<CommitNotifier>,
    queue: Arc<Queue>,
    done: SyncSender<Answers>,
}

impl Thread {
    fn work(mut self, commands: &Receiver<WriterMessage>) -> Box<dyn Engine> {
        let mut next = None;
        loop {
            let command = match next.take().map_or_else(|| commands.recv_timeout(IDLE_CHECK), Ok) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => {
                    self.engine.idle();
                    self.engine.resolve_failed_commit();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match command {
                WriterMessage::Stop => break,
                WriterMessage::Checkpoint(reply) => {
                    // The receiver may be gone.
                    let _ = reply.send(self.engine.checkpoint());
                }
                WriterMessage::Run(job) => {
                    let mut jobs = vec![job];
                    while jobs.len() < BATCH_SIZE {
                        match commands.try_recv() {
                            Ok(WriterMessage::Run(job)) => jobs.push(job),
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
        // Use cases that arrived after the stop are answered, not dropped.
        while let Ok(command) = commands.try_recv() {
            if let WriterMessage::Run(job) = command {
                let jobs = vec![(job, Some(Error::Stopping))];
                let _ = self.done.send(Answers { jobs, ..Answers::default() });
            }
        }
        self.engine.finish();
        self.engine
    }

    /// Runs a batch, and sends its answers or hands them on.
    fn run(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let size = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        self.metrics.queue_depth.dec_by(i64::from(size));
        self.metrics.batch_size.observe(f64::from(size));
        let same = |jobs: Vec<_>, failure: Option<Error>| -> Vec<_> {
            jobs.into_iter().map(|job| (job, failure.clone())).collect()
        };
        let mut done = match self.transact(&mut jobs) {
            Ok(told) => Answers { jobs: same(jobs, None), told },
            // A batch of one needs no second run. If another process holds the database, each use case would
            // wait for the full timeout again.
            Err(error) if size == 1 || error == Error::Busy || self.engine.is_gone() => {
                Answers { jobs: same(jobs, Some(error)), told: Vec::new() }
            }
            Err(_) => self.run_one_by_one(jobs),
        };
        if !self.engine.resolve_failed_commit() {
            // A restart may find a transaction that failed, so its outcome is unknown.
            for failure in done.jobs.iter_mut().filter_map(|(_, failure)| failure.as_mut()) {
                if !matches!(failure, Error::Unknown(_)) {
                    *failure = Error::Unknown(failure.to_string());
                }
            }
        }
        self.answer(done);
        self.engine.checkpoint_if_long();
    }

    fn answer(&self, done: Answers) {
        if done.jobs.len() + done.told.len() <= FEW_ANSWERS {
            return done.answer();
        }
        // Cannot fail: the thread that answers ends after this one.
        let _ = self.done.send(done);
    }

    /// Runs each use case in a transaction of its own, after the batch failed.
    fn run_one_by_one(&mut self, jobs: Vec<Box<dyn Job>>) -> Answers {
        let mut done = Answers::default();
        for job in jobs {
            let mut alone = [job];
            let told = self.transact(&mut alone);
            let [job] = alone;
            done.jobs.push((job, told.as_ref().err().cloned()));
            done.told.extend(told.into_iter().flatten());
        }
        done
    }

    /// Runs `jobs` in one transaction, all or none. It is rolled back if one of them or the commit fails.
    /// Returns the answers for waiters.
    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Vec<FinalAnswer>, Error> {
        let Self { engine, clock, queue, .. } = self;
        let effects = engine.transact(&mut Batch { jobs, clock, queue })?;
        Ok(self.committed(effects))
    }

    /// Applies the effects of a committed transaction. Returns the answers for waiters.
    fn committed(&self, mut effects: Effects) -> Vec<FinalAnswer> {
        self.metrics.expiries.inc_by(effects.expiries);
        self.metrics.takeovers.inc_by(effects.takeovers);
        self.notifier.deleted_members(std::mem::take(&mut effects.deleted_members));
        self.notifier.committed(effects.meta.last_revision, effects.due);
        effects.log_entries.iter().for_each(LogEntry::log);
        let waited = std::mem::take(&mut effects.queue_changes.answers);
        if self.queue.commit(effects.queue_changes) {
            self.metrics.waiters.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
            self.notifier.wake();
        }
        let now = effects.now;
        let told = |outcome: Result<Acquired, Error>| outcome.map(|value| AsOf { now, value });
        waited.into_iter().map(|(waiter, outcome)| (waiter, told(outcome))).collect()
    }
}

/// Use cases that run in one transaction.
struct Batch<'b> {
    jobs: &'b mut [Box<dyn Job>],
    clock: &'b Clock,
    queue: &'b Queue,
}

impl Work for Batch<'_> {
    fn keys(&self) -> Vec<&Keys> {
        self.jobs.iter().map(|job| job.keys()).collect()
    }

    fn run(
        &mut self,
        rows: &dyn Changes,
        begin: TransactionStart,
        queue: Option<&Queue>,
    ) -> Result<Effects, Error> {
        let set = WorkingSet::new(rows, begin, self.clock, queue.unwrap_or(self.queue));
        for job in &mut *self.jobs {
            match catch_unwind(AssertUnwindSafe(|| job.run(&set))) {
                Ok(result) => result?,
                Err(_) => return Err(Error::Internal("a use case panicked".to_owned())),
            }
        }
        Ok(set.into_effects())
    }
}
