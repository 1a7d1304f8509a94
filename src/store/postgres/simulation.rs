//! A simulation of the rules of time in `clock.rs`: nodes, a database and its clock, and what goes wrong with them.
//! It is seeded, and needs no PostgreSQL.
//!
//! Each node runs a transaction every 50 to 300 ms. It reads `meta` and the database's clock, then its own
//! monotonic clock a little later, and commits later still. Some transactions renew a lease.

use super::clock::{Sample, Seen, Settled, Witness, settle};
use super::start::ASKS;
use crate::domain::grace::{Restart, RestartGrace, Run};
use crate::time::{Timestamp, Ttl, WallTime};

/// 2026-11-23T12:00:00Z
const NOON: i64 = 1_795_435_200_000;
const NODES: usize = 3;
const TTL: i64 = 15_000;
const GRACE: Ttl = Ttl::from_millis(30_000);
/// How far lease time may go wrong by one fault (milliseconds): what the rules let pass, and the delay of an answer.
const TOLERANCE: i64 = 2_600;
/// Duration of a simulation (milliseconds).
const LENGTH: i64 = 240_000;
/// The tables of the last second are kept, for a failover that loses them.
const LOST: i64 = 1_000;

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(most - least + 1).unwrap();
        least + i64::try_from(self.next() % span).unwrap()
    }

    fn either(&mut self, value: i64) -> i64 {
        if self.between(0, 1) == 0 { value } else { -value }
    }

    fn node(&mut self) -> usize {
        usize::try_from(self.between(0, 2)).unwrap()
    }
}

#[derive(Clone, Copy)]
struct Lease {
    /// When its holder asked, by the time that no clock shows.
    renewed: i64,
    expires_at: Timestamp,
    run: Run,
}

/// What the tables have.
#[derive(Clone)]
struct SimulatedTables {
    seen: Seen,
    run: Run,
    restarts: Vec<Restart>,
    /// The database's wall time when each node was last seen.
    nodes_seen: [i64; NODES],
    leases: [Lease; NODES],
}

/// What a transaction writes.
struct Commit {
    at: i64,
    offset_ms: i64,
    run: Run,
    now: Timestamp,
    wall: WallTime,
    renews: bool,
    begun: i64,
}

#[derive(Default)]
struct SimulatedNode {
    last: Option<Sample>,
    anchor: (i64, i64),
    latest: i64,
    monotonic_base: i64,
    /// It does nothing before this time.
    free_at: i64,
    commit: Option<Commit>,
    /// How often it has asked while it starts. `None` once it runs.
    asked: Option<u32>,
}

impl SimulatedNode {
    fn lease_now(&mut self, monotonic: i64) -> Timestamp {
        self.latest = self.latest.max(self.anchor.0 + monotonic - self.anchor.1);
        Timestamp(self.latest)
    }

    fn follow(&mut self, sample: Sample, now: Timestamp) {
        self.last = Some(sample);
        self.anchor = (now.0, sample.monotonic_ms);
        self.latest = self.latest.max(now.0);
    }
}

struct World {
    random: Random,
    /// The time that no clock shows (milliseconds).
    time: i64,
    /// What the database's clock shows beside it.
    skew: i64,
    away_until: i64,
    /// Answers are slow until then.
    slow_until: i64,
    tables: SimulatedTables,
    /// The tables as they were, for a failover.
    before: Vec<(i64, SimulatedTables)>,
    nodes: [SimulatedNode; NODES],
    /// How far lease time was ahead of `time` at most. A fault may only hold it back.
    lead: i64,
    decisions: u32,
    ended: u32,
    /// The last fault, for messages.
    fault: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let lease = Lease { renewed: 0, expires_at: Timestamp(TTL), run: Run(1) };
        let tables = SimulatedTables {
            seen: Seen { offset_ms: NOON, lease: Timestamp(0), wall: WallTime(NOON) },
            run: Run(1),
            restarts: Vec::new(),
            nodes_seen: [0; NODES],
            leases: [lease; NODES],
        };
        let mut world = Self {
            random: Random(seed),
            time: 0,
            skew: 0,
            away_until: 0,
            slow_until: 0,
            tables,
            before: Vec::new(),
            nodes: std::array::from_fn(|_| SimulatedNode::default()),
            lead: 0,
            decisions: 0,
            ended: 0,
            fault: "none".to_owned(),
        };
        (0..NODES).for_each(|node| world.restart(node));
        world
    }

    fn wall(&self) -> i64 {
        NOON + self.time + self.skew
    }

    fn restart(&mut self, node: usize) {
        let monotonic_base = self.random.between(0, 1_000_000) - self.time;
        let lease = self.tables.seen.lease.0;
        self.nodes[node] = SimulatedNode {
            anchor: (lease, monotonic_base + self.time),
            latest: lease,
            monotonic_base,
            free_at: self.time + self.random.between(0, 300),
            asked: Some(0),
            ..SimulatedNode::default()
        };
    }

    /// Something goes wrong.
    fn break_something(&mut self) {
        let node = self.random.node();
        let hour = 3_600_000;
        let kind = self.random.between(0, 8);
        match kind {
            0 => self.skew += self.random.either(hour),
            1 => {
                let by = self.random.between(1_000, 8_000);
                self.skew += self.random.either(by);
            }
            2 => self.sleep(node, 20_000),
            3 => (0..NODES).for_each(|node| self.sleep(node, 20_000)),
            4 => {
                self.sleep(node, 20_000);
                self.skew += self.random.either(hour);
            }
            5 => self.away_until = self.time + 15_000,
            6 => self.fail_over(),
            7 => {
                // A node that starts meets the step first.
                self.skew += self.random.either(hour);
                self.restart(node);
                self.nodes[node].free_at = self.time;
            }
            _ => self.slow_until = self.time + 10_000,
        }
        self.fault = format!("{kind} at {}", self.time);
    }

    fn sleep(&mut self, node: usize, duration: i64) {
        let until = self.time + self.random.between(duration - 500, duration);
        let node = &mut self.nodes[node];
        node.free_at = until;
        // PostgreSQL ends its transaction.
        node.commit = None;
    }

    fn fail_over(&mut self) {
        self.away_until = self.time + self.random.between(0, 10_000);
        let skew = self.random.between(0, 40_000);
        self.skew += self.random.either(skew);
        self.tables = self.before.first().map_or_else(|| self.tables.clone(), |(_, tables)| tables.clone());
        self.nodes.iter_mut().for_each(|node| node.commit = None);
    }

    fn run(&mut self) {
        let mut next_fault = 20_000;
        while self.time < LENGTH {
            self.time += 10;
            if self.time >= next_fault && self.time < LENGTH - 80_000 {
                self.break_something();
                next_fault = self.time + self.random.between(15_000, 40_000);
            }
            if self.time >= self.away_until {
                (0..NODES).for_each(|node| self.step(node));
            }
            self.before.push((self.time, self.tables.clone()));
            let oldest = self.time - LOST;
            self.before.retain(|(at, _)| *at >= oldest);
        }
    }

    fn step(&mut self, node: usize) {
        if let Some(commit) = self.nodes[node].commit.take_if(|commit| commit.at <= self.time) {
            self.commit(node, &commit);
        }
        if self.nodes[node].free_at > self.time || self.nodes[node].commit.is_some() {
            return;
        }
        let most = if self.time < self.slow_until { 3_000 } else { 20 };
        let delay = self.random.between(0, most);
        let monotonic_ms = self.time + delay + self.nodes[node].monotonic_base;
        let sample = Sample { wall: WallTime(self.wall()), monotonic_ms, took_ms: delay };
        let witness = Witness { last: self.nodes[node].last, now: self.nodes[node].lease_now(monotonic_ms) };
        let answered = self.time + delay;
        self.nodes[node].free_at = answered + self.random.between(50, 300);
        match self.tables.seen.now(sample, witness) {
            Some(now) => {
                self.nodes[node].follow(sample, now);
                if self.nodes[node].asked.take().is_none() {
                    self.decide(answered, now);
                    let at = answered + self.random.between(0, most);
                    let Seen { offset_ms, .. } = self.tables.seen;
                    let renews = self.time < LENGTH - 70_000 && self.random.between(0, 9) == 0;
                    let (run, wall, begun) = (self.tables.run, sample.wall, self.time);
                    self.nodes[node].commit = Some(Commit { at, offset_ms, run, now, wall, renews, begun });
                }
            }
            None => self.settle(node, sample, witness),
        }
    }

    fn settle(&mut self, node: usize, sample: Sample, witness: Witness) {
        let others = (0..NODES).filter(|other| *other != node);
        let another_is_there =
            others.into_iter().any(|other| self.tables.nodes_seen[other] >= self.tables.seen.wall.0 - 5_000);
        let mut seen = self.tables.seen;
        let (now, has_grace) = match settle(seen, sample, witness, another_is_there) {
            Settled::WasAway(now) => {
                self.nodes[node].follow(sample, now);
                return;
            }
            Settled::Unclear => {
                let asked = self.nodes[node].asked.get_or_insert(0);
                *asked += 1;
                if *asked > ASKS {
                    (0..NODES).filter(|other| *other != node).for_each(|other| {
                        self.tables.nodes_seen[other] = 0;
                    });
                }
                self.nodes[node].free_at = self.time + sample.took_ms + 50;
                return;
            }
            Settled::Passed(now) => (now, true),
            Settled::WasSet { now, offset_ms, is_watched } => {
                seen.offset_ms = offset_ms;
                (now, !is_watched)
            }
        };
        if has_grace {
            self.tables.run = Run(self.tables.run.0 + 1);
            let restarts = std::mem::take(&mut self.tables.restarts);
            let grace = RestartGrace::at_start(restarts, self.tables.run, seen.lease, now, GRACE);
            self.tables.restarts = grace.restarts().to_vec();
        }
        self.tables.seen = Seen { lease: seen.lease.max(now), wall: sample.wall, ..seen };
        self.tables.nodes_seen[node] = sample.wall.0;
        self.nodes[node].follow(sample, now);
    }

    fn commit(&mut self, node: usize, commit: &Commit) {
        let tables = &mut self.tables;
        // If the clock was set in between, the node that settled it has written down the time.
        if tables.seen.offset_ms == commit.offset_ms {
            tables.seen.lease = tables.seen.lease.max(commit.now);
            tables.seen.wall = tables.seen.wall.max(commit.wall);
        }
        tables.nodes_seen[node] = commit.wall.0;
        if commit.renews {
            let expires_at = Timestamp(commit.now.0 + TTL);
            tables.leases[node] = Lease { renewed: commit.begun, expires_at, run: commit.run };
        }
    }

    /// What holds for each decision, which is made when the answer has come.
    fn decide(&mut self, time: i64, now: Timestamp) {
        self.decisions += 1;
        let lead = now.0 - time;
        assert!(lead <= self.lead + TOLERANCE, "lease time jumps by {} ms; {}", lead - self.lead, self.fault);
        self.lead = self.lead.max(lead);
        let grace = RestartGrace::recorded(self.tables.restarts.clone(), self.tables.run);
        for lease in &mut self.tables.leases {
            let age = time - lease.renewed;
            if now >= grace.apply(lease.run, lease.expires_at) {
                assert!(age >= TTL - TOLERANCE, "a lease ends after {age} ms; {}", self.fault);
                *lease = Lease { renewed: time, expires_at: Timestamp(now.0 + TTL), run: self.tables.run };
                self.ended += 1;
            }
        }
    }
}

#[test]
fn no_clock_no_pause_and_no_failover_makes_lease_time_jump_or_ends_a_lease_early() {
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            (world.decisions, world.ended)
        });
        let (decisions, ended) = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        // Time goes on: leases that are not renewed end, and nodes decide most of the time.
        assert!(ended >= 6 && decisions > 1_000, "seed {seed}: {decisions} decisions, {ended} leases ended");
    }
}
