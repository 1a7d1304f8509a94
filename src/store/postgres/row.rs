//! The columns that are read, and the conversion of rows.

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use crate::domain::event::{Event, EventType};
use crate::domain::grace::{RestartGrace, Run};
use crate::domain::knocks::{Declined, Knock, Knocks};
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Scope, Token, Validity};
use crate::domain::{
    DisplayName, Fence, GrantState, LastLease, Lock, LockKind, SessionId, UserId, WorkspaceId,
};
use crate::error::Error;
use crate::store::rows::WebhookPosition;
use crate::time::{Timestamp, Ttl, WallTime};

/// The columns of [`lock`].
macro_rules! locks {
    () => {
        "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata, given, knocks, grant_at, run, shown_at, grant_at_latest, check_at, kind, drain_until, for_name"
    };
}
/// The columns of [`knock`].
macro_rules! knocks {
    () => {
        "workspace_id, place, user_id, user_name, session_id, message, at, token_hash, good_until, kind, for_name"
    };
}
/// The columns of [`event`].
macro_rules! events {
    () => {
        "revision, workspace_id, type, at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, lease_at, drain_until, yielded"
    };
}
/// The columns of [`token`].
macro_rules! tokens {
    () => {
        "token_id, scope, user_id, name, created_at, expires_at, last_used_at, hash, agent"
    };
}
pub(super) use {events, knocks, locks, tokens};

/// The value of a column.
pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
        .map_err(|error| Error::Internal(format!("an unexpected column of PostgreSQL: {error}")))
}

pub(super) fn name(row: &Row, column: usize) -> Result<Option<DisplayName>, Error> {
    Ok(get::<Option<String>>(row, column)?.map(DisplayName::trusted))
}

pub(super) fn session(row: &Row, column: usize) -> Result<Option<SessionId>, Error> {
    Ok(get::<Option<String>>(row, column)?.map(SessionId::trusted))
}

fn user(row: &Row, column: usize) -> Result<Option<UserId>, Error> {
    Ok(get::<Option<String>>(row, column)?.map(UserId::trusted))
}

pub(super) fn kind(row: &Row, column: usize) -> Result<LockKind, Error> {
    let name: String = get(row, column)?;
    LockKind::parse(&name)
        .ok_or_else(|| Error::Internal(format!("the database has a lock of the unknown kind {name:?}")))
}

/// A lock without its knocks, and whether it has any.
pub(super) fn lock(row: &Row, grace: &RestartGrace) -> Result<(Lock, bool), Error> {
    let run = Run(get(row, 15)?);
    let due = |at: i64| grace.apply(run, Timestamp(at));
    let has_knocks = get::<i64>(row, 13)? > 0;
    let mut knocks = Knocks::default();
    if has_knocks {
        knocks.shown_at = get::<Option<i64>>(row, 16)?.map(Timestamp);
        knocks.grant_at = get::<Option<i64>>(row, 14)?.map(due);
        knocks.grant_at_latest = get::<Option<i64>>(row, 17)?.map(due);
    }
    let lock = Lock {
        workspace_id: WorkspaceId::trusted(get(row, 0)?),
        user_id: UserId::trusted(get(row, 1)?),
        user_name: name(row, 2)?,
        session_id: session(row, 3)?,
        fence: Fence(get(row, 4)?),
        acquired_at: Timestamp(get(row, 5)?),
        renewed_at: Timestamp(get(row, 6)?),
        last_active_at: Timestamp(get(row, 7)?),
        expires_at: due(get(row, 8)?),
        ttl: Ttl::from_millis(get(row, 9)?),
        note: get(row, 10)?,
        metadata: get(row, 11)?,
        grant_state: match get::<i64>(row, 12)? {
            0 => GrantState::Claimed,
            1 => GrantState::ToSession,
            3 => GrantState::InDoubt,
            _ => GrantState::ToUser,
        },
        knocks,
        check_at: Timestamp(get(row, 18)?),
        kind: kind(row, 19)?,
        drain_until: get::<Option<i64>>(row, 20)?.map(Timestamp),
        for_name: name(row, 21)?,
    };
    Ok((lock, has_knocks))
}

/// Adds a knock to those of a lock. The rows come in order of `place, at`.
pub(super) fn knock(row: &Row, knocks: &mut Knocks) -> Result<(), Error> {
    let (user_id, at) = (UserId::trusted(get(row, 2)?), Timestamp(get(row, 6)?));
    if get::<i64>(row, 1)? <= 0 {
        knocks.declined.push(Declined { kind: kind(row, 9)?, user_id, at });
        return Ok(());
    }
    knocks.pending.push(Knock {
        user_id,
        name: name(row, 3)?,
        for_name: name(row, 10)?,
        session_id: session(row, 4)?,
        message: get(row, 5)?,
        knocked_at: at,
        kind: kind(row, 9)?,
        validity: validity(get(row, 7)?, get(row, 8)?)?,
    });
    Ok(())
}

/// A validity from its columns.
pub(super) fn validity(token_hash: Option<Vec<u8>>, good_until: Option<i64>) -> Result<Validity, Error> {
    Ok(match (token_hash, good_until) {
        (Some(hash), _) => Validity::WhileTokenValid(hash_of(&hash)?),
        (None, Some(until)) => Validity::Until(WallTime(until)),
        (None, None) => Validity::Unlimited,
    })
}

/// The columns of a validity.
pub(super) fn validity_columns(validity: &Validity) -> (Option<Vec<u8>>, Option<i64>) {
    match validity {
        Validity::Unlimited => (None, None),
        Validity::Until(wall) => (None, Some(wall.0)),
        Validity::WhileTokenValid(hash) => (Some(hash.to_vec()), None),
    }
}

fn hash_of(bytes: &[u8]) -> Result<Hash, Error> {
    bytes.try_into().map_err(|_| Error::Internal("the database has a hash of the wrong length".to_owned()))
}

/// The lease that a workspace's newest event has ended, if it has.
pub(super) fn last_lease(row: &Row) -> Result<(WorkspaceId, Option<LastLease>), Error> {
    let (event, ended_at) = (event(row)?, Timestamp(get(row, 14)?));
    let drain_until = get::<Option<i64>>(row, 15)?.map(Timestamp);
    Ok((event.workspace_id.clone(), LastLease::of(event, ended_at, drain_until)))
}

/// A row of the columns `events!`.
pub(super) fn event(row: &Row) -> Result<Event, Error> {
    let type_name: String = get(row, 2)?;
    let Some(event_type) = EventType::parse(&type_name) else {
        return Err(Error::Internal(format!("the database has an event of the unknown type {type_name:?}")));
    };
    Ok(Event {
        revision: get(row, 0)?,
        workspace_id: WorkspaceId::trusted(get(row, 1)?),
        event_type,
        at: WallTime(get(row, 3)?),
        user_id: user(row, 4)?,
        session_id: session(row, 5)?,
        fence: get::<Option<i64>>(row, 6)?.map(Fence),
        next_fence: get::<Option<i64>>(row, 7)?.map(Fence),
        by_user_id: user(row, 8)?,
        by_name: name(row, 9)?,
        to_user_id: user(row, 10)?,
        message: get(row, 11)?,
        reclaimed: get(row, 12)?,
        kind: kind(row, 13)?,
        yielded: get(row, 16)?,
    })
}

/// A token, and its hash.
pub(super) fn token(row: &Row) -> Result<(Token, Vec<u8>), Error> {
    let scope: String = get(row, 1)?;
    let token = Token {
        token_id: get(row, 0)?,
        // A CHECK of the table allows no other scope.
        scope: Scope::parse(&scope).unwrap_or(Scope::Read),
        user_id: user(row, 2)?,
        name: name(row, 3)?,
        created_at: WallTime(get(row, 4)?),
        expires_at: get::<Option<i64>>(row, 5)?.map(WallTime),
        last_used_at: get::<Option<i64>>(row, 6)?.map(WallTime),
        is_agent: get(row, 8)?,
    };
    Ok((token, get(row, 7)?))
}

/// A row of the columns `workspace_id, name, created_at`.
pub(super) fn webhook(row: &Row) -> Result<WebhookPosition, Error> {
    Ok(WebhookPosition {
        name: get(row, 0)?,
        position: get(row, 1)?,
        owner: get(row, 2)?,
        until: Timestamp(get(row, 3)?),
        removed_at: get::<Option<i64>>(row, 4)?.map(Timestamp),
    })
}

pub(super) fn workspace(row: &Row) -> Result<Workspace, Error> {
    Ok(Workspace {
        workspace_id: WorkspaceId::trusted(get(row, 0)?),
        name: name(row, 1)?,
        created_at: WallTime(get(row, 2)?),
    })
}

/// A row of the columns `user_id, role`.
pub(super) fn member(row: &Row) -> Result<Member, Error> {
    let role: String = get(row, 1)?;
    Ok(Member { user_id: UserId::trusted(get(row, 0)?), role: Role::parse(&role).unwrap_or(Role::Viewer) })
}
