//! Tokens, and the gate.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::locks::{ended, shown, who_has_it};
use super::{answer, page, paged};
use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::problem::{Code, Problem};
use crate::api::routes::Answer;
use crate::api::wire::{ok, with_status};
use crate::app::Service;
use crate::app::locks::Found;
use crate::auth::{Scope, id_in_header, token};
use crate::domain::member::Need;
use crate::domain::token::Token;
use crate::domain::{DisplayName, Fence, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::AsOf;
use crate::time::WallTime;

fn out(token: &Token) -> Value {
    let at = |at: Option<WallTime>| at.map(WallTime::to_rfc3339);
    json!({
        "token_id": token.token_id,
        "scope": token.scope.as_str(),
        "user_id": token.user_id.as_ref().map(UserId::as_str),
        "name": token.name.as_ref().map(DisplayName::as_str),
        "created_at": token.created_at.to_rfc3339(),
        "expires_at": at(token.expires_at),
        "last_used_at": at(token.last_used_at),
    })
}

/// `POST /tokens`
pub fn create(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let scope = call.values.text("scope").map_or(Some(Scope::User), Scope::parse);
    let scope = scope.ok_or_else(|| Problem::invalid("scope", "must be user, read, service or admin"))?;
    if call.caller.scope != Scope::Admin && scope != Scope::User {
        return Err(Problem::new(Code::Forbidden)
            .detail("A service makes tokens for users; for others it takes an administrator."));
    }
    let user_id = call.values.user_id()?;
    if scope == Scope::User && user_id.is_none() {
        return Err(Problem::invalid("user_id", "is missing: a token of a user acts as somebody"));
    }
    let now = service.wall();
    let ends = call.values.ttl().map(|ttl| WallTime(now.0.saturating_add(ttl.as_millis())));
    let made = token::mint(scope, user_id, call.values.display_name()?, now, ends);
    let (secret, token, hash) = made.map_err(|error| call.failed(&error))?;
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, move |at: &AsOf<Token>| {
            let mut shown = out(&at.value);
            if let Value::Object(members) = &mut shown {
                members.insert("token".to_owned(), secret.into());
            }
            Ok(with_status(201, &shown))
        });
        service.create_token(token, hash, show);
    }))
}

/// `GET /tokens`
pub fn list(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let (after, limit) = page(call);
    let found = service.list_tokens(&after, limit + 1).map_err(|error| call.failed(&error))?;
    Ok(Answer::Now(paged("tokens", &found, limit, out, |token| token.token_id.as_str())))
}

/// `DELETE /tokens/{token_id}`
#[expect(clippy::unnecessary_wraps, reason = "it is a handler")]
pub fn revoke(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let token_id = call.values.text("token_id").unwrap_or_default().to_owned();
    // A service ends the tokens of users, as it makes them.
    let only = (call.caller.scope == Scope::Service).then_some(Scope::User);
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, |revoked: &bool| Ok(ok(&json!({ "revoked": revoked }))));
        service.revoke_token(token_id, only, show);
    }))
}

/// `GET /gate`: nothing but 204, 401 and 403 is understood by a proxy that asks, so what is missing is 403, too.
pub fn gate(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let (workspace, fence) = &call.lock;
    let unclear = || closed("Say which lock lets this write pass: its workspace and its fence.", None, false);
    // What is there and cannot be read is not as good as nothing: the query would be believed in its place.
    let named = workspace.as_deref().map(|id| id_in_header("X-Lock-Workspace", id)).transpose();
    let named = named.map_err(|error| not_understood(&call.failed(&error)))?;
    let workspace = only(call.values.text("workspace_id"), named.as_deref());
    let fence = only(call.values.text("fence"), fence.as_deref());
    let fence = fence.and_then(|fence| fence.parse().ok().map(Fence));
    let workspace_id = workspace.and_then(|id| WorkspaceId::parse(id).ok());
    let (Some(workspace_id), Some(fence)) = (workspace_id, fence) else { return Err(unclear()) };
    let nothing = || closed("This is not the live lock.", None, false);
    // Who may not hold it any more does not, whoever has noticed.
    service
        .may(&call.caller.actor(), &workspace_id, Need::Edit)
        .map_err(|error| if matches!(error, Error::Denied(_)) { nothing() } else { call.failed(&error) })?;
    let found = service.peek(&workspace_id).map_err(|error| call.failed(&error))?;
    let user_id = call.user()?;
    match found.value {
        Found::Live(lock) if lock.user_id == *user_id && lock.fence == fence => {
            Ok(Answer::Now(Response::empty(204)))
        }
        Found::Live(lock) => {
            let same_user = lock.user_id == *user_id;
            let detail = format!("This is not the live lock. {}", who_has_it(&lock, same_user, found.now));
            Err(closed(&detail, Some(shown(&lock, found.now, service.clock())), same_user))
        }
        Found::Due(_) | Found::Free => Err(nothing()),
    }
}

/// What the gate is asked cannot be understood. A proxy would make an error of its own of a 400.
pub fn not_understood(problem: &Problem) -> Problem {
    closed(problem.sentence(), None, false)
}

/// What stands in the query or in a header; nothing if they contradict each other.
fn only<'a>(query: Option<&'a str>, header: Option<&'a str>) -> Option<&'a str> {
    match (query, header) {
        (Some(query), Some(header)) if query != header => None,
        (query, header) => query.or(header),
    }
}

fn closed(detail: &str, lock: Option<Box<RawValue>>, same_user: bool) -> Problem {
    Problem::new(Code::NotHolder)
        .detail(detail)
        .member("lock", lock)
        .member("same_user", same_user)
        .member("lost", ended(None))
}
