//! The rows of the tables `locks` and `knocks`, read and written.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Write;
use crate::error::Error;
use crate::lock::knock::{Declined, Knock, Knocks};
use crate::lock::{DisplayName, Fence, Hold, Lock, SessionId, UserId, WorkspaceId};
use crate::time::{Timestamp, Ttl};

pub(super) const COLUMNS: &str = "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata, given, knocks, grant_at";

/// The lock of a workspace, whether it has ended or not.
pub(super) fn load(connection: &Connection, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM locks WHERE workspace_id = ?1"))?
        .query_row([workspace_id.as_str()], |row| read(connection, row))
        .optional()?)
}

/// The live lock of this workspace with this fence, if there is one.
pub(super) fn with_fence(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    fence: Fence,
    now: Timestamp,
) -> Result<Option<Lock>, Error> {
    Ok(load(connection, workspace_id)?.filter(|lock| lock.fence == fence && lock.is_live(now)))
}

/// Locks of a user, at most so many.
pub(super) fn of_user(connection: &Connection, user_id: &UserId, limit: u32) -> Result<Vec<Lock>, Error> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM locks WHERE user_id = ?1 LIMIT ?2"))?
        .query_map(params![user_id.as_str(), limit], |row| read(connection, row))?
        .collect::<rusqlite::Result<_>>()?)
}

/// Whether a user has fewer live locks than this.
pub(super) fn has_fewer_than(
    connection: &Connection,
    user_id: &UserId,
    limit: u32,
    now: Timestamp,
) -> Result<bool, Error> {
    // From the index alone; that counts those, too, which have ended and are still there.
    let there: u32 = connection
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = ?1 LIMIT ?2)")?
        .query_row(params![user_id.as_str(), limit], |row| row.get(0))?;
    if there < limit {
        return Ok(true);
    }
    let live: u32 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = ?1 AND expires_at > ?2 LIMIT ?3)",
        )?
        .query_row(params![user_id.as_str(), now.0, limit], |row| row.get(0))?;
    Ok(live < limit)
}

/// Locks with which time has not had its say, the oldest first, at most so many of each kind.
pub(super) fn due(connection: &Connection, now: Timestamp, limit: u32) -> Result<Vec<Lock>, Error> {
    let mut due: Vec<Lock> = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM locks WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2"
        ))?
        .query_map(params![now.0, limit], |row| read(connection, row))?
        .collect::<rusqlite::Result<_>>()?;
    let to_grant = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM locks WHERE grant_at <= ?1 AND expires_at > ?1 ORDER BY grant_at LIMIT ?2"
        ))?
        .query_map(params![now.0, limit], |row| read(connection, row))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    due.extend(to_grant);
    Ok(due)
}

/// An instant that `query` looks up.
pub(super) fn least(connection: &Connection, query: &str) -> Result<Option<Timestamp>, Error> {
    let least: Option<i64> = connection.prepare_cached(query)?.query_row([], |row| row.get(0))?;
    Ok(least.map(Timestamp))
}

/// A row of [`COLUMNS`], with its knocks.
pub(super) fn read(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Lock> {
    let workspace_id = WorkspaceId::trusted(row.get(0)?);
    let knocks = match row.get::<_, i64>(13)? {
        0 => Knocks::default(),
        _ => read_knocks(connection, &workspace_id, row.get::<_, Option<i64>>(14)?.map(Timestamp))?,
    };
    Ok(Lock {
        user_id: UserId::trusted(row.get(1)?),
        user_name: row.get::<_, Option<String>>(2)?.map(DisplayName::trusted),
        session_id: row.get::<_, Option<String>>(3)?.map(SessionId::trusted),
        fence: Fence(row.get(4)?),
        acquired_at: Timestamp(row.get(5)?),
        renewed_at: Timestamp(row.get(6)?),
        last_active_at: Timestamp(row.get(7)?),
        expires_at: Timestamp(row.get(8)?),
        ttl: Ttl::from_millis(row.get(9)?),
        note: row.get(10)?,
        metadata: row.get(11)?,
        hold: match row.get(12)? {
            0 => Hold::Claimed,
            1 => Hold::Given,
            _ => Hold::GivenToPerson,
        },
        workspace_id,
        knocks,
    })
}

fn read_knocks(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    grant_at: Option<Timestamp>,
) -> rusqlite::Result<Knocks> {
    let mut knocks = Knocks { grant_at, ..Knocks::default() };
    let mut statement = connection.prepare_cached(
        "SELECT place, user_id, user_name, session_id, message, at FROM knocks WHERE workspace_id = ?1 ORDER BY place, at",
    )?;
    let mut rows = statement.query([workspace_id.as_str()])?;
    while let Some(row) = rows.next()? {
        let (user_id, at) = (UserId::trusted(row.get(1)?), Timestamp(row.get(5)?));
        if row.get::<_, i64>(0)? == 0 {
            knocks.declined.push(Declined { user_id, at });
        } else {
            knocks.pending.push(Knock {
                user_id,
                name: row.get::<_, Option<String>>(2)?.map(DisplayName::trusted),
                session_id: row.get::<_, Option<String>>(3)?.map(SessionId::trusted),
                message: row.get(4)?,
                knocked_at: at,
            });
        }
    }
    Ok(knocks)
}

/// The column `given`.
const fn given(hold: Hold) -> i64 {
    match hold {
        Hold::Claimed => 0,
        Hold::Given => 1,
        Hold::GivenToPerson => 2,
    }
}

/// Writes a lease that begins.
pub(super) fn put(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write.due_at(lock);
    write
        .connection()
        .prepare_cached(&format!(
            "INSERT INTO locks ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, NULL)"
        ))?
        .execute(params![
            lock.workspace_id.as_str(),
            lock.user_id.as_str(),
            lock.user_name.as_ref().map(DisplayName::as_str),
            lock.session_id.as_ref().map(SessionId::as_str),
            lock.fence.0,
            lock.acquired_at.0,
            lock.renewed_at.0,
            lock.last_active_at.0,
            lock.expires_at.0,
            lock.ttl.as_millis(),
            lock.note,
            lock.metadata,
            given(lock.hold),
        ])?;
    Ok(())
}

/// Writes what can change while a lease lasts.
pub(super) fn update(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write.due_at(lock);
    let knocks = lock.knocks.pending.len() + lock.knocks.declined.len();
    write
        .connection()
        .prepare_cached(
            "UPDATE locks SET user_name = ?2, session_id = ?3, renewed_at = ?4, last_active_at = ?5, expires_at = ?6,
             ttl_ms = ?7, note = ?8, metadata = ?9, given = ?10, knocks = ?11, grant_at = ?12 WHERE workspace_id = ?1",
        )?
        .execute(params![
            lock.workspace_id.as_str(),
            lock.user_name.as_ref().map(DisplayName::as_str),
            lock.session_id.as_ref().map(SessionId::as_str),
            lock.renewed_at.0,
            lock.last_active_at.0,
            lock.expires_at.0,
            lock.ttl.as_millis(),
            lock.note,
            lock.metadata,
            given(lock.hold),
            i64::try_from(knocks).unwrap_or(i64::MAX),
            lock.knocks.grant_at.map(|grant_at| grant_at.0),
        ])?;
    Ok(())
}

/// Writes a lease, with its knocks.
pub(super) fn update_knocks(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    update(write, lock)?;
    forget_knocks(write, &lock.workspace_id)?;
    let mut insert = write
        .connection()
        .prepare_cached("INSERT INTO knocks (workspace_id, place, user_id, user_name, session_id, message, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let workspace_id = lock.workspace_id.as_str();
    for declined in &lock.knocks.declined {
        let nothing: Option<&str> = None;
        insert.execute(params![
            workspace_id,
            0,
            declined.user_id.as_str(),
            nothing,
            nothing,
            nothing,
            declined.at.0
        ])?;
    }
    for (place, knock) in (1_i64..).zip(&lock.knocks.pending) {
        insert.execute(params![
            workspace_id,
            place,
            knock.user_id.as_str(),
            knock.name.as_ref().map(DisplayName::as_str),
            knock.session_id.as_ref().map(SessionId::as_str),
            knock.message,
            knock.knocked_at.0,
        ])?;
    }
    Ok(())
}

pub(super) fn delete(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    if !lock.knocks.is_empty() {
        forget_knocks(write, &lock.workspace_id)?;
    }
    write
        .connection()
        .prepare_cached("DELETE FROM locks WHERE workspace_id = ?1")?
        .execute([lock.workspace_id.as_str()])?;
    Ok(())
}

fn forget_knocks(write: &Write<'_>, workspace_id: &WorkspaceId) -> Result<(), Error> {
    write
        .connection()
        .prepare_cached("DELETE FROM knocks WHERE workspace_id = ?1")?
        .execute([workspace_id.as_str()])?;
    Ok(())
}
