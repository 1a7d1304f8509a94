//! Workspaces, members and access checks.

pub use super::access::Membership;
use super::access::{Privilege, Rules, Takeover};
use super::event::Ending;
use super::{DisplayName, UserId, WorkspaceId};
use crate::error::Denied;
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

/// Caller, as far as access to workspaces is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Id of the user; `None` if the caller acts for no user.
    pub user_id: Option<UserId>,
    /// Whether the caller may see every workspace.
    pub sees_all: bool,
    /// Whether the caller may manage every workspace.
    pub manages_all: bool,
    /// Privilege of the caller.
    pub privilege: Privilege,
}

/// Access that an operation on a workspace needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// See the workspace.
    See,
    /// Revoke its lock. Seeing the workspace is enough here; the decision checks the privilege.
    Revoke,
    /// Hold its lock.
    Edit,
    /// Manage its members.
    Manage,
}

/// Whether the caller's role on a workspace affects this need. If not, no role is looked up.
#[must_use]
pub fn depends_on_role(need: Need, rules: &Rules) -> bool {
    rules.membership == Membership::Enforced
        || rules.takeover == Takeover::Admins
        || matches!(need, Need::Manage | Need::Revoke)
}

/// Whether a user with this role may hold the lock of a workspace.
///
/// # Errors
/// [`Denied`] with the reason.
pub fn may_hold(role: Option<Role>, membership: Membership) -> Result<(), Denied> {
    match (membership, role) {
        (Membership::Open, _) | (_, Some(Role::Editor | Role::Admin)) => Ok(()),
        (Membership::Enforced, Some(Role::Viewer)) => Err(Denied::NotAMember),
        (Membership::Enforced, None) => Err(Denied::NoSuchWorkspace),
    }
}

/// How the lease of a user who may not hold it is ended. `exists` tells whether the workspace exists.
#[must_use]
pub const fn forced_ending(role: Option<Role>, exists: bool) -> Ending {
    match role {
        Some(_) => Ending::Revoked,
        None if exists => Ending::MemberRemoved,
        None => Ending::WorkspaceDeleted,
    }
}

/// Checks whether `actor`, with this role on a workspace, may do what `need` says. Returns the caller's
/// privilege.
///
/// # Errors
/// [`Denied`] with the reason.
pub fn access(
    actor: &Actor,
    exists: bool,
    role: Option<Role>,
    need: Need,
    membership: Membership,
) -> Result<Privilege, Denied> {
    let knows = exists && (actor.sees_all || role.is_some());
    match (membership, need) {
        (Membership::Open, Need::Manage) if !exists => return Err(Denied::NoSuchWorkspace),
        (Membership::Enforced, _) if !knows => return Err(Denied::NoSuchWorkspace),
        (_, Need::See | Need::Revoke) | (Membership::Open, Need::Edit) => {}
        (Membership::Enforced, Need::Edit) => {
            // The caller can see the workspace, so the error need not hide it.
            may_hold(role, membership).map_err(|_| Denied::NotAMember)?;
        }
        (_, Need::Manage) => {
            if !actor.manages_all && role != Some(Role::Admin) {
                return Err(Denied::NotAnAdmin);
            }
        }
    }
    Ok(if role == Some(Role::Admin) {
        actor.privilege.max(Privilege::WorkspaceAdmin)
    } else {
        actor.privilege
    })
}
