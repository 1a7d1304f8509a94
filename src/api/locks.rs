//! The lock of one workspace: acquire, read, release.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::code::LockHeld;
use super::exchange::Response;
use super::fields::{Count, Integer, Metadata, Name, RequestKind, Text};
use super::lock::{LockOut, left};
use super::operation::{Answer, Call, Holder, Operation, ok};
use super::problem::{Code, Problem};
use super::refusals::{describe_holder, held, not_holder, seconds};
use super::responder::Responder;
use crate::app::Service;
use crate::domain::event::Lost;
use crate::domain::rights::Need;
use crate::domain::{
    Acquire, Acquired, Authority, Claim, Fence, Force, Lock, LockKind, MESSAGE_BYTES, NOTE_BYTES, Release,
    Released, SessionId, WorkspaceId,
};
use crate::error::{Error, Limit};
use crate::store::AsOf;
use crate::store::queue::Client;
use crate::time::{LeaseClock, Timestamp, Ttl};

/// Acquire the lock of a workspace
///
/// A free workspace is locked. If the caller holds the lock, the lease starts over. A user's own lock of another
/// `kind` is 409 with `same_user`. `agent` and `run` locks belong to their session; `force` does not take over `run`,
/// `terraform` and `lfs` locks. An `edit` acquire takes over an agent's lock without `force` (`locks.agents_yield`), and
/// agents wait behind all others. An agent takes nothing over. If the caller's last lease has
/// expired, it is reclaimed with the same fence; this needs that nobody else had the lock since, that the server
/// has not restarted, and that the history of the lease is still kept. With `locks.same_user = "share"` the
/// caller's own live lease is never shortened.
///
/// The call is idempotent: a client that lost the response sends the same request again and gets the same lease.
///
/// With `wait_ms` the request waits until the lock is free. Requests are served in order of arrival, and the wait
/// is limited by `locks.max_wait`. Each session has one place in the line: a newer request of the same user and
/// session keeps the place, and the older request is answered with 409. A request whose user gets the lock
/// otherwise, by a knock or a handover, is answered with that lock. If the credentials end during the wait, the
/// answer is 401. An `edit` or `agent` lease that was granted after a wait ends after `locks.claim_within` unless a
/// heartbeat claims it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquireLock {
    workspace_id: WorkspaceId,
    /// Who has the lock: `edit` a person (the default), `agent` an AI agent, `run` a process. Locks of Terraform and Git
    /// LFS are taken by paths of their own.
    kind: Option<RequestKind>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
    /// Length of the lease from now, in milliseconds. It is clamped to `locks.min_ttl` and the `max_ttl` of the
    /// kind. With `locks.same_user = "share"` it never shortens a live lease.
    ttl_ms: Option<Ttl>,
    /// Take the lock over from its holder.
    force: Option<bool>,
    /// With `force`: take over only the lease with this fence.
    expected_fence: Option<Fence>,
    /// The reason for ending another user's lease. It is stored in the history.
    reason: Option<Text<MESSAGE_BYTES>>,
    /// Maximum time to wait for a held lock, in milliseconds.
    wait_ms: Option<Integer<0, 60_000>>,
    /// Display name of the caller. Default: `X-User-Name`. For the kind `agent`: the name of the agent, and
    /// `X-User-Name` is that of the user for whom it acts.
    name: Option<Name>,
    /// A note of the holder.
    note: Option<Text<NOTE_BYTES>>,
    /// Data of the app, stored with the lock.
    metadata: Option<Metadata>,
}

/// A lock that was acquired.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Acquired")]
pub struct AcquiredOut<'a> {
    outcome: AcquireOutcome,
    lock: LockOut<'a>,
    /// The lease that a takeover ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LockOut<'a>")]
    previous: Option<LockOut<'a>>,
    /// For the kind `run`: the process of an earlier lease may still be running for this long, because that lease was
    /// ended by force or handed over. Start nothing before it has passed. Count down from when the answer arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Count")]
    drain_ms: Option<Count>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum AcquireOutcome {
    Acquired,
    Renewed,
    Reclaimed,
    TakenOver,
}

impl Operation for AcquireLock {
    type Output = AcquiredOut<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let force = match (self.force == Some(true), self.expected_fence) {
            (false, None) => Force::No,
            (true, None) => Force::AnyHolder,
            (true, Some(fence)) => Force::OnlyFence(fence),
            (false, Some(_)) => {
                return Err(Problem::invalid("expected_fence", "needs force = true"));
            }
        };
        let kind = self.kind.unwrap_or_default().0;
        let Holder { user_id, name, for_name } = call.holder(kind, self.name)?;
        let request = Acquire {
            workspace_id: self.workspace_id,
            kind,
            user_id,
            user_name: name,
            for_name,
            session_id: self.session_id,
            privilege: call.caller.scope.privilege(),
            ttl: self.ttl_ms,
            force,
            note: self.note.map(|note| note.0),
            metadata: self.metadata.map(|metadata| metadata.0),
            reason: self.reason.and_then(Text::not_empty),
        };
        let actor = call.caller.actor();
        let Some(wait) = self.wait_ms.filter(|wait| wait.0 > 0) else {
            return Answer::of(
                service,
                |service, done| service.acquire(actor, request, done),
                |at: &AsOf<Acquired>, clock| acquired(&at.value, at.now, clock),
            );
        };
        let (validity, service) = (call.caller.validity.clone(), Arc::clone(service));
        Ok(Answer::later(move |responder| {
            let client = Waits { responder: responder.park(), service: Arc::clone(&service) };
            service.acquire_waiting(actor, request, Ttl::from_millis(wait.0), validity, Box::new(client));
        }))
    }
}

/// A client that waits for a lock: its parked request.
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
        let answer = match answer {
            Ok(at) => acquired(&at.value, at.now, service.clock()),
            Err(Error::CredentialsEnded) => Err(Problem::unauthenticated(service.auth_mode())
                .detail("Your credentials expired while you waited. Sign in again.")),
            Err(error) => Err(error.into()),
        };
        match answer {
            Ok(response) => responder.send(response),
            Err(problem) => responder.refuse(&problem),
        }
    }
}

/// The response to an acquire.
pub fn acquired(outcome: &Acquired, now: Timestamp, clock: &LeaseClock) -> Result<Response, Problem> {
    let granted = |outcome, lock: &Lock, previous: Option<&Lock>| {
        Ok(ok(&AcquiredOut {
            outcome,
            lock: LockOut::of(lock, now, clock),
            previous: previous.map(|lock| LockOut::of(lock, now, clock)),
            drain_ms: (lock.kind == LockKind::Run)
                .then(|| lock.drain_until.map_or(Integer(0), |until| left(until, now))),
        }))
    };
    match outcome {
        Acquired::Acquired(lock) => granted(AcquireOutcome::Acquired, lock, None),
        Acquired::Renewed(lock) => granted(AcquireOutcome::Renewed, lock, None),
        Acquired::Reclaimed(lock) => granted(AcquireOutcome::Reclaimed, lock, None),
        Acquired::TakenOver { lock, previous } => granted(AcquireOutcome::TakenOver, lock, Some(previous)),
        Acquired::Held { lock, same_user, takeover_allowed, idle } => Err(Problem::new(Code::LockHeld)
            .detail(describe_holder(lock, *same_user, now))
            .with(&LockHeld {
                lock: LockOut::of(lock, now, clock),
                same_user: *same_user,
                takeover_allowed: *takeover_allowed,
                idle_for_ms: Integer(idle.as_millis()),
            })
            .header("Retry-After", seconds(lock.expires_at.since(now)).to_string())),
        Acquired::TooMany => Err(Problem::limited(Limit::Locks, 60)),
        Acquired::FenceMismatch(lock) => {
            let detail =
                format!("The lock has changed since you saw it. {}", describe_holder(lock, false, now));
            Err(held(Code::FenceMismatch, detail, lock, now, clock))
        }
        Acquired::TakeoverForbidden(lock) => {
            let rule = if lock.kind.properties().yields_to_force {
                "You may not take over this lock."
            } else {
                "A lock of this kind is not taken over by force. End it first, with a forced release."
            };
            let detail = format!("{rule} {}", describe_holder(lock, false, now));
            Err(held(Code::TakeoverForbidden, detail, lock, now, clock))
        }
    }
}

/// Read the lock of a workspace
///
/// An expired lock is never shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadLock {
    workspace_id: WorkspaceId,
}

/// Whether a workspace is locked.
#[derive(Serialize, JsonSchema)]
pub struct LockState<'a> {
    locked: bool,
    lock: Option<LockOut<'a>>,
}

impl Operation for ReadLock {
    type Output = LockState<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        call.may(service, &self.workspace_id, Need::See)?;
        let found = service.lock(&self.workspace_id)?;
        let lock = found.value.as_ref().map(|lock| LockOut::of(lock, found.now, service.clock()));
        Answer::now(&LockState { locked: lock.is_some(), lock })
    }
}

/// Release the lock of a workspace
///
/// A repeat is harmless. Without `fence` and `session_id`, any lease of the caller is released, except one that belongs
/// to its session (`agent`, `run`, `terraform`). With `force`, an
/// administrator or an admin of the workspace ends the lease of any user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ReleaseLock {
    workspace_id: WorkspaceId,
    /// Release only this lease.
    fence: Option<Fence>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
    /// End another user's lease, as an administrator.
    force: Option<bool>,
    /// The reason for ending another user's lease. It is stored in the history.
    reason: Option<Text<MESSAGE_BYTES>>,
}

/// Release the lock of a workspace from a page that closes
///
/// The same as DELETE, as a request that `navigator.sendBeacon` can send. It also takes `text/plain`, so it needs
/// no CORS preflight.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ReleaseLockByBeacon(ReleaseLock);

/// Whether there was a lock to release.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Released")]
pub struct ReleasedOut {
    /// Whether there was a lock to release.
    pub released: bool,
}

impl Operation for ReleaseLockByBeacon {
    type Output = ReleasedOut;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        self.0.run(service, call)
    }
}

impl Operation for ReleaseLock {
    type Output = ReleasedOut;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        // The domain checks the right to force when it releases: an admin of the workspace has it, too.
        let authority = if self.force == Some(true) { Authority::Administrator } else { Authority::Holder };
        let request = Release {
            claim: claim(call, self.workspace_id, self.session_id, self.fence)?,
            user_name: call.caller.name.clone(),
            privilege: call.caller.scope.privilege(),
            authority,
            reason: self.reason.and_then(Text::not_empty),
        };
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.release(actor, request, done),
            |at: &AsOf<(Released, Option<Lost>)>, clock| match &at.value {
                (Released::Released(_), _) => Ok(ok(&ReleasedOut { released: true })),
                (Released::Nothing, _) => Ok(ok(&ReleasedOut { released: false })),
                (Released::Forbidden(lock), _) => {
                    let detail =
                        "Only an administrator or an admin of the workspace may end another user's lock.";
                    Err(held(Code::TakeoverForbidden, detail, lock, at.now, clock))
                }
                (Released::NotHolder { lock, same_user }, lost) => {
                    Err(not_holder(lock, *same_user, lost.as_ref(), at.now, clock))
                }
            },
        )
    }
}

/// The claim of a call: the lease that the caller says they hold.
///
/// # Errors
/// A 401 when the credentials name no user.
pub fn claim(
    call: &Call,
    workspace_id: WorkspaceId,
    session_id: Option<SessionId>,
    fence: Option<Fence>,
) -> Result<Claim, Problem> {
    Ok(Claim {
        workspace_id,
        user_id: call.user()?.clone(),
        session_id,
        fence,
        is_agent: call.caller.is_agent,
    })
}
