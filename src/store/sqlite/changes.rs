//! The row functions that write.

use rusqlite::params;

use super::row;
use super::tables::Tables;
use crate::domain::event::NewEvent;
use crate::domain::member::{Member, Workspace};
use crate::domain::token::{Hash, Scope, Token, Validity};
use crate::domain::{DisplayName, Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::rows::{Changes, WebhookPosition};
use crate::time::{Timestamp, WallTime};

impl Tables<'_> {
    fn delete_knocks(&self, workspace_id: &WorkspaceId) -> Result<(), Error> {
        self.execute("DELETE FROM knocks WHERE workspace_id = ?1", [workspace_id]).map(drop)
    }

    /// Updates `check_at`, and so the index, only if the next expiry or grant has become earlier.
    fn lower_check_at(&self, lock: &Lock) -> Result<(), Error> {
        if lock.due_at() < lock.check_at {
            self.set_check_at(&lock.workspace_id, lock.due_at())?;
        }
        Ok(())
    }
}

impl Changes for Tables<'_> {
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.execute(concat!(
                "INSERT INTO locks (",
                row::locks!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, NULL, ?14, NULL, NULL, ?15, ?16, ?17, ?18)"), params![
                lock.workspace_id,
                lock.user_id,
                lock.user_name,
                lock.session_id,
                lock.fence,
                lock.acquired_at,
                lock.renewed_at,
                lock.last_active_at,
                lock.expires_at,
                lock.ttl,
                lock.note,
                lock.metadata,
                lock.grant_state,
                self.grace().run(),
                lock.due_at(),
                lock.kind,
                lock.drain_until,
                lock.for_name,
            ]).map(drop)
    }

    fn update_lock(&self, lock: &Lock) -> Result<(), Error> {
        let knocks = lock.knocks.pending.len() + lock.knocks.declined.len();
        self.execute(
                "UPDATE locks SET user_name = ?2, session_id = ?3, renewed_at = ?4, last_active_at = ?5, expires_at = ?6,
                 ttl_ms = ?7, note = ?8, metadata = ?9, given = ?10, knocks = ?11, grant_at = ?12, run = ?13,
                 shown_at = ?14, grant_at_latest = ?15, for_name = ?16 WHERE workspace_id = ?1", params![
                lock.workspace_id,
                lock.user_name,
                lock.session_id,
                lock.renewed_at,
                lock.last_active_at,
                lock.expires_at,
                lock.ttl,
                lock.note,
                lock.metadata,
                lock.grant_state,
                i64::try_from(knocks).unwrap_or(i64::MAX),
                lock.knocks.grant_at,
                self.grace().run(),
                lock.knocks.shown_at,
                lock.knocks.grant_at_latest,
                lock.for_name,
            ])?;
        self.lower_check_at(lock)
    }

    fn update_lock_times(&self, lock: &Lock) -> Result<(), Error> {
        self.execute(
            "UPDATE locks SET renewed_at = ?2, last_active_at = ?3, expires_at = ?4, ttl_ms = ?5, run = ?6
             WHERE workspace_id = ?1",
            params![
                lock.workspace_id,
                lock.renewed_at,
                lock.last_active_at,
                lock.expires_at,
                lock.ttl,
                self.grace().run(),
            ],
        )?;
        self.lower_check_at(lock)
    }

    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.update_lock(lock)?;
        self.delete_knocks(&lock.workspace_id)?;
        let mut insert = self.connection().prepare_cached(
            "INSERT INTO knocks (workspace_id, place, user_id, user_name, session_id, message, at, token_hash, good_until, kind, for_name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let workspace_id = &lock.workspace_id;
        for declined in &lock.knocks.declined {
            let (nothing, user_id) = (None::<&str>, &declined.user_id);
            insert.execute(params![
                workspace_id,
                if declined.kind.is_agent() { -1 } else { 0 },
                user_id,
                nothing,
                nothing,
                nothing,
                declined.at,
                nothing,
                nothing,
                declined.kind,
                nothing,
            ])?;
        }
        for (place, knock) in (1_i64..).zip(&lock.knocks.pending) {
            let (token_hash, good_until) = match &knock.validity {
                Validity::Unlimited => (None, None),
                Validity::Until(wall) => (None, Some(wall)),
                Validity::WhileTokenValid(hash) => (Some(hash), None),
            };
            insert.execute(params![
                workspace_id,
                place,
                knock.user_id,
                knock.name,
                knock.session_id,
                knock.message,
                knock.knocked_at,
                token_hash,
                good_until,
                knock.kind,
                knock.for_name,
            ])?;
        }
        Ok(())
    }

    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error> {
        self.execute(
            "UPDATE locks SET check_at = ?2 WHERE workspace_id = ?1",
            params![workspace_id, check_at],
        )
        .map(drop)
    }

    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error> {
        if !lock.knocks.is_empty() {
            self.delete_knocks(&lock.workspace_id)?;
        }
        self.execute("DELETE FROM locks WHERE workspace_id = ?1", [&lock.workspace_id])
            .map(|deleted| deleted > 0)
    }

    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error> {
        self.execute(
                "INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, drain_until, yielded)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)", params![
                revision,
                event.workspace_id,
                event.event_type,
                at,
                event.at,
                event.user_id,
                event.session_id,
                event.fence,
                event.next_fence,
                event.by.map(|by| &by.user_id),
                event.by.and_then(|by| by.name.as_ref()),
                event.to,
                event.message,
                event.reclaimed,
                event.kind,
                event.drain_until,
                event.yielded,
            ]).map(drop)
    }

    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error> {
        self.execute(
            "DELETE FROM events WHERE lease_at < ?1 AND coalesce(drain_until <= ?3, TRUE)
                 AND revision IN (SELECT revision FROM events ORDER BY revision LIMIT ?2)",
            params![before, limit, Tables::now(self)],
        )
    }

    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error> {
        Ok(self
            .connection()
            .prepare_cached(
                "INSERT INTO workspaces (workspace_id, name, created_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (workspace_id) DO UPDATE SET name = iif(?4, excluded.name, name)
                 RETURNING workspace_id, name, created_at",
            )?
            .query_row(params![workspace_id, name, created_at, anew], row::workspace)?)
    }

    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error> {
        self.execute("DELETE FROM workspaces WHERE workspace_id = ?1", [workspace_id])
            .map(|deleted| deleted > 0)
    }

    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error> {
        self.execute(
            "INSERT INTO members (workspace_id, user_id, role) VALUES (?1, ?2, ?3)
                 ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role",
            params![workspace_id, member.user_id, member.role],
        )
        .map(drop)
    }

    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error> {
        self.execute(
            "DELETE FROM members WHERE workspace_id = ?1 AND user_id = ?2",
            params![workspace_id, user_id],
        )
        .map(|deleted| deleted > 0)
    }

    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.execute(
            concat!(
                "INSERT INTO tokens (",
                row::tokens!(),
                ", hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ),
            params![
                token.token_id,
                token.scope,
                token.user_id,
                token.name,
                token.created_at,
                token.expires_at,
                token.last_used_at,
                token.is_agent,
                hash,
            ],
        )
        .map(drop)
    }

    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error> {
        self.first(
            concat!(
                "DELETE FROM tokens WHERE token_id = ?1 AND (?2 IS NULL OR scope = ?2) RETURNING ",
                row::tokens!()
            ),
            params![token_id, only],
            row::token,
        )
    }

    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error> {
        self.execute("UPDATE tokens SET last_used_at = ?2 WHERE token_id = ?1", params![token_id, at])
            .map(drop)
    }

    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error> {
        self.execute(
                "DELETE FROM tokens WHERE token_id IN (SELECT token_id FROM tokens WHERE expires_at < ?1 LIMIT ?2)", params![before, limit])
    }
    fn put_webhook(&self, webhook: &WebhookPosition) -> Result<(), Error> {
        self.execute(
            "INSERT INTO webhooks (name, position, owner, until, removed_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET position = excluded.position, owner = excluded.owner,
                 until = excluded.until, removed_at = excluded.removed_at",
            params![webhook.name, webhook.position, webhook.owner, webhook.until, webhook.removed_at],
        )
        .map(drop)
    }

    fn delete_webhook(&self, name: &str) -> Result<(), Error> {
        self.execute("DELETE FROM webhooks WHERE name = ?1", [name]).map(drop)
    }
}
