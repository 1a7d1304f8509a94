//! The authenticated caller.

use crate::domain::rights::Actor;
use crate::domain::token::{Scope, Validity};
use crate::domain::{DisplayName, UserId};
use crate::time::WallTime;

/// The authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user who acts. `None` if the credentials name no user and the operation needs none.
    pub user_id: Option<UserId>,
    /// The display name.
    pub name: Option<DisplayName>,
    /// Whether the credentials fix the display name, so that the request cannot give another.
    pub is_named: bool,
    /// Whether the credentials are those of an agent. Then the user is the one for whom it acts, and the display name
    /// is the agent's.
    pub is_agent: bool,
    /// For an agent: the display name of the user for whom it acts.
    pub for_name: Option<DisplayName>,
    /// The scope of the credentials.
    pub scope: Scope,
    /// How long the credentials are valid.
    pub validity: Validity,
    /// When the credentials expire, as they state it themselves.
    pub expires_at: Option<WallTime>,
}

impl Caller {
    /// A caller without a name who may read only.
    #[must_use]
    pub const fn anonymous(validity: Validity) -> Self {
        Self {
            user_id: None,
            name: None,
            is_named: false,
            is_agent: false,
            for_name: None,
            scope: Scope::Read,
            validity,
            expires_at: None,
        }
    }

    /// The scope of the caller's token. `None` without a token.
    #[must_use]
    pub const fn token_scope(&self) -> Option<Scope> {
        match self.validity {
            Validity::WhileTokenValid(_) => Some(self.scope),
            Validity::Unlimited | Validity::Until(_) => None,
        }
    }

    /// The key that identifies the caller: the user for whom they act or, without a user, the token.
    ///
    /// `None` if there is neither.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match (&self.user_id, &self.validity) {
            // An agent does not use up the limits of its user.
            (Some(user_id), _) => {
                let who = if self.is_agent { "agent of" } else { "user" };
                Some(format!("{who} {}", user_id.as_str()))
            }
            (None, Validity::WhileTokenValid(hash)) => {
                Some(hash.iter().fold("token ".to_owned(), |key, byte| format!("{key}{byte:02x}")))
            }
            (None, Validity::Unlimited | Validity::Until(_)) => None,
        }
    }

    /// The caller as the actor in the access rules of workspaces.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { user_id: self.user_id.clone(), scope: self.scope, is_agent: self.is_agent }
    }
}

/// The display name that a third party, a proxy or the issuer of a JWT, states for a user.
pub(super) enum StatedName {
    /// The third party states no name.
    Absent,
    /// The third party states this name. `None` is a name that cannot be shown; the user cannot replace it.
    Given(Option<DisplayName>),
}

impl StatedName {
    pub(super) fn parse(name: &str) -> Self {
        DisplayName::parse(name)
            .map_or(Self::Given(None), |name| name.map_or(Self::Absent, |name| Self::Given(Some(name))))
    }
}
