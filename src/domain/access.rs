//! What the settings can change about the rules.

use crate::time::Ttl;

/// `locks.same_user`: what a second session of the holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameUser {
    /// The holder: the sessions of one person share the lock.
    Share,
    /// Somebody else.
    Separate,
}

/// `locks.takeover`: who may end somebody else's live lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Whoever may lock.
    Anyone,
    /// Administrators, of the workspace or the server.
    Admins,
    /// Nobody. An administrator can still revoke a lock.
    Nobody,
}

/// `workspaces.membership`: whether only members may use a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// No. Every caller may lock, and a workspace need not exist.
    Open,
    /// Yes. Only members see a workspace, and only its editors and admins lock it.
    Enforced,
}

/// What the caller may do besides locking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Nothing.
    Ordinary,
    /// Administers the workspace.
    WorkspaceAdmin,
    /// Administers the server.
    Administrator,
}

impl Takeover {
    /// Whether somebody of this standing may take over.
    #[must_use]
    pub const fn allows(self, standing: Privilege) -> bool {
        match (self, standing) {
            (Self::Anyone, _) | (Self::Admins, Privilege::WorkspaceAdmin | Privilege::Administrator) => true,
            (Self::Admins, Privilege::Ordinary) | (Self::Nobody, _) => false,
        }
    }
}

/// What the decisions go by: the settings under `[locks]`, and how far back a lease can be reclaimed, which the service
/// fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The lease of an acquire that does not say how long.
    pub default_ttl: Ttl,
    /// A shorter one becomes this.
    pub min_ttl: Ttl,
    /// A longer one becomes this.
    pub max_ttl: Ttl,
    /// What a second session of the holder is.
    pub same_user: SameUser,
    /// Who may take over.
    pub takeover: Takeover,
    /// What a lease that was given to somebody who was not asking just then lasts until they first renew it: they may
    /// have gone away.
    pub claim_within: Ttl,
    /// After how long without an answer a lock passes to whoever knocked; nothing means never.
    pub knock_grant_after: Option<Ttl>,
    /// How long after a knock was first shown the lock passes on at the latest, though its holder is at work; nothing means
    /// that it never does while they are.
    pub knock_grant_at_latest: Option<Ttl>,
    /// How long after they were declined somebody can knock on the same lease again.
    pub knock_again_after: Ttl,
    /// Whether one has to be a member of a workspace.
    pub membership: Membership,
    /// Most locks that one user can have.
    pub locks_per_user: u32,
    /// After how long without activity a holder's live lock can be taken over by anybody; nothing means never.
    pub idle_takeover_after: Option<Ttl>,
    /// How long after its end a lease can be reclaimed: as long as its history is kept.
    pub reclaim_within: Ttl,
}

impl Rules {
    /// `asked` within what is allowed, or `otherwise` if nothing was asked.
    #[must_use]
    pub fn ttl(&self, asked: Option<Ttl>, otherwise: Ttl) -> Ttl {
        asked.unwrap_or(otherwise).clamp(self.min_ttl, self.max_ttl)
    }

    /// Whether somebody of this standing may end a lease whose holder has done nothing for `idle`.
    #[must_use]
    pub fn may_take_over(&self, standing: Privilege, idle: Ttl) -> bool {
        self.takeover.allows(standing) || self.idle_takeover_after.is_some_and(|after| idle >= after)
    }
}
