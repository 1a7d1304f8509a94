//! The columns that are read, and the conversion of rows.

use rusqlite::{Connection, Row};

use super::tables::Tables;
use crate::domain::event::Event;
use crate::domain::knocks::{Declined, Knock, Knocks};
use crate::domain::member::Workspace;
use crate::domain::token::{Token, Validity};
use crate::domain::{DisplayName, Lock, WorkspaceId};
use crate::store::rows::WebhookPosition;

/// The columns of [`lock`]; with an argument, the query of them that ends like this.
macro_rules! locks {
    () => {
        "workspace_id, user_id, user_name, session_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, note, metadata, given, knocks, grant_at, run, shown_at, grant_at_latest, check_at, kind, drain_until, for_name"
    };
    ($rest:literal) => {
        concat!("SELECT ", row::locks!(), " FROM locks ", $rest)
    };
}
/// The same for [`event`].
macro_rules! events {
    () => {
        "revision, workspace_id, type, at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, yielded"
    };
    ($rest:literal) => {
        concat!("SELECT ", row::events!(), " FROM events ", $rest)
    };
}
/// The same for [`token`].
macro_rules! tokens {
    () => {
        "token_id, scope, user_id, name, created_at, expires_at, last_used_at, agent"
    };
    ($rest:literal) => {
        concat!("SELECT ", row::tokens!(), " FROM tokens ", $rest)
    };
}
pub(super) use {events, locks, tokens};

/// Reads a row of the columns `locks!`, with its knocks.
pub(super) fn lock(tables: &Tables<'_>, row: &Row<'_>) -> rusqlite::Result<Lock> {
    let workspace_id: WorkspaceId = row.get(0)?;
    let run = row.get(15)?;
    let due = |at| tables.grace().apply(run, at);
    let knocks = match row.get::<_, i64>(13)? {
        0 => Knocks::default(),
        _ => Knocks {
            shown_at: row.get(16)?,
            grant_at: row.get::<_, Option<_>>(14)?.map(due),
            grant_at_latest: row.get::<_, Option<_>>(17)?.map(due),
            ..knocks_of(tables.connection(), &workspace_id)?
        },
    };
    let lock = Lock {
        user_id: row.get(1)?,
        user_name: row.get(2)?,
        session_id: row.get(3)?,
        fence: row.get(4)?,
        acquired_at: row.get(5)?,
        renewed_at: row.get(6)?,
        last_active_at: row.get(7)?,
        expires_at: due(row.get(8)?),
        ttl: row.get(9)?,
        note: row.get(10)?,
        metadata: row.get(11)?,
        grant_state: row.get(12)?,
        workspace_id,
        knocks,
        check_at: row.get(18)?,
        kind: row.get(19)?,
        drain_until: row.get(20)?,
        for_name: row.get(21)?,
    };
    tables.found_due(lock.due_at());
    Ok(lock)
}

fn knocks_of(connection: &Connection, workspace_id: &WorkspaceId) -> rusqlite::Result<Knocks> {
    let mut knocks = Knocks::default();
    let mut statement = connection.prepare_cached(
        "SELECT place, user_id, user_name, session_id, message, at, token_hash, good_until, kind, for_name FROM knocks
         WHERE workspace_id = ?1 ORDER BY place, at",
    )?;
    let mut rows = statement.query([workspace_id])?;
    while let Some(row) = rows.next()? {
        let (user_id, at) = (row.get(1)?, row.get(5)?);
        if row.get::<_, i64>(0)? <= 0 {
            knocks.declined.push(Declined { kind: row.get(8)?, user_id, at });
        } else {
            knocks.pending.push(Knock {
                kind: row.get(8)?,
                user_id,
                name: row.get(2)?,
                for_name: row.get(9)?,
                session_id: row.get(3)?,
                message: row.get(4)?,
                knocked_at: at,
                validity: match (row.get(6)?, row.get(7)?) {
                    (Some(hash), _) => Validity::WhileTokenValid(hash),
                    (None, Some(until)) => Validity::Until(until),
                    (None, None) => Validity::Unlimited,
                },
            });
        }
    }
    Ok(knocks)
}

/// Reads a row of the columns `events!`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        revision: row.get(0)?,
        workspace_id: row.get(1)?,
        event_type: row.get(2)?,
        at: row.get(3)?,
        user_id: row.get(4)?,
        session_id: row.get(5)?,
        fence: row.get(6)?,
        next_fence: row.get(7)?,
        by_user_id: row.get(8)?,
        by_name: row.get(9)?,
        to_user_id: row.get(10)?,
        message: row.get(11)?,
        reclaimed: row.get(12)?,
        kind: row.get(13)?,
        yielded: row.get(14)?,
    })
}

/// Reads a row of the columns `tokens!`.
pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        token_id: row.get(0)?,
        scope: row.get(1)?,
        user_id: row.get(2)?,
        name: visible_name(row, 3)?,
        created_at: row.get(4)?,
        expires_at: row.get(5)?,
        last_used_at: row.get(6)?,
        is_agent: row.get(7)?,
    })
}

/// Reads a row of the columns `workspace_id, name, created_at`.
pub(super) fn workspace(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace { workspace_id: row.get(0)?, name: visible_name(row, 1)?, created_at: row.get(2)? })
}

/// Reads a row of the columns `name, position, owner, until, removed_at`.
pub(super) fn webhook(row: &Row<'_>) -> rusqlite::Result<WebhookPosition> {
    Ok(WebhookPosition {
        name: row.get(0)?,
        position: row.get(1)?,
        owner: row.get(2)?,
        until: row.get(3)?,
        removed_at: row.get(4)?,
    })
}

/// A name in this column. An older version stored names without visible characters; they are left out.
fn visible_name(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<DisplayName>> {
    let name: Option<String> = row.get(column)?;
    Ok(name.and_then(|name| DisplayName::parse(&name).ok().flatten()))
}
