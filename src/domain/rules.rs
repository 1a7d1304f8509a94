//! Decisions on locks, as pure functions. Each function takes the stored state, the request and the time. It
//! returns the change to store and the outcome to answer. It does no I/O. The app layer loads before and
//! writes after, in one transaction.
//!
//! 1. Due expiries and grants are applied first ([`due`]). An expired lease is gone before any operation.
//! 2. A free workspace goes to the longest waiter ([`super::waitlist`]), else to the first caller. The fence
//!    is greater than every earlier fence.
//! 3. An acquire by the holder renews the live lease. An acquire by the last holder resumes its expired lease
//!    with the same fence, if no other lease began in between.
//! 4. The live lease of another holder is never renewed, lengthened or ended, with four exceptions: a
//!    takeover, a revocation, a handover by its holder, or a knock that its holder left unanswered
//!    ([`super::handoff`]).
//! 5. A lease that is granted to an absent recipient must be claimed with a first renewal. Otherwise it ends
//!    soon.

use super::access::{Privilege, Rules, is_same_session};
use super::event::Ending;
use super::grants::{GrantTime, granted_lease, lease_for_knock, new_lease};
use super::knocks::Postponement;
use super::{
    Acquire, Acquired, Activity, Authority, Claim, Force, GrantState, Heartbeat, HeartbeatOutcome, LastLease,
    Lock, LockKind, Moment, Owner, Release, Released, SessionId, UserId, WorkspaceState,
};
use crate::time::{Timestamp, Ttl};

/// Change to store and the outcome to answer after it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<T> {
    /// The change.
    pub change: Change,
    /// The outcome.
    pub outcome: T,
}

/// Change to the lock of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// No change.
    Nothing,
    /// A new lease begins.
    Grant(Lock),
    /// An expired lease resumes.
    Reclaim(Lock),
    /// The live lease is renewed. Nothing changes but `renewed_at`, `last_active_at`, `expires_at` and `ttl`. Most
    /// heartbeats do this.
    Extend(Lock),
    /// The live lease is renewed or updated. It keeps its fence.
    Renew(Lock),
    /// Like `Renew`, with an event: the holder is active, so the grant to the first knock is postponed.
    Postpone(Lock),
    /// The live lease ends.
    End(Lock, Ending),
    /// The live lease ends by takeover and another begins.
    TakeOver {
        /// The lease that ends.
        previous: Lock,
        /// The lease that begins.
        lock: Lock,
        /// Whether the lease that ends is an agent's and yields to a person.
        yielded: bool,
    },
    /// The live lease ends and another begins, because the holder handed it over or left a knock unanswered.
    HandOver {
        /// The lease that ends.
        previous: Lock,
        /// The lease that begins.
        lock: Lock,
        /// Whether the holder asked for the handover.
        requested: bool,
    },
    /// A new knock on this lease, with this message.
    Knock(Lock, Option<String>),
    /// A pending knock on this lease is updated.
    UpdateKnock(Lock),
    /// The holder of this lease declines the knock of this user.
    Decline(Lock, UserId),
}

/// Returns the change that is due at `now`: a grant to the first knock, or the expiry. A change that is
/// noticed late gets the time at which it was due. The caller applies changes until this returns `Nothing`.
/// `waiting` is the waiting acquire of the first user who knocked, if there is one.
#[must_use]
pub fn due(
    lock: &Lock,
    waiting: Option<&Acquire>,
    rules: &Rules,
    Moment { now, next_fence, .. }: Moment,
) -> Change {
    match (lock.knocks.grant_at, lock.knocks.pending.first()) {
        (Some(grant_at), Some(knock)) if grant_at <= now && grant_at <= lock.expires_at => Change::HandOver {
            previous: lock.clone(),
            lock: lease_for_knock(
                knock,
                waiting,
                lock,
                rules,
                GrantTime { at: grant_at, told_at: now },
                next_fence,
            ),
            requested: false,
        },
        _ if lock.is_live(now) => Change::Nothing,
        _ => Change::End(lock.clone(), Ending::Expired),
    }
}

/// Decides an acquire.
#[must_use]
pub fn acquire(
    found: WorkspaceState,
    request: &Acquire,
    rules: &Rules,
    moment: Moment,
) -> Decision<Acquired> {
    let Moment { now, next_fence, .. } = moment;
    let (change, outcome) = match found {
        WorkspaceState::Free { last: Some(last) } if may_reclaim(request, &last, rules, moment) => {
            let lock = new_lease(request, rules, now, last.fence, last.drain_until);
            (Change::Reclaim(lock.clone()), Acquired::Reclaimed(lock))
        }
        WorkspaceState::Free { last } => {
            let drain_until = last.and_then(|last| last.drain_until);
            let lock = new_lease(request, rules, now, next_fence, drain_until);
            (Change::Grant(lock.clone()), Acquired::Acquired(lock))
        }
        WorkspaceState::Locked(lock)
            if owns(&request.user_id, request.kind, request.session_id.as_ref(), &lock, rules) =>
        {
            let lock = reacquired(lock, request, rules, now);
            (Change::Renew(lock.clone()), Acquired::Renewed(lock))
        }
        WorkspaceState::Locked(lock) => acquire_held(lock, request, rules, moment),
    };
    Decision { change, outcome }
}

/// Refuses a new lease if the user already has `live_locks` of this kind, at the limit of `locks_per_user`.
#[must_use]
pub fn within_limit(decision: Decision<Acquired>, live_locks: u32, rules: &Rules) -> Decision<Acquired> {
    match decision.change.begun_lease() {
        Some(lock) if live_locks >= rules.of(lock.kind).locks_per_user => {
            Decision { change: Change::Nothing, outcome: Acquired::TooMany }
        }
        Some(_) | None => decision,
    }
}

impl Change {
    /// The lease with which a caller or a waiter has one more lock. Handovers are not limited.
    #[must_use]
    pub const fn begun_lease(&self) -> Option<&Lock> {
        match self {
            Self::Grant(lock) | Self::TakeOver { lock, .. } | Self::Reclaim(lock) => Some(lock),
            Self::Nothing
            | Self::Extend(_)
            | Self::Renew(_)
            | Self::Postpone(_)
            | Self::End(..)
            | Self::HandOver { .. }
            | Self::Knock(..)
            | Self::UpdateKnock(_)
            | Self::Decline(..) => None,
        }
    }
}

/// Decides an acquire of a lock that another holder has.
fn acquire_held(lock: Lock, request: &Acquire, rules: &Rules, moment: Moment) -> (Change, Acquired) {
    let Moment { now, next_fence, .. } = moment;
    let may = rules.may_take_over(request.kind, lock.kind, request.privilege, idle(&lock, moment));
    match request.force {
        Force::No | Force::AnyHolder | Force::OnlyFence(_) if rules.yields(lock.kind, request.kind) => {
            let drain_until = lock.drain_after(Ending::TakenOver);
            take_over(lock, new_lease(request, rules, now, next_fence, drain_until), true)
        }
        Force::No => (Change::Nothing, held(lock, request, rules, moment)),
        Force::AnyHolder | Force::OnlyFence(_) if !may => {
            (Change::Nothing, Acquired::TakeoverForbidden(lock))
        }
        Force::OnlyFence(fence) if fence != lock.fence => (Change::Nothing, Acquired::FenceMismatch(lock)),
        Force::AnyHolder | Force::OnlyFence(_) => {
            let drain_until = lock.drain_after(Ending::TakenOver);
            take_over(lock, new_lease(request, rules, now, next_fence, drain_until), false)
        }
    }
}

fn take_over(previous: Lock, lock: Lock, yielded: bool) -> (Change, Acquired) {
    (
        Change::TakeOver { previous: previous.clone(), lock: lock.clone(), yielded },
        Acquired::TakenOver { lock, previous: Box::new(previous) },
    )
}

/// Decides that an agent's lease, which was granted to the agent, yields to a waiting person at once.
#[must_use]
pub fn yield_to_waiter(
    lock: Lock,
    waiting: &Acquire,
    rules: &Rules,
    Moment { now, next_fence, .. }: Moment,
) -> Decision<Acquired> {
    let drain_until = lock.drain_after(Ending::TakenOver);
    let begins = GrantTime::now(now);
    let lease = granted_lease(waiting, GrantState::ToSession, rules, begins, next_fence, drain_until);
    let outcome = Acquired::Acquired(lease.clone());
    Decision { change: Change::TakeOver { previous: lock, lock: lease, yielded: true }, outcome }
}

/// Outcome for a caller who cannot have the lock.
#[must_use]
pub fn held(lock: Lock, request: &Acquire, rules: &Rules, moment: Moment) -> Acquired {
    let idle = idle(&lock, moment);
    Acquired::Held {
        same_user: lock.user_id == request.user_id,
        takeover_allowed: rules.may_take_over(request.kind, lock.kind, request.privilege, idle),
        lock,
        idle,
    }
}

/// Idle time of the holder. Time before `opened_at` does not count, because the server could not receive
/// activity.
fn idle(lock: &Lock, Moment { now, opened_at, .. }: Moment) -> Ttl {
    Ttl::from_millis(now.since(lock.last_active_at.max(opened_at)))
}

/// Decides a heartbeat.
#[must_use]
pub fn heartbeat(
    found: WorkspaceState,
    request: &Heartbeat,
    rules: &Rules,
    now: Timestamp,
) -> Decision<HeartbeatOutcome> {
    let (change, outcome) = match found {
        WorkspaceState::Free { .. } => (Change::Nothing, HeartbeatOutcome::NoLock),
        WorkspaceState::Locked(lock)
            if lock.grant_state == GrantState::InDoubt && lock.user_id == request.claim.user_id =>
        {
            (Change::Nothing, HeartbeatOutcome::NoLock)
        }
        WorkspaceState::Locked(lock) if holds(&request.claim, &lock, rules) => {
            let knocks = &lock.knocks;
            let is_plain = lock.grant_state == GrantState::Claimed
                && knocks.grant_at.is_none()
                && knocks.grant_at_latest.is_none();
            let mut lock = renewed_lease(lock, request.ttl, rules, now);
            if lock.grant_state == GrantState::ToUser {
                lock.session_id.clone_from(&request.claim.session_id);
            }
            lock.grant_state = GrantState::Claimed;
            let postponed = match request.activity {
                Activity::Active => lock.knocks.postpone(lock.last_active_at, rules, now),
                Activity::Idle => Postponement::None,
            };
            if request.activity == Activity::Active {
                lock.last_active_at = now;
            }
            let change = match postponed {
                Postponement::None | Postponement::Silent if is_plain => Change::Extend(lock.clone()),
                Postponement::None | Postponement::Silent => Change::Renew(lock.clone()),
                Postponement::Announced => Change::Postpone(lock.clone()),
            };
            (change, HeartbeatOutcome::Renewed(lock))
        }
        WorkspaceState::Locked(lock) => {
            let same_user = lock.user_id == request.claim.user_id;
            (Change::Nothing, HeartbeatOutcome::NotHolder { lock, same_user })
        }
    };
    Decision { change, outcome }
}

/// Decides a release or a revocation.
#[must_use]
pub fn release(found: WorkspaceState, request: &Release, rules: &Rules) -> Decision<Released> {
    let claim = &request.claim;
    let (change, outcome) = match found {
        WorkspaceState::Free { .. } => (Change::Nothing, Released::Nothing),
        WorkspaceState::Locked(lock) if may_dispose(claim, &lock, rules) => {
            (Change::End(lock.clone(), Ending::Released), Released::Released(lock))
        }
        // An administrator who gives a fence means that lease only, not a later one.
        WorkspaceState::Locked(lock) if request.authority != Authority::Holder && claim.names(&lock) => {
            let takes_over =
                request.authority == Authority::TakesOver && rules.takeover.allows(request.privilege);
            if takes_over || request.privilege >= Privilege::WorkspaceAdmin {
                (Change::End(lock.clone(), Ending::Revoked), Released::Released(lock))
            } else {
                (Change::Nothing, Released::Forbidden(lock))
            }
        }
        WorkspaceState::Locked(lock) => {
            let same_user = lock.user_id == claim.user_id;
            (Change::Nothing, Released::NotHolder { lock, same_user })
        }
    };
    Decision { change, outcome }
}

/// Whether the caller may resume the last lease: it was the caller's own, it expired, and it expired recently
/// enough.
fn may_reclaim(request: &Acquire, last: &LastLease, rules: &Rules, moment: Moment) -> bool {
    last.ending == Ending::Expired
        && last.user_id == request.user_id
        && last.kind == request.kind
        && is_same_session(last.kind, last.session_id.as_ref(), request.session_id.as_ref())
        && last.ended_at >= moment.opened_at
        && moment.now <= last.ended_at.plus(rules.reclaim_within)
}

/// Whether this user owns a live lease of this kind, in this session.
#[must_use]
pub fn owns(
    user_id: &UserId,
    kind: LockKind,
    session_id: Option<&SessionId>,
    lock: &Lock,
    rules: &Rules,
) -> bool {
    lock.user_id == *user_id && lock.kind == kind && is_owner(session_id, lock, rules)
}

/// Whether a session of the holder owns the lease.
fn is_owner(session_id: Option<&SessionId>, lock: &Lock, rules: &Rules) -> bool {
    // A lease that is granted to a user belongs to the first session that claims it.
    lock.grant_state == GrantState::ToUser
        || rules.is_same_owner(lock.kind, lock.session_id.as_ref(), session_id)
}

/// Whether `lock` is the claimed lease. A fence identifies the lease. If the sessions of a user are separate
/// and the claim has no fence, the session must match.
pub(super) fn holds(claim: &Claim, lock: &Lock, rules: &Rules) -> bool {
    let session_id = claim.session_id.as_ref();
    let by_fence = session_id.is_none() && claim.fence.is_some();
    lock.user_id == claim.user_id && claim.names(lock) && (by_fence || is_owner(session_id, lock, rules))
}

/// Whether the claim may give the lease away or end it. A claim without a session and without a fence covers
/// any lease of the user, unless the session owns it.
pub(super) fn may_dispose(claim: &Claim, lock: &Lock, rules: &Rules) -> bool {
    let names_nothing = claim.session_id.is_none() && claim.fence.is_none();
    let covers_any = names_nothing && lock.kind.properties().owner != Owner::Session;
    (covers_any && lock.user_id == claim.user_id && claim.names(lock)) || holds(claim, lock, rules)
}

/// Renews a lease. If the sessions of a user share a lock, no session shortens it for another one. A release
/// still ends it.
fn renewed_lease(lock: Lock, requested: Option<Ttl>, rules: &Rules, now: Timestamp) -> Lock {
    let before = rules.ttl(lock.kind, None, lock.ttl);
    let ttl = rules.ttl(lock.kind, requested, before);
    let (ttl, expires_at) = if rules.is_shared(lock.kind) {
        (ttl.max(before), lock.expires_at.max(now.plus(ttl)))
    } else {
        (ttl, now.plus(ttl))
    };
    Lock { renewed_at: now, expires_at, ttl, ..lock }
}

/// Renews the holder's lease on an acquire. Fields that the request does not give stay unchanged.
fn reacquired(lock: Lock, request: &Acquire, rules: &Rules, now: Timestamp) -> Lock {
    let requested = rules.ttl(lock.kind, request.ttl, rules.of(lock.kind).default_ttl);
    let lock = renewed_lease(lock, Some(requested), rules, now);
    Lock {
        user_name: request.user_name.clone().or(lock.user_name),
        for_name: request.for_name.clone().or(lock.for_name),
        session_id: request.session_id.clone().or(lock.session_id),
        last_active_at: now,
        note: request.note.clone().or(lock.note),
        metadata: request.metadata.clone().unwrap_or(lock.metadata),
        grant_state: GrantState::Claimed,
        ..lock
    }
}
