//! `GET /events`: the stream of events.

use std::sync::Arc;

use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::problem::Problem;
use crate::api::responder::Stream;
use crate::api::routes::{Answer, EVENT_STREAM};
use crate::app::Service;
use crate::domain::WorkspaceId;
use crate::domain::member::Need;
use crate::events::piece::StreamChunk;
use crate::events::presence::PresentUser;
use crate::events::subscription::{EventSink, StartFrom, Subscription};

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

/// `GET /events`
pub fn follow(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let from = start_from(call)?;
    let workspaces = call
        .values
        .several("workspace_id")
        .iter()
        .map(|id| WorkspaceId::parse(id).map_err(|error| Problem::of(&error, &call.request_id)))
        .collect::<Result<Vec<_>, _>>()?;
    let member = service.only_for(&call.caller.actor()).cloned();
    service.may_all(&call.caller.actor(), &workspaces, Need::See).map_err(|error| call.failed(&error))?;
    let face = call.caller.user_id.clone().map(|user_id| PresentUser {
        user_id,
        name: call.caller.name.clone(),
        since: service.clock().wall_at(service.clock().now()),
        is_member: member.is_some(),
    });
    let seat = service.seat(call.caller.key()).map_err(|error| call.failed(&error))?;
    let (for_lasts, lasts) = (Arc::clone(service), call.caller.lasts.clone());
    let still_allowed = Box::new(move || for_lasts.are_good(&lasts));
    let sees_deleted = call.caller.is_admin();
    let subscription = Subscription { from, workspaces, member, sees_deleted, still_allowed };
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        // Without this header nginx buffers the stream.
        let head = Response::of(200, EVENT_STREAM, Vec::new()).with("X-Accel-Buffering", "no");
        let stream = reply.stream(head);
        service.broadcaster().follow(subscription, face.as_ref(), seat, Box::new(stream));
    }))
}

/// Where the stream starts. A browser that reconnects sends `Last-Event-ID`; it is later than `since` in the address.
fn start_from(call: &Call) -> Result<StartFrom, Problem> {
    let Some(last) = call.last_event_id.as_deref().filter(|last| !last.is_empty()) else {
        return Ok(call.values.integer("since").map_or(StartFrom::Now, StartFrom::After));
    };
    let digits = last.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| last.parse().ok())
        .flatten()
        .map(StartFrom::After)
        .ok_or_else(|| Problem::invalid("Last-Event-ID", "must be the id of an event: a whole number"))
}
