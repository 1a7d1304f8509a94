//! The history: what is written into `events`, and what is read from it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::locks::Stepped;
use super::note::Note;
use super::{Read, Write};
use crate::domain::event::{Event, EventType, Lost};
use crate::domain::{DisplayName, Fence, LastLease, Lock, SessionId, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, WallTime};

/// The columns that `read_event` reads.
macro_rules! columns {
    () => {
        "revision, workspace_id, type, at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed"
    };
}
pub(super) use columns;

/// Who did something, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Their id.
    pub user_id: UserId,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// Why, if they say.
    pub reason: Option<String>,
}

impl Author {
    /// They, without a reason.
    #[must_use]
    pub const fn person(user_id: UserId, name: Option<DisplayName>) -> Self {
        Self { user_id, name, reason: None }
    }
}

/// What is written of an event; its revision is given by [`record`].
pub(super) struct NewEvent<'a> {
    pub event_type: EventType,
    pub at: Timestamp,
    pub workspace_id: &'a WorkspaceId,
    pub user_id: Option<&'a UserId>,
    pub session_id: Option<&'a SessionId>,
    pub fence: Option<Fence>,
    pub next_fence: Option<Fence>,
    pub by: Option<&'a Author>,
    pub to: Option<&'a UserId>,
    pub message: Option<&'a str>,
    pub reclaimed: bool,
}

impl<'a> NewEvent<'a> {
    /// Something that happened to this lease.
    pub(super) const fn to(lock: &'a Lock, event_type: EventType, at: Timestamp) -> Self {
        Self {
            session_id: lock.session_id.as_ref(),
            fence: Some(lock.fence),
            ..Self::without_lease(&lock.workspace_id, Some(&lock.user_id), event_type, at)
        }
    }

    /// Something that happened to no lease.
    pub(super) const fn without_lease(
        workspace_id: &'a WorkspaceId,
        user_id: Option<&'a UserId>,
        event_type: EventType,
        at: Timestamp,
    ) -> Self {
        Self {
            event_type,
            at,
            workspace_id,
            user_id,
            session_id: None,
            fence: None,
            next_fence: None,
            by: None,
            to: None,
            message: None,
            reclaimed: false,
        }
    }
}

/// Writes an event down. It is logged once that is committed.
pub(super) fn record(write: &Write<'_>, happened: &NewEvent<'_>) -> Result<(), Error> {
    write
        .connection()
        .prepare_cached(
            "INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            write.next_revision(),
            happened.workspace_id.as_str(),
            happened.event_type.as_str(),
            write.wall_at(happened.at).0,
            happened.at.0,
            happened.user_id.map(UserId::as_str),
            happened.session_id.map(SessionId::as_str),
            happened.fence.map(|fence| fence.0),
            happened.next_fence.map(|fence| fence.0),
            happened.by.map(|by| by.user_id.as_str()),
            happened.by.and_then(|by| by.name.as_ref()).map(DisplayName::as_str),
            happened.to.map(UserId::as_str),
            happened.message,
            happened.reclaimed,
        ])?;
    write.note(Note::of_event(happened));
    Ok(())
}

/// The lease that ended last on a workspace without a lock, as far as the history goes back.
pub(super) fn last_lease(
    connection: &Connection,
    workspace_id: &WorkspaceId,
) -> Result<Option<LastLease>, Error> {
    let newest = connection
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            ", lease_at FROM events WHERE workspace_id = ?1 AND fence IS NOT NULL
             ORDER BY revision DESC LIMIT 1"
        ))?
        .query_row([workspace_id.as_str()], |row| Ok((read_event(row)?, Timestamp(row.get(13)?))))
        .optional()?;
    let Some((event, ended_at)) = newest else { return Ok(None) };
    let event = event?;
    Ok(match (event.event_type, event.user_id, event.fence) {
        (EventType::Ended(ending), Some(user_id), Some(fence)) => {
            Some(LastLease { user_id, session_id: event.session_id, fence, ending, ended_at })
        }
        _ => None,
    })
}

/// How the last lease that `user_id` had on a workspace ended, other than the live one. Nothing if they never had
/// one, or it is forgotten.
pub(super) fn lost(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    live: Option<Fence>,
) -> Result<Option<Lost>, Error> {
    let event = connection
        .prepare_cached(concat!("SELECT ", columns!(), " FROM events
             WHERE workspace_id = ?1 AND user_id = ?2
             AND type NOT IN ('lock.acquired', 'lock.knocked', 'lock.knock_declined') AND fence IS NOT NULL AND fence IS NOT ?3
             ORDER BY revision DESC LIMIT 1"))?
        .query_row(params![workspace_id.as_str(), user_id.as_str(), live.map(|fence| fence.0)], read_event)
        .optional()?
        .transpose()?;
    Ok(event.and_then(|event| match (event.event_type, event.fence) {
        (EventType::Ended(ending), Some(fence)) => Some(Lost {
            ending,
            fence,
            session_id: event.session_id,
            next_fence: event.next_fence,
            at: event.at,
            by_user_id: event.by_user_id,
            by_name: event.by_name,
        }),
        _ => None,
    }))
}

/// The revision of the last deletion of a workspace as far as the history goes back; 0 if there is none. Events up to it are
/// of a workspace that is gone.
///
/// # Errors
/// What SQLite refuses.
pub fn last_deletion(connection: &Connection, workspace_id: &WorkspaceId) -> Result<i64, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(max(revision), 0) FROM events WHERE workspace_id = ?1 AND type = 'workspace.deleted'",
        )?
        .query_row([workspace_id.as_str()], |row| row.get(0))?)
}

/// The events of a workspace after revision `after` and before `before`, newest first, at most `limit`.
///
/// # Errors
/// [`Error::Internal`] when SQLite cannot, or a row is not what this program writes.
pub fn history(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    after: i64,
    before: i64,
    limit: u32,
) -> Result<Vec<Event>, Error> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM events WHERE workspace_id = ?1 AND revision > ?2 AND revision < ?3 ORDER BY revision DESC LIMIT ?4"
        ))?
        .query_map(params![workspace_id.as_str(), after, before, limit], read_event)?
        .map(|row| row?)
        .collect()
}

/// How far the history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The first revision that is kept; the one after the last when none is.
    pub first: i64,
    /// The last revision that was given out.
    pub last: i64,
}

/// How far the history goes.
///
/// # Errors
/// What SQLite refuses.
pub fn kept(connection: &Connection) -> Result<Kept, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce((SELECT min(revision) FROM events), last_revision + 1), last_revision FROM meta",
        )?
        .query_row([], |row| Ok(Kept { first: row.get(0)?, last: row.get(1)? }))?)
}

/// The events after revision `after`, of all workspaces, oldest first, at most `limit`; each with the lock that it
/// began, or is asked for with it, if that is still there.
///
/// # Errors
/// As [`history`].
pub fn after(read: &Read<'_>, after: i64, limit: u32) -> Result<Vec<(Event, Option<Lock>)>, Error> {
    read.connection()
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM events WHERE revision > ?1 ORDER BY revision LIMIT ?2"
        ))?
        .query_map(params![after, limit], read_event)?
        .map(|row| {
            let event = row??;
            let began = match event.event_type {
                EventType::Acquired | EventType::Knocked | EventType::KnockDeclined => event.fence,
                EventType::Ended(_) => event.next_fence,
            };
            let lock = began
                .map(|fence| super::rows::with_fence(read, &event.workspace_id, fence))
                .transpose()?
                .flatten();
            Ok((event, lock))
        })
        .collect()
}

/// Forgets events that happened before `before`, from the oldest on, at most `rows`.
///
/// What is newest of a workspace is forgotten last, so that who had it last is never mistaken.
///
/// # Errors
/// What SQLite refuses.
pub fn trim(write: &Write<'_>, before: Timestamp, rows: u32) -> Result<Stepped, Error> {
    let done = write
        .connection()
        .prepare_cached(
            "DELETE FROM events WHERE lease_at < ?1
             AND revision IN (SELECT revision FROM events ORDER BY revision LIMIT ?2)",
        )?
        .execute(params![before.0, rows])?;
    Ok(Stepped { done, more: done >= usize::try_from(rows).unwrap_or(usize::MAX) })
}

/// A row of `columns`.
pub(super) fn read_event(row: &Row<'_>) -> rusqlite::Result<Result<Event, Error>> {
    let name: String = row.get(2)?;
    let Some(event_type) = EventType::parse(&name) else {
        return Ok(Err(Error::Internal(format!("the database has an event of the unknown type {name:?}"))));
    };
    Ok(Ok(Event {
        revision: row.get(0)?,
        workspace_id: WorkspaceId::trusted(row.get(1)?),
        event_type,
        at: WallTime(row.get(3)?),
        user_id: row.get::<_, Option<String>>(4)?.map(UserId::trusted),
        session_id: row.get::<_, Option<String>>(5)?.map(SessionId::trusted),
        fence: row.get::<_, Option<i64>>(6)?.map(Fence),
        next_fence: row.get::<_, Option<i64>>(7)?.map(Fence),
        by_user_id: row.get::<_, Option<String>>(8)?.map(UserId::trusted),
        by_name: row.get::<_, Option<String>>(9)?.map(DisplayName::trusted),
        to_user_id: row.get::<_, Option<String>>(10)?.map(UserId::trusted),
        message: row.get(11)?,
        reclaimed: row.get(12)?,
    }))
}
