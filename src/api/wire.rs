//! JSON: what goes out of locks, events and endings. Field names are fixed: people build
//! on them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::exchange::Response;
use super::routes::JSON;
use crate::domain::access::Rules;
use crate::domain::event::{Event, EventType, Lost};
use crate::domain::handoff::Knock;
use crate::domain::{DisplayName, Lock, SessionId, UserId};
use crate::events::subscription::EventEncoder;
use crate::time::{LeaseClock, Timestamp, Ttl};

/// Members of a JSON object, each as it is written: numbers of the metadata are not read in between.
pub type Members = BTreeMap<&'static str, Box<RawValue>>;

/// `value` as it is written; `null` of what is no JSON, which no type here is.
#[must_use]
pub fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|error| {
        log::error!("a member of an answer cannot be written as JSON: {error}");
        RawValue::NULL.to_owned()
    })
}

/// A lock as it is shown at `now`.
#[derive(Debug, Serialize)]
pub struct LockOut<'a> {
    workspace_id: &'a str,
    locked_by_user_id: &'a str,
    locked_by_name: Option<&'a str>,
    session_id: Option<&'a str>,
    fence: i64,
    acquired_at: String,
    renewed_at: String,
    last_active_at: String,
    expires_at: String,
    expires_in_ms: i64,
    ttl_ms: i64,
    note: Option<&'a str>,
    metadata: &'a RawValue,
    knock: Option<KnockOut<'a>>,
}

impl<'a> LockOut<'a> {
    /// Shows `lock`.
    #[must_use]
    pub fn of(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> Self {
        let shown = |at| clock.wall_at(at).to_rfc3339();
        Self {
            workspace_id: lock.workspace_id.as_str(),
            locked_by_user_id: lock.user_id.as_str(),
            locked_by_name: lock.user_name.as_ref().map(DisplayName::as_str),
            session_id: lock.session_id.as_ref().map(SessionId::as_str),
            fence: lock.fence.0,
            acquired_at: shown(lock.acquired_at),
            renewed_at: shown(lock.renewed_at),
            last_active_at: shown(lock.last_active_at),
            expires_at: shown(lock.expires_at),
            expires_in_ms: left_ms(lock, now),
            ttl_ms: lock.ttl.as_millis(),
            note: lock.note.as_deref(),
            // What is in the store was JSON when it came in.
            metadata: serde_json::from_str(&lock.metadata).unwrap_or(RawValue::NULL),
            knock: KnockOut::first(lock, now, clock),
        }
    }
}

/// How much of the lease is left at `now`, in milliseconds; nothing when it is over.
#[must_use]
pub fn left_ms(lock: &Lock, now: Timestamp) -> i64 {
    lock.expires_at.since(now).max(0)
}

/// Somebody who asks the holder for the lock.
#[derive(Debug, Serialize)]
pub struct KnockOut<'a> {
    user_id: &'a str,
    name: Option<&'a str>,
    message: Option<&'a str>,
    knocked_at: String,
    auto_grant_at: Option<String>,
    auto_grant_in_ms: Option<i64>,
    auto_grant_at_latest_in_ms: Option<i64>,
}

impl<'a> KnockOut<'a> {
    /// Those who ask for this lock, in the order in which they came.
    pub fn all(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> impl Iterator<Item = Self> {
        let shown = |at| clock.wall_at(at).to_rfc3339();
        lock.knocks.pending.iter().enumerate().map(move |(place, knock)| {
            // The holder answers one at a time.
            let grant_at = lock.knocks.grant_at.filter(|_| place == 0);
            let latest = lock.knocks.grant_at_latest.filter(|_| place == 0);
            let left = |at: Timestamp| at.since(now).max(0);
            let Knock { user_id, name, session_id: _, message, knocked_at, lasts: _ } = knock;
            Self {
                user_id: user_id.as_str(),
                name: name.as_ref().map(DisplayName::as_str),
                message: message.as_deref(),
                knocked_at: shown(*knocked_at),
                auto_grant_at: grant_at.map(shown),
                auto_grant_in_ms: grant_at.map(left),
                auto_grant_at_latest_in_ms: latest.map(left),
            }
        })
    }

    /// The one that the holder is to answer.
    fn first(lock: &'a Lock, now: Timestamp, clock: &LeaseClock) -> Option<Self> {
        Self::all(lock, now, clock).next()
    }
}

/// A renewal.
#[derive(Debug, Serialize)]
pub struct RenewedOut<'a> {
    success: bool,
    expires_at: String,
    expires_in_ms: i64,
    fence: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    knock: Option<KnockOut<'a>>,
    waiting: usize,
}

impl<'a> RenewedOut<'a> {
    /// As one session of the holder is told, who learns from it that another one has the lock now.
    #[must_use]
    pub fn told_to(self, session_id: Option<&SessionId>) -> Self {
        let is_another = |its: &&str| session_id.is_some_and(|asks| asks.as_str() != *its);
        Self { session_id: self.session_id.filter(is_another), ..self }
    }

    /// Shows what became of the lease.
    #[must_use]
    pub fn of(lock: &'a Lock, waiting: usize, now: Timestamp, clock: &LeaseClock) -> Self {
        Self {
            success: true,
            expires_at: clock.wall_at(lock.expires_at).to_rfc3339(),
            expires_in_ms: left_ms(lock, now),
            fence: lock.fence.0,
            session_id: lock.session_id.as_ref().map(SessionId::as_str),
            knock: KnockOut::first(lock, now, clock),
            waiting,
        }
    }
}

/// How somebody's last lease ended.
#[derive(Debug, Serialize)]
pub struct LostOut<'a> {
    reason: &'static str,
    fence: i64,
    at: String,
    by_user_id: Option<&'a str>,
    by_name: Option<&'a str>,
}

impl<'a> LostOut<'a> {
    /// Shows it.
    #[must_use]
    pub fn of(lost: &'a Lost) -> Self {
        Self {
            reason: lost.ending.reason(),
            fence: lost.fence.0,
            at: lost.at.to_rfc3339(),
            by_user_id: lost.by_user_id.as_ref().map(UserId::as_str),
            by_name: lost.by_name.as_ref().map(DisplayName::as_str),
        }
    }
}

/// An event of the history.
#[derive(Debug, Serialize)]
pub struct EventOut<'a> {
    revision: i64,
    #[serde(rename = "type")]
    event_type: &'static str,
    at: String,
    user_id: Option<&'a str>,
    session_id: Option<&'a str>,
    by_user_id: Option<&'a str>,
    by_name: Option<&'a str>,
    fence: Option<i64>,
    detail: DetailOut<'a>,
}

/// An event with its workspace, where that does not follow from the request.
#[derive(Debug, Serialize)]
pub struct WorkspaceEventOut<'a> {
    #[serde(flatten)]
    event: EventOut<'a>,
    workspace_id: &'a str,
}

impl<'a> WorkspaceEventOut<'a> {
    /// Shows it.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        Self { event: EventOut::of(event), workspace_id: event.workspace_id.as_str() }
    }
}

/// How the followers of the events are told of them (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
pub const EVENT_ENCODER: EventEncoder = EventEncoder {
    event: |event, lock, rules, now, clock| {
        #[derive(Serialize)]
        struct Told<'a> {
            #[serde(flatten)]
            event: WorkspaceEventOut<'a>,
            lock: Option<LockOut<'a>>,
        }
        let mut told = Told {
            event: WorkspaceEventOut::of(event),
            lock: lock.map(|lock| LockOut::of(lock, now, clock)),
        };
        if event.event_type == EventType::KnockDeclined {
            told.event.event.detail.again_in_ms = again_in_ms(event, lock, rules, now);
        }
        // JSON as it is written here has no line ends, which would end the line.
        let data = serde_json::to_string(&told).unwrap_or_default();
        format!("id: {}\nevent: {}\ndata: {data}\n\n", event.revision, event.event_type.as_str()).into_bytes()
    },
    reset: |revision| format!("id: {revision}\nevent: reset\ndata: {{}}\n\n").into_bytes(),
    keep_alive: b": still here\n\n",
};

/// Time until the one who was declined may ask again, in milliseconds; 0 when they may.
fn again_in_ms(event: &Event, lock: Option<&Lock>, rules: &Rules, now: Timestamp) -> Option<i64> {
    let user_id = event.to_user_id.as_ref()?;
    let again = lock.and_then(|lock| lock.knocks.again_in(user_id, rules, now));
    Some(again.map_or(0, Ttl::as_millis))
}

/// What only some events have.
#[derive(Debug, Serialize)]
struct DetailOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    new_fence: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// In the stream of events only: in the history it would be out of date.
    #[serde(skip_serializing_if = "Option::is_none")]
    again_in_ms: Option<i64>,
}

impl<'a> EventOut<'a> {
    /// Shows it.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        let is_knock = event.event_type == EventType::Knocked;
        let outcome = match event.event_type {
            EventType::Acquired if event.reclaimed => Some("reclaimed"),
            EventType::Acquired => Some("acquired"),
            EventType::Knocked if event.to_user_id.is_some() => Some("postponed"),
            EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => None,
        };
        Self {
            revision: event.revision,
            event_type: event.event_type.as_str(),
            at: event.at.to_rfc3339(),
            user_id: event.user_id.as_ref().map(UserId::as_str),
            session_id: event.session_id.as_ref().map(SessionId::as_str),
            by_user_id: event.by_user_id.as_ref().map(UserId::as_str),
            by_name: event.by_name.as_ref().map(DisplayName::as_str),
            fence: event.fence.map(|fence| fence.0),
            detail: DetailOut {
                new_fence: event.next_fence.map(|fence| fence.0),
                to_user_id: event.to_user_id.as_ref().map(UserId::as_str),
                message: event.message.as_deref().filter(|_| is_knock),
                reason: event.message.as_deref().filter(|_| !is_knock),
                outcome,
                again_in_ms: None,
            },
        }
    }
}

/// 200 with `value` as JSON.
#[must_use]
pub fn ok(value: &impl Serialize) -> Response {
    with_status(200, value)
}

/// This status with `value` as JSON.
#[must_use]
pub fn with_status(status: u16, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            // So that the next prompt stands on a line of its own.
            body.push(b'\n');
            Response::of(status, JSON, body)
        }
        Err(error) => {
            log::error!("an answer cannot be written as JSON: {error}");
            Response::empty(500)
        }
    }
}
