//! Operations on workspaces that are registered by name.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Name, PageLimit, page_length};
use super::operation::{Answer, Call, Operation, ok, page};
use super::problem::{Code, Problem};
use crate::app::Service;
use crate::domain::member::Workspace;
use crate::domain::rights::Need;
use crate::domain::{DisplayName, WorkspaceId};
use crate::store::AsOf;
use crate::time::WallTime;

/// A workspace.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Workspace")]
pub struct WorkspaceOut<'a> {
    workspace_id: &'a WorkspaceId,
    name: Option<&'a DisplayName>,
    created_at: WallTime,
}

impl<'a> WorkspaceOut<'a> {
    fn of(Workspace { workspace_id, name, created_at }: &'a Workspace) -> Self {
        Self { workspace_id, name: name.as_ref(), created_at: *created_at }
    }
}

/// Create or rename a workspace
///
/// A workspace need not be created before it is locked, unless `workspaces.membership = "enforced"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutWorkspace {
    workspace_id: WorkspaceId,
    /// Display name. Default: unchanged.
    name: Option<Name>,
}

impl Operation for PutWorkspace {
    type Output = WorkspaceOut<'static>;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        let anew = self.name.is_some();
        let name = self.name.and_then(|name| name.0);
        Answer::of(
            service,
            move |service, done| service.put_workspace(self.workspace_id, name, anew, done),
            |at: &AsOf<Workspace>, _| Ok(ok(&WorkspaceOut::of(&at.value))),
        )
    }
}

/// Read a workspace
///
/// For its members, if membership is enforced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadWorkspace {
    workspace_id: WorkspaceId,
}

impl Operation for ReadWorkspace {
    type Output = WorkspaceOut<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        call.may(service, &self.workspace_id, Need::See)?;
        let found = service.workspace(&self.workspace_id)?;
        let workspace = found.ok_or_else(|| Problem::new(Code::WorkspaceNotFound))?;
        Answer::now(&WorkspaceOut::of(&workspace))
    }
}

/// List the workspaces
///
/// Ordered by id. With `workspaces.membership = "enforced"` only those of which the caller is a member.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListWorkspaces {
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
    cursor: Option<WorkspaceId>,
}

/// A page of workspaces.
#[derive(Serialize, JsonSchema)]
pub struct WorkspacePage<'a> {
    workspaces: Vec<WorkspaceOut<'a>>,
    next_cursor: Option<&'a WorkspaceId>,
}

impl Operation for ListWorkspaces {
    type Output = WorkspacePage<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let limit = page_length(self.limit);
        let after = self.cursor.as_ref().map_or("", WorkspaceId::as_str);
        let found = service.workspaces(&call.caller.actor(), after, limit + 1)?;
        let (shown, next_cursor) = page(&found, limit, |workspace| &workspace.workspace_id);
        Answer::now(&WorkspacePage { workspaces: shown.iter().map(WorkspaceOut::of).collect(), next_cursor })
    }
}

/// Delete a workspace and its members
///
/// Its lock ends in the same transaction, and the holder is told the reason. `deleted` is false if there was no
/// such workspace, so a repeat is harmless.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteWorkspace {
    workspace_id: WorkspaceId,
}

/// Whether there was a workspace to delete.
#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    deleted: bool,
}

impl Operation for DeleteWorkspace {
    type Output = Deleted;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let by = call.author();
        Answer::of(
            service,
            |service, done| service.delete_workspace(self.workspace_id, by, done),
            |at: &AsOf<bool>, _| Ok(ok(&Deleted { deleted: at.value })),
        )
    }
}
