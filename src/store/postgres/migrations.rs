//! The versions of the tables, and the migration from one to the next.
//!
//! Servers of two versions run side by side during a rolling upgrade, on the tables of the newer one. So a step only
//! *expands*: it adds tables, indexes, and columns that have a default. What the older program needs is removed by a
//! step of a later release, which says so in [`Step::usable_from`].

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::address::ServerAddress;
use super::row::get;
use super::session::{Failure, Session, parameters};
use crate::error::Error;
use crate::time::Clock;

/// One step.
struct Step {
    sql: &'static str,
    /// The oldest version whose programs can use the tables after this step. There is no such server when the step
    /// is taken, and none can start later.
    usable_from: i32,
}

/// The steps: to version 1, to version 2, and so on.
const STEPS: &[Step] = &[
    Step { sql: include_str!("schema.sql"), usable_from: 1 },
    // Whether the node of a waiter stops. Then the row keeps the place until `until`, for a waiter that asks again at
    // another node.
    Step { sql: "ALTER TABLE waiters ADD COLUMN is_leaving boolean NOT NULL DEFAULT false", usable_from: 1 },
];

/// How long a step may take.
const STEP: Duration = Duration::from_secs(3_600);
/// How often a step is tried while others use its tables, and the pause. A session that waits for a table holds up
/// all that come after it, so it gives up after a second.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
/// A server that was not seen for this time has ended (milliseconds).
const GONE_MS: i64 = 60_000;

/// The version that this program knows.
pub(super) fn newest() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Makes the tables, or migrates older ones.
pub(super) fn migrate(address: &ServerAddress, session: &Session, clock: &Clock) -> Result<(), Error> {
    let (version, usable_from) = versions(session)?;
    if usable_from > newest() {
        return Err(Error::Internal(too_old(usable_from)));
    }
    if version >= newest() {
        return Ok(());
    }
    let session = Session::connect(address, STEP)?;
    let mut attempt = 0;
    loop {
        match take_step(&session, clock) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Error::Busy) if attempt < ATTEMPTS && !session.is_lost() => {
                attempt += 1;
                session.script("ROLLBACK")?;
                std::thread::park_timeout(PAUSE);
            }
            Err(Error::Busy) => {
                return Err(Error::Internal(
                    "the tables cannot be migrated while others use them, such as pg_dump: start again when that has ended"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The sentence about tables that this program must not use.
pub(super) fn too_old(usable_from: i32) -> String {
    format!(
        "the tables in PostgreSQL can be used from version {usable_from} on, and this Lockhouse knows version {}: update it",
        newest()
    )
}

/// The version of the tables, 0 if there are none, and the oldest version whose programs can use them.
fn versions(session: &Session) -> Result<(i32, i32), Error> {
    let rows = session.query("SELECT to_regclass('meta')::text", Vec::new())?;
    if rows.first().map_or(Ok(None), |row| get::<Option<String>>(row, 0))?.is_none() {
        return Ok((0, 0));
    }
    let rows = session.query("SELECT version, usable_from FROM meta", Vec::new())?;
    let row =
        rows.first().ok_or_else(|| Error::Internal("the row of meta is missing in PostgreSQL".to_owned()))?;
    Ok((get(row, 0)?, get(row, 1)?))
}

/// Takes one step, in a transaction. Others that start at the same time wait for it. Returns whether there was one
/// to take.
fn take_step(session: &Session, clock: &Clock) -> Result<bool, Error> {
    session.script(
        "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(0);
         SET LOCAL lock_timeout = '1s'",
    )?;
    let (version, _) = versions(session)?;
    let Some(step) = usize::try_from(version).ok().and_then(|done| STEPS.get(done)) else {
        session.script("COMMIT")?;
        return Ok(false);
    };
    if version > 0 {
        has_no_older_servers(session, step.usable_from)?;
    }
    session.script(step.sql).map_err(no_right)?;
    if version == 0 {
        insert_meta(session, clock)?;
    }
    let new = version.saturating_add(1);
    session.query("UPDATE meta SET version = $1, usable_from = $2", parameters![new, step.usable_from])?;
    session.script("COMMIT")?;
    log::info!("the tables in PostgreSQL have version {new}");
    Ok(true)
}

fn insert_meta(session: &Session, clock: &Clock) -> Result<(), Error> {
    let wall_ms = match clock {
        Clock::System(_) => "(extract(epoch FROM clock_timestamp()) * 1000)::bigint".to_owned(),
        Clock::Manual(_) => clock.wall().0.to_string(),
    };
    session.script(&format!(
        "INSERT INTO meta SELECT 1, 1, 1, 0, 0, {wall_ms}, 0, 0, {wall_ms}, 0, '', false, 0"
    ))?;
    Ok(())
}

/// Checks that no server runs that knows only versions before `usable_from`.
fn has_no_older_servers(session: &Session, usable_from: i32) -> Result<(), Error> {
    let rows = session.query(
        "SELECT min(version) FROM nodes WHERE node_id <> '' AND knows < $1
         AND seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2",
        parameters![usable_from, GONE_MS],
    )?;
    match rows.first().map_or(Ok(None), |row| get::<Option<String>>(row, 0))? {
        None => Ok(()),
        Some(program) => Err(Error::Internal(format!(
            "a server of version {program} uses the database, and could not use it after the migration: stop it, or update all servers one release at a time"
        ))),
    }
}

/// The sentence about tables that must not be made.
fn no_right(failure: Failure) -> Error {
    match failure {
        Failure::Refused(state, text) if state == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::Internal(format!(
                "the tables cannot be made: {text}; make the user of database.url the owner of the database"
            ))
        }
        Failure::Refused(..) | Failure::Lost(_) => failure.into(),
    }
}
