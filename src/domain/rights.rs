//! Who may do what. The scope of the credentials, the role on the workspace and the settings decide.

use super::UserId;
use super::access::{Membership, Privilege, Rules, Takeover};
use super::event::Ending;
use super::member::Role;
use super::token::Scope;
use crate::error::Denied;

/// Right that an operation requires of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// No right: the response reveals nothing about locks.
    Open,
    /// The right to see locks.
    Read,
    /// The right to hold locks. The credentials must name a user.
    Lock,
    /// The right to monitor the server.
    Monitor,
    /// The right to manage workspaces, members and users for an app.
    Serve,
    /// The right to administer the server.
    Administer,
}

impl Right {
    /// The scopes that have the right.
    #[must_use]
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Open | Self::Read => &Scope::ALL,
            Self::Lock => &[Scope::User, Scope::Service, Scope::Admin],
            Self::Monitor => &[Scope::Read, Scope::Service, Scope::Admin],
            Self::Serve => &[Scope::Service, Scope::Admin],
            Self::Administer => &[Scope::Admin],
        }
    }

    /// Checks whether credentials have the right. `names_user` tells whether they name a user.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self, scope: Scope, names_user: bool) -> Result<(), Missing> {
        if !self.scopes().contains(&scope) {
            return Err(Missing::Scope);
        }
        if self == Self::Lock && !names_user { Err(Missing::User) } else { Ok(()) }
    }
}

/// What credentials lack for a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// One of the scopes.
    Scope,
    /// A user.
    User,
}

impl Scope {
    /// Privilege on locks.
    #[must_use]
    pub const fn privilege(self) -> Privilege {
        match self {
            Self::Admin => Privilege::Administrator,
            Self::Read | Self::User | Self::Service => Privilege::Ordinary,
        }
    }

    /// Whether the caller may see every workspace.
    #[must_use]
    pub const fn sees_all(self) -> bool {
        matches!(self, Self::Read | Self::Service | Self::Admin)
    }

    /// Whether the caller may see the events of deleted workspaces.
    #[must_use]
    pub const fn sees_deleted(self) -> bool {
        matches!(self, Self::Admin)
    }

    /// Whether the caller may act for any user, and manage every workspace.
    #[must_use]
    pub const fn acts_for_others(self) -> bool {
        matches!(self, Self::Service | Self::Admin)
    }

    /// The only scope of tokens that the caller may create and revoke. `None` means every scope.
    #[must_use]
    pub const fn only_tokens_of(self) -> Option<Self> {
        match self {
            Self::Admin => None,
            Self::Read | Self::User | Self::Service => Some(Self::User),
        }
    }
}

/// Caller, as far as access to workspaces is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Id of the user; `None` if the caller acts for no user.
    pub user_id: Option<UserId>,
    /// Scope of the credentials.
    pub scope: Scope,
    /// Whether the caller is an agent. It has no right beyond locks of the kind `agent`.
    pub is_agent: bool,
}

impl Actor {
    /// Whether the caller may end all leases of this user.
    #[must_use]
    pub fn may_release_all_of(&self, user_id: &UserId) -> bool {
        let is_themselves = self.user_id.as_ref() == Some(user_id) && !self.is_agent;
        self.scope.privilege() == Privilege::Administrator || is_themselves
    }
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
    let knows = exists && (actor.scope.sees_all() || role.is_some());
    match (membership, need) {
        (Membership::Open, Need::Manage) if !exists => return Err(Denied::NoSuchWorkspace),
        (Membership::Enforced, _) if !knows => return Err(Denied::NoSuchWorkspace),
        (_, Need::See | Need::Revoke) | (Membership::Open, Need::Edit) => {}
        (Membership::Enforced, Need::Edit) => {
            // The caller can see the workspace, so the error need not hide it.
            may_hold(role, membership).map_err(|_| Denied::NotAMember)?;
        }
        (_, Need::Manage) => {
            if actor.is_agent || (!actor.scope.acts_for_others() && role != Some(Role::Admin)) {
                return Err(Denied::NotAnAdmin);
            }
        }
    }
    Ok(if role == Some(Role::Admin) && !actor.is_agent {
        actor.scope.privilege().max(Privilege::WorkspaceAdmin)
    } else {
        actor.scope.privilege()
    })
}
