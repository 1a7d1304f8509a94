//! The lock of one workspace: acquire, read, renew, release.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer;
use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::fields::Values;
use crate::api::problem::{Code, Problem};
use crate::api::responder::Responder;
use crate::api::routes::Answer;
use crate::api::wire::{LockOut, LostOut, RenewedOut, left_ms, ok, raw};
use crate::app::Service;
use crate::app::locks::Beaten;
use crate::domain::event::{Ending, Lost};
use crate::domain::member::Need;
use crate::domain::{
    Acquire, Acquired, Activity, Authority, Beat, Claim, DisplayName, Force, Heartbeat, Lock, Release,
    Released, UserId,
};
use crate::error::{Error, Limit};
use crate::store::AsOf;
use crate::store::queue::Client;
use crate::time::{LeaseClock, Timestamp, Ttl};

#[derive(Serialize)]
struct AcquiredOut<'a> {
    outcome: &'static str,
    lock: LockOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<LockOut<'a>>,
}

/// `POST …/lock`
pub fn acquire(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let request = wanted(call)?;
    let actor = call.caller.actor();
    let wait = call.values.integer("wait_ms").filter(|wait| *wait > 0);
    let lasts = call.caller.lasts.clone();
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        if let Some(wait) = wait {
            let client = Waits { responder: reply.park(), service: Arc::clone(&service) };
            return service.acquire_waiting(actor, request, Ttl::from_millis(wait), lasts, Box::new(client));
        }
        let shown = Arc::clone(&service);
        service.acquire(
            actor,
            request,
            answer(reply, move |at: &AsOf<Acquired>| acquired(&at.value, at.now, shown.clock())),
        );
    }))
}

/// A client that waits for a lock.
struct Waits {
    responder: Responder,
    service: Arc<Service>,
}

impl Client for Waits {
    fn is_gone(&self) -> bool {
        self.responder.client().is_gone()
    }

    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        self.responder.client().when_gone(callback);
    }

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        let Self { responder, service } = *self;
        let answer = answer
            .map_err(|error| {
                if error == Error::CredentialsEnded {
                    return Problem::unauthenticated(service.auth_mode())
                        .detail("Your credentials have ended while you waited. Sign in again.");
                }
                Problem::of(&error, responder.request_id())
            })
            .and_then(|at| acquired(&at.value, at.now, service.clock()));
        match answer {
            Ok(response) => responder.send(response),
            Err(problem) => responder.refuse(&problem),
        }
    }
}

fn wanted(call: &Call) -> Result<Acquire, Problem> {
    let Call { caller, values, .. } = call;
    let force = match (values.is_true("force"), values.fence("expected_fence")) {
        (false, None) => Force::No,
        (true, None) => Force::Anyone,
        (true, Some(fence)) => Force::Seen(fence),
        (false, Some(_)) => {
            return Err(Problem::invalid("expected_fence", "goes with force, which is not true"));
        }
    };
    Ok(Acquire {
        workspace_id: values.workspace_id()?,
        user_id: call.user()?.clone(),
        user_name: call.display_name()?,
        session_id: values.session_id()?,
        standing: caller.standing(),
        ttl: values.ttl(),
        force,
        note: values.text("note").map(str::to_owned),
        metadata: values.text("metadata").map(str::to_owned),
        reason: values.text("reason").filter(|reason| !reason.is_empty()).map(str::to_owned),
    })
}

fn acquired(outcome: &Acquired, now: Timestamp, clock: &LeaseClock) -> Result<Response, Problem> {
    let granted = |outcome, lock, previous: Option<&Lock>| {
        Ok(ok(&AcquiredOut {
            outcome,
            lock: LockOut::of(lock, now, clock),
            previous: previous.map(|lock| LockOut::of(lock, now, clock)),
        }))
    };
    match outcome {
        Acquired::Acquired(lock) => granted("acquired", lock, None),
        Acquired::Renewed(lock) => granted("renewed", lock, None),
        Acquired::Reclaimed(lock) => granted("reclaimed", lock, None),
        Acquired::TakenOver { lock, previous } => granted("taken_over", lock, Some(previous)),
        Acquired::Held { lock, same_user, takeover_allowed, idle } => Err(Problem::new(Code::LockHeld)
            .detail(who_has_it(lock, *same_user, now))
            .member("lock", shown(lock, now, clock))
            .member("same_user", *same_user)
            .member("takeover_allowed", *takeover_allowed)
            .member("idle_for_ms", idle.as_millis())
            .header("Retry-After", seconds_left(lock, now).to_string())),
        Acquired::TooMany => Err(Problem::limited(Limit::Locks, 60)),
        Acquired::FenceMismatch(lock) => Err(Problem::new(Code::FenceMismatch)
            .detail(format!("The lock is no longer the one you saw: {}", who_has_it(lock, false, now)))
            .member("lock", shown(lock, now, clock))),
        Acquired::TakeoverForbidden(lock) => Err(Problem::new(Code::TakeoverForbidden)
            .detail(format!("You may not take this lock over. {}", who_has_it(lock, false, now)))
            .member("lock", shown(lock, now, clock))),
    }
}

#[derive(Serialize)]
struct StateOut<'a> {
    locked: bool,
    lock: Option<LockOut<'a>>,
}

/// `GET …/lock`
pub fn read(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let workspace_id = call.values.workspace_id()?;
    call.may(service, &workspace_id, Need::See)?;
    let found = service.lock(&workspace_id).map_err(|error| call.failed(&error))?;
    let lock = found.value.as_ref().map(|lock| LockOut::of(lock, found.now, service.clock()));
    Ok(Answer::Now(ok(&StateOut { locked: lock.is_some(), lock })))
}

/// `POST …/lock/heartbeat`
pub fn heartbeat(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let request = Heartbeat {
        claim: claim(call, &call.values)?,
        ttl: call.values.ttl(),
        activity: activity(&call.values),
    };
    let (actor, session_id) = (call.caller.actor(), request.claim.session_id.clone());
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let shown = Arc::clone(&service);
        service.heartbeat(
            actor,
            request,
            answer(reply, move |at: &AsOf<Beaten>| {
                let renewed = beaten(&at.value, at.now, shown.clock())?;
                Ok(ok(&renewed.told_to(session_id.as_ref())))
            }),
        );
    }))
}

/// What became of a heartbeat.
pub(super) fn beaten<'a>(
    Beaten { beat, lost, waiting }: &'a Beaten,
    now: Timestamp,
    clock: &LeaseClock,
) -> Result<RenewedOut<'a>, Problem> {
    match beat {
        Beat::Renewed(lock) => Ok(RenewedOut::of(lock, *waiting, now, clock)),
        Beat::NotHolder { lock, same_user } => Err(not_holder(lock, *same_user, lost.as_ref(), now, clock)),
        Beat::NoLock => Err(no_lock(lost.as_ref())),
    }
}

/// There is no live lock, and the caller would have it.
pub(super) fn no_lock(lost: Option<&Lost>) -> Problem {
    let detail = match lost.map(|lost| lost.ending) {
        Some(Ending::MemberRemoved) => {
            "You have this lock no more: you do not belong to this workspace any longer."
        }
        Some(Ending::WorkspaceDeleted) => "You have this lock no more: the workspace was deleted.",
        Some(_) => {
            "You do not have this lock any more, and nobody else has it. Acquire it again before you save."
        }
        None => "Nobody has locked this workspace. Acquire the lock first.",
    };
    Problem::new(Code::LockNotFound).detail(detail).member("lost", ended(lost))
}

/// Which lease a call claims.
pub(super) fn claim(call: &Call, values: &Values) -> Result<Claim, Problem> {
    Ok(Claim {
        workspace_id: values.workspace_id()?,
        user_id: call.user()?.clone(),
        session_id: values.session_id()?,
        fence: values.fence("fence"),
    })
}

/// What a heartbeat says of the person.
pub(super) fn activity(values: &Values) -> Activity {
    if values.is_true("active") { Activity::Active } else { Activity::Idle }
}

/// `DELETE …/lock` and `POST …/lock/release`
pub fn release(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    // Whether they may is decided with it: an admin of the workspace may, too.
    let forced = call.values.is_true("force");
    let authority = if forced { Authority::Administrator } else { Authority::Holder };
    let request = Release {
        claim: claim(call, &call.values)?,
        user_name: call.caller.name.clone(),
        authority,
        standing: call.caller.standing(),
        reason: call.values.text("reason").filter(|reason| !reason.is_empty()).map(str::to_owned),
    };
    let actor = call.caller.actor();
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let shown = Arc::clone(&service);
        service.release(
            actor,
            request,
            answer(reply, move |at: &AsOf<(Released, Option<Lost>)>| {
                let (released, lost) = &at.value;
                match released {
                    Released::Released(_) => Ok(ok(&json!({ "released": true }))),
                    Released::Nothing => Ok(ok(&json!({ "released": false }))),
                    Released::Forbidden(lock) => Err(not_theirs_to_end(lock, at.now, shown.clock())),
                    Released::NotHolder { lock, same_user } => {
                        Err(not_holder(lock, *same_user, lost.as_ref(), at.now, shown.clock()))
                    }
                }
            }),
        );
    }))
}

fn not_theirs_to_end(lock: &Lock, now: Timestamp, clock: &LeaseClock) -> Problem {
    let who_may = "Only an administrator, or an admin of the workspace, may end somebody else's lock.";
    Problem::new(Code::TakeoverForbidden).detail(who_may).member("lock", shown(lock, now, clock))
}

pub(super) fn not_holder(
    lock: &Lock,
    same_user: bool,
    lost: Option<&Lost>,
    now: Timestamp,
    clock: &LeaseClock,
) -> Problem {
    Problem::new(Code::NotHolder)
        .detail(format!("This is not the live lock. {}", who_has_it(lock, same_user, now)))
        .member("lock", shown(lock, now, clock))
        .member("same_user", same_user)
        .member("lost", ended(lost))
}

pub(super) fn shown(lock: &Lock, now: Timestamp, clock: &LeaseClock) -> Box<RawValue> {
    raw(&LockOut::of(lock, now, clock))
}

pub(super) fn ended(lost: Option<&Lost>) -> Value {
    json!(lost.map(LostOut::of))
}

/// A sentence for a dialog.
pub(super) fn who_has_it(lock: &Lock, same_user: bool, now: Timestamp) -> String {
    let left = humantime::format_duration(Duration::from_secs(seconds_left(lock, now)));
    let who = if same_user { "You" } else { holder(lock) };
    let (has, renew) = if same_user {
        ("have this workspace, by another lease or session,", "you renew")
    } else {
        ("has this workspace", "they renew")
    };
    format!("{who} {has} for another {left}, and longer if {renew} the lock.")
}

/// How the holder is called in a sentence.
pub(super) fn holder(lock: &Lock) -> &str {
    lock.user_name.as_ref().map_or(UserId::as_str(&lock.user_id), DisplayName::as_str)
}

/// Rounded up, so that nobody comes back too early.
fn seconds_left(lock: &Lock, now: Timestamp) -> u64 {
    left_ms(lock, now).unsigned_abs().div_ceil(1_000)
}
