//! The gate: whether a write may pass. A proxy asks it before it forwards a write.
//!
//! A proxy understands only 204, 401 and 403. So a missing or invalid parameter is answered with 403, too.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::code::NotHolder;
use super::exchange::Response;
use super::fields::Text;
use super::lock::LostOut;
use super::locks::claim;
use super::operation::{Answer, Call, Operation};
use super::problem::{Code, Problem};
use super::refusals::not_holder;
use crate::app::Service;
use crate::app::locks::StoredLock;
use crate::auth::id_in_header;
use crate::domain::rights::Need;
use crate::domain::{Fence, LFS_BYTES, WorkspaceId};
use crate::error::Error;

/// Check whether a write may pass
///
/// For the sub-request of a proxy (nginx `auth_request`, Caddy `forward_auth`) or for the middleware of an app. 204
/// if the caller holds the lease with this fence now. The workspace and the fence may also be given in
/// `X-Lock-Workspace` (percent-encoded where it is not ASCII) and `X-Lock-Fence`. Missing or invalid values are
/// answered with 403 too, because proxies handle only 204, 401 and 403. A refusal says who has the lock, and in `lost` how
/// the last lease of the caller ended.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassGate {
    /// The workspace of the lease.
    workspace_id: Option<Text<LFS_BYTES>>,
    /// The fence of the lease.
    fence: Option<Text<32>>,
}

impl Operation for PassGate {
    type Output = ();

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let headers = &call.request.headers;
        // An invalid header is refused. If it were ignored, the query would be used in its place.
        let named = headers.lock_workspace.as_deref().map(|id| id_in_header("X-Lock-Workspace", id));
        let workspace = only(self.workspace_id, named.transpose()?);
        let fence = only(self.fence, headers.lock_fence.clone());
        let workspace_id = workspace.and_then(|id| WorkspaceId::parse(&id).ok());
        let fence = fence.and_then(|fence| fence.parse().ok().map(Fence));
        let (Some(workspace_id), Some(fence)) = (workspace_id, fence) else {
            return Err(closed("The workspace or the fence of the lock is missing or invalid."));
        };
        let nothing = || closed("This is not the live lock.");
        // A holder who has lost the right to edit is refused, even while the lock row still exists.
        match service.may(&call.caller.actor(), &workspace_id, Need::Edit) {
            Err(Error::Denied(_)) => return Err(nothing()),
            other => other?,
        }
        let found = service.stored_lock(&workspace_id)?;
        let claim = claim(call, workspace_id, None, Some(fence))?;
        let lost = |live| service.lost(&claim, live);
        match found.value {
            StoredLock::Live(lock) if lock.user_id == claim.user_id && claim.names(&lock) => {
                Ok(Answer::Now(Response::empty(204)))
            }
            StoredLock::Live(lock) => {
                let (same_user, lost) = (lock.user_id == claim.user_id, lost(Some(lock.fence))?);
                Err(not_holder(&lock, same_user, lost.as_ref(), found.now, service.clock()))
            }
            StoredLock::Due(_) | StoredLock::Free => {
                let lost = lost(None)?;
                let members = NotHolder { lost: lost.as_ref().map(LostOut::of), ..NotHolder::default() };
                Err(nothing().with(&members))
            }
        }
    }
}

/// The value from the query or a header. `None` if there is none, or the two differ.
fn only<const MAX: usize>(query: Option<Text<MAX>>, header: Option<String>) -> Option<String> {
    match (query.map(|query| query.0), header) {
        (Some(query), Some(header)) if query != header => None,
        (query, header) => query.or(header),
    }
}

/// The refusal of the gate: 403.
#[must_use]
pub fn closed(detail: &str) -> Problem {
    Problem::new(Code::NotHolder).detail(detail).with(&NotHolder::default())
}
