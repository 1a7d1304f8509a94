//! The columns that are read, and the conversion of rows.

use rusqlite::{Connection, Row};

use super::tables::Tables;
use crate::domain::event::{Event, EventType};
use crate::domain::grace::Run;
use crate::domain::knocks::{Declined, Knock, Knocks};
use crate::domain::member::Workspace;
use crate::domain::token::Validity;
use crate::domain::token::{Scope, Token};
use crate::domain::{DisplayName, Fence, GrantState, Lock, SessionId, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, Ttl, WallTime};

/// The columns of [`lock`].
macro_rules! locks {
    () => {
        "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata, given, knocks, grant_at, run, shown_at, grant_at_latest, check_at"
    };
}
/// The columns of [`event`].
macro_rules! events {
    () => {
        "revision, workspace_id, type, at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed"
    };
}
/// The columns of [`token`].
macro_rules! tokens {
    () => {
        "token_id, scope, user_id, name, created_at, expires_at, last_used_at"
    };
}
pub(super) use {events, locks, tokens};

/// Reads a row of the columns `locks!`, with its knocks.
pub(super) fn lock(tables: &Tables<'_>, row: &Row<'_>) -> rusqlite::Result<Lock> {
    let workspace_id = WorkspaceId::trusted(row.get(0)?);
    let run = Run(row.get(15)?);
    let due = |at: i64| tables.grace().apply(run, Timestamp(at));
    let knocks = match row.get::<_, i64>(13)? {
        0 => Knocks::default(),
        _ => Knocks {
            shown_at: row.get::<_, Option<i64>>(16)?.map(Timestamp),
            grant_at: row.get::<_, Option<i64>>(14)?.map(due),
            grant_at_latest: row.get::<_, Option<i64>>(17)?.map(due),
            ..knocks_of(tables.connection(), &workspace_id)?
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
        grant_state: match row.get(12)? {
            0 => GrantState::Claimed,
            1 => GrantState::ToSession,
            _ => GrantState::ToUser,
        },
        workspace_id,
        knocks,
        check_at: Timestamp(row.get(18)?),
    };
    tables.found_due(lock.due_at());
    Ok(lock)
}

fn knocks_of(connection: &Connection, workspace_id: &WorkspaceId) -> rusqlite::Result<Knocks> {
    let mut knocks = Knocks::default();
    let mut statement = connection.prepare_cached(
        "SELECT place, user_id, user_name, session_id, message, at, token_hash, good_until FROM knocks
         WHERE workspace_id = ?1 ORDER BY place, at",
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
                validity: match (row.get(6)?, row.get::<_, Option<i64>>(7)?) {
                    (Some(hash), _) => Validity::WhileTokenValid(hash),
                    (None, Some(until)) => Validity::Until(WallTime(until)),
                    (None, None) => Validity::Unlimited,
                },
            });
        }
    }
    Ok(knocks)
}

/// Reads a row of the columns `events!`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Result<Event, Error>> {
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

/// Reads a row of the columns `tokens!`.
pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let scope: String = row.get(1)?;
    Ok(Token {
        token_id: row.get(0)?,
        // A CHECK of the table allows no other scope.
        scope: Scope::parse(&scope).unwrap_or(Scope::Read),
        user_id: row.get::<_, Option<String>>(2)?.map(UserId::trusted),
        // An older version stored names without visible characters.
        name: row.get::<_, Option<String>>(3)?.and_then(|name| DisplayName::parse(&name).ok().flatten()),
        created_at: WallTime(row.get(4)?),
        expires_at: row.get::<_, Option<i64>>(5)?.map(WallTime),
        last_used_at: row.get::<_, Option<i64>>(6)?.map(WallTime),
    })
}

/// Reads a row of the columns `workspace_id, name, created_at`.
pub(super) fn workspace(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace {
        workspace_id: WorkspaceId::trusted(row.get(0)?),
        // An older version stored names without visible characters.
        name: row.get::<_, Option<String>>(1)?.and_then(|name| DisplayName::parse(&name).ok().flatten()),
        created_at: WallTime(row.get(2)?),
    })
}
