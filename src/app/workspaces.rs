//! Workspaces, members, and what must always be so of the data.

use std::sync::{Arc, TryLockError};

use super::Service;
use crate::domain::member::{Actor, Member, Membership, Need, Workspace};
use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::events::Author;
use crate::store::invariants::{self, Violation};
use crate::store::{AsOf, Write, workspaces};

/// Violations of a kind that are put right in one check, so that the answer has an end.
const CHECKED: usize = 500;

impl Service {
    /// Names a workspace. One that is there keeps its name unless `anew`.
    pub fn put_workspace(
        &self,
        workspace_id: WorkspaceId,
        name: Option<DisplayName>,
        anew: bool,
        reply: impl FnOnce(Result<AsOf<Workspace>, Error>) + Send + 'static,
    ) {
        self.store.submit(move |write| workspaces::put(write, &workspace_id, name.as_ref(), anew), reply);
    }

    /// A workspace, if somebody named it and `actor` may see it.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.store.read(|connection, _| workspaces::get(connection, workspace_id)).map(|found| found.value)
    }

    /// Workspaces that `actor` may see, by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn workspaces(&self, actor: &Actor, after: &str, limit: usize) -> Result<Vec<Workspace>, Error> {
        let member = self.only_for(actor);
        self.store
            .read(|connection, _| workspaces::list(connection, member, after, limit))
            .map(|found| found.value)
    }

    /// Whose workspaces only `actor` may see, if it is not all of them.
    #[must_use]
    pub fn only_for<'a>(&self, actor: &'a Actor) -> Option<&'a UserId> {
        match self.rules.membership {
            Membership::Enforced if !actor.sees_all => actor.user_id.as_ref(),
            Membership::Enforced | Membership::Open => None,
        }
    }

    /// Deletes a workspace with its members and ends its lock.
    pub fn delete_workspace(
        &self,
        workspace_id: WorkspaceId,
        by: Option<Author>,
        reply: impl FnOnce(Result<AsOf<bool>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| workspaces::delete(write, &workspace_id, by.as_ref(), &rules), reply);
    }

    /// Makes somebody a member, or changes what they may do.
    pub fn put_member(
        &self,
        actor: Actor,
        workspace_id: WorkspaceId,
        member: Member,
        by: Option<Author>,
        reply: impl FnOnce(Result<AsOf<()>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let of = workspace_id.clone();
        let work =
            move |write: &Write<'_>, _| workspaces::put_member(write, &of, &member, by.as_ref(), &rules);
        self.submit_as(actor, workspace_id, Need::Manage, work, reply);
    }

    /// The members of a workspace by id, after `after`, at most `limit`; nothing if nobody named the workspace.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn members(
        &self,
        workspace_id: &WorkspaceId,
        after: &str,
        limit: usize,
    ) -> Result<Option<Vec<Member>>, Error> {
        let members = |connection: &_| match workspaces::get(connection, workspace_id)? {
            Some(_) => workspaces::members(connection, workspace_id, after, limit).map(Some),
            None => Ok(None),
        };
        self.store.read(|connection, _| members(connection)).map(|found| found.value)
    }

    /// Removes a member and ends their lock.
    pub fn remove_member(
        &self,
        actor: Actor,
        workspace_id: WorkspaceId,
        user_id: UserId,
        by: Option<Author>,
        reply: impl FnOnce(Result<AsOf<bool>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let of = workspace_id.clone();
        let work =
            move |write: &Write<'_>, _| workspaces::remove_member(write, &of, &user_id, by.as_ref(), &rules);
        self.submit_as(actor, workspace_id, Need::Manage, work, reply);
    }

    /// Looks for what is not as it must be, and puts it right, at most 500 of a kind. One caller at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] while another one is at it; what keeps the store from reading or writing.
    pub fn repair(&self, by: Option<&Author>) -> Result<Vec<Violation>, Error> {
        let _alone = match self.checking.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
        };
        let mut found = Vec::new();
        let stops = || self.is_stopping();
        invariants::check(&self.store, by, &self.rules, CHECKED, stops, |violation| found.push(violation))?;
        Ok(found)
    }
}
