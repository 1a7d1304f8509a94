//! Workspaces and their members.

use super::{DisplayName, UserId, WorkspaceId};
use crate::time::WallTime;

/// Role of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May see the workspace.
    Viewer,
    /// May also lock it.
    Editor,
    /// May also take over and revoke locks, and manage members.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// Name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// Role with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Named workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Id of the workspace.
    pub workspace_id: WorkspaceId,
    /// Display name of the workspace.
    pub name: Option<DisplayName>,
    /// When it was first named, by the wall clock.
    pub created_at: WallTime,
}

/// Member of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Id of the user.
    pub user_id: UserId,
    /// Role of the user.
    pub role: Role,
}
