//! The SQLite engine: one file, one connection that writes, some that read. All SQL is below this module.

pub mod backup;
mod changes;
#[cfg(feature = "postgres")]
pub(super) mod dump;
mod failure;
mod files;
mod floor;
mod guard;
mod listing;
mod migrations;
mod open;
mod readers;
pub mod restore;
mod row;
mod rows;
mod shape;
mod tables;
pub(super) mod tokens;
mod values;
mod wal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use r2d2::PooledConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use scheduled_thread_pool::ScheduledThreadPool;

use self::failure::LogRemains;
use self::files::{CheckpointMode, Files};
use self::floor::Floor;
pub(super) use self::guard::Guard;
pub use self::migrations::{APPLICATION_ID, SCHEMA_VERSION};
pub(super) use self::readers::Readers;
use self::tables::Tables;
use super::Options;
use super::engine::{Engine, Probe, Work};
use super::health::Health;
use super::set::{Effects, FenceSlot, Meta, TransactionStart};
use crate::domain::Fence;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::{Clock, LeaseClock, Timestamp};

/// Minimum time between two writes of `meta.last_seen_at` if nothing else is written (milliseconds).
const SEEN_EVERY_MS: i64 = 1_000;

/// Raises the fence floor: from now on no server gives a fence up to `fence` on this database. The database
/// must not be open.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator, and [`Error::StorageFull`].
pub fn fence_at_least(database: &Path, fence: Fence) -> Result<(), Error> {
    let guard = Guard::take(database)?;
    Floor::read(guard.path())?.raise_to(fence)
}

/// The clock of a store.
pub(super) enum Time {
    /// A running clock.
    Runs(Clock),
    /// A clock that stands still at the time when the last server stopped. No lease has ended since then.
    StandsStill,
}

/// An open database.
pub(super) struct Opened {
    pub(super) engine: Sqlite,
    pub(super) readers: Readers,
    pub(super) clock: Arc<LeaseClock>,
    pub(super) health: Arc<Health>,
    pub(super) guard: Arc<Guard>,
}

/// Opens the database, and creates it if it does not exist.
pub(super) fn open(options: &Options, metrics: &Arc<Metrics>, time: Time) -> Result<Opened, Error> {
    let guard = Arc::new(Guard::take(&options.path)?);
    let options = &Options { path: guard.path().to_owned(), ..options.clone() };
    let mut floor = Floor::read(guard.path())?;
    let connection = open::prepare(guard.path(), open::Older::Migrate)?;
    floor.reconcile(&connection)?;
    let clock = match time {
        Time::Runs(clock) => clock,
        Time::StandsStill => Clock::standing_at(open::last_seen(&options.path, &connection)?),
    };
    drop(connection);
    let housekeeping = Arc::new(ScheduledThreadPool::builder().num_threads(1).build());
    let (connection, clock, grace) = open::writer(options, clock, &housekeeping)?;
    let (clock, grace) = (Arc::new(clock), Arc::new(grace));
    let health = Arc::new(Health::new(clock.clock().clone(), options.busy_timeout));
    let files = Files::of(Arc::clone(&guard), Arc::clone(&health), Arc::clone(metrics), &connection)?;
    // The first transaction sets the value that is on disk.
    let seen = Arc::new(AtomicI64::new(i64::MIN));
    let readers = Readers {
        pool: open::readers(options, &housekeeping)?,
        clock: Arc::clone(&clock),
        grace: Arc::clone(&grace),
        seen: Arc::clone(&seen),
        health: Arc::clone(&health),
        threads: readers::Threads::default(),
    };
    let engine = Sqlite {
        row: read_meta(&connection)?,
        connection,
        files,
        floor,
        clock: Arc::clone(&clock),
        metrics: Arc::clone(metrics),
        grace,
        seen,
        health: Arc::clone(&health),
        is_unsettled: false,
    };
    Ok(Opened { engine, readers, clock, health, guard })
}

/// The engine: the connection that writes, the fence floor, and the files. The files are closed after the
/// connection.
pub(super) struct Sqlite {
    connection: PooledConnection<SqliteConnectionManager>,
    files: Files,
    floor: Floor,
    clock: Arc<LeaseClock>,
    metrics: Arc<Metrics>,
    grace: Arc<RestartGrace>,
    /// `meta.last_seen_at`, as it is on disk.
    seen: Arc<AtomicI64>,
    health: Arc<Health>,
    /// A commit failed. SQLite continues as if the transaction did not exist, but its pages may be complete
    /// in the log, where a restart would find them. The next commit overwrites them.
    is_unsettled: bool,
    /// The row of `meta`, as the last commit left it.
    row: Row,
}

/// The row of `meta`.
#[derive(Debug, Clone, Copy)]
struct Row {
    meta: Meta,
    last_seen_at: Timestamp,
    /// How often a server has opened the file.
    run: i64,
    /// `PRAGMA data_version`: a different value means that another connection has written since
    /// (<https://www.sqlite.org/pragma.html#pragma_data_version>).
    data_version: i64,
}

impl Row {
    /// Whether this row cannot follow `before`, which this server wrote. The run stays the same, and the
    /// other values that a server writes never decrease.
    fn is_of_other_database(self, before: Self) -> bool {
        self.run != before.run
            || self.meta.last_fence < before.meta.last_fence
            || self.meta.last_revision < before.meta.last_revision
            || self.last_seen_at < before.last_seen_at
    }
}

impl Sqlite {
    /// Returns the row of `meta`. It is read again only if another connection has written. Then this also
    /// checks that the other connection has not put other data in its place. For example, restoring a backup
    /// into the file replaces the data but not the file.
    ///
    /// # Errors
    /// [`Error::Stopping`] if the data was replaced, and from then on; errors of reading.
    fn row(&mut self) -> Result<Row, Error> {
        if data_version(&self.connection)? != self.row.data_version {
            let mark_lost = |what: &str| {
                let path = self.files.guard().path().display();
                self.files
                    .mark_lost(&format!("another program has changed the database: {path} {what}; it did so"))
            };
            if let Some(difference) = migrations::difference(&self.connection)? {
                return Err(mark_lost(&difference));
            }
            let row = read_meta(&self.connection)?;
            if row.is_of_other_database(self.row) {
                return Err(mark_lost("has older data, or that of another database"));
            }
            self.row = row;
        }
        Ok(self.row)
    }

    /// Runs the transaction from after BEGIN to the end of COMMIT.
    fn inside(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        let before = self.row()?;
        let wall_offset_ms = self.clock.wall_was_set().unwrap_or(before.meta.wall_offset_ms);
        let begin = TransactionStart {
            wall_micros: self.clock.clock().wall_micros(),
            meta: Meta { wall_offset_ms, ..before.meta },
            fences: FenceSlot::ALL,
        };
        let tables = Tables::new(&self.connection, self.clock.now(), &self.grace);
        let effects = work.run(&tables, begin, None)?;
        let (now, latest_due) = (effects.now, tables.latest_due());
        drop(tables);
        let mut after = Row { meta: effects.meta, ..before };
        if effects.meta != before.meta
            || effects.is_touched
            || self.is_unsettled
            || latest_due > Some(before.last_seen_at)
            || now.since(before.last_seen_at) >= SEEN_EVERY_MS
        {
            after.last_seen_at = now;
            write_meta(&self.connection, after)?;
        }
        if after.meta.last_fence > before.meta.last_fence {
            self.floor.reserve(after.meta.last_fence)?;
        }
        self.commit(work.keys().is_empty())?;
        self.row = after;
        self.seen.store(after.last_seen_at.0, Ordering::SeqCst);
        self.wall_was_set(after.meta.wall_offset_ms);
        Ok(effects)
    }

    fn commit(&mut self, is_probe: bool) -> Result<(), Error> {
        let clock = self.clock.clock();
        let started = clock.monotonic();
        self.connection.prepare_cached("COMMIT")?.execute([]).map_err(|error| {
            let (error, left) = failure::commit_error(error, self.files.guard().path());
            self.is_unsettled = match left {
                LogRemains::Nothing => self.is_unsettled,
                LogRemains::Part => self.is_unsettled || !is_probe,
                // This transaction overwrote what an earlier failed commit left in the log.
                LogRemains::Whole => !is_probe,
            };
            error
        })?;
        self.is_unsettled = false;
        self.metrics.commit_seconds.observe(clock.monotonic().saturating_sub(started).as_secs_f64());
        // The commit is on disk, but the file may have been removed or replaced.
        self.files.check(&self.connection).map_err(|_| Error::Unknown("the database is gone".to_owned()))
    }

    fn wall_was_set(&self, wall_offset_ms: i64) {
        let by = wall_offset_ms.saturating_sub(self.clock.wall_offset_ms());
        if by != 0 {
            self.clock.set_wall_offset_ms(wall_offset_ms);
            self.metrics.clock_corrections.inc();
            log::warn!(
                "the wall clock was set by {by} ms: what is left of each lease stays, what is shown moves along"
            );
        }
    }

    /// Runs a transaction that only writes down the time.
    fn probe(&mut self) -> Result<Effects, Error> {
        self.transact(&mut Probe)
    }
}

impl Engine for Sqlite {
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        if self.health.is_gone() {
            return Err(Error::Stopping);
        }
        if !self.connection.is_autocommit() {
            // The rollback of the last transaction failed.
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.files.check_log()?;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let outcome = self.inside(work);
        // After some errors, such as a full disk, SQLite has rolled back already.
        if outcome.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        outcome
    }

    fn idle(&mut self) {
        // The next transaction reports the error.
        let _ = self.files.check(&self.connection).and_then(|()| self.row());
    }

    fn resolve_failed_commit(&mut self) -> bool {
        if self.is_unsettled && !self.health.is_gone() {
            // `is_unsettled` below tells whether the probe succeeded.
            let _ = self.probe();
        }
        !self.is_unsettled
    }

    fn checkpoint_if_long(&mut self) {
        self.files.checkpoint_if_long(&self.connection);
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.files.checkpoint(&self.connection, CheckpointMode::Truncate)
    }

    fn is_gone(&self) -> bool {
        self.health.is_gone()
    }

    fn finish(&mut self) {
        let written = self.probe();
        let folded = written.and_then(|_| self.files.checkpoint(&self.connection, CheckpointMode::Final));
        if self.health.is_gone() {
            // The files are gone: closing the connection must not write to them either.
            if let Err(error) =
                self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            {
                log::warn!("the write-ahead log may be folded in at the end: {error}");
            }
        } else if let Err(error) = folded {
            log::warn!("the write-ahead log was not folded in: {error}; the next start does it");
        }
        if let Err(error) = self.floor.release_reserve() {
            log::warn!("the fence floor stays ahead of the last fence: {error}");
        }
    }
}

fn data_version(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

fn read_meta(connection: &Connection) -> Result<Row, Error> {
    let data_version = data_version(connection)?;
    Ok(connection
        .prepare_cached(
            "SELECT last_fence, last_revision, wall_offset_ms, lock_count, opened_at, last_seen_at, run FROM meta WHERE id = 1",
        )?
        .query_row([], |row| {
            let meta = Meta {
                last_fence: row.get(0)?,
                last_revision: row.get(1)?,
                wall_offset_ms: row.get(2)?,
                lock_count: row.get(3)?,
                opened_at: row.get(4)?,
            };
            Ok(Row { meta, last_seen_at: row.get(5)?, run: row.get(6)?, data_version })
        })?)
}

fn write_meta(connection: &Connection, Row { meta, last_seen_at, .. }: Row) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE meta SET last_fence = ?1, last_revision = ?2, wall_offset_ms = ?3, lock_count = ?4, last_seen_at = ?5 WHERE id = 1",
        )?
        .execute(params![
            meta.last_fence,
            meta.last_revision,
            meta.wall_offset_ms,
            meta.lock_count,
            last_seen_at,
        ])?;
    Ok(())
}
