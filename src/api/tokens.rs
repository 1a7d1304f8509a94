//! Operations on tokens.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Integer, Name, PageLimit, TokenId, page_length};
use super::operation::{Answer, Call, Operation, ok, page, with_status};
use super::problem::{Code, Problem};
use crate::app::Service;
use crate::auth::{Scope, token};
use crate::domain::token::Token;
use crate::domain::{DisplayName, UserId};
use crate::store::AsOf;
use crate::time::WallTime;

/// A token, without what makes it one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenOut<'a> {
    token_id: &'a str,
    scope: Scope,
    user_id: Option<&'a UserId>,
    name: Option<&'a DisplayName>,
    created_at: WallTime,
    expires_at: Option<WallTime>,
    last_used_at: Option<WallTime>,
}

impl<'a> TokenOut<'a> {
    fn of(token: &'a Token) -> Self {
        Self {
            token_id: &token.token_id,
            scope: token.scope,
            user_id: token.user_id.as_ref(),
            name: token.name.as_ref(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Make a token
///
/// It is shown this once. A service makes tokens of users, for the browsers of those whom its app has signed in: give them
/// a `ttl_ms`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// `user` (acts as its owner; if not given), `read` (looks on), `service` (acts for anybody) or `admin`.
    scope: Option<Scope>,
    /// Whose it is.
    user_id: Option<UserId>,
    /// How its owner is shown, or what it is for.
    name: Option<Name>,
    /// How long it is good, in milliseconds; if not given, until it is revoked.
    ttl_ms: Option<Integer<1, CENTURY>>,
}

/// A hundred years (milliseconds).
const CENTURY: i64 = 100 * 365 * 24 * 60 * 60 * 1_000;

/// A token that was just made.
#[derive(Serialize, JsonSchema)]
pub struct NewToken<'a> {
    #[serde(flatten)]
    token_out: TokenOut<'a>,
    token: &'a str,
}

impl Operation for CreateToken {
    type Output = NewToken<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let scope = self.scope.unwrap_or(Scope::User);
        if call.caller.scope.only_tokens_of().is_some_and(|only| only != scope) {
            return Err(Problem::new(Code::Forbidden)
                .detail("A service makes tokens for users; for others it takes an administrator."));
        }
        if scope == Scope::User && self.user_id.is_none() {
            return Err(Problem::invalid("user_id", "is missing: a token of a user acts as somebody"));
        }
        let now = service.wall();
        let ends = self.ttl_ms.map(|ttl| WallTime(now.0.saturating_add(ttl.0)));
        let name = self.name.and_then(|name| name.0);
        let (secret, token, hash) = token::mint(scope, self.user_id, name, now, ends)?;
        Answer::of(
            service,
            move |service, done| service.create_token(token, hash, done),
            move |at: &AsOf<Token>, _| {
                Ok(with_status(201, &NewToken { token_out: TokenOut::of(&at.value), token: &secret }))
            },
        )
    }
}

/// The tokens there are
///
/// Without what makes them tokens. `last_used_at` is true to a minute.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTokens {
    /// Most entries of a page; 100 if not given.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the page before.
    cursor: Option<TokenId>,
}

/// A page of tokens.
#[derive(Serialize, JsonSchema)]
pub struct TokenPage<'a> {
    tokens: Vec<TokenOut<'a>>,
    next_cursor: Option<&'a str>,
}

impl Operation for ListTokens {
    type Output = TokenPage<'static>;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        let limit = page_length(self.limit);
        let found = service.list_tokens(self.cursor.as_ref().map_or("", |cursor| &cursor.0), limit + 1)?;
        let (shown, next_cursor) = page(&found, limit, |token| token.token_id.as_str());
        Answer::now(&TokenPage { tokens: shown.iter().map(TokenOut::of).collect(), next_cursor })
    }
}

/// Revoke a token
///
/// It is refused from now on. A service revokes tokens of users only. `revoked` is false when there was none, so a repeat
/// is harmless.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    token_id: TokenId,
}

/// Whether there was a token to revoke.
#[derive(Serialize, JsonSchema)]
pub struct Revoked {
    revoked: bool,
}

impl Operation for RevokeToken {
    type Output = Revoked;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let only = call.caller.scope.only_tokens_of();
        Answer::of(
            service,
            move |service, done| service.revoke_token(self.token_id.0, only, done),
            |revoked, _| Ok(ok(&Revoked { revoked: *revoked })),
        )
    }
}
