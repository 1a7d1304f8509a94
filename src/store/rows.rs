//! The rows of the tables `locks` and `knocks`, read and written.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Read, Write};
use crate::domain::grace::Run;
use crate::domain::handoff::{Declined, Knock, Knocks};
use crate::domain::{DisplayName, Fence, Hold, Lock, SessionId, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, Ttl};

/// The columns that [`lock`] reads.
macro_rules! columns {
    () => {
        "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata, given, knocks, grant_at, run, shown_at, grant_at_latest"
    };
}
pub(super) use columns;

/// The lock of a workspace, whether it has ended or not.
pub(super) fn load(read: &Read<'_>, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
    Ok(read
        .connection()
        .prepare_cached(concat!("SELECT ", columns!(), " FROM locks WHERE workspace_id = ?1"))?
        .query_row([workspace_id.as_str()], |row| lock(read, row))
        .optional()?)
}

/// The live lock of this workspace with this fence, if there is one.
pub(super) fn with_fence(
    read: &Read<'_>,
    workspace_id: &WorkspaceId,
    fence: Fence,
) -> Result<Option<Lock>, Error> {
    Ok(load(read, workspace_id)?.filter(|lock| lock.fence == fence && lock.is_live(read.now())))
}

/// Locks by workspace id, after `after`, at most so many.
pub(super) fn after(read: &Read<'_>, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
    Ok(read
        .connection()
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM locks WHERE workspace_id > ?1 ORDER BY workspace_id LIMIT ?2"
        ))?
        .query_map(params![after, limit], |row| lock(read, row))?
        .collect::<rusqlite::Result<_>>()?)
}

/// Workspaces after `after` whose lock a user has, or may get because they were the first to knock; by id, at most so many.
pub(super) fn concerning(
    connection: &Connection,
    user_id: &UserId,
    after: &str,
    limit: usize,
) -> Result<BTreeSet<WorkspaceId>, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT workspace_id FROM locks WHERE user_id = ?1 AND workspace_id > ?2
             UNION
             SELECT workspace_id FROM knocks WHERE user_id = ?1 AND workspace_id > ?2 AND place = 1
             ORDER BY workspace_id LIMIT ?3",
        )?
        .query_map(params![user_id.as_str(), after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            row.get(0).map(WorkspaceId::trusted)
        })?
        .collect::<rusqlite::Result<_>>()?)
}

/// Whether a user has fewer live locks than this.
pub(super) fn has_fewer_than(read: &Read<'_>, user_id: &UserId, limit: u32) -> Result<bool, Error> {
    // From the index alone; that counts those, too, which have ended and are still there.
    let there: u32 = read
        .connection()
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = ?1 LIMIT ?2)")?
        .query_row(params![user_id.as_str(), limit], |row| row.get(0))?;
    if there < limit {
        return Ok(true);
    }
    let mut statement =
        read.connection().prepare_cached("SELECT run, expires_at FROM locks WHERE user_id = ?1")?;
    let mut rows = statement.query([user_id.as_str()])?;
    let mut live = 0;
    while live < limit
        && let Some(row) = rows.next()?
    {
        let end = read.grace().apply(Run(row.get(0)?), Timestamp(row.get(1)?));
        read.found_due(end);
        live += u32::from(read.now() < end);
    }
    Ok(live < limit)
}

/// Locks that are to be looked at, the most urgent first, at most so many.
pub(super) fn to_check(read: &Read<'_>, limit: u32) -> Result<Vec<Lock>, Error> {
    Ok(read
        .connection()
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM locks WHERE check_at <= ?1 ORDER BY check_at LIMIT ?2"
        ))?
        .query_map(params![read.now().0, limit], |row| lock(read, row))?
        .collect::<rusqlite::Result<_>>()?)
}

/// When the next lock is to be looked at. Nothing is due before.
pub(super) fn next_check(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    let next: Option<i64> =
        connection.prepare_cached("SELECT min(check_at) FROM locks")?.query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp))
}

/// How many rows there are, counted. It takes long when there are many.
pub(super) fn count(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("SELECT count(*) FROM locks")?.query_row([], |row| row.get(0))?)
}

/// A lock was looked at and has time left: it is looked at again when that is up.
pub(super) fn check_again(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write.due_at(lock);
    write
        .connection()
        .prepare_cached("UPDATE locks SET check_at = ?2 WHERE workspace_id = ?1")?
        .execute(params![lock.workspace_id.as_str(), lock.due_at().0])?;
    Ok(())
}

/// A row of `columns`, with its knocks.
pub(super) fn lock(read: &Read<'_>, row: &Row<'_>) -> rusqlite::Result<Lock> {
    let workspace_id = WorkspaceId::trusted(row.get(0)?);
    let run = Run(row.get(15)?);
    let due = |at: i64| read.grace().apply(run, Timestamp(at));
    let knocks = match row.get::<_, i64>(13)? {
        0 => Knocks::default(),
        _ => Knocks {
            shown_at: row.get::<_, Option<i64>>(16)?.map(Timestamp),
            grant_at: row.get::<_, Option<i64>>(14)?.map(due),
            grant_at_latest: row.get::<_, Option<i64>>(17)?.map(due),
            ..read_knocks(read.connection(), &workspace_id)?
        },
    };
    let lock = Lock {
        user_id: UserId::trusted(row.get(1)?),
        user_name: row.get::<_, Option<String>>(2)?.map(DisplayName::trusted),
        session_id: row.get::<_, Option<String>>(3)?.map(SessionId::trusted),
        fence: Fence(row.get(4)?),
        acquired_at: Timestamp(row.get(5)?),
        renewed_at: Timestamp(row.get(6)?),
        last_active_at: Timestamp(row.get(7)?),
        expires_at: due(row.get(8)?),
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
    };
    read.found_due(lock.due_at());
    Ok(lock)
}

fn read_knocks(connection: &Connection, workspace_id: &WorkspaceId) -> rusqlite::Result<Knocks> {
    let mut knocks = Knocks::default();
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
        .prepare_cached(concat!(
            "INSERT INTO locks (",
            columns!(),
            ", check_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, NULL, ?14, NULL, NULL, ?15)"
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
            write.run().0,
            lock.due_at().0,
        ])?;
    write.count_lock(1);
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
             ttl_ms = ?7, note = ?8, metadata = ?9, given = ?10, knocks = ?11, grant_at = ?12, run = ?13,
             shown_at = ?14, grant_at_latest = ?15 WHERE workspace_id = ?1",
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
            lock.knocks.grant_at.map(|at| at.0),
            write.run().0,
            lock.knocks.shown_at.map(|at| at.0),
            lock.knocks.grant_at_latest.map(|at| at.0),
        ])?;
    // The index is not touched unless what is due has come nearer.
    write
        .connection()
        .prepare_cached("UPDATE locks SET check_at = ?2 WHERE workspace_id = ?1 AND check_at > ?2")?
        .execute(params![lock.workspace_id.as_str(), lock.due_at().0])?;
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
    let deleted = write
        .connection()
        .prepare_cached("DELETE FROM locks WHERE workspace_id = ?1")?
        .execute([lock.workspace_id.as_str()])?;
    if deleted > 0 {
        write.count_lock(-1);
    }
    Ok(())
}

fn forget_knocks(write: &Write<'_>, workspace_id: &WorkspaceId) -> Result<(), Error> {
    write
        .connection()
        .prepare_cached("DELETE FROM knocks WHERE workspace_id = ?1")?
        .execute([workspace_id.as_str()])?;
    Ok(())
}
