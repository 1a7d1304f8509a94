//! Restart grace: a lease that was alive when the server stopped has a while left when it starts again, because its holder
//! had no server to send a heartbeat to.
//!
//! A start writes nothing into the leases, whether there is one or a million. It leaves a few numbers, and the end of a
//! lease is worked out from them when it is read. A lease that had ended when a server was last seen stays ended.

use crate::time::{Timestamp, Ttl};

/// Most restarts that are remembered. Only a server that starts so often within one grace has more; then leases that were
/// not renewed since the oldest of them lose their grace. None comes back.
const MOST_RESTARTS: usize = 100;

/// The number of a server's run on a database, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run(pub i64);

/// A start of the server, for the leases that were written in the runs before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The run that began with it.
    pub run: Run,
    /// When a server was last seen before. What was over by then stays over.
    pub last_seen: Timestamp,
    /// What was not over then is not over before this.
    pub grace_ends: Timestamp,
}

/// The grace of the restarts that still matter, as the current run knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartGrace {
    run: Run,
    /// The oldest first.
    restarts: Vec<Restart>,
}

impl RestartGrace {
    /// A server starts at `now` and gives this much `grace`. `recorded` are the restarts that are on record, oldest first.
    #[must_use]
    pub fn at_start(
        recorded: Vec<Restart>,
        run: Run,
        last_seen: Timestamp,
        now: Timestamp,
        grace: Ttl,
    ) -> Self {
        // Forgotten are those whose grace was over when the server was last seen, unless a later one that is kept has
        // lengthened it: a lease that was alive by the first grace is alive by the second.
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
        let too_many = recorded.len().saturating_sub(MOST_RESTARTS);
        Self { run, restarts: recorded.split_off(too_many) }
    }

    /// For what has no leases.
    #[must_use]
    pub const fn none() -> Self {
        Self { run: Run(0), restarts: Vec::new() }
    }

    /// The current run.
    #[must_use]
    pub const fn run(&self) -> Run {
        self.run
    }

    /// The restarts that matter, the oldest first.
    #[must_use]
    pub fn restarts(&self) -> &[Restart] {
        &self.restarts
    }

    /// When that is due which was set for `at` in the run `set_in`.
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
    fn what_was_alive_has_a_while_left_and_what_was_over_stays_over() {
        let grace = start(&[], 2, 1_000, 5_000);
        assert_eq!(end(&grace, 1, 1_000), 1_000, "exactly at its end it was over");
        assert_eq!(end(&grace, 1, 1_001), 35_000);
        assert_eq!(end(&grace, 1, 90_000), 90_000, "the grace is no more than a least");
        assert_eq!(end(&grace, 2, 5_001), 5_001, "what began since is not stretched");
    }

    #[test]
    fn two_restarts_within_one_grace_take_nothing_away_and_bring_nothing_back() {
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
    fn a_grace_that_was_lengthened_is_not_forgotten_when_its_first_part_is_over() {
        let first = start(&[], 2, 1_000, 5_000);
        let second = start(first.restarts(), 3, 34_000, 36_000);
        let third = start(second.restarts(), 4, 40_000, 41_000);
        assert_eq!(end(&third, 1, 1_500), 71_000, "alive until 35 s, then until 66 s, then until 71 s");
    }

    #[test]
    fn of_a_great_many_restarts_the_last_are_remembered_and_nothing_comes_back() {
        let mut grace = start(&[], 1, 0, 0);
        for run in 2..300 {
            grace = start(grace.restarts(), run, run * 10, run * 10 + 1);
        }
        assert_eq!(grace.restarts().len(), MOST_RESTARTS);
        assert!(end(&grace, 298, 2_995) > 3_000, "the latest have their grace");
        assert_eq!(end(&grace, 0, 5), 5, "it was alive until the oldest was forgotten");
        assert_eq!(end(&grace, 298, 2_990), 2_990);
    }
}
