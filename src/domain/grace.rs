//! Restart grace: extends leases that were live when the server stopped. While the server was down, the
//! holders could not send heartbeats.
//!
//! A start does not write to the leases, so its cost does not depend on their number. It stores a few
//! numbers, and the end of a lease is computed from them on read. A lease that had ended when a server was
//! last seen stays ended.

use crate::time::{Timestamp, Ttl};

/// Maximum number of stored restarts. Only a server with more restarts within one grace period exceeds it.
/// Then leases that were not renewed since the oldest restart lose their grace. No ended lease becomes live
/// again.
const MAX_RESTARTS: usize = 100;

/// Number of a server run on a database, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run(pub i64);

/// Server start, as it affects leases from earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The run that this start began.
    pub run: Run,
    /// When a server was last seen before this start. What had ended by then stays ended.
    pub last_seen: Timestamp,
    /// End of the grace. What was live at `last_seen` does not end earlier.
    pub grace_ends: Timestamp,
}

/// Restarts that still affect leases, as known to the current run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartGrace {
    run: Run,
    /// Oldest first.
    restarts: Vec<Restart>,
}

impl RestartGrace {
    /// Grace for a server start at `now` with a duration of `grace`. `recorded` are the stored restarts,
    /// oldest first.
    #[must_use]
    pub fn at_start(
        recorded: Vec<Restart>,
        run: Run,
        last_seen: Timestamp,
        now: Timestamp,
        grace: Ttl,
    ) -> Self {
        // A restart is dropped if its grace was over when the server was last seen. It is kept if a later
        // kept restart extends its grace: a lease that is live by the first grace is live by the second.
        let mut kept: Vec<Restart> = Vec::new();
        for restart in recorded.into_iter().rev() {
            let is_lengthened = kept.iter().any(|later| restart.grace_ends > later.last_seen);
            if is_lengthened || restart.grace_ends > last_seen {
                kept.push(restart);
            }
        }
        kept.reverse();
        let mut recorded = kept;
        if grace.as_millis() > 0 {
            recorded.push(Restart { run, last_seen, grace_ends: now.plus(grace) });
        }
        let too_many = recorded.len().saturating_sub(MAX_RESTARTS);
        Self { run, restarts: recorded.split_off(too_many) }
    }

    /// The grace of restarts that another server has recorded, as of `run`. They are in order, oldest first.
    #[must_use]
    pub const fn recorded(restarts: Vec<Restart>, run: Run) -> Self {
        Self { run, restarts }
    }

    /// Grace without any restart, for a store without leases.
    #[must_use]
    pub const fn none() -> Self {
        Self { run: Run(0), restarts: Vec::new() }
    }

    /// The current run.
    #[must_use]
    pub const fn run(&self) -> Run {
        self.run
    }

    /// Restarts that still affect leases, oldest first.
    #[must_use]
    pub fn restarts(&self) -> &[Restart] {
        &self.restarts
    }

    /// Effective due time of something that run `set_in` scheduled for `at`.
    #[must_use]
    pub fn apply(&self, set_in: Run, at: Timestamp) -> Timestamp {
        self.restarts
            .iter()
            .filter(|restart| set_in < restart.run)
            .fold(at, |at, restart| if at > restart.last_seen { at.max(restart.grace_ends) } else { at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Ttl = Ttl::from_millis(30_000);

    fn start(before: &[Restart], run: i64, last_seen: i64, now: i64) -> RestartGrace {
        RestartGrace::at_start(before.to_vec(), Run(run), Timestamp(last_seen), Timestamp(now), GRACE)
    }

    fn end(grace: &RestartGrace, set_in: i64, at: i64) -> i64 {
        grace.apply(Run(set_in), Timestamp(at)).0
    }

    #[test]
    fn live_leases_get_the_grace_and_ended_ones_stay_ended() {
        let grace = start(&[], 2, 1_000, 5_000);
        assert_eq!(end(&grace, 1, 1_000), 1_000, "exactly at its end it was over");
        assert_eq!(end(&grace, 1, 1_001), 35_000);
        assert_eq!(end(&grace, 1, 90_000), 90_000, "the grace is no more than a least");
        assert_eq!(end(&grace, 2, 5_001), 5_001, "what began since is not stretched");
    }

    #[test]
    fn two_restarts_within_one_grace_neither_shorten_nor_revive_leases() {
        let first = start(&[], 2, 1_000, 5_000);
        let second = start(first.restarts(), 3, 10_000, 12_000);
        assert_eq!(end(&second, 1, 1_500), 42_000, "alive by the first grace, and by the second");
        assert_eq!(end(&second, 1, 900), 900, "over before the first");
        assert_eq!(end(&second, 2, 9_000), 9_000, "begun in between, and over before the second");
        assert_eq!(end(&second, 2, 10_001), 42_000);
        let third = start(second.restarts(), 4, 50_000, 60_000);
        assert_eq!(third.restarts().len(), 1, "what matters no more is forgotten");
        assert_eq!(end(&third, 1, 1_500), 1_500, "over before the third, whatever kept it alive until then");
    }

    #[test]
    fn an_extended_grace_outlives_its_first_part() {
        let first = start(&[], 2, 1_000, 5_000);
        let second = start(first.restarts(), 3, 34_000, 36_000);
        let third = start(second.restarts(), 4, 40_000, 41_000);
        assert_eq!(end(&third, 1, 1_500), 71_000, "alive until 35 s, then until 66 s, then until 71 s");
    }

    #[test]
    fn only_the_last_restarts_are_kept_and_no_lease_is_revived() {
        let mut grace = start(&[], 1, 0, 0);
        for run in 2..300 {
            grace = start(grace.restarts(), run, run * 10, run * 10 + 1);
        }
        assert_eq!(grace.restarts().len(), MAX_RESTARTS);
        assert!(end(&grace, 298, 2_995) > 3_000, "the latest have their grace");
        assert_eq!(end(&grace, 0, 5), 5, "it was alive until the oldest was forgotten");
        assert_eq!(end(&grace, 298, 2_990), 2_990);
    }
}
