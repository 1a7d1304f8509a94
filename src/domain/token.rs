//! Stored API tokens: hash, owner and scope.

use super::{DisplayName, UserId};
use crate::time::WallTime;

/// SHA-256 of a token.
pub type Hash = [u8; 32];

/// Scope of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reads only.
    Read,
    /// Acts as its owner.
    User,
    /// Acts for any user, and manages workspaces, members and the tokens of users.
    Service,
    /// May do everything.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Read, Self::User, Self::Service, Self::Admin];

    /// Name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }

    /// Scope with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// Token metadata, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Id of the token.
    pub token_id: String,
    /// Scope of the token.
    pub scope: Scope,
    /// Id of the owner, if it has one.
    pub user_id: Option<UserId>,
    /// Display name of the owner or of the token.
    pub name: Option<DisplayName>,
    /// Whether it is for an agent of the owner: see [`super::rights::Actor::is_agent`].
    pub is_agent: bool,
    /// When it was created.
    pub created_at: WallTime,
    /// When it expires, exclusive: at this instant it is no longer valid. `None` means never.
    pub expires_at: Option<WallTime>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<WallTime>,
}

/// How long credentials are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// No end is known here.
    Unlimited,
    /// Until this time.
    Until(WallTime),
    /// As long as a valid token with this hash exists.
    WhileTokenValid(Hash),
}

impl Token {
    /// Whether the token is valid at `wall`.
    #[must_use]
    pub fn is_valid(&self, wall: WallTime) -> bool {
        self.expires_at.is_none_or(|end| wall < end)
    }
}
