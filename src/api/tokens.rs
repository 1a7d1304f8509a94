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

/// A token without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenOut<'a> {
    token_id: &'a str,
    scope: Scope,
    user_id: Option<&'a UserId>,
    name: Option<&'a DisplayName>,
    /// Whether it is for an AI agent of the owner.
    agent: bool,
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
            agent: token.is_agent,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Create a token
///
/// The response is the only one that contains the token. Services create tokens of users, for the browsers of the
/// users whom their app has signed in; set `ttl_ms` for these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// `user` (acts as its owner), `read` (monitoring), `service` (acts for any user) or `admin`. Default: `user`.
    scope: Option<Scope>,
    /// The owner.
    user_id: Option<UserId>,
    /// Display name of the owner or of the agent, or the purpose of the token.
    name: Option<Name>,
    /// Whether it is for an AI agent that acts for the owner: with the scope `user` only. It takes locks of the kind
    /// `agent` only, takes nothing over, and administers nothing. Default: false.
    agent: Option<bool>,
    /// Lifetime in milliseconds. Default: until it is revoked.
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
                .detail("A service may create tokens of users only. Other tokens need an administrator."));
        }
        if scope == Scope::User && self.user_id.is_none() {
            return Err(Problem::invalid(
                "user_id",
                "is missing: a token with the scope user needs an owner",
            ));
        }
        let now = service.wall();
        let ends = self.ttl_ms.map(|ttl| WallTime(now.0.saturating_add(ttl.0)));
        let name = self.name.and_then(|name| name.0);
        let is_agent = self.agent == Some(true);
        let (secret, token, hash) = token::mint(scope, self.user_id, name, is_agent, now, ends)?;
        Answer::of(
            service,
            move |service, done| service.create_token(token, hash, done),
            move |at: &AsOf<Token>, _| {
                Ok(with_status(201, &NewToken { token_out: TokenOut::of(&at.value), token: &secret }))
            },
        )
    }
}

/// List the tokens
///
/// Without their secrets. `last_used_at` is accurate to one minute.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTokens {
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
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
/// It is refused from now on. A service may revoke tokens of users only. `revoked` is false if there was no such
/// token, so a repeat is harmless.
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
