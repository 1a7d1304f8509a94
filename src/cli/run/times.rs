//! The times of a lease: until when a command may run, as a pure function of the last renewal.

use std::time::Duration;

/// The default of `--kill-after`.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// The limit of the time that is kept free before the end of a lease, for a KILL to take effect.
const MAX_MARGIN: Duration = Duration::from_millis(500);

/// When a command must be stopped, unless the lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are instants, in order")]
pub(super) struct Times {
    /// When the heartbeat was sent that renewed the lease.
    pub(super) sent_at: Duration,
    /// When the group gets TERM.
    pub(super) term_at: Duration,
    /// When the group gets KILL.
    pub(super) kill_at: Duration,
    /// When the guard kills the group by itself.
    pub(super) guard_at: Duration,
    /// When the lease ends.
    pub(super) ends_at: Duration,
}

impl Times {
    /// The times of a lease of which `expires_in` was left after `sent_at`.
    ///
    /// The server counts from when it received the heartbeat, which is later than `sent_at`. A thousandth is taken off,
    /// because the clocks of two machines do not run equally fast.
    pub(super) fn of(sent_at: Duration, expires_in: Duration, kill_after: Option<Duration>) -> Self {
        let usable = expires_in.saturating_sub(expires_in / 1_000);
        let margin = (usable / 10).min(MAX_MARGIN);
        // With a short lease, most of it must be left for the heartbeats.
        let kill_after =
            kill_after.map_or_else(|| KILL_AFTER.min(usable / 4), |after| after.min(usable * 2 / 3));
        let ends_at = sent_at + usable;
        let guard_at = ends_at.saturating_sub(margin);
        let kill_at = guard_at.saturating_sub(margin);
        Self { sent_at, term_at: kill_at.saturating_sub(kill_after), kill_at, guard_at, ends_at }
    }

    /// The time between two heartbeats. Two of them may be lost.
    pub(super) fn interval(&self) -> Duration {
        self.term_at.saturating_sub(self.sent_at) / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_killed_before_the_lease_ends_and_terminated_before_that() {
        let at = Duration::from_secs(1_000);
        for (lease, kill_after) in [
            (1_000, None),
            (1_000, Some(0)),
            (2_000, Some(60_000)),
            (30_000, None),
            (30_000, Some(10_000)),
            (86_400_000, None),
            (0, None),
        ] {
            let lease = Duration::from_millis(lease);
            let times = Times::of(at, lease, kill_after.map(Duration::from_millis));
            let Times { sent_at, term_at, kill_at, guard_at, ends_at } = times;
            assert!(sent_at <= term_at && term_at <= kill_at && kill_at <= guard_at, "{times:?}");
            assert!(guard_at <= ends_at && ends_at <= at + lease, "{times:?}");
            assert!(term_at >= sent_at + lease / 10, "{times:?}");
        }
        let times = Times::of(at, Duration::from_secs(30), None);
        assert_eq!(times.kill_at, times.term_at + Duration::from_secs(5));
        assert!(times.ends_at <= times.term_at + Duration::from_secs(6), "{times:?}");
        let times = Times::of(at, Duration::from_secs(4), Some(Duration::from_secs(2)));
        assert_eq!(times.kill_at, times.term_at + Duration::from_secs(2));
    }
}
