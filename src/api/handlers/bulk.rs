//! More than one lock, or more than one event.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::locks::{activity, beaten, claim};
use super::{PAGE, answer, page};
use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::problem::{Code, Problem};
use crate::api::routes::Answer;
use crate::api::wire::{EventOut, LockOut, Members, RenewedOut, ok};
use crate::app::Service;
use crate::app::locks::Beaten;
use crate::domain::access::Privilege;
use crate::domain::event::Author;
use crate::domain::member::Need;
use crate::domain::{Heartbeat, WorkspaceId};
use crate::error::{Denied, Error};
use crate::store::AsOf;
use crate::store::listing::{Listed, Listing};
use crate::time::{LeaseClock, Timestamp};

#[derive(Serialize)]
struct LockPageOut<'a> {
    locks: Vec<LockOut<'a>>,
    next_cursor: Option<&'a str>,
}

/// `GET /locks`
pub fn list(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let values = &call.values;
    let (after, limit) = page(call);
    let listing = Listing {
        user_id: values.user_id()?,
        prefix: values.text("prefix").unwrap_or_default().to_owned(),
        after,
        limit,
        member: service.only_for(&call.caller.actor()).cloned(),
    };
    let found = service.locks(&listing).map_err(|error| Problem::of(&error, &call.request_id))?;
    let Listed { locks, next } = &found.value;
    let shown: Vec<_> = locks.iter().map(|lock| LockOut::of(lock, found.now, service.clock())).collect();
    Ok(Answer::Now(ok(&LockPageOut { locks: shown, next_cursor: next.as_deref() })))
}

/// `GET …/history`
pub fn history(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    // Who sees all may ask about an id that no workspace has now.
    if service.only_for(&call.caller.actor()).is_some() {
        call.may(service, &workspace_id, Need::See)?;
    }
    let before = call.values.integer("cursor").unwrap_or(i64::MAX);
    let limit = u32::try_from(call.values.integer("limit").unwrap_or(PAGE)).unwrap_or_default();
    // One more than is shown tells whether there are more.
    let events = service.history(&call.caller.actor(), &workspace_id, before, limit.saturating_add(1));
    let events = events.map_err(|error| call.failed(&error))?;
    let shown = events.get(..usize::try_from(limit).unwrap_or_default()).unwrap_or(&events);
    let next_cursor =
        shown.last().filter(|_| events.len() > shown.len()).map(|event| event.revision.to_string());
    let shown: Vec<_> = shown.iter().map(EventOut::of).collect();
    Ok(Answer::Now(ok(&json!({ "events": shown, "next_cursor": next_cursor }))))
}

/// `POST /locks/heartbeat`
pub fn heartbeats(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let ttl = call.values.ttl();
    let requests = call
        .values
        .list("locks")
        .iter()
        .map(|entry| Ok(Heartbeat { claim: claim(call, entry)?, ttl, activity: activity(entry) }))
        .collect::<Result<Vec<_>, Problem>>()?;
    let actor = call.caller.actor();
    let workspace_ids: Vec<_> = requests.iter().map(|request| request.claim.workspace_id.clone()).collect();
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let shown = Arc::clone(&service);
        let show = answer(reply, move |at| Ok(beats(&workspace_ids, at, shown.clock())));
        service.heartbeats(actor, requests, show);
    }))
}

#[derive(Serialize)]
struct BeatsOut<'a> {
    results: Vec<BeatOut<'a>>,
}

#[derive(Serialize)]
struct BeatOut<'a> {
    workspace_id: &'a str,
    status: u16,
    #[serde(flatten)]
    result: ResultOut<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultOut<'a> {
    Renewed(RenewedOut<'a>),
    Refused(Members),
}

impl<'a> BeatOut<'a> {
    fn of(
        workspace_id: &'a WorkspaceId,
        beat: &'a Result<Beaten, Denied>,
        now: Timestamp,
        clock: &LeaseClock,
    ) -> Self {
        let renewed = match beat {
            Ok(beat) => beaten(beat, now, clock).map(|renewed| renewed.told_to(None)),
            Err(denied) => Err(Problem::of(&Error::Denied(*denied), "")),
        };
        let (status, result) = match renewed {
            Ok(renewed) => (200, ResultOut::Renewed(renewed)),
            Err(problem) => (problem.status(), ResultOut::Refused(problem.inner())),
        };
        Self { workspace_id: workspace_id.as_str(), status, result }
    }
}

fn beats(
    workspace_ids: &[WorkspaceId],
    AsOf { now, value }: &AsOf<Vec<Result<Beaten, Denied>>>,
    clock: &LeaseClock,
) -> Response {
    let beats = workspace_ids.iter().zip(value);
    ok(&BeatsOut { results: beats.map(|(id, beat)| BeatOut::of(id, beat, *now, clock)).collect() })
}

/// `DELETE /users/{user_id}/locks`
pub fn release_user(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let user_id = call.values.user_id()?.ok_or_else(|| Problem::new(Code::NotFound))?;
    match call.caller.standing() {
        Privilege::Administrator => {}
        Privilege::Ordinary if *call.user()? == user_id => {}
        Privilege::Ordinary | Privilege::WorkspaceAdmin => return Err(Problem::new(Code::Forbidden)),
    }
    let by = super::by(call).unwrap_or_else(|| Author::person(user_id.clone(), None));
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = answer(reply, |released: &u32| Ok(ok(&json!({ "released": released }))));
        service.release_user(user_id, by, show);
    }))
}
