//! The set of one transaction: rows that were loaded, and what the use cases have changed. Changes of locks and
//! events are kept and written together at the end, in one round trip with the commit.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::flush::{self, LoadedLock, PendingEvent};
use super::keys::{of_user, of_webhook, of_workspace};
use super::named::{COUNTED, Named};
use super::queries::{Queries, load};
use super::row::{self, get};
use super::session::{Command, parameters};
use super::waiters::{self, Waiters};
use crate::domain::event::{Event, Lost};
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Token};
use crate::domain::{Fence, LastLease, Lock, LockKind, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::rows::{RevisionRange, Rows, Visit, WebhookPosition};
use crate::time::{Timestamp, WallTime};

/// The rows of one transaction.
pub(super) struct BatchRows<'s> {
    pub(super) queries: Queries<'s>,
    /// The keys that are locked: see [`super::keys`].
    locked: RefCell<HashSet<i64>>,
    /// A key that another transaction has. Then the use cases must run again.
    pub(super) busy: Cell<Option<i64>>,
    pub(super) locks: RefCell<BTreeMap<WorkspaceId, LoadedLock>>,
    last_leases: RefCell<HashMap<WorkspaceId, Option<LastLease>>>,
    counts: RefCell<HashMap<UserId, i64>>,
    pub(super) roles: RefCell<HashMap<(WorkspaceId, UserId), Option<Role>>>,
    pub(super) events: RefCell<Vec<PendingEvent>>,
    pub(super) waiters: Waiters<'s>,
    /// What must be added to the revisions that the use cases were given.
    pub(super) shift: Cell<Option<i64>>,
}

impl<'s> BatchRows<'s> {
    pub(super) fn new(queries: Queries<'s>, waiters: Waiters<'s>, locked: HashSet<i64>) -> Self {
        Self {
            queries,
            locked: RefCell::new(locked),
            busy: Cell::new(None),
            locks: RefCell::default(),
            last_leases: RefCell::default(),
            counts: RefCell::default(),
            roles: RefCell::default(),
            events: RefCell::default(),
            waiters,
            shift: Cell::new(None),
        }
    }

    pub(super) fn latest_due(&self) -> Option<Timestamp> {
        self.queries.latest_due()
    }

    /// Takes what the commands of [`Named::loads`] have found.
    pub(super) fn loaded(&self, named: Named, found: &[Vec<tokio_postgres::Row>]) -> Result<(), Error> {
        let [locks, knocks, waiters, last_leases, counts, roles @ ..] = found else {
            return Err(Error::Internal("the rows of a batch are not complete".to_owned()));
        };
        self.waiters.loaded(waiters)?;
        let mut entries = self.locks.borrow_mut();
        entries
            .extend(named.workspaces.into_iter().map(|id| (WorkspaceId::trusted(id), LoadedLock::default())));
        for lock in self.queries.locks(locks, Some(knocks))? {
            let workspace_id = lock.workspace_id.clone();
            entries.insert(
                workspace_id,
                LoadedLock { is_stored: true, lock: Some(lock), ..LoadedLock::default() },
            );
        }
        let mut leases = self.last_leases.borrow_mut();
        leases.extend(named.acquired.into_iter().map(|id| (WorkspaceId::trusted(id), None)));
        for row in last_leases {
            leases.extend(Some(row::last_lease(row)?));
        }
        for row in counts {
            self.counts.borrow_mut().insert(UserId::trusted(get(row, 0)?), get(row, 1)?);
        }
        for row in roles.iter().flatten() {
            let role = get::<Option<String>>(row, 2)?.as_deref().and_then(Role::parse);
            let key = (WorkspaceId::trusted(get(row, 0)?), UserId::trusted(get(row, 1)?));
            self.roles.borrow_mut().insert(key, role);
        }
        Ok(())
    }

    /// Locks a key that was not named. Fails if another transaction has it.
    fn lock_key(&self, key: i64) -> Result<(), Error> {
        if self.locked.borrow().contains(&key) {
            return Ok(());
        }
        let rows = self.queries.session.query("SELECT pg_try_advisory_xact_lock($1)", parameters![key])?;
        let is_locked = rows.first().map_or(Ok(false), |row| get(row, 0))?;
        if !is_locked {
            self.busy.set(Some(key));
            return Err(Error::Busy);
        }
        self.locked.borrow_mut().insert(key);
        Ok(())
    }

    /// The entry of a workspace, loaded if it is not there yet.
    pub(super) fn entry(&self, workspace_id: &WorkspaceId) -> Result<LoadedLock, Error> {
        if let Some(entry) = self.locks.borrow().get(workspace_id) {
            return Ok(entry.clone());
        }
        self.lock_key(of_workspace(workspace_id))?;
        let ids = [workspace_id.as_str().to_owned()];
        let [of_locks, of_knocks] = load(&ids);
        let found = self.queries.session.run(&[of_locks, of_knocks, waiters::load(&ids)])?;
        let [locks, knocks, waiting] = found.as_slice() else { return Err(Error::Busy) };
        self.waiters.loaded(waiting)?;
        let lock = self.queries.locks(locks, Some(knocks))?.pop();
        let entry = LoadedLock { is_stored: lock.is_some(), lock, ..LoadedLock::default() };
        self.locks.borrow_mut().insert(workspace_id.clone(), entry.clone());
        Ok(entry)
    }

    pub(super) fn change(
        &self,
        workspace_id: &WorkspaceId,
        change: impl FnOnce(&mut LoadedLock),
    ) -> Result<(), Error> {
        self.entry(workspace_id)?;
        if let Some(entry) = self.locks.borrow_mut().get_mut(workspace_id) {
            change(entry);
            entry.is_changed = true;
        }
        Ok(())
    }

    pub(super) fn count(&self, user_id: &UserId, more: i64) {
        if let Some(count) = self.counts.borrow_mut().get_mut(user_id) {
            *count += more;
        }
    }

    /// The tables, after what is pending was written to them.
    pub(super) fn written(&self) -> Result<&Queries<'s>, Error> {
        let commands = self.flush();
        if !commands.is_empty() {
            let found = self.queries.session.run(&commands)?;
            self.flushed(&found)?;
        }
        Ok(&self.queries)
    }

    /// The commands that write what is pending. Call [`Self::flushed`] with their rows.
    pub(super) fn flush(&self) -> Vec<Command> {
        flush::commands(&self.locks.borrow(), &self.events.borrow(), self.queries.grace.run())
    }

    /// Notes that the commands of [`Self::flush`] were carried out.
    pub(super) fn flushed(&self, found: &[Vec<tokio_postgres::Row>]) -> Result<(), Error> {
        for entry in self.locks.borrow_mut().values_mut() {
            if entry.is_changed {
                *entry = LoadedLock {
                    is_stored: entry.lock.is_some(),
                    lock: entry.lock.take(),
                    ..LoadedLock::default()
                };
            }
        }
        if !self.events.borrow().is_empty() {
            // The command that writes the events comes last, and answers with the revision before them.
            let base: i64 = match found.last().and_then(|rows| rows.first()) {
                Some(row) => get(row, 0)?,
                None => return Err(Error::Internal("the events have no revisions".to_owned())),
            };
            let first = self.events.borrow().first().map_or(0, |pending| pending.event.revision);
            self.shift.set(Some(base + 1 - first));
            self.events.borrow_mut().clear();
            // What is pending no longer hides what is stored.
            self.last_leases.borrow_mut().clear();
        }
        Ok(())
    }
}

impl Rows for BatchRows<'_> {
    fn now(&self) -> Timestamp {
        self.queries.now
    }

    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
        let lock = self.entry(workspace_id)?.lock;
        if let Some(lock) = &lock {
            self.queries.found_due(lock.due_at());
        }
        Ok(lock)
    }

    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
        self.written()?.locks_after(after, limit)
    }

    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error> {
        self.written()?.list_locks(listing)
    }

    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error> {
        self.written()?.locks_to_check(limit)
    }

    fn next_check(&self) -> Result<Option<Timestamp>, Error> {
        self.written()?.next_check()
    }

    fn live_locks_of(&self, user_id: &UserId, kind: LockKind, limit: u32) -> Result<u32, Error> {
        self.lock_key(of_user(user_id))?;
        let counted = self.counts.borrow().get(user_id).copied();
        match counted {
            // It includes locks of other kinds, and locks that have ended and are not deleted yet.
            Some(count) if count < i64::from(limit).min(COUNTED) => Ok(u32::try_from(count).unwrap_or(0)),
            _ => self.written()?.live_locks_of(user_id, kind, limit),
        }
    }

    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error> {
        self.written()?.workspaces_concerning(user_id, after, limit)
    }

    fn lock_count(&self) -> Result<i64, Error> {
        self.written()?.lock_count()
    }

    fn counted_locks(&self) -> Result<(i64, bool), Error> {
        self.written()?.counted_locks()
    }

    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error> {
        let newest = self
            .events
            .borrow()
            .iter()
            .rev()
            .find(|pending| pending.event.workspace_id == *workspace_id && pending.event.fence.is_some())
            .cloned();
        if let Some(PendingEvent { event, lease_at, drain_until }) = newest {
            return Ok(LastLease::of(event, lease_at, drain_until));
        }
        if let Some(known) = self.last_leases.borrow().get(workspace_id) {
            return Ok(known.clone());
        }
        self.queries.last_lease(workspace_id)
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        is_agent: bool,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        let pending = self.events.borrow();
        let mut theirs = pending.iter().rev().map(|pending| &pending.event).filter(|event| {
            event.workspace_id == *workspace_id
                && event.user_id.as_ref() == Some(user_id)
                && (event.kind.is_agent() || !is_agent)
                && event.fence != live
        });
        if let Some(lost) = theirs.find_map(|event| Lost::of(event.clone())) {
            return Ok(Some(lost));
        }
        self.queries.lost(workspace_id, user_id, is_agent, live)
    }

    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        self.written()?.history(workspace_id, after, before, limit)
    }

    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error> {
        self.written()?.last_deletion(workspace_id)
    }

    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        self.written()?.events_after(after, limit)
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        self.written()?.visit_events_before(before, visit)
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        self.written()?.revisions()
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        let loaded = self.roles.borrow().get(&(workspace_id.clone(), user_id.clone())).copied();
        loaded.map_or_else(|| self.queries.role(workspace_id, user_id), Ok)
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.queries.workspace(workspace_id)
    }

    fn workspaces(
        &self,
        member: Option<&UserId>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Workspace>, Error> {
        self.queries.workspaces(member, after, limit)
    }

    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error> {
        self.queries.members(workspace_id, after, limit)
    }

    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
        self.queries.token(hash)
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        self.queries.tokens(after, limit)
    }

    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error> {
        self.queries.has_tokens_expired_before(before)
    }

    fn webhook(&self, name: &str) -> Result<Option<WebhookPosition>, Error> {
        // Of two servers that claim it, one waits for the other.
        self.lock_key(of_webhook(name))?;
        self.queries.webhook(name)
    }

    fn webhooks(&self, limit: usize) -> Result<Vec<WebhookPosition>, Error> {
        self.queries.webhooks(limit)
    }
}
