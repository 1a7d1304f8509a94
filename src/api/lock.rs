//! Locks, knocks and lost leases in responses. The field names are stable: clients depend on them.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fields::{Count, Integer};
use crate::domain::event::{Ending, EventType, Lost};
use crate::domain::knocks::Knock;
use crate::domain::{DisplayName, Fence, Lock, LockKind, SessionId, UserId, WorkspaceId};
use crate::time::{LeaseClock, Timestamp, Ttl, WallTime};

/// A lock as it is shown at an instant.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Lock")]
pub struct LockOut<'a> {
    workspace_id: &'a WorkspaceId,
    locked_by_user_id: &'a UserId,
    locked_by_name: Option<&'a DisplayName>,
    session_id: Option<&'a SessionId>,
    fence: Fence,
    acquired_at: WallTime,
    renewed_at: WallTime,
    last_active_at: WallTime,
    expires_at: WallTime,
    /// Time left. Count down from when the request was sent.
    expires_in_ms: Count,
    ttl_ms: Ttl,
    note: Option<&'a str>,
    #[schemars(with = "Map<String, Value>")]
    metadata: &'a RawValue,
    knock: Option<KnockOut<'a>>,
    kind: LockKind,
    agent: Option<AgentOut<'a>>,
}

/// An AI agent, and the user for whom it acts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
pub struct AgentOut<'a> {
    /// Name of the agent.
    pub name: Option<&'a DisplayName>,
    /// Id of the user for whom it acts.
    pub for_user_id: &'a UserId,
    /// Name of that user.
    pub for_name: Option<&'a DisplayName>,
}

impl<'a> AgentOut<'a> {
    /// Converts the holder of a lock of this kind, or who asks for one. `None` if it is no agent.
    #[must_use]
    pub fn of(
        kind: LockKind,
        name: Option<&'a DisplayName>,
        for_user_id: &'a UserId,
        for_name: Option<&'a DisplayName>,
    ) -> Option<Self> {
        kind.is_agent().then_some(Self { name, for_user_id, for_name })
    }
}

impl<'a> LockOut<'a> {
    /// Converts `lock` for a response at `now`.
    #[must_use]
    pub fn of(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> Self {
        Self {
            workspace_id: &lock.workspace_id,
            locked_by_user_id: &lock.user_id,
            locked_by_name: lock.user_name.as_ref(),
            session_id: lock.session_id.as_ref(),
            fence: lock.fence,
            acquired_at: clock.wall_at(lock.acquired_at),
            renewed_at: clock.wall_at(lock.renewed_at),
            last_active_at: clock.wall_at(lock.last_active_at),
            expires_at: clock.wall_at(lock.expires_at),
            expires_in_ms: left(lock.expires_at, now),
            ttl_ms: lock.ttl,
            note: lock.note.as_deref(),
            // The metadata in the store was checked to be JSON when it was received.
            metadata: serde_json::from_str(&lock.metadata).unwrap_or(RawValue::NULL),
            knock: KnockOut::first(lock, now, clock),
            kind: lock.kind,
            agent: AgentOut::of(lock.kind, lock.user_name.as_ref(), &lock.user_id, lock.for_name.as_ref()),
        }
    }
}

/// The milliseconds from `now` to `at`; 0 when `at` is past.
#[must_use]
pub fn left(at: Timestamp, now: Timestamp) -> Count {
    Integer(at.since(now).max(0))
}

/// Somebody who asks the holder for the lock.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Knock")]
pub struct KnockOut<'a> {
    user_id: &'a UserId,
    name: Option<&'a DisplayName>,
    message: Option<&'a str>,
    knocked_at: WallTime,
    auto_grant_at: Option<WallTime>,
    auto_grant_in_ms: Option<Count>,
    auto_grant_at_latest_in_ms: Option<Count>,
    /// The kind of lock that they ask for, if it is not `edit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LockKind")]
    kind: Option<LockKind>,
    /// The agent that asks, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AgentOut<'a>")]
    agent: Option<AgentOut<'a>>,
}

impl<'a> KnockOut<'a> {
    /// The pending knocks of a lock, in the order of arrival.
    pub fn all(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> impl Iterator<Item = Self> {
        lock.knocks.pending.iter().enumerate().map(move |(place, knock)| {
            // The holder answers one knock at a time, so only the first has a grant time.
            let grant_at = lock.knocks.grant_at.filter(|_| place == 0);
            let latest = lock.knocks.grant_at_latest.filter(|_| place == 0);
            let Knock { kind, user_id, name, for_name, session_id: _, message, knocked_at, validity: _ } =
                knock;
            Self {
                user_id,
                name: name.as_ref(),
                message: message.as_deref(),
                knocked_at: clock.wall_at(*knocked_at),
                auto_grant_at: grant_at.map(|at| clock.wall_at(at)),
                auto_grant_in_ms: grant_at.map(|at| left(at, now)),
                auto_grant_at_latest_in_ms: latest.map(|at| left(at, now)),
                kind: Some(*kind).filter(|kind| *kind != LockKind::Edit),
                agent: AgentOut::of(*kind, name.as_ref(), user_id, for_name.as_ref()),
            }
        })
    }

    /// The knock that the holder is to answer.
    pub fn first(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> Option<Self> {
        Self::all(lock, now, clock).next()
    }
}

/// How somebody's last lease ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Lost")]
pub struct LostOut<'a> {
    #[schemars(extend("enum" = reasons()))]
    reason: &'static str,
    fence: Fence,
    at: WallTime,
    by_user_id: Option<&'a UserId>,
    by_name: Option<&'a DisplayName>,
    /// True if it was an agent's lease, and yielded to a person.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    yielded: bool,
}

/// The values of `reason`: all ways in which a lease can end.
fn reasons() -> Vec<&'static str> {
    let ending = |event| match event {
        EventType::Ended(ending) => Some(Ending::reason(ending)),
        EventType::Acquired | EventType::Knocked | EventType::KnockDeclined => None,
    };
    EventType::ALL.into_iter().filter_map(ending).collect()
}

impl<'a> LostOut<'a> {
    /// Converts a lost lease for the response.
    #[must_use]
    pub fn of(lost: &'a Lost) -> Self {
        Self {
            reason: lost.ending.reason(),
            fence: lost.fence,
            at: lost.at,
            by_user_id: lost.by_user_id.as_ref(),
            by_name: lost.by_name.as_ref(),
            yielded: lost.yielded,
        }
    }
}
