//! The row functions that read.

use std::collections::BTreeSet;

use super::Set;
use lockhouse::domain::event::{Event, Lost};
use lockhouse::domain::member::{Member, Role, Workspace};
use lockhouse::domain::token::{Hash, Token};
use lockhouse::domain::{Fence, LastLease, Lock, LockKind, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::store::listing::{FoundLocks, LockQuery};
use lockhouse::store::{RevisionRange, Rows, Visit, WebhookPosition};
use lockhouse::time::{Timestamp, WallTime};

pub(super) fn wide(limit: u32) -> usize {
    usize::try_from(limit).unwrap()
}

fn first<T>(limit: usize, found: impl Iterator<Item = T>) -> Vec<T> {
    found.take(limit).collect()
}

impl Rows for Set {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.all_locks().into_iter().find(|lock| lock.workspace_id == *workspace_id))
    }

    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
        self.need(format!("locks after {after}"))?;
        let after = |lock: &Lock| lock.workspace_id.as_str() > after;
        Ok(first(wide(limit), self.all_locks().into_iter().filter(after)))
    }

    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error> {
        let LockQuery { user_id, kinds: _, fence, prefix, after, limit, member } = listing;
        self.need(format!("locks {listing:?}"))?;
        let sees = |lock: &Lock| match member {
            Some(member) => {
                let workspace_id = lock.workspace_id.with_roles();
                self.tables.borrow().members.contains_key(&(workspace_id, member.clone()))
            }
            None => true,
        };
        let mut locks = self.all_locks();
        locks.retain(|lock| {
            let id = lock.workspace_id.as_str();
            let is_asked_for = id.starts_with(prefix.as_str()) && id > after.as_str();
            let is_theirs = user_id.as_ref().is_none_or(|user_id| lock.user_id == *user_id);
            let is_named = fence.is_none_or(|fence| lock.fence == fence);
            is_asked_for
                && is_named
                && is_theirs
                && listing.has_kind(lock.kind)
                && lock.is_live(self.now)
                && sees(lock)
        });
        let more = locks.len() > *limit;
        locks.truncate(*limit);
        let next = locks.last().filter(|_| more).map(|lock| lock.workspace_id.as_str().to_owned());
        Ok(FoundLocks { locks, next })
    }

    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error> {
        self.need(format!("locks to check at {:?}", self.now))?;
        let mut due: Vec<_> = self.all_locks().into_iter().filter(|lock| lock.check_at <= self.now).collect();
        due.sort_by_key(|lock| lock.check_at);
        Ok(first(wide(limit), due.into_iter()))
    }

    fn next_check(&self) -> Result<Option<Timestamp>, Error> {
        self.need("next check".to_owned())?;
        Ok(self.all_locks().iter().map(|lock| lock.check_at).min())
    }

    fn live_locks_of(&self, user_id: &UserId, kind: LockKind, limit: u32) -> Result<u32, Error> {
        self.need(format!("user {}", user_id.as_str()))?;
        let locks = self.all_locks();
        let counts = |lock: &&Lock| lock.user_id == *user_id && lock.kind == kind && lock.is_live(self.now);
        let live = locks.iter().filter(counts);
        Ok(u32::try_from(live.count()).unwrap().min(limit))
    }

    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error> {
        self.need(format!("concerning {} after {after}", user_id.as_str()))?;
        let concerns = |lock: &Lock| {
            lock.workspace_id.as_str() > after
                && (lock.user_id == *user_id
                    || lock.knocks.pending.first().is_some_and(|knock| knock.user_id == *user_id))
        };
        let found = self.all_locks().into_iter().filter(concerns).map(|lock| lock.workspace_id);
        Ok(found.take(limit).collect())
    }

    fn lock_count(&self) -> Result<i64, Error> {
        self.need("count".to_owned())?;
        Ok(self.tables.borrow().meta.lock_count)
    }

    fn counted_locks(&self) -> Result<(i64, bool), Error> {
        let counted = i64::try_from(self.tables.borrow().locks.len()).unwrap();
        Ok((counted, counted == self.lock_count()?))
    }

    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error> {
        self.of_workspace(workspace_id)?;
        let tables = self.tables.borrow();
        let newest = tables
            .events
            .iter()
            .rev()
            .find(|(event, ..)| event.workspace_id == *workspace_id && event.fence.is_some());
        Ok(newest.and_then(|(event, at, drain)| LastLease::of(event.clone(), *at, *drain)))
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        is_agent: bool,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        self.need(format!("lost {} {}", workspace_id.as_str(), user_id.as_str()))?;
        let tables = self.tables.borrow();
        let mut theirs = tables.events.iter().rev().filter(|(event, ..)| {
            event.workspace_id == *workspace_id
                && event.user_id.as_ref() == Some(user_id)
                && (event.kind.is_agent() || !is_agent)
                && event.fence != live
        });
        Ok(theirs.find_map(|(event, ..)| Lost::of(event.clone())))
    }

    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        self.need(format!("history {}", workspace_id.as_str()))?;
        let tables = self.tables.borrow();
        let wanted = |event: &&Event| {
            event.workspace_id == *workspace_id && event.revision > after && event.revision < before
        };
        let events = tables.events.iter().rev().map(|(event, ..)| event).filter(wanted).cloned();
        Ok(first(wide(limit), events))
    }

    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error> {
        let all = self.history(workspace_id, 0, i64::MAX, u32::MAX)?;
        let deleted = |event: &&Event| event.event_type.as_str() == "workspace.deleted";
        Ok(all.iter().find(deleted).map_or(0, |event| event.revision))
    }

    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        self.need(format!("events after {after}"))?;
        let tables = self.tables.borrow();
        let events = tables.events.iter().map(|(event, ..)| event.clone());
        Ok(first(wide(limit), events.filter(|event| event.revision > after)))
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        self.need(format!("events before {before}"))?;
        let events: Vec<_> =
            self.tables.borrow().events.iter().rev().map(|(event, ..)| event.clone()).collect();
        for event in events.into_iter().filter(|event| event.revision < before) {
            if visit(event)? == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        self.need("kept".to_owned())?;
        let tables = self.tables.borrow();
        let last = tables.meta.last_revision;
        Ok(RevisionRange {
            first: tables.events.first().map_or(last + 1, |(event, ..)| event.revision),
            last,
        })
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.tables.borrow().members.get(&(workspace_id.clone(), user_id.clone())).copied())
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.tables.borrow().workspaces.get(workspace_id).cloned())
    }

    fn workspaces(
        &self,
        member: Option<&UserId>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Workspace>, Error> {
        self.need(format!("workspaces of {member:?} after {after}"))?;
        let tables = self.tables.borrow();
        let belongs = |id: &WorkspaceId| match member {
            Some(member) => tables.members.contains_key(&(id.clone(), member.clone())),
            None => true,
        };
        let found = tables.workspaces.iter().filter(|(id, _)| id.as_str() > after && belongs(id));
        Ok(first(limit, found.map(|(_, workspace)| workspace.clone())))
    }

    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error> {
        self.of_workspace(workspace_id)?;
        let tables = self.tables.borrow();
        let members =
            tables.members.iter().filter(|((id, user_id), _)| id == workspace_id && user_id.as_str() > after);
        let member =
            |((_, user_id), role): (&(_, UserId), &Role)| Member { user_id: user_id.clone(), role: *role };
        Ok(first(limit, members.map(member)))
    }

    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
        self.need(format!("token {hash:?}"))?;
        let tables = self.tables.borrow();
        let found = tables.tokens.values().find(|(_, stored)| stored == hash);
        Ok(found.map(|(token, stored)| (token.clone(), stored.to_vec())))
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        self.need(format!("tokens after {after}"))?;
        let tables = self.tables.borrow();
        let tokens = tables.tokens.values().map(|(token, _)| token.clone());
        Ok(first(limit, tokens.filter(|token| token.token_id.as_str() > after)))
    }

    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error> {
        Ok(self.tokens("", usize::MAX)?.iter().any(|token| token.expires_at.is_some_and(|end| end < before)))
    }

    fn webhook(&self, name: &str) -> Result<Option<WebhookPosition>, Error> {
        self.need(format!("webhook {name}"))?;
        Ok(self.tables.borrow().webhooks.get(name).cloned())
    }

    fn webhooks(&self, limit: usize) -> Result<Vec<WebhookPosition>, Error> {
        self.need("webhooks".to_owned())?;
        Ok(first(limit, self.tables.borrow().webhooks.values().cloned()))
    }
}
