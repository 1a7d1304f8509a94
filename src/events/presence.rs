//! Who follows the events of a workspace, so that its page can show their faces.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::time::WallTime;

/// Somebody who follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// Who.
    pub user_id: UserId,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// Since when, as the wall clock showed it.
    pub since: WallTime,
    /// Whether they follow as a member: who is none any more is told nothing, and is not there.
    pub is_member: bool,
}

/// Who follows what, by workspace; each under a number of their own.
type Present = HashMap<WorkspaceId, Vec<(u64, Face)>>;

/// Everybody who follows workspaces that they named.
#[derive(Debug, Default)]
pub(super) struct Presence {
    present: Mutex<(u64, Present)>,
}

/// Somebody's presence, which ends when this is dropped.
pub(super) struct PresenceGuard {
    faces: Arc<Presence>,
    number: u64,
    workspaces: Vec<WorkspaceId>,
}

impl Presence {
    /// Somebody follows these workspaces.
    pub(super) fn enter(self: &Arc<Self>, face: &Face, workspaces: Vec<WorkspaceId>) -> PresenceGuard {
        let mut present = self.lock();
        let (last, present) = &mut *present;
        *last += 1;
        for workspace_id in &workspaces {
            present.entry(workspace_id.clone()).or_default().push((*last, face.clone()));
        }
        PresenceGuard { faces: Arc::clone(self), number: *last, workspaces }
    }

    /// Who follows this workspace, each person once, in the order in which they came, at most `limit`.
    pub(super) fn of(&self, workspace_id: &WorkspaceId, limit: usize) -> Vec<Face> {
        let (mut faces, mut seen) = (Vec::new(), HashSet::new());
        let present = self.lock();
        for (_, face) in present.1.get(workspace_id).into_iter().flatten() {
            if faces.len() == limit {
                break;
            }
            if seen.insert(&face.user_id) {
                faces.push(face.clone());
            }
        }
        faces
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Present)> {
        // Nothing panics while it is held.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut present = self.faces.lock();
        for workspace_id in &self.workspaces {
            if let Some(faces) = present.1.get_mut(workspace_id) {
                faces.retain(|(number, _)| *number != self.number);
                if faces.is_empty() {
                    present.1.remove(workspace_id);
                }
            }
        }
    }
}
