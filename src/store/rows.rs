//! The row functions: everything that a use case reads and writes. An engine implements them; see
//! [`super::sqlite`].
//!
//! An engine that loads rows in batches can fail a function because a row was not loaded. It then loads the
//! row and runs the use cases again.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::listing::{FoundLocks, LockQuery};
use crate::domain::event::{Event, Lost, NewEvent};
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{DisplayName, Fence, LastLease, Lock, LockKind, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, WallTime};

/// The keys that a use case will touch, as far as it knows before it runs. An engine may lock and load them
/// first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Workspaces: their lock, knocks and members, and the lease that ended last.
    pub workspaces: Vec<WorkspaceId>,
    /// Users whose locks are counted.
    pub users: Vec<UserId>,
    /// The caller, if the roles of the caller and of the holders matter.
    pub caller: Option<UserId>,
}

impl Keys {
    /// The keys of one workspace.
    #[must_use]
    pub fn workspace(workspace_id: &WorkspaceId) -> Self {
        Self { workspaces: vec![workspace_id.clone()], ..Self::default() }
    }

    /// Adds a user.
    #[must_use]
    pub fn and_user(mut self, user_id: &UserId) -> Self {
        self.users.push(user_id.clone());
        self
    }
}

/// A value, and the lease time at which it was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// Lease time.
    pub now: Timestamp,
    /// The value.
    pub value: T,
}

/// The result of a read, and whether it depends on an expiry or grant that is not on disk yet.
pub(super) struct ReadResult<T> {
    pub(super) as_of: AsOf<T>,
    pub(super) is_ahead_of_disk: bool,
}

/// The callback for the answer of a use case. It is called once, after the commit.
pub trait Reply<T>: FnOnce(Result<AsOf<T>, Error>) + Send + 'static {}

impl<T, F: FnOnce(Result<AsOf<T>, Error>) + Send + 'static> Reply<T> for F {}

/// The range of revisions in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionRange {
    /// The first revision that is kept. The last revision plus one if none is kept.
    pub first: i64,
    /// The last revision that was given to an event.
    pub last: i64,
}

/// How far a webhook has been served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPosition {
    /// The name of the webhook.
    pub name: String,
    /// The revision of the last event that the receiver has confirmed, or that it is not to get. −1: it is
    /// unknown, so a reset comes next.
    pub position: i64,
    /// The server that sends; empty for the only server of a database.
    pub owner: String,
    /// Until when no other server may send.
    pub until: Timestamp,
    /// When a server first started without this webhook.
    pub removed_at: Option<Timestamp>,
}

/// The row functions that read. Every function fails with the errors of the engine. A list is in the order of
/// its ids, unless its function says otherwise, and has at most `limit` entries.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Rows {
    /// Lease time, read once.
    fn now(&self) -> Timestamp;

    /// The rows of the locks of workspaces, even if the leases have ended.
    fn locks_of(&self, workspaces: &HashSet<&WorkspaceId>) -> Result<HashMap<WorkspaceId, Lock>, Error> {
        let mut found = HashMap::new();
        for workspace_id in workspaces {
            found.extend(self.lock(workspace_id)?.map(|lock| (lock.workspace_id.clone(), lock)));
        }
        Ok(found)
    }
    /// The row of a workspace's lock, even if the lease has ended.
    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error>;
    /// Lock rows of workspaces after `after`, even if their leases have ended.
    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error>;
    /// A page of live locks.
    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error>;
    /// Locks whose `check_at` is not after now, the earliest first.
    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error>;
    /// The earliest `check_at`. No expiry or grant is due before it.
    fn next_check(&self) -> Result<Option<Timestamp>, Error>;
    /// The number of live locks of this kind of a user, counted up to `limit`.
    fn live_locks_of(&self, user_id: &UserId, kind: LockKind, limit: u32) -> Result<u32, Error>;
    /// Workspaces after `after` whose lock this user holds, or may get because the user's knock is the first.
    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error>;
    /// The counter of lock rows. It includes locks that have ended but are not deleted yet.
    fn lock_count(&self) -> Result<i64, Error>;
    /// Counts the lock rows. Also returns whether the counter is right. Slow if there are many locks.
    fn counted_locks(&self) -> Result<(i64, bool), Error>;

    /// The lease that ended last on a workspace without a lock, as far as the history goes back.
    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error>;
    /// How the user's last lease on a workspace ended; with `is_agent` only leases of agents count. The lease with the fence `live` is
    /// skipped.
    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        is_agent: bool,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error>;
    /// The events of a workspace after revision `after` and before `before`, newest first.
    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error>;
    /// The revision of the last deletion of a workspace, as far as the history goes back; 0 if there is none.
    /// Events up to it belong to the deleted workspace.
    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error>;
    /// The revisions of the last deletions of those workspaces that were deleted.
    fn last_deletions(&self, workspaces: &HashSet<&WorkspaceId>) -> Result<HashMap<WorkspaceId, i64>, Error> {
        let mut found = HashMap::new();
        for &workspace_id in workspaces {
            found.insert(workspace_id.clone(), self.last_deletion(workspace_id)?);
        }
        Ok(found)
    }
    /// The events of all workspaces after revision `after`, oldest first.
    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error>;
    /// Visits the events of all workspaces before revision `before`, newest first, until `visit` returns
    /// [`Visit::Stop`].
    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error>;
    /// The range of revisions in the history.
    fn revisions(&self) -> Result<RevisionRange, Error>;

    /// The role of a user on a workspace.
    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error>;
    /// A workspace, if it has a row.
    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error>;
    /// Workspaces after `after`. With `member`, only those of which this user is a member.
    fn workspaces(&self, member: Option<&UserId>, after: &str, limit: usize)
    -> Result<Vec<Workspace>, Error>;
    /// The members of a workspace after `after`.
    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error>;

    /// The token with this hash, and the hash as it is stored.
    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error>;
    /// Tokens after `after`.
    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error>;
    /// Whether there are tokens that expired before `before`.
    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error>;

    /// How far the webhook with this name has been served.
    fn webhook(&self, name: &str) -> Result<Option<WebhookPosition>, Error>;
    /// The positions of webhooks, also of those that were removed from the settings.
    fn webhooks(&self, limit: usize) -> Result<Vec<WebhookPosition>, Error>;
}

/// Whether [`Rows::visit_events_before`] continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Continue with the next event.
    Next,
    /// Stop.
    Stop,
}

/// The row functions that write. Use cases write locks and events through [`super::WorkingSet`], which
/// maintains the counters.
#[expect(clippy::missing_errors_doc, reason = "as of Rows: what the engine refuses")]
pub trait Changes: Rows {
    /// Inserts a new lease, without knocks.
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error>;
    /// Updates the fields of a lease that can change while it lasts, except its knocks.
    fn update_lock(&self, lock: &Lock) -> Result<(), Error>;
    /// Updates `renewed_at`, `last_active_at`, `expires_at` and `ttl` of a lease without `grant_at` and
    /// `grant_at_latest`. The other fields are as they were read.
    fn update_lock_times(&self, lock: &Lock) -> Result<(), Error> {
        self.update_lock(lock)
    }
    /// Updates a lease and its knocks.
    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error>;
    /// Sets when the timer checks a lock next, and nothing else.
    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error>;
    /// Deletes a lease and its knocks. Returns whether it existed.
    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error>;

    /// Inserts an event. `at` is its wall time.
    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error>;
    /// Deletes events before `before` (lease time), from the oldest revision on, at most `limit`. The newest
    /// events of a workspace are deleted last, so the last holder is never mistaken. Events whose `drain_until` is still
    /// to come are kept. Returns how many were deleted.
    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error>;

    /// Creates or names a workspace. An existing one keeps its name unless `anew`.
    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error>;
    /// Deletes a workspace and its members. Returns whether it existed.
    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error>;
    /// Adds a member, or changes the role of one.
    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error>;
    /// Removes a member. Returns whether the user was one.
    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error>;

    /// Stores a new token.
    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error>;
    /// Deletes a token, if it has this scope. Returns the token if it was deleted.
    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error>;
    /// Sets when a token was last used.
    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error>;
    /// Deletes tokens that expired before `before`, at most `limit`. Returns how many were deleted.
    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error>;

    /// Writes how far a webhook has been served.
    fn put_webhook(&self, webhook: &WebhookPosition) -> Result<(), Error>;
    /// Deletes the position of a webhook.
    fn delete_webhook(&self, name: &str) -> Result<(), Error>;

    /// This server stops: its waiters keep their positions for a moment, to ask again at another server. On a
    /// database without other servers this does nothing.
    fn leave(&self) {}
}
