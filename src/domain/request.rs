//! Requests on locks, and their outcomes.

use super::LockKind;
use super::access::Privilege;
use super::id::{SessionId, UserId, WorkspaceId};
use super::lease::{Fence, Lock};
use super::name::DisplayName;
use crate::time::Ttl;

/// Whether an acquire takes over a lease of another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// No takeover.
    No,
    /// Take over from any holder.
    AnyHolder,
    /// Take over only the lease with this fence.
    OnlyFence(Fence),
}

/// Request to acquire the lock of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// The workspace to lock.
    pub workspace_id: WorkspaceId,
    /// Kind of the lock.
    pub kind: LockKind,
    /// Id of the caller.
    pub user_id: UserId,
    /// Display name of the caller.
    pub user_name: Option<DisplayName>,
    /// For an agent: display name of the user for whom it acts.
    pub for_name: Option<DisplayName>,
    /// Session of the caller.
    pub session_id: Option<SessionId>,
    /// Privilege of the caller.
    pub privilege: Privilege,
    /// Requested lease duration; the default if `None`.
    pub ttl: Option<Ttl>,
    /// Whether to take over.
    pub force: Force,
    /// Note on the lease.
    pub note: Option<String>,
    /// JSON object, encoded.
    pub metadata: Option<String>,
    /// Reason of the takeover, for the history.
    pub reason: Option<String>,
}

/// Outcome of an [`Acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// The workspace was free. A new lease begins.
    Acquired(Lock),
    /// The caller held the lease. It is renewed, with the same fence.
    Renewed(Lock),
    /// The caller's own lease had expired, and no other lease began in between. It resumes with the same
    /// fence.
    Reclaimed(Lock),
    /// The lease of another holder was ended by takeover.
    TakenOver {
        /// The new lease.
        lock: Lock,
        /// The ended lease.
        previous: Box<Lock>,
    },
    /// Another holder has the lock.
    Held {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user in another session.
        same_user: bool,
        /// Whether the caller may take over.
        takeover_allowed: bool,
        /// How long the holder has been idle, as far as known.
        idle: Ttl,
    },
    /// The fence of the takeover is not the fence of the live lock.
    FenceMismatch(Lock),
    /// The policy does not allow the caller to take over.
    TakeoverForbidden(Lock),
    /// The caller has reached the limit of locks per user.
    TooMany,
}

/// Claim of a caller to hold a live lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Id of the caller.
    pub user_id: UserId,
    /// Session of the caller, if given.
    pub session_id: Option<SessionId>,
    /// Fence of the claimed lease, if given.
    pub fence: Option<Fence>,
    /// Whether the caller is an agent. It is never a session of the user for whom it acts.
    pub is_agent: bool,
}

/// Request to renew a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The claimed lease.
    pub claim: Claim,
    /// Requested duration from now; unchanged if `None`.
    pub ttl: Option<Ttl>,
    /// Activity of the holder since the last heartbeat.
    pub activity: Activity,
}

/// Activity of the holder since the last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// The holder was active.
    Active,
    /// The holder was idle, or the activity is not given.
    Idle,
}

/// Outcome of a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// The lease is renewed.
    Renewed(Lock),
    /// The live lock is not the claimed one.
    NotHolder {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user, with another lease or session.
        same_user: bool,
    },
    /// No live lock.
    NoLock,
}

/// Request to release a lease, or to revoke it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The claimed lease.
    pub claim: Claim,
    /// Display name of the caller, for the history.
    pub user_name: Option<DisplayName>,
    /// Whether this is a release or a revocation.
    pub authority: Authority,
    /// Privilege of the caller.
    pub privilege: Privilege,
    /// Reason, for the history.
    pub reason: Option<String>,
}

/// Authority to end a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Release: the holder ends its own lease.
    Holder,
    /// Revocation: an administrator ends a lease of any holder.
    Administrator,
    /// Revocation by an administrator, or by a user who may take locks over.
    TakesOver,
}

/// Outcome of a [`Release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The lease ended.
    Released(Lock),
    /// There was no live lock.
    Nothing,
    /// The claimed lease is live, but the caller may not revoke it.
    Forbidden(Lock),
    /// The live lock is not the claimed one.
    NotHolder {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user, with another lease or session.
        same_user: bool,
    },
}

impl Acquire {
    /// Acquire for `user_id` with defaults in all other fields.
    #[must_use]
    pub const fn new(workspace_id: WorkspaceId, user_id: UserId) -> Self {
        Self {
            workspace_id,
            kind: LockKind::Edit,
            user_id,
            user_name: None,
            for_name: None,
            session_id: None,
            privilege: Privilege::Ordinary,
            ttl: None,
            force: Force::No,
            note: None,
            metadata: None,
            reason: None,
        }
    }
}

impl Claim {
    /// Whether `lock` has the claimed fence, if one is given, and can be the caller's.
    #[must_use]
    pub fn names(&self, lock: &Lock) -> bool {
        self.fence.is_none_or(|fence| fence == lock.fence) && (!self.is_agent || lock.kind.is_agent())
    }
}
