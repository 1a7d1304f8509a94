//! This node: its slot, its clock, and what it knows of the others. The writer, the readers and the listener share it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::address::ServerAddress;
use super::clock::{Sample, Seen, Settled, Witness, settle};
use super::meta::{self, MetaRow};
use super::migrations;
use super::row::get;
use super::session::{Command, Session, parameters};
use super::signals::Signals;
use super::timeline;
use crate::domain::grace::{Restart, RestartGrace, Run};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::health::Health;
use crate::store::lock;
use crate::store::queue::Queue;
use crate::time::{Clock, LeaseClock, Timestamp, Ttl, WallTime};

/// Another node can take a slot whose node was not seen for this time (milliseconds).
const FREE_AFTER_MS: i64 = 60_000;

/// Each node writes down the time, and that it is there, this often (milliseconds).
const TICK_MS: i64 = 1_000;

/// This node.
pub(super) struct Node {
    pub(super) address: ServerAddress,
    /// How long a round trip may take.
    pub(super) deadline: Duration,
    /// A random id of this process.
    pub(super) id: String,
    pub(super) signals: Signals,
    /// The waiters that are connected to this node.
    pub(super) queue: Arc<Queue>,
    /// Whether this node stops.
    pub(super) is_leaving: AtomicBool,
    slot: AtomicI32,
    pub(super) clock: Arc<LeaseClock>,
    restart_grace: Ttl,
    /// The last reading of the clocks.
    last: Mutex<Option<Sample>>,
    grace: Mutex<Arc<RestartGrace>>,
    /// `meta.seen_lease`, as this node knows that it is committed.
    pub(super) seen: AtomicI64,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    /// The machine's clock, which measures the network and pauses also where lease time is that of a manual clock.
    pub(super) system: Clock,
    /// When this node last wrote down the time, by the machine's monotonic time (milliseconds).
    ticked_ms: AtomicI64,
}

impl Node {
    pub(super) fn new(
        address: ServerAddress,
        deadline: Duration,
        clock: Arc<LeaseClock>,
        restart_grace: Ttl,
        (metrics, health): (Arc<Metrics>, Arc<Health>),
        queue: Arc<Queue>,
    ) -> Result<Self, Error> {
        Ok(Self {
            address,
            deadline,
            id: random_id()?,
            signals: Signals::default(),
            queue,
            is_leaving: AtomicBool::new(false),
            slot: AtomicI32::new(-1),
            clock,
            restart_grace,
            last: Mutex::default(),
            grace: Mutex::new(Arc::new(RestartGrace::none())),
            seen: AtomicI64::new(i64::MIN),
            metrics,
            health,
            system: Clock::system(),
            ticked_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Whether this node has to write down the time: one of the nodes does so each second.
    pub(super) fn has_to_tick(&self) -> bool {
        self.system_ms().saturating_sub(self.ticked_ms.load(Ordering::SeqCst)) >= TICK_MS
    }

    /// Records that this node has written down the time.
    pub(super) fn ticked(&self) {
        self.ticked_ms.store(self.system_ms(), Ordering::SeqCst);
    }

    /// The machine's monotonic time (milliseconds).
    pub(super) fn system_ms(&self) -> i64 {
        Ttl::from_duration(self.system.monotonic()).as_millis()
    }

    pub(super) fn connect(&self) -> Result<Session, Error> {
        Ok(Session::connect(&self.address, self.deadline)?)
    }

    pub(super) fn slot(&self) -> i32 {
        self.slot.load(Ordering::SeqCst)
    }

    /// The grace of restarts as of `run`. It is read again if a new run has begun.
    pub(super) fn grace(&self, session: &Session, run: Run) -> Result<Arc<RestartGrace>, Error> {
        let known = self.known_grace();
        if known.run() == run {
            return Ok(known);
        }
        let grace = Arc::new(RestartGrace::recorded(restarts(session)?, run));
        *lock(&self.grace) = Arc::clone(&grace);
        Ok(grace)
    }

    /// The grace of restarts as this node knows it.
    pub(super) fn known_grace(&self) -> Arc<RestartGrace> {
        Arc::clone(&lock(&self.grace))
    }

    /// The database's clock, in microseconds. A manual clock takes its place.
    pub(super) fn wall_micros(&self, meta: &MetaRow) -> i64 {
        match self.clock.clock() {
            Clock::System(_) => meta.wall_micros,
            manual @ Clock::Manual(_) => manual.wall_micros(),
        }
    }

    fn monotonic_ms(&self) -> i64 {
        Ttl::from_duration(self.clock.clock().monotonic()).as_millis()
    }

    /// The clocks, where `meta` was asked for at `asked_ms` of the monotonic one.
    fn sample(&self, meta: &MetaRow, asked_ms: i64) -> Sample {
        let sample = |wall_micros: i64, monotonic_ms, took_ms| Sample {
            wall: WallTime(wall_micros.div_euclid(1_000)),
            monotonic_ms,
            took_ms,
        };
        match self.clock.clock() {
            Clock::System(_) => {
                let monotonic_ms = self.monotonic_ms();
                sample(meta.wall_micros, monotonic_ms, monotonic_ms.saturating_sub(asked_ms))
            }
            // Manual clocks are read here, not by the database. A test may have moved them since it was asked.
            manual @ Clock::Manual(_) => {
                let (monotonic, wall_micros) = manual.both();
                sample(wall_micros, Ttl::from_duration(monotonic).as_millis(), 0)
            }
        }
    }

    /// What this node remembers at `sample`.
    fn witness(&self, sample: Sample, seen: &mut Seen) -> Witness {
        let mut witness = Witness { last: *lock(&self.last), now: self.clock.now() };
        if let (Clock::Manual(_), Some(last)) = (self.clock.clock(), &mut witness.last) {
            // Manual clocks move by minutes at once. Nodes write the time down each second meanwhile.
            last.wall.0 += sample.monotonic_ms - last.monotonic_ms;
            last.monotonic_ms = sample.monotonic_ms;
            seen.wall = last.wall;
        }
        witness
    }

    /// Lease time of a transaction that has read `meta`. `None` if the time or the timeline has to be settled first.
    pub(super) fn now(&self, meta: &mut MetaRow) -> Option<Timestamp> {
        if meta.known != meta.timeline {
            return None;
        }
        let sample = self.sample(meta, self.monotonic_ms());
        let witness = self.witness(sample, &mut meta.seen);
        let now = meta.seen.now(sample, witness)?;
        self.follow(sample, now, meta.seen.offset_ms);
        Some(now)
    }

    fn follow(&self, sample: Sample, now: Timestamp, offset_ms: i64) {
        *lock(&self.last) = Some(sample);
        self.clock.follow(now);
        self.clock.set_wall_offset_ms(offset_ms);
    }

    /// Settles the time and the timeline, in a transaction of its own.
    ///
    /// # Errors
    /// [`Error::Busy`] if another node has to do so.
    pub(super) fn settle(&self, session: &Session) -> Result<(), Error> {
        let lock = [Command::new("BEGIN", Vec::new()), meta::lock()];
        let settled = session.run(&lock).map_err(Error::from).and_then(|_| {
            let asked_ms = self.monotonic_ms();
            let rows = session.run(&[meta::read(self.slot())])?;
            let meta = MetaRow::of(rows.first().map_or(&[], Vec::as_slice))?;
            let settled = self.settle_as_of(session, meta, asked_ms)?;
            session.run(&[Command::new("COMMIT", Vec::new())])?;
            Ok(settled)
        });
        // What is remembered is as of the last commit. Otherwise the next attempt could not tell a set clock.
        let (sample, now, offset_ms) = settled.inspect_err(|_| {
            // A failure marks the session, which is replaced then.
            let _ = session.run(&[Command::new("ROLLBACK", Vec::new())]);
        })?;
        self.follow(sample, now, offset_ms);
        Ok(())
    }

    fn settle_as_of(
        &self,
        session: &Session,
        mut meta: MetaRow,
        asked_ms: i64,
    ) -> Result<(Sample, Timestamp, i64), Error> {
        let sample = self.sample(&meta, asked_ms);
        let witness = self.witness(sample, &mut meta.seen);
        let (now, offset_ms, has_grace) = match settle(meta.seen, sample, witness, meta.another_is_there) {
            Settled::WasAway(now) => {
                timeline::follow(session, &meta, now)?;
                return Ok((sample, now, meta.seen.offset_ms));
            }
            Settled::Unclear => return Err(Error::Busy),
            Settled::Passed(now) => (now, meta.seen.offset_ms, true),
            Settled::WasSet { now, offset_ms, is_watched } => {
                self.metrics.clock_corrections.inc();
                log::warn!(
                    "the clock of the database was set by {} ms: what is left of each lease stays, what is shown moves along",
                    offset_ms.saturating_sub(meta.seen.offset_ms)
                );
                (now, offset_ms, !is_watched)
            }
        };
        if has_grace {
            self.begin_run(session, &meta, now)?;
        }
        timeline::follow(session, &meta, now)?;
        session.run(&[Command::new(
            "UPDATE meta SET seen_lease = greatest(seen_lease, $1), seen_wall = $2, wall_offset_ms = $3",
            parameters![now.0, sample.wall.0, offset_ms],
        )])?;
        Ok((sample, now, offset_ms))
    }

    /// Records that no node has watched for a while: leases get the restart grace.
    fn begin_run(&self, session: &Session, meta: &MetaRow, now: Timestamp) -> Result<(), Error> {
        let run = Run(meta.run.0 + 1);
        let grace = RestartGrace::at_start(restarts(session)?, run, meta.seen.lease, now, self.restart_grace);
        let column = |value: fn(&Restart) -> i64| grace.restarts().iter().map(value).collect::<Vec<_>>();
        session.run(&[
            Command::new("DELETE FROM restarts", Vec::new()),
            Command::new(
                "INSERT INTO restarts SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])",
                parameters![
                    column(|restart| restart.run.0),
                    column(|restart| restart.last_seen.0),
                    column(|restart| restart.grace_ends.0)
                ],
            ),
            Command::new("UPDATE meta SET run = $1, opened_at = $2", parameters![run.0, now.0]),
        ])?;
        Ok(())
    }

    /// Takes a slot that is free, or whose node was not seen for a while. In a transaction of its own.
    pub(super) fn take_slot(&self, session: &Session) -> Result<(), Error> {
        let rows = session.run(&[
            Command::new("SELECT pg_advisory_lock(0)", Vec::new()),
            Command::new(
                "WITH wall AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms)
                 UPDATE nodes SET node_id = $1, version = $2, knows = $4, seen_at = ms FROM wall WHERE slot =
                 (SELECT slot FROM nodes, wall WHERE node_id = '' OR seen_at < ms - $3 OR seen_at > ms + $3
                  ORDER BY node_id <> '', slot LIMIT 1)
                 RETURNING slot",
                parameters![
                    self.id.clone(),
                    env!("CARGO_PKG_VERSION").to_owned(),
                    FREE_AFTER_MS,
                    migrations::newest()
                ],
            ),
            Command::new("SELECT pg_advisory_unlock(0)", Vec::new()),
        ])?;
        let Some(row) = rows.get(1).and_then(|rows| rows.first()) else {
            return Err(Error::Internal(
                "16 servers use this PostgreSQL database already: stop one, or wait a minute after one was killed"
                    .to_owned(),
            ));
        };
        self.slot.store(get(row, 0)?, Ordering::SeqCst);
        Ok(())
    }
}

/// The recorded restarts, oldest first.
fn restarts(session: &Session) -> Result<Vec<Restart>, Error> {
    let rows =
        session.query("SELECT run, last_seen_at, grace_ends_at FROM restarts ORDER BY run", Vec::new())?;
    let restart = |row| {
        let (run, last_seen, grace_ends) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        Ok(Restart { run: Run(run), last_seen: Timestamp(last_seen), grace_ends: Timestamp(grace_ends) })
    };
    rows.iter().map(restart).collect()
}

/// A random id of this process.
fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Internal("the system gives no random numbers".to_owned()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
