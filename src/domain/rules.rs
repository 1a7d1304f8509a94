//! The rules of the product. Each function takes what is stored, what is asked and the time, and returns what is to
//! be stored and what is to be answered. Nothing else is read and nothing is done: the store loads before and writes
//! after, inside one transaction.
//!
//! 1. What is due is applied first ([`due`]): a lease whose end has come is gone before any operation.
//! 2. A free workspace goes to the one who waits longest ([`super::waitlist`]), else to the one who asks first, with a
//!    fence above every other.
//! 3. One's own live lease starts over; one's own expired lease comes back with its fence if nobody came between.
//! 4. Somebody else's live lease is never renewed, lengthened or ended but by a takeover or an administrator, by its
//!    holder's handing it over, or by its holder's leaving a knock unanswered ([`super::handoff`]).
//! 5. Whoever is given a lease while they are not asking for it claims it with a first renewal, soon, or it ends.

use super::access::{Privilege, Rules, SameUser};
use super::event::Ending;
use super::handoff::{Knocks, Postponed};
use super::{
    Acquire, Acquired, Activity, Authority, Beat, Claim, Fence, Force, Heartbeat, Hold, LastLease, Lock,
    Moment, Now, Release, Released, SessionId, UserId,
};
use crate::time::{Timestamp, Ttl};

/// What is to be stored, and what is to be answered once it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<T> {
    /// What changes.
    pub change: Change,
    /// The answer.
    pub outcome: T,
}

/// What changes on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// A new lease begins.
    Grant(Lock),
    /// An expired lease goes on.
    Reclaim(Lock),
    /// The live lease is replaced by this, which is the same lease.
    Renew(Lock),
    /// The same, and those who follow are told that its holder is at work: the first who knocked gets the lock later.
    Postpone(Lock),
    /// The live lease ends.
    End(Lock, Ending),
    /// The live lease ends and another begins.
    TakeOver {
        /// What ends.
        previous: Lock,
        /// What begins.
        lock: Lock,
    },
    /// The live lease ends and another begins, as its holder wanted, or did not say otherwise.
    HandOver {
        /// What ends.
        previous: Lock,
        /// What begins.
        lock: Lock,
        /// Whether the holder said so.
        asked: bool,
    },
    /// Somebody asks the holder of this lease for it, the last of its [`Knocks::pending`].
    Knock(Lock),
    /// Somebody who has asked for this lease says it in other words.
    Reword(Lock),
    /// The holder of this lease keeps it, though this user asked for it.
    Decline(Lock, UserId),
}

/// What time has done to a lock since it was written, at the time when it did: noticed late, it is what it would have been
/// then. It comes before everything else, as often as it changes something. `wish` is what the first who knocked asked
/// for, if they wait for the lock.
#[must_use]
pub fn due(lock: &Lock, wish: Option<Acquire>, rules: &Rules, Moment { now, fresh, .. }: Moment) -> Change {
    match (lock.knocks.grant_at, lock.knocks.pending.first()) {
        (Some(grant_at), Some(knock)) if grant_at <= now && grant_at <= lock.expires_at => Change::HandOver {
            previous: lock.clone(),
            lock: knock.granted(wish, lock, rules, Begins { at: grant_at, told: now }, fresh),
            asked: false,
        },
        _ if lock.is_live(now) => Change::Nothing,
        _ => Change::End(lock.clone(), Ending::Expired),
    }
}

/// Somebody wants the lock.
#[must_use]
pub fn acquire(found: Now, request: &Acquire, rules: &Rules, moment: Moment) -> Decision<Acquired> {
    let Moment { now, fresh, .. } = moment;
    let (change, outcome) = match found {
        Now::Free { last: Some(last) } if comes_back(request, &last, rules, moment) => {
            let lock = lease(request, rules, now, last.fence);
            (Change::Reclaim(lock.clone()), Acquired::Reclaimed(lock))
        }
        Now::Free { last: _ } => {
            let lock = lease(request, rules, now, fresh);
            (Change::Grant(lock.clone()), Acquired::Acquired(lock))
        }
        Now::Locked(lock) if owns(&request.user_id, request.session_id.as_ref(), &lock, rules) => {
            let lock = start_over(lock, request, rules, now);
            (Change::Renew(lock.clone()), Acquired::Renewed(lock))
        }
        Now::Locked(lock) => contend(lock, request, rules, moment),
    };
    Decision { change, outcome }
}

/// An acquire by a user who has so many live locks already: there are only so many that one can have.
#[must_use]
pub fn within_limit(decision: Decision<Acquired>, live_locks: u32, rules: &Rules) -> Decision<Acquired> {
    if decision.change.begins_a_lease() && live_locks >= rules.locks_per_user {
        return Decision { change: Change::Nothing, outcome: Acquired::TooMany };
    }
    decision
}

impl Change {
    /// Whether somebody has a lock more afterwards.
    #[must_use]
    pub const fn begins_a_lease(&self) -> bool {
        matches!(self, Self::Grant(_) | Self::TakeOver { .. } | Self::Reclaim(_))
    }
}

/// Somebody else has it.
fn contend(lock: Lock, request: &Acquire, rules: &Rules, moment: Moment) -> (Change, Acquired) {
    let Moment { now, fresh, .. } = moment;
    let may = rules.may_take_over(request.standing, idle(&lock, moment));
    match request.force {
        Force::No => (Change::Nothing, held(lock, request, rules, moment)),
        Force::Anyone | Force::Seen(_) if !may => (Change::Nothing, Acquired::TakeoverForbidden(lock)),
        Force::Seen(fence) if fence != lock.fence => (Change::Nothing, Acquired::FenceMismatch(lock)),
        Force::Anyone | Force::Seen(_) => {
            let (previous, lock) = (lock, lease(request, rules, now, fresh));
            (
                Change::TakeOver { previous: previous.clone(), lock: lock.clone() },
                Acquired::TakenOver { lock, previous: Box::new(previous) },
            )
        }
    }
}

/// What somebody is told who cannot have it.
#[must_use]
pub fn held(lock: Lock, request: &Acquire, rules: &Rules, moment: Moment) -> Acquired {
    let idle = idle(&lock, moment);
    Acquired::Held {
        same_user: lock.user_id == request.user_id,
        takeover_allowed: rules.may_take_over(request.standing, idle),
        lock,
        idle,
    }
}

/// For how long the holder has done nothing, though the server was there to be told.
fn idle(lock: &Lock, Moment { now, opened_at, .. }: Moment) -> Ttl {
    Ttl::from_millis(now.since(lock.last_active_at.max(opened_at)))
}

/// When a lease begins that is given to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begins {
    /// From then on it is theirs.
    pub at: Timestamp,
    /// When somebody who waits for it is told: the time to claim it runs from then.
    pub told: Timestamp,
}

impl Begins {
    /// At once.
    #[must_use]
    pub const fn now(now: Timestamp) -> Self {
        Self { at: now, told: now }
    }
}

/// The lease of somebody who waited for it, or was given it: it ends soon unless they claim it.
#[must_use]
pub fn given(request: &Acquire, hold: Hold, rules: &Rules, begins: Begins, fresh: Fence) -> Lock {
    let lease = lease(request, rules, begins.at, fresh);
    let expires_at = begins.told.plus(lease.ttl.min(rules.claim_within));
    Lock { expires_at, check_at: expires_at, hold, ..lease }
}

/// The holder renews the lease.
#[must_use]
pub fn heartbeat(found: Now, request: &Heartbeat, rules: &Rules, now: Timestamp) -> Decision<Beat> {
    let (change, outcome) = match found {
        Now::Free { .. } => (Change::Nothing, Beat::NoLock),
        Now::Locked(lock) if holds(&request.claim, &lock, rules) => {
            let mut lock = prolonged(lock, request.ttl, rules, now);
            if lock.hold == Hold::GivenToPerson {
                lock.session_id.clone_from(&request.claim.session_id);
            }
            lock.hold = Hold::Claimed;
            let postponed = match request.activity {
                Activity::Active => lock.knocks.postpone(lock.last_active_at, rules, now),
                Activity::Idle => Postponed::No,
            };
            if request.activity == Activity::Active {
                lock.last_active_at = now;
            }
            let change = match postponed {
                Postponed::No | Postponed::Untold => Change::Renew(lock.clone()),
                Postponed::Told => Change::Postpone(lock.clone()),
            };
            (change, Beat::Renewed(lock))
        }
        Now::Locked(lock) => {
            let same_user = lock.user_id == request.claim.user_id;
            (Change::Nothing, Beat::NotHolder { lock, same_user })
        }
    };
    Decision { change, outcome }
}

/// A lease is given back, or ended by an administrator.
#[must_use]
pub fn release(found: Now, request: &Release, rules: &Rules) -> Decision<Released> {
    let claim = &request.claim;
    let (change, outcome) = match found {
        Now::Free { .. } => (Change::Nothing, Released::Nothing),
        Now::Locked(lock) if disposes(claim, &lock, rules) => {
            (Change::End(lock.clone(), Ending::Released), Released::Released(lock))
        }
        // A lease that has moved on is not what they wanted to end.
        Now::Locked(lock) if request.authority == Authority::Administrator && claim.names(&lock) => {
            if request.standing >= Privilege::WorkspaceAdmin {
                (Change::End(lock.clone(), Ending::Revoked), Released::Released(lock))
            } else {
                (Change::Nothing, Released::Forbidden(lock))
            }
        }
        Now::Locked(lock) => {
            let same_user = lock.user_id == claim.user_id;
            (Change::Nothing, Released::NotHolder { lock, same_user })
        }
    };
    Decision { change, outcome }
}

/// Whether the caller was the last to have a lease here and only lost it to time, not too long ago.
fn comes_back(request: &Acquire, last: &LastLease, rules: &Rules, moment: Moment) -> bool {
    last.ending == Ending::Expired
        && last.user_id == request.user_id
        && last.session_id == request.session_id
        && last.ended_at >= moment.opened_at
        && moment.now <= last.ended_at.plus(rules.reclaim_within)
}

/// Whether a live lease is that of this user, in this session.
#[must_use]
pub fn owns(user_id: &UserId, session_id: Option<&SessionId>, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == *user_id
        && match rules.same_user {
            SameUser::Share => true,
            SameUser::Separate => lock.session_id.as_ref() == session_id || is_of_any_session(lock),
        }
}

/// Whether a live lease is the one that is claimed. A fence names it for sure; where the sessions of one person are
/// separate and no fence is given, the session must be the lease's.
pub(super) fn holds(claim: &Claim, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == claim.user_id
        && claim.names(lock)
        && match (rules.same_user, &claim.session_id, claim.fence) {
            (SameUser::Share, _, _) | (SameUser::Separate, None, Some(_)) => true,
            (SameUser::Separate, session_id @ Some(_), _) | (SameUser::Separate, session_id @ None, None) => {
                lock.session_id == *session_id || is_of_any_session(lock)
            }
        }
}

/// Whether whoever claims a live lease may give it away. What a person gives away without naming a lease or a session is
/// whatever they have.
pub(super) fn disposes(claim: &Claim, lock: &Lock, rules: &Rules) -> bool {
    let names_nothing = claim.session_id.is_none() && claim.fence.is_none();
    (names_nothing && lock.user_id == claim.user_id) || holds(claim, lock, rules)
}

/// Whether none of its holder's sessions has it yet.
fn is_of_any_session(lock: &Lock) -> bool {
    lock.hold == Hold::GivenToPerson
}

/// The lease that `request` gets.
fn lease(request: &Acquire, rules: &Rules, now: Timestamp, fence: Fence) -> Lock {
    let ttl = rules.ttl(request.ttl, rules.default_ttl);
    Lock {
        workspace_id: request.workspace_id.clone(),
        user_id: request.user_id.clone(),
        user_name: request.user_name.clone(),
        session_id: request.session_id.clone(),
        fence,
        acquired_at: now,
        renewed_at: now,
        last_active_at: now,
        expires_at: now.plus(ttl),
        ttl,
        note: request.note.clone(),
        metadata: request.metadata.clone().unwrap_or_else(|| "{}".to_owned()),
        hold: Hold::Claimed,
        knocks: Knocks::default(),
        check_at: now.plus(ttl),
    }
}

/// The same lease, renewed. Where the sessions of one person share a lock, none of them shortens what another one relies
/// on; releasing it still ends it.
fn prolonged(lock: Lock, asked: Option<Ttl>, rules: &Rules, now: Timestamp) -> Lock {
    let before = rules.ttl(None, lock.ttl);
    let ttl = rules.ttl(asked, before);
    let (ttl, expires_at) = match rules.same_user {
        SameUser::Share => (ttl.max(before), lock.expires_at.max(now.plus(ttl))),
        SameUser::Separate => (ttl, now.plus(ttl)),
    };
    Lock { renewed_at: now, expires_at, ttl, ..lock }
}

/// The same lease from now on. What the request does not say stays as it was.
fn start_over(lock: Lock, request: &Acquire, rules: &Rules, now: Timestamp) -> Lock {
    let asked = rules.ttl(request.ttl, rules.default_ttl);
    let lock = prolonged(lock, Some(asked), rules, now);
    Lock {
        user_name: request.user_name.clone().or(lock.user_name),
        session_id: request.session_id.clone().or(lock.session_id),
        last_active_at: now,
        note: request.note.clone().or(lock.note),
        metadata: request.metadata.clone().unwrap_or(lock.metadata),
        hold: Hold::Claimed,
        ..lock
    }
}
