//! Who is calling, and what happened on all workspaces that they may see.

use std::sync::Arc;

use serde_json::json;

use super::PAGE;
use crate::api::dispatch::Call;
use crate::api::problem::Problem;
use crate::api::routes::Answer;
use crate::api::wire::{WorkspaceEventOut, ok};
use crate::app::Service;
use crate::app::history::Filter;
use crate::auth::Scope;
use crate::domain::event::EventType;
use crate::domain::{DisplayName, UserId};
use crate::time::WallTime;

/// `GET /whoami`
#[expect(clippy::unnecessary_wraps, reason = "it is a handler")]
pub fn whoami(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let caller = &call.caller;
    Ok(Answer::Now(ok(&json!({
        "user_id": caller.user_id.as_ref().map(UserId::as_str),
        "name": caller.name.as_ref().map(DisplayName::as_str),
        "mode": service.auth_mode().as_str(),
        "scope": caller.token_scope().map(Scope::as_str),
        "agent": null,
        "is_admin": caller.is_admin(),
        "expires_at": caller.expires_at.map(WallTime::to_rfc3339),
    }))))
}

/// `GET /history`
pub fn history(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let values = &call.values;
    let filter = Filter {
        user_id: values.user_id()?,
        by_user_id: values.user_in("by_user_id")?,
        types: values.several("type").iter().filter_map(|name| EventType::parse(name)).collect(),
        from: values.instant("from"),
        until: values.instant("until"),
    };
    let before = values.integer("cursor").unwrap_or(i64::MAX);
    let limit = usize::try_from(values.integer("limit").unwrap_or(PAGE)).unwrap_or_default();
    let page = service
        .whole_history(&call.caller.actor(), &filter, before, limit)
        .map_err(|error| call.failed(&error))?;
    let shown: Vec<_> = page.events.iter().map(WorkspaceEventOut::of).collect();
    let next_cursor = page.next.map(|revision| revision.to_string());
    Ok(Answer::Now(ok(&json!({ "events": shown, "next_cursor": next_cursor }))))
}
