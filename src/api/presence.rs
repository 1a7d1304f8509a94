//! The users who are present on a workspace.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lock::{AgentOut, KnockOut, LockOut};
use super::operation::{Answer, Call, Operation};
use super::problem::Problem;
use crate::app::Service;
use crate::app::presence::MAX_PRESENT_USERS;
use crate::domain::rights::Need;
use crate::domain::{DisplayName, SessionId, UserId, WorkspaceId};
use crate::time::WallTime;

/// Read who is present on a workspace
///
/// The holder, the knocks, the waiting users in the order in which they get the lock, and the users who follow the
/// events of this workspace by its id. Each follower is listed once, at most 500, and only if the credentials name
/// a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadPresence {
    workspace_id: WorkspaceId,
}

/// The users who are present.
#[derive(Serialize, JsonSchema)]
pub struct Presence<'a> {
    lock: Option<LockOut<'a>>,
    knocks: Vec<KnockOut<'a>>,
    waiting: Vec<Waiting<'a>>,
    #[schemars(length(max = MAX_PRESENT_USERS))]
    followers: Vec<Follower<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Waiting<'a> {
    user_id: &'a UserId,
    name: Option<&'a DisplayName>,
    since_at: WallTime,
    session_id: Option<&'a SessionId>,
    /// The agent that waits, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AgentOut<'a>")]
    agent: Option<AgentOut<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Follower<'a> {
    user_id: &'a UserId,
    name: Option<&'a DisplayName>,
    since_at: WallTime,
}

impl Operation for ReadPresence {
    type Output = Presence<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        call.may(service, &self.workspace_id, Need::See)?;
        let found = service.presence(&self.workspace_id)?;
        let (lock, now, clock) = (found.value.lock.as_ref(), found.now, service.clock());
        let waiting = found.value.waiting.iter().map(|place| {
            let request = &place.waiter.request;
            Waiting {
                user_id: &request.user_id,
                name: request.user_name.as_ref(),
                since_at: clock.wall_at(place.since),
                session_id: request.session_id.as_ref(),
                agent: AgentOut::of(
                    request.kind,
                    request.user_name.as_ref(),
                    &request.user_id,
                    request.for_name.as_ref(),
                ),
            }
        });
        let followers = found.value.followers.iter().map(|face| Follower {
            user_id: &face.user_id,
            name: face.name.as_ref(),
            since_at: face.since,
        });
        Answer::now(&Presence {
            lock: lock.map(|lock| LockOut::of(lock, now, clock)),
            knocks: lock.into_iter().flat_map(|lock| KnockOut::all(lock, now, clock)).collect(),
            waiting: waiting.collect(),
            followers: followers.collect(),
        })
    }
}
