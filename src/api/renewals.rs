//! Heartbeats: the renewal of one lease or of many.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::fields::{Count, List};
use super::lock::{KnockOut, left};
use super::locks::claim;
use super::operation::{Answer, Call, Operation, ok};
use super::problem::{Code, Inner, Problem};
use super::refusals::{no_lock, not_holder};
use crate::app::Service;
use crate::app::locks::HeartbeatReport;
use crate::domain::{Activity, Fence, Heartbeat, HeartbeatOutcome, Lock, SessionId, WorkspaceId};
use crate::error::Denied;
use crate::store::AsOf;
use crate::time::{LeaseClock, Timestamp, Ttl, WallTime};

/// Renew a lease
///
/// A late heartbeat never revives an expired lease and never extends another user's lease. With `locks.same_user =
/// "share"` it never shortens the lease, because other sessions of the user rely on it. While a `knock` is pending,
/// renew at once and then at least every 10 seconds, with `active` if the user is active: this postpones
/// `auto_grant_at`. `waiting` is the number of waiting requests. The response has a `session_id` if another session
/// of the same user holds the lock now (`locks.same_user = "share"`). A lock that belongs to its session (`agent`,
/// `run`, `terraform`) is renewed with its `session_id` or `fence`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewLock {
    workspace_id: WorkspaceId,
    /// Renew only this lease.
    fence: Option<Fence>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
    /// Length of the lease from now, in milliseconds. It is clamped to `locks.min_ttl` and the `max_ttl` of the
    /// kind. With `locks.same_user = "share"` it never shortens a live lease.
    ttl_ms: Option<Ttl>,
    /// Whether the user did something since the last heartbeat. It sets `last_active_at` and postpones `auto_grant_at`.
    active: Option<bool>,
}

/// A renewal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Renewed<'a> {
    #[schemars(extend("const" = true))]
    success: bool,
    expires_at: WallTime,
    /// Time left. Count down from when the request was sent.
    expires_in_ms: Count,
    fence: Fence,
    /// The session that has the lock, if it is another one of the same user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SessionId")]
    session_id: Option<&'a SessionId>,
    knock: Option<KnockOut<'a>>,
    waiting: usize,
}

impl<'a> Renewed<'a> {
    /// Converts a renewed lease for the response to the session `told`.
    ///
    /// If another session of the same user has the lock now, the response names that session.
    fn of(
        lock: &'a Lock,
        waiting: usize,
        told: Option<&SessionId>,
        now: Timestamp,
        clock: &LeaseClock,
    ) -> Self {
        let is_another = |its: &&SessionId| told.is_some_and(|told| told != *its);
        Self {
            success: true,
            expires_at: clock.wall_at(lock.expires_at),
            expires_in_ms: left(lock.expires_at, now),
            fence: lock.fence,
            session_id: lock.session_id.as_ref().filter(is_another),
            knock: KnockOut::first(lock, now, clock),
            waiting,
        }
    }
}

impl Operation for RenewLock {
    type Output = Renewed<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let told = self.session_id.clone();
        let request =
            heartbeat(call, self.workspace_id, self.session_id, self.fence, self.ttl_ms, self.active)?;
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.heartbeat(actor, request, done),
            move |at: &AsOf<HeartbeatReport>, clock| {
                Ok(ok(&renewed(&at.value, told.as_ref(), at.now, clock)?))
            },
        )
    }
}

fn heartbeat(
    call: &Call,
    workspace_id: WorkspaceId,
    session_id: Option<SessionId>,
    fence: Option<Fence>,
    ttl: Option<Ttl>,
    active: Option<bool>,
) -> Result<Heartbeat, Problem> {
    let activity = if active == Some(true) { Activity::Active } else { Activity::Idle };
    Ok(Heartbeat { claim: claim(call, workspace_id, session_id, fence)?, ttl, activity })
}

/// Converts the outcome of a heartbeat.
fn renewed<'a>(
    HeartbeatReport { beat, lost, waiting }: &'a HeartbeatReport,
    told: Option<&SessionId>,
    now: Timestamp,
    clock: &LeaseClock,
) -> Result<Renewed<'a>, Problem> {
    match beat {
        HeartbeatOutcome::Renewed(lock) => Ok(Renewed::of(lock, *waiting, told, now, clock)),
        HeartbeatOutcome::NotHolder { lock, same_user } => {
            Err(not_holder(lock, *same_user, lost.as_ref(), now, clock))
        }
        HeartbeatOutcome::NoLock => Err(no_lock(lost.as_ref())),
    }
}

/// Renew many leases
///
/// All leases are renewed in one transaction. Each result has its own status.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewLocks {
    /// The leases to renew.
    locks: List<Entry, 100>,
    /// Length of the leases from now, in milliseconds. It is clamped to `locks.min_ttl` and the `max_ttl` of the
    /// kind. With `locks.same_user = "share"` it never shortens a live lease.
    ttl_ms: Option<Ttl>,
}

/// A lease to renew.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
#[schemars(inline)]
struct Entry {
    /// The workspace of the lease.
    workspace_id: WorkspaceId,
    /// Renew only this lease.
    fence: Option<Fence>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
    /// Whether the user did something since the last heartbeat. It sets `last_active_at` and postpones `auto_grant_at`.
    active: Option<bool>,
}

/// The results, in the order of the request.
#[derive(Serialize, JsonSchema)]
pub struct RenewedMany<'a> {
    results: &'a [Item<'a>],
}

#[derive(Serialize)]
struct Item<'a> {
    workspace_id: &'a WorkspaceId,
    status: u16,
    #[serde(flatten)]
    outcome: ItemOutcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemOutcome<'a> {
    Renewed(&'a Renewed<'a>),
    Refused(Inner<'a>),
}

/// Ties each shape to its status, which a derived schema cannot do.
impl JsonSchema for Item<'_> {
    fn schema_name() -> Cow<'static, str> {
        "RenewedOne".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut renewed = Renewed::json_schema(generator);
        let own = json_schema!({ "workspace_id": { "type": "string" }, "status": { "const": 200 } });
        if let Some(properties) =
            renewed.get_mut("properties").and_then(|properties| properties.as_object_mut())
        {
            // In a batch the response does not name another session.
            properties.remove("session_id");
            properties.extend(own.as_object().cloned().unwrap_or_default());
        }
        if let Some(required) = renewed.get_mut("required").and_then(|required| required.as_array_mut()) {
            required.extend(["workspace_id".into(), "status".into()]);
        }
        let mut either = vec![renewed];
        let codes = [Code::NotHolder, Code::LockNotFound, Code::WorkspaceNotFound];
        either.extend(codes.map(|code| code.schema(true, generator)));
        json_schema!({ "oneOf": either })
    }
}

impl Operation for RenewLocks {
    type Output = RenewedMany<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let workspace_ids: Vec<_> = self.locks.0.iter().map(|entry| entry.workspace_id.clone()).collect();
        let requests = self.locks.0.into_iter().map(|Entry { workspace_id, fence, session_id, active }| {
            heartbeat(call, workspace_id, session_id, fence, self.ttl_ms, active)
        });
        let requests = requests.collect::<Result<Vec<_>, Problem>>()?;
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.heartbeats(actor, requests, done),
            move |at: &AsOf<Vec<Result<HeartbeatReport, Denied>>>, clock| {
                let outcomes = at.value.iter().map(|beaten| match beaten {
                    Ok(beaten) => renewed(beaten, None, at.now, clock),
                    Err(denied) => Err(Problem::from(*denied)),
                });
                let outcomes: Vec<_> = outcomes.collect();
                let items =
                    workspace_ids.iter().zip(&outcomes).map(|(workspace_id, outcome)| match outcome {
                        Ok(renewed) => {
                            Item { workspace_id, status: 200, outcome: ItemOutcome::Renewed(renewed) }
                        }
                        Err(problem) => {
                            let outcome = ItemOutcome::Refused(problem.inner());
                            Item { workspace_id, status: problem.status(), outcome }
                        }
                    });
                Ok(ok(&RenewedMany { results: &items.collect::<Vec<_>>() }))
            },
        )
    }
}
