//! Workspaces and their members.

use std::collections::HashSet;
use std::sync::Arc;

use super::Service;
use super::current::{apply, apply_due, is_allowed, load_current};
use super::waitlist;
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::{Author, Ending, EventType, NewEvent};
use crate::domain::member::{Actor, Member, Membership, Need, Workspace, access, matters};
use crate::domain::rules::Change;
use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::error::{Denied, Error};
use crate::store::{AsOf, Keys, Rows, WorkingSet};

/// Whether `actor` may do what they need on a workspace. Returns what they may do besides, or why not.
///
/// # Errors
/// What the store refuses.
pub fn may(
    rows: &(impl Rows + ?Sized),
    actor: &Actor,
    workspace_id: &WorkspaceId,
    need: Need,
    rules: &Rules,
) -> Result<Result<Privilege, Denied>, Error> {
    if !matters(need, rules) {
        return Ok(Ok(actor.standing));
    }
    let role = match &actor.user_id {
        Some(user_id) => rows.role(workspace_id, user_id)?,
        None => None,
    };
    let exists = role.is_some() || rows.workspace(workspace_id)?.is_some();
    Ok(access(actor, exists, role, need, rules.membership))
}

/// Deletes a workspace with its members, and ends its lock, which it may have though nobody named it. Returns whether there
/// was one of them.
///
/// # Errors
/// What the store refuses.
pub fn delete_workspace(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    let lock = load_current(set, workspace_id, rules)?;
    // Those who follow are told that it is gone. Afterwards nobody could tell who they were.
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
    waitlist::turn_out(set, workspace_id, rules)?;
    if let Some(lock) = lock {
        apply(set, Change::End(lock, Ending::WorkspaceDeleted), by, rules)?;
    } else {
        let what = EventType::Ended(Ending::WorkspaceDeleted);
        let event = NewEvent::without_lease(workspace_id, None, what, set.now());
        set.record(&NewEvent { by, ..event })?;
    }
    if !members.is_empty() {
        set.parted(members);
    }
    Ok(true)
}

/// Makes somebody a member, or changes what they may do. A holder who may not hold the lock any more loses it.
///
/// # Errors
/// What the store refuses.
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

/// Removes a member, and ends their lock, which they may have without being one. Returns whether they were or had one.
///
/// # Errors
/// What the store refuses.
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

/// Somebody may not hold the lock any more: their lease ends, and they wait no more; nor do they knock, unless
/// they may all the same. Returns whether they had a lease.
fn exclude(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    ending: Ending,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    // First: what becomes of the lock now is nothing to them.
    waitlist::turn_out(set, workspace_id, rules)?;
    // What is due, too, forgets their knock.
    match apply_due(set, workspace_id, rules)?.filter(|lock| lock.user_id == *user_id) {
        Some(lock) => apply(set, Change::End(lock, ending), by, rules).map(|()| true),
        None => Ok(false),
    }
}

impl Service {
    /// Names a workspace. One that is there keeps its name unless `anew`.
    pub fn put_workspace(
        &self,
        workspace_id: WorkspaceId,
        name: Option<DisplayName>,
        anew: bool,
        reply: impl FnOnce(Result<AsOf<Workspace>, Error>) + Send + 'static,
    ) {
        let work = move |set: &WorkingSet<'_>| {
            set.put_workspace(&workspace_id, name.as_ref(), anew, set.wall_at(set.now()))
        };
        self.store.submit(Keys::default(), work, reply);
    }

    /// A workspace, if somebody named it.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.store.read(|rows| rows.workspace(workspace_id)).map(|found| found.value)
    }

    /// Workspaces that `actor` may see, by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn workspaces(&self, actor: &Actor, after: &str, limit: usize) -> Result<Vec<Workspace>, Error> {
        let member = self.only_for(actor);
        self.store.read(|rows| rows.workspaces(member, after, limit)).map(|found| found.value)
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
        let keys = Keys::workspace(&workspace_id);
        let work = move |set: &WorkingSet<'_>| delete_workspace(set, &workspace_id, by.as_ref(), &rules);
        self.store.submit(keys, work, reply);
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
        let keys = Keys::workspace(&workspace_id);
        let work =
            move |set: &WorkingSet<'_>, _| put_member(set, &workspace_id, &member, by.as_ref(), &rules);
        self.submit_as(actor, keys, Need::Manage, work, reply);
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
        reply: impl FnOnce(Result<AsOf<bool>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let keys = Keys::workspace(&workspace_id);
        let work =
            move |set: &WorkingSet<'_>, _| remove_member(set, &workspace_id, &user_id, by.as_ref(), &rules);
        self.submit_as(actor, keys, Need::Manage, work, reply);
    }
}
