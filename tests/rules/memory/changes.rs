//! The row functions that write.

use std::collections::HashSet;

use super::Set;
use super::rows::wide;
use lockhouse::domain::event::{Event, NewEvent};
use lockhouse::domain::member::{Member, Workspace};
use lockhouse::domain::token::{Hash, Scope, Token};
use lockhouse::domain::{DisplayName, Lock, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::store::{Changes, Rows as _, WebhookPosition};
use lockhouse::time::{Timestamp, WallTime};

impl Changes for Set {
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.of_workspace(&lock.workspace_id)?;
        assert!(
            !self.tables.borrow().locks.contains_key(&lock.workspace_id),
            "there is one lock a workspace"
        );
        self.put(lock);
        Ok(())
    }

    fn update_lock(&self, lock: &Lock) -> Result<(), Error> {
        self.of_workspace(&lock.workspace_id)?;
        let check_at = lock.check_at.min(lock.due_at());
        self.put(&Lock { check_at, ..lock.clone() });
        Ok(())
    }

    /// Loses all fields but the times, so that a test fails if a use case has changed more.
    fn update_lock_times(&self, lock: &Lock) -> Result<(), Error> {
        self.of_workspace(&lock.workspace_id)?;
        let before = self.tables.borrow().locks.get(&lock.workspace_id).map(|(before, _)| before.clone());
        let Some(before) = before else { return Ok(()) };
        let &Lock { renewed_at, last_active_at, expires_at, ttl, .. } = lock;
        let times = Lock { renewed_at, last_active_at, expires_at, ttl, ..before };
        let check_at = times.check_at.min(times.due_at());
        self.put(&Lock { check_at, ..times });
        Ok(())
    }

    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error> {
        self.update_lock(lock)
    }

    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error> {
        if let Some((lock, _)) = self.tables.borrow_mut().locks.get_mut(workspace_id) {
            lock.check_at = check_at;
        }
        Ok(())
    }

    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error> {
        self.of_workspace(&lock.workspace_id)?;
        Ok(self.tables.borrow_mut().locks.remove(&lock.workspace_id).is_some())
    }

    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error> {
        let written = Event {
            revision,
            workspace_id: event.workspace_id.clone(),
            event_type: event.event_type,
            kind: event.kind,
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
            yielded: event.yielded,
        };
        self.tables.borrow_mut().events.push((written, event.at, event.drain_until));
        Ok(())
    }

    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error> {
        self.need("the oldest events".to_owned())?;
        let events = &mut self.tables.borrow_mut().events;
        let old: HashSet<_> = events
            .iter()
            .take(wide(limit))
            .filter(|(_, at, drain)| *at < before && drain.is_none_or(|until| until <= self.now))
            .map(|(event, ..)| event.revision)
            .collect();
        events.retain(|(event, ..)| !old.contains(&event.revision));
        Ok(old.len())
    }

    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error> {
        let before = self.workspace(workspace_id)?;
        let made = Workspace { workspace_id: workspace_id.clone(), name: name.cloned(), created_at };
        let now = match before {
            Some(before) if anew => Workspace { name: name.cloned(), ..before },
            Some(before) => before,
            None => made,
        };
        self.tables.borrow_mut().workspaces.insert(workspace_id.clone(), now.clone());
        Ok(now)
    }

    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error> {
        self.of_workspace(workspace_id)?;
        let mut tables = self.tables.borrow_mut();
        tables.members.retain(|(id, _), _| id != workspace_id);
        Ok(tables.workspaces.remove(workspace_id).is_some())
    }

    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error> {
        self.of_workspace(workspace_id)?;
        let key = (workspace_id.clone(), member.user_id.clone());
        self.tables.borrow_mut().members.insert(key, member.role);
        Ok(())
    }

    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.tables.borrow_mut().members.remove(&(workspace_id.clone(), user_id.clone())).is_some())
    }

    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error> {
        self.tables.borrow_mut().tokens.insert(token.token_id.clone(), (token.clone(), *hash));
        Ok(())
    }

    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error> {
        self.need(format!("token {token_id}"))?;
        let tokens = &mut self.tables.borrow_mut().tokens;
        let found =
            tokens.get(token_id).filter(|(token, _)| only.is_none_or(|only| token.scope == only)).cloned();
        Ok(found.inspect(|_| drop(tokens.remove(token_id))).map(|(token, _)| token))
    }

    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error> {
        if let Some((token, _)) = self.tables.borrow_mut().tokens.get_mut(token_id) {
            token.last_used_at = Some(at);
        }
        Ok(())
    }

    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error> {
        let all = self.tokens("", usize::MAX)?;
        let over = all.iter().filter(|token| token.expires_at.is_some_and(|end| end < before));
        Ok(over
            .take(wide(limit))
            .filter(|token| self.tables.borrow_mut().tokens.remove(&token.token_id).is_some())
            .count())
    }

    fn put_webhook(&self, webhook: &WebhookPosition) -> Result<(), Error> {
        self.tables.borrow_mut().webhooks.insert(webhook.name.clone(), webhook.clone());
        Ok(())
    }

    fn delete_webhook(&self, name: &str) -> Result<(), Error> {
        self.tables.borrow_mut().webhooks.remove(name);
        Ok(())
    }
}
