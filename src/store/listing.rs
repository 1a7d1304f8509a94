//! A page of locks: what is asked for, and what is found.

use crate::domain::{Lock, UserId};

/// Which locks are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only those of this user.
    pub user_id: Option<UserId>,
    /// Only workspaces whose id begins like this.
    pub prefix: String,
    /// Only workspaces after this one.
    pub after: String,
    /// At most so many.
    pub limit: usize,
    /// Only on workspaces of which this user is a member.
    pub member: Option<UserId>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Live locks, by workspace id. They may be fewer than the limit though more follow.
    pub locks: Vec<Lock>,
    /// After which workspace the next page begins; nothing if this is the last one.
    pub next: Option<String>,
}
