//! Asking the holder, the holder's answer, and who is there.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::answer;
use super::locks::{claim, holder, no_lock, not_holder, shown};
use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::problem::{Code, Problem};
use crate::api::routes::Answer;
use crate::api::wire::{KnockOut, LockOut, ok, with_status};
use crate::app::{Service, WorkspacePresence};
use crate::domain::event::Author;
use crate::domain::event::Lost;
use crate::domain::handoff::{Ask, Asked, Replied, Reply};
use crate::domain::member::Need;
use crate::domain::{DisplayName, SessionId, UserId};
use crate::error::Limit;
use crate::events::presence::PresentUser;
use crate::store::AsOf;
use crate::store::queue::Place;
use crate::time::{LeaseClock, Timestamp, Ttl};

/// `POST …/lock/knock`
pub fn knock(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let Call { caller, values, .. } = call;
    let actor = caller.actor();
    let request = Ask {
        lasts: call.caller.lasts.clone(),
        workspace_id: values.workspace_id()?,
        user_id: call.user()?.clone(),
        name: call.display_name()?,
        session_id: values.session_id()?,
        message: values.text("message").filter(|message| !message.is_empty()).map(str::to_owned),
    };
    let by = request.user_id.clone();
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let clock = Arc::clone(&service);
        service.knock(
            actor,
            request,
            answer(reply, move |at: &AsOf<Asked>| asked(&at.value, &by, at.now, clock.clock())),
        );
    }))
}

fn asked(outcome: &Asked, by: &UserId, now: Timestamp, clock: &LeaseClock) -> Result<Response, Problem> {
    match outcome {
        Asked::Heard(lock) => {
            let knocks = KnockOut::all(lock, now, clock);
            let knock = lock.knocks.pending.iter().zip(knocks).find(|(knock, _)| knock.user_id == *by);
            let heard =
                HeardOut { knock: knock.map(|(_, shown)| shown), lock: LockOut::of(lock, now, clock) };
            Ok(with_status(202, &heard))
        }
        Asked::NoLock => Err(Problem::new(Code::LockNotFound)
            .detail("Nobody has locked this workspace: there is nobody to ask. Acquire the lock.")
            .member("lost", Value::Null)),
        Asked::Own(lock) => Err(Problem::new(Code::KnockOnOwnLock)
            .detail("You have this lock yourself: there is nobody to ask.")
            .member("lock", shown(lock, now, clock))),
        Asked::TooSoon { lock, again } => Err(Problem::new(Code::KnockTooSoon)
            .detail(format!(
                "{} has just kept the lock. You can ask again in {}.",
                holder(lock),
                humantime::format_duration(Duration::from_secs(seconds(*again)))
            ))
            .member("lock", shown(lock, now, clock))
            .member("again_in_ms", again.as_millis())
            .header("Retry-After", seconds(*again).to_string())),
        Asked::TooMany => Err(Problem::limited(Limit::Knocks, 30)),
    }
}

/// Rounded up, so that nobody comes back too early.
fn seconds(ttl: Ttl) -> u64 {
    ttl.as_millis().unsigned_abs().div_ceil(1_000)
}

/// `POST …/lock/handover`
pub fn hand_over(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let user_id = call.values.user_in("to_user_id")?;
    let request = Reply { claim: claim(call, &call.values)?, user_id };
    let (actor, by) = (call.caller.actor(), by(call)?);
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let clock = Arc::clone(&service);
        service.hand_over(actor, request, by, answer(reply, move |at| replied(at, clock.clock())));
    }))
}

/// `POST …/lock/knock/decline`
pub fn decline(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let request = Reply { claim: claim(call, &call.values)?, user_id: call.values.user_id()? };
    let (actor, by) = (call.caller.actor(), by(call)?);
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let clock = Arc::clone(&service);
        let show = answer(reply, move |at: &AsOf<(Replied, Option<Lost>)>| {
            if at.value.0 == Replied::Nobody {
                // A repeat is harmless.
                return Ok(ok(&json!({ "declined": false })));
            }
            replied(at, clock.clock())
        });
        service.decline(actor, request, by, show);
    }))
}

fn by(call: &Call) -> Result<Author, Problem> {
    Ok(Author::person(call.user()?.clone(), call.caller.name.clone()))
}

fn replied(
    AsOf { now, value: (replied, lost) }: &AsOf<(Replied, Option<Lost>)>,
    clock: &LeaseClock,
) -> Result<Response, Problem> {
    match replied {
        Replied::HandedOver(lock) => {
            Ok(ok(&HandedOverOut { handed_over: true, lock: LockOut::of(lock, *now, clock) }))
        }
        Replied::Declined(_) => Ok(ok(&json!({ "declined": true }))),
        Replied::Nobody => Err(Problem::invalid("to_user_id", "is missing, and nobody has knocked")),
        Replied::NotAMember => {
            Err(Problem::new(Code::NotAMember)
                .detail("They may not hold this lock: they are no editor here."))
        }
        Replied::Own => Err(Problem::invalid("to_user_id", "is the holder")),
        Replied::NotHolder { lock, same_user } => {
            Err(not_holder(lock, *same_user, lost.as_ref(), *now, clock))
        }
        Replied::NoLock => Err(no_lock(lost.as_ref())),
    }
}

#[derive(Serialize)]
struct HeardOut<'a> {
    knock: Option<KnockOut<'a>>,
    lock: LockOut<'a>,
}

#[derive(Serialize)]
struct HandedOverOut<'a> {
    handed_over: bool,
    lock: LockOut<'a>,
}

#[derive(Serialize)]
struct PresenceOut<'a> {
    lock: Option<LockOut<'a>>,
    knocks: Vec<KnockOut<'a>>,
    waiting: Vec<WaiterOut<'a>>,
    followers: Vec<PersonOut<'a>>,
}

/// Somebody who is there.
#[derive(Serialize)]
struct PersonOut<'a> {
    user_id: &'a str,
    name: Option<&'a str>,
    since_at: String,
}

/// Somebody who waits.
#[derive(Serialize)]
struct WaiterOut<'a> {
    #[serde(flatten)]
    person: PersonOut<'a>,
    session_id: Option<&'a str>,
}

/// `GET …/presence`
pub fn presence(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    call.may(service, &workspace_id, Need::See)?;
    let found = service.presence(&workspace_id).map_err(|error| call.failed(&error))?;
    Ok(Answer::Now(present(&found.value, found.now, service.clock())))
}

fn present(presence: &WorkspacePresence, now: Timestamp, clock: &LeaseClock) -> Response {
    let lock = presence.lock.as_ref();
    ok(&PresenceOut {
        lock: lock.map(|lock| LockOut::of(lock, now, clock)),
        knocks: lock.into_iter().flat_map(|lock| KnockOut::all(lock, now, clock)).collect(),
        waiting: presence.waiting.iter().map(|place| WaiterOut::of(place, clock)).collect(),
        followers: presence.followers.iter().map(PersonOut::who_follows).collect(),
    })
}

impl<'a> WaiterOut<'a> {
    fn of(place: &'a Place, clock: &LeaseClock) -> Self {
        let request = &place.waiter.request;
        let person = PersonOut {
            user_id: request.user_id.as_str(),
            name: request.user_name.as_ref().map(DisplayName::as_str),
            since_at: clock.wall_at(place.since).to_rfc3339(),
        };
        Self { person, session_id: request.session_id.as_ref().map(SessionId::as_str) }
    }
}

impl<'a> PersonOut<'a> {
    fn who_follows(face: &'a PresentUser) -> Self {
        Self {
            user_id: face.user_id.as_str(),
            name: face.name.as_ref().map(DisplayName::as_str),
            since_at: face.since.to_rfc3339(),
        }
    }
}
