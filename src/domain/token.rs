//! Credentials as they are kept: a hash, whose they are, what they are good for.

use super::{DisplayName, UserId};
use crate::time::WallTime;

/// A token's SHA-256.
pub type Hash = [u8; 32];

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Looks on.
    Read,
    /// Acts as its owner.
    User,
    /// Acts for anybody, and sees to workspaces, members and the tokens of users.
    Service,
    /// May do everything.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::Read, Self::User, Self::Service, Self::Admin];

    /// The name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A token, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub token_id: String,
    /// What it is good for.
    pub scope: Scope,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// What its owner, or it, is called.
    pub name: Option<DisplayName>,
    /// When it was made.
    pub created_at: WallTime,
    /// From then on it is good for nothing.
    pub expires_at: Option<WallTime>,
    /// When it was last used, give or take a minute.
    pub last_used_at: Option<WallTime>,
}

/// How long credentials are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lasts {
    /// As far as can be known here, for ever.
    Always,
    /// Until then.
    Until(WallTime),
    /// As long as there is a good token with this hash.
    AsLongAs(Hash),
}

impl Token {
    /// Whether it is good for something at `wall`.
    #[must_use]
    pub fn is_good(&self, wall: WallTime) -> bool {
        self.expires_at.is_none_or(|end| wall < end)
    }
}
