//! Workspaces, members, and what must always be so.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{answer, by, page, paged};
use crate::api::dispatch::Call;
use crate::api::problem::{Code, Problem};
use crate::api::routes::Answer;
use crate::api::wire::ok;
use crate::app::Service;
use crate::app::invariants::Violation;
use crate::domain::DisplayName;
use crate::domain::member::{Member, Need, Role, Workspace};
use crate::store::AsOf;

fn shown(workspace: &Workspace) -> Value {
    json!({
        "workspace_id": workspace.workspace_id.as_str(),
        "name": workspace.name.as_ref().map(DisplayName::as_str),
        "created_at": workspace.created_at.to_rfc3339(),
    })
}

fn member(member: &Member) -> Value {
    json!({ "user_id": member.user_id.as_str(), "role": member.role.as_str() })
}

/// `PUT /workspaces/{workspace_id}`
pub fn put(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let (workspace_id, name) = (call.values.workspace_id()?, call.values.display_name()?);
    let anew = call.values.text("name").is_some();
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, |at: &AsOf<Workspace>| Ok(ok(&shown(&at.value))));
        service.put_workspace(workspace_id, name, anew, show);
    }))
}

/// `GET /workspaces/{workspace_id}`
pub fn get(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    call.may(service, &workspace_id, Need::See)?;
    let found = service.workspace(&workspace_id).map_err(|error| call.failed(&error))?;
    found
        .map(|workspace| Answer::Now(ok(&shown(&workspace))))
        .ok_or_else(|| Problem::new(Code::WorkspaceNotFound))
}

/// `GET /workspaces`
pub fn list(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let (after, limit) = page(call);
    let found = service.workspaces(&call.caller.actor(), &after, limit + 1);
    let found = found.map_err(|error| call.failed(&error))?;
    Ok(Answer::Now(paged("workspaces", &found, limit, shown, |workspace| workspace.workspace_id.as_str())))
}

/// `DELETE /workspaces/{workspace_id}`
pub fn delete(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let (workspace_id, by) = (call.values.workspace_id()?, by(call));
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, |at: &AsOf<bool>| Ok(ok(&json!({ "deleted": at.value }))));
        service.delete_workspace(workspace_id, by, show);
    }))
}

/// `PUT /workspaces/{workspace_id}/members/{user_id}`
pub fn put_member(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    let user_id = call.values.user_id()?.ok_or_else(|| Problem::new(Code::NotFound))?;
    let role = call.values.text("role").and_then(Role::parse);
    let role = role.ok_or_else(|| Problem::invalid("role", "must be viewer, editor or admin"))?;
    let (actor, by) = (call.caller.actor(), by(call));
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let new = Member { user_id, role };
        let show = member(&new);
        service.put_member(actor, workspace_id, new, by, answer(reply, move |_| Ok(ok(&show))));
    }))
}

/// `GET /workspaces/{workspace_id}/members`
pub fn members(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    call.may(service, &workspace_id, Need::See)?;
    let (after, limit) = page(call);
    let found = service.members(&workspace_id, &after, limit + 1).map_err(|error| call.failed(&error))?;
    let found = found.ok_or_else(|| Problem::new(Code::WorkspaceNotFound))?;
    Ok(Answer::Now(paged("members", &found, limit, member, |member| member.user_id.as_str())))
}

/// `DELETE /workspaces/{workspace_id}/members/{user_id}`
pub fn remove_member(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    let user_id = call.values.user_id()?.ok_or_else(|| Problem::new(Code::NotFound))?;
    let (actor, by) = (call.caller.actor(), by(call));
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, |at: &AsOf<bool>| Ok(ok(&json!({ "removed": at.value }))));
        service.remove_member(actor, workspace_id, user_id, by, show);
    }))
}

/// `POST /invariants/check`
pub fn check(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let found = service.repair(by(call).as_ref()).map_err(|error| call.failed(&error))?;
    let violations: Vec<_> = found.iter().map(violation).collect();
    Ok(Answer::Now(ok(&json!({ "violations": violations, "repaired": violations.len() }))))
}

fn violation(violation: &Violation) -> Value {
    json!({
        "kind": violation.kind.as_str(),
        "workspace_id": violation.lock.as_ref().map(|(workspace_id, _)| workspace_id.as_str()),
        "fence": violation.lock.as_ref().map(|(_, fence)| fence.0),
    })
}
