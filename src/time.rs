//! Time: the instants and durations of leases, and the only code that reads a clock.
//!
//! There are two clocks, with separate types:
//!
//! - The **lease clock** ([`Timestamp`]) only moves forward, at the speed of the monotonic clock. It decides
//!   whether a lease has expired. The stored times of a lease are lease time.
//! - The **wall clock** ([`WallTime`]) is for times that people read. NTP or an operator may set it.
//!
//! The difference between the two is one number, the *wall offset*, kept in memory and in the database. When
//! the wall clock is set, only that number changes, however many locks there are. The *remaining* time of
//! every lease stays the same, and the displayed times are correct again.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

/// The greatest difference between wall clock and lease clock that is not a set wall clock (milliseconds).
///
/// Smaller differences come from the slewing of NTP, and from reading the two clocks one after the other.
pub const WALL_TOLERANCE_MS: i64 = 1_000;

/// An instant on the lease clock, in milliseconds.
///
/// Instants of the same database are comparable, also across restarts. To show one to people, convert it with
/// [`LeaseClock::wall_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant plus `ttl`.
    #[must_use]
    pub const fn plus(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.0))
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An instant of the wall clock: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

impl WallTime {
    /// Formats the time as RFC 3339 in UTC with milliseconds: `2026-11-23T10:42:13.125Z`.
    ///
    /// A time outside the range of the calendar is formatted as the start of 1970.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_millis(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// The duration of a lease: whole milliseconds, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(i64);

impl Ttl {
    /// A duration of `milliseconds`. A negative value becomes 0.
    #[must_use]
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self(if milliseconds < 0 { 0 } else { milliseconds })
    }

    /// The whole milliseconds of `duration`, at most `i64::MAX`.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// The duration in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

/// Time since the machine was started, including the time that it was suspended. All processes of the machine read the
/// same.
#[must_use]
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let milliseconds = now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000);
    Duration::from_millis(milliseconds.unsigned_abs())
}

/// The source of time: the machine, or a test.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's monotonic and wall clocks.
    System(Instant),
    /// Clocks that move only when a test moves them.
    Manual(Arc<ManualClock>),
}

impl Clock {
    /// Reads the machine's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn system() -> Self {
        Self::System(Instant::now())
    }

    /// Manual clocks that start at `wall`.
    #[must_use]
    pub fn standing_at(wall: WallTime) -> Self {
        Self::Manual(ManualClock::starting_at(wall))
    }

    /// Monotonic time since an arbitrary start. It never goes back, even when the wall clock is set.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn monotonic(&self) -> Duration {
        match self {
            Self::System(start) => start.elapsed(),
            Self::Manual(clock) => {
                Duration::from_millis(clock.monotonic_ms.load(Ordering::SeqCst).unsigned_abs())
            }
        }
    }

    /// Registers a callback for each time that [`ManualClock::advance`] moves manual clocks.
    ///
    /// A thread that waits for a time on these clocks is woken by it. The machine's clocks never call it.
    pub fn when_moved(&self, wake: impl Fn() + Send + 'static) {
        match self {
            Self::System(_) => {}
            Self::Manual(clock) => {
                clock.moved.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
            }
        }
    }

    /// The monotonic clock, and the wall clock in microseconds since 1970, at one moment. Manual clocks are not
    /// moved in between.
    #[must_use]
    pub fn both(&self) -> (Duration, i64) {
        let monotonic = self.monotonic();
        let wall_micros = match self {
            Self::System(_) => self.wall_micros(),
            Self::Manual(clock) => clock.wall_micros_at(Ttl::from_duration(monotonic).as_millis()),
        };
        (monotonic, wall_micros)
    }

    /// The wall clock now. A clock that is set before 1970 reads as 1970.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        WallTime(self.wall_micros() / 1_000)
    }

    /// The wall clock now, in microseconds since 1970. It is the lower bound of the next fence.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn wall_micros(&self) -> i64 {
        match self {
            Self::System(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            Self::Manual(clock) => clock.wall_micros_at(clock.monotonic_ms.load(Ordering::SeqCst)),
        }
    }
}

/// Manual clocks: they stand still until they are moved. For tests, and for checks of a stopped database.
#[derive(Default)]
pub struct ManualClock {
    monotonic_ms: AtomicI64,
    /// How far the wall clock is ahead of the monotonic one.
    ahead_ms: AtomicI64,
    moved: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ManualClock")
            .field("monotonic_ms", &self.monotonic_ms)
            .finish_non_exhaustive()
    }
}

impl ManualClock {
    /// Manual clocks that start at `wall`.
    #[must_use]
    pub fn starting_at(wall: WallTime) -> Arc<Self> {
        Arc::new(Self { ahead_ms: AtomicI64::new(wall.0), ..Self::default() })
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let milliseconds = Ttl::from_duration(by).as_millis();
        self.monotonic_ms.fetch_add(milliseconds, Ordering::SeqCst);
        for moved in self.moved.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            moved();
        }
    }

    /// Sets the wall clock forward, or back if negative, by `milliseconds`. The monotonic clock stays.
    pub fn set_wall_by(&self, milliseconds: i64) {
        self.ahead_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    fn wall_micros_at(&self, monotonic_ms: i64) -> i64 {
        monotonic_ms.saturating_add(self.ahead_ms.load(Ordering::SeqCst)).saturating_mul(1_000)
    }
}

/// The lease clock: an anchor, read when the store was opened, plus the monotonic time since then.
///
/// With PostgreSQL the anchor follows the clock of the database: see [`Self::follow`].
#[derive(Debug)]
pub struct LeaseClock {
    clock: Clock,
    /// Lease time when the monotonic clock was at its start (microseconds).
    anchor_us: AtomicI64,
    /// The latest lease time that was read.
    latest: AtomicI64,
    wall_offset_ms: AtomicI64,
}

impl LeaseClock {
    /// Resumes lease time after a restart, by the wall clock and the stored `last_seen` and `wall_offset_ms`.
    ///
    /// Lease time never goes back. A wall clock behind `last_seen` was set back in the meantime. Then lease
    /// time continues from `last_seen`, and the wall offset changes instead.
    #[must_use]
    pub fn resume(clock: Clock, last_seen: Timestamp, wall_offset_ms: i64) -> Self {
        // Time that passes in between would be lost from lease time.
        let (anchored_at, wall_micros) = clock.both();
        let (anchor, wall_offset_ms) = go_on(last_seen, wall_offset_ms, WallTime(wall_micros / 1_000));
        Self::anchored(clock, anchor, anchored_at, wall_offset_ms)
    }

    /// Begins at `now`, for a store that has its own wall clock. The wall clock of this machine has no effect.
    #[must_use]
    pub fn starting_at(clock: Clock, now: Timestamp) -> Self {
        let anchored_at = clock.monotonic();
        Self::anchored(clock, now, anchored_at, 0)
    }

    fn anchored(clock: Clock, anchor: Timestamp, at: Duration, wall_offset_ms: i64) -> Self {
        Self {
            clock,
            anchor_us: AtomicI64::new(anchor.0.saturating_mul(1_000).saturating_sub(micros(at))),
            latest: AtomicI64::new(anchor.0),
            wall_offset_ms: AtomicI64::new(wall_offset_ms),
        }
    }

    /// Lease time now. It never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since = micros(self.clock.monotonic());
        let now = self.anchor_us.load(Ordering::SeqCst).saturating_add(since).div_euclid(1_000);
        Timestamp(self.latest.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// Sets lease time to `now`, as the database has it. If a later time was read before, lease time stands
    /// still until then.
    pub fn follow(&self, now: Timestamp) {
        let since = micros(self.clock.monotonic());
        self.anchor_us.store(now.0.saturating_mul(1_000).saturating_sub(since), Ordering::SeqCst);
        self.latest.fetch_max(now.0, Ordering::SeqCst);
    }

    /// The wall time of `at`.
    #[must_use]
    pub fn wall_at(&self, at: Timestamp) -> WallTime {
        WallTime(at.0.saturating_add(self.wall_offset_ms()))
    }

    /// The wall offset: wall time minus lease time, in milliseconds.
    #[must_use]
    pub fn wall_offset_ms(&self) -> i64 {
        self.wall_offset_ms.load(Ordering::SeqCst)
    }

    /// The new wall offset, if the wall clock was set.
    ///
    /// The wall clock was set if it differs from lease time plus the wall offset by more than
    /// [`WALL_TOLERANCE_MS`].
    #[must_use]
    pub fn wall_was_set(&self) -> Option<i64> {
        let asked = self.clock.wall().0.saturating_sub(self.now().0);
        let by = asked.saturating_sub(self.wall_offset_ms());
        (by.saturating_abs() > WALL_TOLERANCE_MS).then_some(asked)
    }

    /// Sets the wall offset in memory. The caller must store it first.
    pub fn set_wall_offset_ms(&self, wall_offset_ms: i64) {
        self.wall_offset_ms.store(wall_offset_ms, Ordering::SeqCst);
    }

    /// The underlying clock, for measuring durations.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The lease time and the wall offset after a restart at which the wall clock shows `wall`.
const fn go_on(last_seen: Timestamp, wall_offset_ms: i64, wall: WallTime) -> (Timestamp, i64) {
    let by_the_wall = wall.0.saturating_sub(wall_offset_ms);
    if by_the_wall >= last_seen.0 {
        (Timestamp(by_the_wall), wall_offset_ms)
    } else {
        (last_seen, wall.0.saturating_sub(last_seen.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: WallTime = WallTime(1_795_435_200_000);

    fn lease_clock(manual: &Arc<ManualClock>) -> LeaseClock {
        LeaseClock::resume(Clock::Manual(Arc::clone(manual)), Timestamp(0), 0)
    }

    #[test]
    fn both_clocks_are_read_at_one_moment() {
        let manual = ManualClock::starting_at(NOON);
        let clock = Clock::Manual(Arc::clone(&manual));
        let moves =
            std::thread::spawn(move || (0..10_000).for_each(|_| manual.advance(Duration::from_secs(3))));
        while !moves.is_finished() {
            let (monotonic, wall_micros) = clock.both();
            assert_eq!(wall_micros / 1_000 - NOON.0, Ttl::from_duration(monotonic).as_millis());
        }
        moves.join().unwrap();
    }

    #[test]
    fn lease_time_follows_the_monotonic_clock() {
        let manual = ManualClock::starting_at(NOON);
        let clock = lease_clock(&manual);
        let start = clock.now();
        manual.set_wall_by(3_600_000);
        assert_eq!(clock.now(), start);
        manual.set_wall_by(-7_200_000);
        assert_eq!(clock.now(), start);
        manual.advance(Duration::from_secs(2));
        assert_eq!(clock.now().since(start), 2_000);
    }

    #[test]
    fn clock_jumps_are_corrected_and_drift_is_ignored() {
        let manual = ManualClock::starting_at(NOON);
        let clock = lease_clock(&manual);
        manual.set_wall_by(WALL_TOLERANCE_MS);
        assert_eq!(clock.wall_was_set(), None);
        manual.set_wall_by(1);
        assert_eq!(clock.wall_was_set(), Some(WALL_TOLERANCE_MS + 1));
        manual.set_wall_by(-1 - WALL_TOLERANCE_MS - 60_000);
        let asked = clock.wall_was_set().unwrap();
        clock.set_wall_offset_ms(asked);
        assert_eq!(clock.wall_was_set(), None);
        assert_eq!(clock.wall_at(clock.now()), WallTime(NOON.0 - 60_000));
    }

    #[test]
    fn downtime_counts_and_never_turns_lease_time_back() {
        assert_eq!(go_on(Timestamp(1_000), 0, WallTime(5_000)), (Timestamp(5_000), 0));
        assert_eq!(go_on(Timestamp(1_000), 0, WallTime(400)), (Timestamp(1_000), -600));
        // The wall clock is corrected while the server is down again. This counts as time that passed.
        assert_eq!(go_on(Timestamp(1_500), -600, WallTime(3_000)), (Timestamp(3_600), -600));
    }

    #[test]
    fn timestamps_are_shown_as_rfc_3339_with_milliseconds() {
        assert_eq!(WallTime(1_795_430_533_125).to_rfc3339(), "2026-11-23T10:42:13.125Z");
        assert_eq!(WallTime(i64::MAX).to_rfc3339(), "1970-01-01T00:00:00.000Z");
    }
}
