//! A page of locks: the query and the result.

use crate::domain::{Fence, Lock, LockKind, UserId};

/// A query for a page of locks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LockQuery {
    /// Only locks of this user.
    pub user_id: Option<UserId>,
    /// Only these kinds; empty means all.
    pub kinds: Vec<LockKind>,
    /// Only the lock with this fence. `prefix` must begin with `lfs/`.
    pub fence: Option<Fence>,
    /// Only workspaces whose id begins with this prefix.
    pub prefix: String,
    /// Only workspaces after this one.
    pub after: String,
    /// Maximum number of locks.
    pub limit: usize,
    /// Only locks on workspaces of which this user is a member.
    pub member: Option<UserId>,
}

impl LockQuery {
    /// Whether locks of this kind are listed.
    #[must_use]
    pub fn has_kind(&self, kind: LockKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// A page of locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLocks {
    /// Live locks, by workspace id. There may be fewer than the limit although more follow.
    pub locks: Vec<Lock>,
    /// The workspace id after which the next page begins. `None` on the last page.
    pub next: Option<String>,
}
