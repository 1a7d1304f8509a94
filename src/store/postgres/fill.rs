//! Fills an empty database with the data of a SQLite file, for `lockhouse copy`.

use std::time::Duration;

use super::address::ServerAddress;
use super::row::get;
use super::session::{Session, parameters};
use super::start::{BESIDE, prepare};
use crate::error::Error;
use crate::store::sqlite::dump::Dump;
use crate::time::Clock;

/// How long the server may take for one table.
const TABLE: Duration = Duration::from_secs(3_600);

/// Copies all rows in one transaction. The leases go on as after a restart of a server.
pub(in crate::store) fn fill(url: &str, source: &Dump) -> Result<(), Error> {
    let address = ServerAddress::parse(url, BESIDE)?;
    let session =
        Session::connect(&address, TABLE).map_err(|failure| address.cannot_connect(failure.text()))?;
    prepare(&address, &session, &Clock::system())?;
    // Without a commit the server rolls back when the connection ends. A server that starts meanwhile waits
    // for the advisory lock, to take its slot.
    session.script(
        "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
         SELECT pg_advisory_xact_lock(0); LOCK TABLE meta, tokens, workspaces IN SHARE ROW EXCLUSIVE MODE",
    )?;
    is_unused(&session)?;
    session.script("DELETE FROM restarts")?;
    for table in source.tables()? {
        let columns = source.columns(&table)?;
        let sql = format!("COPY {table} ({}) FROM STDIN", columns.join(", "));
        session.load(&sql, |send| source.rows(&table, &columns, send))?;
    }
    let meta = source.meta()?;
    // No node has seen the time, so the first server settles it and gives the restart grace.
    session.query(
        "UPDATE meta SET last_revision = $1, wall_offset_ms = $2, seen_lease = $3, seen_wall = 0, run = $4,
         opened_at = $5, fence_floor = greatest(fence_floor, $6)",
        parameters![
            meta.last_revision,
            meta.wall_offset_ms,
            meta.last_seen.0,
            meta.run.0,
            meta.opened_at.0,
            source.highest_fence.0
        ],
    )?;
    session.script("COMMIT")?;
    Ok(())
}

/// Checks that the database has no data and no servers.
fn is_unused(session: &Session) -> Result<(), Error> {
    let rows = session.query(
        "SELECT last_revision > 0 OR EXISTS (SELECT FROM locks) OR EXISTS (SELECT FROM workspaces)
                OR EXISTS (SELECT FROM tokens) OR EXISTS (SELECT FROM events),
                EXISTS (SELECT FROM nodes WHERE node_id <> ''
                        AND seen_at > (extract(epoch FROM clock_timestamp()) - 60) * 1000)
         FROM meta",
        Vec::new(),
    )?;
    let row = rows.first().ok_or(Error::Busy)?;
    if get(row, 1)? {
        return Err(Error::Internal(
            "a server uses the PostgreSQL database: stop it, or wait a minute after it was killed".to_owned(),
        ));
    }
    if get(row, 0)? {
        return Err(Error::Internal(
            "the PostgreSQL database has data of Lockhouse already: copy into an empty one".to_owned(),
        ));
    }
    Ok(())
}
