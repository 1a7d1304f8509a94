//! Presence: which users follow the events of a workspace.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::time::WallTime;

/// A user who follows a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentUser {
    /// The user.
    pub user_id: UserId,
    /// The display name.
    pub name: Option<DisplayName>,
    /// When the stream was opened.
    pub since: WallTime,
    /// Whether they follow as a member. One whose membership has ended is not shown.
    pub is_member: bool,
}

/// Followers by workspace, with the number of their stream.
type Present = HashMap<WorkspaceId, Vec<(u64, PresentUser)>>;

/// All followers of named workspaces.
#[derive(Debug, Default)]
pub(super) struct Presence {
    present: Mutex<(u64, Present)>,
}

/// The presence of one stream. It ends on drop.
pub(super) struct PresenceGuard {
    presence: Arc<Presence>,
    number: u64,
    workspaces: Vec<WorkspaceId>,
}

impl Presence {
    /// Adds a stream that follows these workspaces.
    pub(super) fn enter(self: &Arc<Self>, user: &PresentUser, workspaces: Vec<WorkspaceId>) -> PresenceGuard {
        let mut present = self.lock();
        let (last, present) = &mut *present;
        *last += 1;
        for workspace_id in &workspaces {
            present.entry(workspace_id.clone()).or_default().push((*last, user.clone()));
        }
        PresenceGuard { presence: Arc::clone(self), number: *last, workspaces }
    }

    /// Users who follow this workspace, each once, in order of arrival, at most `limit`.
    pub(super) fn of(&self, workspace_id: &WorkspaceId, limit: usize) -> Vec<PresentUser> {
        let (mut presence, mut seen) = (Vec::new(), HashSet::new());
        let present = self.lock();
        for (_, user) in present.1.get(workspace_id).into_iter().flatten() {
            if presence.len() == limit {
                break;
            }
            if seen.insert(&user.user_id) {
                presence.push(user.clone());
            }
        }
        presence
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Present)> {
        // Nothing panics while it is held.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut present = self.presence.lock();
        for workspace_id in &self.workspaces {
            if let Some(presence) = present.1.get_mut(workspace_id) {
                presence.retain(|(number, _)| *number != self.number);
                if presence.is_empty() {
                    present.1.remove(workspace_id);
                }
            }
        }
    }
}
