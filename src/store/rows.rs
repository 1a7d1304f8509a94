//! The row functions: all that a use case reads and writes. An engine answers them; see [`super::sqlite`].
//!
//! An engine that loads in batches can fail a function because what is asked for was not loaded. It then loads it and runs
//! the use cases again.

use std::collections::BTreeSet;

use super::listing::{Listed, Listing};
use crate::domain::event::{Event, Lost, NewEvent};
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{DisplayName, Fence, LastLease, Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, WallTime};

/// What a use case will touch, as far as it knows before it runs. An engine may lock and load it first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Workspaces, with their lock, knocks, members, and the leases that ended last.
    pub workspaces: Vec<WorkspaceId>,
    /// Users whose locks are counted.
    pub users: Vec<UserId>,
}

impl Keys {
    /// One workspace.
    #[must_use]
    pub fn workspace(workspace_id: &WorkspaceId) -> Self {
        Self { workspaces: vec![workspace_id.clone()], users: Vec::new() }
    }

    /// The same, and this user.
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
    /// What was true.
    pub value: T,
}

/// How far the history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The first revision that is kept; the one after the last when none is.
    pub first: i64,
    /// The last revision that was given out.
    pub last: i64,
}

/// What is read. Every function fails with what the engine refuses; a list is in the order of its ids and at most as long as
/// its `limit`.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Rows {
    /// Lease time, read once.
    fn now(&self) -> Timestamp;

    /// The lock of a workspace, whether it has ended or not.
    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error>;
    /// Locks of workspaces after `after`, whether they have ended or not.
    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error>;
    /// A page of live locks.
    fn list_locks(&self, listing: &Listing) -> Result<Listed, Error>;
    /// Locks whose `check_at` has come, the most urgent first.
    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error>;
    /// The earliest `check_at`: nothing is due before.
    fn next_check(&self) -> Result<Option<Timestamp>, Error>;
    /// How many live locks a user has, counted up to `limit`.
    fn live_locks_of(&self, user_id: &UserId, limit: u32) -> Result<u32, Error>;
    /// Workspaces after `after` whose lock a user has, or may get because they were the first to knock.
    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error>;
    /// The counter of locks, which has those that have ended and are still there.
    fn lock_count(&self) -> Result<i64, Error>;
    /// The same, counted, and whether the counter is right. It takes long when there are many.
    fn counted_locks(&self) -> Result<(i64, bool), Error>;

    /// The lease that ended last on a workspace without a lock, as far as the history goes back.
    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error>;
    /// How the last lease ended that a user had on a workspace, other than the live one.
    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
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
    /// The revision of the last deletion of a workspace as far as the history goes back; 0 if there is none. Events up to it
    /// are of a workspace that is gone.
    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error>;
    /// The events of all workspaces after revision `after`, oldest first.
    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error>;
    /// The events of all workspaces before revision `before`, newest first, until `visit` says that it is enough.
    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error>;
    /// How far the history goes.
    fn kept(&self) -> Result<Kept, Error>;

    /// What a user is on a workspace.
    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error>;
    /// A workspace, if somebody named it.
    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error>;
    /// Workspaces after `after`; those of `member` only, if there is one.
    fn workspaces(&self, member: Option<&UserId>, after: &str, limit: usize)
    -> Result<Vec<Workspace>, Error>;
    /// The members of a workspace after `after`.
    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error>;

    /// The token with this hash, and the hash as it is stored.
    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error>;
    /// Tokens after `after`.
    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error>;
    /// Whether there are tokens that were over before `before`.
    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error>;
}

/// Whether [`Rows::visit_events_before`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// With the next one.
    Next,
    /// It is enough.
    Stop,
}

/// What is written. Use cases write locks and events by way of [`super::WorkingSet`], which keeps count.
#[expect(clippy::missing_errors_doc, reason = "as of Rows: what the engine refuses")]
pub trait Changes: Rows {
    /// A lease begins. It has no knocks.
    fn insert_lock(&self, lock: &Lock) -> Result<(), Error>;
    /// What can change while a lease lasts, but its knocks.
    fn update_lock(&self, lock: &Lock) -> Result<(), Error>;
    /// The same, and its knocks.
    fn update_lock_and_knocks(&self, lock: &Lock) -> Result<(), Error>;
    /// When the timer looks at a lock next, and nothing else.
    fn set_check_at(&self, workspace_id: &WorkspaceId, check_at: Timestamp) -> Result<(), Error>;
    /// A lease ends. Its knocks go with it. Returns whether it was there.
    fn delete_lock(&self, lock: &Lock) -> Result<bool, Error>;

    /// Something happened, at `at` as the wall clock showed it.
    fn insert_event(&self, revision: i64, at: WallTime, event: &NewEvent<'_>) -> Result<(), Error>;
    /// Forgets events that happened before `before`, from the oldest on, at most `limit`: what is newest of a workspace is
    /// forgotten last, so that who had it last is never mistaken. Returns how many.
    fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<usize, Error>;

    /// Names a workspace. One that is there keeps its name unless `anew`.
    fn put_workspace(
        &self,
        workspace_id: &WorkspaceId,
        name: Option<&DisplayName>,
        anew: bool,
        created_at: WallTime,
    ) -> Result<Workspace, Error>;
    /// A workspace is no more, and nobody is its member. Returns whether it was there.
    fn delete_workspace(&self, workspace_id: &WorkspaceId) -> Result<bool, Error>;
    /// Somebody is a member from now on, or has another role.
    fn put_member(&self, workspace_id: &WorkspaceId, member: &Member) -> Result<(), Error>;
    /// Somebody is no member any more. Returns whether they were.
    fn delete_member(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<bool, Error>;

    /// Keeps a new token.
    fn insert_token(&self, token: &Token, hash: &Hash) -> Result<(), Error>;
    /// Forgets a token, if it is of this scope. Returns it, if it was there.
    fn delete_token(&self, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error>;
    /// When a token was last used.
    fn set_token_used(&self, token_id: &str, at: WallTime) -> Result<(), Error>;
    /// Forgets tokens that were over before `before`, at most `limit`. Returns how many.
    fn delete_tokens_expired_before(&self, before: WallTime, limit: u32) -> Result<usize, Error>;
}
