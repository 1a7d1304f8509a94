//! Knocks and handovers: a caller asks the holder for the lock. The holder hands it over or declines. If the
//! holder does not answer, the lock is granted to the first knock.
//!
//! Knocks belong to a lease and end with it. The holder is shown one knock at a time, in order of arrival.
//! The time limit of a knock starts when it is shown.

use super::access::Rules;
use super::event::{Ending, Lost};
use super::grants::{GrantTime, granted_lease, lease_for_knock};
use super::knocks::{Declined, Knock, MAX_KNOCKS};
use super::rules::{Change, Decision, may_dispose, owns};
use super::token::Validity;
use super::waitlist::Recipient;
use super::{
    Acquire, Claim, DisplayName, GrantState, Lock, LockKind, Moment, SessionId, UserId, WorkspaceId,
    WorkspaceState,
};
use crate::time::{Timestamp, Ttl};

/// Request to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnockRequest {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Kind of the lock that the caller asks for.
    pub kind: LockKind,
    /// Id of the caller.
    pub user_id: UserId,
    /// Display name of the caller.
    pub name: Option<DisplayName>,
    /// For an agent: display name of the user for whom it acts.
    pub for_name: Option<DisplayName>,
    /// Session of the caller.
    pub session_id: Option<SessionId>,
    /// Message to the holder.
    pub message: Option<String>,
    /// How long the credentials of the caller are valid.
    pub validity: Validity,
}

/// Outcome of an [`KnockRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knocked {
    /// The knock is pending. The holder is shown it when the knocks before it are answered. A repeated knock
    /// only updates the pending one.
    Pending(Lock),
    /// The workspace is free.
    NoLock,
    /// The caller holds the lock.
    OwnLock(Lock),
    /// The holder declined this caller recently.
    TooSoon {
        /// The live lock.
        lock: Lock,
        /// Time until the caller may knock again.
        again: Ttl,
    },
    /// The lease has [`MAX_KNOCKS`] knocks already.
    TooMany,
}

/// Decides a knock.
#[must_use]
pub fn knock(
    found: WorkspaceState,
    request: &KnockRequest,
    rules: &Rules,
    now: Timestamp,
) -> Decision<Knocked> {
    let nothing = |outcome| Decision { change: Change::Nothing, outcome };
    let mut lock = match found {
        WorkspaceState::Free { .. } => return nothing(Knocked::NoLock),
        WorkspaceState::Locked(lock)
            if owns(&request.user_id, request.kind, request.session_id.as_ref(), &lock, rules) =>
        {
            return nothing(Knocked::OwnLock(lock));
        }
        WorkspaceState::Locked(lock) => lock,
    };
    let knocks = &mut lock.knocks;
    knocks.declined.retain(|declined| declined.retry_in(rules, now).is_some());
    let is_agent = request.kind.is_agent();
    if let Some(again) = knocks.retry_in(&request.user_id, is_agent, rules, now) {
        return nothing(Knocked::TooSoon { lock, again });
    }
    let is_theirs =
        |knock: &&mut Knock| knock.user_id == request.user_id && knock.kind.is_agent() == is_agent;
    if let Some(knock) = knocks.pending.iter_mut().find(is_theirs) {
        knock.kind = request.kind;
        knock.name = request.name.clone().or(knock.name.take());
        knock.for_name = request.for_name.clone().or(knock.for_name.take());
        knock.session_id = request.session_id.clone().or(knock.session_id.take());
        knock.message = request.message.clone().or(knock.message.take());
        knock.validity = request.validity.clone();
        return Decision { change: Change::UpdateKnock(lock.clone()), outcome: Knocked::Pending(lock) };
    }
    if knocks.count_for(request.kind) >= MAX_KNOCKS {
        return nothing(Knocked::TooMany);
    }
    let knock = Knock {
        kind: request.kind,
        user_id: request.user_id.clone(),
        name: request.name.clone(),
        for_name: request.for_name.clone(),
        session_id: request.session_id.clone(),
        message: request.message.clone(),
        knocked_at: now,
        validity: request.validity.clone(),
    };
    knocks.add(knock, lock.kind, rules, now);
    let change = Change::Knock(lock.clone(), request.message.clone());
    Decision { change, outcome: Knocked::Pending(lock) }
}

/// Answer of the holder to a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnockReply {
    /// The claimed lease.
    pub claim: Claim,
    /// User who gets the answer; the first who knocked if `None`.
    pub user_id: Option<UserId>,
}

/// Outcome of a [`KnockReply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// The lock is granted to the recipient, who must claim it.
    HandedOver(Lock),
    /// The holder keeps the lock. The user who knocked is told.
    Declined(Lock),
    /// No knock is pending.
    NoKnock,
    /// The recipient is the holder.
    OwnLock,
    /// The recipient may not hold the lock.
    NotAMember,
    /// The live lock is not the claimed one.
    NotHolder {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user, with another lease or session.
        same_user: bool,
    },
    /// No live lock.
    NoLock,
}

/// Recipient of `lock` by this reply. `None` if the reply names no user and no knock is pending.
#[must_use]
pub fn recipient<'a>(lock: &'a Lock, request: &'a KnockReply) -> Option<Recipient<'a>> {
    match (knock_of(lock, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => Some(Recipient::of(knock)),
        (None, to) => {
            to.as_ref().map(|user_id| Recipient { kind: LockKind::Edit, user_id, session_id: None })
        }
    }
}

/// Decides a handover. `may_hold` tells whether the named recipient may hold the lock. `waiting` is the waiting
/// acquire of the [`recipient`], if there is one.
#[must_use]
pub fn hand_over(
    found: WorkspaceState,
    request: &KnockReply,
    may_hold: bool,
    waiting: Option<&Acquire>,
    rules: &Rules,
    Moment { now, next_fence, .. }: Moment,
) -> Decision<ReplyOutcome> {
    if !may_hold && matches!(&found, WorkspaceState::Locked(lock) if lock.user_id == request.claim.user_id) {
        // Only the holder learns that the recipient is not a member.
        return Decision { change: Change::Nothing, outcome: ReplyOutcome::NotAMember };
    }
    let previous = match claimed_lock(found, &request.claim, rules) {
        Ok(lock) => lock,
        Err(outcome) => return Decision { change: Change::Nothing, outcome: *outcome },
    };
    let lock = match (knock_of(&previous, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => {
            lease_for_knock(knock, waiting, &previous, rules, GrantTime::now(now), next_fence)
        }
        (None, None) => return Decision { change: Change::Nothing, outcome: ReplyOutcome::NoKnock },
        // The holder can hand over to another of their own sessions only if that session knocked.
        (None, Some(to)) if *to == previous.user_id => {
            return Decision { change: Change::Nothing, outcome: ReplyOutcome::OwnLock };
        }
        (None, Some(to)) => {
            let new = Acquire::new(previous.workspace_id.clone(), to.clone());
            let (request, state) =
                waiting.map_or((&new, GrantState::ToUser), |own| (own, GrantState::ToSession));
            let drain_until = previous.drain_after(Ending::HandedOver);
            granted_lease(request, state, rules, GrantTime::now(now), next_fence, drain_until)
        }
    };
    let outcome = ReplyOutcome::HandedOver(lock.clone());
    Decision { change: Change::HandOver { previous, lock, requested: true }, outcome }
}

/// Whether this handover was already carried out and led to the live `lock`. A holder repeats the request
/// when the answer got lost. `lost` is the end of the holder's last lease.
#[must_use]
pub fn was_handed_over(request: &KnockReply, lost: &Lost, lock: &Lock, rules: &Rules) -> bool {
    let claim = &request.claim;
    let is_their_session =
        rules.is_shared(lost.kind) || claim.session_id.is_none() || claim.session_id == lost.session_id;
    lost.ending == Ending::HandedOver
        && lost.by_user_id.as_ref() == Some(&claim.user_id)
        && lost.next_fence == Some(lock.fence)
        && is_their_session
        && claim.fence.is_none_or(|fence| fence == lost.fence)
        && request.user_id.as_ref().is_none_or(|to| *to == lock.user_id)
}

/// Decides a decline: the holder keeps the lock for now.
#[must_use]
pub fn decline(
    found: WorkspaceState,
    request: &KnockReply,
    rules: &Rules,
    now: Timestamp,
) -> Decision<ReplyOutcome> {
    let mut lock = match claimed_lock(found, &request.claim, rules) {
        Ok(lock) => lock,
        Err(outcome) => return Decision { change: Change::Nothing, outcome: *outcome },
    };
    let Some(position) = position(&lock, request.user_id.as_ref()) else {
        return Decision { change: Change::Nothing, outcome: ReplyOutcome::NoKnock };
    };
    let knock = lock.knocks.pending.remove(position);
    lock.knocks.declined.push(Declined { kind: knock.kind, user_id: knock.user_id.clone(), at: now });
    if position == 0 {
        lock.knocks.show_first(lock.kind, rules, now);
    }
    // A decline comes from a person, so it counts as activity.
    lock.last_active_at = now;
    Decision { change: Change::Decline(lock.clone(), knock.user_id), outcome: ReplyOutcome::Declined(lock) }
}

/// Returns the live lock if the claim covers it.
fn claimed_lock(found: WorkspaceState, claim: &Claim, rules: &Rules) -> Result<Lock, Box<ReplyOutcome>> {
    match found {
        WorkspaceState::Free { .. } => Err(Box::new(ReplyOutcome::NoLock)),
        WorkspaceState::Locked(lock) if may_dispose(claim, &lock, rules) => Ok(lock),
        WorkspaceState::Locked(lock) => {
            let same_user = lock.user_id == claim.user_id;
            Err(Box::new(ReplyOutcome::NotHolder { lock, same_user }))
        }
    }
}

/// Pending knock of this user; the first one if `user_id` is `None`.
fn knock_of<'a>(lock: &'a Lock, user_id: Option<&UserId>) -> Option<&'a Knock> {
    position(lock, user_id).and_then(|position| lock.knocks.pending.get(position))
}

/// Position of this user's pending knock; of the first one if `user_id` is `None`.
fn position(lock: &Lock, user_id: Option<&UserId>) -> Option<usize> {
    lock.knocks.pending.iter().position(|knock| user_id.is_none_or(|user_id| knock.user_id == *user_id))
}
