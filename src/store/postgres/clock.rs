//! Time with several nodes. The database's clock is the wall clock of all of them. Each node's monotonic clock
//! is the witness against steps of it. These functions are pure.
//!
//! `meta` has the wall offset, and the lease time and the database's wall time when a node last wrote them down
//! (*seen*). A node decides only while the database's clock is close to what was seen, and has moved as the
//! node's monotonic clock has. Otherwise one node settles the time, under a lock on `meta`.

use crate::time::{Timestamp, WallTime};

/// How far the database's clock may be behind what was seen (milliseconds).
const BEHIND_MS: i64 = 1_000;
/// How far the database's clock may be ahead of what was seen (milliseconds). A node writes the time down each
/// second.
const AHEAD_MS: i64 = 2_000;
/// How differently the database's clock and the node's monotonic clock may move between two samples
/// (milliseconds).
const APART_MS: i64 = 1_000;
/// A reading that took longer (milliseconds) does not tell how late its answer has come. The clock is not set by it.
const TOOK_MS: i64 = 500;

/// What `meta` says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Wall time = lease time + this (milliseconds).
    pub(super) offset_ms: i64,
    /// Lease time when it was last written down.
    pub(super) lease: Timestamp,
    /// The database's wall time when it was last written down.
    pub(super) wall: WallTime,
}

/// One reading of the database's clock and of the node's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// The database's wall clock.
    pub(super) wall: WallTime,
    /// The node's monotonic clock when the answer came (milliseconds).
    pub(super) monotonic_ms: i64,
    /// How long the answer took (milliseconds).
    pub(super) took_ms: i64,
}

impl Sample {
    /// Whether both clocks have moved alike since `before`.
    const fn agrees_with(self, before: Self) -> bool {
        let by_wall = self.wall.0.saturating_sub(before.wall.0);
        let by_witness = self.monotonic_ms.saturating_sub(before.monotonic_ms);
        by_wall.saturating_sub(by_witness).saturating_abs() <= APART_MS
    }
}

/// What a node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    /// The last reading of the clocks. `None` at the start.
    pub(super) last: Option<Sample>,
    /// Lease time by the node's monotonic clock, at the time of the sample. No later time was used.
    pub(super) now: Timestamp,
}

impl Seen {
    /// Whether `wall` is close to what was seen.
    const fn is_fresh(self, wall: WallTime) -> bool {
        let since = wall.0.saturating_sub(self.wall.0);
        -BEHIND_MS <= since && since <= AHEAD_MS
    }

    /// Lease time at `wall`. It never goes back.
    fn lease_at(self, wall: WallTime, witness: Witness) -> Timestamp {
        Timestamp(wall.0.saturating_sub(self.offset_ms)).max(self.lease).max(witness.now)
    }

    /// Lease time, if the node may decide by it. Otherwise the time must be settled.
    pub(super) fn now(self, sample: Sample, witness: Witness) -> Option<Timestamp> {
        let agrees = witness.last.is_none_or(|before| sample.agrees_with(before));
        (self.is_fresh(sample.wall) && agrees).then(|| self.lease_at(sample.wall, witness))
    }
}

/// The outcome of settling the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Only this node was away. It goes on by what the others have seen.
    WasAway(Timestamp),
    /// No node was seen for a while, and that time has passed. Leases that were live then get the restart grace.
    Passed(Timestamp),
    /// The database's clock was set. Lease time goes on, and the offset changes.
    WasSet {
        /// Lease time.
        now: Timestamp,
        /// The new offset (milliseconds).
        offset_ms: i64,
        /// Whether this node has watched all the time, so that no lease needs the restart grace.
        is_watched: bool,
    },
    /// This reading does not tell: it took too long, or the node has no earlier one and leaves this to one that was
    /// seen a moment ago.
    Unclear,
}

/// Settles the time. `seen` was read under a lock. `another_is_there` says whether another node was seen about
/// when the time was.
pub(super) fn settle(seen: Seen, sample: Sample, witness: Witness, another_is_there: bool) -> Settled {
    if seen.is_fresh(sample.wall) {
        return Settled::WasAway(seen.lease_at(sample.wall, witness));
    }
    let Some(before) = witness.last else {
        if another_is_there {
            return Settled::Unclear;
        }
        let by_wall = Timestamp(sample.wall.0.saturating_sub(seen.offset_ms));
        return if by_wall >= seen.lease {
            Settled::Passed(by_wall)
        } else {
            was_set(seen.lease, sample, false)
        };
    };
    if sample.agrees_with(before) {
        return Settled::Passed(seen.lease_at(sample.wall, witness));
    }
    let since = sample.monotonic_ms.saturating_sub(before.monotonic_ms);
    was_set(witness.now.max(seen.lease), sample, since <= AHEAD_MS)
}

const fn was_set(now: Timestamp, sample: Sample, is_watched: bool) -> Settled {
    if sample.took_ms > TOOK_MS {
        return Settled::Unclear;
    }
    Settled::WasSet { now, offset_ms: sample.wall.0.saturating_sub(now.0), is_watched }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen { offset_ms: 10_000, lease: Timestamp(90_000), wall: WallTime(100_000) };

    fn sample(wall: i64, monotonic_ms: i64) -> Sample {
        Sample { wall: WallTime(wall), monotonic_ms, took_ms: 0 }
    }

    fn witness(last: Option<Sample>, now: i64) -> Witness {
        Witness { last, now: Timestamp(now) }
    }

    #[test]
    fn a_node_decides_only_while_both_clocks_agree_and_the_time_was_written_down() {
        let before = witness(Some(sample(100_000, 5_000)), 90_000);
        assert_eq!(SEEN.now(sample(101_500, 6_500), before), Some(Timestamp(91_500)));
        assert_eq!(SEEN.now(sample(99_500, 5_200), before), Some(Timestamp(90_000)), "never back");
        assert_eq!(SEEN.now(sample(102_001, 7_001), before), None, "nobody has written it down");
        assert_eq!(SEEN.now(sample(101_500, 5_400), before), None, "the clocks have moved apart");
        assert_eq!(SEEN.now(sample(98_999, 5_000), before), None);
    }

    #[test]
    fn a_node_that_slept_follows_the_others() {
        let slept = witness(Some(sample(40_000, 5_000)), 30_000);
        assert_eq!(settle(SEEN, sample(100_500, 5_500), slept, true), Settled::WasAway(Timestamp(90_500)));
    }

    #[test]
    fn time_that_passed_is_told_from_a_set_clock_by_the_witness() {
        let before = witness(Some(sample(100_000, 5_000)), 95_000);
        assert_eq!(settle(SEEN, sample(120_000, 25_000), before, true), Settled::Passed(Timestamp(110_000)));
        for wall in [3_700_000, -3_500_000] {
            let settled = settle(SEEN, sample(wall, 6_000), before, true);
            let set = Settled::WasSet { now: Timestamp(95_000), offset_ms: wall - 95_000, is_watched: true };
            assert_eq!(settled, set);
        }
        let Settled::WasSet { is_watched, .. } = settle(SEEN, sample(3_700_000, 25_000), before, true) else {
            panic!("the clock was set")
        };
        assert!(!is_watched, "for 20 s nobody has watched");
    }

    #[test]
    fn a_new_node_leaves_a_stale_time_to_those_who_have_watched() {
        let new = witness(None, 0);
        assert_eq!(settle(SEEN, sample(3_700_000, 0), new, true), Settled::Unclear);
        assert_eq!(settle(SEEN, sample(3_700_000, 0), new, false), Settled::Passed(Timestamp(3_690_000)));
        let back = Settled::WasSet { now: Timestamp(90_000), offset_ms: -90_000, is_watched: false };
        assert_eq!(settle(SEEN, sample(0, 0), new, false), back);
    }
}
