//! Use cases on workspaces and their members.

use std::collections::HashSet;
use std::sync::Arc;

use super::Service;
use super::current::{apply, apply_due, is_allowed, load_current};
use super::waitlist;
use crate::domain::access::{Membership, Privilege, Rules};
use crate::domain::event::{Author, Ending, EventType, NewEvent};
use crate::domain::member::{Member, Workspace};
use crate::domain::rights::{Actor, Need, access, depends_on_role};
use crate::domain::rules::Change;
use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::error::{Denied, Error};
use crate::store::{Keys, Reply, Rows, WorkingSet};

/// Checks whether `actor` has the access that `need` names on a workspace. Returns the actor's privilege, or
/// why access is denied.
///
/// # Errors
/// Any error of the store.
pub fn may(
    rows: &(impl Rows + ?Sized),
    actor: &Actor,
    workspace_id: &WorkspaceId,
    need: Need,
    rules: &Rules,
) -> Result<Result<Privilege, Denied>, Error> {
    if !depends_on_role(need, rules) {
        return Ok(Ok(actor.scope.privilege()));
    }
    let workspace_id = workspace_id.with_roles();
    let role = match &actor.user_id {
        Some(user_id) => rows.role(&workspace_id, user_id)?,
        None => None,
    };
    let exists = role.is_some() || rows.workspace(&workspace_id)?.is_some();
    Ok(access(actor, exists, role, need, rules.membership))
}

/// Deletes a workspace with its members and ends its lock. A lock can exist on a workspace that was never
/// named. Returns whether the workspace or a lock existed.
///
/// # Errors
/// Any error of the store.
pub fn delete_workspace(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    let lock = load_current(set, workspace_id, rules)?;
    // The members who follow are told about the deletion. The list is read first, because the deletion
    // removes it.
    let members: HashSet<_> = match rules.membership {
        Membership::Enforced => set.members(workspace_id, "", usize::MAX)?,
        Membership::Open => Vec::new(),
    }
    .into_iter()
    .map(|member| member.user_id)
    .collect();
    if !set.delete_workspace(workspace_id)? && lock.is_none() {
        return Ok(false);
    }
    waitlist::remove_excluded(set, workspace_id, rules)?;
    if let Some(lock) = lock {
        apply(set, Change::End(lock, Ending::WorkspaceDeleted), by, rules)?;
    } else {
        let what = EventType::Ended(Ending::WorkspaceDeleted);
        let event = NewEvent::without_lease(workspace_id, None, what, set.now());
        set.record(&NewEvent { by, ..event })?;
    }
    if !members.is_empty() {
        set.deleted_members(members);
    }
    Ok(true)
}

/// Adds a member or changes its role. A holder who may no longer hold the lock loses it.
///
/// # Errors
/// Any error of the store.
pub fn put_member(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    member: &Member,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<(), Error> {
    set.put_member(workspace_id, member)?;
    if is_allowed(&**set, workspace_id, &member.user_id, rules)?.is_err() {
        exclude(set, workspace_id, &member.user_id, Ending::Revoked, by, rules)?;
    }
    Ok(())
}

/// Removes a member and ends the user's lock. A user can hold a lock without being a member. Returns whether
/// the user was a member or held the lock.
///
/// # Errors
/// Any error of the store.
pub fn remove_member(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    let removed = set.delete_member(workspace_id, user_id)?;
    let held = exclude(set, workspace_id, user_id, Ending::MemberRemoved, by, rules)?;
    if removed && !held {
        let what = EventType::Ended(Ending::MemberRemoved);
        let event = NewEvent::without_lease(workspace_id, Some(user_id), what, set.now());
        set.record(&NewEvent { by, ..event })?;
    }
    Ok(removed || held)
}

/// Ends the lease of a user who may no longer hold the lock, and removes the user from the wait list. The
/// user's knock is removed too, unless the user may still hold the lock. Returns whether the user had a
/// lease.
fn exclude(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    ending: Ending,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    // First, so that the next change does not grant the lock to this user.
    waitlist::remove_excluded(set, workspace_id, rules)?;
    // This also removes the user's knock.
    match apply_due(set, workspace_id, rules)?.filter(|lock| lock.user_id == *user_id) {
        Some(lock) => apply(set, Change::End(lock, ending), by, rules).map(|()| true),
        None => Ok(false),
    }
}

impl Service {
    /// Creates a workspace. An existing workspace keeps its name unless `anew` is set.
    pub fn put_workspace(
        &self,
        workspace_id: WorkspaceId,
        name: Option<DisplayName>,
        anew: bool,
        reply: impl Reply<Workspace>,
    ) {
        let work = move |set: &WorkingSet<'_>| {
            set.put_workspace(&workspace_id, name.as_ref(), anew, set.wall_at(set.now()))
        };
        self.store.submit(Keys::default(), work, reply);
    }

    /// Returns a workspace, if it exists.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.store.read(|rows| rows.workspace(workspace_id)).map(|found| found.value)
    }

    /// Returns workspaces that `actor` may see, ordered by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn workspaces(&self, actor: &Actor, after: &str, limit: usize) -> Result<Vec<Workspace>, Error> {
        let member = self.visible_only_to(actor);
        self.store.read(|rows| rows.workspaces(member, after, limit)).map(|found| found.value)
    }

    /// Returns the user to whose workspaces the view of `actor` is limited; `None` if the actor sees all.
    #[must_use]
    pub fn visible_only_to<'a>(&self, actor: &'a Actor) -> Option<&'a UserId> {
        match self.rules.membership {
            Membership::Enforced if !actor.scope.sees_all() => actor.user_id.as_ref(),
            Membership::Enforced | Membership::Open => None,
        }
    }

    /// Deletes a workspace with its members and ends its lock.
    pub fn delete_workspace(&self, workspace_id: WorkspaceId, by: Option<Author>, reply: impl Reply<bool>) {
        let rules = Arc::clone(&self.rules);
        let keys = Keys::workspace(&workspace_id);
        let work = move |set: &WorkingSet<'_>| delete_workspace(set, &workspace_id, by.as_ref(), &rules);
        self.store.submit(keys, work, reply);
    }

    /// Adds a member or changes its role.
    pub fn put_member(
        &self,
        actor: Actor,
        workspace_id: WorkspaceId,
        member: Member,
        by: Option<Author>,
        reply: impl Reply<()>,
    ) {
        let keys = Keys::workspace(&workspace_id);
        let work = move |set: &WorkingSet<'_>, rules: &Rules, _| {
            put_member(set, &workspace_id, &member, by.as_ref(), rules)
        };
        self.submit_as(actor, keys, Need::Manage, work, reply);
    }

    /// Returns the members of a workspace, ordered by id, after `after`, at most `limit`; `None` if the
    /// workspace does not exist.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn members(
        &self,
        workspace_id: &WorkspaceId,
        after: &str,
        limit: usize,
    ) -> Result<Option<Vec<Member>>, Error> {
        let members = |rows: &dyn Rows| match rows.workspace(workspace_id)? {
            Some(_) => rows.members(workspace_id, after, limit).map(Some),
            None => Ok(None),
        };
        self.store.read(members).map(|found| found.value)
    }

    /// Removes a member and ends their lock.
    pub fn remove_member(
        &self,
        actor: Actor,
        workspace_id: WorkspaceId,
        user_id: UserId,
        by: Option<Author>,
        reply: impl Reply<bool>,
    ) {
        let keys = Keys::workspace(&workspace_id);
        let work = move |set: &WorkingSet<'_>, rules: &Rules, _| {
            remove_member(set, &workspace_id, &user_id, by.as_ref(), rules)
        };
        self.submit_as(actor, keys, Need::Manage, work, reply);
    }
}
