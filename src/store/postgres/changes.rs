//! The row functions that write. Changes of locks and events stay in the set until the end of the batch.

use std::ops::Deref;

use super::flush::PendingEvent;
use super::row;
use super::session::{Parameter, parameters};
use super::set::BatchRows;
use crate::domain::event::{Event, NewEvent};
use crate::domain::knocks::Knocks;
use crate::domain::member::{Member, Workspace};
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{DisplayName, Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::rows::{Changes, WebhookPosition};
use crate::time::{Timestamp, WallTime};

fn text(id: impl Deref<Target = str>) -> String {
    id.to_owned()
}

impl Changes for BatchRows<'_> {
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.count(&lock.user_id, 1);
        self.change(&lock.workspace_id, |entry| {
            entry.lock = Some(Lock { check_at: lock.due_at(), knocks: Knocks::default(), ..lock.clone() });
            entry.has_new_knocks = true;
        })
    }

    fn update_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.change(&lock.workspace_id, |entry| {
            let Some(before) = &entry.lock else { return };
            // The index is not updated unless the next expiry or grant has become earlier.
            let check_at = before.check_at.min(lock.due_at());
            entry.lock = Some(Lock { check_at, ..lock.clone() });
        })
    }

    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.update_lock(lock)?;
        self.change(&lock.workspace_id, |entry| entry.has_new_knocks = true)
    }

    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error> {
        self.change(workspace_id, |entry| {
            if let Some(lock) = &mut entry.lock {
                lock.check_at = check_at;
            }
        })
    }

    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error> {
        let was_there = self.entry(&lock.workspace_id)?.lock.is_some();
        self.count(&lock.user_id, -i64::from(was_there));
        self.change(&lock.workspace_id, |entry| {
            entry.lock = None;
            entry.has_new_knocks = true;
        })?;
        Ok(was_there)
    }

    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error> {
        let written = Event {
            revision,
            workspace_id: event.workspace_id.clone(),
            event_type: event.event_type,
            at,
            user_id: event.user_id.cloned(),
            session_id: event.session_id.cloned(),
            fence: event.fence,
            next_fence: event.next_fence,
            by_user_id: event.by.map(|by| by.user_id.clone()),
            by_name: event.by.and_then(|by| by.name.clone()),
            to_user_id: event.to.cloned(),
            message: event.message.map(str::to_owned),
            reclaimed: event.reclaimed,
            kind: event.kind,
            yielded: event.yielded,
        };
        self.events.borrow_mut().push(PendingEvent {
            event: written,
            lease_at: event.at,
            drain_until: event.drain_until,
        });
        Ok(())
    }

    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error> {
        let rows = self.written()?.session.query(
            "WITH deleted AS (DELETE FROM events WHERE lease_at < $1 AND coalesce(drain_until <= $3, true)
             AND revision IN (SELECT revision FROM events ORDER BY revision LIMIT $2) RETURNING 1)
             SELECT count(*) FROM deleted",
            parameters![before.0, i64::from(limit), self.queries.now.0],
        )?;
        let deleted: i64 = rows.first().map_or(Ok(0), |row| row::get(row, 0))?;
        Ok(usize::try_from(deleted).unwrap_or(0))
    }

    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error> {
        let name = name.map(|name| text(name.as_str()));
        let rows = self.queries.session.query(
            "INSERT INTO workspaces (workspace_id, name, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (workspace_id) DO UPDATE SET name = CASE WHEN $4 THEN excluded.name ELSE workspaces.name END
             RETURNING workspace_id, name, created_at",
            parameters![text(workspace_id.as_str()), name, created_at.0, anew],
        )?;
        rows.first()
            .map_or_else(|| Err(Error::Internal("the workspace was not written".to_owned())), row::workspace)
    }

    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error> {
        self.roles.borrow_mut().clear();
        self.deleted(
            "DELETE FROM workspaces WHERE workspace_id = $1 RETURNING 1",
            parameters![text(workspace_id.as_str())],
        )
    }

    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error> {
        self.roles.borrow_mut().clear();
        self.queries.session.query(
            "INSERT INTO members (workspace_id, user_id, role) VALUES ($1, $2, $3)
             ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role",
            parameters![
                text(workspace_id.as_str()),
                text(member.user_id.as_str()),
                text(member.role.as_str())
            ],
        )?;
        Ok(())
    }

    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error> {
        self.roles.borrow_mut().clear();
        self.deleted(
            "DELETE FROM members WHERE workspace_id = $1 AND user_id = $2 RETURNING 1",
            parameters![text(workspace_id.as_str()), text(user_id.as_str())],
        )
    }

    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.queries.session.query(
            concat!("INSERT INTO tokens (", row::tokens!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
            parameters![
                token.token_id.clone(),
                text(token.scope.as_str()),
                token.user_id.as_ref().map(|user_id| text(user_id.as_str())),
                token.name.as_ref().map(|name| text(name.as_str())),
                token.created_at.0,
                token.expires_at.map(|at| at.0),
                token.last_used_at.map(|at| at.0),
                hash.to_vec(),
                token.is_agent,
            ],
        )?;
        Ok(())
    }

    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error> {
        let rows = self.queries.session.query(
            concat!(
                "DELETE FROM tokens WHERE token_id = $1 AND ($2::text IS NULL OR scope = $2) RETURNING ",
                row::tokens!()
            ),
            parameters![text(token_id), only.map(|scope| text(scope.as_str()))],
        )?;
        rows.first().map(|row| Ok(row::token(row)?.0)).transpose()
    }

    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error> {
        self.queries.session.query(
            "UPDATE tokens SET last_used_at = $2 WHERE token_id = $1",
            parameters![text(token_id), at.0],
        )?;
        Ok(())
    }

    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error> {
        let rows = self.queries.session.query(
            "DELETE FROM tokens WHERE token_id IN (SELECT token_id FROM tokens WHERE expires_at < $1 LIMIT $2) RETURNING 1",
            parameters![before.0, i64::from(limit)],
        )?;
        Ok(rows.len())
    }
    fn leave(&self) {
        self.waiters.leaves.set(true);
    }

    fn put_webhook(&self, webhook: &WebhookPosition) -> Result<(), Error> {
        self.queries.session.query(
            "INSERT INTO webhooks (name, position, owner, until, removed_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO UPDATE SET position = excluded.position, owner = excluded.owner,
                 until = excluded.until, removed_at = excluded.removed_at",
            parameters![
                webhook.name.clone(),
                webhook.position,
                webhook.owner.clone(),
                webhook.until.0,
                webhook.removed_at.map(|at| at.0),
            ],
        )?;
        Ok(())
    }

    fn delete_webhook(&self, name: &str) -> Result<(), Error> {
        self.queries.session.query("DELETE FROM webhooks WHERE name = $1", parameters![text(name)])?;
        Ok(())
    }
}

impl BatchRows<'_> {
    fn deleted(&self, sql: &'static str, parameters: Vec<Parameter>) -> Result<bool, Error> {
        let rows = self.queries.session.query(sql, parameters)?;
        Ok(!rows.is_empty())
    }
}
