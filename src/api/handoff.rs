//! Knocks, handovers and declined knocks.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::code::{KnockTooSoon, NoLock};
use super::exchange::Response;
use super::fields::{Integer, Name, RequestKind, Text};
use super::lock::{KnockOut, LockOut};
use super::locks::claim;
use super::operation::{Answer, Call, Holder, Operation, ok, with_status};
use super::problem::{Code, Problem};
use super::refusals::{held, holder, no_lock, not_holder, seconds};
use crate::app::{Service, handoff};
use crate::domain::event::Author;
use crate::domain::event::Lost;
use crate::domain::handoff::{KnockReply, KnockRequest, Knocked, ReplyOutcome};
use crate::domain::knocks::Knock;
use crate::domain::{Fence, LockKind, MESSAGE_BYTES, SessionId, UserId, WorkspaceId};
use crate::error::Limit;
use crate::store::AsOf;
use crate::time::{LeaseClock, Timestamp};

/// Ask the holder for the lock
///
/// The holder sees the knock in the response to the next heartbeat, in the lock and in the events, and then hands
/// the lock over or declines.
///
/// If the holder is inactive until `auto_grant_at` (`locks.knock_grant_after`), the lock passes to the user who
/// knocked. That lease ends after `locks.claim_within` unless a heartbeat claims it. Each heartbeat with `active`
/// postpones `auto_grant_at` to `locks.knock_grant_after` from then, but not beyond `locks.knock_grant_at_latest`
/// after the knock (`auto_grant_at_latest_in_ms`; null without such a limit). The user who knocked sees the
/// postponement in the lock, in the response to a repeated knock, and in events `lock.knocked` with
/// `detail.outcome` `postponed`. These events are sent for the first postponement, for each half of
/// `locks.knock_grant_after`, and at the limit.
///
/// The holder answers one knock at a time: `auto_grant_at` is null while earlier knocks are pending, and both times
/// count from when the knock is shown to the holder. A repeat changes only the message. A declined user keeps their
/// place in the waiting line. A lock of the kind `run`, `terraform` or `lfs` does not pass by itself: `auto_grant_at` is
/// null. Nor does a person's lock pass to an agent. Knocks of people come before those of agents. A knock ends with the lease. 429 `knock_too_soon`: the holder has just declined
/// (`locks.knock_again_after`). 429 `rate_limited`: 20 knocks are pending.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnockForLock {
    workspace_id: WorkspaceId,
    /// Display name of the caller. Default: `X-User-Name`.
    name: Option<Name>,
    /// The kind of lock that the caller gets if it is handed over. Default: `edit`, or `agent` with an agent's token.
    kind: Option<RequestKind>,
    /// A message to the holder.
    message: Option<Text<MESSAGE_BYTES>>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
}

/// A pending knock.
#[derive(Serialize, JsonSchema)]
pub struct KnockAccepted<'a> {
    #[schemars(required)]
    knock: Option<KnockOut<'a>>,
    lock: LockOut<'a>,
}

impl Operation for KnockForLock {
    type Output = KnockAccepted<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let default = if call.caller.is_agent { LockKind::Agent } else { LockKind::Edit };
        let kind = self.kind.map_or(default, |kind| kind.0);
        let Holder { user_id, name, for_name } = call.holder(kind, self.name)?;
        let request = KnockRequest {
            workspace_id: self.workspace_id,
            kind,
            user_id: user_id.clone(),
            name,
            for_name,
            session_id: self.session_id,
            message: self.message.and_then(Text::not_empty),
            validity: call.caller.validity.clone(),
        };
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.knock(actor, request, done),
            move |at: &AsOf<Knocked>, clock| asked(&at.value, &user_id, kind, at.now, clock),
        )
    }
}

fn asked(
    outcome: &Knocked,
    by: &UserId,
    kind: LockKind,
    now: Timestamp,
    clock: &LeaseClock,
) -> Result<Response, Problem> {
    match outcome {
        Knocked::Pending(lock) => {
            let knocks = KnockOut::all(lock, now, clock);
            let is_theirs = |knock: &Knock| knock.user_id == *by && knock.kind.is_agent() == kind.is_agent();
            let knock = lock.knocks.pending.iter().zip(knocks).find(|(knock, _)| is_theirs(knock));
            let heard =
                KnockAccepted { knock: knock.map(|(_, shown)| shown), lock: LockOut::of(lock, now, clock) };
            Ok(with_status(202, &heard))
        }
        Knocked::NoLock => Err(Problem::new(Code::LockNotFound)
            .detail("Nobody holds this lock. Acquire it.")
            .with(&NoLock { lost: None })),
        Knocked::OwnLock(lock) => {
            let detail = "You hold this lock yourself.";
            Err(held(Code::KnockOnOwnLock, detail, lock, now, clock))
        }
        Knocked::TooSoon { lock, again } => {
            let wait = seconds(again.as_millis());
            Err(Problem::new(Code::KnockTooSoon)
                .detail(format!(
                    "{} has just kept the lock. You can ask again in {}.",
                    holder(lock),
                    humantime::format_duration(Duration::from_secs(wait))
                ))
                .with(&KnockTooSoon {
                    lock: LockOut::of(lock, now, clock),
                    again_in_ms: Integer(again.as_millis()),
                })
                .header("Retry-After", wait.to_string()))
        }
        Knocked::TooMany => Err(Problem::limited(Limit::Knocks, 30)),
    }
}

/// Hand the lock over to another user
///
/// For the holder. The new holder gets a new fence in the same transaction. The new lease ends after
/// `locks.claim_within` unless a heartbeat of the new holder claims it. A repeat after a lost response is answered
/// with the same lock, as long as it is live.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandOverLock {
    workspace_id: WorkspaceId,
    /// The user who gets the lock. Default: the one who knocked first.
    to_user_id: Option<UserId>,
    /// The lease that the caller holds.
    fence: Option<Fence>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
}

/// A lock that was handed over.
#[derive(Serialize, JsonSchema)]
pub struct HandedOver<'a> {
    #[schemars(extend("const" = true))]
    handed_over: bool,
    lock: LockOut<'a>,
}

impl Operation for HandOverLock {
    type Output = HandedOver<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let claim = claim(call, self.workspace_id, self.session_id, self.fence)?;
        let request = KnockReply { claim, user_id: self.to_user_id };
        let (actor, by) = (call.caller.actor(), author(call)?);
        Answer::of(
            service,
            |service, done| service.answer_knock(handoff::hand_over, actor, request, by, done),
            replied,
        )
    }
}

/// Decline a knock and keep the lock
///
/// For the holder. The next knock is shown then. The event `lock.knock_declined` tells the declined user when they
/// may knock again (`detail.again_in_ms`). `declined` is false if there was no knock, so a repeat is harmless.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclineKnock {
    workspace_id: WorkspaceId,
    /// The user whose knock is declined. Default: the one who knocked first.
    user_id: Option<UserId>,
    /// The lease that the caller holds.
    fence: Option<Fence>,
    /// Identifies the tab, device or process of the user.
    session_id: Option<SessionId>,
}

/// Whether there was a knock to decline.
#[derive(Serialize, JsonSchema)]
pub struct Declined {
    declined: bool,
}

impl Operation for DeclineKnock {
    type Output = Declined;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let claim = claim(call, self.workspace_id, self.session_id, self.fence)?;
        let request = KnockReply { claim, user_id: self.user_id };
        let (actor, by) = (call.caller.actor(), author(call)?);
        Answer::of(
            service,
            |service, done| service.answer_knock(handoff::decline, actor, request, by, done),
            |at: &AsOf<(ReplyOutcome, Option<Lost>)>, clock| match &at.value {
                // Declining twice is harmless, so the response is no error.
                (ReplyOutcome::NoKnock, _) => Ok(ok(&Declined { declined: false })),
                _ => replied(at, clock),
            },
        )
    }
}

fn author(call: &Call) -> Result<Author, Problem> {
    Ok(Author::new(call.user()?.clone(), call.caller.name.clone()))
}

fn replied(
    AsOf { now, value: (replied, lost) }: &AsOf<(ReplyOutcome, Option<Lost>)>,
    clock: &LeaseClock,
) -> Result<Response, Problem> {
    match replied {
        ReplyOutcome::HandedOver(lock) => {
            Ok(ok(&HandedOver { handed_over: true, lock: LockOut::of(lock, *now, clock) }))
        }
        ReplyOutcome::Declined(_) => Ok(ok(&Declined { declined: true })),
        ReplyOutcome::NoKnock => Err(Problem::invalid("to_user_id", "is missing, and nobody has knocked")),
        ReplyOutcome::NotAMember => Err(Problem::new(Code::NotAMember)
            .detail("This user is not an editor of the workspace and may not hold its lock.")),
        ReplyOutcome::OwnLock => Err(Problem::invalid("to_user_id", "is the holder")),
        ReplyOutcome::NotHolder { lock, same_user } => {
            Err(not_holder(lock, *same_user, lost.as_ref(), *now, clock))
        }
        ReplyOutcome::NoLock => Err(no_lock(lost.as_ref())),
    }
}
