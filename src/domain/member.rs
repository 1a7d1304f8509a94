//! Who belongs to a workspace, and what that lets them do.

pub use super::access::Membership;
use super::access::{Privilege, Rules, Takeover};
use super::event::Ending;
use super::{DisplayName, UserId, WorkspaceId};
use crate::error::Denied;
use crate::time::WallTime;

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See.
    Viewer,
    /// Lock, too.
    Editor,
    /// Take over and end locks, and see to the members, too.
    Admin,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// The name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// A workspace that somebody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub workspace_id: WorkspaceId,
    /// How it is shown.
    pub name: Option<DisplayName>,
    /// When it was first named, as the wall clock showed it.
    pub created_at: WallTime,
}

/// A member of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
}

/// Who acts, as far as workspaces are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who; nobody in particular where that is enough.
    pub user_id: Option<UserId>,
    /// Whether every workspace is theirs to see.
    pub sees_all: bool,
    /// Whether every workspace is theirs to manage.
    pub manages_all: bool,
    /// What they may do besides.
    pub standing: Privilege,
}

/// What somebody would do on a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// See it.
    See,
    /// End somebody else's lock on it, if they administer it.
    Revoke,
    /// Hold its lock.
    Edit,
    /// See to its members.
    Manage,
}

/// Whether what somebody is on a workspace decides about what they need there.
#[must_use]
pub fn matters(need: Need, rules: &Rules) -> bool {
    rules.membership == Membership::Enforced
        || rules.takeover == Takeover::Admins
        || matches!(need, Need::Manage | Need::Revoke)
}

/// Whether somebody with this role may hold the lock of a workspace.
///
/// # Errors
/// Why not.
pub fn may_hold(role: Option<Role>, membership: Membership) -> Result<(), Denied> {
    match (membership, role) {
        (Membership::Open, _) | (_, Some(Role::Editor | Role::Admin)) => Ok(()),
        (Membership::Enforced, Some(Role::Viewer)) => Err(Denied::NotAMember),
        (Membership::Enforced, None) => Err(Denied::NoSuchWorkspace),
    }
}

/// How the lease of somebody ends who may not hold it. `exists` tells whether the workspace does.
#[must_use]
pub const fn forced_ending(role: Option<Role>, exists: bool) -> Ending {
    match role {
        Some(_) => Ending::Revoked,
        None if exists => Ending::MemberRemoved,
        None => Ending::WorkspaceDeleted,
    }
}

/// Whether `actor`, who has this role on a workspace, may do what they need. Returns what they may do besides.
///
/// # Errors
/// Why not.
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
            // They know of it.
            may_hold(role, membership).map_err(|_| Denied::NotAMember)?;
        }
        (_, Need::Manage) => {
            if !actor.manages_all && role != Some(Role::Admin) {
                return Err(Denied::NotAnAdmin);
            }
        }
    }
    Ok(if role == Some(Role::Admin) { actor.standing.max(Privilege::WorkspaceAdmin) } else { actor.standing })
}
