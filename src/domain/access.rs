//! Settings that change the rules.

use crate::time::Ttl;

/// `locks.same_user`: how a second session of the holder is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameUser {
    /// As the holder: the sessions of one user share the lock.
    Share,
    /// As another caller.
    Separate,
}

/// `locks.takeover`: who may take over a live lease of another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Every caller who may lock.
    Anyone,
    /// Administrators of the workspace or of the server.
    Admins,
    /// No caller. An administrator can still revoke a lock.
    Nobody,
}

/// `workspaces.membership`: whether only members may use a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// Every caller may lock, and a workspace need not exist.
    Open,
    /// Only members see a workspace, and only its editors and admins may lock it.
    Enforced,
}

/// Privilege of a caller beyond locking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// No extra privilege.
    Ordinary,
    /// Administrator of the workspace.
    WorkspaceAdmin,
    /// Administrator of the server.
    Administrator,
}

impl Takeover {
    /// Whether a caller with this privilege may take over.
    #[must_use]
    pub const fn allows(self, privilege: Privilege) -> bool {
        match (self, privilege) {
            (Self::Anyone, _) | (Self::Admins, Privilege::WorkspaceAdmin | Privilege::Administrator) => true,
            (Self::Admins, Privilege::Ordinary) | (Self::Nobody, _) => false,
        }
    }
}

/// Parameters of the decisions: the settings under `[locks]`, membership, and how long a lease can be
/// reclaimed, which the service sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Lease duration if the acquire does not give one.
    pub default_ttl: Ttl,
    /// Minimum lease duration. Shorter requests are raised to it.
    pub min_ttl: Ttl,
    /// Maximum lease duration. Longer requests are lowered to it.
    pub max_ttl: Ttl,
    /// How a second session of the holder is treated.
    pub same_user: SameUser,
    /// Who may take over.
    pub takeover: Takeover,
    /// Duration of a granted lease until its first renewal. The recipient was not calling at that moment and
    /// may be offline.
    pub claim_within: Ttl,
    /// Time without an answer after which the lock is granted to the first knock; `None` means never.
    pub knock_grant_after: Option<Ttl>,
    /// Time after a knock is first shown when the lock is granted at the latest, even if the holder is
    /// active. `None` means never while the holder is active.
    pub knock_grant_at_latest: Option<Ttl>,
    /// Time after a decline before the same user may knock on the same lease again.
    pub knock_again_after: Ttl,
    /// Whether only members may use a workspace.
    pub membership: Membership,
    /// Maximum number of locks per user.
    pub locks_per_user: u32,
    /// Idle time of the holder after which any caller may take over the live lock; `None` means never.
    pub idle_takeover_after: Option<Ttl>,
    /// Time after its end in which a lease can be reclaimed: as long as its history is kept.
    pub reclaim_within: Ttl,
}

impl Rules {
    /// Clamps `requested` to the allowed range; uses `default` if `requested` is `None`.
    #[must_use]
    pub fn ttl(&self, requested: Option<Ttl>, default: Ttl) -> Ttl {
        requested.unwrap_or(default).clamp(self.min_ttl, self.max_ttl)
    }

    /// Whether a caller with this privilege may take over a lease whose holder has been idle for `idle`.
    #[must_use]
    pub fn may_take_over(&self, privilege: Privilege, idle: Ttl) -> bool {
        self.takeover.allows(privilege) || self.idle_takeover_after.is_some_and(|after| idle >= after)
    }
}
