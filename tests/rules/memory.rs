//! A second engine: rows in memory, loaded in batches. What a use case touches without having named it is a miss; then it is
//! loaded, and all use cases of the batch run again. Every third batch loads nothing of what was named, on purpose.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lockhouse::domain::event::{Event, Lost, NewEvent};
use lockhouse::domain::grace::{RestartGrace, Run};
use lockhouse::domain::member::{Member, Role, Workspace};
use lockhouse::domain::token::{Hash, Scope, Token};
use lockhouse::domain::{DisplayName, Fence, LastLease, Lock, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::store::engine::{Engine, Work};
use lockhouse::store::listing::{Listed, Listing};
use lockhouse::store::{Begin, Changes, Effects, Kept, Meta, Rows, Visit};
use lockhouse::time::{LeaseClock, Timestamp, WallTime};

/// What is kept over a restart.
#[derive(Clone)]
pub struct Tables {
    pub meta: Meta,
    pub last_seen: Timestamp,
    pub grace: RestartGrace,
    /// With the run in which each was written.
    locks: BTreeMap<WorkspaceId, (Lock, Run)>,
    /// With the lease time of each.
    events: Vec<(Event, Timestamp)>,
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    members: BTreeMap<(WorkspaceId, UserId), Role>,
    tokens: BTreeMap<String, (Token, Hash)>,
}

impl Tables {
    pub fn new(now: Timestamp) -> Self {
        let meta =
            Meta { last_fence: Fence(0), last_revision: 0, wall_offset_ms: 0, lock_count: 0, opened_at: now };
        Self {
            meta,
            last_seen: now,
            grace: RestartGrace::none(),
            locks: BTreeMap::new(),
            events: Vec::new(),
            workspaces: BTreeMap::new(),
            members: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }
}

pub struct Memory {
    pub tables: Arc<Mutex<Tables>>,
    pub clock: Arc<LeaseClock>,
    /// How often use cases have run again.
    pub misses: Arc<AtomicUsize>,
    pub batches: usize,
}

impl Engine for Memory {
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        self.batches += 1;
        let mut loaded = HashSet::new();
        if !self.batches.is_multiple_of(3) {
            for keys in work.keys() {
                loaded.extend(keys.workspaces.iter().map(|id| format!("workspace {}", id.as_str())));
                loaded.extend(keys.users.iter().map(|id| format!("user {}", id.as_str())));
            }
        }
        let (now, wall_micros) = (self.clock.now(), self.clock.clock().wall_micros());
        let mut tables = self.tables.lock().unwrap();
        loop {
            let set = Set { tables: RefCell::new(tables.clone()), now, loaded, missed: RefCell::default() };
            let outcome = work.run(&set, Begin { wall_micros, meta: tables.meta });
            loaded = set.loaded;
            let missed = set.missed.into_inner();
            if missed.is_empty() {
                let effects = outcome?;
                *tables = Tables { meta: effects.meta, last_seen: now, ..set.tables.into_inner() };
                return Ok(effects);
            }
            self.misses.fetch_add(1, Ordering::SeqCst);
            loaded.extend(missed);
        }
    }

    fn idle(&mut self) {}

    fn settle(&mut self) -> bool {
        true
    }

    fn tidy(&mut self) {}

    fn fold(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn finish(&mut self) {
        self.tables.lock().unwrap().last_seen = self.clock.now();
    }
}

/// What was loaded, and what the use cases have done to it.
struct Set {
    tables: RefCell<Tables>,
    now: Timestamp,
    loaded: HashSet<String>,
    missed: RefCell<Vec<String>>,
}

impl Set {
    fn need(&self, key: String) -> Result<(), Error> {
        if self.loaded.contains(&key) {
            return Ok(());
        }
        self.missed.borrow_mut().push(key);
        Err(Error::Internal("it is not loaded yet".to_owned()))
    }

    fn of_workspace(&self, workspace_id: &WorkspaceId) -> Result<(), Error> {
        self.need(format!("workspace {}", workspace_id.as_str()))
    }

    fn all_locks(&self) -> Vec<Lock> {
        let tables = self.tables.borrow();
        let with_grace = |(lock, run): &(Lock, Run)| {
            let mut lock = lock.clone();
            for at in [&mut lock.knocks.grant_at, &mut lock.knocks.grant_at_latest].into_iter().flatten() {
                *at = tables.grace.apply(*run, *at);
            }
            lock.expires_at = tables.grace.apply(*run, lock.expires_at);
            lock
        };
        tables.locks.values().map(with_grace).collect()
    }

    fn put(&self, lock: &Lock) {
        let mut tables = self.tables.borrow_mut();
        let run = tables.grace.run();
        tables.locks.insert(lock.workspace_id.clone(), (lock.clone(), run));
    }
}

fn wide(limit: u32) -> usize {
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

    fn list_locks(&self, listing: &Listing) -> Result<Listed, Error> {
        unimplemented!("no use case lists locks: {listing:?}")
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

    fn live_locks_of(&self, user_id: &UserId, limit: u32) -> Result<u32, Error> {
        self.need(format!("user {}", user_id.as_str()))?;
        let locks = self.all_locks();
        let live = locks.iter().filter(|lock| lock.user_id == *user_id && lock.is_live(self.now));
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
            .find(|(event, _)| event.workspace_id == *workspace_id && event.fence.is_some());
        Ok(newest.and_then(|(event, at)| LastLease::of(event.clone(), *at)))
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        self.need(format!("lost {} {}", workspace_id.as_str(), user_id.as_str()))?;
        let tables = self.tables.borrow();
        let mut theirs = tables.events.iter().rev().filter(|(event, _)| {
            event.workspace_id == *workspace_id
                && event.user_id.as_ref() == Some(user_id)
                && event.fence != live
        });
        Ok(theirs.find_map(|(event, _)| Lost::of(event.clone())))
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
        let events = tables.events.iter().rev().map(|(event, _)| event).filter(wanted).cloned();
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
        let events = tables.events.iter().map(|(event, _)| event.clone());
        Ok(first(wide(limit), events.filter(|event| event.revision > after)))
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        self.need(format!("events before {before}"))?;
        let events: Vec<_> =
            self.tables.borrow().events.iter().rev().map(|(event, _)| event.clone()).collect();
        for event in events.into_iter().filter(|event| event.revision < before) {
            if visit(event)? == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    fn kept(&self) -> Result<Kept, Error> {
        self.need("kept".to_owned())?;
        let tables = self.tables.borrow();
        let last = tables.meta.last_revision;
        Ok(Kept { first: tables.events.first().map_or(last + 1, |(event, _)| event.revision), last })
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.tables.borrow().members.get(&(workspace_id.clone(), user_id.clone())).copied())
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.of_workspace(workspace_id)?;
        Ok(self.tables.borrow().workspaces.get(workspace_id).cloned())
    }

    fn workspaces(&self, member: Option<&UserId>, after: &str, _: usize) -> Result<Vec<Workspace>, Error> {
        unimplemented!("no use case lists workspaces: {member:?} {after}")
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
}

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
        };
        self.tables.borrow_mut().events.push((written, event.at));
        Ok(())
    }

    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error> {
        self.need("the oldest events".to_owned())?;
        let events = &mut self.tables.borrow_mut().events;
        let old: HashSet<_> = events
            .iter()
            .take(wide(limit))
            .filter(|(_, at)| *at < before)
            .map(|(event, _)| event.revision)
            .collect();
        events.retain(|(event, _)| !old.contains(&event.revision));
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
}
