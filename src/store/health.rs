//! Known faults of the store: full disk, unreadable disk, lost files.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lock;
use crate::error::Error;
use crate::time::Clock;

/// After a write failed because the disk was full, the disk counts as full for this time.
const FULL: Duration = Duration::from_secs(60);
/// After a read failed, the store counts as unreadable for this time.
const UNREADABLE: Duration = Duration::from_secs(10);
/// After a database on another machine has not answered for this time, it counts as away. If writes may wait longer than
/// by default, it is three fifths of that time.
const AWAY: Duration = Duration::from_secs(3);

/// The known faults of the store.
pub(super) struct Health {
    clock: Clock,
    away_after: Duration,
    /// When a write last failed because the disk was full, on the monotonic clock.
    full: Mutex<Option<Duration>>,
    /// When a read last failed because of the disk, on the monotonic clock.
    unreadable: Mutex<Option<Duration>>,
    /// From when on a database on another machine counts as away, on the clock of this machine.
    away_from: Mutex<Option<Duration>>,
    /// The clock of this machine. A network is not faster because a manual clock is moved.
    system: Clock,
    gone: AtomicBool,
    tell: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Health").field("gone", &self.gone).finish_non_exhaustive()
    }
}

impl Health {
    /// `busy_timeout` is how long a write may wait.
    pub(super) fn new(clock: Clock, busy_timeout: Duration) -> Self {
        let (full, unreadable, away_from) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (system, gone, tell) = (Clock::system(), AtomicBool::new(false), Mutex::default());
        let away_after = AWAY.max(busy_timeout * 3 / 5);
        Self { clock, away_after, full, unreadable, away_from, system, gone, tell }
    }

    /// Records the outcome of a use case.
    pub(super) fn wrote<T>(&self, outcome: &Result<T, Error>) {
        if matches!(outcome, Err(Error::StorageFull)) {
            *lock(&self.full) = Some(self.clock.monotonic());
        }
        // A write reads rows before it commits, so its outcome also says whether reads work.
        self.has_read(outcome);
    }

    /// Records the outcome of a read.
    pub(super) fn has_read<T>(&self, outcome: &Result<T, Error>) {
        if matches!(outcome, Err(Error::Disk(_))) {
            self.cannot_read();
        }
    }

    /// Records that a read failed because of the disk.
    pub(super) fn cannot_read(&self) {
        *lock(&self.unreadable) = Some(self.clock.monotonic());
    }

    /// Records that a database on another machine was asked.
    pub(super) fn asked(&self) {
        lock(&self.away_from).get_or_insert_with(|| self.system.monotonic() + self.away_after);
    }

    /// Records that it cannot be reached.
    pub(super) fn lost(&self) {
        *lock(&self.away_from) = Some(Duration::ZERO);
    }

    /// Records that it has answered.
    pub(super) fn answered(&self) {
        *lock(&self.away_from) = None;
    }

    /// Whether the database on another machine cannot be reached, or has not answered for a while. Then nothing is asked
    /// but whether it is back.
    pub(super) fn is_away(&self) -> bool {
        lock(&self.away_from).is_some_and(|from| self.system.monotonic() >= from)
    }

    pub(super) fn was_full(&self) -> bool {
        self.is_recent(&self.full, FULL)
    }

    pub(super) fn was_unreadable(&self) -> bool {
        self.is_recent(&self.unreadable, UNREADABLE)
    }

    fn is_recent(&self, at: &Mutex<Option<Duration>>, within: Duration) -> bool {
        lock(at).is_some_and(|at| self.clock.monotonic() < at + within)
    }

    /// Whether the files are no longer those that were opened. From then on the store does not read or write.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        if let Some(tell) = lock(&self.tell).take() {
            tell();
        }
    }

    /// Calls `tell` once when the files are gone, or at once if they are gone already.
    pub(super) fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        *lock(&self.tell) = Some(Box::new(tell));
        if self.is_gone()
            && let Some(tell) = lock(&self.tell).take()
        {
            tell();
        }
    }
}
