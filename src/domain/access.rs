//! Settings that change the rules.

use super::{LockKind, Owner, SessionId};
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

/// Parameters of the decisions: the settings under `[locks]` and `[kinds]`, membership, and how long a lease can be
/// reclaimed, which the service sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Lease durations and limits of each kind of lock.
    pub kinds: PerKind,
    /// Minimum lease duration. Shorter requests are raised to it.
    pub min_ttl: Ttl,
    /// How a second session of the holder is treated.
    pub same_user: SameUser,
    /// Who may take over.
    pub takeover: Takeover,
    /// Whether a person's acquire takes over an agent's lease without `force`.
    pub agents_yield: bool,
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
    /// Idle time of the holder after which any caller may take over the live lock; `None` means never.
    pub idle_takeover_after: Option<Ttl>,
    /// Time after its end in which a lease can be reclaimed: as long as its history is kept.
    pub reclaim_within: Ttl,
}

/// Settings of one kind of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindRules {
    /// Lease duration if the acquire does not give one.
    pub default_ttl: Ttl,
    /// Maximum lease duration. Longer requests are lowered to it.
    pub max_ttl: Ttl,
    /// Maximum number of locks of this kind per user.
    pub locks_per_user: u32,
}

/// Settings of all kinds of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerKind {
    /// `[locks]` and `limits.locks_per_user`
    pub edit: KindRules,
    /// `[kinds.agent]`
    pub agent: KindRules,
    /// `[kinds.run]`
    pub run: KindRules,
    /// `[kinds.terraform]`
    pub terraform: KindRules,
    /// `[kinds.lfs]`
    pub lfs: KindRules,
}

impl Rules {
    /// Settings of this kind of lock.
    #[must_use]
    pub const fn of(&self, kind: LockKind) -> &KindRules {
        let kinds = &self.kinds;
        match kind {
            LockKind::Edit => &kinds.edit,
            LockKind::Agent => &kinds.agent,
            LockKind::Run => &kinds.run,
            LockKind::Terraform => &kinds.terraform,
            LockKind::Lfs => &kinds.lfs,
        }
    }

    /// Clamps `requested` to the range of the kind; uses `default` if `requested` is `None`.
    #[must_use]
    pub fn ttl(&self, kind: LockKind, requested: Option<Ttl>, default: Ttl) -> Ttl {
        requested.unwrap_or(default).clamp(self.min_ttl, self.of(kind).max_ttl)
    }

    /// Whether the sessions of one user share a lock of this kind.
    #[must_use]
    pub fn is_shared(&self, kind: LockKind) -> bool {
        match kind.properties().owner {
            Owner::BySetting => self.same_user == SameUser::Share,
            Owner::Session => false,
            Owner::User => true,
        }
    }

    /// Whether two sessions of one user are the same owner of a lock of this kind.
    #[must_use]
    pub fn is_same_owner(&self, kind: LockKind, one: Option<&SessionId>, other: Option<&SessionId>) -> bool {
        self.is_shared(kind) || is_same_session(kind, one, other)
    }

    /// Whether `force` takes a lease of the kind `held`, whose holder has been idle for `idle`, over for a caller with
    /// this privilege who asks for a lock of the kind `asked`.
    #[must_use]
    pub fn may_take_over(&self, asked: LockKind, held: LockKind, privilege: Privilege, idle: Ttl) -> bool {
        let properties = held.properties();
        let is_idle = || self.idle_takeover_after.is_some_and(|after| idle >= after);
        properties.yields_to_force
            && !asked.is_agent()
            && (self.takeover.allows(privilege) || (properties.passes_on && is_idle()))
    }

    /// Whether a lease of the kind `held` is taken over by an acquire of the kind `asked`, without `force`.
    #[must_use]
    pub const fn yields(&self, held: LockKind, asked: LockKind) -> bool {
        self.agents_yield && held.is_agent() && matches!(asked, LockKind::Edit)
    }

    /// Whether a lease of the kind `held` passes to a knock that asks for a lock of the kind `asked` if its holder does
    /// not answer.
    #[must_use]
    pub const fn passes_on(held: LockKind, asked: LockKind) -> bool {
        held.properties().passes_on && (!asked.is_agent() || held.is_agent())
    }
}

/// Whether two requests of one user come from the same session. Where the session owns the lock, requests without a
/// session id are never known to be the same session: they may be two processes.
#[must_use]
pub fn is_same_session(kind: LockKind, one: Option<&SessionId>, other: Option<&SessionId>) -> bool {
    one == other && (one.is_some() || kind.properties().owner != Owner::Session)
}
