//! The users that are present on a workspace.

use super::Service;
use crate::domain::waitlist::QueueEntry as _;
use crate::domain::{Lock, WorkspaceId};
use crate::error::Error;
use crate::events::presence::PresentUser;
use crate::store::AsOf;
use crate::store::queue::QueuedWaiter;

/// Maximum number of followers that are listed for a workspace.
pub const MAX_PRESENT_USERS: usize = 500;

/// Users that are present on a workspace.
#[derive(Debug)]
pub struct WorkspacePresence {
    /// The live lock, with its holder and its knocks.
    pub lock: Option<Lock>,
    /// Waiters for the lock, in grant order.
    pub waiting: Vec<QueuedWaiter>,
    /// Users that follow the events of this workspace by its name, at most [`MAX_PRESENT_USERS`].
    pub followers: Vec<PresentUser>,
}

impl Service {
    /// Lists the users that are present on a workspace.
    ///
    /// # Errors
    /// Same as [`Self::lock`].
    pub fn presence(&self, workspace_id: &WorkspaceId) -> Result<AsOf<WorkspacePresence>, Error> {
        let AsOf { now, value: lock } = self.lock(workspace_id)?;
        let mut waiting = self.store.waiters(workspace_id)?;
        waiting.retain(|place| place.waits(now));
        let followers = self.followers(workspace_id)?;
        Ok(AsOf { now, value: WorkspacePresence { lock, waiting, followers } })
    }

    /// Followers of a workspace that receive its events.
    fn followers(&self, workspace_id: &WorkspaceId) -> Result<Vec<PresentUser>, Error> {
        let mut users = self.broadcaster.presence(workspace_id, MAX_PRESENT_USERS);
        if users.iter().any(|user| user.is_member) {
            let members = self.store.read(|rows| {
                let workspace_id = workspace_id.with_roles();
                let is_member = |user: &PresentUser| Ok(rows.role(&workspace_id, &user.user_id)?.is_some());
                users.iter().map(is_member).collect::<Result<Vec<_>, Error>>()
            })?;
            let mut are_members = members.value.into_iter();
            users.retain(|user| are_members.next() == Some(true) || !user.is_member);
        }
        Ok(users)
    }
}
