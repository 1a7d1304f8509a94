//! The members of workspaces.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{PageLimit, page_length};
use super::operation::{Answer, Call, Operation, ok, page};
use super::problem::{Code, Problem};
use crate::app::Service;
use crate::domain::member::{Member, Role};
use crate::domain::rights::Need;
use crate::domain::{UserId, WorkspaceId};
use crate::store::AsOf;

/// A member.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Member")]
pub struct MemberOut<'a> {
    user_id: &'a UserId,
    role: Role,
}

impl<'a> MemberOut<'a> {
    fn of(Member { user_id, role }: &'a Member) -> Self {
        Self { user_id, role: *role }
    }
}

/// Add a member or change their role
///
/// For admins of the workspace, services and administrators. If membership is enforced, a member who becomes a
/// viewer loses the lock in the same transaction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutMember {
    workspace_id: WorkspaceId,
    user_id: UserId,
    /// `viewer` may read, `editor` may also lock, `admin` may also take over and end locks and manage members.
    role: Role,
}

impl Operation for PutMember {
    type Output = MemberOut<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let (actor, by) = (call.caller.actor(), call.author());
        let member = Member { user_id: self.user_id, role: self.role };
        let new = member.clone();
        Answer::of(
            service,
            |service, done| service.put_member(actor, self.workspace_id, new, by, done),
            move |_, _| Ok(ok(&MemberOut::of(&member))),
        )
    }
}

/// List the members of a workspace
///
/// Ordered by user id.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListMembers {
    workspace_id: WorkspaceId,
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
    cursor: Option<UserId>,
}

/// A page of members.
#[derive(Serialize, JsonSchema)]
pub struct MemberPage<'a> {
    members: Vec<MemberOut<'a>>,
    next_cursor: Option<&'a UserId>,
}

impl Operation for ListMembers {
    type Output = MemberPage<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        call.may(service, &self.workspace_id, Need::See)?;
        let limit = page_length(self.limit);
        let found = service.members(
            &self.workspace_id,
            self.cursor.as_ref().map_or("", UserId::as_str),
            limit + 1,
        )?;
        let found = found.ok_or_else(|| Problem::new(Code::WorkspaceNotFound))?;
        let (shown, next_cursor) = page(&found, limit, |member| &member.user_id);
        Answer::now(&MemberPage { members: shown.iter().map(MemberOut::of).collect(), next_cursor })
    }
}

/// Remove a member
///
/// For admins of the workspace, services and administrators. The user's lock on the workspace ends in the same
/// transaction, also if they held it without being a member. `removed` is false if there was neither, so a repeat
/// is harmless.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    workspace_id: WorkspaceId,
    user_id: UserId,
}

/// Whether there was a member to remove.
#[derive(Serialize, JsonSchema)]
pub struct Removed {
    removed: bool,
}

impl Operation for RemoveMember {
    type Output = Removed;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let (actor, by) = (call.caller.actor(), call.author());
        Answer::of(
            service,
            |service, done| service.remove_member(actor, self.workspace_id, self.user_id, by, done),
            |at: &AsOf<bool>, _| Ok(ok(&Removed { removed: at.value })),
        )
    }
}
