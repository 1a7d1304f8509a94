//! The row functions that write.

use rusqlite::{OptionalExtension, params};

use super::row;
use super::tables::Tables;
use crate::domain::event::NewEvent;
use crate::domain::member::{Member, Workspace};
use crate::domain::token::Validity;
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{DisplayName, GrantState, Lock, SessionId, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::rows::Changes;
use crate::time::{Timestamp, WallTime};

/// The value of the column `given`.
const fn given(grant_state: GrantState) -> i64 {
    match grant_state {
        GrantState::Claimed => 0,
        GrantState::ToSession => 1,
        GrantState::ToUser => 2,
    }
}

impl Tables<'_> {
    fn delete_knocks(&self, workspace_id: &WorkspaceId) -> Result<(), Error> {
        self.connection()
            .prepare_cached("DELETE FROM knocks WHERE workspace_id = ?1")?
            .execute([workspace_id.as_str()])?;
        Ok(())
    }
}

impl Changes for Tables<'_> {
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.connection()
            .prepare_cached(concat!(
                "INSERT INTO locks (",
                row::locks!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, NULL, ?14, NULL, NULL, ?15)"
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
                given(lock.grant_state),
                self.grace().run().0,
                lock.due_at().0,
            ])?;
        Ok(())
    }

    fn update_lock(&self, lock: &Lock) -> Result<(), Error> {
        let knocks = lock.knocks.pending.len() + lock.knocks.declined.len();
        self.connection()
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
                given(lock.grant_state),
                i64::try_from(knocks).unwrap_or(i64::MAX),
                lock.knocks.grant_at.map(|at| at.0),
                self.grace().run().0,
                lock.knocks.shown_at.map(|at| at.0),
                lock.knocks.grant_at_latest.map(|at| at.0),
            ])?;
        // The index is not updated unless the next expiry or grant has become earlier.
        if lock.due_at() < lock.check_at {
            self.set_check_at(&lock.workspace_id, lock.due_at())?;
        }
        Ok(())
    }

    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.update_lock(lock)?;
        self.delete_knocks(&lock.workspace_id)?;
        let mut insert = self.connection().prepare_cached(
            "INSERT INTO knocks (workspace_id, place, user_id, user_name, session_id, message, at, token_hash, good_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        let workspace_id = lock.workspace_id.as_str();
        for declined in &lock.knocks.declined {
            let (nothing, user_id) = (None::<&str>, declined.user_id.as_str());
            insert.execute(params![
                workspace_id,
                0,
                user_id,
                nothing,
                nothing,
                nothing,
                declined.at.0,
                nothing,
                nothing
            ])?;
        }
        for (place, knock) in (1_i64..).zip(&lock.knocks.pending) {
            let (token_hash, good_until) = match &knock.validity {
                Validity::Unlimited => (None, None),
                Validity::Until(wall) => (None, Some(wall.0)),
                Validity::WhileTokenValid(hash) => (Some(hash), None),
            };
            insert.execute(params![
                workspace_id,
                place,
                knock.user_id.as_str(),
                knock.name.as_ref().map(DisplayName::as_str),
                knock.session_id.as_ref().map(SessionId::as_str),
                knock.message,
                knock.knocked_at.0,
                token_hash,
                good_until,
            ])?;
        }
        Ok(())
    }

    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error> {
        self.connection()
            .prepare_cached("UPDATE locks SET check_at = ?2 WHERE workspace_id = ?1")?
            .execute(params![workspace_id.as_str(), check_at.0])?;
        Ok(())
    }

    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error> {
        if !lock.knocks.is_empty() {
            self.delete_knocks(&lock.workspace_id)?;
        }
        let deleted = self
            .connection()
            .prepare_cached("DELETE FROM locks WHERE workspace_id = ?1")?
            .execute([lock.workspace_id.as_str()])?;
        Ok(deleted > 0)
    }

    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error> {
        self.connection()
            .prepare_cached(
                "INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                revision,
                event.workspace_id.as_str(),
                event.event_type.as_str(),
                at.0,
                event.at.0,
                event.user_id.map(UserId::as_str),
                event.session_id.map(SessionId::as_str),
                event.fence.map(|fence| fence.0),
                event.next_fence.map(|fence| fence.0),
                event.by.map(|by| by.user_id.as_str()),
                event.by.and_then(|by| by.name.as_ref()).map(DisplayName::as_str),
                event.to.map(UserId::as_str),
                event.message,
                event.reclaimed,
            ])?;
        Ok(())
    }

    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error> {
        Ok(self
            .connection()
            .prepare_cached(
                "DELETE FROM events WHERE lease_at < ?1
                 AND revision IN (SELECT revision FROM events ORDER BY revision LIMIT ?2)",
            )?
            .execute(params![before.0, limit])?)
    }

    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error> {
        let name = name.map(DisplayName::as_str);
        Ok(self
            .connection()
            .prepare_cached(
                "INSERT INTO workspaces (workspace_id, name, created_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (workspace_id) DO UPDATE SET name = iif(?4, excluded.name, name)
                 RETURNING workspace_id, name, created_at",
            )?
            .query_row(params![workspace_id.as_str(), name, created_at.0, anew], row::workspace)?)
    }

    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error> {
        let deleted = self
            .connection()
            .prepare_cached("DELETE FROM workspaces WHERE workspace_id = ?1")?
            .execute([workspace_id.as_str()])?;
        Ok(deleted > 0)
    }

    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error> {
        self.connection()
            .prepare_cached(
                "INSERT INTO members (workspace_id, user_id, role) VALUES (?1, ?2, ?3)
                 ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role",
            )?
            .execute([workspace_id.as_str(), member.user_id.as_str(), member.role.as_str()])?;
        Ok(())
    }

    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error> {
        let deleted = self
            .connection()
            .prepare_cached("DELETE FROM members WHERE workspace_id = ?1 AND user_id = ?2")?
            .execute([workspace_id.as_str(), user_id.as_str()])?;
        Ok(deleted > 0)
    }

    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.connection()
            .prepare_cached(concat!(
                "INSERT INTO tokens (",
                row::tokens!(),
                ", hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ))?
            .execute(params![
                token.token_id,
                token.scope.as_str(),
                token.user_id.as_ref().map(UserId::as_str),
                token.name.as_ref().map(DisplayName::as_str),
                token.created_at.0,
                token.expires_at.map(|at| at.0),
                token.last_used_at.map(|at| at.0),
                hash,
            ])?;
        Ok(())
    }

    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!(
                "DELETE FROM tokens WHERE token_id = ?1 AND (?2 IS NULL OR scope = ?2) RETURNING ",
                row::tokens!()
            ))?
            .query_row(params![token_id, only.map(Scope::as_str)], row::token)
            .optional()?)
    }

    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error> {
        self.connection()
            .prepare_cached("UPDATE tokens SET last_used_at = ?2 WHERE token_id = ?1")?
            .execute(params![token_id, at.0])?;
        Ok(())
    }

    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error> {
        Ok(self
            .connection()
            .prepare_cached(
                "DELETE FROM tokens WHERE token_id IN (SELECT token_id FROM tokens WHERE expires_at < ?1 LIMIT ?2)",
            )?
            .execute(params![before.0, limit])?)
    }
}
