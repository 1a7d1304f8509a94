//! The locks: each function that takes a [`Write`] is one use case. It loads, lets [`decide`] decide, and writes what
//! was decided, with the events that tell of it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Write;
use super::events::{self, By, Happened};
use crate::error::Error;
use crate::lock::decide::{self, Change, Decision};
use crate::lock::event::{Ending, EventType, Lost};
use crate::lock::policy::Rules;
use crate::lock::{
    Acquire, Acquired, Authority, Beat, Claim, DisplayName, Fence, Heartbeat, Lock, Release, Released,
    SessionId, Stored, UserId, WorkspaceId,
};
use crate::time::{Timestamp, Ttl};

/// Somebody wants the lock.
///
/// # Errors
/// What SQLite refuses.
pub fn acquire(write: &Write<'_>, request: &Acquire, rules: &Rules) -> Result<Acquired, Error> {
    let stored = match load(write.connection(), &request.workspace_id)? {
        Some(lock) => Stored::Lock(lock),
        None => Stored::None { last: events::last_lease(write.connection(), &request.workspace_id)? },
    };
    let decision = decide::acquire(stored, request, rules, write.now(), write.fresh_fence());
    let by = By { user_id: request.user_id.clone(), name: request.user_name.clone() };
    apply(write, decision, Some(&by))
}

/// The holder renews the lease. When it cannot be renewed, the answer comes with how the caller's last lease ended.
///
/// # Errors
/// What SQLite refuses.
pub fn heartbeat(
    write: &Write<'_>,
    request: &Heartbeat,
    rules: &Rules,
) -> Result<(Beat, Option<Lost>), Error> {
    let claim = &request.claim;
    let decision = decide::heartbeat(stored(write, &claim.workspace_id)?, request, rules, write.now());
    let beat = apply(write, decision, None)?;
    let lost = match &beat {
        Beat::Renewed(_) => None,
        Beat::NotHolder { lock, .. } => lost(write, claim, Some(lock.fence))?,
        Beat::NoLock => lost(write, claim, None)?,
    };
    Ok((beat, lost))
}

/// A lease is given back, or ended by an administrator. When it cannot, the answer comes with how the caller's last
/// lease ended.
///
/// # Errors
/// What SQLite refuses.
pub fn release(
    write: &Write<'_>,
    request: &Release,
    rules: &Rules,
) -> Result<(Released, Option<Lost>), Error> {
    let claim = &request.claim;
    let decision = decide::release(stored(write, &claim.workspace_id)?, request, rules, write.now());
    let by = By { user_id: claim.user_id.clone(), name: request.user_name.clone() };
    let released = apply(write, decision, Some(&by))?;
    let lost = match &released {
        Released::Released(_) | Released::Nothing => None,
        Released::NotHolder { lock, .. } => lost(write, claim, Some(lock.fence))?,
    };
    Ok((released, lost))
}

/// How the last lease that the claimant had ended, other than the live one.
fn lost(write: &Write<'_>, claim: &Claim, live: Option<Fence>) -> Result<Option<Lost>, Error> {
    events::lost(write.connection(), &claim.workspace_id, &claim.user_id, live)
}

/// What [`release_user`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedSome {
    /// Live leases that ended.
    pub released: u32,
    /// Whether there may be more.
    pub more: bool,
}

/// Ends leases of `user_id`, at most `limit`, on behalf of `by`: their own, or an administrator.
///
/// # Errors
/// What SQLite refuses.
pub fn release_user(
    write: &Write<'_>,
    user_id: &UserId,
    by: &By,
    rules: &Rules,
    limit: u32,
) -> Result<ReleasedSome, Error> {
    let locks: Vec<Lock> = write
        .connection()
        .prepare_cached(&format!("SELECT {COLUMNS} FROM locks WHERE user_id = ?1 LIMIT ?2"))?
        .query_map(params![user_id.as_str(), limit], read_lock)?
        .collect::<rusqlite::Result<_>>()?;
    let more = locks.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let mut released = 0;
    for lock in locks {
        let claim = Claim {
            workspace_id: lock.workspace_id.clone(),
            user_id: by.user_id.clone(),
            session_id: None,
            fence: Some(lock.fence),
        };
        let request = Release { claim, user_name: by.name.clone(), authority: Authority::Administrator };
        let decision = decide::release(Stored::Lock(lock), &request, rules, write.now());
        match apply(write, decision, Some(by))? {
            Released::Released(_) => released += 1,
            Released::Nothing | Released::NotHolder { .. } => {}
        }
    }
    Ok(ReleasedSome { released, more })
}

/// Clears a lease of `workspace_id` away if its end has come.
///
/// # Errors
/// What SQLite refuses.
pub fn settle(write: &Write<'_>, workspace_id: &WorkspaceId) -> Result<(), Error> {
    apply(write, decide::sweep(stored(write, workspace_id)?, write.now()), None)
}

/// Clears leases away whose end has come, the oldest first, at most `limit`. Returns how many.
///
/// # Errors
/// What SQLite refuses.
pub fn sweep(write: &Write<'_>, limit: u32) -> Result<usize, Error> {
    let expired: Vec<Lock> = write
        .connection()
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM locks WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2"
        ))?
        .query_map(params![write.now().0, limit], read_lock)?
        .collect::<rusqlite::Result<_>>()?;
    let count = expired.len();
    for lock in expired {
        apply(write, decide::sweep(Stored::Lock(lock), write.now()), None)?;
    }
    Ok(count)
}

/// What a reader finds on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A live lock.
    Live(Lock),
    /// A lease whose end has come, which nobody has cleared away yet. For clients there is no lock.
    Expired,
    /// No lock.
    Free,
}

/// The lock of a workspace.
///
/// # Errors
/// What SQLite refuses.
pub fn get(connection: &Connection, workspace_id: &WorkspaceId, now: Timestamp) -> Result<Found, Error> {
    Ok(match load(connection, workspace_id)? {
        Some(lock) if lock.is_live(now) => Found::Live(lock),
        Some(_) => Found::Expired,
        None => Found::Free,
    })
}

/// Which locks are listed, by workspace id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only those of this user.
    pub user_id: Option<UserId>,
    /// Only workspaces whose id begins like this.
    pub prefix: String,
    /// Only workspaces after this one.
    pub after: String,
    /// At most so many.
    pub limit: usize,
}

/// The live locks that were asked for, and whether there are more.
///
/// # Errors
/// What SQLite refuses.
pub fn list(connection: &Connection, listing: &Listing, now: Timestamp) -> Result<(Vec<Lock>, bool), Error> {
    // Text compares byte by byte, so the ids with a prefix are neighbours that begin with the prefix itself.
    let (by_user, user_id) = match &listing.user_id {
        Some(user_id) => ("user_id = ?4 AND", user_id.as_str()),
        None => ("?4 = '' AND", ""),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM locks WHERE {by_user} workspace_id > ?1 AND workspace_id >= ?2 AND expires_at > ?3 ORDER BY workspace_id"
    ))?;
    let mut rows = statement.query(params![listing.after, listing.prefix, now.0, user_id])?;
    let mut locks = Vec::new();
    while let Some(row) = rows.next()? {
        let lock = read_lock(row)?;
        if !lock.workspace_id.as_str().starts_with(&listing.prefix) {
            break;
        }
        if locks.len() == listing.limit {
            return Ok((locks, true));
        }
        locks.push(lock);
    }
    Ok((locks, false))
}

/// How many live locks there are.
///
/// # Errors
/// What SQLite refuses.
pub fn count_live(connection: &Connection, now: Timestamp) -> Result<i64, Error> {
    Ok(connection
        .prepare_cached("SELECT count(*) FROM locks WHERE expires_at > ?1")?
        .query_row([now.0], |row| row.get(0))?)
}

/// When the next lease ends, or has ended and was not cleared away.
///
/// # Errors
/// What SQLite refuses.
pub fn next_end(connection: &Connection, _: Timestamp) -> Result<Option<Timestamp>, Error> {
    let end: Option<i64> =
        connection.prepare_cached("SELECT min(expires_at) FROM locks")?.query_row([], |row| row.get(0))?;
    Ok(end.map(Timestamp))
}

/// The lock of a workspace, for use cases that do not care who had it last.
fn stored(write: &Write<'_>, workspace_id: &WorkspaceId) -> Result<Stored, Error> {
    Ok(load(write.connection(), workspace_id)?.map_or(Stored::None { last: None }, Stored::Lock))
}

/// Writes what was decided, with the events that tell of it, and returns the outcome.
fn apply<T>(write: &Write<'_>, decision: Decision<T>, by: Option<&By>) -> Result<T, Error> {
    let now = write.now();
    let tell = |event_type, lock: &Lock, at, next_fence, by, reclaimed| {
        events::record(write, &Happened { event_type, at, lock, next_fence, by, reclaimed })
    };
    if let Some(expired) = decision.expired {
        delete(write, &expired)?;
        tell(EventType::Ended(Ending::Expired), &expired, expired.expires_at, None, None, false)?;
        write.count_expiry();
    }
    match decision.change {
        Change::Nothing => {}
        Change::Grant(lock) => {
            put(write, &lock)?;
            write.fence_given(lock.fence);
            tell(EventType::Acquired, &lock, now, None, by, false)?;
        }
        Change::Reclaim(lock) => {
            put(write, &lock)?;
            tell(EventType::Acquired, &lock, now, None, by, true)?;
        }
        Change::Renew(lock) => update(write, &lock)?,
        Change::End(lock, ending) => {
            delete(write, &lock)?;
            tell(EventType::Ended(ending), &lock, now, None, by, false)?;
        }
        Change::TakeOver { previous, lock } => {
            put(write, &lock)?;
            write.fence_given(lock.fence);
            tell(EventType::Ended(Ending::TakenOver), &previous, now, Some(lock.fence), by, false)?;
            write.count_takeover();
        }
    }
    Ok(decision.outcome)
}

const COLUMNS: &str = "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata";

fn load(connection: &Connection, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM locks WHERE workspace_id = ?1"))?
        .query_row([workspace_id.as_str()], read_lock)
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

/// A row of [`COLUMNS`].
fn read_lock(row: &Row<'_>) -> rusqlite::Result<Lock> {
    Ok(Lock {
        workspace_id: WorkspaceId::trusted(row.get(0)?),
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
    })
}

/// Writes a lease that begins, in place of the one before.
fn put(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write.ends_at(lock.expires_at);
    write
        .connection()
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO locks ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
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
        ])?;
    Ok(())
}

/// Writes what a renewal can change.
fn update(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write.ends_at(lock.expires_at);
    write
        .connection()
        .prepare_cached(
            "UPDATE locks SET user_name = ?2, session_id = ?3, renewed_at = ?4, last_active_at = ?5, expires_at = ?6,
             ttl_ms = ?7, note = ?8, metadata = ?9 WHERE workspace_id = ?1",
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
        ])?;
    Ok(())
}

fn delete(write: &Write<'_>, lock: &Lock) -> Result<(), Error> {
    write
        .connection()
        .prepare_cached("DELETE FROM locks WHERE workspace_id = ?1")?
        .execute([lock.workspace_id.as_str()])?;
    Ok(())
}
