//! The event stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::exchange::Response;
use super::fields::{Integer, List};
use super::history::WorkspaceEventOut;
use super::lock::LockOut;
use super::operation::{Answer, Call, Operation};
use super::problem::Problem;
use super::responder::Stream;
use crate::app::Service;
use crate::domain::access::Rules;
use crate::domain::event::Event;
use crate::domain::event::EventType;
use crate::domain::rights::Need;
use crate::domain::{Lock, WorkspaceId};
use crate::events::chunk::StreamChunk;
use crate::events::presence::PresentUser;
use crate::events::subscription::{EventEncoder, EventSink, StartFrom, Subscription};
use crate::time::{Timestamp, Ttl};

/// The media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Follow the events of the locks
///
/// Server-Sent Events. `id:` is the revision, `event:` is the type, `data:` is the event as in the history, with
/// `lock`: the lock that the event is about, if it is still live. Heartbeats are not events.
///
/// A client that reconnects with the header `Last-Event-ID`, or with `since`, gets each event exactly once. If
/// events after that revision are no longer kept, `event: reset` comes first; then read the state again. Expiries
/// are sent when they happen. A comment line is sent at least every 15 seconds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FollowEvents {
    /// Only events of this workspace. Repeatable, up to 100 times. Default: all workspaces.
    workspace_id: Option<List<WorkspaceId, 100>>,
    /// Start after this revision. Default: now.
    since: Option<Integer<0, { i64::MAX }>>,
}

/// The `data:` of an event.
#[derive(Serialize, JsonSchema)]
struct StreamEvent<'a> {
    #[serde(flatten)]
    event: WorkspaceEventOut<'a>,
    lock: Option<LockOut<'a>>,
}

/// The stream of events.
pub struct EventStream;

impl JsonSchema for EventStream {
    fn schema_name() -> Cow<'static, str> {
        "EventStream".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "The `data:` of each event has the schema in `x-data`; that of `reset` is `{}`.",
            "x-data": generator.subschema_for::<StreamEvent<'_>>(),
        })
    }
}

impl Operation for FollowEvents {
    type Output = EventStream;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let from =
            last_heard(call)?.or(self.since.map(|since| since.0)).map_or(StartFrom::Now, StartFrom::After);
        let workspaces = self.workspace_id.map(|ids| ids.0).unwrap_or_default();
        let member = service.visible_only_to(&call.caller.actor()).cloned();
        service.may_all(&call.caller.actor(), &workspaces, Need::See)?;
        let face = call.caller.user_id.clone().map(|user_id| PresentUser {
            user_id,
            name: call.caller.name.clone(),
            since: service.clock().wall_at(service.clock().now()),
            is_member: member.is_some(),
        });
        let seat = service.reserve_stream(call.caller.key())?;
        let (validator, validity) = (Arc::clone(service), call.caller.validity.clone());
        let still_allowed = Box::new(move || validator.are_valid(&validity));
        let sees_deleted = call.caller.scope.sees_deleted();
        let subscription = Subscription { from, workspaces, member, sees_deleted, still_allowed };
        let service = Arc::clone(service);
        Ok(Answer::later(move |responder| {
            // Without this header nginx buffers the stream.
            let head = Response::of(200, EVENT_STREAM, Vec::new()).with("X-Accel-Buffering", "no");
            let stream = responder.stream(head);
            service.broadcaster().follow(subscription, face.as_ref(), seat, Box::new(stream));
        }))
    }
}

/// Where the stream starts. A browser that reconnects sends `Last-Event-ID`; it is later than `since` in the address.
fn last_heard(call: &Call) -> Result<Option<i64>, Problem> {
    let Some(last) = call.request.headers.last_event_id.as_deref().filter(|last| !last.is_empty()) else {
        return Ok(None);
    };
    let digits = last.bytes().all(|byte| byte.is_ascii_digit());
    let revision = digits.then(|| last.parse().ok()).flatten();
    let invalid = || Problem::invalid("Last-Event-ID", "must be the id of an event, a whole number");
    revision.map(Some).ok_or_else(invalid)
}

/// The body of a webhook: an event as in the history.
#[must_use]
pub fn webhook_body(event: &Event) -> Vec<u8> {
    serde_json::to_vec(&WorkspaceEventOut::of(event)).unwrap_or_default()
}

/// How an event is written into a stream.
pub const EVENT_ENCODER: EventEncoder = EventEncoder {
    event: |event, lock, rules, now, clock| {
        let mut told = StreamEvent {
            event: WorkspaceEventOut::of(event),
            lock: lock.map(|lock| LockOut::of(lock, now, clock)),
        };
        // Only in the stream: in the history the value would be out of date.
        told.event.event.detail.again_in_ms = again_in_ms(event, lock, rules, now).map(Integer);
        // serde_json writes no line ends here. One would end the `data:` line.
        let data = serde_json::to_string(&told).unwrap_or_default();
        format!("id: {}\nevent: {}\ndata: {data}\n\n", event.revision, event.event_type.as_str()).into_bytes()
    },
    reset: |revision| format!("id: {revision}\nevent: reset\ndata: {{}}\n\n").into_bytes(),
    keep_alive: b": still here\n\n",
};

/// For a declined knock: the milliseconds until the declined user may knock again.
fn again_in_ms(event: &Event, lock: Option<&Lock>, rules: &Rules, now: Timestamp) -> Option<i64> {
    let user_id = event.to_user_id.as_ref().filter(|_| event.event_type == EventType::KnockDeclined)?;
    // The event does not say whether the user or an agent of theirs was declined.
    let again = lock.and_then(|lock| {
        let again = [false, true].map(|is_agent| lock.knocks.retry_in(user_id, is_agent, rules, now));
        again.into_iter().flatten().max()
    });
    Some(again.map_or(0, Ttl::as_millis))
}

impl EventSink for Stream {
    fn push(&self, piece: &StreamChunk) -> bool {
        Self::share(self, piece)
    }

    fn behind(&self) -> usize {
        self.client().behind()
    }

    fn is_gone(&self) -> bool {
        self.client().is_gone()
    }

    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        self.client().when_gone(callback);
    }
}
